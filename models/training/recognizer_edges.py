"""Puts endless silence around what a recognizer is given: `python -m models.training.recognizer_edges FOLDER`.

A convolution pads its input with zeros, which no sound makes; so a recording had to be given 1.6 s of silence on each
side, four fifths of the work for a single word. Two changes of the graph make that needless, with the same answers:

Each convolution is moved so that its zero is what the layer holds in silence s: conv(x) becomes conv(x - s) + conv(s).
And each layer is computed only so far beyond the recording as can matter: outwards, where the layers so far have not
carried anything, there is silence still; inwards, what is further away than the layers to come reach changes nothing.
So the stretch grows from layer to layer, up to half the context, and shrinks again to nothing: a quarter of the work.

Weights stay as they were exported, under their names.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, helper, numpy_helper

from models.hearing import BANDS, SILENCE, STRIDE

ENOUGH_STEPS = 200
"""Steps of silence in whose middle no edge is felt."""


LEAD_STEPS = 2
"""How far beyond a recording the two layers carry that halve its rate."""


def silent_edges(model: ModelProto) -> ModelProto:
    """A graph features [B, T, 80] -> log_probs for which silence surrounds the features. Raises `ValueError` when it
    is one already, or not built as `models.training.recognizer_net.Network` is."""
    if any(node.name.startswith("silence.") for node in model.graph.node):
        raise ValueError("silence surrounds this graph's features already")
    made = {output: node for node in model.graph.node for output in node.output}
    inputs = {node.name: node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    convolutions, blocks = list(inputs), list(inputs)[2:]
    if not blocks or any(len(node.input) != 3 for node in model.graph.node if node.op_type == "Conv"):
        raise ValueError(
            "not built as a recognizer: two convolutions that halve the rate, then blocks, all with biases"
        )
    streams = {name: _norm(inputs[name], made).input[0] for name in blocks}
    resting = _in_silence(model, [*inputs.values(), *streams.values()])
    moved = ModelProto()
    moved.CopyFrom(model)
    graph = moved.graph
    reaches = [_reach(_named(graph, name)) for name in blocks]
    beyond = LEAD_STEPS
    _widen(_named(graph, convolutions[0]), LEAD_STEPS * STRIDE)
    for number, name in enumerate(convolutions):
        level = resting[number]
        if level.ndim != 4 or level.shape[2] != 1:
            raise ValueError(f"{name}: not a convolution over time alone")
        _shift(graph, name, level[0, :, 0, level.shape[3] // 2], made, f"silence.{number}")
        if name in blocks:
            done = number - 1
            wanted = min(LEAD_STEPS + sum(reaches[:done]), sum(reaches[done:]))
            _widen(_named(graph, name), wanted - beyond)
            rest = resting[len(convolutions) + number - 2]
            _carry(graph, streams[name], wanted - beyond, rest[0, rest.shape[1] // 2], f"silence.{number}.stream")
            beyond = wanted
    onnx.checker.check_model(moved)
    return moved


def _shift(graph: onnx.GraphProto, name: str, level: np.ndarray, made: dict[str, NodeProto], label: str) -> None:
    """Makes `level` the zero of a convolution."""
    graph.initializer.append(numpy_helper.from_array(level.astype(np.float32), label))
    conv = _named(graph, name)
    # In double precision: what is added must be what the convolution of the level would be.
    answer = _weight(graph, conv.input[1], made).astype(np.float64).sum(axis=(2, 3)) @ level.astype(np.float64)
    graph.initializer.append(numpy_helper.from_array(answer.astype(np.float32), f"{label}.answer"))
    bias = helper.make_node("Add", [conv.input[2], f"{label}.answer"], [f"{label}.bias"], name=f"{label}.bias")
    conv.input[2] = f"{label}.bias"
    lowered = _lowered(graph, conv, made, label)
    graph.node.insert(_place(graph, lowered), lowered)
    graph.node.insert(0, bias)


def _carry(graph: onnx.GraphProto, stream: str, more: int, rest: np.ndarray, label: str) -> None:
    """Brings the stream [B, T, C] past a block to the length of what the block adds: `more` steps of silence on each
    side, or so many less."""
    (total,) = [node for node in graph.node if node.op_type == "Add" and stream in node.input]
    place = list(total.input).index(stream)
    total.input[place] = label

    def constant(values: np.ndarray, name: str) -> str:
        graph.initializer.append(numpy_helper.from_array(values, f"{label}.{name}"))
        return f"{label}.{name}"

    def steps(name: str, *numbers: int) -> str:
        return constant(np.array(numbers, np.int64), name)

    if more > 0:
        level = constant(rest.astype(np.float32), "rest")
        nodes = [
            helper.make_node("Sub", [stream, level], [f"{label}.low"]),
            helper.make_node("Pad", [f"{label}.low", steps("pads", 0, more, 0, 0, more, 0)], [f"{label}.wide"]),
            helper.make_node("Add", [f"{label}.wide", level], [label]),
        ]
    else:
        ends = [steps("begin", -more), steps("end", more), steps("axis", 1)]
        nodes = [helper.make_node("Slice" if more else "Identity", [stream, *(ends if more else [])], [label])]
    place = _place(graph, nodes[0])
    for node in reversed(nodes):
        graph.node.insert(place, node)


def _widen(conv: NodeProto, more: int) -> None:
    """Lets a convolution go on for `more` of its input's steps beyond each end; less than none is fewer."""
    (pads,) = [attribute for attribute in conv.attribute if attribute.name == "pads"]
    if min(pads.ints[1], pads.ints[3]) + more < 0:
        raise ValueError(f"{conv.name}: reaches less far than the next layers need no more")
    pads.ints[1] += more
    pads.ints[3] += more


