"""A model folder's files against its manifest, before anything in them is run.

`model.toml` has name, family, licence, sha256 (of model.onnx), for a registry a version, and may have a table `files`
(name to sha256 of every file beside the manifest), a table `signature` (`models.registry.graph`) and a table `options`.
`model.toml.sig` beside it is an Ed25519 signature of model.toml's bytes, 64 bytes as `openssl pkeyutl -sign -rawin`
writes them. As the manifest holds the digests, the signature speaks for all files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.onnx import ModelFileError, read_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MANIFEST: Final = "model.toml"
SEAL: Final = "model.toml.sig"
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
NAMES: Final = "1 to 64 letters, digits and _ . -, letter or digit first"
UNVERSIONED: Final = "0"
"""The version of a manifest that states none."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check_files(folder: Path, trusted_keys: Sequence[Path] = ()) -> dict[str, Any]:
    """The manifest of a folder whose files are those that it names and, where there are `trusted_keys` (files in PEM),
    which bears a signature by one of them. Raises `ModelFileError`."""
    manifest = read_manifest(folder)
    path = folder / MANIFEST
    for field in ("name", "version"):
        value = manifest.get(field, UNVERSIONED)
        if not isinstance(value, str) or not NAME.fullmatch(value):
            raise ModelFileError(f"{path}: {field} is {value!r}; allowed are {NAMES}")
    if trusted_keys:
        _check_seal(folder, trusted_keys)
        if "files" not in manifest:
            raise ModelFileError(f"{path}: table 'files' is missing; without it a signature speaks for no other file")
    for field in ("sha256", "files"):
        stated = manifest.get(field)
        digests = stated if isinstance(stated, dict) else {field: stated}
        for name, digest in digests.items() if stated is not None else ():
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise ModelFileError(f"{path}: {name} is {digest!r}; allowed are 64 lower-case hex digits of a sha256")
    files: dict[str, str] = manifest.get("files", {"model.onnx": manifest["sha256"]})
    if files.get("model.onnx") != manifest["sha256"]:
        raise ModelFileError(f"{path}: sha256 is {manifest['sha256']}, but files says {files.get('model.onnx')}")
    _check_digests(folder, files, whole="files" in manifest)
    return manifest


def digests_of(folder: Path) -> dict[str, str]:
    """Name to sha256 of every file in a model folder but its manifest and the signature of that."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in (MANIFEST, SEAL)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _check_digests(folder: Path, stated: dict[str, str], *, whole: bool) -> None:
    """`whole`: whether files that are not named are too many."""
    found = digests_of(folder)
    for name, digest in stated.items():
        if name not in found:
            raise ModelFileError(f"{folder / name}: missing; model.toml names it")
        if found[name] != digest:
            raise ModelFileError(f"{folder / name}: sha256 is {found[name]}, but model.toml says {digest}")
    if whole and (others := set(found) - set(stated)):
        raise ModelFileError(f"{folder / min(others)}: not among the files that model.toml names")


def _check_seal(folder: Path, trusted_keys: Sequence[Path]) -> None:
    from cryptography.exceptions import InvalidSignature  # imported where keys are set: it takes a while

    path = folder / SEAL
    if not path.is_file():
        raise ModelFileError(f"{path}: missing; engines.trusted_keys is set, so model.toml needs a signature")
    seal, data = path.read_bytes(), (folder / MANIFEST).read_bytes()
    for key in map(read_key, trusted_keys):
        try:
            key.verify(seal, data)
            return
        except InvalidSignature:
            continue
    keys = ", ".join(map(str, trusted_keys))
    raise ModelFileError(f"{path}: not a signature of model.toml by any key of engines.trusted_keys ({keys})")


def read_key(path: Path) -> Ed25519PublicKey:
    """An operator's public key. Raises `ModelFileError`."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"engines.trusted_keys: {path}: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ModelFileError(f"engines.trusted_keys: {path}: not a public key in PEM: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ModelFileError(f"engines.trusted_keys: {path}: {type(key).__name__}; allowed is an Ed25519 public key")
    return key
