"""What a graph takes and gives: read from a session, compared with the manifest and with what the family needs.

A tensor is written `float32 [batch, 80, frames]`: a number is a fixed dimension, a word one that is free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_TYPES: Final = {"float": "float32", "double": "float64"}
"""onnxruntime's words for what NumPy calls otherwise."""
_TENSOR: Final = re.compile(r"([a-z0-9]+) \[(.*)\]")


@dataclass(frozen=True, slots=True)
class Graph:
    """Names of inputs and of outputs, in the graph's order, to their tensors."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def as_toml(self) -> str:
        """The table that a manifest holds."""
        lines = []
        for side, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            lines += [f"[signature.{side}]", *(f'{name} = "{tensor}"' for name, tensor in tensors.items()), ""]
        return "\n".join(lines)


NEEDS: Final[Mapping[str, Graph]] = {
    "recognizer": Graph({"features": "float32 [1, free, 80]"}, {"log_probs": "float32 [1, free, any]"}),
    "acoustic": Graph(
        {
            "symbols": "int64 [1, free]",
            "voice": "float32 [1, 256]",
            "emotion": "float32 [1, 5]",
            "speed": "float32 [1]",
        },
        {"mel": "float32 [1, 80, free]", "frames": "int64 [1, free]"},
    ),
    "g2p": Graph({"letters": "int64 [1, free]"}, {"scores": "float32 [1, free, 41]"}),
    "vocoder": Graph(
        {"mel": "float32 [1, 80, free]", "phase": "float64 [1]", "anchor": "int64 [1]", "position": "int64 [1]"},
        {"wave": "float32 [1, free]", "phases": "float64 [1, free]"},
    ),
}
"""By family, the graph that its runtime class can call; an encoder is only tried (`models.registry.verify`). A number
may be that number or free in the graph; `free` must be free; `any` may be either. Outputs are taken by their place, so
their names are for reading only."""


def graph_of(session: Any) -> Graph:
    """The graph of an onnxruntime session."""
    sides = (session.get_inputs(), session.get_outputs())
    inputs, outputs = ({place.name: _tensor(place.type, place.shape) for place in side} for side in sides)
    return Graph(inputs, outputs)


def mismatch(manifest: Mapping[str, Any], graph: Graph) -> str | None:
    """Why a graph is not the one of a manifest's table `signature`, or not one its family can run; None if it is."""
    stated = manifest.get("signature")
    for side, found in (("inputs", graph.inputs), ("outputs", graph.outputs)) if stated is not None else ():
        said = stated.get(side) if isinstance(stated, dict) else None
        if not isinstance(said, dict):
            return "signature: must be the tables signature.inputs and signature.outputs, name to tensor"
        if said != found:
            return f"signature.{side} in model.toml is {_shown(said)}, but the graph has {_shown(found)}"
    need = NEEDS.get(manifest["family"])
    return _unmet(need, graph) if need is not None else None


def _unmet(need: Graph, graph: Graph) -> str | None:
    """The first thing that `need` wants and `graph` does not have."""
    if set(need.inputs) != set(graph.inputs):
        return f"inputs are {_shown(graph.inputs)}, but its family needs {_shown(need.inputs)}"
    for name, wanted in need.inputs.items():
        if not _fits(wanted, graph.inputs[name]):
            return f"input '{name}' is {graph.inputs[name]}, but its family needs {wanted}"
    if len(need.outputs) != len(graph.outputs):
        return f"outputs are {_shown(graph.outputs)}, but its family needs {_shown(need.outputs)}"
    for wanted, (name, found) in zip(need.outputs.values(), graph.outputs.items(), strict=True):
        if not _fits(wanted, found):
            return f"output '{name}' is {found}, but its family needs {wanted}"
    return None


def _fits(wanted: str, found: str) -> bool:
    need, have = _TENSOR.fullmatch(wanted), _TENSOR.fullmatch(found)
    if need is None or have is None or need[1] != have[1]:
        return False
    needed, had = need[2].split(", "), have[2].split(", ")
    return len(needed) == len(had) and all(map(_dimension_fits, needed, had))


def _dimension_fits(wanted: str, found: str) -> bool:
    if wanted.isdigit():
        return found == wanted or not found.isdigit()
    return wanted == "any" or not found.isdigit()


def _tensor(kind: str, shape: Sequence[int | str | None]) -> str:
    inner = kind.removeprefix("tensor(").removesuffix(")")
    dimensions = ", ".join("?" if size is None else str(size) for size in shape)
    return f"{_TYPES.get(inner, inner)} [{dimensions}]"


def _shown(tensors: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {tensor}" for name, tensor in tensors.items()) or "none"
