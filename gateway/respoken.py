"""Commands said again within a session: from a new take to the digest of the recording in which it was said before.

Kept in this process alone, for the sessions that asked for it: the frames of what was said (`models.respoken`), beside
the digest of the recording and of the words it was answered with. A session is one conversation with one speaker, so
takes are compared within it and never beyond. Nothing is kept of a take that was itself answered from an earlier one.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from models.respoken import Respoken, Take, embedded
from models.utterance import Samples

TTL_S: Final = 1800.0
"""Since its last use, after which a session is forgotten."""
MAX_TAKES: Final = 40
"""In a session; the oldest go first."""
MAX_BYTES: Final = 64 << 20
"""Of all takes of all sessions; the session that was used longest ago goes first."""

Half = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Spoken:
    """A new take, heard in its session: what to remember, once it has been answered, and what it says again."""

    tenant: str
    session: bytes
    take: Take | None
    """None for silence, and for what is too short or too long."""
    said_before: bytes | None
    """Digest of the recording in which the same was said; None when that is not sure."""
    similarity: float


@dataclass(frozen=True, slots=True)
class _Kept:
    take: Half
    digest: bytes
    words: bytes
    tags: tuple[str, ...]


@dataclass(slots=True)
class _Session:
    takes: list[_Kept] = field(default_factory=list)
    used: float = 0.0

    @property
    def bytes(self) -> int:
        return sum(kept.take.nbytes for kept in self.takes)


class Sessions:
    """All sessions' takes. `hear` only reads and may run in any thread; all else belongs to the event loop."""

    def __init__(
        self,
        *,
        model: Callable[[], Respoken] = embedded,
        clock: Callable[[], float] = time.monotonic,
        ttl_s: float = TTL_S,
        max_takes: int = MAX_TAKES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`model` is asked for at the first take, so that nobody waits for it who has no sessions."""
        self._model, self._clock = model, clock
        self._ttl_s, self._max_takes, self._max_bytes = ttl_s, max_takes, max_bytes
        self._sessions: OrderedDict[tuple[str, bytes], _Session] = OrderedDict()
        self._bytes = 0

    def hear(
        self,
        tenant: str,
        session: bytes,
        samples: Samples,
        accept: Callable[[bytes], bool] = lambda digest: True,
        min_similarity: float = 0.0,
    ) -> Spoken:
        """A 16 kHz recording, compared with what was said before in its session (a keyed digest of its name).

        Takes whose digest `accept` refuses are passed over.
        """
        model = self._model()
        take = model.hear(samples)
        known = self._sessions.get((tenant, session))
        if take is None or known is None or self._clock() - known.used > self._ttl_s:
            return Spoken(tenant, session, take, None, 0.0)
        takes = list(known.takes)
        frames = [kept.take.astype(np.float32) for kept in takes]
        match = model.match(take, frames, [kept.words for kept in takes])
        if match is None or not model.accepts(match, take, frames[match.number]):
            return Spoken(tenant, session, take, None, 0.0)
        digest, similarity = takes[match.number].digest, max(0.0, 1.0 - match.distance)
        if similarity < min_similarity or not accept(digest):
            return Spoken(tenant, session, take, None, similarity)
        return Spoken(tenant, session, take, digest, similarity)

    def remember(self, spoken: Spoken, digest: bytes, words: str, tags: tuple[str, ...]) -> None:
        """Keeps a take whose own answer has just been stored under its recording's `digest`.

        To be called in the step that stored it, so that an erasure comes before both or after both. An answer without
        words is no command; it is not kept.
        """
        if spoken.take is None or not words:
            return
        self.expire()
        place = (spoken.tenant, spoken.session)
        session = self._sessions.setdefault(place, _Session())
        session.used = self._clock()
        self._sessions.move_to_end(place)
        before = session.bytes
        meant = hashlib.blake2b(words.encode(), digest_size=16).digest()
        takes = [kept for kept in session.takes if kept.digest != digest]
        takes.append(_Kept(spoken.take.astype(np.float16), digest, meant, tags))
        session.takes = takes[-self._max_takes :]
        self._bytes += session.bytes - before
        while self._bytes > self._max_bytes and self._sessions:
            self._bytes -= self._sessions.popitem(last=False)[1].bytes

    def used(self, spoken: Spoken) -> None:
        """A session has been asked; its time begins anew."""
        session = self._sessions.get((spoken.tenant, spoken.session))
        if session is not None and self._clock() - session.used <= self._ttl_s:
            session.used = self._clock()
            self._sessions.move_to_end((spoken.tenant, spoken.session))

    def expire(self) -> None:
        """Drops the sessions whose time has run out; they are in the order of their last use."""
        now = self._clock()
        while self._sessions and now - next(iter(self._sessions.values())).used > self._ttl_s:
            self._bytes -= self._sessions.popitem(last=False)[1].bytes

    def forget(self, tag: str) -> int:
        """Drops every take that carries the tag; returns how many."""
        return self._drop(lambda place, kept: tag in kept.tags)

    def forget_tenant(self, tenant: str) -> int:
        return self._drop(lambda place, kept: place[0] == tenant)

    def forget_all(self) -> None:
        self._sessions.clear()
        self._bytes = 0

    def _drop(self, gone: Callable[[tuple[str, bytes], _Kept], bool]) -> int:
        dropped = 0
        for place, session in list(self._sessions.items()):
            kept = [one for one in session.takes if not gone(place, one)]
            dropped += len(session.takes) - len(kept)
            self._bytes -= session.bytes
            session.takes = kept
            self._bytes += session.bytes
            if not kept:
                del self._sessions[place]
        return dropped

    def __len__(self) -> int:
        """Takes kept."""
        return sum(len(session.takes) for session in self._sessions.values())
