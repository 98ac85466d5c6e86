"""What the acoustic model learns from: phones with word starts, frames a phone, the shared mel, pitch and loudness.

Made once from a corpus (see `corpus`) into shards in a cache folder, so that a run that resumes starts at once.
"""

from __future__ import annotations

import difflib
import itertools
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr
from tqdm import tqdm

from models.mel import log_mel
from models.pronounce import CODES, EMBEDDED, PAUSE, PHONES, join, unpack_lexicon
from models.training.corpus import TEACHERS, read_index
from models.training.vocoder_pitch import track
from models.utterance import MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Samples

VOICES = tuple(name.replace("kal16", "kal") for name in TEACHERS)
"""The ids are the places."""
SHARD = 500


@dataclass(frozen=True)
class Item:
    """One utterance. N phones, T frames of 256 / 22,050 s."""

    symbols: npt.NDArray[np.int64]
    """[N]; place in PHONES, plus len(PHONES) where a word starts."""
    frames: npt.NDArray[np.int64]
    """[N], sums to T."""
    mel: npt.NDArray[np.float16]
    """[T, 80]."""
    pitch: Samples
    """[T], natural log of Hz, interpolated where nothing is voiced."""
    voiced: npt.NDArray[np.bool_]
    voice: int
    plain: bool
    """Whether the teacher spoke in its own pitch and rate, so that the predictors may learn from it."""
    dev: bool
    text: str

    @property
    def energy(self) -> Samples:
        """[T], natural log of the summed mel."""
        mel = self.mel.astype(np.float32)
        return np.asarray(np.log(np.exp(mel).sum(axis=1)), np.float32)


def read_lexicon(folder: Path = EMBEDDED) -> dict[str, tuple[str, ...]]:
    """Word to phones."""
    codes = unpack_lexicon((folder / "lexicon.txt.gz").read_bytes())
    return {word: tuple(PHONES[CODES.index(code)] for code in phones) for word, phones in codes.items()}


def word_starts(text: str, spoken: Sequence[str], lexicon: dict[str, tuple[str, ...]]) -> list[bool]:
    """Which of the teacher's phones starts a word: the lexicon's phones of the text laid along what was spoken."""
    words = re.findall("[a-z']+", text.lower())
    found = join([lexicon.get(word, lexicon.get(word.removesuffix("'s"), ("?",))) for word in words])
    marked = [(phone, n == 0) for phones in found for n, phone in enumerate(phones)]
    sounding = [n for n, phone in enumerate(spoken) if phone != PAUSE]
    starts = [False] * len(spoken)
    matcher = difflib.SequenceMatcher(None, [p for p, _ in marked], [spoken[n] for n in sounding], autojunk=False)
    for block in matcher.get_matching_blocks():
        for k in range(block.size):
            starts[sounding[block.b + k]] = marked[block.a + k][1]
    return [start or (n > 0 and spoken[n - 1] == PAUSE and spoken[n] != PAUSE) for n, start in enumerate(starts)]


def symbols_of(phones: Sequence[str], starts: Sequence[bool]) -> npt.NDArray[np.int64]:
    """The ids the model takes."""
    return np.array([PHONES.index(p) + len(PHONES) * s for p, s in zip(phones, starts, strict=True)], np.int64)


def frames_of_ends(ends: Sequence[float], total: int) -> npt.NDArray[np.int64]:
    """Frames a phone by rounding the running sum, so that no error adds up; what is left goes to the last."""
    edges = np.minimum(np.round(np.asarray(ends) * MEL_RATE / MEL_HOP), total).astype(np.int64)
    edges[-1] = total
    return np.diff(edges, prepend=0)


def _make(task: tuple[Path, dict[str, Any], dict[str, tuple[str, ...]]]) -> Item:
    corpus, entry, lexicon = task
    samples, rate = sf.read(corpus / entry["path"], dtype="float32")
    assert rate == RECOGNIZER_RATE
    wave = soxr.resample(samples, rate, MEL_RATE)
    mel = log_mel(wave)
    pitch = track(wave)
    phones = entry["phones"]
    return Item(
        symbols_of(phones, word_starts(entry["text"], phones, lexicon)),
        frames_of_ends(entry["ends"], mel.shape[1]),
        mel.T.astype(np.float16),
        np.log(pitch.f0).astype(np.float32),
        pitch.voiced,
        VOICES.index(entry["voice"].replace("kal16", "kal")),
        entry["pitch"] == entry["stretch"] == 1.0,
        entry["split"] == "dev",
        entry["text"],
    )


def prepare(corpus: Path, cache: Path, processes: int, limit: int | None = None) -> None:
    """Writes the shards that are missing, of the first `limit` utterances. The corpus must be whole, or later shards
    would hold other utterances."""
    cache.mkdir(parents=True, exist_ok=True)
    lexicon = read_lexicon()
    entries: list[dict[str, Any]] = [e for e in read_index(corpus / "index.jsonl") if e["phones"]][:limit]
    shards = [entries[n : n + SHARD] for n in range(0, len(entries), SHARD)]
    with multiprocessing.Pool(processes) as pool, tqdm(total=len(entries), desc="features", mininterval=5.0) as bar:
        for number, shard in enumerate(shards):
            path = cache / f"{number:04d}.npz"
            if not path.exists():
                items = pool.imap(
                    _make, zip(itertools.repeat(corpus), shard, itertools.repeat(_needed(shard, lexicon)))
                )
                save(path, list(items))
            bar.update(len(shard))


def _needed(shard: Sequence[dict[str, Any]], lexicon: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The part of the lexicon that these texts use, so that little travels to the other processes."""
    words = {word for entry in shard for word in re.findall("[a-z']+", entry["text"].lower())}
    words |= {word.removesuffix("'s") for word in words}
    return {word: lexicon[word] for word in words if word in lexicon}


def save(path: Path, items: Sequence[Item]) -> None:
    """One shard: everything end to end, with the counts to cut it again. Appears under its name only when whole."""
    part = path.with_suffix(".part.npz")
    np.savez(
        part,
        counts=np.array([[len(i.symbols), len(i.mel), i.voice, i.plain, i.dev] for i in items], np.int64),
        symbols=np.concatenate([i.symbols for i in items]),
        frames=np.concatenate([i.frames for i in items]),
        mel=np.concatenate([i.mel for i in items]),
        pitch=np.concatenate([i.pitch for i in items]),
        voiced=np.concatenate([i.voiced for i in items]),
        texts=np.array([i.text for i in items]),
    )
    part.rename(path)


def load(cache: Path) -> Iterator[Item]:
    """Every utterance of the shards that are there, in the folder and in folders within."""
    for path in sorted(p for p in cache.rglob("*.npz") if not p.name.endswith(".part.npz")):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        n = t = 0
        for (phones, frames, voice, plain, dev), text in zip(arrays["counts"], arrays["texts"], strict=True):
            in_phones, in_frames = slice(n, n + phones), slice(t, t + frames)
            n, t = n + phones, t + frames
            yield Item(
                arrays["symbols"][in_phones],
                arrays["frames"][in_phones],
                arrays["mel"][in_frames],
                arrays["pitch"][in_frames],
                arrays["voiced"][in_frames],
                int(voice),
                bool(plain),
                bool(dev),
                str(text),
            )
