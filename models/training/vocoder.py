"""`python -m models.training vocoder STEP ...`: from a data folder to the shipped vocoder and its report.

prepare   join the clips of a data folder (and of a corpus) into tapes with pitch labels
train     train on the tapes for a budget of CPU minutes; run again to go on
export    write model.onnx and model.toml from a checkpoint
evaluate  judge a model folder on the held-out speakers, beside Griffin-Lim
listen    vocode one sound file's mel
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import soundfile
import torch

from models.mel import log_mel
from models.training.vocoder_data import Tapes, load, real_clips, teacher_clips, write_tape
from models.training.vocoder_export import export
from models.training.vocoder_net import Size
from models.training.vocoder_report import run_report
from models.training.vocoder_train import Plan, load_average, train
from models.utterance import MEL_RATE
from models.vocoder import EMBEDDED, Vocoder

NAME = "refrain-vocoder-1"
LICENCE = "Apache-2.0"


def main(argv: list[str]) -> None:
    """Runs one step; see the module's text. Exits with usage when it names none."""
    options = _parser().parse_args(argv)
    options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.training vocoder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(required=True, metavar="STEP")

    step = steps.add_parser("prepare", help="make the tapes")
    step.add_argument("--data", type=Path, required=True, help="folder with an index.csv")
    step.add_argument("--corpus", type=Path, help="folder with an index.jsonl, made by the step corpus")
    step.add_argument("--corpus-seconds", type=float, default=9000.0, help="of the corpus (default %(default)g)")
    step.add_argument("--cache", type=Path, required=True, help="folder for the tapes")
    step.set_defaults(run=_prepare)

    step = steps.add_parser("train", help="train for a budget of CPU minutes, or go on")
    step.add_argument("--cache", type=Path, required=True)
    step.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    step.add_argument("--minutes", type=float, default=30.0, help="CPU minutes in all, with those of earlier runs")
    step.add_argument("--batch", type=int, default=8, help="crops of 1.1 s in a step (default %(default)s)")
    step.add_argument("--rate", type=float, default=1e-3, help="peak learning rate (default %(default)s)")
    step.add_argument("--repel", type=float, default=1.0, help="weight of the noise term (default %(default)s)")
    step.add_argument("--corpus-share", type=float, default=0.4, help="share of crops from the corpus")
    step.add_argument("--seed", type=int, default=1)
    step.add_argument("--threads", type=int, default=1)
    step.set_defaults(run=_train)

    step = steps.add_parser("export", help="write the model folder")
    step.add_argument("--checkpoint", type=Path, required=True)
    step.add_argument("--folder", type=Path, default=EMBEDDED)
    step.set_defaults(run=_export)

    step = steps.add_parser("evaluate", help="PESQ and distances on held-out real speakers")
    step.add_argument("--data", type=Path, required=True)
    step.add_argument("--folder", type=Path, default=EMBEDDED)
    step.add_argument("--kind", default="speakers_en", help="kind of clips; for speakers_en the held-out ones")
    step.add_argument("--limit", type=int, default=40, help="clips at most (default %(default)s)")
    step.add_argument("--out", type=Path, help="folder for report.json, spectrograms and sound files")
    step.set_defaults(run=_evaluate)

    step = steps.add_parser("listen", help="vocode the mel of a sound file")
    step.add_argument("input", type=Path)
    step.add_argument("output", type=Path)
    step.add_argument("--folder", type=Path, default=EMBEDDED)
    step.set_defaults(run=_listen)
    return parser


def _prepare(options: argparse.Namespace) -> None:
    write_tape(real_clips(options.data), options.cache / "real")
    if options.corpus:
        write_tape(teacher_clips(options.corpus, options.corpus_seconds), options.cache / "teacher")


def _train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    folders, shares = [options.cache / "real"], [1.0]
    if (options.cache / "teacher").is_dir() and options.corpus_share > 0:
        folders, shares = [*folders, options.cache / "teacher"], [1.0 - options.corpus_share, options.corpus_share]
    plan = Plan(options.minutes, options.batch, options.rate, options.repel, seed=options.seed)
    train(Tapes(folders, shares), options.out, plan, Size())


def _export(options: argparse.Namespace) -> None:
    path = export(load_average(options.checkpoint), options.folder, NAME, LICENCE)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _evaluate(options: argparse.Namespace) -> None:
    print(json.dumps(run_report(options.folder, options.data, options.kind, options.limit, options.out), indent=1))


def _listen(options: argparse.Namespace) -> None:
    wave = Vocoder(options.folder).wave(log_mel(load(options.input)))
    soundfile.write(options.output, wave, MEL_RATE)
