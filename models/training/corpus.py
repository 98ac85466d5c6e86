"""The training corpus: sentences spoken by flite and festival (with phone end times) and by espeak-ng (without).

    python -m models.training corpus OUT --data DIR --sentences N [--voices kdl,slt-bright,... --espeak 0]

DIR holds text/slurp_recordings.csv and text/clinc150.csv (columns rank, text, count, share); sentences of our own
come from `phrases`. OUT gets wav/*.wav (16 kHz mono int16) and index.jsonl, one utterance a line, in random order,
written as it goes: {path, text, voice, seconds, split, pitch, stretch, phones, ends}. `pitch` and `stretch` are what
the teacher was told to change (1.0 = as it is); `ends` are seconds. A second run continues where the first stopped.

Five speakers are few voices, so `TEACHERS` holds derived ones too: a speaker told to speak lower or higher and slower
or faster, then played at another rate, so that its pace stays while its formants move as in a longer or shorter throat.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import multiprocessing
import random
import re
import subprocess
import tempfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from tqdm import tqdm

from models.training import phrases
from models.utterance import RECOGNIZER_RATE

FLITE_VOICES = ("slt", "rms", "awb", "kal16")
"""What a corpus is spoken by unless told otherwise."""
DIPHONE_PITCH = 105.0
"""Hz. The F0 target of flite's kal and festival's kdl voices; the other voices take a factor instead."""
ESPEAK_ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029", "en-us-nyc")
PLAIN = re.compile(r"[A-Za-z' ,.?!-]+")


@dataclass(frozen=True)
class Teacher:
    """A voice that tells where its phones end."""

    speaker: str
    """A voice of flite, or kdl, which is festival's ked_diphone (Debian: festvox-kdlpc16k)."""
    formants: float = 1.0
    """Factor on the formants: above one sounds like a shorter throat."""
    pitch: float = 1.0
    """Factor on the speaker's own pitch."""


TEACHERS = {
    **{speaker: Teacher(speaker) for speaker in (*FLITE_VOICES, "kdl")},
    "slt-bright": Teacher("slt", 1.13, 1.25),
    "slt-low": Teacher("slt", 0.92, 0.78),
    "rms-deep": Teacher("rms", 0.87, 0.85),
    "awb-high": Teacher("awb", 1.16, 1.5),
    "kal-high": Teacher("kal16", 1.14, 1.7),
}


@dataclass(frozen=True)
class Job:
    """One utterance to be spoken. `voice`: a name in `TEACHERS`, or `espeak:<voice>+<variant>`."""

    path: str
    text: str
    voice: str
    split: str
    pitch: float
    stretch: float


def split_of(text: str) -> str:
    """train, or dev for about 2 % of the sentences; by a hash of the words, so that it never moves."""
    words = re.sub("[^a-z ]", "", text.lower())
    return "dev" if int(hashlib.sha256(words.encode()).hexdigest()[:8], 16) % 50 == 0 else "train"


def read_texts(path: Path) -> list[str]:
    """The `text` column: letters only, 1 to 20 words (digits are left out, for nobody knows how they will be read)."""
    with path.open(encoding="utf-8", newline="") as file:
        texts = [" ".join(row["text"].split()) for row in csv.DictReader(file)]
    return [text for text in texts if PLAIN.fullmatch(text) and 1 <= len(text.split()) <= 20]


