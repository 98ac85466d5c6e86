"""What the shipped synthesizer says, as PocketSphinx hears it beside its teachers, and what its moods do to a voice."""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr
from tqdm import tqdm

from bench.models.chance import Floats, Interval, Places, interval, mean, mean_interval, ratio_interval
from bench.models.targets import Report
from models.mel import log_mel
from models.speaker import SpeakerEncoder
from models.synthesizer import AcousticModel
from models.training.acoustic_report import MOOD_TEXTS, figures_of, hearer, teacher_says, words
from models.training.corpus import TEACHERS
from models.training.measures import edits
from models.utterance import MEL_RATE, RECOGNIZER_RATE, Samples
from models.vocoder import Vocoder

PART: Final = "synthesizer"
RATIO: Final = "synthesizer: word error rate over the teachers'"
ORDERED: Final = (("sad", "calm", "neutral"), ("neutral", "cheerful"), ("neutral", "angry"))
"""Rising chains of pitch, range, rate and energy, as listeners know the moods (Scherer 2003; Juslin and Laukka 2003).
Cheerful and angry are both above neutral; which of them is higher differs between studies."""
MEASURES: Final = ("F0 mean", "F0 range", "rate", "energy")
UNITS: Final = {"F0 mean": "Hz", "F0 range": "semitones", "rate": "of neutral", "energy": "dB"}


@dataclass(frozen=True, slots=True)
class Moods:
    """What was measured: float64 [moods, voices, sentences, MEASURES]; and one voice's waves of one sentence."""

    names: tuple[str, ...]
    values: npt.NDArray[np.float64]
    waves: dict[str, Samples]
    voice: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence by a teacher (16 kHz) and by us (22,050 Hz)."""

    text: str
    voice: str
    teacher: Samples
    ours: Samples


def pairs_of(model: AcousticModel, vocoder: Vocoder, texts: Sequence[str], jobs: int) -> list[Pair]:
    """Every sentence by the next voice whose teacher can speak here; a quarter of them by derived voices as well."""
    able = [voice for voice in model.voices if _teacher(voice, "hello there") is not None]
    if not able:
        return []

    def make(task: tuple[str, str]) -> Pair | None:
        text, voice = task
        teacher = _teacher(voice, text)
        return None if teacher is None else Pair(text, voice, teacher, vocoder.wave(model.mel(text, voice)))

    plain, derived = [v for v in able if not is_derived(v)], [v for v in able if is_derived(v)]
    tasks = list(zip(texts if plain else (), itertools.cycle(plain), strict=False))
    tasks += list(zip(texts[: -(-len(texts) // 4)] if derived else (), itertools.cycle(derived), strict=False))
    with ThreadPoolExecutor(jobs) as pool:
        made = tqdm(pool.map(make, tasks), total=len(tasks), desc="saying sentences", leave=False, mininterval=1.0)
        return [pair for pair in made if pair is not None]


def is_derived(voice: str) -> bool:
    """Whether its teacher is a voice of the system changed by us, which is harder to understand than it was."""
    teacher = TEACHERS.get(voice)
    return teacher is not None and (teacher.formants, teacher.pitch) != (1.0, 1.0)


def _teacher(voice: str, text: str) -> Samples | None:
    """None where the voice's program, or the voice, is not installed."""
    try:
        return teacher_says(voice, text)
    except (OSError, KeyError, subprocess.CalledProcessError):
        return None


