"""Work in the engines' threads that nobody waits for any more is broken off, and its thread is free for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from models.batching import Batcher
from models.threads import EngineThreads, run_options
from models.utterance import Samples
from models.vocoder import Vocoder
from tests.faults.models import HANGS, SINGS, mel, troubled_vocoder


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory: pytest.TempPathFactory) -> Vocoder:
    return Vocoder(troubled_vocoder(tmp_path_factory.mktemp("models") / "troubled"))


@pytest.fixture
def pool() -> Iterator[EngineThreads]:
    with EngineThreads(1) as pool:
        yield pool


async def sings(vocoder: Vocoder, pool: EngineThreads) -> bool:
    wave = await asyncio.get_running_loop().run_in_executor(pool, vocoder.wave, mel(SINGS))
    return bool(np.isfinite(wave).all())


async def test_a_run_that_does_not_end_gives_its_thread_back_when_it_is_cancelled(
    vocoder: Vocoder, pool: EngineThreads
) -> None:
    hanging = asyncio.get_running_loop().run_in_executor(pool, vocoder.wave, mel(HANGS))
    waiting = asyncio.create_task(sings(vocoder, pool))
    await asyncio.sleep(0)
    hanging.cancel()
    assert await waiting, "or it would wait for ever"


async def test_a_whole_chain_on_the_device_can_be_broken_off(vocoder: Vocoder, pool: EngineThreads) -> None:
    import onnxruntime as ort

    lying = ort.OrtValue.ortvalue_from_numpy(mel(HANGS)[None])
    hanging = asyncio.get_running_loop().run_in_executor(pool, vocoder.wave_of, lying)
    waiting = asyncio.create_task(sings(vocoder, pool))
    await asyncio.sleep(0)
    hanging.cancel()
    assert await waiting


async def test_a_batch_is_broken_off_when_the_last_of_its_callers_has_left(
    vocoder: Vocoder, pool: EngineThreads
) -> None:
    def work(mels: Sequence[Samples]) -> list[Samples]:
        return [vocoder.wave(each) for each in mels]

    batcher = Batcher(work, pool, runners=1, most=2, waiting=9, bucket=lambda size: 0, window_s=0.0)
    first = asyncio.create_task(batcher.run(mel(SINGS), 1))  # a batch of its own, while the others come together
    callers = [asyncio.create_task(batcher.run(mel(HANGS), 1)) for _ in range(2)]
    await first
    waiting = asyncio.create_task(batcher.run(mel(SINGS, seed=1), 1))
    await asyncio.sleep(0)
    callers[0].cancel()
    await asyncio.wait({callers[0]})
    assert not callers[1].done(), "somebody still waits for it"
    callers[1].cancel()
    assert len(await waiting)


def test_elsewhere_a_run_has_no_options() -> None:
    assert run_options() is None
