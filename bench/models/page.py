"""The page docs/models/README.md: every figure beside its target, the pictures, and what was measured on what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, TypeGuard

from bench.models.targets import TARGETS, Report

PICTURES: Final = {
    "synthesizer": (
        ("spectrogram-synthesizer.png", "A teacher and this synthesizer say one sentence"),
        ("moods.png", "The pitch of one sentence in five moods, and what the moods do to every voice"),
    ),
    "vocoder": (("spectrogram-vocoder.png", "A recording, the vocoder's and Griffin-Lim's wave from its mel"),),
    "recognizer": (("word-confusion.png", "Words said and words heard"),),
    "voice encoder": (("eer-by-dimension.png", "Equal error rate by how many dimensions are compared"),),
    "emotion encoder": (),
    "all models": (),
}
CARDS: Final = {
    "synthesizer": ("acoustic", "g2p"),
    "vocoder": ("vocoder",),
    "recognizer": ("recognizer",),
    "voice encoder": ("speaker",),
    "emotion encoder": ("emotion",),
}
COMMAND: Final = "python -m bench.models --speech DIR --noise DIR --json OUT --docs docs/models"
RESULT: Final = {True: "yes", False: "**no**", None: ""}


def write_page(report: Report, docs: Path, embedded: Path, options: str = "") -> None:
    """Writes docs/README.md; pictures that are not in `docs` are left out. `options`: more of the command."""
    lines = [
        "# Models: figures",
        "",
        f"Written by `{COMMAND}{options}`",
        f"on {_machine()}. Do not edit: run it again.",
        "",
        "Intervals are 95 %: speakers (sentences, where machines speak) drawn anew. People were measured only where",
        "the training of the model at hand had not heard them, unless marked †. Data, licences and limits are in the",
        "cards; the JSON has all breakdowns by voice, sex, accent and language that the data allows.",
        "",
    ]
    for part, pictures in PICTURES.items():
        table = _table(part, report)
        if not table:
            continue
        lines += [f"## {part[0].upper()}{part[1:]}", "", *table]
        cards = [f"[{name}]({_relative(embedded / name / 'card.md', docs)})" for name in CARDS.get(part, ())]
        if cards:
            lines += [f"{'Cards' if len(cards) > 1 else 'Card'}: {', '.join(cards)}.", ""]
        lines += _notes(part, report)
        for name, caption in pictures:
            if (docs / name).is_file():
                lines += [f"![{caption}]({name})", ""]
    (docs / "README.md").write_text("\n".join(lines).rstrip() + "\n", "utf-8")


def _table(part: str, report: Report) -> list[str]:
    rows = ["| figure | measured | 95 % | target | reached |", "|---|---|---|---|---|"]
    for figure in report.figures.figures:
        if not figure.name.startswith(f"{part}: "):
            continue
        target = TARGETS.get(figure.name)
        bounds = report.intervals.get(figure.name)
        mark = " †" if figure.name in report.trained_on else ""
        rows.append(
            f"| {figure.name.removeprefix(f'{part}: ')}{mark} | {_value(figure.value, figure.unit)} "
            f"| {f'{_number(bounds[0], figure.unit)} to {_number(bounds[1], figure.unit)}' if bounds else ''} "
            f"| {_asked(figure.name)} | {RESULT[figure.holds] if target else ''} |"
        )
    for name, why in report.missing.items():
        if name.startswith(f"{part}: "):
            rows.append(f"| {name.removeprefix(f'{part}: ')} | {why} | | {_asked(name)} | |")
    return [*rows, ""] if len(rows) > 2 else []


def _asked(name: str) -> str:
    target = TARGETS.get(name)
    if target is None:
        return ""
    sign = "≥" if target.better == "higher" else "≤"
    stretch = f" (stretch {_number(target.stretch, target.unit)})" if target.stretch is not None else ""
    return f"{sign} {_value(target.value, target.unit)}{stretch}"


def _value(value: float, unit: str) -> str:
    short = _number(value, unit)
    return short if unit.startswith("share") else f"{short} {unit}"


def _number(value: float, unit: str) -> str:
    if unit.startswith("share"):
        return f"{100 * value:.1f} %" if abs(value) < 0.9995 else f"{100 * value:.0f} %"
    return f"{value:.3g}"


def _notes(part: str, report: Report) -> list[str]:
    """What the context tells beside the figures, but for the longest table."""
    told = report.figures.context.get(part, {}).items()
    lines = [f"- {key}: {_flat(value, '; ')}" for key, value in told if key != "moods by voice"]
    return [*lines, ""] if lines else []


def _flat(value: object, between: str = ", ") -> str:
    if isinstance(value, dict):
        inner = {name: f"({_flat(one)})" if isinstance(one, dict) else _flat(one) for name, one in value.items()}
        return between.join(f"{name} {one}" for name, one in inner.items())
    return " to ".join(map(str, value[1:])) if _is_share(value) else _list(value)


def _is_share(value: object) -> TypeGuard[list[float]]:
    """What `wilson` gives: a share and its interval."""
    return isinstance(value, list) and len(value) == 3 and all(isinstance(one, float) for one in value)


def _list(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()


def _machine() -> str:
    cores = os.cpu_count() or 1
    shared = " shared" if os.getloadavg()[0] > cores else ""
    return f"{cores}{shared} cores"
