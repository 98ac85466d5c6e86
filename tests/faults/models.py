"""A vocoder that does what a mel tells it to: sing, raise, not end, or want more memory than there is. Real, in a real
session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from models.utterance import Samples
from tests.models.versions import DOUBLE, FLOAT, INT, folder, packed

SINGS, HOGS, HANGS, RAISES = -6.0, 2.5, 3.5, 4.5
"""Means of mels at which it does. A request's values may be up to 5."""


def mel(does: float, frames: int = 80, seed: int = 0) -> Samples:
    noise = np.random.default_rng(seed).uniform(-0.2, 0.2, (80, frames))
    return (does + noise - noise.mean()).astype(np.float32)


def troubled_vocoder(at: Path) -> Path:
    """Its folder, to stand in for the shipped one."""
    return folder(at, name="troubled", data=_graph())


def _graph() -> bytes:
    """wave [b, 256 T] = a twentieth of the mel's mean at each frame, plus its troubles, 0 in a mel without."""
    weights = {
        "gain": np.array([0.05], np.float32),
        "hop": np.ones((1, 1, 256), np.float32),
        "flat": np.array([0, -1], np.int64),
        "last": np.array([2], np.int64),
        "one": np.array([1], np.int64),
        "first": np.array([0], np.int64),
        "zeros": np.zeros(1, np.float32),
        "zero": np.array(0.0, np.float32),
        "true": np.array(True),
        "ages": np.array(1 << 62, np.int64),
        "petabytes": np.array([1 << 48], np.int64),
    }
    weights |= {name: np.array(least, np.float32) for name, least in (("two", 2.0), ("three", 3.0), ("four", 4.0))}
    nodes = [
        helper.make_node("ReduceMean", ["mel"], ["level"], axes=[1], keepdims=0),
        helper.make_node("ReduceMean", ["mel"], ["mean"], keepdims=0),
        *_between("hogs", "two", "three"),
        *_between("hangs", "three", "four"),
        helper.make_node("Greater", ["mean", "four"], ["too_loud"]),
        helper.make_node("Cast", ["too_loud"], ["raises"], to=INT),
        # What is wanted of a list of one: its first, or its second, which there is not.
        helper.make_node("Gather", ["zeros", "raises"], ["raised"]),
        helper.make_node("Mul", ["hangs", "ages"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "true", "zero"], ["hung"], body=_round()),
        helper.make_node("Mul", ["hogs", "petabytes"], ["more"]),
        helper.make_node("Add", ["more", "one"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["held"]),
        helper.make_node("ReduceSum", ["held", "first"], ["hogged"], keepdims=0),
        helper.make_node("Sum", ["raised", "hung", "hogged"], ["nothing"]),
        helper.make_node("Mul", ["level", "gain"], ["sung"]),
        helper.make_node("Add", ["sung", "nothing"], ["loud"]),
        helper.make_node("Unsqueeze", ["loud", "last"], ["each"]),
        helper.make_node("Mul", ["each", "hop"], ["hops"]),
        helper.make_node("Reshape", ["hops", "flat"], ["wave"]),
        helper.make_node("Cast", ["loud"], ["drift"], to=DOUBLE),
        helper.make_node("Unsqueeze", ["phase", "one"], ["begin"]),
        helper.make_node("Add", ["anchor", "position"], ["place"]),
        helper.make_node("Cast", ["place"], ["shift"], to=DOUBLE),
        helper.make_node("Sum", ["drift", "begin", "shift"], ["phases"]),
    ]
    inputs = [("mel", FLOAT, ["b", 80, "t"]), ("phase", DOUBLE, ["b"]), ("anchor", INT, [1]), ("position", INT, [1])]
    outputs = [("wave", FLOAT, ["b", "n"]), ("phases", DOUBLE, ["b", "t"])]
    return packed("troubled", nodes, inputs, outputs, weights)


def _between(name: str, least: str, most: str) -> list[onnx.NodeProto]:
    """1 where the mel's mean is between the two, else 0."""
    return [
        helper.make_node("Greater", ["mean", least], [f"{name}_least"]),
        helper.make_node("Less", ["mean", most], [f"{name}_most"]),
        helper.make_node("And", [f"{name}_least", f"{name}_most"], [f"{name}_so"]),
        helper.make_node("Cast", [f"{name}_so"], [name], to=INT),
    ]


def _round() -> onnx.GraphProto:
    """The body of a loop that changes nothing."""
    inputs = [("number", INT, []), ("going", TensorProto.BOOL, []), ("before", FLOAT, [])]
    outputs = [("on", TensorProto.BOOL, []), ("after", FLOAT, [])]
    nodes = [
        helper.make_node("Identity", ["going"], ["on"]),
        helper.make_node("Neg", ["before"], ["after"]),
    ]
    return helper.make_graph(
        nodes,
        "round",
        [helper.make_tensor_value_info(*place) for place in inputs],
        [helper.make_tensor_value_info(*place) for place in outputs],
    )