def _reach(conv: NodeProto) -> int:
    values = {attribute.name: list(attribute.ints) for attribute in conv.attribute}
    return (values["kernel_shape"][1] - 1) // 2 * values["dilations"][1]


def _named(graph: onnx.GraphProto, name: str) -> NodeProto:
    (node,) = [node for node in graph.node if node.name == name]
    return node


def _norm(name: str, made: dict[str, NodeProto]) -> NodeProto:
    """The norm before a block's convolution."""
    node = made[name]
    while node.op_type in ("Transpose", "Unsqueeze"):
        node = made[node.input[0]]
    if node.op_type != "LayerNormalization":
        raise ValueError(f"{name}: made by {node.op_type}, where a block has its norm")
    return node


def _lowered(graph: onnx.GraphProto, conv: NodeProto, made: dict[str, NodeProto], label: str) -> NodeProto:
    """Subtracts the level `label` before the convolution: from a norm's bias where there is one, which ONNX Runtime
    does once, when it loads the file; else from the data."""
    chain = conv.input[0]
    source = made[chain]
    while source.op_type in ("Transpose", "Unsqueeze"):
        chain, source = source.input[0], made.get(source.input[0], NodeProto())
    if source.op_type == "LayerNormalization":
        (norm,) = [node for node in graph.node if list(node.output) == list(source.output)]
        lowered = helper.make_node("Sub", [norm.input[2], label], [f"{label}.norm"], name=f"{label}.norm")
        norm.input[2] = f"{label}.norm"
        return lowered
    for node in graph.node:
        if node.op_type == "Unsqueeze" and node.input[0] == chain:
            node.input[0] = f"{label}.data"
    return helper.make_node("Sub", [chain, label], [f"{label}.data"], name=f"{label}.data")


def _place(graph: onnx.GraphProto, node: NodeProto) -> int:
    """Behind whatever makes its first input."""
    return 1 + max((place for place, other in enumerate(graph.node) if node.input[0] in other.output), default=-1)


def _weight(graph: onnx.GraphProto, name: str, made: dict[str, NodeProto]) -> np.ndarray:
    """A weight as the convolution sees it: stored in half precision behind a Cast, or as it is."""
    stored = made[name].input[0] if name in made else name
    (tensor,) = [tensor for tensor in graph.initializer if tensor.name == stored]
    return np.asarray(numpy_helper.to_array(tensor), np.float32)


def _in_silence(model: ModelProto, names: list[str]) -> list[np.ndarray]:
    """What these tensors hold while a long silence is heard."""
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    silence = np.full((1, ENOUGH_STEPS * STRIDE, BANDS), SILENCE, np.float32)
    return list(session.run(names, {"features": silence}))


def convert(folder: Path) -> str:
    """Rewrites a recognizer's model folder so; returns the new sha256. Raises as `silent_edges` does."""
    path, manifest = folder / "model.onnx", folder / "model.toml"
    data = silent_edges(onnx.load(str(path))).SerializeToString()
    digest = hashlib.sha256(data).hexdigest()
    text = re.sub(r'(?m)^sha256 = ".*"$', f'sha256 = "{digest}"', manifest.read_text("utf-8"), count=1)
    text = re.sub(r"(?m)^context = .*$", '\\g<0>\nedges = "silence"', text, count=1)
    path.write_bytes(data)
    manifest.write_text(text, "utf-8")
    return digest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a recognizer's model folder, which is rewritten in place")
    print("sha256", convert(parser.parse_args().folder))
