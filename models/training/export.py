"""Writing a model folder: a network's graph, its weights in half precision, and model.toml beside model.onnx."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper


def write_manifest(folder: Path, name: str, family: str, licence: str, options: Mapping[str, object]) -> str:
    """Writes `folder`/model.toml with the digest of `folder`/model.onnx, and returns that digest. Options: strings,
    numbers, lists of them."""
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    lines = [f"name = {json.dumps(name)}", f"family = {json.dumps(family)}", f"licence = {json.dumps(licence)}"]
    lines += [f"sha256 = {json.dumps(digest)}", "", "[options]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    (folder / "model.toml").write_text("\n".join(lines) + "\n", "utf-8")
    return digest


def hearing_graph(
    network: torch.nn.Module, example: torch.Tensor, output: str, axes: dict[int, str]
) -> onnx.ModelProto:
    """The graph of a network from features [batch, frames, bands], like `example`, to one output with these axes."""
    network.eval()
    buffer = io.BytesIO()
    torch.onnx.export(
        network,
        (example,),
        buffer,  # type: ignore[arg-type]
        input_names=["features"],
        output_names=[output],
        dynamic_axes={"features": {0: "batch", 1: "frames"}, output: axes},
        opset_version=17,
        dynamo=False,
    )
    return onnx.load_from_string(buffer.getvalue())


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Large weights stored as float16 behind a Cast, which ONNX Runtime folds once when it loads the file."""
    graph = model.graph
    casts = []
    for number, tensor in enumerate(graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 4096:
            name = tensor.name
            half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_half")
            graph.initializer[number].CopyFrom(half)
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)
    onnx.checker.check_model(model)
    return model
