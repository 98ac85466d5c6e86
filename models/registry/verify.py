"""Whether a model does what its family does: loaded in a session, its graph compared, and run once on a small input.

A wrong graph would otherwise be found by the first caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from models import pronounce
from models.onnx import ModelFileError, OnnxModel
from models.pronounce import Pronouncer
from models.recognizer import Recognizer
from models.registry.graph import Graph, graph_of
from models.registry.manifest import check_files
from models.registry.store import Version
from models.synthesizer import AcousticModel
from models.utterance import MEL_BANDS, MEL_HOP, RECOGNIZER_RATE
from models.vocoder import Vocoder

FRAMES: Final = 24
WORD: Final = "blorft"
"""In no lexicon."""


def verify(version: Version, trusted_keys: Sequence[Path] = ()) -> Graph:
    """Everything that is checked before a version serves: files, signature, graph, a run. On the CPU. Returns its
    graph. Raises `ModelFileError`."""
    check_files(version.folder, () if version.shipped else trusted_keys)
    try_once(version, opened(version))
    return graph_of(OnnxModel(version.folder).session)


def opened(version: Version) -> Any:
    """The runtime object of the version's family, on the CPU, with shipped models where it needs others."""
    family, folder = version.family, version.folder
    if family == "speaker":
        from models.speaker import SpeakerEncoder

        return SpeakerEncoder(folder)
    if family == "emotion":
        from models.emotion import EmotionEncoder

        return EmotionEncoder(folder)
    makers: Mapping[str, Callable[[], Any]] = {
        "recognizer": lambda: Recognizer(folder),
        "acoustic": lambda: AcousticModel(folder, pronounce.EMBEDDED),
        "g2p": lambda: Pronouncer(folder),
        "vocoder": lambda: Vocoder(folder),
    }
    return told(version, makers[family])


def told(version: Version, make: Callable[[], Any]) -> Any:
    """`make()`, with errors that name the folder."""
    try:
        return make()
    except ModelFileError:
        raise
    except Exception as error:  # an option that is missing, or of a type that the family's class cannot use
        raise ModelFileError(f"{version.folder}: not a {version.family}: {error!r}") from error


def try_once(version: Version, model: Any) -> None:
    """Runs a family's object on a small input. Raises `ModelFileError` when it fails, or gives what it must not."""
    try:
        wrong = _TRIES[version.family](model)
    except Exception as error:  # whatever a graph or a wrong option makes happen
        raise ModelFileError(f"{version.folder}: does not run: {error}") from error
    if wrong:
        raise ModelFileError(f"{version.folder}: {wrong}")


def _try_recognizer(model: Recognizer) -> str | None:
    rows = model.log_probs(_sound())
    model.read(rows)
    steps = -(-len(_sound()) // 640)
    if rows.shape != (steps, model.alphabet.size):
        return f"1 s gives log-probabilities {list(rows.shape)}, but must give {[steps, model.alphabet.size]}"
    sums = np.logaddexp.reduce(rows.astype(np.float64), axis=1)
    return None if np.abs(sums).max() < 1e-2 else "rows of the log-probabilities do not sum to a probability of 1"


def _try_acoustic(model: AcousticModel) -> str | None:
    mels = [model.mel("Hello there.", voice, mood) for voice in model.voices for mood in model.emotions[:1]]
    return None if all(np.isfinite(mel).all() for mel in mels) else "a mel holds values that are not finite"


def _try_g2p(model: Pronouncer) -> str | None:
    return None if model.phones(WORD) else f"says nothing for '{WORD}'"


def _try_vocoder(model: Vocoder) -> str | None:
    time = np.arange(FRAMES, dtype=np.float32)
    mel = -6.0 + np.sin(time[None] * 0.3 + np.arange(MEL_BANDS, dtype=np.float32)[:, None] * 0.2)
    wave = model.wave(mel.astype(np.float32))
    if wave.shape != (FRAMES * MEL_HOP,):
        return f"{FRAMES} frames give {list(wave.shape)} samples, but must give {FRAMES * MEL_HOP}"
    return None if np.isfinite(wave).all() else "the wave holds samples that are not finite"


def _try_speaker(model: Any) -> str | None:
    norm = float(np.linalg.norm(model.embed(_sound())))
    return None if abs(norm - 1) < 1e-3 else f"the embedding's norm is {norm:.4f}, but must be 1"


def _try_emotion(model: Any) -> str | None:
    arousal = float(model.hear(_sound()).arousal)
    return None if 0 <= arousal <= 1 else f"the arousal is {arousal}, but must be 0 to 1"


_TRIES: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "recognizer": _try_recognizer,
    "acoustic": _try_acoustic,
    "g2p": _try_g2p,
    "vocoder": _try_vocoder,
    "speaker": _try_speaker,
    "emotion": _try_emotion,
}


def _sound() -> np.ndarray[Any, np.dtype[np.float32]]:
    """1 s of a buzz whose loudness and pitch change, at 16 kHz: the same each time."""
    time = np.arange(RECOGNIZER_RATE) / RECOGNIZER_RATE
    phase = 2 * np.pi * (130 * time + 12 * np.sin(2 * np.pi * 2 * time))
    buzz = sum(np.sin(n * phase) / n for n in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return np.asarray(0.1 * buzz, np.float32)