def measure_hearing(pairs: Sequence[Pair], jobs: int, report: Report) -> None:
    """The word error rate of what we say over that of what the teachers say, both as PocketSphinx hears them."""
    if importlib.util.find_spec("pocketsphinx") is None:
        report.lacks(RATIO, "the package pocketsphinx is not installed (extra `bench`)")
        return
    if not pairs:
        report.lacks(RATIO, "no voice of its teachers is installed (flite, festival), or no sentences to say")
        return
    tasks = [sound for pair in pairs for sound in ((pair.teacher, RECOGNIZER_RATE), (pair.ours, MEL_RATE))]
    # PocketSphinx holds the interpreter while it listens, so threads would not help it.
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = pool.map(_hear, tasks, chunksize=4)
        heard = list(tqdm(results, total=len(tasks), desc="PocketSphinx", leave=False, mininterval=1.0))
    truths = [words(pair.text) for pair in pairs]
    wrong = np.array(
        [[edits(truth, heard[2 * n]), edits(truth, heard[2 * n + 1])] for n, truth in enumerate(truths)], np.float64
    )
    counts = np.array([len(truth) for truth in truths])
    derived = np.array([is_derived(pair.voice) for pair in pairs], np.bool_)
    if not derived.all():
        report.measured(RATIO, *_ratio(wrong[~derived]))
    else:
        report.lacks(RATIO, "only derived voices have their teachers here")
    if derived.any():
        ratio, bounds = _ratio(wrong[derived])
        report.told(f"{RATIO}, derived voices", ratio, "times", bounds)
    for place, who in enumerate(("teachers", "ours")):
        name = f"synthesizer: word error rate of PocketSphinx, {who}"
        errors, total = wrong[~derived, place], counts[~derived]
        if len(total):
            rates = ratio_interval(errors.tolist(), total.tolist(), range(len(total)))
            report.told(name, errors.sum() / total.sum(), "share", rates)
    by_voice: dict[str, dict[str, float]] = {}
    for voice in dict.fromkeys(pair.voice for pair in pairs):
        at = np.array([pair.voice == voice for pair in pairs])
        by_voice[voice] = {
            "words": int(counts[at].sum()),
            "teacher": round(float(wrong[at, 0].sum() / counts[at].sum()), 4),
            "ours": round(float(wrong[at, 1].sum() / counts[at].sum()), 4),
        }
    report.context(PART, hearing={"sentences": len(pairs), "words": int(counts.sum()), "by voice": by_voice})


def _ratio(wrong: Floats) -> tuple[float, Interval]:
    """Our wrong words over the teachers', of sentences [n, (teachers, ours)], and its interval."""

    def ratio(at: Places) -> float:
        return float(wrong[at, 1].sum() / max(wrong[at, 0].sum(), 1.0))

    return ratio(np.arange(len(wrong))), interval(ratio, range(len(wrong)))


@cache
def _ear() -> Callable[[Samples, int], list[str]]:
    """One for each process: it takes seconds to load."""
    return hearer()


def _hear(task: tuple[Samples, int]) -> list[str]:
    return _ear()(*task)


def measure_likeness(pairs: Sequence[Pair], report: Report) -> None:
    """Mean absolute difference of the log mels along the best path that lays one over the other in time."""
    if not pairs:
        return
    distances = [
        warped_l1(log_mel(pair.ours), log_mel(np.asarray(soxr.resample(pair.teacher, RECOGNIZER_RATE, MEL_RATE))))
        for pair in tqdm(pairs, desc="mels", leave=False, mininterval=1.0)
    ]
    bounds = mean_interval(distances, [pair.voice for pair in pairs])
    report.told("synthesizer: mel L1 against the teacher, warped in time", float(np.mean(distances)), "nepers", bounds)


def measure_voices(
    pairs: Sequence[Pair], voices: Mapping[str, Samples], encoder: SpeakerEncoder, report: Report
) -> None:
    """How often the voice encoder takes a sentence of ours for the voice that said it, of all `voices` [256] each."""
    names = list(voices)
    registered = np.array([voices[name] for name in names])
    right: list[float] = []
    for pair in pairs:
        heard = np.asarray(soxr.resample(pair.ours, MEL_RATE, RECOGNIZER_RATE), np.float32)
        try:
            right.append(names[int(np.argmax(registered @ encoder.embed(heard)))] == pair.voice)
        except ValueError:  # too short to tell
            continue
    if right and len(names) > 1:
        bounds = mean_interval(right, range(len(right)))
        report.told("synthesizer: sentences nearest to their own voice", mean(right), "share", bounds, better="higher")


