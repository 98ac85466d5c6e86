"""Writing a model folder: model.toml beside the model.onnx that is already there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def write_manifest(folder: Path, name: str, family: str, licence: str, options: Mapping[str, object]) -> None:
    """Writes `folder`/model.toml with the digest of `folder`/model.onnx. Options: strings, numbers, lists of them."""
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    lines = [f"name = {json.dumps(name)}", f"family = {json.dumps(family)}", f"licence = {json.dumps(licence)}"]
    lines += [f"sha256 = {json.dumps(digest)}", "", "[options]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in options.items()]
    (folder / "model.toml").write_text("\n".join(lines) + "\n", "utf-8")
