"""Training material for the recognizer: real clips, a teacher corpus, and extra short phrases spoken by many voices.

Everything ends in a `Pool`: one int16 array of 16 kHz sound and a list of clips into it, so that a run needs no file
once it has started. Real clips are split by speaker, noise by clip and sentences by text, so that nothing that is
measured was trained on.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from models.trigrams import Trigrams
from models.utterance import RECOGNIZER_RATE

Pcm = npt.NDArray[np.int16]

MAX_SECONDS = 16.0
"""Longer clips are left out of training: they make batches wide, and windows at run time are about as long."""

ESPEAK_ACCENTS = ("en-us", "en-us", "en-us", "en-us-nyc", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029")
ESPEAK_VARIANTS = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2", "klatt3",
    "klatt4", "klatt6", "adam", "Alex", "Alicia", "Andrea", "Andy", "Annie", "aunty", "belinda", "benjamin", "boris",
    "caleb", "david", "ed", "edward", "gustave", "iven", "iven2", "john", "kaukovalta", "Lee", "linda", "marcelo",
    "Marco", "Mario", "max", "Michael", "michel", "miguel", "Mike", "norbert", "pablo", "paul", "pedro", "quincy",
    "rob", "robert", "sandro", "shelby", "steph", "steph2", "steph3", "travis", "victor", "zac",
)  # fmt: skip
FLITE_VOICES = ("slt", "rms", "awb", "kal16")


@dataclass(frozen=True, slots=True)
class Clip:
    """A piece of the pool: samples [start, start + count) say `text` (lower case words, or empty for noise)."""

    start: int
    count: int
    text: str
    voice: str
    source: str
    """command, teacher, extra, own or noise."""
    split: str
    """train or dev."""

    @property
    def seconds(self) -> float:
        return self.count / RECOGNIZER_RATE


@dataclass
class Pool:
    """All sound of a run in one array."""

    clips: list[Clip] = field(default_factory=list)
    _parts: list[Pcm] = field(default_factory=list)
    _size: int = 0
    _sound: Pcm | None = None

    def add(self, samples: Pcm, text: str, voice: str, source: str, split: str) -> None:
        """Append one clip. `samples`: int16 [n] at 16 kHz."""
        self.clips.append(Clip(self._size, len(samples), text, voice, source, split))
        self._parts.append(samples)
        self._size += len(samples)
        self._sound = None

    def sound(self, clip: Clip) -> npt.NDArray[np.float32]:
        """A fresh float32 [n] copy of the clip within -1..1."""
        if self._sound is None:
            self._sound = np.concatenate(self._parts)
            self._parts = [self._sound]
        return self._sound[clip.start : clip.start + clip.count].astype(np.float32) / 32768.0

    def save(self, path: Path) -> None:
        """Sound as `path`.npy and clips as `path`.json."""
        if self.clips:
            self.sound(self.clips[0])
        np.save(path.with_suffix(".npy"), self._parts[0])
        path.with_suffix(".json").write_text(json.dumps([asdict(clip) for clip in self.clips]), "utf-8")

    @classmethod
    def load(cls, path: Path) -> Pool:
        sound = np.load(path.with_suffix(".npy"))
        clips = [Clip(**row) for row in json.loads(path.with_suffix(".json").read_text("utf-8"))]
        return cls(clips, [sound], len(sound), sound)

    def of(self, source: str, split: str) -> list[Clip]:
        return [clip for clip in self.clips if clip.source == source and clip.split == split]


def share(name: str) -> float:
    """A number in 0..1 that depends on the name alone: splits stay as they are when a corpus grows."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32


def plain_words(text: str) -> str | None:
    """Lower-case words of a-z and apostrophes, or None where the text holds digits or signs it cannot spell."""
    text = re.sub(r"[\s?,.!;:\-\"()]+", " ", text.lower().replace("’", "'")).strip()
    text = re.sub(r"(?<![a-z])'|'(?![a-z])", "", text)
    return text if re.fullmatch(r"[a-z']+( [a-z']+)*", text) else None


