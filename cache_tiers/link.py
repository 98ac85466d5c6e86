"""The Redis of this gateway: commands on their way to the server that each belongs to.

One server, the master that Sentinels name, or a Cluster (address.py, server.py, cluster.py): callers see the same.
Every call either answers within its deadline or raises `Unavailable`. Commands go out one by one or in a pipeline,
never in a transaction. In a Cluster a command goes where its key lies, a pipeline is one for each server, and what has
keys in several slots is taken apart by the callers (steps.py).
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, ClusterDownError, ResponseError, TryAgainError

from cache_tiers.address import parse_address
from cache_tiers.cluster import Cluster, Place
from cache_tiers.names import Names
from cache_tiers.server import Breaker, Command, LinkStats, Refused, Server, Unavailable, Word, connect, execute

__all__ = ["Command", "LinkStats", "Names", "RedisLink", "Refused", "Unavailable", "Word"]

REDIRECTS = 3
"""Times that a command is sent on by one server to another before it is given up."""
TRY_AGAIN_AFTER = 0.02
"""Seconds before a command is sent again whose keys are, for now, on two servers; twice as long each further time."""


class RedisLink:
    def __init__(
        self,
        url: str,
        *,
        prefix: str = "refrain",
        deadline: float = 0.05,
        connections: int = 32,
        failures: int = 5,
        probe_after: float = 0.5,
        probe_deadline: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`connections`: at most, to each server. `pause` waits, by the event loop's clock. Raises ValueError for a URL
        or prefix that means nothing."""
        self.names = Names(prefix)
        self.stats = LinkStats()
        self.deadline = deadline
        self.address = parse_address(url)
        self._connections = connections
        self._new_breaker = functools.partial(Breaker, failures, probe_after, clock)
        self._probe_deadline = probe_deadline
        self._pause = pause
        self._only: Server | None = None
        self._cluster: Cluster | None = None
        if self.address.kind == "cluster":
            self._cluster = Cluster(self.address.hosts, self._node, lambda place: self._client(1, place))
        else:
            self._only = self._server(self._client(connections))

    def _client(self, connections: int, place: Place | None = None) -> Redis:
        where: dict[str, Any] = {} if place is None else {"host": place[0], "port": place[1]}
        return connect(self.address, connections, **where)

    def _server(self, client: Redis, **settings: Any) -> Server:
        breaker = self._new_breaker()
        return Server(client, breaker, self.stats, probe_deadline=self._probe_deadline, **settings)

    def _node(self, place: Place) -> Server:
        assert self._cluster is not None
        return self._server(self._client(self._connections, place), on_trouble=self._cluster.look_again)

    # What it is.

    @property
    def slotted(self) -> bool:
        """Whether keys with different hash tags may lie on different servers: no script may have both."""
        return self._cluster is not None

    @property
    def servers(self) -> list[Server]:
        return [self._only] if self._only is not None else self._cluster.servers if self._cluster else []

    @property
    def breaker(self) -> Breaker:
        """Of the one server. In a Cluster each has its own: see `left_alone`."""
        return self.servers[0].breaker if self.servers else self._new_breaker()

    @property
    def left_alone(self) -> bool:
        """Whether the breaker of any server is open."""
        return any(server.breaker.open for server in self.servers)

    @property
    def opened(self) -> int:
        """How often one has opened."""
        return sum(server.breaker.opened for server in self.servers)

    async def places(self, deadline: float) -> list[Place | None]:
        """The servers that keys lie on, for commands that go over all; None for the only one. Raises Unavailable."""
        if self._cluster is None:
            return [None]
        await self._known(asyncio.get_running_loop().time() + deadline)
        return [*self._cluster.places]

    def place_of(self, name: str) -> Place | None:
        """Where a key lies, as far as is known."""
        try:
            return None if self._cluster is None else self._cluster.place_of(name)
        except Unavailable:
            return None

    def another(self, name: str, connections: int = 1) -> Redis:
        """A client of its own for a reader of this key that blocks. The caller closes it, and asks for another one when
        it fails: in a Cluster the key may have moved. Raises Unavailable."""
        if self._cluster is None:
            return self._client(connections)
        return self._client(connections, self._cluster.place_of(name))

    # What it does.

    async def call(self, *command: Word, deadline: float | None = None, at: Place | None = None) -> Any:
        """The answer to one command, which has a key, or goes to the server `at`. Raises Unavailable in time."""
        seconds = self.deadline if deadline is None else deadline
        if self._only is not None:
            return await self._only.attempt(lambda client: execute(client, *command), seconds)
        due = asyncio.get_running_loop().time() + seconds
        (answer,) = await self._scatter([command], due, at)
        if isinstance(answer, Unavailable):
            raise answer
        if isinstance(answer, Exception):
            self.stats.refused += 1
            raise Refused(f"Redis refused: {answer}")
        return answer

    async def each(self, *command: Word, deadline: float | None = None) -> list[Any]:
        """The answer of every server that keys lie on. Raises Unavailable when one fails."""
        seconds = self.deadline if deadline is None else deadline
        places = await self.places(seconds)
        return await asyncio.gather(*(self.call(*command, deadline=seconds, at=place) for place in places))

    async def pipeline(
        self, commands: Sequence[Command], *, last: Sequence[Command] = (), deadline: float | None = None
    ) -> list[Any]:
        """Many commands in one round trip to each server, not a transaction; raises Unavailable when none answers.

        An answer that is an error stands in its place, as does Unavailable for those of a server that fails. What is
        `last` happens after all others have been answered, or failed; in a Cluster within a deadline of its own.
        """
        seconds = self.deadline if deadline is None else deadline
        if self._only is not None:
            everything = [*commands, *last]
            return await self._only.attempt(lambda client: _send_all(client, everything, False), seconds)
        clock = asyncio.get_running_loop().time
        answers = await self._scatter(commands, clock() + seconds)
        failed = [answer for answer in answers if isinstance(answer, Unavailable)]
        if failed and len(failed) == len(answers):
            raise failed[0]
        return answers + await self._scatter(last, clock() + seconds)

    async def _known(self, due: float) -> None:
        assert self._cluster is not None
        if self._cluster.ready:
            return
        try:
            async with asyncio.timeout_at(due):
                await self._cluster.known()
        except TimeoutError:
            raise Unavailable("no server of the Cluster tells which slots it has") from None

    async def _scatter(self, commands: Sequence[Command], due: float, at: Place | None = None) -> list[Any]:
        """Each command to the server that has its key; and those once more, after a pause and while there is time,
        whose keys a slot on its way has on both its servers (TRYAGAIN of the Cluster specification)."""
        assert self._cluster is not None
        try:
            await self._known(due)
        except Unavailable as error:
            return [error] * len(commands)
        answers = await self._follow(commands, due, at)
        clock, pause = asyncio.get_running_loop().time, TRY_AGAIN_AFTER
        while again := [i for i, answer in enumerate(answers) if isinstance(answer, TryAgainError)]:
            if clock() + pause >= due:
                break
            await self._pause(pause)
            pause *= 2
            self.stats.tried_again += len(again)
            for i, answer in zip(again, await self._follow([commands[i] for i in again], due, at), strict=True):
                answers[i] = answer
        if any(isinstance(answer, ClusterDownError) for answer in answers):
            self._cluster.look_again()
        return answers

    async def _follow(self, commands: Sequence[Command], due: float, at: Place | None) -> list[Any]:
        """Each command to the server that has its key, and on to the one that this names, if it names another."""
        assert self._cluster is not None
        answers: list[Any] = [Unavailable("sent from server to server too often")] * len(commands)
        sendings: dict[tuple[Place, bool], list[int]] = {}
        for i, command in enumerate(commands):
            try:
                sendings.setdefault((at or self._cluster.place_of(_key(command)), False), []).append(i)
            except Unavailable as error:
                answers[i] = error
        for _ in range(REDIRECTS):
            under_way = sendings
            sending = [
                self._send(place, [commands[i] for i in which], asking, due)
                for (place, asking), which in under_way.items()
            ]
            told = await asyncio.gather(*sending) if len(sending) > 1 else [await sending[0]] if sending else []
            sendings = {}
            for ((place, _), which), theirs in zip(under_way.items(), told, strict=True):
                for i, answer in zip(which, theirs, strict=True):
                    if isinstance(answer, AskError):
                        self.stats.redirected += 1
                        sendings.setdefault(self._cluster.redirect(answer, place), []).append(i)
                    else:
                        answers[i] = answer
            if not sendings:
                break
        return answers

    async def _send(self, place: Place, commands: Sequence[Command], asking: bool, due: float) -> Sequence[Any]:
        assert self._cluster is not None
        left = due - asyncio.get_running_loop().time()
        try:
            if left <= 0:  # which is not this server's fault
                raise Unavailable("no time was left after another server had answered")
            return await self._cluster.server_at(place).attempt(
                lambda client: _send_all(client, commands, asking), left
            )
        except Unavailable as error:
            return [error] * len(commands)

    async def aclose(self) -> None:
        if self._only is not None:
            await self._only.aclose()
        if self._cluster is not None:
            await self._cluster.aclose()


async def _send_all(client: Redis, commands: Sequence[Command], asking: bool) -> list[Any]:
    if len(commands) == 1 and not asking:
        try:
            return [await execute(client, *commands[0])]
        except ResponseError as error:
            return [error]
    pipe = client.pipeline(transaction=False)
    for command in commands:
        if asking:  # one ASKING for each command
            pipe.execute_command("ASKING")
        pipe.execute_command(*command)
    answers: list[Any] = await pipe.execute(raise_on_error=False)
    return answers[1::2] if asking else answers


def _key(command: Command) -> Word:
    """The key by which a command finds its server; a script's first, whose others lie in the same slot."""
    return command[3] if command[0] == "EVAL" else command[1]
