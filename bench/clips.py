"""The recordings a bench measures with: a folder with index.csv, or of any FLAC and WAV files, and parts of it."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from bench.codecs import RATE
from models.training.recognizer_data import share
from models.utterance import Samples

TOLD: Final = ("lang", "sex", "gender", "accent")
"""Columns by which figures are split where a folder has them."""
SOUNDS: Final = (".flac", ".wav")

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording, or a stretch of one: `start` to `end` are samples of the recording `path`."""

    path: str
    kind: str
    speaker: str
    """The path where nobody is named: a recording by itself."""
    text: str
    """Equal where the same is said in the same language; the path where no text is known."""
    pcm: Pcm
    told: tuple[tuple[str, str], ...]
    """(column, value) of TOLD."""
    start: int
    end: int

    @property
    def samples(self) -> Samples:
        """float32 [n] in -1..1, 16 kHz."""
        return np.asarray(self.pcm.astype(np.float32) / 32768, dtype=np.float32)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / RATE

    def differs(self, other: Clip) -> bool:
        """Whether something else is said: another text, or another moment of the same recording."""
        if self.path == other.path:
            return self.end <= other.start or other.end <= self.start
        return self.text != other.text


@dataclass(frozen=True, slots=True)
class Choice:
    """Which clips of a folder: every second speaker, some kinds, speakers by the share of their name."""

    half: int | None = None
    kinds: tuple[str, ...] = ()
    unseen: tuple[float, float] | None = None


def read_folder(folder: Path, choice: Choice, noise: bool) -> list[Clip]:
    """Clips of `folder` by its index.csv (or its parent's), or every FLAC and WAV in it where there is none.

    Where a kind does not tell its speakers, `half` and `unseen` go by clips. What holds no sample is left out, and of
    noise what is silent. ValueError where nothing is left, and for a file that is no sound.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    root = folder if (folder / "index.csv").exists() else folder.parent
    listed: list[dict[str, str]] = []
    if (root / "index.csv").exists():
        with (root / "index.csv").open(newline="", encoding="utf-8-sig") as file:
            index = csv.DictReader(file)
            if "path" not in (index.fieldnames or ()):
                raise ValueError(f"{root / 'index.csv'}: has no column 'path', which must say which file is meant")
            listed = [row for row in index if (root / row["path"]).is_relative_to(folder)]
        listed = [row | {name: row.get(name) or "" for name in ("kind", "speaker", "text")} for row in listed]
    rows = [row for row in listed if (row["kind"] == "noise") == noise]
    if not rows and noise:  # of kinds with other names, but never somebody's words
        rows = [row for row in listed if not row["text"]]
    if not listed:
        root = folder
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUNDS)
        rows = [{"path": str(path.relative_to(root)), "kind": "", "speaker": "", "text": ""} for path in paths]
    if choice.kinds and not noise:
        kinds = sorted({row["kind"] for row in rows})
        if unknown := set(choice.kinds) - set(kinds):
            raise ValueError(f"--kinds {', '.join(sorted(unknown))}: not in {folder}; there are {', '.join(kinds)}")
        rows = [row for row in rows if row["kind"] in choice.kinds]
    clips = [_clip(root, row) for row in _chosen(rows, choice)]
    clips = [clip for clip in clips if (clip.pcm.any() if noise else len(clip.pcm))]
    if not clips:
        raise ValueError(f"{folder}: no {'noise' if noise else 'speech'} is left to measure with")
    return clips


def _chosen(rows: Sequence[dict[str, str]], choice: Choice) -> list[dict[str, str]]:
    kinds: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row)
    chosen = []
    low, high = choice.unseen or (0.0, 1.0)
    for kind in kinds.values():
        speakers = {name: number for number, name in enumerate(sorted({row["speaker"] for row in kind}))}
        for number, row in enumerate(kind):
            named = len(speakers) > 1
            order = speakers[row["speaker"]] if named else number
            if choice.half in (None, order % 2) and low <= share(row["speaker"] if named else row["path"]) < high:
                chosen.append(row)
    return chosen


def _clip(root: Path, row: dict[str, str]) -> Clip:
    try:
        samples, rate = soundfile.read(root / row["path"], dtype="float32", always_2d=True)
    except soundfile.SoundFileError as problem:
        raise ValueError(str(problem)) from problem
    mono = samples.mean(axis=1)
    if rate != RATE:
        mono = soxr.resample(mono, rate, RATE)
    pcm = np.clip(np.round(mono * 32768), -32768, 32767).astype(np.int16)
    text = f"{row.get('lang', '')}:{row['text']}" if row.get("text") else row["path"]
    told = tuple((column, row[column]) for column in TOLD if row.get(column))
    return Clip(row["path"], row["kind"], row.get("speaker") or row["path"], text, pcm, told, 0, len(pcm))


def windows(clips: Sequence[Clip], count: int, rng: np.random.Generator) -> list[Clip]:
    """About `count` stretches of 2 to 8 s of the clips of more than 2 s, spread evenly over all that is said."""
    long = [clip for clip in clips if clip.seconds > 2.0]
    step = sum(clip.seconds for clip in long) / max(count, 1)
    found = []
    for clip in long:
        starts = np.arange(rng.uniform(0, step), clip.seconds - 2.0, step)
        for start in (starts * RATE).astype(int):
            end = min(len(clip.pcm), int(start + rng.uniform(2.0, 8.0) * RATE))
            found.append(replace(clip, pcm=clip.pcm[start:end], start=int(start), end=end))
    return found
