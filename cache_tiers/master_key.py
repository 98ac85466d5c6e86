"""The master key in its file: 64 hex digits, readable by its owner only. It wraps data keys and never goes to Redis."""

from __future__ import annotations

import os
from pathlib import Path


class MasterKeyError(Exception):
    """The master key file cannot be used; the message says why and what to do."""


def load_or_create_master_key(path: Path) -> bytes:
    """The key in the file (64 hex digits, mode 0600), which is made when there is none."""
    try:
        if not path.exists():
            _create_master_key(path)
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise MasterKeyError(f"{path} has mode {mode:04o}: others may read the master key; chmod 600 it")
        text = path.read_text("ascii").strip()
        key = bytes.fromhex(text)
    except (OSError, ValueError) as error:
        raise MasterKeyError(f"{path}: {type(error).__name__} when reading the master key (64 hex digits)") from None
    if len(key) != 32:
        raise MasterKeyError(f"{path} holds {len(key)} bytes: a master key has 32, written as 64 hex digits")
    return key


def _create_master_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(os.urandom(32).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # whole or not at all, and the first of two makers wins
    except FileExistsError:
        pass
    finally:
        draft.unlink()
