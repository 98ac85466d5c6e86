"""A recognizer's graph with silence at its edges gives what it gave in the midst of silence, and needs none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
onnx = pytest.importorskip("onnx", reason="training needs the extra `train`")

import onnxruntime as ort  # noqa: E402

from models.hearing import BANDS, SILENCE, STRIDE  # noqa: E402
from models.training.export import halve, hearing_graph  # noqa: E402
from models.training.recognizer_edges import convert, silent_edges  # noqa: E402
from models.training.recognizer_net import Network, context_frames  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

DILATIONS = (1, 2, 1, 3, 1)
AROUND = context_frames(DILATIONS)


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    """A small network, never trained, whose layers do not happen to be nought in silence."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    network = Network(16, DILATIONS).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return halve(hearing_graph(network, torch.zeros(2, 400, BANDS), "log_probs", {0: "batch", 1: "steps"}))


def run(model: onnx.ModelProto, features: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"features": features})[0])


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_a_recording_alone_is_as_in_the_midst_of_silence(plain: onnx.ModelProto, steps: int) -> None:
    heard = np.random.default_rng(steps).normal(0, 0.7, (2, steps * STRIDE, BANDS)).astype(np.float32)
    around = np.pad(heard, ((0, 0), (AROUND, AROUND), (0, 0)), constant_values=SILENCE)
    wanted = run(plain, around)[:, AROUND // STRIDE :][:, :steps]
    got = run(silent_edges(plain), heard)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=2e-4)
    assert np.abs(run(plain, heard) - wanted).max() > 0.01  # without silent edges it is another


def test_weights_keep_their_names(plain: onnx.ModelProto) -> None:
    """Training goes on from a shipped file by these names."""
    edged = {tensor.name: tensor for tensor in silent_edges(plain).graph.initializer}
    for tensor in plain.graph.initializer:
        assert edged[tensor.name] == tensor


def test_a_folder_is_converted_once(plain: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(plain.SerializeToString())
    (tmp_path / "model.toml").write_text('sha256 = "old"\n\n[options]\ncontext = 40\n')
    digest = convert(tmp_path)
    assert (tmp_path / "model.toml").read_text() == (
        f'sha256 = "{digest}"\n\n[options]\ncontext = 40\nedges = "silence"\n'
    )
    with pytest.raises(ValueError, match="already"):
        convert(tmp_path)


def test_another_graph_is_refused() -> None:
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["features", "w"], ["log_probs"], name="c", kernel_shape=[5])],
        "other",
        [onnx.helper.make_tensor_value_info("features", 1, [1, None, BANDS])],
        [onnx.helper.make_tensor_value_info("log_probs", 1, None)],
        [onnx.numpy_helper.from_array(np.zeros((4, STRIDE * 200, 5), np.float32), "w")],
    )
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    with pytest.raises(ValueError, match="not built as"):
        silent_edges(model)
