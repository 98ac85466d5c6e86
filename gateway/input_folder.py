"""The folder of recorded inputs: written within its bounds of size and age, and erased in by tag.

Several gateways may share one. Each writes files of its own and removes what no gateway writes any more; an erasure
reaches all files, because their writers may be gone. Blocking, and to be used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.input_files import InputFile, Kept, Walk, erase, input_files, remove_unless_written, started, walk

PARTS: Final = 16
"""A file takes this part of the folder's size and age, so that what is removed with it is not much more than has to."""
_HEADER: Final = 1 << 10
"""More than a file's header takes."""


class InputFolder:
    def __init__(self, folder: Path, *, size: int, keep_s: float, key_id: str, wall: Callable[[], float]) -> None:
        """`size`: bytes of all files together; `keep_s`: the longest that an input is kept; `key_id`: of the key that
        made the digests, as a trace's header has it."""
        self._folder, self._size, self._keep_s, self._key_id, self._wall = folder, size, keep_s, key_id, wall
        self._file_bytes = size // PARTS
        self.largest = self._file_bytes - _HEADER
        """Bytes of a record."""
        self.held = 0
        """Bytes of all files, as far as this gateway has looked."""
        self.removed: set[Path] = set()
        """Files that were there and are not any more; whoever has heard of them takes them out."""
        self._file: InputFile | None = None
        self._seen: dict[Path, Walk] = {}

    def open(self, tenants: Collection[str]) -> Iterator[Kept]:
        """The records of these tenants; those of others are erased, with files that hold nothing else. Raises OSError.

        Without tenants no file is left, unless another gateway writes it, and none is read.
        """
        for path in input_files(self._folder):
            with suppress(FileNotFoundError):  # another gateway has just removed it
                if not tenants and remove_unless_written(path):
                    continue
                others: list[Kept] = []
                left = 0
                for kept in walk(path, self._seen.setdefault(path, Walk())):
                    if kept.head.tenant in tenants:
                        left += 1
                        yield kept
                    else:
                        others.append(kept)
                if others and (left or not remove_unless_written(path)):
                    erase(others)

    def read(self) -> Iterator[Kept]:
        """The records that were not read before, of all files. Raises OSError."""
        for path in input_files(self._folder):
            with suppress(FileNotFoundError):
                yield from walk(path, self._seen.setdefault(path, Walk()))

    def append(self, data: bytes) -> Path:
        """Writes a record of at most `largest` bytes; returns the file that has it. Raises OSError."""
        if self._file is not None and self._file.size + len(data) > self._file_bytes:
            self.close()
        if self._file is None:
            self.tidy(room=self._file_bytes)
            self._file = InputFile(self._folder, self._wall(), key_id=self._key_id)
            self.held += self._file.size
        try:
            self._file.write(data)
        except OSError:
            self.close()
            raise
        self.held += len(data)
        return self._file.path

    def tidy(self, room: int = 0) -> None:
        """Removes files that hold anything too old, and the oldest until `room` bytes are free. Raises OSError."""
        now = self._wall()
        if self._file is not None and now - self._file.started >= self._keep_s / PARTS:
            self.close()
        found: list[tuple[float, Path, int]] = []
        for path in input_files(self._folder):
            with suppress(FileNotFoundError):
                found.append((started(path), path, path.stat().st_size))
        self.held = sum(size for _, _, size in found)
        gone = set(self._seen).difference(path for _, path, _ in found)
        for begun, path, size in sorted(found):
            own = self._file is not None and path == self._file.path
            if not own and (now - begun >= self._keep_s or self.held + room > self._size):
                with suppress(FileNotFoundError):
                    if not remove_unless_written(path):
                        continue
                self.held -= size
                gone.add(path)
        for path in gone:
            self._seen.pop(path, None)
        self.removed |= gone

    def erase(self, tag: str, epoch: int) -> set[str]:
        """Erases what came under another epoch of the tag, in all files; returns its digests. Raises OSError.

        Another is an older one, or of a Redis whose epochs were lost: what may have come before the erasure goes.
        """
        for _ in self.read():
            pass  # what was written since is known now
        digests: set[str] = set()
        for path, seen in list(self._seen.items()):
            if tag in seen.epochs and seen.epochs[tag] != (epoch, epoch):
                with suppress(FileNotFoundError):
                    records = [kept for kept in walk(path, Walk()) if _of_another(kept, tag, epoch)]
                    erase(records)
                    digests.update(kept.head.digest for kept in records)
                seen.epochs[tag] = epoch, epoch
        return digests

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _of_another(kept: Kept, tag: str, epoch: int) -> bool:
    return any(name == tag and since != epoch for name, since in kept.head.epochs)
