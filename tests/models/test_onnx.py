"""A model folder is loaded as what its manifest says, or refused by name; its identity is its weights and options."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.onnx import CUDA, ModelFileError, OnnxModel, Providers, read_manifest

no_gpu = pytest.mark.skipif(Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists(), reason="this machine has a GPU")


def graph(weight: float = 2.0) -> bytes:
    """y = weight * x, as a file's bytes."""
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    scale = numpy_helper.from_array(np.array([weight], np.float32), "w")
    body = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "scale", places[:1], places[1:], [scale])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def folder(at: Path, data: bytes | None = None, options: dict[str, Any] | None = None, **manifest: str) -> Path:
    """A model folder; `manifest` overrides its fields."""
    at.mkdir()
    data = graph() if data is None else data
    (at / "model.onnx").write_bytes(data)
    fields = {"name": "scale", "family": "scale", "licence": "MIT", "sha256": hashlib.sha256(data).hexdigest()}
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**fields, **manifest}.items()]
    lines += ["[options]", *(f"{name} = {json.dumps(value)}" for name, value in (options or {}).items())]
    (at / "model.toml").write_text("\n".join(lines))
    return at


def test_a_folder_is_loaded_and_runs(tmp_path: Path) -> None:
    model = OnnxModel(folder(tmp_path / "m", options={"context": 3}))
    (doubled,) = model.run({"x": np.array([1.0, -2.0], np.float32)})
    assert doubled.tolist() == [2.0, -4.0]
    assert model.input_names == ("x",)
    assert model.options == {"context": 3}
    assert model.manifest["name"] == "scale"


def test_the_provider_is_the_one_that_runs_and_not_the_one_asked_for(tmp_path: Path) -> None:
    model = OnnxModel(folder(tmp_path / "m"), providers=["CPUExecutionProvider"])
    assert model.provider == model.session.get_providers()[0] == "CPUExecutionProvider"


@no_gpu
def test_a_provider_that_does_not_run_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = OnnxModel(folder(tmp_path / "m"), providers=Providers([CUDA]))
    assert (model.provider, model.device) == ("CPUExecutionProvider", "cpu")
    assert "CUDAExecutionProvider was asked for" in caplog.text


@no_gpu
def test_a_provider_that_does_not_run_is_an_error_where_providers_are_strict(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"must run on CUDAExecutionProvider.*would run on CPUExecutionProvider"):
        OnnxModel(folder(tmp_path / "m"), providers=Providers([CUDA], strict=True))


def test_a_provider_that_nobody_has_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"must run on Abacus, which is not in this build.*CPUExecutionProvider"):
        OnnxModel(folder(tmp_path / "m"), providers=Providers(["Abacus"], strict=True))


def test_strict_providers_that_run_are_served(tmp_path: Path) -> None:
    for names in ([], ["CPUExecutionProvider"]):
        model = OnnxModel(folder(tmp_path / f"m{len(names)}"), providers=Providers(names, strict=True))
        assert model.provider == "CPUExecutionProvider"


def test_a_chain_passes_on_what_lies_on_the_device(tmp_path: Path) -> None:
    model = OnnxModel(folder(tmp_path / "m"))
    x = np.array([1.0, -2.0], np.float32)
    (once,) = model.on_device({"x": x})
    (twice,) = model.on_device({"x": once}, to_host=("y",))
    assert once.device_name() == model.device
    assert twice.numpy().tolist() == [4.0, -8.0]
    assert once.numpy().tolist() == model.run({"x": x})[0].tolist()


def test_chains_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    model = OnnxModel(folder(tmp_path / "m"))

    def work(number: int) -> list[float]:
        (once,) = model.on_device({"x": np.full(64, number, np.float32)})
        return list(model.on_device({"x": once})[0].numpy())

    with ThreadPoolExecutor(4) as pool:
        for number, answer in enumerate(pool.map(work, range(50))):
            assert answer == [4.0 * number] * 64


def test_the_identity_is_that_of_weights_and_options_alone(tmp_path: Path) -> None:
    def identity(name: str, **how: Any) -> str:
        return OnnxModel(folder(tmp_path / name, **how)).identity

    plain = identity("plain", options={"a": 1, "b": [2, 3]})
    assert plain == identity("again", options={"b": [2, 3], "a": 1}, licence="Apache-2.0")
    other_weights = identity("weights", data=graph(2.5), options={"a": 1, "b": [2, 3]})
    other_options = identity("options", options={"a": 2, "b": [2, 3]})
    assert len({plain, other_weights, other_options}) == 3
    assert len(bytes.fromhex(plain)) == 32


def test_a_file_that_is_not_the_one_in_the_manifest_is_refused(tmp_path: Path) -> None:
    at = folder(tmp_path / "m")
    changed = graph(3.0)
    (at / "model.onnx").write_bytes(changed)
    with pytest.raises(ModelFileError, match=f"model.onnx: sha256 is {hashlib.sha256(changed).hexdigest()}, but"):
        OnnxModel(at)


@pytest.mark.parametrize("field", ["name", "family", "licence", "sha256"])
def test_a_manifest_without_a_field_is_refused_by_name(tmp_path: Path, field: str) -> None:
    at = folder(tmp_path / "m")
    lines = [line for line in (at / "model.toml").read_text().splitlines() if not line.startswith(field)]
    (at / "model.toml").write_text("\n".join(lines))
    with pytest.raises(ModelFileError, match=f"model.toml: field '{field}' is missing"):
        read_manifest(at)


@pytest.mark.parametrize("name", ["model.toml", "model.onnx"])
def test_a_folder_without_one_of_its_files_is_refused_by_name(tmp_path: Path, name: str) -> None:
    at = folder(tmp_path / "m")
    (at / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        OnnxModel(at)


@pytest.mark.parametrize("text", [b"name = ", b"\xff\xfe", b"[options", b"a\0"])
def test_a_manifest_that_is_not_toml_is_refused_by_name(tmp_path: Path, text: bytes) -> None:
    at = folder(tmp_path / "m")
    (at / "model.toml").write_bytes(text)
    with pytest.raises(ModelFileError, match=r"model\.toml"):
        OnnxModel(at)


@pytest.mark.parametrize("data", [b"", b"not a model", graph()[:60]], ids=["empty", "text", "truncated"])
def test_a_file_that_is_no_model_is_refused_by_name_though_its_digest_is_right(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        OnnxModel(folder(tmp_path / "m", data))
