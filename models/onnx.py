"""ONNX Runtime sessions: one file's bytes, where it really runs, and its identity.

onnxruntime-gpu builds a session and silently runs on the CPU where there is no GPU, so the provider reported here is
read from the session, never from what was asked for. Between the models of a chain values stay where the session made
them (`OnnxModel.on_device`): on a GPU they never come to the host, and on the CPU Python does not touch them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.registry.graph import graph_of, mismatch
from models.threads import run_options

log = logging.getLogger("refrain.onnx")

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
_OPTIONS: dict[str, dict[str, str]] = {
    # Lengths differ from call to call: an exhaustive search for each would take longer than all the calls, and an arena
    # that grows by doubling would keep twice what is needed.
    CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"},
}
_DEVICES = {CUDA: "cuda"}
"""Where a provider's tensors lie, if not in host memory."""
_NOT_PART = (".toml", ".sig", ".md", ".png", ".svg")
"""Endings of files that no answer depends on: the manifest, whose options count by themselves, and the card."""


class ModelFileError(Exception):
    """A model folder is missing, damaged or not what its manifest says."""


class Providers(tuple[str, ...]):
    """Execution providers in order of preference. Where they are `strict`, the first must be what really runs."""

    strict: bool

    def __new__(cls, names: Sequence[str] = (), *, strict: bool = False) -> Providers:
        self = super().__new__(cls, tuple(names))
        self.strict = strict
        return self


class OnnxModel:
    """A model folder (`model.onnx` beside `model.toml`) loaded into one session.

    `model.toml` holds name, family, licence, sha256 (of model.onnx) and a table `options` that the runtime class of
    the family reads; `models.registry.manifest` says what else it may hold. `identity` is the digest of the files'
    bytes and of the options.
    """

    def __init__(self, folder: Path, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        """Raises `ModelFileError` for a folder that is none, and where strict `Providers` do not run here; without
        them the session runs on whatever does, and says so in the log."""
        self.manifest = read_manifest(folder)
        data = _read(folder / "model.onnx")
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.manifest["sha256"]:
            raise ModelFileError(
                f"{folder / 'model.onnx'}: sha256 is {digest}, but model.toml says {self.manifest['sha256']}"
            )
        self.options: dict[str, Any] = self.manifest.get("options", {})
        self.identity = identity_of(folder, digest, self.options)
        self.session = session_of(folder / "model.onnx", data, providers, threads)
        self.provider: str = self.session.get_providers()[0]
        """The one that really runs."""
        self.device = device_of(self.session)
        """Where its outputs are made, as onnxruntime names it."""
        if wrong := mismatch(self.manifest, graph_of(self.session)):
            raise ModelFileError(f"{folder / 'model.onnx'}: {wrong}")
        self.input_names = tuple(i.name for i in self.session.get_inputs())
        self.output_names = tuple(o.name for o in self.session.get_outputs())

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
        """One call of the graph; thread-safe and blocking, so callers put it in a thread."""
        return list(self.session.run(None, dict(feeds), run_options()))

    def on_device(self, feeds: Mapping[str, Any], to_host: Sequence[str] = ()) -> list[ort.OrtValue]:
        """As `run`, for a chain: feeds may be `onnxruntime.OrtValue`s, used where they lie, and outputs stay on
        the device, but for those named in `to_host`. A binding for each call keeps it thread-safe."""
        binding = self.session.io_binding()
        for name, value in feeds.items():
            if isinstance(value, ort.OrtValue):
                binding.bind_ortvalue_input(name, value)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for name in self.output_names:
            binding.bind_output(name, "cpu" if name in to_host else self.device)
        self.session.run_with_iobinding(binding, run_options())
        return list(binding.get_outputs())


def device_of(session: ort.InferenceSession) -> str:
    """Where a session's tensors lie, as onnxruntime names it: by the provider that really runs."""
    return _DEVICES.get(session.get_providers()[0], "cpu")


def session_of(path: Path, data: bytes, providers: Sequence[str], threads: int) -> ort.InferenceSession:
    """A session on the first of `providers` if that runs here, else on the CPU; `path` is for messages.

    onnxruntime's own strictness (session.disable_cpu_ep_fallback) is of no use: it refuses a graph for one node that
    belongs on the CPU even with a GPU, such as arithmetic on shapes.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # or it keeps a plan for each length of input it ever had, for ever
    wanted = [*dict.fromkeys([*providers, CPU])]
    known = ort.get_available_providers()
    usable = [(name, _OPTIONS.get(name, {})) for name in wanted if name in known]
    try:
        session = ort.InferenceSession(data, options, providers=usable)
    except Exception as error:  # onnxruntime's own exceptions have no base of their own
        raise ModelFileError(f"{path}: onnxruntime cannot load it: {error}") from error
    runs = session.get_providers()[0]
    if runs != wanted[0]:
        why = "did not start: no such device, or libraries of its are missing"
        if wanted[0] not in known:
            why = f"is not in this build of onnxruntime, which has {', '.join(known)}"
        if getattr(providers, "strict", False):
            raise ModelFileError(f"{path}: must run on {wanted[0]}, which {why}; it would run on {runs}")
        log.warning("%s was asked for, but %s; %s runs on %s", wanted[0], why, path.parent.name, runs)
    return session


def identity_of(folder: Path, digest: str, options: Mapping[str, Any]) -> str:
    """Hex digest over everything in a folder that can change an answer: `digest` (of model.onnx), the options, and
    whatever other files there are, but for what people read and for those whose digests the options hold already."""
    told = json.dumps(options, sort_keys=True)
    others = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != "model.onnx" and path.suffix not in _NOT_PART:
            other = hashlib.sha256(path.read_bytes()).hexdigest()
            if other not in told:
                others.append(f"\0{path.name}\0{other}")
    return hashlib.sha256((digest + told + "".join(others)).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The folder's model.toml. Raises `ModelFileError` when it is missing or lacks a required field."""
    path = folder / "model.toml"
    try:
        manifest = tomllib.loads(_read(path).decode())
    except ValueError as error:
        raise ModelFileError(f"{path}: not TOML: {error}") from error
    for field in ("name", "family", "licence", "sha256"):
        if field not in manifest:
            raise ModelFileError(f"{path}: field '{field}' is missing")
    return manifest


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ModelFileError(f"{path}: missing; a model folder holds model.onnx and model.toml")
    return path.read_bytes()