def choose_sentences(data: Path, count: int, seed: int) -> list[str]:
    """`count` distinct sentences: a third each of SLURP, CLINC150 and our own."""
    rng = random.Random(seed)
    chosen: dict[str, None] = {}
    for file in ("slurp_recordings.csv", "clinc150.csv"):
        texts = read_texts(data / "text" / file)
        rng.shuffle(texts)
        chosen |= dict.fromkeys(texts[: count // 3])
    for text in phrases.sentences(seed):
        if len(chosen) >= count:
            break
        chosen.setdefault(text)
    return list(chosen)


def espeak_variants() -> list[str]:
    """Names of espeak-ng's voice variants, or none where it is not installed."""
    try:
        listing = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return sorted(match[1] for match in re.finditer(r"!v/(\S+)", listing))


def plan(data: Path, count: int, seed: int, espeak: int, voices: Sequence[str] = FLITE_VOICES) -> list[Job]:
    """Every utterance of the corpus, shuffled; half the sentences get a second voice, three in ten a changed pitch.

    Changed pitch lets the acoustic decoder hear one voice at many pitches; its predictors learn from unchanged ones.
    """
    texts = choose_sentences(data, count, seed)
    rng = random.Random(seed + 1)
    jobs: list[Job] = []

    def add(text: str, voice: str, pitch: float, stretch: float) -> None:
        path = f"wav/{voice.replace(':', '_').replace('+', '_')}_{len(jobs):06d}.wav"
        jobs.append(Job(path, text, voice, split_of(text), round(pitch, 3), round(stretch, 3)))

    for n, text in enumerate(texts):
        spoken_by = [n % len(voices)]
        if rng.random() < 0.5 and len(voices) > 1:
            spoken_by.append((spoken_by[0] + rng.randint(1, len(voices) - 1)) % len(voices))
        for voice in spoken_by:
            changed = rng.random() < 0.3
            pitch, stretch = (rng.uniform(0.75, 1.4), rng.uniform(0.8, 1.3)) if changed else (1.0, 1.0)
            add(text, voices[voice], pitch, stretch)
    variants = espeak_variants()
    for text in rng.choices(texts, k=espeak if variants else 0):
        name = f"espeak:{rng.choice(ESPEAK_ACCENTS)}+{rng.choice(variants)}"
        add(text, name, rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.25))
    rng.shuffle(jobs)
    return jobs


def speak_teacher(job: Job, target: Path) -> tuple[list[str], list[float]]:
    """Writes `target`; returns phones and their end times in seconds. Raises CalledProcessError."""
    teacher = TEACHERS[job.voice]
    speak_it = speak_festival if teacher.speaker == "kdl" else speak_flite
    pitch, stretch = job.pitch * teacher.pitch / teacher.formants, job.stretch * teacher.formants
    phones, ends = speak_it(teacher.speaker, job.text, pitch, stretch, target)
    if teacher.formants != 1.0:
        samples, rate = sf.read(target, dtype="float32")
        sf.write(target, soxr.resample(samples, rate * teacher.formants, rate), rate, subtype="PCM_16")
        ends = [round(end / teacher.formants, 4) for end in ends]
    return phones, ends


def speak_flite(voice: str, text: str, pitch: float, stretch: float, target: Path) -> tuple[list[str], list[float]]:
    """As `speak_teacher`, by one of flite's own voices; `pitch` and `stretch` are factors."""
    command = ["flite", "-voice", voice, "-psdur", "-o", str(target)]
    if pitch != 1.0:
        kal = voice.startswith("kal")
        command += ["--setf", f"int_f0_target_mean={DIPHONE_PITCH * pitch}" if kal else f"f0_shift={pitch}"]
    if stretch != 1.0:
        command += ["--setf", f"duration_stretch={stretch}"]
    listing = subprocess.run([*command, "-t", text], capture_output=True, text=True, check=True).stdout
    pairs = [item.rsplit(":", 1) for item in listing.split()]
    return [phone for phone, _ in pairs], [float(end) for _, end in pairs]


def speak_festival(voice: str, text: str, pitch: float, stretch: float, target: Path) -> tuple[list[str], list[float]]:
    """As `speak_flite`, by festival's kdl."""
    assert voice == "kdl"
    ends = target.with_suffix(".ends")
    script = [
        "(voice_ked_diphone)",
        f"(set-cdr! (assoc 'target_f0_mean int_lr_params) (list {DIPHONE_PITCH * pitch}))",
        f"(Parameter.set 'Duration_Stretch (* {stretch} (Parameter.get 'Duration_Stretch)))",
        "(set! us_gain 0.5)",  # as it comes it clips
        f"(set! said (utt.synth (Utterance Text {json.dumps(text)})))",
        f"(utt.save.wave said {json.dumps(str(target))} 'riff)",
        f"(utt.save.segs said {json.dumps(str(ends))})",
    ]
    subprocess.run(["festival", "--batch", *script], capture_output=True, check=True)
    rows = [line.split() for line in ends.read_text().splitlines() if len(line.split()) == 3]
    ends.unlink()
    return [phone for _, _, phone in rows], [float(end) for end, _, _ in rows]


def speak_espeak(job: Job, target: Path) -> None:
    """Writes `target` at 16 kHz, peak at 0.7. Raises CalledProcessError."""
    voice = job.voice.removeprefix("espeak:")
    with tempfile.NamedTemporaryFile(suffix=".wav") as raw:
        options = ["-v", voice, "-s", str(round(165 / job.stretch)), "-p", str(round(50 * job.pitch)), "-w", raw.name]
        subprocess.run(["espeak-ng", *options, "--", job.text], capture_output=True, check=True)
        samples, rate = sf.read(raw.name, dtype="float32")
    samples = soxr.resample(samples, rate, RECOGNIZER_RATE)
    peak = float(np.abs(samples).max(initial=1e-6))
    sf.write(target, samples * (0.7 / peak), RECOGNIZER_RATE, subtype="PCM_16")


def speak(task: tuple[Path, Job]) -> dict[str, object] | str:
    """One utterance: its index entry, or why it failed."""
    out, job = task
    target = out / job.path
    phones: list[str] = []
    ends: list[float] = []
    try:
        if job.voice.startswith("espeak:"):
            speak_espeak(job, target)
        else:
            phones, ends = speak_teacher(job, target)
    except (subprocess.CalledProcessError, ValueError, RuntimeError) as problem:
        return f"{job.voice}: {job.text!r}: {problem}"
    with wave.open(str(target)) as file:
        if file.getframerate() != RECOGNIZER_RATE or file.getnchannels() != 1:
            return f"{job.voice}: {file.getframerate()} Hz, {file.getnchannels()} channels"
        seconds = file.getnframes() / RECOGNIZER_RATE
    if seconds < 0.1:
        return f"{job.voice}: {job.text!r}: only {seconds:.3f} s"
    return {**asdict(job), "seconds": round(seconds, 4), "phones": phones, "ends": ends}


def read_index(path: Path) -> Iterator[dict[str, object]]:
    """The entries of an index.jsonl; a last line cut short by a stop is left out."""
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="models.training corpus")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds text/*.csv")
    parser.add_argument("--sentences", type=int, default=8000)
    parser.add_argument("--espeak", type=int, default=4000, help="utterances by espeak-ng's voice variants")
    parser.add_argument("--voices", default=",".join(FLITE_VOICES), help=f"some of {', '.join(TEACHERS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(argv)
    voices = options.voices.split(",")
    if unknown := set(voices) - set(TEACHERS):
        parser.error(f"--voices: {', '.join(sorted(unknown))} unknown; known are {', '.join(TEACHERS)}")

    out: Path = options.out
    (out / "wav").mkdir(parents=True, exist_ok=True)
    index = out / "index.jsonl"
    known = list(read_index(index))
    index.write_text("".join(json.dumps(entry) + "\n" for entry in known), "utf-8")
    done = {entry["path"] for entry in known}
    planned = plan(options.data, options.sentences, options.seed, options.espeak, voices)
    jobs = [job for job in planned if job.path not in done]
    failures: list[str] = []
    seconds = 0.0
    with multiprocessing.Pool(options.processes) as pool, index.open("a", encoding="utf-8") as file:
        results = pool.imap_unordered(speak, zip(itertools.repeat(out), jobs), chunksize=8)
        for result in tqdm(results, total=len(jobs), desc="speaking", mininterval=2.0):
            if isinstance(result, str):
                failures.append(result)
                continue
            file.write(json.dumps(result) + "\n")
            file.flush()
            seconds += float(str(result["seconds"]))
    made = len(jobs) - len(failures)
    print(f"{made} utterances made, {seconds / 3600:.2f} h; {len(done)} were there; {len(failures)} failed")
    for failure in failures[:10]:
        print("  failed:", failure)
