"""`python -m models.training PART ...`: makes the data and trains the models that ship in models/embedded.

Each part is a module of this package with `main(argv)`; it is imported only when asked for, so that one part's
libraries are not needed by another.
"""

from __future__ import annotations

import importlib
import sys

PARTS = {
    "corpus": "speak the sentences of a data folder with the voices on this system",
    "g2p": "make the lexicon and train letters to phones",
    "acoustic": "train phones to mel",
    "vocoder": "train mel to wave",
    "recognizer": "train wave to words",
    "emotion": "train manner to arousal",
    "speaker": "train wave to voice embedding",
    "respoken": "find frames by which commands said again are known",
    "recall": "train what knows a recording again through another microphone",
    "recall_added": "learn to tell a word that was added from noise, with the recall networks as they are",
}


def main(argv: list[str]) -> None:
    """Hands `argv` to the part it names. Exits with the list of parts when it names none."""
    if not argv or argv[0] not in PARTS:
        lines = "\n".join(f"  {name:<12} {what}" for name, what in PARTS.items())
        raise SystemExit(f"usage: python -m models.training PART ...\nparts:\n{lines}")
    try:
        importlib.import_module(f"models.training.{argv[0]}").main(argv[1:])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SystemExit(f"models.training {argv[0]}: {error.filename}: {error.strerror}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