def read_sound(path: Path) -> Pcm:
    """Any sound file as int16 [n], mono, 16 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate != RECOGNIZER_RATE:
        mono = soxr.resample(mono, rate, RECOGNIZER_RATE, quality="HQ")
    return (np.clip(mono, -1.0, 1.0) * 32767).astype(np.int16)


def load_real(pool: Pool, folder: Path, held_out: float = 0.12) -> None:
    """Commands and noise of a data folder (`index.csv`); only rows marked `train` are opened.

    Speakers with a share below `held_out` are dev; so are noise clips.
    """
    with (folder / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["use"] == "train"]
    for row in rows:
        if row["kind"] == "commands_en":
            split = "dev" if share(row["speaker"]) < held_out else "train"
            pool.add(read_sound(folder / row["path"]), row["text"], row["speaker"], "command", split)
        elif row["kind"] == "noise":
            split = "dev" if share(row["path"]) < held_out else "train"
            pool.add(read_sound(folder / row["path"]), "", row["text"], "noise", split)


def load_corpus(pool: Pool, folder: Path, source: str, seen: set[str] | None = None) -> int:
    """A corpus of `index.jsonl` lines {path, text, voice, seconds, split}; returns how many clips were added.

    Clips whose words cannot be spelled plainly, that are longer than MAX_SECONDS or that speak faster than CTC can
    follow are left out. `seen` holds paths already loaded, so that a corpus can be read again while it grows.
    """
    index = folder / "index.jsonl"
    if not index.is_file():
        return 0
    seen = seen if seen is not None else set()
    added = 0
    for line in index.read_text("utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a corpus that is still being written
        text = spoken(row["text"])
        if row["path"] in seen or text is None or row.get("seconds", 1.0) > MAX_SECONDS:
            continue
        seen.add(row["path"])
        samples = read_sound(folder / row["path"])
        if len(text) * 0.045 > len(samples) / RECOGNIZER_RATE:
            continue
        pool.add(samples, text, row["voice"], source, row.get("split", "train"))
        added += 1
    return added


def spoken(text: str) -> str | None:
    """The words as they are said; numbers and signs through `models.text` where it is there, else left out."""
    try:
        from models.text import spoken_words
    except ImportError:
        return plain_words(text)
    try:
        return plain_words(" ".join(spoken_words(text)))
    except ValueError:
        return None


def measured_texts(pool: Pool) -> set[str]:
    return {clip.text for clip in pool.clips if clip.split == "dev" and clip.source not in ("command", "noise")}


def drop_dev_texts(pool: Pool) -> int:
    """Take out of training every teacher clip whose text is measured; returns how many were taken out."""
    measured = measured_texts(pool)
    before = len(pool.clips)
    pool.clips = [
        clip
        for clip in pool.clips
        if clip.split == "dev" or clip.source in ("command", "noise") or clip.text not in measured
    ]
    return before - len(pool.clips)


def say(text: str, rng: random.Random, scratch: Path) -> tuple[Pcm, str]:
    """One random voice, pace and pitch of flite or espeak-ng says the text: int16 16 kHz and the voice's name."""
    wav = scratch / "say.wav"
    if rng.random() < 0.45:
        voice = rng.choice(FLITE_VOICES)
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={rng.uniform(0.85, 1.25):.2f}"]
        if voice == "kal16":
            command += ["--setf", f"int_f0_target_mean={rng.uniform(80, 160):.0f}"]
        command += ["-t", text, "-o", str(wav)]
    else:
        variant = rng.choice(ESPEAK_VARIANTS)
        voice = rng.choice(ESPEAK_ACCENTS) + (f"+{variant}" if variant else "")
        pace, pitch = rng.randint(120, 190), rng.randint(20, 80)
        command = ["espeak-ng", "-v", voice, "-s", str(pace), "-p", str(pitch), "-w", str(wav), text]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
    return read_sound(wav), voice


def phrases(text_folder: Path) -> list[str]:
    """Distinct plainly spellable phrases of the data folder's text lists (`text/*.csv` with a column `text`)."""
    found: dict[str, None] = {}
    for path in sorted(text_folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                text = plain_words(row["text"])
                if text is not None and len(text) <= 120:
                    found[text] = None
    return list(found)


def script(texts: list[str], commands: Iterable[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """An endless run of (text, split): phrases, single commands, and random words for a wide vocabulary."""
    words = sorted({word for text in texts for word in text.split()})
    spoken_commands = sorted(set(commands))
    while True:
        kind = rng.random()
        if kind < 0.6:
            text = rng.choice(texts)
        elif kind < 0.75 and spoken_commands:
            text = " ".join(rng.choice(spoken_commands) for _ in range(rng.choice((1, 1, 1, 2, 3))))
        else:
            text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 7)))
        yield text, "dev" if share(text) < 0.02 and " " in text else "train"


def count_words(pool: Pool, texts: Iterable[str], word_list: Path | None) -> Trigrams:
    """Words, three at a time, of training sentences: what the pool says, `texts`, and a plain list of words.

    Sentences count once each however often they are said, commands as often as they are; nothing that is measured is
    counted but for the words of the list.
    """
    measured = measured_texts(pool)
    trained = (clip.text for clip in pool.clips if clip.split == "train" and clip.source == "teacher")
    commands = [clip.text for clip in pool.clips if clip.source == "command" and clip.split == "train"]
    sentences = [text for text in dict.fromkeys([*trained, *texts]) if text not in measured]
    lines = word_list.read_text("utf-8").splitlines() if word_list is not None else []
    return Trigrams.count(
        sentences + commands, [w for line in lines if len(w := line.lower()) > 2 and plain_words(w) == w]
    )


def make_extra(out: Path, speech: Path, hours: float, seed: int) -> None:
    """Speak phrases, commands and random words until `hours` are there; resumes where an earlier call stopped."""
    out.mkdir(parents=True, exist_ok=True)
    with (speech / "index.csv").open(newline="", encoding="utf-8") as file:
        commands = {row["text"] for row in csv.DictReader(file) if row["kind"] == "commands_en"}
    index = out / "index.jsonl"
    done = [json.loads(line) for line in index.read_text("utf-8").splitlines()] if index.is_file() else []
    seconds = sum(row["seconds"] for row in done)
    rng = random.Random(seed + len(done))
    lines = script(phrases(speech / "text"), commands, rng)
    began, made = time.monotonic(), 0.0
    with index.open("a", encoding="utf-8") as log, tempfile.TemporaryDirectory() as scratch:
        for number in range(len(done), sys.maxsize):
            if seconds >= hours * 3600:
                break
            text, split = next(lines)
            try:
                samples, voice = say(text, rng, Path(scratch))
            except (subprocess.SubprocessError, soundfile.LibsndfileError):
                continue
            if len(samples) < RECOGNIZER_RATE // 5:
                continue
            length = len(samples) / RECOGNIZER_RATE
            path = f"{number:06d}.flac"
            soundfile.write(out / path, samples, RECOGNIZER_RATE)
            row = {"path": path, "text": text, "voice": voice, "seconds": round(length, 3), "split": split}
            log.write(json.dumps(row) + "\n")
            seconds, made = seconds + length, made + length
            if number % 500 == 0:
                left = (hours * 3600 - seconds) / max(made / (time.monotonic() - began), 1e-9)
                print(f"extra speech: {seconds / 3600:.2f} of {hours:g} h, {left:.0f} s left", flush=True)
                log.flush()
