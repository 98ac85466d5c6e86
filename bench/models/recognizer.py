"""What the shipped recognizer gets right: sentences of teacher voices, words of real people, times, streams, cost."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from bench.distort import add_noise
from bench.models.chance import mean, mean_interval, ratio_interval
from bench.models.folder import Row, commands_unheard, noise_unheard, sound, spread
from bench.models.spoken import Said
from bench.models.targets import Report
from models.ctc import score
from models.recognizer import Recognizer, RecognizerStream
from models.training.acoustic_data import read_lexicon, word_starts
from models.training.measures import edits
from models.training.recognizer_data import spoken
from models.training.recognizer_report import wilson
from models.utterance import RECOGNIZER_RATE, Samples, Transcript

PIECE: Final = RECOGNIZER_RATE // 10
"""Samples of a stream's piece."""
NOISE_DB: Final = 10.0
PART: Final = "recognizer"
SENTENCES: Final = "recognizer: word error rate, unseen sentences of teacher voices"


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often each word (row) was heard as each (column), clean and with noise: int [words, words]."""

    words: list[str]
    clean: npt.NDArray[np.int64]
    noisy: npt.NDArray[np.int64]


def measure_sentences(model: Recognizer, said: Sequence[Said], generated: Sequence[Said], report: Report) -> None:
    """Word error rates by voice: texts of the folder, and of our own generator, which stand in where there are none."""
    if not said and not generated:
        for name in (SENTENCES, "recognizer: words with sane times"):
            report.lacks(name, "no voice of the system is installed (flite, espeak-ng)")
        return
    word_errors(model, said or generated, SENTENCES, report, "folder" if said else "our generator")
    if said and generated:
        word_errors(
            model, generated, "recognizer: word error rate, sentences of our generator", report, "our generator"
        )
    times_of(model, [one for one in said or generated if one.phones], report)


def word_errors(model: Recognizer, said: Sequence[Said], name: str, report: Report, texts: str) -> None:
    wrong, words = [], []
    voices: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in tqdm(said, desc="recognizing sentences", leave=False, mininterval=1.0):
        truth = one.words.split()
        wrong.append(edits(truth, model.transcribe(one.samples).text.split()))
        words.append(len(truth))
        program, _, rest = one.voice.rpartition(":")
        for voice in (program or "flite", rest.split("+")[0]):
            voices[voice][0] += wrong[-1]
            voices[voice][1] += words[-1]
    bounds = ratio_interval(wrong, words, [one.text for one in said])
    value = sum(wrong) / sum(words)
    if name == SENTENCES:
        report.measured(name, value, bounds)
    else:
        report.told(name, value, "share", bounds)
    by_voice = {voice: round(a / b, 4) for voice, (a, b) in sorted(voices.items())}
    report.context(
        PART,
        **{
            name.removeprefix("recognizer: "): {
                "texts": texts,
                "sentences": len({one.text for one in said}),
                "utterances": len(said),
                "words": sum(words),
                "by voice": by_voice,
            }
        },
    )


def times_of(model: Recognizer, said: Sequence[Said], report: Report) -> None:
    """Whether words follow each other within the recording, and how far their starts are from where flite put them."""
    lexicon = read_lexicon()
    sane = total = 0
    off: list[float] = []
    for one in said[:60]:
        heard = model.transcribe(one.samples).words
        seconds = len(one.samples) / RECOGNIZER_RATE + 0.04  # a step may reach beyond the last sample
        total += len(heard)
        for n, word in enumerate(heard):
            after = heard[n - 1].end if n else 0.0
            sane += after <= word.start < word.end <= seconds
        starts = word_starts(one.text, one.phones, lexicon)
        at = [0.0, *one.ends]
        spoken_at = [at[n] for n, start in enumerate(starts) if start]
        if len(spoken_at) == len(heard) == len(one.words.split()):
            pairs = zip(heard, one.words.split(), spoken_at, strict=True)
            off += [word.start - start for word, truth, start in pairs if word.text == truth]
    if not total:
        report.lacks("recognizer: words with sane times", "no voice that tells its times is installed (flite)")
        return
    report.measured("recognizer: words with sane times", sane / total)
    if off:
        report.told("recognizer: start of a word, median error", 1000 * float(np.median(np.abs(off))), "ms")
        report.context(PART, **{"start of a word, median lateness in ms": round(1000 * float(np.median(off)), 1)})


def measure_commands(
    model: Recognizer, rows: Sequence[Row], noises: Sequence[Row], every: bool, limit: int, report: Report
) -> Confusion | None:
    """Single English words of people: heard freely and as the likeliest of the folder's words; clean and with noise."""
    commands = [row for row in rows if row.is_a("commands") and row.english and row.text]
    words = sorted({row.text.lower() for row in commands})
    chosen = spread([row for row in commands if every or commands_unheard(row)], limit)
    unheard = [row for row in noises if every or noise_unheard(row)]
    if not chosen:
        report.lacks("recognizer: commands", "no English commands by speakers that were not trained on")
        return None
    if not unheard:
        report.lacks("recognizer: commands right at", "no noise that was not trained on")
    sounds = [sound(row) for row in unheard]
    rng = np.random.default_rng(1)
    seen = any(row.seen and not commands_unheard(row) for row in chosen)
    tables = [np.zeros((len(words), len(words)), np.int64) for _ in range(2)]
    free: list[list[bool]] = [[], []]
    best: list[list[bool]] = [[], []]
    for row in tqdm(chosen, desc="recognizing commands", leave=False, mininterval=1.0):
        clean = sound(row)
        hearings = [clean]
        if sounds:
            hearings.append(add_noise(clean, sounds[int(rng.integers(len(sounds)))], NOISE_DB, rng))
        for n, samples in enumerate(hearings):
            log_probs = model.log_probs(samples)
            likeliest = max(words, key=lambda word: score(log_probs, word, model.alphabet))
            free[n].append(model.read(log_probs).text == row.text.lower())
            best[n].append(likeliest == row.text.lower())
            tables[n][words.index(row.text.lower()), words.index(likeliest)] += 1
    speakers = [row.speaker for row in chosen]
    names = ("recognizer: commands right", "recognizer: commands right at 10 dB of noise")
    for n, name in enumerate(names[: 1 + bool(sounds)]):
        right = np.array(free[n])
        report.measured(name, mean(right), mean_interval(right, speakers), seen=seen)
        among = np.array(best[n])
        bounds = mean_interval(among, speakers)
        report.told(f"{name}, of {len(words)} words", mean(among), "share", bounds, better="higher", seen=seen)
        report.context(
            PART,
            **{
                name.removeprefix("recognizer: "): {
                    "clips": len(chosen),
                    "speakers": len(set(speakers)),
                    **({"noise clips": len(sounds), "level": "where both sound"} if n else {}),
                    "Wilson": wilson(int(right.sum()), len(right)),
                    "confused": confused(words, tables[n]),
                    **by_column(chosen, right),
                }
            },
        )
    return Confusion(words, tables[0], tables[1])


