"""ONNX Runtime sessions: one file's bytes, where it really runs, and its identity.

onnxruntime-gpu builds a session and silently runs on the CPU where there is no GPU, so the provider reported here is
read from the session, never from what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort


class ModelFileError(Exception):
    """A model folder is missing, damaged or not what its manifest says."""


class OnnxModel:
    """A model folder (`model.onnx` beside `model.toml`) loaded into one session.

    `model.toml` holds name, family, licence, sha256 (of model.onnx) and a table `options` that the runtime class of
    the family reads. `identity` is the digest of the file's bytes and of the options.
    """

    def __init__(self, folder: Path, *, providers: Sequence[str] = (), threads: int = 1) -> None:
        self.manifest = read_manifest(folder)
        data = _read(folder / "model.onnx")
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.manifest["sha256"]:
            raise ModelFileError(
                f"{folder / 'model.onnx'}: sha256 is {digest}, but model.toml says {self.manifest['sha256']}"
            )
        self.options: dict[str, Any] = self.manifest.get("options", {})
        self.identity = hashlib.sha256((digest + json.dumps(self.options, sort_keys=True)).encode()).hexdigest()
        session_options = ort.SessionOptions()
        session_options.intra_op_num_threads = threads
        session_options.inter_op_num_threads = 1
        session_options.log_severity_level = 3
        wanted = list(providers) or ["CPUExecutionProvider"]
        if "CPUExecutionProvider" not in wanted:
            wanted.append("CPUExecutionProvider")
        try:
            self.session = ort.InferenceSession(data, session_options, providers=wanted)
        except Exception as error:  # onnxruntime's own exceptions have no base of their own
            raise ModelFileError(f"{folder / 'model.onnx'}: onnxruntime cannot load it: {error}") from error
        self.provider: str = self.session.get_providers()[0]
        self.input_names = tuple(i.name for i in self.session.get_inputs())

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
        """One call of the graph; thread-safe and blocking, so callers put it in a thread."""
        return list(self.session.run(None, dict(feeds)))


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
