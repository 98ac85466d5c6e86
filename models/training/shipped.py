"""Weights out of a shipped ONNX file, so that training can go on from what a clone holds and not from nothing.

torch.onnx.export keeps the names of parameters that it writes as they are, and gives numbers to those that it folds:
linear layers (transposed) and the second and later norms of equal shape. Numbered ones follow the order of use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor


def weights(
    path: Path, wanted: Mapping[str, Tensor], in_order_of_use: Sequence[str], prefix: str = ""
) -> dict[str, Tensor]:
    """A state dict like `wanted` from the file; `prefix` is what the graph's names have before the module's.

    `in_order_of_use` names the parameters that may be numbered. Raises `ValueError` where shapes do not fit.
    """
    named: dict[str, Tensor] = {}
    numbered: list[np.ndarray] = []
    for tensor in onnx.load(str(path)).graph.initializer:
        name, values = tensor.name.removesuffix("_half"), numpy_helper.to_array(tensor).astype(np.float32)
        if name.startswith("onnx::"):
            numbered.append(values)
        elif name.removeprefix(prefix) in wanted:
            named[name.removeprefix(prefix)] = torch.from_numpy(values.copy())
    missing = [name for name in in_order_of_use if name not in named]
    if len(missing) != len(numbered):
        raise ValueError(f"{path}: {len(numbered)} folded weights, but {len(missing)} are wanted: {', '.join(missing)}")
    for name, values in zip(missing, numbered, strict=True):
        named[name] = torch.from_numpy((values.T if values.ndim == 2 else values).copy())
    for name, like in wanted.items():
        if name not in named or named[name].shape != like.shape:
            given = tuple(named[name].shape) if name in named else "nothing"
            raise ValueError(f"{path}: {name} is {given}, wanted {tuple(like.shape)}")
    return named