def confused(words: list[str], table: npt.NDArray[np.int64]) -> dict[str, int]:
    """The commonest mistakes."""
    pairs = sorted(zip(*np.nonzero(table), strict=True), key=lambda at: -table[at])
    wrong = [at for at in pairs if at[0] != at[1]][:8]
    return {f"{words[a]} as {words[b]}": int(table[a, b]) for a, b in wrong}


def by_column(rows: Sequence[Row], values: npt.NDArray[np.bool_]) -> dict[str, dict[str, float]]:
    """Means by sex, accent and whatever else the folder tells of its speakers."""
    found: dict[str, dict[str, float]] = {}
    for column in sorted({key for row in rows for key in row.told}):
        groups: dict[str, list[float]] = defaultdict(list)
        for row, value in zip(rows, values, strict=True):
            groups[row.told.get(column, "not told")].append(float(value))
        found[f"by {column}"] = {name: round(float(np.mean(group)), 4) for name, group in sorted(groups.items())}
    return found


def measure_real_speech(model: Recognizer, rows: Sequence[Row], limit: int, report: Report) -> None:
    """Word error rate by kind of all other English recordings that have a text: none of them was trained on."""
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.english and row.text and not row.is_a("commands", "noise") and spoken(row.text):
            kinds[row.kind].append(row)
    for kind, found in sorted(kinds.items()):
        chosen = spread(found, limit)
        truths = [(spoken(row.text) or "").split() for row in chosen]
        heard = [
            model.transcribe(sound(row)).text.split() for row in tqdm(chosen, desc=kind, leave=False, mininterval=1.0)
        ]
        wrong = [edits(truth, words) for truth, words in zip(truths, heard, strict=True)]
        groups = [row.speaker or row.name for row in chosen]
        words = [len(truth) for truth in truths]
        name = f"recognizer: word error rate, people, {kind}"
        report.told(name, sum(wrong) / sum(words), "share", ratio_interval(wrong, words, groups))


def measure_streams(model: Recognizer, speech: Sequence[Samples], report: Report) -> None:
    """Cost whole and in pieces of 0.1 s, utterance by utterance, the best of two; and whether both say the same."""
    if not speech:
        report.lacks("recognizer: CPU", "no speech to hear")
        report.lacks("recognizer: streams", "no speech to hear")
        return
    whole = streamed = 0.0
    same = 0
    for samples in tqdm(speech, desc="recognizing streams", leave=False, mininterval=1.0):
        spent, texts = [], []
        for hear in (model.transcribe, lambda samples: stream(model, samples)):
            timed = [_timed(hear, samples) for _ in range(2)]
            spent.append(min(seconds for seconds, _ in timed))
            texts.append(timed[0][1])
        whole, streamed = whole + spent[0], streamed + spent[1]
        same += told(texts[0]) == told(texts[1])
    seconds = sum(map(len, speech)) / RECOGNIZER_RATE
    report.measured("recognizer: CPU a second of speech, whole", whole / seconds)
    report.measured("recognizer: CPU a second of speech, streamed", streamed / seconds)
    report.measured("recognizer: streams that end as the whole", same / len(speech))
    long = np.concatenate(speech)
    report.told("recognizer: CPU a second of one long recording", _timed(model.transcribe, long)[0] / seconds, "s")
    report.context(PART, streams={"utterances": len(speech), "seconds": round(seconds, 1), "piece in s": 0.1})


def stream(model: Recognizer, samples: Samples) -> Transcript:
    listening = RecognizerStream(model)
    for first in range(0, len(samples), PIECE):
        listening.accept(samples[first : first + PIECE])
    return listening.finish()


def told(transcript: Transcript) -> tuple[tuple[str, float, float], ...]:
    return tuple((word.text, word.start, word.end) for word in transcript.words)


def _timed(hear: Callable[[Samples], Transcript], samples: Samples) -> tuple[float, Transcript]:
    began = time.process_time()
    heard = hear(samples)
    return time.process_time() - began, heard