def warped_l1(one: Samples, other: Samples) -> float:
    """Of mels [80, T] and [80, U]: mean over the cheapest warping path (steps of one frame in either or both)."""
    away = np.stack([np.abs(other - frame[:, None]).mean(axis=0) for frame in one.T]).astype(np.float64)
    rows, columns = away.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1))
    total[0, 0] = 0.0
    # Cells of one anti-diagonal depend on the two before only.
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        count = np.stack([steps[i - 1, j - 1], steps[i - 1, j], steps[i, j - 1]])
        best = before.argmin(axis=0)
        total[i, j] = before[best, np.arange(len(i))] + away[i - 1, j - 1]
        steps[i, j] = count[best, np.arange(len(i))] + 1
    return float(total[-1, -1] / steps[-1, -1])


def measure_moods(
    model: AcousticModel, vocoder: Vocoder, voices: Sequence[str], sentences: int, report: Report
) -> Moods:
    """Whether each pair of moods that has an order stands in it, by more than chance, over voices and sentences."""
    texts = MOOD_TEXTS[:sentences]
    report.measured("synthesizer: voices", len(model.voices))
    report.measured("synthesizer: moods", len(model.emotions))
    values = np.zeros((len(model.emotions), len(voices), len(texts), len(MEASURES)))
    waves: dict[str, Samples] = {}
    tasks = list(itertools.product(range(len(model.emotions)), range(len(voices)), range(len(texts))))
    for mood, voice, text in tqdm(tasks, desc="moods", leave=False, mininterval=1.0):
        wave = vocoder.wave(model.mel(texts[text], voices[voice], model.emotions[mood]))
        if voice == text == 0:
            waves[model.emotions[mood]] = wave
        pitch, span, seconds, level = figures_of(wave)
        values[mood, voice, text] = pitch, span, 1.0 / seconds, level
    values[..., 2] /= values[model.emotions.index("neutral"), :, :, 2].copy()
    found = Moods(tuple(model.emotions), values, waves, voices[0], texts[0])
    for place, measure in enumerate(MEASURES):
        name = f"synthesizer: moods in order by {measure}"
        if missing := {mood for chain in ORDERED for mood in chain} - set(model.emotions):
            report.lacks(name, f"the model has no mood {', '.join(sorted(missing))}")
            continue
        report.measured(name, _in_order(found, place))
        table = {mood: round(float(values[n, ..., place].mean()), 3) for n, mood in enumerate(model.emotions)}
        report.context(PART, **{f"{measure}, {UNITS[measure]}": table})
    report.context(PART, voices=list(model.voices), **{"sentences a mood and voice": len(texts)})
    report.context(PART, **{"moods by voice": _by_voice(found, voices)})
    return found


def _in_order(moods: Moods, place: int) -> float:
    """Share of ordered pairs whose mean difference, by voice and sentence, is above zero with 95 % confidence."""
    pairs = list(dict.fromkeys(pair for chain in ORDERED for pair in itertools.combinations(chain, 2)))
    low_ones = ("sad", "calm")
    pairs += [(low, high) for low in low_ones for high in ("cheerful", "angry")]
    right = 0
    for low, high in pairs:
        rise = moods.values[moods.names.index(high), ..., place] - moods.values[moods.names.index(low), ..., place]
        voices = np.repeat(np.arange(rise.shape[0]), rise.shape[1])
        right += mean_interval(rise.ravel(), voices.tolist())[0] > 0
    return right / len(pairs)


def _by_voice(moods: Moods, voices: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Voice to mood to the means of MEASURES."""
    table: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (v, voice), (n, mood) in itertools.product(enumerate(voices), enumerate(moods.names)):
        table[voice][mood] = [round(float(value), 3) for value in moods.values[n, v].mean(axis=0)]
    return dict(table)
