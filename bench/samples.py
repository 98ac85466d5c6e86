"""Sound files of what the embedded synthesizer can do: ten sentences in some voices and every mood, and a list of them.

    refrain samples [--out DIR] [--voices slt,rms,awb-high]

Runs the models themselves; no gateway is needed. DIR gets VOICE/MOOD-NN.wav, index.md, and moods.png, a picture of one
sentence in each voice and mood where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rich
import soundfile
from rich.progress import track

from models.mel import log_mel
from models.synthesizer import AcousticModel
from models.utterance import MEL_HOP, MEL_RATE
from models.vocoder import Vocoder

Samples = npt.NDArray[np.float32]

SENTENCES = (
    "Your taxi is on its way, and it will arrive at half past seven.",
    "I have booked a table for four people on Friday evening.",
    "Good morning. How can I help you today?",
    "The next train to the harbour leaves from platform nine at 10:45.",
    "I did not catch that. Could you say it again, please?",
    "Tomorrow will be cloudy and rather cold near the old town.",
    "There are 7 new messages, and one of them is from Anna.",
    "The front door is locked, and the lights in the kitchen are off.",
    "Your balance is $42.50.",
    "Thank you for calling. Goodbye!",
)


def register(parser: argparse.ArgumentParser) -> None:
    """Writes sound files of ten sentences in some voices and every mood."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("samples"),
        help="folder for sounds, their list and a picture; default %(default)s",
    )
    parser.add_argument(
        "--voices", default="slt,rms,awb-high", help="as `refrain voices` names them, or: all; default %(default)s"
    )
    parser.set_defaults(run=lambda arguments: run(arguments.out, arguments.voices))


def run(out: Path, wanted: str) -> int:
    """Speaks and writes everything. Returns the exit status."""
    acoustic, vocoder = AcousticModel(), Vocoder()
    voices = acoustic.voices if wanted == "all" else tuple(wanted.split(","))
    if unknown := [voice for voice in voices if voice not in acoustic.voices]:
        known = ", ".join(acoustic.voices)
        print(f"--voices: '{', '.join(unknown)}' is unknown; known are {known}, or all", file=sys.stderr)
        return 2
    plan = [(voice, mood, n) for voice in voices for mood in acoustic.emotions for n in range(len(SENTENCES))]
    out.mkdir(parents=True, exist_ok=True)  # now, for it takes a while to speak
    lines = ["| file | voice | mood | seconds | text |", "|---|---|---|---|---|"]
    first: dict[tuple[str, str], Samples] = {}
    for voice, mood, n in track(plan, "speaking"):
        samples = speak(acoustic, vocoder, SENTENCES[n], voice, mood)
        file = f"{voice}/{mood}-{n + 1:02d}.wav"
        (out / voice).mkdir(parents=True, exist_ok=True)
        soundfile.write(out / file, samples, MEL_RATE)
        lines.append(f"| [{file}]({file}) | {voice} | {mood} | {len(samples) / MEL_RATE:.2f} | {SENTENCES[n]} |")
        first.setdefault((voice, mood), samples)
    (out / "index.md").write_text("\n".join(lines) + "\n", "utf-8")
    draw(first, voices, acoustic.emotions, out / "moods.png")
    rich.print(f"{len(plan)} sound files and index.md in {out}")
    return 0


def speak(acoustic: AcousticModel, vocoder: Vocoder, text: str, voice: str, mood: str) -> Samples:
    """The whole text with its pauses: float32 [n] at 22,050 Hz."""
    return np.clip(vocoder.wave(acoustic.mel(text, voice, mood)), -1.0, 1.0)


def draw(sounds: Mapping[tuple[str, str], Samples], voices: Sequence[str], moods: Sequence[str], path: Path) -> None:
    """The first sentence's mel by voice (rows) and mood (columns)."""
    try:
        import matplotlib as mpl
    except ImportError:
        rich.print("matplotlib is not installed, so no picture was drawn.")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    longest = max(len(samples) for samples in sounds.values()) / MEL_RATE
    figure, axes = plt.subplots(
        len(voices), len(moods), figsize=(3 * len(moods), 1.7 * len(voices) + 0.6), squeeze=False, layout="constrained"
    )
    for row, voice in zip(axes, voices, strict=True):
        for axis, mood in zip(row, moods, strict=True):
            mel = log_mel(sounds[voice, mood])
            extent = (0, mel.shape[1] * MEL_HOP / MEL_RATE, 0, 80)
            axis.imshow(mel, origin="lower", aspect="auto", extent=extent, vmin=-9, vmax=2, cmap="magma")
            axis.set(title=f"{voice}, {mood}", xlim=(0, longest), yticks=[])
    figure.suptitle(f"“{SENTENCES[0]}”", fontsize=11)
    figure.savefig(path, dpi=90)
    plt.close(figure)
