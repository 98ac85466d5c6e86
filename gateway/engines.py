"""The engines of this gateway: by task and model name, the first of a task being its default; one may be on trial.

Which of the two answers a request that names no version is settled by the request itself, with a keyed hash of its
tenant and input: asked again, it goes to the same engine, under the same key, and is found. A coin would compute and
keep half of the answers twice. Raising the share only adds requests to those that went to the canary before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from gateway.errors import BadField, listed
from models.engine import Engine
from models.load import Canary, Served

_WHOLE = 1 << 64


class Engines:
    """One object for all who ask, whatever serves now: `become` exchanges it between two requests."""

    def __init__(self, served: Served, others: Mapping[str, Engine] | None = None) -> None:
        """`others`: engines of further tasks, one each."""
        self._served, self._others = served, dict(others or {})

    def become(self, other: Engines) -> None:
        self._served, self._others = other._served, other._others

    @property
    def served(self) -> Served:
        return self._served

    def and_of(self, task: str, engine: Engine) -> Engines:
        """These engines, and one of another task."""
        return Engines(self._served, {**self._others, task: engine})

    def of(self, task: str, model: str = "", tenant: str = "", input_digest: bytes = b"") -> Engine:
        """The engine that answers a request: `model` is NAME, NAME@VERSION or empty.

        Without an input digest (a stream whose input is yet to come) only the tenant decides. Raises `BadField` for a
        model that has left since the request was decoded.
        """
        if task in self._others:
            return self._others[task]
        engines = self._served.by_task[task]
        default = next(iter(engines.values()))
        chosen = engines.get(model, default) if model else default
        pinned = self._served.versions.get(task, {}).get(model)
        if pinned is not None:
            return pinned
        if model and model not in engines:
            raise BadField("model", model, listed(self.names(task)), "no longer serves here")
        canary = self._served.canaries.get(task)
        if canary is None or chosen is not default or model not in ("", canary.engine.info.name):
            return chosen
        return canary.engine if takes(canary, tenant, input_digest) else default

    def names(self, task: str) -> tuple[str, ...]:
        """What a request may call a model of the task, the default first."""
        if task in self._others:
            return (self._others[task].info.name,)
        return (*self._served.by_task[task], *self._served.versions.get(task, {}))

    @property
    def tasks(self) -> tuple[str, ...]:
        return (*self._served.by_task, *self._others)

    def share(self, engine: Engine) -> float:
        """Of the requests that name no version, tenants who are all on one side left aside: 0 to 1."""
        for task, canary in self._served.canaries.items():
            if engine is canary.engine:
                return canary.percent / 100
            if engine is next(iter(self._served.by_task[task].values())):
                return 1 - canary.percent / 100
        return 1.0

    def chain(self, engine: Engine) -> tuple[str, ...]:
        """NAME@VERSION of every model in it; empty where they have no versions."""
        return self._served.chains.get(engine.info.identity, ())

    def by_task(self) -> Iterator[tuple[str, Engine]]:
        """Every engine that serves, with its task; one on trial after the one it is beside."""
        for task, engines in self._served.by_task.items():
            yield from ((task, engine) for engine in engines.values())
            canary = self._served.canaries.get(task)
            if canary is not None and canary.engine not in engines.values():
                yield task, canary.engine
        yield from self._others.items()

    def __iter__(self) -> Iterator[Engine]:
        return (engine for _, engine in self.by_task())


def takes(canary: Canary, tenant: str, input_digest: bytes) -> bool:
    """Whether the engine on trial gets the request. `input_digest` is keyed already, so this hash needs no key but the
    canary's identity, for which each trial has guinea pigs of its own."""
    if tenant in canary.tenants:
        return True
    if not canary.percent or not input_digest:
        return False
    key = bytes.fromhex(canary.engine.info.identity)
    drawn = hashlib.blake2b(tenant.encode() + b"\0" + input_digest, key=key[:64], digest_size=8).digest()
    return int.from_bytes(drawn, "big") * 100 < canary.percent * _WHOLE
