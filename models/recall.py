"""The two small networks by which a recording is known again: what the undistorted one was, and whether it is the same.

`models/embedded/recall` holds both. They belong to the fingerprint as its filterbank does: what is stored are sign
bits, so a better network needs nothing enrolled anew. Features and alignment are in `models.evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from models.added import Additions, Flags
from models.bands import BANDS
from models.evidence import BITS, FEATURES, Heard
from models.onnx import ModelFileError, OnnxModel
from models.signs import Levels, Words
from models.utterance import Samples

EMBEDDED: Final = Path(__file__).parent / "embedded" / "recall"


class RecallNets:
    """A recall model folder, ready. Calls block and are thread-safe.

    Raises `models.onnx.ModelFileError` where the folder is not such a model.
    """

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        self._ear = OnnxModel(folder / "ear", providers=providers, threads=threads)
        self._judge = OnnxModel(folder / "judge", providers=providers, threads=threads)
        if self._ear.options.get("bands") != BANDS or self._judge.options.get("features") != FEATURES:
            raise ModelFileError(f"{folder}: needs {BANDS} bands and {FEATURES} features")
        self.threshold = float(self._judge.options["threshold"])
        """Score from which two recordings are taken for the same."""
        try:
            self.additions = Additions.read(folder)
        except (OSError, ValueError, KeyError) as problem:
            raise ModelFileError(f"{folder}: no judge of silence: {problem}") from problem
        self.identity = self._ear.identity + self._judge.identity

    def hear(self, energies: Samples, bits: Words, level: Levels) -> Heard:
        """The query's band energies, linear power, float32 [2 T, 33] for each half frame in turn, as what the
        undistorted recording's bits and levels are likely to be; `bits` and `level` are its own (`Heard`)."""
        log_odds, speech = self._ear.run({"energies": energies.reshape(-1, 2, BANDS)})
        return Heard(log_odds.reshape(-1, BITS), speech, bits, level)

    def judge(self, timeline: Samples, silent: Flags | None = None) -> tuple[float, Samples]:
        """Two aligned recordings, float32 [17, frames]: the score (four times the log-odds that they are the same
        recording, before any threshold) and how much each frame speaks against it, float32 [frames]. Frames of
        `silent`, bool [frames], are left out of the score, and speak as little against it as any."""
        told, against = self._judge.run({"timeline": timeline[None, :FEATURES]})
        score, against = float(told[0]), against[0]
        if silent is not None and silent.any():
            score += _total(against) - _total(against[~silent])
            against = np.where(silent, against.min(), against)
        return score, against


def _total(against: Samples) -> float:
    """The sum in the log domain; minus infinity of nothing."""
    top = against.max(initial=-np.inf)
    return float(top + np.log(np.exp(against - top, dtype=np.float64).sum())) if len(against) else -np.inf


@lru_cache(maxsize=1)
def embedded() -> RecallNets:
    """The shipped networks, loaded once a process."""
    return RecallNets()
