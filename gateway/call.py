"""One request on its way: what was asked, what is known of it by now, and under which key its answer lies."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cache_tiers.entry import CacheKey
from cache_tiers.read_through import Absence
from gateway import wire
from gateway.audits import Recalled, TenantPolicy
from gateway.keys import KeyFields, TenantKeys
from gateway.respoken import Spoken
from gateway.tasks import RECOGNIZE, Task
from models.engine import Engine
from models.utterance import Transcript


@dataclass(slots=True)
class Call:
    """One request, as far as the path has brought it."""

    task: Task
    tenant: str
    keys: TenantKeys
    policy: TenantPolicy
    decoded: wire.Decoded
    engine: Engine
    fields: KeyFields
    input_digest: bytes
    key: CacheKey
    near: Recalled | None
    """What the voice by embedding and the mood by example resolved to; None where both are named."""
    started: float
    bytes_in: int
    compute_ms: float = 0.0
    lookup_ms: float = 0.0
    deadline: float = math.inf
    """By the clock of the slots."""
    spoken: Spoken | None = None
    """The take, where the request names a session in which commands said again may be answered as before."""
    known: Transcript | None = None
    """What a streaming recognizer has already made of the recording, so that a miss need not read it again."""
    looked: Absence = ""
    """Why no tier had the answer under the own key a moment ago, where that was asked already."""
    cause: int = 0
    """Why no tier could answer, a number of stats.CAUSES."""

    @property
    def fuzzy(self) -> bool:
        return self.task is RECOGNIZE and self.known is None and self.policy.looks(self.decoded.control.match)

    def tags(self) -> tuple[str, ...]:
        """What the answer can be evicted by. Made on a miss only."""
        tags = [self.keys.tag("engine", self.fields.engine)]
        if self.fields.voice:
            tags.append(self.keys.tag("voice", self.fields.voice))
        if self.decoded.control.subject_id:
            tags.append(self.keys.tag("subject", self.decoded.control.subject_id))
        return tuple(tags)
