"""How a recording feels: a small embedding of its manner, its arousal, and the nearest of the synthesizer's moods.

Samples ─▶ `models.prosody` (numbers that no level changes) ─▶ the shipped network. The network learned from plain
speech made calmer and more excited; it never heard acted emotion, and it knows nothing of pleasant and unpleasant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.onnx import ModelFileError, OnnxModel
from models.prosody import FEATURES, prosody
from models.utterance import RECOGNIZER_RATE, Samples

EMBEDDED = Path(__file__).parent / "embedded" / "emotion"
LEAST_SECONDS = 0.5
SILENCE = 1e-4
"""Peak (-80 dBFS) below which a recording is silence."""


@dataclass(frozen=True, slots=True)
class Feeling:
    """`embedding` float32 [16] of unit norm; `arousal` 0 (calm) to 1 (excited), 0.5 being plain reading."""

    embedding: Samples
    arousal: float


class EmotionEncoder:
    """The emotion encoder in `folder`. Thread-safe; every call blocks.

    The graph: prosody float32 [B, 41] (in the order of the option `features`) -> embedding float32 [B, k],
    arousal float32 [B]. The options hold the synthesizer's moods as this model hears them: `moods` names M of them, and
    `mood_axes` [d, k] brings an embedding to where a mood varies by about 1 in every direction around its centre, a
    row of `centroids` [M, d].
    """

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        """Raises `models.onnx.ModelFileError` when the folder is not a sound model folder, or of other features."""
        self._model = OnnxModel(folder, providers=providers, threads=threads)
        options = self._model.options
        if tuple(options.get("features", ())) != FEATURES:
            raise ModelFileError(f"{folder / 'model.toml'}: option features is not what models.prosody measures")
        self.moods = tuple(map(str, options.get("moods", ())))
        self._axes = np.array(options.get("mood_axes", []), np.float32)
        self._centroids = np.array(options.get("centroids", []), np.float32)
        if self.moods and (self._axes.ndim != 2 or self._centroids.shape != (len(self.moods), len(self._axes))):
            raise ModelFileError(
                f"{folder / 'model.toml'}: option centroids is {list(self._centroids.shape)}, but must have a row for "
                f"each of {len(self.moods)} moods and a column for each row of mood_axes"
            )
        self.name = str(self._model.manifest["name"])
        self.licence = str(self._model.manifest["licence"])
        self.identity = self._model.identity
        self.provider = self._model.provider

    def hear(self, samples: Samples) -> Feeling:
        """The feeling of a 16 kHz wave float32 [n]; of the first 30 s if it is longer. Its level makes no difference.

        Raises `ValueError` for less than 0.5 s, for silence, for values that are not finite, and where hardly anything
        is voiced.
        """
        if samples.ndim != 1:
            raise ValueError(f"samples: shape is {list(samples.shape)}, but must be [n]")
        if len(samples) < LEAST_SECONDS * RECOGNIZER_RATE:
            raise ValueError(f"samples: {len(samples) / RECOGNIZER_RATE:.2f} s is too short; at least 0.5 s is needed")
        peak = float(np.abs(samples).max())
        if not np.isfinite(peak):
            raise ValueError("samples: holds values that are not finite")
        if peak < SILENCE:
            raise ValueError(f"samples: silence (peak {peak:.1e}); at least {SILENCE:.0e} is needed")
        # Brought to one level, because the logarithms' floors are absolute.
        measured = prosody(samples.astype(np.float32, copy=False) * np.float32(0.5 / peak))
        embedding, arousal = self._model.run({"prosody": measured[None]})
        return Feeling(embedding[0], float(arousal[0]))

    def mood(self, samples: Samples) -> tuple[str, float]:
        """The nearest of the synthesizer's moods, and how near it is: 1 at its centre, 0 far from all that it says.

        Raises `ValueError` as `hear` does.
        """
        return self.nearest(self.hear(samples).embedding)

    def nearest(self, embedding: Samples) -> tuple[str, float]:
        """`mood` for an embedding float32 [k] of unit norm that was heard before.

        Raises `ValueError` where the model folder names no moods.
        """
        if not self.moods:
            raise ValueError(f"mood: model {self.name} knows no moods")
        distances = np.square(self._centroids - self._axes @ embedding).mean(axis=1)
        best = int(np.argmin(distances))
        return self.moods[best], float(np.exp(-0.5 * distances[best]))
