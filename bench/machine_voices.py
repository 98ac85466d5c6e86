"""Sentences that differ in one word, each said by the same machine voice: is the one taken for the other?

    python -m bench.machine_voices --noise DIR [--json OUT]

The hardest callers there are: a machine says all but the one word in exactly the same way, so that the rest agrees to
the bit, and its words are all alike in length and tone. No threshold was chosen by these sentences.
Needs flite and espeak-ng (Debian packages of these names). `--noise` is a folder as for bench.recall.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from bench.bounds import bounds
from bench.clips import Choice, read_folder
from bench.distort import Surroundings, copy_of
from bench.figures import Figure, Figures
from gateway.arguments import folder, new_file, whole
from gateway.fingerprint.bits import Fingerprint, fingerprint
from gateway.fingerprint.listen import listen
from gateway.fingerprint.verify import verify
from models.training.corpus import speak_flite
from models.utterance import RECOGNIZER_RATE, Samples

FLITE: Final = ("kal", "awb", "rms", "slt")
ESPEAK: Final = ("en-us", "en-gb", "en-us+f3", "en-gb+m7", "en-sc+f2", "de", "hi")
CONDITIONS: Final = ("clean copy", "noise 20 dB", "noise 10 dB", "noise 5 dB", "telephone")
ASKED: Final = 16
"""Sayings of a form, at most, that a voice is asked; each is compared with all that are one word away."""
MOST: Final = 0.3
"""% of such pairs that may be taken for each other, by the upper bound."""
WORDS: Final = "{}"
NUMBERS: Final = ("one", "two", "three", "four", "five", "nine")

FORMS: Final[dict[str, tuple[Sequence[str], ...]]] = {
    "turn the {} {}": (("light", "lights", "fan", "radio"), ("on", "off")),
    "set an alarm for {} {}": (("five", "nine", "six", "seven", "eight", "fifteen", "fifty"), ("a m", "p m")),
    "is the {} door {}": (("front", "back"), ("open", "closed")),
    "pay {} dollars to {}": (("fifteen", "fifty", "thirteen", "thirty", "sixteen", "sixty"), ("Ann", "Dan", "Stan")),
    "I {} come on {}": (("can", "can't", "will", "won't"), ("Monday", "Sunday", "Friday", "Thursday", "Tuesday")),
    "{} the {} order": (("cancel", "confirm", "change"), ("last", "first", "next")),
    "{} I {} agree": (("yes", "no"), ("do", "don't")),
    "my number ends in {} {}": (NUMBERS, NUMBERS),
    "is it {} in {} today": (("sunny", "snowy", "hot", "cold"), ("Austin", "Boston", "Houston")),
    "play {} by the {}": (("hello", "yellow", "help"), ("band", "bands", "man")),
    "transfer {} to my {} account": (("it", "eight", "all"), ("savings", "shared", "checking")),
    "he {} arrive at gate {} {}": (("did", "didn't"), ("a", "b", "d", "e"), ("five", "nine")),
    "please {} the {} window": (("open", "close", "clean"), ("left", "right")),
    "did you say {} or {}": (("eighty", "eighteen"), ("ninety", "nineteen")),
    WORDS: ((
        *NUMBERS, "yes", "no", "on", "off", "up", "down", "left", "right", "go", "stop", "start", "fifteen", "fifty",
        "dog", "bed", "bird", "tree", "open", "close", "cancel", "continue",
    ),),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """One saying of one voice."""

    words: tuple[str, ...]
    """What is in the form's places."""
    samples: Samples
    stored: Fingerprint | None
    """None for what is too short to be recalled."""


def speak(program: str, voice: str, text: str, folder: Path) -> Samples:
    """What the program says, at 16 kHz. Raises `subprocess.CalledProcessError`, or OSError where it is not there."""
    file = folder / "said.wav"
    if program == "flite":
        speak_flite(voice, text, 1.0, 1.0, file)
    else:
        subprocess.run([program, "-v", voice, "-s", "160", "-w", str(file), text], check=True, capture_output=True)
    samples, rate = soundfile.read(file, dtype="float32")
    return np.asarray(soxr.resample(samples, rate, RECOGNIZER_RATE), dtype=np.float32)


