"""The form every benchmark writes: named figures with unit, baseline, target and whether the target holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import rich
from rich.table import Table

from bench.machine import machine


@dataclass(slots=True)
class Figure:
    """One measured number. `target` is compared as `better` says; without a target nothing has to hold."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    target: float | None = None
    better: Literal["higher", "lower"] = "lower"

    @property
    def holds(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


@dataclass(slots=True)
class Figures:
    """Collects figures and what they were measured on."""

    context: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)

    def write(self, path: Path | None) -> None:
        """Prints a table, and writes JSON where a path is given."""
        table = Table("figure", "value", "unit", "baseline", "target", "holds")
        for figure in self.figures:
            holds = {True: "yes", False: "NO", None: ""}[figure.holds]
            table.add_row(
                figure.name, _short(figure.value), figure.unit, _short(figure.baseline), _short(figure.target), holds
            )
        rich.print(table)
        if path is not None:
            rows = [{**asdict(figure), "holds": figure.holds} for figure in self.figures]
            context = {**machine(), **self.context}
            path.write_text(json.dumps({"figures": rows, "context": context}, indent=2) + "\n")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
