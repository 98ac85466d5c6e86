"""The access trace: one fixed-width binary record a request, for replaying a day's traffic against another cache.

A file `access-<start>-<n>.rft.gz` is one gzip stream: MAGIC, then little-endian u16 version, u16 record size and u32
length of a JSON header, that header (it names the fields, their struct format and the code tables, so that a file
explains itself), then records of RECORD's layout until the end. Names and digests are hashed under the trace's own
key: equal ones can be told, none can be looked up, and no record holds text, audio, a name or a cache key. Digests are
64 bits, so that in ten million requests two different ones are taken for one with a chance of 3 in a million.

Records are packed on the event loop, in some 3 µs each, because a thread that packs thousands of them at once would
hold the interpreter for milliseconds; the thread here only compresses and writes, which both release it. Nothing a disk
does reaches a request: what cannot be written is dropped and counted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from gateway.stats import CAUSES, STATUSES, TASKS, TIERS

if TYPE_CHECKING:
    from gateway.observe import Outcome

MAGIC: Final = b"RFNTRACE"
VERSION: Final = 2
RECORD: Final = struct.Struct("<Q8s8s4s4s4s4s4sIIfffffBBBBB3x")
_HEAD: Final = struct.Struct("<8sHHI")
TASK_CODES: Final = {name: code for code, name in enumerate(TASKS, 1)}
TIER_CODES: Final = {name: code for code, name in enumerate(("", *TIERS))}
OTHER: Final = 255
_NAMES_KEPT: Final = 4096
_RETRY_S: Final = 30.0
_READ_BYTES: Final = 1 << 20

log = logging.getLogger("refrain.trace")


class TraceError(ValueError):
    """Not a trace file, or one of a version this program does not read."""


class Record(NamedTuple):
    """One request as the trace keeps it. Hashes are hex, empty where the request had no such thing."""

    time_us: int
    """Microseconds since 1970 at the end of the answer."""
    digest: str
    """Names the answer asked for: equal digests are equal requests, within files of one `key_id`."""
    input: str
    """Names the text, recording or mel alone, whatever voice, format and engine were asked of; empty for a hit."""
    tenant: str
    voice: str
    emotion: str
    engine: str
    language: str
    bytes_in: int
    bytes_out: int
    cost_ms: float
    """Compute the answer took, or, on a hit, took once."""
    latency_ms: float
    first_ms: float
    lookup_ms: float
    similarity: float
    task: str
    status: str
    tier: str
    streaming: bool
    cause: str
    """Why an answer was not a hit, as far as the gateway knew at once: one of CAUSES."""


class AccessTrace:
    """Takes records from the event loop; writes them from a thread of its own."""

    def __init__(
        self,
        folder: Path,
        key: bytes,
        *,
        rotate_bytes: int = 64 << 20,
        keep: int = 16,
        pending_records: int = 65_536,
        flush_s: float = 1.0,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key`: at least 16 secret bytes, the same from run to run if files are to be compared.

        `pending_records` bounds the memory (some 130 bytes each); `keep` the number of files, 0 for all.
        """
        if not 16 <= len(key) <= 64:
            raise ValueError(f"trace key: {len(key)} bytes; 16 to 64 are needed")
        self._folder, self._key, self._rotate_bytes, self._keep = folder, key, rotate_bytes, keep
        self._limit, self._flush_s = pending_records, flush_s
        self._wall, self._clock = wall, clock
        self._hasher = hasher(key)
        self._names: dict[str, bytes] = {"": bytes(4)}
        self._pending: deque[bytes] = deque()  # its append and popleft are atomic: the two threads need no lock
        self._refused = self._lost = 0
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._file: _TraceFile | None = None
        self._number = 0
        self._retry_at = 0.0
        self.records = 0
        """Records taken, written or not."""

    @property
    def dropped(self) -> int:
        """Records lost to a full buffer or a failing disk."""
        return self._refused + self._lost  # one is written by the event loop, the other by the thread

    def start(self) -> None:
        """Starts the writing thread. Without it, `flush` writes."""
        self._thread = threading.Thread(target=self._run, name="refrain-trace", daemon=True)
        self._thread.start()

    def add(self, outcome: Outcome) -> None:
        """Takes one record. Never raises for the disk's sake, never blocks, never grows past the bound."""
        if len(self._pending) >= self._limit:
            self._refused += 1
            return
        names = self._names
        voice, emotion, language = names.get(outcome.voice), names.get(outcome.emotion), names.get(outcome.language)
        tenant, engine = names.get(outcome.tenant), names.get(outcome.engine)
        if voice is None or emotion is None or language is None or tenant is None or engine is None:
            voice, emotion, language = (self._name(n) for n in (outcome.voice, outcome.emotion, outcome.language))
            tenant, engine = self._name(outcome.tenant), self._name(outcome.engine)
        self.records += 1
        self._pending.append(RECORD.pack(
            int(self._wall() * 1e6), self._hashed(outcome.digest), self._hashed(outcome.input),
            tenant, voice, emotion, engine, language,
            min(outcome.bytes_in, 0xFFFFFFFF), min(outcome.bytes_out, 0xFFFFFFFF),
            outcome.compute_ms or outcome.saved_ms, outcome.latency_s * 1e3, outcome.first_s * 1e3, outcome.lookup_ms,
            outcome.similarity, TASK_CODES.get(outcome.task, OTHER), outcome.status,
            TIER_CODES.get(outcome.tier, OTHER), outcome.streaming, outcome.cause,
        ))  # fmt: skip

    def _hashed(self, digest: bytes) -> bytes:
        return hashed(self._hasher, digest) if digest else bytes(8)

    def flush(self) -> None:
        """Writes what is pending. Called by the thread; harmless from elsewhere."""
        with self._writing:
            batch = [self._pending.popleft() for _ in range(len(self._pending))]
            if not batch:
                return
            if self._file is None and self._clock() < self._retry_at:
                self._lost += len(batch)
                return
            try:
                if self._file is None:
                    self._file = self._open()
                if self._file.write(b"".join(batch)) >= self._rotate_bytes:
                    self._file.close()
                    self._file = None
            except OSError as error:
                self._lost += len(batch)
                self._retry_at = self._clock() + _RETRY_S
                log.warning("trace not written", extra={"fields": {"error": str(error), "retry_s": _RETRY_S}})
                if self._file is not None:
                    self._file.abandon()
                self._file = None

    def close(self) -> None:
        """Writes what is pending and ends the file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        with self._writing:
            if self._file is not None:
                try:
                    self._file.close()
                except OSError:
                    self._file.abandon()
                self._file = None

    def _run(self) -> None:
        while not self._stop.wait(self._flush_s):
            self.flush()

    def _name(self, name: str) -> bytes:
        hashed = self._names.get(name)
        if hashed is None:
            if len(self._names) >= _NAMES_KEPT:
                self._names = {"": bytes(4)}
            hashed = hashlib.blake2b(name.encode(), key=self._key, digest_size=4, person=b"name").digest()
            self._names[name] = hashed
        return hashed

    def _open(self) -> _TraceFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall()))
        self._number += 1
        while (path := self._folder / f"access-{stamp}-{self._number:04d}.rft.gz").exists():
            self._number += 1  # started twice within a second
        opened = _TraceFile(path, self._header())
        for old in trace_files(self._folder)[: -self._keep]:
            old.unlink(missing_ok=True)
        return opened

    def _header(self) -> bytes:
        return header(started=self._wall(), key_id=key_id(self._key))


def hasher(key: bytes) -> hashlib.blake2b:
    """What a trace with this key hashes digests with, by `hashed`."""
    return hashlib.blake2b(key=key, digest_size=8)


def hashed(hasher: hashlib.blake2b, digest: bytes) -> bytes:
    """The 8 bytes by which records name a digest."""
    own = hasher.copy()
    own.update(digest)
    return own.digest()


def key_id(key: bytes) -> str:
    """Names the key a trace hashes with: only files of one are about the same digests."""
    return hashlib.blake2b(key=key, digest_size=8, person=b"key id").hexdigest()


def header(**facts: Any) -> bytes:
    """What a file begins with; `facts` go into its JSON."""
    codes = {"tasks": TASK_CODES, "tiers": TIER_CODES, "statuses": list(STATUSES), "causes": list(CAUSES)}
    about = {**facts, "fields": Record._fields, "format": RECORD.format, **codes}
    text = json.dumps(about).encode()
    return _HEAD.pack(MAGIC, VERSION, RECORD.size, len(text)) + text


class _TraceFile:
    """A gzip stream that is whole after every write: a crash loses no earlier batch."""

    def __init__(self, path: Path, header: bytes) -> None:
        self._path = path
        self._raw: BinaryIO = path.open("xb", buffering=0)
        self._zip = zlib.compressobj(level=1, wbits=31)
        self._good = 0
        try:
            self.write(header)
        except OSError:
            self._raw.close()
            path.unlink(missing_ok=True)
            raise

    def write(self, data: bytes) -> int:
        """Returns the file's size after it."""
        self._put(self._zip.compress(data) + self._zip.flush(zlib.Z_SYNC_FLUSH))
        self._good = self._raw.tell()
        return self._good

    def close(self) -> None:
        self._put(self._zip.flush(zlib.Z_FINISH))
        self._raw.close()

    def abandon(self) -> None:
        """Gives up after a failed write: cuts the file back to the last whole batch."""
        try:
            self._raw.truncate(self._good)
            self._raw.close()
        except OSError as error:
            log.warning("trace not closed", extra={"fields": {"error": str(error)}})

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._raw.write(view) :]  # an unbuffered write may take less than all, as on a filling disk


