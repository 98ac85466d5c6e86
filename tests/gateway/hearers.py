"""Small encoders for tests: real ONNX graphs in real sessions, whose voices are pitches and whose moods are brightness.

The graphs are one bank of wavelets each, so what they hear can be reckoned by hand: an embedding has the loudness at
256 pitches, and a recording is cheerful if it has much at 5 kHz.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.load import Encoders
from models.onnx import OnnxModel
from models.utterance import RECOGNIZER_RATE, Samples

PITCHES = np.random.default_rng(5).permutation(np.geomspace(100, 4_000, 256))
"""Hz by dimension, in no order: so any prefix of an embedding is one."""
BRIGHT = 5_000.0
WINDOW = 512


def tone(pitch: float, seconds: float = 1.0, rate: int = RECOGNIZER_RATE, *, bright: bool = False) -> Samples:
    """Someone with that voice, saying nothing; cheerfully if `bright`."""
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.25 * np.sin(2 * np.pi * pitch * time) + 0.2 * bright * np.sin(2 * np.pi * BRIGHT * time)
    return wave.astype(np.float32)


class TinySpeaker:
    """`models.engine.VoiceEncoder`."""

    def __init__(self, folder: Path, threshold: float = 0.8) -> None:
        self._model = _model(folder, "speaker", PITCHES)
        self.thresholds = {8: threshold, 256: threshold}
        self.name, self.licence = "pitch-speaker", "Apache-2.0"
        self.identity, self.provider = self._model.identity, self._model.provider
        self.runs = 0

    def embed(self, samples: Samples) -> Samples:
        self.runs += 1
        heard = _loudness(self._model, samples)
        return np.asarray(heard / np.linalg.norm(heard), np.float32)


class TinyMoods:
    """`models.engine.MoodEncoder`."""

    def __init__(self, folder: Path) -> None:
        self._model = _model(folder, "emotion", np.array([BRIGHT]))
        self.name, self.licence = "bright-moods", "Apache-2.0"
        self.identity, self.provider = self._model.identity, self._model.provider
        self.runs = 0

    def mood(self, samples: Samples) -> tuple[str, float]:
        self.runs += 1
        share = float(_loudness(self._model, samples)[0]) / float(np.abs(samples).mean())
        return ("cheerful", 0.9) if share > 0.2 else ("neutral", 0.8)


def encoders(folder: Path) -> Encoders:
    return Encoders(TinySpeaker(folder / "speaker"), TinyMoods(folder / "emotion"))  # type: ignore[arg-type]


def _loudness(model: OnnxModel, samples: Samples) -> Samples:
    if len(samples) < RECOGNIZER_RATE // 2:
        raise ValueError("too short to hear anything")
    if float(np.abs(samples).max()) < 1e-3:
        raise ValueError("too quiet to hear anything")
    return model.run({"wave": samples[None, None]})[0][0]


def _model(folder: Path, family: str, pitches: npt.NDArray[np.float64]) -> OnnxModel:
    """A graph wave [1, 1, n] -> loudness [1, len(pitches)] in a model folder, loaded."""
    angle = 2 * np.pi * pitches[:, None] * np.arange(WINDOW) / RECOGNIZER_RATE
    window = np.hanning(WINDOW) / WINDOW
    parts = {"cosine": np.cos(angle) * window, "sine": np.sin(angle) * window}
    nodes = []
    for name in parts:
        nodes.append(helper.make_node("Conv", ["wave", name], [f"{name}_part"], strides=[WINDOW // 2]))
        nodes.append(helper.make_node("Mul", [f"{name}_part"] * 2, [f"{name}_square"]))
    nodes.append(helper.make_node("Add", ["cosine_square", "sine_square"], ["power"]))
    nodes.append(helper.make_node("Sqrt", ["power"], ["loud"]))
    nodes.append(helper.make_node("ReduceMean", ["loud"], ["loudness"], axes=[2], keepdims=0))
    graph = helper.make_graph(
        nodes,
        family,
        [helper.make_tensor_value_info("wave", TensorProto.FLOAT, [1, 1, None])],
        [helper.make_tensor_value_info("loudness", TensorProto.FLOAT, [1, len(pitches)])],
        [numpy_helper.from_array(part[:, None].astype(np.float32), name) for name, part in parts.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    data = proto.SerializeToString()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    fields = {"name": family, "family": family, "licence": "Apache-2.0", "sha256": digest}
    (folder / "model.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in fields.items()))
    return OnnxModel(folder)
