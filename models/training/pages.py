"""Writes models/pages_in.onnx and models/pages_out.onnx, which put a tensor onto pages of a device's memory and gather
it from there: `python -m models.training.pages`.

Graphs rather than copies through the host, so that a tensor on a GPU stays there; the kernels are onnxruntime's own.
What is a shape or a count comes in as an input, made in Python, lest a GPU be asked to compute it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IN, OUT = (Path(__file__).parents[1] / f"pages_{way}.onnx" for way in ("in", "out"))


def graph_in() -> bytes:
    """arena float32 [P, W], tensor float32 [a, b, c], pages int64 [k, 1], padding int64 [2] = 0 and what the last
    page has left, rows int64 [2] = k, W -> written float32 [P, W], in place where it is bound to the arena itself."""
    nodes = [
        helper.make_node("Reshape", ["tensor", "line"], ["flat"]),
        helper.make_node("Pad", ["flat", "padding"], ["full"]),
        helper.make_node("Reshape", ["full", "rows"], ["updates"]),
        helper.make_node("ScatterND", ["arena", "pages", "updates"], ["written"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("arena", TensorProto.FLOAT, ["P", "W"]),
        value("tensor", TensorProto.FLOAT, ["a", "b", "c"]),
        value("pages", TensorProto.INT64, ["k", 1]),
        value("padding", TensorProto.INT64, [2]),
        value("rows", TensorProto.INT64, [2]),
    ]
    return _model("pages_in", nodes, inputs, value("written", TensorProto.FLOAT, ["P", "W"]), {"line": [-1]})


def graph_out() -> bytes:
    """arena float32 [P, W], pages int64 [k], size int64 [1], the numbers in the tensor, and shape int64 [3] -> tensor
    float32 of that shape."""
    nodes = [
        helper.make_node("Gather", ["arena", "pages"], ["rows"], axis=0),
        helper.make_node("Reshape", ["rows", "line"], ["full"]),
        helper.make_node("Slice", ["full", "zero", "size"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["tensor"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("arena", TensorProto.FLOAT, ["P", "W"]),
        value("pages", TensorProto.INT64, ["k"]),
        value("size", TensorProto.INT64, [1]),
        value("shape", TensorProto.INT64, [3]),
    ]
    return _model(
        "pages_out", nodes, inputs, value("tensor", TensorProto.FLOAT, ["a", "b", "c"]), {"line": [-1], "zero": [0]}
    )


def _model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    constants: dict[str, list[int]],
) -> bytes:
    made = [numpy_helper.from_array(np.array(value, np.int64), key) for key, value in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, name, inputs, [output], made), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    IN.write_bytes(graph_in())
    OUT.write_bytes(graph_out())
