"""Flights: what followers see under every order of joining, leaving, frames, ends and errors. No clock, no sleeping."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from cache_tiers.entry import Entry, Epochs
from cache_tiers.flight import Flights, Follower, Stopped, TooSlow
from cache_tiers.tee import FRAME_OVERHEAD


class EngineError(Exception):
    pass


class Engine:
    """A computation whose every step the test takes: emit, end, fail. Counts its runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0
        self.closed = 0
        self.steps: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.commits: list[tuple[tuple[bytes, ...], Epochs]] = []

    async def run(self) -> AsyncIterator[bytes]:
        self.runs += 1
        self.steps = steps = asyncio.Queue()
        try:
            while True:
                step = await steps.get()
                if step is None:
                    return
                if isinstance(step, BaseException):
                    raise step
                yield step
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.closed += 1

    def commit(self, frames: tuple[bytes, ...], cost_ms: float, epochs: Epochs) -> None:
        self.commits.append((frames, epochs))


async def settle() -> None:
    """Lets every task run until it waits for something that only the test can bring."""
    for _ in range(8):
        await asyncio.sleep(0)


class Caller:
    """A task that reads a follower to its end; one that it is given, or that it joins by itself."""

    def __init__(self, follower: Follower[str] | Callable[[], Follower[str]]) -> None:
        self.got: list[bytes] = []
        self.task = asyncio.create_task(self._read(follower))

    async def _read(self, follower: Follower[str] | Callable[[], Follower[str]]) -> str:
        try:
            async for frame in follower() if callable(follower) else follower:
                self.got.append(frame)
        except EngineError:
            return "error"
        return "end"

    @property
    def state(self) -> str:
        if not self.task.done():
            return "reading"
        return "left" if self.task.cancelled() else self.task.result()


def flights_of(max_bytes: int = 10_000) -> Flights[str]:
    return Flights(max_bytes=max_bytes, now=lambda: 0.0)


async def test_many_callers_at_once_run_the_engine_once() -> None:
    flights, engine = flights_of(), Engine()
    joined = [flights.join("k", engine.run, commit=engine.commit) for _ in range(32)]
    assert [leads for _, leads in joined] == [True] + [False] * 31
    callers = [Caller(follower) for follower, _ in joined]
    await settle()
    for step in (b"one", b"two", None):
        engine.steps.put_nowait(step)
    await asyncio.gather(*(caller.task for caller in callers))
    assert engine.runs == 1
    assert all(caller.got == [b"one", b"two"] for caller in callers)
    assert [frames for frames, _ in engine.commits] == [(b"one", b"two")]
    assert len(flights) == 0


ACTIONS = ("join", "frame", "end", "fail", "first leaves", "last leaves")


async def play(actions: tuple[str, ...]) -> None:
    """Plays one order of events beside a model of what must come of it."""
    flights, engine = flights_of(), Engine()
    callers: list[tuple[Caller, list[bytes]]] = []  # with what each must have got
    expected: list[str] = []  # and its state
    emitted: list[bytes] = []
    flying: list[int] = []  # the listeners of the running flight
    runs = cancelled = commits = 0
    for action in actions:
        if action == "join":
            follower, leads = flights.join("k", engine.run, commit=engine.commit)
            assert leads is not bool(flying)
            if leads:
                runs += 1
                emitted = []
            callers.append((Caller(follower), emitted))
            flying.append(len(expected))
            expected.append("reading")
        elif action in ("first leaves", "last leaves") and flying:
            index = flying.pop(0 if action == "first leaves" else -1)
            callers[index][0].task.cancel()
            callers[index] = (callers[index][0], list(emitted))
            expected[index] = "left"
            cancelled += not flying
        elif action == "frame" and flying:
            emitted.append(b"%d" % len(emitted))
            engine.steps.put_nowait(emitted[-1])
        elif action in ("end", "fail") and flying:
            engine.steps.put_nowait(None if action == "end" else EngineError())
            for index in flying:
                expected[index] = "end" if action == "end" else "error"
            commits += action == "end"
            flying.clear()
        await settle()
        assert [caller.state for caller, _ in callers] == expected
        assert all(caller.got == frames for caller, frames in callers)
        assert (engine.runs, engine.cancelled, len(engine.commits)) == (runs, cancelled, commits)
        assert len(flights) == bool(flying)
    for caller, _ in callers:
        caller.task.cancel()
    await settle()
    assert len(flights) == 0
    assert engine.closed == engine.runs, "no generator is left behind"


async def test_every_order_of_five_events_gives_each_caller_its_answer() -> None:
    for tail in itertools.product(ACTIONS, repeat=4):
        await play(("join", *tail))


