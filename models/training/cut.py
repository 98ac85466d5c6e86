"""Writes models/cut.onnx, which takes a clause's mel out of the silence around it: `python -m models.training.cut`.

A graph rather than a line of Python, so that a mel on a GPU is cut there. How much silence stays is an input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FILE = Path(__file__).parents[1] / "cut.onnx"


def graph() -> bytes:
    """mel float32 [1, 80, T], frames int64 [1, N] of the symbols, of which the first and the last are silence, and
    leads int64 [2], the frames that stay of each -> cut float32 [1, 80, t]."""
    constants = {"zero": [0], "one": [1], "last": [-1], "time": [2]}
    node = helper.make_node
    nodes = [
        node("Slice", ["frames", "zero", "one", "one"], ["first"]),
        node("Slice", ["frames", "last", "many", "one"], ["final"]),
        node("Concat", ["first", "final"], ["silent"], axis=1),
        node("Sub", ["silent", "leads"], ["surplus"]),
        node("Max", ["surplus", "zero"], ["off"]),
        node("Slice", ["off", "zero", "one", "one"], ["off_before"]),
        node("Slice", ["off", "one", "many", "one"], ["off_after"]),
        node("Reshape", ["off_before", "one"], ["begin"]),
        node("Reshape", ["off_after", "one"], ["after"]),
        node("Shape", ["mel"], ["length"], start=2),
        node("Sub", ["length", "after"], ["end"]),
        node("Slice", ["mel", "begin", "end", "time"], ["cut"]),
    ]
    made = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    made.append(numpy_helper.from_array(np.array([np.iinfo(np.int64).max]), "many"))
    value = helper.make_tensor_value_info
    inputs = [
        value("mel", TensorProto.FLOAT, [1, 80, "frames"]),
        value("frames", TensorProto.INT64, [1, "symbols"]),
        value("leads", TensorProto.INT64, [2]),
    ]
    body = helper.make_graph(nodes, "cut", inputs, [value("cut", TensorProto.FLOAT, [1, 80, "kept"])], made)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    FILE.write_bytes(graph())
