"""Every figure that has to be reached, by its plain name, and the collector that measurements go into."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bench.figures import Figure, Figures
from bench.models.chance import Interval

Better = Literal["higher", "lower"]
DIMENSIONS: Final = (8, 16, 32, 64, 128, 256)
FALLS: Final = {8: 4.3, 16: 2.3, 32: 1.4, 64: 1.15, 128: 1.02}
"""How many times its error at 256 dimensions M-Vec (arXiv 2409.15782) makes at fewer."""


@dataclass(frozen=True, slots=True)
class Target:
    unit: str
    value: float
    better: Better = "lower"
    stretch: float | None = None


TARGETS: Final[dict[str, Target]] = {
    "synthesizer: voices": Target("voices", 8, "higher"),
    "synthesizer: moods": Target("moods", 5, "higher"),
    "synthesizer: word error rate over the teachers'": Target("times", 1.25),
    "synthesizer: moods in order by F0 mean": Target("share of pairs", 1.0, "higher"),
    "synthesizer: moods in order by F0 range": Target("share of pairs", 1.0, "higher"),
    "synthesizer: moods in order by rate": Target("share of pairs", 1.0, "higher"),
    "synthesizer: moods in order by energy": Target("share of pairs", 1.0, "higher"),
    "vocoder: PESQ above Griffin-Lim's": Target("PESQ", 0.5, "higher"),
    "vocoder: STFT distance over Griffin-Lim's": Target("times", 1.0),
    "vocoder: streamed against whole, largest difference": Target("of full scale", 1e-4),
    "vocoder: CPU a second of speech, whole": Target("s", 0.05),
    "vocoder: CPU a second of speech, streamed": Target("s", 0.05),
    "recognizer: word error rate, unseen sentences of teacher voices": Target("share", 0.08),
    "recognizer: commands right": Target("share", 0.80, "higher", 0.90),
    "recognizer: commands right at 10 dB of noise": Target("share", 0.65, "higher"),
    "recognizer: CPU a second of speech, whole": Target("s", 0.08),
    "recognizer: CPU a second of speech, streamed": Target("s", 0.08),
    "recognizer: streams that end as the whole": Target("share", 1.0, "higher"),
    "recognizer: words with sane times": Target("share", 1.0, "higher"),
    "voice encoder: equal error rate at 256": Target("share", 0.12, "lower", 0.08),
    "voice encoder: equal error rate at 8": Target("share", 0.25, "lower", 0.15),
    **{f"voice encoder: error at {d} over that at 256": Target("times", fall) for d, fall in FALLS.items()},
    "emotion encoder: area under the curve, high against low arousal": Target("AUC", 0.80, "higher"),
    "emotion encoder: area above F0 and energy statistics": Target("AUC", 0.0, "higher"),
    "all models: size": Target("MB", 60),
}


@dataclass(slots=True)
class Report:
    """Figures with intervals, and for those that could not be measured, why."""

    figures: Figures = field(default_factory=Figures)
    intervals: dict[str, Interval] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)
    """Names of figures that clips which were trained on are part of."""

    def measured(self, name: str, value: float, interval: Interval | None = None, *, seen: bool = False) -> None:
        """A figure of TARGETS."""
        target = TARGETS[name]
        self._add(Figure(name, float(value), target.unit, None, target.value, target.better), interval, seen)

    def told(
        self,
        name: str,
        value: float,
        unit: str,
        interval: Interval | None = None,
        *,
        baseline: float | None = None,
        better: Better = "lower",
        seen: bool = False,
    ) -> None:
        """A figure that nothing is asked of."""
        self._add(Figure(name, float(value), unit, baseline, None, better), interval, seen)

    def _add(self, figure: Figure, interval: Interval | None, seen: bool) -> None:
        if not math.isfinite(figure.value):
            self.missing[figure.name] = "no data: what there is gives no number"
            return
        self.figures.add(figure)
        if interval is not None and all(map(math.isfinite, interval)):
            self.intervals[figure.name] = interval
        if seen:
            self.trained_on.append(figure.name)

    def lacks(self, start: str, why: str) -> None:
        """Says why every figure of TARGETS whose name starts so is not there."""
        found = {figure.name for figure in self.figures.figures}
        for name in TARGETS:
            if name.startswith(start) and name not in found:
                self.missing.setdefault(name, f"no data: {why}")

    def context(self, part: str, **what: Any) -> None:
        """Adds to what is said of a part beside its figures: what it was measured on, and how it breaks down."""
        self.figures.context.setdefault(part, {}).update(what)

    def value(self, name: str) -> float | None:
        return next((figure.value for figure in self.figures.figures if figure.name == name), None)