async def race(actions: tuple[str, ...], pace: int) -> None:
    """Plays the events with only `pace` steps of the loop between them, so that they meet half-way. What then must
    hold of everyone: a clean end means a whole answer, an error those frames that came before it."""
    flights, commits = flights_of(), []
    steps: asyncio.Queue[bytes | None] = asyncio.Queue()
    frames = itertools.count()
    runs: list[tuple[list[bytes], list[str]]] = []  # what each run emitted, and how it ended

    async def start() -> AsyncIterator[bytes]:
        emitted, ending = [], []
        runs.append((emitted, ending))
        try:
            while (step := await steps.get()) is not None:
                if step == b"fail":
                    ending.append("error")
                    raise EngineError
                emitted.append(step)
                yield step
            ending.append("end")
        finally:
            ending.append("closed")

    def commit(frames: tuple[bytes, ...], cost_ms: float, epochs: Epochs) -> None:
        commits.append(list(frames))

    callers: list[Caller] = []
    for action in actions:
        match action:
            case "join":
                callers.append(Caller(lambda: flights.join("k", start, commit=commit)[0]))
            case "first leaves":
                callers[0].task.cancel()
            case "last leaves":
                callers[-1].task.cancel()
            case "frame":
                steps.put_nowait(b"%d" % next(frames))
            case "end" | "fail":
                steps.put_nowait(None if action == "end" else b"fail")
        for _ in range(pace):
            await asyncio.sleep(0)
    await settle()
    for caller in callers:
        if caller.state in ("end", "error"):
            assert any(caller.got == emitted and caller.state in ending for emitted, ending in runs)
        if caller.state == "end":
            assert caller.got in commits
    ends = [emitted for emitted, ending in runs if "end" in ending]
    assert all(frames in ends for frames in commits)
    assert len(commits) <= len(ends)
    assert bool(len(flights)) is any(caller.state == "reading" for caller in callers), "nobody hangs, nothing idles"
    for caller in callers:
        caller.task.cancel()
    await settle()
    assert len(flights) == 0
    assert all(ending[-1] == "closed" for _, ending in runs)


@pytest.mark.parametrize("pace", [0, 1, 2])
async def test_events_that_meet_half_way_never_cut_an_answer_short(pace: int) -> None:
    for tail in itertools.product(ACTIONS, repeat=4):
        await race(("join", *tail), pace)


async def test_a_caller_that_leaves_before_the_first_step_leaves_no_work_behind() -> None:
    flights, engine = flights_of(), Engine()
    follower, _ = flights.join("k", engine.run)
    follower.leave()
    again, leads = flights.join("k", engine.run)
    assert leads, "work that is being cancelled is not joined"
    await settle()
    assert engine.runs == 1
    again.leave()
    await settle()
    assert len(flights) == 0


async def test_a_follower_survives_when_the_leader_leaves_at_once() -> None:
    flights, engine = flights_of(), Engine()
    leader, _ = flights.join("k", engine.run)
    caller = Caller(flights.join("k", engine.run)[0])
    leader.leave()
    await settle()
    engine.steps.put_nowait(b"one")
    engine.steps.put_nowait(None)
    await caller.task
    assert caller.got == [b"one"]


async def test_a_dropped_follower_counts_as_having_left() -> None:
    flights, engine = flights_of(), Engine()
    follower, _ = flights.join("k", engine.run)
    await settle()
    del follower
    gc.collect()
    await settle()
    assert engine.cancelled == 1


async def test_a_follower_that_has_left_never_reads_a_clean_end() -> None:
    flights, engine = flights_of(), Engine()
    keeper = Caller(flights.join("k", engine.run)[0])
    follower, _ = flights.join("k", engine.run)
    await settle()
    engine.steps.put_nowait(b"one")
    await follower.aclose()
    with pytest.raises(Stopped):
        await anext(follower)
    engine.steps.put_nowait(None)
    await keeper.task
    with pytest.raises(Stopped):
        await anext(follower)


async def test_an_error_is_the_same_for_all_and_comes_behind_the_frames() -> None:
    flights, engine = flights_of(), Engine()
    followers = [flights.join("k", engine.run, commit=engine.commit)[0] for _ in range(3)]
    await settle()
    failure = EngineError("out of memory")
    engine.steps.put_nowait(b"one")
    engine.steps.put_nowait(failure)
    depths = []
    for follower in followers:
        assert await anext(follower) == b"one"
        with pytest.raises(EngineError) as caught:
            await anext(follower)
        assert caught.value is failure
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1, "the shared traceback does not grow"
    assert not engine.commits


