"""The engines of this gateway: by task and model name, the first of a task being its default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from models.engine import Engine


@dataclass(slots=True)
class Engines:
    """`by_task`: task name to model name to engine."""

    by_task: Mapping[str, Mapping[str, Engine]] = field(default_factory=dict)

    def of(self, task: str, model: str = "") -> Engine:
        """The engine of that name, or the task's default. Names have been checked when the request was decoded."""
        engines = self.by_task[task]
        return engines[model] if model else next(iter(engines.values()))

    def __iter__(self) -> Iterator[Engine]:
        return (engine for engines in self.by_task.values() for engine in engines.values())
