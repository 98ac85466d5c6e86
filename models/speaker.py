"""Whose voice it is: 16 kHz speech to a unit vector of 256 numbers, of which the first 8, 16, 32, 64 or 128 also do.

The embedding is nested (Matryoshka; M-Vec, arXiv 2409.15782): a short prefix, brought back to unit length, is an
embedding itself, coarser and cheaper to look up; the cosine of two embeddings says how alike two voices are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.hearing import BANDS, features
from models.onnx import ModelFileError, OnnxModel
from models.utterance import RECOGNIZER_RATE, Samples

EMBEDDED = Path(__file__).parent / "embedded" / "speaker"
DIMENSIONS = (8, 16, 32, 64, 128, 256)
SHORTEST = 0.5
"""Seconds below which a recording says too little about a voice."""
SILENT = 1e-4
"""Peak below which a recording is taken for silence: -80 dBFS."""
LEVEL = 0.05
"""Root mean square that every recording is brought to."""
QUIETEST = 1.5
"""Frames whose mean feature is so far below the loudest twentieth (26 dB) hold pauses, not voice."""


class SpeakerEncoder:
    """A speaker model folder, ready to hear. Calls block and are thread-safe.

    Options of the manifest: bands, dimensions (lengths of prefix that are embeddings), threshold (the cosine at 256
    from which two recordings are taken for one voice) and thresholds (the same at each of dimensions, for shorter
    embeddings of two voices are nearer to each other; where absent, threshold is that of all). Raises
    `models.onnx.ModelFileError` where the folder is not such a model.
    """

    def __init__(self, folder: Path = EMBEDDED, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        self.model = OnnxModel(folder, providers=providers, threads=threads)
        options = self.model.options
        if options.get("bands") != BANDS or tuple(options.get("dimensions", ())) != DIMENSIONS:
            raise ModelFileError(f"{folder}: options bands and dimensions must be {BANDS} and {list(DIMENSIONS)}")
        self.threshold = float(options["threshold"])
        each = options.get("thresholds", [self.threshold] * len(DIMENSIONS))
        if len(each) != len(DIMENSIONS):
            raise ModelFileError(f"{folder}: option thresholds needs a cosine for each of {list(DIMENSIONS)}")
        self.thresholds = {dimensions: float(cosine) for dimensions, cosine in zip(DIMENSIONS, each, strict=True)}
        self.name: str = self.model.manifest["name"]
        self.licence: str = self.model.manifest["licence"]
        self.identity = self.model.identity
        self.provider = self.model.provider

    def embed(self, samples: Samples) -> Samples:
        """The voice of a 16 kHz recording: float32 [256] of unit norm, whatever the recording's level.

        Raises `ValueError` for less than 0.5 s, for silence, and for samples that are not finite numbers [n].
        """
        vector = self.model.run({"features": voiced(samples)[None]})[0][0]
        return np.asarray(vector / np.linalg.norm(vector), np.float32)

    def same(self, one: Samples, other: Samples) -> bool:
        """Whether two embeddings [256] are taken for one voice: their cosine is at least `threshold`."""
        return float(one @ other) >= self.threshold


def prefix(embedding: Samples, dimensions: int) -> Samples:
    """The first `dimensions` of an embedding [256] brought to unit norm: float32 [dimensions], one of DIMENSIONS."""
    if dimensions not in DIMENSIONS:
        allowed = ", ".join(map(str, DIMENSIONS))
        raise ValueError(f"dimensions is {dimensions}; allowed are {allowed}")
    if embedding.shape != (DIMENSIONS[-1],):
        raise ValueError(f"embedding has shape {list(embedding.shape)}; allowed is [{DIMENSIONS[-1]}]")
    head = embedding[:dimensions].astype(np.float32)
    norm = float(np.linalg.norm(head))
    if not 0 < norm < np.inf:
        raise ValueError(f"embedding: its first {dimensions} numbers must be finite and not all zero")
    return np.asarray(head / norm, np.float32)


def voiced(samples: Samples) -> Samples:
    """What the network hears of a 16 kHz wave: float32 [T, 80], pauses left out, each band's mean taken away.

    Raises `ValueError` as `SpeakerEncoder.embed`.
    """
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise ValueError(f"samples must be finite numbers of shape [n]; these are of shape {list(samples.shape)}")
    seconds = len(samples) / RECOGNIZER_RATE
    if seconds < SHORTEST:
        raise ValueError(f"samples are {seconds:.2f} s long; a voice needs at least {SHORTEST} s at 16 kHz")
    if float(np.abs(samples).max()) < SILENT:
        raise ValueError("samples are silent (peak below -80 dBFS); a voice needs speech")
    heard = features(levelled(samples))
    heard = heard[spoken(heard)]
    return np.asarray(heard - heard.mean(axis=0), np.float32)


def levelled(samples: Samples) -> Samples:
    """The wave brought to a root mean square of LEVEL."""
    return np.asarray(samples * (LEVEL / np.sqrt(np.square(samples, dtype=np.float64).mean() + 1e-20)), np.float32)


def spoken(heard: Samples) -> Samples:
    """Which frames of features [T, 80] hold voice: places, int [<= T]; never none."""
    loudness = heard.mean(axis=1)
    return np.asarray(np.flatnonzero(loudness >= np.quantile(loudness, 0.95) - QUIETEST))
