"""Two gateways on one Redis, all of them real processes, and a relay in between: what most faults are done to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench import fleet
from bench.fleet import Pair
from bench.open_loop import Ask, Mode, Report, attempt
from bench.processes import Gateway


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gateways are started here, which a busy machine may take a minute for, and what they do is waited for."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One for all tests, each of which leaves it as it was."""
    with fleet.pair_in(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture(scope="session")
def asks(pair: Pair) -> list[Ask]:
    """What to ask any gateway with the shipped models, with the right answers."""
    return asyncio.run(fleet.asks(pair.one.target))


@pytest.fixture(scope="session")
def mixed(asks: list[Ask]) -> list[Ask]:
    """The same, so that some of it is answered from memory, and some must be made anew."""
    return fleet.mixed(asks)


@pytest.fixture(scope="session")
def rate(pair: Pair, asks: list[Ask]) -> float:
    """Requests a second that this machine, as busy as it is, answers by its models one after the other: with two at
    work, and most of it answered from memory, that leaves room."""
    anew = asyncio.run(asked(pair.one, [ask.by(Mode.BYPASS) for ask in asks]))
    return min(30.0, len(anew) / sum(attempt.took_s for attempt in anew.attempts))


async def asked(gateway: Gateway, asks: Sequence[Ask]) -> Report:
    """One after the other, checked."""
    async with fleet.speech_of(gateway) as speech:
        report = Report([await attempt(speech, ask) for ask in asks])
    report.check()
    return report