@pytest.mark.parametrize("raised", [StopAsyncIteration(), asyncio.CancelledError()])
async def test_what_an_engine_raises_never_passes_for_an_end_or_for_the_callers_own_cancellation(
    raised: BaseException,
) -> None:
    class Odd:
        def __aiter__(self) -> Odd:
            return self

        async def __anext__(self) -> bytes:
            raise asyncio.CancelledError

    def start() -> AsyncIterator[bytes]:
        if isinstance(raised, StopAsyncIteration):
            raise raised
        return Odd()

    follower, _ = flights_of().join("k", start)
    with pytest.raises((RuntimeError, Stopped)):
        await anext(follower)


async def test_the_commit_comes_before_the_end_and_its_failure_spoils_nothing() -> None:
    flights, engine = flights_of(), Engine()
    seen: list[str] = []

    def commit(frames: tuple[bytes, ...], cost_ms: float, epochs: Epochs) -> None:
        seen.append("commit")
        raise OSError("disk full")

    follower, _ = flights.join("k", engine.run, commit=commit)
    await settle()
    engine.steps.put_nowait(b"one")
    engine.steps.put_nowait(None)
    assert [frame async for frame in follower] == [b"one"]
    seen.append("end")
    assert seen == ["commit", "end"]
    assert flights.commit_errors == 1


async def test_cost_is_the_time_of_the_computation() -> None:
    now = [10.0]
    flights: Flights[str] = Flights(max_bytes=1000, now=lambda: now[0])
    engine = Engine()
    follower, _ = flights.join("k", engine.run)
    await settle()
    now[0] = 10.25
    engine.steps.put_nowait(None)
    assert follower.cost_ms == 0
    assert [frame async for frame in follower] == []
    assert follower.cost_ms == 250


async def test_what_another_tier_has_reaches_all_and_runs_nothing() -> None:
    flights, engine = flights_of(), Engine()
    entry = Entry((b"one", b"two"), cost_ms=1.0, created=0.0)
    answer: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
    looked = 0

    async def find() -> Entry | None:
        nonlocal looked
        looked += 1
        return await answer

    followers = [flights.join("k", engine.run, find=find, commit=engine.commit)[0] for _ in range(3)]
    found = [asyncio.create_task(follower.found()) for follower in followers]
    await settle()
    found[0].cancel()
    await settle()
    answer.set_result(entry)
    assert await found[1] is entry
    assert await found[2] is entry
    assert [frame async for frame in followers[2]] == [b"one", b"two"]
    assert (looked, engine.runs, engine.commits) == (1, 0, [])


async def test_tags_are_those_of_all_who_joined_at_the_epoch_read_first() -> None:
    flights, engine = flights_of(), Engine()
    caller = Caller(flights.join("k", engine.run, commit=engine.commit, epochs=Epochs((("a", 1),)))[0])
    flights.join("k", engine.run, epochs=Epochs((("a", 2), ("b", 7))))
    await settle()
    engine.steps.put_nowait(b"one")
    engine.steps.put_nowait(None)
    await caller.task
    assert engine.commits == [((b"one",), Epochs((("a", 1), ("b", 7))))]


async def test_a_fresh_flight_takes_the_place_of_the_one_that_runs() -> None:
    flights, old, new = flights_of(), Engine(), Engine()
    first = Caller(flights.join("k", old.run, commit=old.commit)[0])
    fresh, leads = flights.join("k", new.run, commit=new.commit, fresh=True)
    assert leads
    second = Caller(fresh)
    third = Caller(flights.join("k", old.run)[0])
    await settle()
    for engine, frame in ((new, b"new"), (old, b"old")):
        engine.steps.put_nowait(frame)
        engine.steps.put_nowait(None)
    await asyncio.gather(first.task, second.task, third.task)
    assert (first.got, second.got, third.got) == ([b"old"], [b"new"], [b"new"])
    assert (len(new.commits), len(old.commits)) == (1, 0)


async def test_a_private_flight_is_joined_by_nobody_but_may_follow() -> None:
    flights, engine, other = flights_of(), Engine(), Engine()
    alone, leads = flights.join("k", engine.run, shared=False)
    shared, leads_too = flights.join("k", other.run)
    _, follows = flights.join("k", engine.run, shared=False)
    assert (leads, leads_too, follows) == (True, True, False)
    assert len(flights) == 2
    alone.leave()
    shared.leave()


async def test_a_grounded_flight_gives_its_answer_but_is_not_committed_or_joined() -> None:
    flights, engine = flights_of(), Engine()
    caller = Caller(flights.join("k", engine.run, commit=engine.commit)[0])
    await settle()
    steps = engine.steps
    assert flights.ground(lambda flight: flight.key == "other") == 0
    assert flights.ground(lambda flight: flight.key == "k") == 1
    late, leads = flights.join("k", engine.run)
    assert leads
    late.leave()
    steps.put_nowait(b"one")
    steps.put_nowait(None)
    await caller.task
    assert (caller.got, engine.commits) == ([b"one"], [])


