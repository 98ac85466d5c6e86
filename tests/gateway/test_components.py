"""Components: mels that are kept between the models, for whom, for how long, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import urllib.request
from array import array
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np
import onnxruntime as ort
import pytest

from cache_tiers.epochs import LocalEpochs
from cache_tiers.events import tenant_tag
from cache_tiers.pages import PagedMemory
from cache_tiers.policy.lfu import LfuPolicy
from gateway import app, wire
from gateway.components import CallComponents, ComponentCache
from gateway.keys import Keys
from gateway.settings import SettingsError
from models.load import Encoders, Served, load_engines
from models.pages import DevicePages
from models.registry.slots import KNOWN
from models.registry.store import Registry
from models.synthesizer import AcousticModel
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc
from tests.cache_tiers.conftest import until
from tests.gateway.rig import Status, say, settings
from tests.models.versions import folder

PAGE = 4096
CPU = ("CPUExecutionProvider",)
KEYS = Keys(bytes(range(32)))


def tensor(pages: float = 1.0, fill: float = 1.0) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(np.full((1, 1, int(pages * PAGE / 4)), fill, np.float32))


class Bench:
    """A cache of components on the host, and its clock, epochs and calls."""

    def __init__(self, pool: ThreadPoolExecutor, pages: int = 16) -> None:
        self.now, self.hearing = 1000.0, True
        self.epochs = LocalEpochs()
        self.pages = DevicePages(pages * PAGE, PAGE)
        self.memory = PagedMemory(self.pages)
        self.cache = ComponentCache(
            self.memory, "cpu", LfuPolicy, self.epochs, pool, clock=lambda: self.now, keeping=lambda: self.hearing
        )
        self.total = pages * PAGE

    def call(self, tenant: str = "acme", maker: str = "m1", tags: tuple[str, ...] = (), **control: Any) -> Any:
        return self.cache.of_call(KEYS.of(tenant), maker, tags, wire.Control(**control))


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(2) as pool:
        yield Bench(pool)


def values(found: ort.OrtValue | None) -> float | None:
    return None if found is None else float(found.numpy()[0, 0, 0])


async def test_what_is_kept_is_found_by_its_name_and_its_tenant_alone(bench: Bench) -> None:
    await bench.call().keep_now(b"a", tensor(1.5, 7.0), 12.0)
    found = await bench.call().find(b"a")
    np.testing.assert_array_equal(found.numpy(), np.full((1, 1, 1536), 7.0, np.float32))
    assert await bench.call().find(b"b") is None
    assert await bench.call(tenant="beta").find(b"a") is None
    stats = bench.cache.stats
    assert (stats.hits, stats.misses, stats.kept, stats.saved_ms) == (1, 2, 1, 12.0)
    assert bench.memory.free_bytes == bench.total - 2 * PAGE


async def test_keeping_does_not_hold_up_who_keeps(bench: Bench) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def slow(pages: array[int], value: ort.OrtValue) -> tuple[int, ...]:
        writing.set()
        assert go_on.wait(30)
        return (1, 1, 1)

    with mock.patch.object(bench.pages, "write", slow):
        await bench.call().keep(b"a", tensor(), 1.0)
        await asyncio.to_thread(writing.wait, 30)
        assert bench.cache.stats.kept == 0
        go_on.set()
        await until(lambda: bench.cache.stats.kept == 1)


async def test_requests_get_the_memory_they_ask_for(bench: Bench) -> None:
    assert bench.call(mode=wire.Mode.BYPASS) is None
    await bench.call(no_store=True).keep_now(b"a", tensor(), 1.0)
    await bench.call(ttl_s=0.0).keep_now(b"a", tensor(), 1.0)
    assert bench.cache.stats.kept == 0
    await bench.call(ttl_s=60.0).keep_now(b"a", tensor(), 1.0)
    assert values(await bench.call(no_store=True).find(b"a")) == 1.0
    assert await bench.call(mode=wire.Mode.REFRESH).find(b"a") is None
    await bench.call(mode=wire.Mode.REFRESH, ttl_s=60.0).keep_now(b"a", tensor(fill=2.0), 1.0)
    bench.now += 50.0
    assert values(await bench.call(max_age_s=50.0).find(b"a")) == 2.0
    assert await bench.call(max_age_s=49.0).find(b"a") is None
    bench.now += 10.0
    assert await bench.call().find(b"a") is None, "its time to live is over"
    assert bench.memory.free_bytes == bench.total


async def test_what_is_erased_while_it_is_made_is_not_kept(bench: Bench) -> None:
    of_subject, of_tenant, of_other = (bench.call(tags=(tag,)) for tag in ("s1", "s2", "s3"))
    bench.epochs.bump("s1")
    await of_subject.keep_now(b"a", tensor(), 1.0)
    await of_other.keep_now(b"b", tensor(), 1.0)
    bench.epochs.bump(tenant_tag("acme"))
    await of_tenant.keep_now(b"c", tensor(), 1.0)
    bench.hearing = False
    await bench.call().keep_now(b"d", tensor(), 1.0)
    bench.hearing = True
    found = [values(await bench.call().find(name)) for name in (b"a", b"b", b"c", b"d")]
    assert found == [None, 1.0, None, None]
    assert bench.cache.stats.refused == 3
    assert bench.cache.tier.drop_tag("s3") == 1
    assert bench.memory.free_bytes == bench.total


async def test_mels_of_a_model_that_has_gone_go_too(bench: Bench) -> None:
    await bench.call(maker="m1").keep_now(b"a", tensor(), 1.0)
    await bench.call(maker="m2").keep_now(b"b", tensor(), 1.0)
    bench.cache.served_by({"m2", ""})
    assert await bench.call().find(b"a") is None
    assert values(await bench.call().find(b"b")) == 1.0
    assert bench.cache.makers == {"m2"}


async def test_more_than_there_is_room_for_is_evicted_or_refused(bench: Bench) -> None:
    for n in range(20):
        await bench.call().keep_now(bytes([n]), tensor(3), 1.0)
    assert bench.cache.stats.kept == 20
    assert bench.cache.tier.stats.bytes <= bench.cache.capacity == 14 * PAGE
    await bench.call().keep_now(b"large", tensor(15), 1.0)
    await bench.call().keep_now(b"huge", tensor(17), 1.0)
    assert bench.cache.stats.refused == 2
    bench.cache.tier.drop_where(lambda _: True)
    assert bench.memory.free_bytes == bench.total


async def test_pages_are_not_freed_before_the_thread_that_reads_them_has_done(bench: Bench) -> None:
    await bench.call().keep_now(b"a", tensor(), 1.0)
    reading, go_on = threading.Event(), threading.Event()

    def slow(pages: array[int], shape: tuple[int, ...]) -> ort.OrtValue:
        reading.set()
        assert go_on.wait(30)
        return read(pages, shape)

    read = bench.pages.read
    with mock.patch.object(bench.pages, "read", slow):
        finding = asyncio.create_task(bench.call().find(b"a"))
        await asyncio.to_thread(reading.wait, 30)
        bench.cache.tier.drop_where(lambda _: True)
        finding.cancel()
        await asyncio.gather(finding, return_exceptions=True)
        assert bench.cache.tier.stats.leased_bytes == PAGE
        assert bench.memory.free_bytes == bench.total - PAGE
        go_on.set()
        await until(lambda: bench.memory.free_bytes == bench.total)
    assert bench.cache.tier.stats.abandoned == 0


async def test_pages_are_not_freed_before_the_thread_that_writes_them_has_done(bench: Bench) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def slow(pages: array[int], value: ort.OrtValue) -> tuple[int, ...]:
        writing.set()
        assert go_on.wait(30)
        return (1, 1, 1)

    with mock.patch.object(bench.pages, "write", slow):
        keeping = asyncio.create_task(bench.call().keep_now(b"a", tensor(), 1.0))
        await asyncio.to_thread(writing.wait, 30)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert bench.memory.free_bytes == bench.total - PAGE
        go_on.set()
        await until(lambda: bench.memory.free_bytes == bench.total)
    assert await bench.call().find(b"a") is None


async def test_a_device_that_fails_is_a_miss(bench: Bench) -> None:
    await bench.call().keep_now(b"a", tensor(), 1.0)
    with mock.patch.object(bench.pages, "read", side_effect=RuntimeError("the device is gone")):
        assert await bench.call().find(b"a") is None
    with mock.patch.object(bench.pages, "write", side_effect=RuntimeError("the device is gone")):
        await bench.call().keep_now(b"b", tensor(), 1.0)
    await bench.call().keep_now(b"c", tensor(0), 1.0)  # nothing is no tensor
    stats = bench.cache.stats
    assert (stats.hits, stats.misses, stats.failures) == (0, 0, 3)
    assert values(await bench.call().find(b"a")) == 1.0
    assert bench.memory.free_bytes == bench.total - PAGE


# --------------------------------------------------------------------------------- a gateway with the shipped models


TEXT = "Your taxi is on its way, and it will be there soon."
CONTROL = speech_pb2.CacheControl


class Rig:
    def __init__(self, running: app.Running, channel: grpc.aio.Channel, runs: mock.Mock) -> None:
        self.running, self.runs = running, runs
        self.speech: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]
        self.admin: Any = cache_pb2_grpc.CacheAdminStub(channel)  # type: ignore[no-untyped-call]

    async def say(self, text: str = TEXT, **fields: Any) -> tuple[bytes, int]:
        """The audio, and how many mels were made for it."""
        before = self.runs.call_count
        answer = await self.speech.Synthesize(say(text, **fields))
        assert answer.cache_info.status in (Status.MISS, Status.BYPASS)
        return answer.audio_content, self.runs.call_count - before

    async def stream(self, text: str = TEXT) -> tuple[bytes, int]:
        """As `say`, of a caller who hears it as it is made."""
        before = self.runs.call_count
        config, said = {"streaming_config": {}}, {"input": {"text": text}}
        sent = [speech_pb2.StreamingSynthesizeRequest(**one) for one in (config, said)]
        heard = [answer.audio_content async for answer in self.speech.StreamingSynthesize(iter(sent))]
        return b"".join(heard), self.runs.call_count - before


@pytest.fixture(scope="module")
def shipped() -> Served:
    with ThreadPoolExecutor(1) as pool:
        loaded = load_engines(None, CPU, 1, pool).loaded
    return Served({}, loaded={key: model for key, model in loaded.items() if key[0] in KNOWN})


@contextlib.asynccontextmanager
async def gateway(tmp_path: Path, shipped: Served, **tables: Any) -> AsyncIterator[Rig]:
    made = AcousticModel.on_device

    def load(models_dir: Any, providers: Any, threads: int, pool: Any, keys: Any, before: Any) -> Served:
        return load_engines(models_dir, CPU, threads, pool, keys, before or shipped)

    with (
        mock.patch.object(app, "load_engines", load),
        mock.patch.object(app, "load_encoders", return_value=Encoders()),
        mock.patch.object(AcousticModel, "on_device", autospec=True, side_effect=made) as runs,
        mock.patch.object(CallComponents, "keep", CallComponents.keep_now),  # what follows may count on it
    ):
        async with (
            app.running(settings(tmp_path, **tables)) as running,
            grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
        ):
            yield Rig(running, channel, runs)


FORMS: tuple[dict[str, Any], ...] = (
    {"audio_encoding": "LINEAR16"},
    {"audio_encoding": "MULAW", "sample_rate_hertz": 8_000},
    {"audio_encoding": "OGG_OPUS"},
    {"audio_encoding": "LINEAR16", "sample_rate_hertz": 16_000},
)


async def test_another_encoding_or_rate_runs_no_acoustic_model_and_sounds_the_same(
    tmp_path: Path, shipped: Served
) -> None:
    async with gateway(tmp_path / "off", shipped, device={"components": 0}) as rig:
        without = [await rig.say(audio_config=form) for form in FORMS]
        assert [made for _, made in without] == [2, 2, 2, 2]
    async with gateway(tmp_path / "on", shipped) as rig:
        remembered = [await rig.say(audio_config=form) for form in FORMS]
        assert [made for _, made in remembered] == [2, 0, 0, 0]
        assert [audio for audio, _ in remembered] == [audio for audio, _ in without]
        streamed, made = await rig.stream()
        assert made == 0
        whole = np.frombuffer(without[0][0], "<i2").astype(int)
        assert np.abs(np.frombuffer(streamed, "<i2").astype(int) - whole).max() <= 4, "1e-4 of full scale"
        assert (await rig.say("Your taxi is on its way. Goodbye."))[1] == 1, "a clause is the same in another text"
        tiers = {tier.name: tier for tier in (await rig.admin.GetStats(cache_pb2.GetStatsRequest())).tiers}
        assert tiers["components"].entries == 3
        assert 0 < tiers["components"].bytes < tiers["components"].capacity_bytes


async def test_a_new_vocoder_speaks_the_mels_that_are_there(tmp_path: Path, shipped: Served) -> None:
    registry = Registry(tmp_path / "models")
    for version, gain in (("1", 0.1), ("2", 0.2)):
        registry.add(folder(tmp_path / "source" / version, version, gain=gain))
    registry.promote("tiny@1")
    async with gateway(tmp_path / "data", shipped, engines={"models_dir": registry.folder}) as rig:
        quiet, made = await rig.say()
        assert made == 2
        registry.promote("tiny@2")
        assert await rig.running.models.reload()
        loud, made = await rig.say()
        assert made == 0
        ratio = np.frombuffer(loud, "<i2")[2000:9000] / np.frombuffer(quiet, "<i2")[2000:9000]
        assert np.median(ratio) == pytest.approx(2.0, abs=0.02)


async def test_requests_and_erasures_reach_the_mels(tmp_path: Path, shipped: Served) -> None:
    async with gateway(tmp_path, shipped) as rig:
        pcm, mulaw, ogg, slow = ({"audio_config": form} for form in FORMS)
        assert (await rig.say(**pcm, cache_control={"no_store": True}))[1] == 2
        assert (await rig.say(**pcm, cache_control={"subject_id": "jo"}))[1] == 2
        assert (await rig.say(**mulaw, cache_control={"mode": CONTROL.BYPASS}))[1] == 2
        assert (await rig.say(**mulaw, cache_control={"mode": CONTROL.REFRESH}))[1] == 2
        assert (await rig.say(**ogg))[1] == 0
        await rig.admin.Erase(cache_pb2.EraseRequest(voice="slt"))
        assert (await rig.say(**pcm, cache_control={"subject_id": "jo"}))[1] == 2
        assert (await rig.say(**mulaw))[1] == 0
        await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="jo"))
        assert (await rig.say(**ogg))[1] == 2
        await rig.admin.Invalidate(cache_pb2.InvalidateRequest(everything=True))
        assert (await rig.say(**slow))[1] == 2


async def test_a_size_that_cannot_be_is_told_at_the_start(tmp_path: Path, shipped: Served) -> None:
    with pytest.raises(SettingsError, match=r"device\.components = 100: .* one page has 4096 bytes"):
        async with gateway(tmp_path / "small", shipped, device={"components": 100}):
            pass


async def test_a_device_without_room_for_mels_answers_without(
    tmp_path: Path, shipped: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path, shipped, device={"components": 1 << 50}) as rig:
        assert "nothing is kept between the models" in caplog.text
        assert [(await rig.say("Oh.", audio_config=form))[1] for form in FORMS[:2]] == [1, 1]


async def test_metrics_say_what_mels_were_good_for(tmp_path: Path, shipped: Served) -> None:
    async with gateway(tmp_path, shipped) as rig:
        for form in FORMS[:3]:
            await rig.say(audio_config=form)
        url = f"http://127.0.0.1:{rig.running.http_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=30).read().decode())
    rows = (line.rpartition(" ") for line in page.splitlines() if line[0] != "#")
    figures = {name: float(value) for name, _, value in rows}
    counted = {result: figures[f'refrain_components_total{{result="{result}"}}'] for result in ("hit", "miss", "kept")}
    assert counted == {"hit": 4, "miss": 2, "kept": 2}
    assert figures['refrain_tier_entries{tier="components"}'] == 2
    assert figures["refrain_components_saved_seconds_total"] > 0
