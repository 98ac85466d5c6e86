"""The judge of takes laid over each other: pairs of takes to learn from, questions to choose its threshold by.

Both are of real people, twice: as they spoke and backwards. Speech backwards is a language that nobody speaks, with
the same people, rooms and differences from take to take, so that judge and threshold have seen more than one
vocabulary. The frames are those of maps that have not seen the speaker.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from models.respoken import LOOKED_AT, Take, ruled
from models.respoken_path import DIMENSIONS, Judge, evidence, lay
from models.utterance import Samples

WEIGHT: Final = 0.3
"""Of the rival's log odds in the score."""
WRONG: Final = 0.005
COMPARED: Final = 24
"""Takes of its speaker that a take is compared with, beside all those of the same text."""
SAME_SHARE: Final = 0.2
"""Of the pairs learned from that are of one text, as they are weighted."""
UNITS: Final = 64
STEPS, BATCH, RATE, DECAY, DROPPED = 1500, 512, 3e-3, 1e-2, 0.1


@dataclass(frozen=True, slots=True)
class Heard:
    """One take, as a session would keep it."""

    speaker: str
    text: str
    number: float
    """Of the takes of this text; the least is remembered."""
    take: Take


@dataclass(frozen=True, slots=True)
class Question:
    """A query of a session, with what speaks for each of the takes near it."""

    near: npt.NDArray[np.int64]
    apart: Samples
    found: Samples
    meanings: tuple[str, ...]
    text: str

    def answered(self, judge: Judge) -> tuple[float, bool]:
        """The score of the likeliest take, and whether it is right."""
        match = ruled(self.near, self.apart, judge(self.found), self.meanings, WEIGHT)
        return match.score, self.meanings[match.number] == self.text


def by_speaker(heard: Sequence[Heard]) -> list[list[Heard]]:
    found: dict[str, list[Heard]] = defaultdict(list)
    for one in heard:
        found[one.speaker].append(one)
    return [found[speaker] for speaker in sorted(found)]


def pairs_of(heard: Sequence[Heard], seed: int) -> tuple[Samples, npt.NDArray[np.bool_]]:
    """Evidence [pairs, EVIDENCE] of takes by one speaker, and whether they are of one text."""
    rng = random.Random(seed)
    found, same = [], []
    for takes in by_speaker(heard):
        for number, one in enumerate(takes):
            others = [other for other in takes[:number] if other.text == one.text]
            rest = [other for other in takes[:number] if other.text != one.text]
            others += rng.sample(rest, min(COMPARED, len(rest)))
            if others:
                found.append(compared(one.take, [other.take for other in others]))
                same += [other.text == one.text for other in others]
    return np.concatenate(found), np.array(same)


def compared(query: Take, takes: Sequence[Take]) -> Samples:
    """Evidence for each of the takes."""
    laid = lay(query[:, :DIMENSIONS], [take[:, :DIMENSIONS] for take in takes])
    return evidence(query, takes, laid)


def questions_of(heard: Sequence[Heard], parities: Sequence[int] = (0, 1)) -> list[Question]:
    """Of sessions as `bench.respoken` makes them, with either half of the words remembered."""
    found = []
    for takes in by_speaker(heard):
        texts: dict[str, list[Heard]] = defaultdict(list)
        for one in takes:
            texts[one.text].append(one)
        first = {text: min(said, key=lambda one: one.number) for text, said in texts.items()}
        order = sorted(texts)
        for kept in ([first[text] for text in order[parity::2]] for parity in parities):
            meanings = tuple(one.text for one in kept)
            for one in (one for one in takes if kept and one is not first[one.text]):
                laid = lay(one.take[:, :DIMENSIONS], [other.take[:, :DIMENSIONS] for other in kept])
                near = np.sort(np.argsort(laid.mean, kind="stable")[:LOOKED_AT])
                shown = evidence(one.take, [kept[number].take for number in near], laid.only(near))
                found.append(Question(near, laid.mean[near], shown, meanings, one.text))
    return found


def fit(found: Samples, same: npt.NDArray[np.bool_], seed: int) -> Judge:
    """A judge of pairs."""
    torch.manual_seed(seed)
    mean, spread = found.mean(0), found.std(0) + 1e-6
    known = torch.from_numpy(np.clip((found - mean) / spread, -4.0, 4.0).astype(np.float32))
    wanted = torch.from_numpy(same.astype(np.float32))
    often = torch.where(wanted > 0, SAME_SHARE / wanted.sum(), (1 - SAME_SHARE) / (1 - wanted).sum())
    hidden, out = nn.Linear(found.shape[1], UNITS), nn.Linear(UNITS, 1)
    parameters = [*hidden.parameters(), *out.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    order = torch.multinomial(often, STEPS * BATCH, replacement=True).view(STEPS, BATCH)
    for chosen in order:
        odds = out(functional.dropout(functional.silu(hidden(known[chosen])), DROPPED)).squeeze(1)
        loss = functional.binary_cross_entropy_with_logits(odds, wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    arrays = [array.detach().numpy() for array in (hidden.weight.T, hidden.bias, out.weight[0], out.bias)]
    weight, bias, last, odds = (np.ascontiguousarray(array, np.float32) for array in arrays)
    return Judge(mean.astype(np.float32), spread.astype(np.float32), weight, bias, last, float(odds[0]))


def threshold_of(scores: Sequence[tuple[float, bool]]) -> float:
    """The lowest score from which on at most WRONG of the answers are wrong."""
    ordered = sorted(scores, reverse=True)
    wrong = np.cumsum([not right for _, right in ordered])
    fine = np.flatnonzero(wrong / np.arange(1, len(ordered) + 1) <= WRONG)
    return float(ordered[fine[-1]][0]) if len(fine) else float(ordered[0][0]) + 1e-3


def judged(
    parts: Sequence[Sequence[Heard]], seed: int, tell: Callable[[dict[str, object]], None]
) -> tuple[Judge, float]:
    """A judge of all parts' takes, and the threshold for the answers of speakers unseen: each part is asked with a
    judge of the others."""
    learned = [pairs_of(part, seed) for part in parts]
    scores: list[tuple[float, bool]] = []
    for number, part in enumerate(parts):
        others = [pair for other, pair in enumerate(learned) if other != number]
        judge = fit(np.concatenate([found for found, _ in others]), np.concatenate([same for _, same in others]), seed)
        scores += [question.answered(judge) for question in questions_of(part)]
        tell({"part": number, "pairs": len(learned[number][1]), "asked": len(scores)})
    judge = fit(np.concatenate([found for found, _ in learned]), np.concatenate([same for _, same in learned]), seed)
    return judge, threshold_of(scores)
