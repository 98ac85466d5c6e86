"""Master keys: files of 64 hex digits, readable by their owner only, and what they are for, wrapping data keys.

A wrapped key reads `key id, master id, nonce, ciphertext`; tenant and key id are associated data. The master itself
never goes to Redis.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class MasterKeyError(Exception):
    """The master key file cannot be used; the message says why and what to do."""


def load_or_create_master_key(path: Path) -> bytes:
    """The key in the file (64 hex digits, mode 0600), which is made when there is none."""
    try:
        if not path.exists():
            create_master_key(path)
    except OSError as error:
        raise MasterKeyError(f"{path}: {type(error).__name__} when making the master key") from None
    return load_master_key(path)


def load_master_key(path: Path) -> bytes:
    """The key in the file. Raises MasterKeyError."""
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise MasterKeyError(f"{path} has mode {mode:04o}: others may read the master key; chmod 600 it")
        text = path.read_text("ascii").strip()
        key = bytes.fromhex(text)
    except FileNotFoundError:
        raise MasterKeyError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise MasterKeyError(f"{path}: {type(error).__name__} when reading the master key (64 hex digits)") from None
    if len(key) != 32:
        raise MasterKeyError(f"{path} holds {len(key)} bytes: a master key has 32, written as 64 hex digits")
    return key


def create_master_key(path: Path) -> None:
    """Makes one; leaves a file that is there as it is."""
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


class Masters:
    """The present one, which wraps, and others that unwrap what they wrapped."""

    def __init__(self, masters: Sequence[bytes]) -> None:
        """The present one first. Raises ValueError for none, or for one that is no key."""
        if not masters or any(len(master) != 32 for master in masters):
            raise ValueError("a master key has 32 bytes, and there must be one")
        self._ciphers = {_id(master): AESGCM(master) for master in masters}
        self.present = _id(masters[0])
        """Id of the one that wraps."""

    def adopt(self, master: bytes) -> None:
        """Takes it for the present one; those before it go on unwrapping."""
        self._ciphers |= Masters([master])._ciphers
        self.present = _id(master)

    def knows(self, master_id: bytes) -> bool:
        return master_id in self._ciphers

    def wrap(self, tenant: str, key_id: bytes, data: bytes) -> bytes:
        nonce = os.urandom(12)
        closed = self._ciphers[self.present].encrypt(nonce, data, _extra(tenant, key_id))
        return key_id + self.present + nonce + closed

    def unwrap(self, tenant: str, wrapped: bytes) -> bytes | None:
        """None for one that an unknown master wrapped, or that does not open."""
        key_id, master_id, nonce, closed = wrapped[:8], wrapped[8:16], wrapped[16:28], wrapped[28:]
        master = self._ciphers.get(master_id)
        if master is None:
            return None
        try:
            return master.decrypt(nonce, closed, _extra(tenant, key_id))
        except (InvalidTag, ValueError):
            return None


def _id(master: bytes) -> bytes:
    return hmac.new(master, b"refrain master key id", hashlib.sha256).digest()[:8]


def _extra(tenant: str, key_id: bytes) -> bytes:
    return b"refrain data key 1\0" + key_id + tenant.encode()
