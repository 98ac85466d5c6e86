"""What a report is made of, whatever it is shown in: sentences, tables and plots, in sections."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.stats import human_seconds


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str]
    """The first is text, the others are numbers."""
    rows: Sequence[Sequence[str]]
    title: str = ""
    text_columns: int = 1


@dataclass(frozen=True, slots=True)
class Plot:
    svg: str
    title: str


@dataclass(frozen=True, slots=True)
class Points:
    """Sentences, each to be read for itself."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Tile:
    value: str
    name: str


Document = Mapping[str, Any]
"""Of `report_document`."""
Part = Table | Plot | Points | str


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    parts: Sequence[Part]


def share(value: float, digits: int = 1) -> str:
    return f"{value * 100:.{digits}f} %"


def duration(seconds: float) -> str:
    """As `human_seconds`, of what may be below 0."""
    return f"-{human_seconds(-seconds)}" if seconds < 0 else human_seconds(seconds)


def number(value: float) -> str:
    return f"{value:,.0f}"


def utc(seconds: float) -> str:
    """Of seconds since 1970."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
