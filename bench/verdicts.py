"""How often the judge of audits is wrong himself: on true answers, and on wrong ones.

    python -m bench.verdicts --speech DIR --noise DIR [--half 0|1] [--json OUT] [--plot DIR]

Remembered is what the embedded recognizer reads in the clean clip; heard is a distorted copy of that clip (the answer
is right), of another one, or of the same speech with one word spliced out for another (it is wrong). The judge is that
of the request path. Weights and limits were fitted on half 0.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy.stats import beta
from tqdm import tqdm

from bench.clips import Choice, Clip, read_folder
from bench.codecs import RATE
from bench.distort import Random, Surroundings, copy_of
from bench.figures import Figure, Figures
from bench.swaps import Confusable
from gateway.arguments import folder, new_file, whole
from gateway.judging import RIGHT, WRONG
from models.recognizer import Recognizer
from models.registry.store import EMBEDDED
from models.utterance import Samples
from models.witness import evidence

WORD_S: Final = 1.6
"""Seconds up to which a clip counts as a word."""
HEARD: Final = ("clean copy", "noise 20 dB", "noise 10 dB", "noise 5 dB", "telephone")


@dataclass(frozen=True, slots=True)
class Trial:
    kind: str
    condition: str
    wrong: bool
    log_odds: float
    """-inf where the reading is the remembered text."""


class Heard:
    """A recording as the judge hears it: `Recognizer.disbelief` of several texts, for one reading."""

    def __init__(self, recognizer: Recognizer, samples: Samples) -> None:
        self._recognizer, self._rows = recognizer, recognizer.log_probs(samples)
        self._reading = recognizer.read(self._rows).text

    def odds(self, remembered: str) -> float:
        if remembered == self._reading:
            return -np.inf
        found = evidence(self._rows, remembered, self._reading, self._recognizer.alphabet, self._recognizer.words)
        return np.inf if found is None else found.log_odds


def copies(
    recognizer: Recognizer, kind: str, clips: Sequence[Clip], around: Surroundings, rng: Random
) -> Iterator[Trial]:
    """Each clip in every condition, held against its own text and against that of another clip, of the same speaker
    where there is one."""
    texts = [recognizer.transcribe(clip.samples).text for clip in clips]
    for number, clip in enumerate(tqdm(clips, desc=kind, leave=False)):
        others = [i for i, text in enumerate(texts) if text != texts[number] and clips[i].text != clip.text]
        near = [i for i in others if clips[i].speaker == clip.speaker] or others
        for condition in HEARD:
            heard = Heard(recognizer, copy_of(clip.samples, condition, around, rng))
            yield Trial(kind, condition, False, heard.odds(texts[number]))
            if near:
                other = texts[near[int(rng.integers(len(near)))]]
                yield Trial(kind, condition, True, heard.odds(other))


def swapped(recognizer: Recognizer, pairs: Confusable, count: int) -> Iterator[Trial]:
    """One word swapped for another, in a sentence and among words; where the recognizer reads both alike, nothing is
    wrong by what it can tell."""
    for number in tqdm(range(count), desc="one-word swaps", leave=False):
        pair = pairs.swap(number)
        remembered = recognizer.transcribe(pair.stored).text
        if remembered:
            yield Trial(f"a word swapped {pair.about[1]}", "", True, Heard(recognizer, pair.heard).odds(remembered))


def upper(hits: int, trials: int) -> float:
    """95 % Clopper-Pearson upper bound."""
    return 1.0 if hits >= trials else float(beta.ppf(0.95, hits + 1, trials - hits))


def tell(trials: Sequence[Trial], out: Figures) -> None:
    groups: dict[tuple[str, str, bool], list[float]] = defaultdict(list)
    for trial in trials:
        for condition in {"all", trial.condition} - {""}:
            groups[trial.kind, condition, trial.wrong].append(trial.log_odds)
    for (kind, condition, wrong), found in groups.items():
        values = np.array(found)
        what = "wrong" if wrong else "right"
        for verdict, share in (("wrong", values >= WRONG), ("right", values <= RIGHT)):
            name = f"{kind}, {condition}, {what} answers: called {verdict}"
            out.add(Figure(name, 100 * float(share.mean()), f"% of {len(values)}"))
        undecided = (values > RIGHT) & (values < WRONG)
        out.add(Figure(f"{kind}, {condition}, {what} answers: undecided", 100 * float(undecided.mean()), "%"))
        if condition == "all" and not wrong:
            accused = int((values >= WRONG).sum())
            name = f"{kind}: right answers called wrong, 95 % upper bound"
            out.add(Figure(name, 100 * upper(accused, len(values)), "%"))
        if condition == "all" and wrong and (kind, condition, False) in groups:
            sure = np.array(groups[kind, condition, False])
            decided = float(((sure >= WRONG) | (sure <= RIGHT)).mean())
            out.add(Figure(f"{kind}: power", float((values >= WRONG).mean()) / max(decided, 1e-9), "share"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--speech", type=folder, required=True, help="folder with index.csv, or of FLAC and WAV files")
    parser.add_argument("--noise", type=folder, required=True)
    parser.add_argument("--half", type=int, choices=(0, 1), help="only every second speaker: 0 was fitted on")
    parser.add_argument("--kinds", default="", help="only clips of these kinds, as in index.csv, with commas between")
    parser.add_argument("--limit", type=whole(1), default=400, help="clips of each length")
    parser.add_argument("--swaps", type=whole(), default=400)
    parser.add_argument("--seed", type=whole(), default=1)
    parser.add_argument("--json", type=new_file)
    parser.add_argument("--plot", type=Path, help="folder for a picture of the errors")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    choice = Choice(half=options.half, kinds=tuple(filter(None, options.kinds.split(","))))
    clips = read_folder(options.speech, choice, noise=False)
    noises = read_folder(options.noise, Choice(half=options.half), noise=True)
    around = Surroundings([clip.samples for clip in noises], simulated=())
    recognizer = Recognizer(EMBEDDED / "recognizer")
    trials: list[Trial] = []
    words = [clip for clip in clips if len(clip.pcm) <= WORD_S * RATE]
    speech = [clip for clip in clips if len(clip.pcm) > WORD_S * RATE]
    for kind, group in (("words", words), ("sentences", speech)):
        some = [group[i] for i in rng.permutation(len(group))[: options.limit]]
        trials += copies(recognizer, kind, some, around, rng)
    if words:
        trials += swapped(recognizer, Confusable(words, speech, around, options.seed), options.swaps)
    out = Figures({"clips": len(clips), "half": options.half, "seed": options.seed, "limit": options.limit})
    tell(trials, out)
    out.write(options.json)
    if options.plot is not None:
        draw(trials, options.plot)


def draw(trials: Sequence[Trial], folder: Path) -> None:
    """judge.png: wrong answers that are not called wrong, over right ones that are, at every limit there could be."""
    from bench.audit_plots import draw_errors

    folder.mkdir(parents=True, exist_ok=True)
    limits = np.linspace(-6, 8, 141)
    curves = {}
    for kind in sorted({trial.kind for trial in trials if trial.wrong}):
        right = np.array([t.log_odds for t in trials if not t.wrong and t.kind in (kind, "sentences")])
        wrong = np.array([t.log_odds for t in trials if t.wrong and t.kind == kind])
        curves[kind] = (
            [float((right >= limit).mean()) for limit in limits],
            [float((wrong < limit).mean()) for limit in limits],
        )
    draw_errors(curves, folder / "judge.png")


if __name__ == "__main__":
    main()
