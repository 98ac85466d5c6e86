"""Files of recorded inputs: how a record lies in one, how a file is gone through, and how a record is erased.

A file `inputs-<start>-<random>.rfi` begins with the magic `RFNINPUT`, then, little-endian, u16 version, u16 0, u32
length of a JSON header, and that header. Then records until the end, each `sync, u32 length of the head, u32 length of
the body, u32 CRC-32 of both lengths and the head`, the head (JSON: `Head`) and the body, which is sealed with the head
as associated data (cache_tiers/sealed.py). The head tells nothing but a tenant's name, sizes, times and keyed digests.

Each gateway writes files of its own, which it holds by an advisory lock. A record is only ever appended, or
overwritten with zeros in its place: so anybody may read a file that grows, and erase in it. What a crash cut short at a
file's end is torn; what does not check is damaged, and the next record is found by its sync.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

MAGIC: Final = b"RFNINPUT"
VERSION: Final = 1
SYNC: Final = b"\xf5RfI"
MOST_HEAD: Final = 4096
MOST_BODY: Final = 1 << 30
_START: Final = struct.Struct("<8sHHI")
_FRAME: Final = struct.Struct("<4sIII")
_LENGTHS: Final = struct.Struct("<II")
_PIECE: Final = 1 << 16


class Head(NamedTuple):
    """What a record says of itself in clear."""

    digest: str
    """The trace's digest of the answer asked for, 16 hex digits."""
    time_us: int
    """Microseconds since 1970."""
    tenant: str
    task: str
    streamed: bool
    """It came as a stream, and is kept as one whole request."""
    epochs: tuple[tuple[str, int], ...]
    """The tags by which it is erased, the tenant's among them, each with its epoch when the request came."""


class Kept(NamedTuple):
    """A record in its place."""

    path: Path
    at: int
    raw: bytes
    """The head as it was written: what the body is sealed with."""
    size: int
    """Of the body, which lies behind the head."""
    head: Head


@dataclass(slots=True)
class Walk:
    """How far a file has been gone through, and what was found that is no record."""

    end: int = 0
    """Behind the last whole record: go on from here when the file has grown."""
    damaged: int = 0
    torn: int = 0
    erased: int = 0
    epochs: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each tag the lowest epoch and the highest."""


def framed(raw: bytes, body: bytes) -> bytes:
    """The bytes of a record; `raw` is `raw_head(head)`, with which the body was sealed."""
    check = zlib.crc32(raw, zlib.crc32(_LENGTHS.pack(len(raw), len(body))))
    return b"".join((_FRAME.pack(SYNC, len(raw), len(body), check), raw, body))


def raw_head(head: Head) -> bytes:
    return json.dumps(head._asdict(), separators=(",", ":")).encode()


def body_of(kept: Kept) -> bytes:
    """The sealed body. Raises OSError."""
    with kept.path.open("rb") as file:
        file.seek(kept.at + _FRAME.size + len(kept.raw))
        return file.read(kept.size)


def walk(path: Path, so_far: Walk) -> Iterator[Kept]:
    """The records from `so_far.end` on; `so_far` is brought up to date. Raises OSError."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at, so_far.torn = so_far.end or _after_header(file), 0
        while at < size:
            frame, whole = _frame(file, at, size)
            if frame is None:
                found = _next(file, at + 1, size)
                if found is None:
                    so_far.torn += 1  # or still being written: `end` stays in front of it
                    return
                so_far.damaged += 1
                at = so_far.end = found
                continue
            raw, length = frame
            if not whole:
                so_far.torn += 1
                return
            place, at = at, at + _FRAME.size + len(raw) + length
            so_far.end = at
            if not any(raw):
                so_far.erased += 1
                continue
            head = _parsed(raw)
            if head is None:
                so_far.damaged += 1
                continue
            for tag, epoch in head.epochs:
                low, high = so_far.epochs.get(tag, (epoch, epoch))
                so_far.epochs[tag] = min(low, epoch), max(high, epoch)
            yield Kept(path, place, raw, length, head)