def trace_files(folder: Path) -> list[Path]:
    """The trace files of a folder, oldest first."""
    return sorted(folder.glob("access-*.rft.gz"))


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of one file. Raises `TraceError`."""
    return _read_head(_unzip(path), path)[0]


def read_trace(path: Path) -> Iterator[Record]:
    """Records of a file, or of all files of a folder, oldest first. A file cut short ends where it was cut.

    Raises `TraceError` for what is not a trace.
    """
    for about, data in read_pieces(path):
        tasks = {code: name for name, code in about["tasks"].items()}
        tiers = {code: name for name, code in about["tiers"].items()}
        for values in RECORD.iter_unpack(data):
            *plain, task, status, tier, streaming, cause = values
            fields: list[Any] = [_hex(value) if isinstance(value, bytes) else value for value in plain]
            fields += [tasks.get(task, "other"), about["statuses"][status], tiers.get(tier, "other")]
            yield Record._make([*fields, bool(streaming), about["causes"][cause]])


def read_pieces(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    """As `read_trace`, in pieces: the JSON header of the file, and bytes that are whole records of RECORD's layout."""
    for file in trace_files(path) if path.is_dir() else [path]:
        pieces = _unzip(file)
        about, rest = _read_head(pieces, file)
        while True:
            whole = len(rest) - len(rest) % RECORD.size
            if whole:
                yield about, rest[:whole]
            piece = next(pieces, None)
            if piece is None:
                break
            rest = rest[whole:] + piece


def _hex(hashed: bytes) -> str:
    return hashed.hex() if any(hashed) else ""


def _unzip(path: Path) -> Iterator[bytes]:
    unzip = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            try:
                yield unzip.decompress(piece)
            except zlib.error:
                return


def _read_head(pieces: Iterator[bytes], path: Path) -> tuple[dict[str, Any], bytes]:
    data = b""
    for piece in pieces:
        data += piece
        if len(data) >= _HEAD.size:
            magic, version, size, length = _HEAD.unpack_from(data)
            if magic != MAGIC:
                break
            if (version, size) != (VERSION, RECORD.size):
                raise TraceError(f"{path}: version {version} with {size}-byte records; this program reads {VERSION}")
            if len(data) >= _HEAD.size + length:
                return json.loads(data[_HEAD.size : _HEAD.size + length]), data[_HEAD.size + length :]
    raise TraceError(f"{path}: not a Refrain trace")
