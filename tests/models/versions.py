"""Small vocoders for tests of the registry: real graphs in real sessions, whose waves are as loud as their `gain`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, DOUBLE, INT = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def vocoder(gain: float = 0.5, mel: str = "mel", bands: int = 80, kind: int = FLOAT) -> bytes:
    """wave [b, 256 T] = gain * the mel's mean at each frame; the other arguments make graphs that will not do."""
    weights = {
        "gain": np.array([gain], np.float32),
        "hop": np.ones((1, 1, 256), np.float32),
        "flat": np.array([0, -1], np.int64),
        "last": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [mel], ["heard"], to=FLOAT),
        helper.make_node("ReduceMean", ["heard"], ["level"], axes=[1], keepdims=0),
        helper.make_node("Mul", ["level", "gain"], ["loud"]),
        helper.make_node("Unsqueeze", ["loud", "last"], ["each"]),
        helper.make_node("Mul", ["each", "hop"], ["hops"]),
        helper.make_node("Reshape", ["hops", "flat"], ["wave"]),
        helper.make_node("Cast", ["loud"], ["drift"], to=DOUBLE),
        helper.make_node("Unsqueeze", ["phase", "one"], ["begin"]),
        helper.make_node("Add", ["drift", "begin"], ["moved"]),
        helper.make_node("Cast", ["anchor"], ["at"], to=DOUBLE),
        helper.make_node("Cast", ["position"], ["place"], to=DOUBLE),
        helper.make_node("Add", ["at", "place"], ["shift"]),
        helper.make_node("Add", ["moved", "shift"], ["phases"]),
    ]
    weights["one"] = np.array([1], np.int64)
    inputs = [(mel, kind, ["b", bands, "t"]), ("phase", DOUBLE, ["b"]), ("anchor", INT, [1]), ("position", INT, [1])]
    outputs = [("wave", FLOAT, ["b", "n"]), ("phases", DOUBLE, ["b", "t"])]
    return packed("tiny", nodes, inputs, outputs, weights)


def packed(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any]) -> bytes:
    """A checked model of these nodes. Inputs and outputs are (name, type, shape)."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(*place) for place in inputs],
        [helper.make_tensor_value_info(*place) for place in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def folder(at: Path, version: str = "1", *, name: str = "tiny", gain: float = 0.5, **parts: Any) -> Path:
    """A vocoder's model folder. `parts`: data (model.onnx), context (an option), files, signature (tables), and
    fields of the manifest to add or replace, None to leave one out."""
    at.mkdir(parents=True)
    data = parts.pop("data", None) or vocoder(gain)
    (at / "model.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    options = {"context": parts.pop("context", 0)}
    tables = {"files": parts.pop("files", None), **parts.pop("signature", {}), "options": options}
    fields = {"name": name, "version": version, "family": "vocoder", "licence": "MIT", "sha256": digest, **parts}
    lines = [f"{key} = {json.dumps(value)}" for key, value in fields.items() if value is not None]
    for table, values in tables.items():
        if values is not None:
            lines += [f"[{table}]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items())]
    (at / "model.toml").write_text("\n".join(lines) + "\n")
    return at