def erase(records: Iterable[Kept]) -> int:
    """Overwrites records of one file with zeros, for good when this returns; returns how many. Raises OSError."""
    count = 0
    file: BinaryIO | None = None
    try:
        for kept in records:
            file = file or kept.path.open("r+b", buffering=0)
            file.seek(kept.at)
            _put(file, framed(bytes(len(kept.raw)), bytes(kept.size)))
            count += 1
        if file is not None:
            os.fsync(file.fileno())
    finally:
        if file is not None:
            file.close()
    return count


def started(path: Path) -> float:
    """When the file was begun, in Unix seconds: none of its records is older. Raises OSError."""
    with path.open("rb") as file, contextlib.suppress(ValueError, KeyError, TypeError, struct.error):
        magic, _, _, length = _START.unpack(file.read(_START.size))
        if magic == MAGIC and length <= _PIECE:
            return float(json.loads(file.read(length))["started"])
    return path.stat().st_mtime  # its header is damaged: as if it had been begun when it was last written


def input_files(folder: Path) -> list[Path]:
    """The files of a folder, oldest first."""
    return sorted(folder.glob("inputs-*.rfi"))


def remove_unless_written(path: Path) -> bool:
    """Removes a file that nobody writes any more. False where a gateway does. Raises OSError."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink(missing_ok=True)
    return True


class InputFile:
    """A file being written."""

    def __init__(self, folder: Path, wall: float, **facts: Any) -> None:
        """Makes it, readable by its owner alone; `facts` go into its header. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(wall))
        self.path = folder / f"inputs-{stamp}.{int(wall * 1000) % 1000:03}Z-{secrets.token_hex(4)}.rfi"
        self.started = wall
        self.size = 0
        about = {"started": wall, **facts, "head": Head._fields, "frame": _FRAME.format}
        text = json.dumps(about).encode()
        made = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._file = os.fdopen(made, "wb", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.write(_START.pack(MAGIC, VERSION, 0, len(text)) + text)
        except OSError:
            self._file.close()
            self.path.unlink(missing_ok=True)
            raise

    def write(self, data: bytes) -> None:
        """Appends whole records. After an OSError the file ends as it did before, and is to be closed: who reads along
        may have seen some of them already."""
        try:
            _put(self._file, data)
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        self._file.close()


def _frame(file: BinaryIO, at: int, size: int) -> tuple[tuple[bytes, int] | None, bool]:
    """The head and the body's length of the record at `at`, None where none is; and whether all of it is there."""
    file.seek(at)
    data = file.read(_FRAME.size)
    if len(data) < _FRAME.size:
        return None, False
    sync, of_head, of_body, check = _FRAME.unpack(data)
    if sync != SYNC or of_head > MOST_HEAD or of_body > MOST_BODY:
        return None, False
    raw = file.read(of_head)
    if len(raw) < of_head or zlib.crc32(raw, zlib.crc32(_LENGTHS.pack(of_head, of_body))) != check:
        return None, False
    return (raw, of_body), at + _FRAME.size + of_head + of_body <= size


def _next(file: BinaryIO, at: int, size: int) -> int | None:
    """Where the next record begins that checks."""
    while at < size:
        file.seek(at)
        data = file.read(_PIECE)
        place = data.find(SYNC)
        if place < 0:
            at += max(1, len(data) - len(SYNC) + 1)
        elif _frame(file, at + place, size)[0] is not None:
            return at + place
        else:
            at += place + 1
    return None


def _after_header(file: BinaryIO) -> int:
    """Where records begin; 0 where the header is damaged, for then the first sync tells."""
    data = file.read(_START.size)
    if len(data) < _START.size:
        return 0
    magic, version, _, length = _START.unpack(data)
    return _START.size + length if magic == MAGIC and version == VERSION and length <= _PIECE else 0


def _parsed(raw: bytes) -> Head | None:
    """None for what checks and yet says nothing this program knows: another version's."""
    try:
        values = json.loads(raw)
        epochs = tuple((str(tag), int(epoch)) for tag, epoch in values["epochs"])
        digest, time_us, tenant, task = (values[name] for name in ("digest", "time_us", "tenant", "task"))
        if len(bytes.fromhex(digest)) != 8:
            return None
        return Head(str(digest), int(time_us), str(tenant), str(task), bool(values["streamed"]), epochs)
    except (ValueError, KeyError, TypeError):
        return None


def _put(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]  # an unbuffered write may take less than all, as on a filling disk
