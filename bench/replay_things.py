"""What the records of a trace stand for: texts in voices and moods, recordings, noisy copies of them, other takes.

A trace that `refrain trace synth` made tells by its header how it was made, so what each digest was is asked anew. Of a
recorded one only this is known: records of one `input` say the same, and a recording that was answered by a fuzzy hit
resembled an earlier one. Which, no record tells: it is drawn. Two digests never become one request: where words, voice
and mood are the same (another model, format or language was asked), the speed tells them apart, by a thousandth.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.replay_inputs import METHODS, Item, sentence
from bench.trace_frames import Rows, name_of
from bench.trace_synth import Said, Shape, said
from gateway.stats import HIT_FUZZY, UNLIKE, WITHHELD

FIELDS: Final = ("time_us", "digest", "input", "voice", "emotion", "task", "status", "cause")
TEXT, MEL, RECORDING, COPY, TAKE = "text", "mel", "recording", "noisy copy", "another take"
TAKES_DIFFER: Final = 0.1
"""A recording is spoken up to this much faster or slower than another of the same words, by a voice of its own."""


@dataclass(frozen=True, slots=True)
class Cast:
    """By whom and how things are said."""

    voices: Sequence[str]
    moods: Sequence[str]
    phrases: Sequence[tuple[str, int]] = ()
    """What is said; the commonest first."""
    task: str = "synthesize"
    """Of records that name none, or none that can be replayed."""
    snr_db: float = 20.0
    """Of noisy copies."""
    match: str = "trace"
    """Which recordings ask for fuzzy answers: those of which a record says so, none ("exact"), or all ("fuzzy")."""


@dataclass(frozen=True, slots=True)
class Things:
    """Everything that is asked for, and by whom; all but `asks` of the same length."""

    asks: npt.NDArray[np.int32]
    """[n], of each record which of the items."""
    items: tuple[Item, ...]
    kinds: tuple[str, ...]
    digests: tuple[int, ...]
    """As the trace has them."""
    lead: tuple[int, ...]
    """Of each the first item that says its words."""


def remade(header: dict[str, Any], rows: Rows, phrases: Sequence[tuple[str, int]]) -> Said | None:
    """What a synthesized trace was made from, None of others. Raises ValueError when it is not made again so."""
    made = header.get("synthesized")
    if not made:
        return None
    other = "the trace was made from other phrases, or by another version: give --phrases as it had them"
    try:
        options = {one.name: made[one.name] for one in dataclasses.fields(Shape)}
        seed = int(made["seed"])
    except KeyError:
        raise ValueError(other) from None
    found = said(Shape(**options), seed, phrases, np.random.default_rng(seed))
    if not np.isin(rows["digest"], found.digest).all():
        raise ValueError(other)
    return found


def things_of(rows: Rows, cast: Cast, seed: int, known: Said | None = None) -> Things:
    """`rows` has FIELDS, in the order of sending."""
    keys = rows[["digest", "voice", "emotion", "task"]]
    kinds, first, asks = np.unique(keys, return_index=True, return_inverse=True)
    made = list(_known(kinds, known, cast, seed) if known else _recorded(rows, kinds, first, asks, cast, seed))
    fuzzy = _fuzzy(rows, asks, len(kinds), cast.match)
    seen: Counter[Item] = Counter()
    items: list[Item] = []
    for (item, _), wanted in zip(made, fuzzy.tolist(), strict=True):
        one = replace(item, fuzzy=wanted and item.task == "recognize")
        seen[one] += 1
        items.append(replace(one, speed=one.speed + (seen[one] - 1) / 1000) if seen[one] > 1 else one)
    leads: dict[tuple[str, str], int] = {}
    return Things(
        asks.astype(np.int32),
        tuple(items),
        tuple(kind for _, kind in made),
        tuple(kinds["digest"].tolist()),
        tuple(leads.setdefault((item.task, item.text), number) for number, item in enumerate(items)),
    )


def _fuzzy(rows: Rows, asks: npt.NDArray[Any], count: int, match: str) -> npt.NDArray[np.bool_]:
    if match != "trace":
        return np.full(count, match == "fuzzy")
    asked = (rows["status"] == HIT_FUZZY) | np.isin(rows["cause"], (UNLIKE, WITHHELD))
    return np.bincount(asks, asked, count) > 0


def _known(kinds: Rows, known: Said, cast: Cast, seed: int) -> Iterator[tuple[Item, str]]:
    """Of a synthesized trace."""
    digests, at = np.unique(known.digest, return_index=True)
    asked = known.asked
    firsts: dict[int, int] = {}
    for request in np.flatnonzero(known.heard).tolist():
        firsts.setdefault(int(asked.phrase[request]), int(known.recording[request]))
    for digest in kinds["digest"].tolist():
        request = int(at[np.searchsorted(digests, digest)])
        phrase = int(asked.phrase[request])
        rank = int(asked.rank[phrase])
        text = cast.phrases[rank][0] if rank < len(cast.phrases) else sentence(phrase)
        if not known.heard[request]:
            voice, mood = int(known.voice[request]), int(known.mood[request])
            yield Item("synthesize", text, _turn(cast.voices, voice), _turn(cast.moods, mood)), TEXT
            continue
        copied = int(known.copied[request])
        recording = copied if copied >= 0 else int(known.recording[request])
        item = _spoken(text, cast, (seed, phrase, recording))
        if copied >= 0:
            yield replace(item, noise=digest, snr_db=cast.snr_db), COPY
        else:
            yield item, RECORDING if recording == firsts[phrase] else TAKE


def _recorded(
    rows: Rows, kinds: Rows, first: npt.NDArray[Any], asks: npt.NDArray[Any], cast: Cast, seed: int
) -> Iterator[tuple[Item, str]]:
    """Of a trace that a gateway wrote, or that holds less."""
    inputs = np.zeros(len(kinds), np.uint64)
    np.maximum.at(inputs, asks, rows["input"])  # a hit's record has none
    words = np.where(inputs > 0, inputs, kinds["digest"])
    said_once, at = np.unique(words, return_inverse=True)
    commonest = np.argsort(-np.bincount(at, np.bincount(asks, minlength=len(kinds))), kind="stable")
    texts = {int(said_once[index]): text for index, (text, _) in zip(commonest, cast.phrases, strict=False)}
    voices, moods = (np.unique(kinds[name], return_inverse=True)[1] for name in ("voice", "emotion"))
    tasks = [name if name in METHODS else cast.task for name in (name_of("task", code) for code in kinds["task"])]
    copied = (rows["status"][first] == HIT_FUZZY) & np.array([task == "recognize" for task in tasks], bool)
    originals: list[Item] = []
    made: dict[int, tuple[Item, str]] = {}
    rng = np.random.default_rng(seed)
    for number in np.argsort(first, kind="stable").tolist():
        task, said_as = tasks[number], int(words[number])
        text = texts.get(said_as) or sentence(said_as)
        if task == "recognize":
            if copied[number] and originals:
                item = originals[int(rng.integers(len(originals)))]
                made[number] = replace(item, noise=int(kinds["digest"][number]), snr_db=cast.snr_db), COPY
                continue
            item = _spoken(text, cast, (seed, said_as))
            originals.append(item)
            made[number] = item, RECORDING
        else:
            voice, mood = _turn(cast.voices, int(voices[number])), _turn(cast.moods, int(moods[number]))
            made[number] = Item(task, text, voice, mood), TEXT if task == "synthesize" else MEL
    return (made[number] for number in range(len(kinds)))


def _turn(names: Sequence[str], number: int) -> str:
    return names[number % len(names)] if names else ""


def _spoken(text: str, cast: Cast, take: tuple[int, ...]) -> Item:
    """A recording of the text; another take has another voice, mood and speed."""
    rng = np.random.default_rng(take)
    voice, mood = (_turn(names, int(rng.integers(1 << 16))) for names in (cast.voices, cast.moods))
    speed = 1 + float(rng.uniform(-TAKES_DIFFER, TAKES_DIFFER))
    return Item("recognize", text, voice, mood, speed=round(speed, 4))