def one_word_apart(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return sum(a != b for a, b in zip(one, other, strict=True)) == 1


class Counts:
    """Of one kind of pair: how many were compared and how many taken for the same, by voice and condition."""

    def __init__(self) -> None:
        self.tried: Counter[tuple[str, str]] = Counter()
        self.taken: Counter[tuple[str, str]] = Counter()

    def add(self, voice: str, condition: str, taken: bool) -> None:
        self.tried[voice, condition] += 1
        self.taken[voice, condition] += taken

    def share_of(self, condition: str) -> float:
        """Taken of those compared, in %."""
        taken, tried = (sum(n for (_, at), n in each.items() if at == condition) for each in (self.taken, self.tried))
        return 100 * taken / max(tried, 1)


class Comparison:
    """All that is compared, and what came of it."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.same: dict[str, Counts] = defaultdict(Counts)
        self.apart: dict[str, Counts] = defaultdict(Counts)
        """One word apart; both by kind, words or sentences."""
        self.mistaken: list[dict[str, str]] = []

    def compare(self, program: str, name: str, form: str, rng: np.random.Generator) -> None:
        """All sayings of one form, by one voice."""
        kind, voice = "words" if form == WORDS else "sentences", f"{program} {name}"
        said = all_said(program, name, form)
        for at, condition in itertools.product(rng.permutation(len(said))[:ASKED], CONDITIONS):
            one = said[at]
            query = listen(copy_of(one.samples, condition, self._around, rng))
            if query is None:
                continue
            for other in said:
                if other.stored is None:
                    continue
                if other is one:
                    self.same[kind].add(voice, condition, verify(query, other.stored).accepted)
                elif one_word_apart(one.words, other.words):
                    taken = verify(query, other.stored).accepted
                    self.apart[kind].add(voice, condition, taken)
                    if taken:
                        heard, answered = form.format(*one.words), form.format(*other.words)
                        told = {"voice": voice, "heard in": condition, "heard": heard, "answered": answered}
                        self.mistaken.append(told)

    def report(self) -> Figures:
        figures = Figures({"mistaken": self.mistaken})
        for kind, counts in self.apart.items():
            rows = list(counts.tried)
            wrong, tried = [counts.taken[row] for row in rows], [counts.tried[row] for row in rows]
            bound = bounds(wrong, tried, [voice for voice, _ in rows])
            figures.add(Figure(f"{kind}: one word apart, taken for each other", bound.errors, f"of {bound.trials:,}"))
            figures.add(Figure(f"{kind}: upper bound of that", 100 * bound.plain, "%", None, MOST))
            figures.add(Figure(f"{kind}: the same with voices drawn anew", 100 * bound.resampled, "%", None, MOST))
            for condition in CONDITIONS:
                known = self.same[kind].share_of(condition)
                figures.add(Figure(f"{kind}, {condition}: known again", known, "%", better="higher"))
                figures.add(Figure(f"{kind}, {condition}: one word apart", counts.share_of(condition), "%"))
        return figures


def all_said(program: str, name: str, form: str) -> list[Said]:
    said = []
    with tempfile.TemporaryDirectory() as folder:
        for words in itertools.product(*FORMS[form]):
            samples = speak(program, name, form.format(*words), Path(folder))
            said.append(Said(words, samples, fingerprint(samples)))
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=folder, required=True, help="a folder of noise")
    parser.add_argument("--json", type=new_file, help="write the figures here")
    parser.add_argument("--seed", type=whole(), default=1)
    args = parser.parse_args()
    noises = [clip.samples for clip in read_folder(args.noise, Choice(), True)]
    comparison = Comparison(Surroundings(noises))
    voices = [("flite", name) for name in FLITE] + [("espeak-ng", name) for name in ESPEAK]
    for number, ((program, name), form) in enumerate(
        tqdm(list(itertools.product(voices, FORMS)), desc="machine voices", unit="form")
    ):
        comparison.compare(program, name, form, np.random.default_rng([args.seed, number]))
    comparison.report().write(args.json)


if __name__ == "__main__":
    main()
