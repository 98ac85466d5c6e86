"""`refrain hear --explain`: an explanation as a table on the terminal, and as a picture in a file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.client import Explanation
from gateway.explain_picture import picture, summary


def picture_path(recording: Path, chosen: Path | None) -> Path:
    """Where the picture goes: beside nothing of the caller's, unless it was chosen. Raises ValueError for a kind of
    picture that is not drawn."""
    path = Path(f"{recording.stem}.explain.svg") if chosen is None else chosen
    if path.suffix.lower() != ".svg":
        raise ValueError(f"--picture {path}: pictures are drawn as SVG; name a file that ends in .svg")
    return path


def print_explanation(told: Explanation) -> None:
    """What was decided, and a row for each candidate."""
    console = Console()
    console.print(told.describe(), markup=False, highlight=False)
    console.print(summary(told), markup=False, highlight=False)
    if not told.candidates:
        return
    table = Table("", "words", "why", box=None, pad_edge=False)
    for name in ("score", "similarity", "distance", "offset", "worst at"):
        table.add_column(name, justify="right")
    for number, one in enumerate(told.candidates, 1):
        numbers = [f"{one.similarity:.2f}", f"{one.distance:.3f}"]
        if one.score is None:
            row = ["", "", numbers[1], "", ""]
        else:
            row = [f"{one.score:+.1f}", *numbers, f"{one.offset_s:+.3f} s", f"{one.worst_here_s:.2f} s"]
        words = one.transcript if one.remembered else "(no longer stored)"
        table.add_row(str(number), escape(words), one.describe(), *row)
    console.print(table, highlight=False)


def draw(told: Explanation, recording: Path) -> bytes:
    """The picture's file."""
    return picture(told, recording.name).encode()