async def test_closing_stops_all_even_what_has_not_begun() -> None:
    flights, engine = flights_of(), Engine()
    running = flights.join("a", engine.run)[0]
    await settle()
    unbegun = flights.join("b", engine.run)[0]
    await flights.aclose()
    for follower in (running, unbegun):
        with pytest.raises(Stopped):
            await anext(follower)
    assert engine.cancelled == 1


# Above the cap. Frames weigh 100 each, and the cap is three of them.

FRAMES = [bytes([n]) * (100 - FRAME_OVERHEAD) for n in range(12)]


async def test_above_the_cap_nobody_joins_and_nothing_is_committed_but_all_is_sent() -> None:
    flights, engine = flights_of(300), Engine()
    callers = [Caller(flights.join("k", engine.run, commit=engine.commit)[0]) for _ in range(2)]
    await settle()
    for frame in FRAMES[:4]:
        engine.steps.put_nowait(frame)
        await settle()
    late, leads = flights.join("k", Engine().run)
    assert leads
    late.leave()
    for step in [*FRAMES[4:], None]:
        engine.steps.put_nowait(step)
    for caller in callers:
        assert await caller.task == "end"
        assert caller.got == FRAMES
    assert engine.commits == []


async def test_a_lone_slow_reader_holds_the_engine_back_and_loses_nothing() -> None:
    flights, engine = flights_of(300), Engine()
    follower, _ = flights.join("k", engine.run)
    await settle()
    for step in [*FRAMES, None]:
        engine.steps.put_nowait(step)
    await settle()
    assert engine.steps.qsize() == len(FRAMES) + 1 - 5, "four frames are held, a fifth waits, the others are not made"
    assert [frame async for frame in follower] == FRAMES


async def test_a_slow_reader_is_cut_off_only_when_another_has_to_wait_for_it() -> None:
    flights, engine = flights_of(300), Engine()
    slow, _ = flights.join("k", engine.run)
    quick, _ = flights.join("k", engine.run)
    await settle()
    for frame in FRAMES[:5]:
        engine.steps.put_nowait(frame)
    await settle()
    assert [await anext(quick) for _ in range(4)] == FRAMES[:4]
    await settle()
    assert await anext(slow) == FRAMES[0], "the quick one has not asked for more yet"
    assert await anext(quick) == FRAMES[4]
    rest = Caller(quick)
    engine.steps.put_nowait(FRAMES[5])
    await settle()
    with pytest.raises(TooSlow):
        await anext(slow)
    for step in [*FRAMES[6:], None]:
        engine.steps.put_nowait(step)
    assert await rest.task == "end"
    assert rest.got == FRAMES[5:]


async def test_one_huge_last_frame_cuts_off_nobody() -> None:
    flights, engine = flights_of(300), Engine()
    slow, _ = flights.join("k", engine.run)
    quick = Caller(flights.join("k", engine.run)[0])
    await settle()
    engine.steps.put_nowait(bytes(5000))
    await settle()
    engine.steps.put_nowait(None)
    assert await quick.task == "end"
    assert [frame async for frame in slow] == [bytes(5000)]


async def test_the_engine_goes_on_when_the_reader_it_waits_for_leaves() -> None:
    flights, engine = flights_of(300), Engine()
    slow, _ = flights.join("k", engine.run)
    steady, _ = flights.join("k", engine.run)
    await settle()
    for step in [*FRAMES, None]:
        engine.steps.put_nowait(step)
    await settle()
    for _ in range(3):
        await anext(steady)
    slow.leave()
    assert [frame async for frame in steady] == FRAMES[3:]


async def test_cancelling_while_the_engine_waits_for_room_closes_it() -> None:
    flights, engine = flights_of(300), Engine()
    follower, _ = flights.join("k", engine.run)
    await settle()
    for frame in FRAMES:
        engine.steps.put_nowait(frame)
    await settle()
    follower.leave()
    await settle()
    assert (engine.closed, len(flights)) == (1, 0)


async def test_an_engine_that_ignores_its_cancellation_ends_without_being_committed() -> None:
    flights, commits = flights_of(300), []
    begun, go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> AsyncIterator[bytes]:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await go.wait()
        for frame in FRAMES:
            yield frame

    follower, _ = flights.join("k", stubborn, commit=lambda *commit: commits.append(commit))
    await begun.wait()
    follower.leave()
    await settle()
    assert (commits, len(flights)) == ([], 0)
