"""A folder of recordings by its index.csv: rows by kind, which of them our training has seen, and their samples.

    python -m bench.models.folder DIR

writes seen.txt: hashes of every speaker (or clip, where speakers are not told) of the folder that the shipped models
were trained with. A folder that shares none of them is measured whole; of one that does, only what training held out.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr

from models.training.recognizer_data import share
from models.utterance import RECOGNIZER_RATE, Samples

SEEN: Final = Path(__file__).parent / "seen.txt"
NEEDED: Final = ("path", "kind", "speaker", "text", "emotion", "lang")
TOLD: Final = ("sex", "gender", "accent", "age")
"""Columns that a folder may have beside; figures are broken down by those that are there."""
HELD_OUT_COMMANDS: Final = 0.12
"""Share of speakers' names below which the recognizer's training left them out (`recognizer_data.load_real`)."""
HELD_OUT_NOISE: Final = 0.12
HELD_OUT_VOICES: Final = 0.14
"""The same of the voice encoder (`speaker_data.TEST`)."""
HELD_OUT_READERS: Final = 20
"""How many of the seen readers, those whose names hash lowest, the vocoder left out (`vocoder_data.held_out`)."""


class FolderError(ValueError):
    """The folder is not of the form that this measures; says what is missing where."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recording. What the folder does not tell is empty."""

    path: Path
    name: str
    """The path as the index has it."""
    kind: str
    speaker: str
    text: str
    emotion: str
    lang: str
    seconds: float
    seen: bool
    """Whether the shipped models' training folder holds it; some of those were held out all the same."""
    told: dict[str, str]

    @property
    def english(self) -> bool:
        return self.lang.lower().split("-")[0] == "en"

    def is_a(self, *kinds: str) -> bool:
        """Whether its kind is one of these, whatever language follows (commands, commands_en)."""
        return self.kind.split("_")[0] in kinds


def read_rows(folder: Path) -> list[Row]:
    """Every row of folder/index.csv; where only the parent has one, its rows that lie in `folder`.

    Raises `FolderError`.
    """
    root = folder if (folder / "index.csv").is_file() else folder.resolve().parent
    index = root / "index.csv"
    if not folder.is_dir() or not index.is_file():
        raise FolderError(f"{folder}: no index.csv in it or above; its columns must be {', '.join(NEEDED)}")
    with index.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        if missing := [column for column in NEEDED if column not in (table.fieldnames or ())]:
            raise FolderError(f"{index}: column {', '.join(missing)} is missing; needed are {', '.join(NEEDED)}")
        raw = [{key: value or "" for key, value in line.items() if key} for line in table]
    inside = [line for line in raw if root == folder or (root / line["path"]).is_relative_to(folder.resolve())]
    rows = [_row(root, line) for line in inside]
    if not rows:
        raise FolderError(f"{index}: lists no recordings in {folder}")
    for row in rows:
        if not row.path.is_file():
            raise FolderError(f"{index}: {row.name} is listed, but there is no such file")
    return rows


def _row(root: Path, line: dict[str, str]) -> Row:
    path = root / line["path"]
    try:
        seconds = float(line.get("seconds") or soundfile.info(path).duration)
    except (ValueError, OSError, soundfile.LibsndfileError) as problem:
        raise FolderError(f"{root / 'index.csv'}: seconds of {line['path']}: {problem}") from problem
    told = {column: line[column] for column in TOLD if line.get(column)}
    return Row(
        path,
        line["path"],
        line["kind"],
        line["speaker"],
        line["text"],
        line["emotion"],
        line["lang"],
        seconds,
        key_of(line) in seen_keys(),
        told,
    )


def key_of(line: dict[str, str]) -> str:
    """What a row is remembered by: its kind's speaker, or where speakers are not told, itself."""
    told = line["speaker"] or f"{line['path']} {line['text']} {line.get('seconds', '')}"
    return hashlib.sha256(f"{line['kind']}: {told}".encode()).hexdigest()[:8]


@cache
def seen_keys() -> frozenset[str]:
    return frozenset(SEEN.read_text("ascii").split()) if SEEN.is_file() else frozenset()


def remember(folder: Path) -> int:
    """Writes seen.txt from the rows of `folder` that are marked `train`; returns how many keys."""
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        keys = sorted({key_of(line) for line in csv.DictReader(file) if line["use"] == "train"})
    lines = [" ".join(keys[n : n + 13]) for n in range(0, len(keys), 13)]
    SEEN.write_text("\n".join(lines) + "\n", "ascii")
    return len(keys)


# ------------------------------------------------------------------------------------- what each model did not train on


def commands_unheard(row: Row) -> bool:
    """Whether the recognizer's training left the speaker of a command out."""
    return not row.seen or share(row.speaker) < HELD_OUT_COMMANDS


def noise_unheard(row: Row) -> bool:
    return not row.seen or share(row.name) < HELD_OUT_NOISE


def voice_unheard(row: Row) -> bool:
    """Whether the voice encoder's training left the speaker out."""
    return not row.seen or share(row.speaker) < HELD_OUT_VOICES


def reading_unheard(rows: Sequence[Row]) -> Callable[[Row], bool]:
    """Of these rows, which ones the vocoder's training left out."""
    names = {row.speaker for row in rows if row.seen and row.is_a("speakers")}
    out = set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:HELD_OUT_READERS])
    return lambda row: not row.seen or (row.is_a("speakers") and row.speaker in out)


def is_reading(row: Row) -> bool:
    """English sentences by real people: no single words, acted emotion or noise."""
    return row.english and row.seconds >= 2.0 and not row.is_a("commands", "digits", "emotion", "noise")


# ------------------------------------------------------------------------------------------------------------- samples


def sound(row: Row, rate: int = RECOGNIZER_RATE) -> Samples:
    """The mean of its channels at `rate`: float32 [n] within -1..1. Raises `FolderError` for an unreadable file."""
    try:
        samples, own_rate = soundfile.read(row.path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as problem:
        raise FolderError(f"{row.path}: {problem}") from problem
    mono = samples.mean(axis=1)
    return np.asarray(mono if own_rate == rate else soxr.resample(mono, own_rate, rate, quality="VHQ"), np.float32)


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` rows: by turns one of every speaker, always the same ones."""
    turns: dict[str, int] = {}
    order: list[tuple[int, int, Row]] = []
    for row in sorted(rows, key=lambda row: share(row.name)):
        order.append((turns.get(row.speaker, 0), len(order), row))
        turns[row.speaker] = turns.get(row.speaker, 0) + 1
    return [row for _, _, row in sorted(order, key=lambda item: item[:2])[:count]]


if __name__ == "__main__":
    print(f"{SEEN.name}: {remember(Path(sys.argv[1]))} speakers and clips")
