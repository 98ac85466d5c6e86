"""A version on trial beside the active one: who gets it, how it is told apart, and how it goes without a trace.

The vocoders are real graphs of a registry, whose waves are `gain` times the mel; the other models are the shipped ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import urllib.request
import weakref
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import grpc
import numpy as np
import pytest

from gateway import app
from gateway.engines import Engines, takes
from gateway.errors import BadField
from models.engine import Engine
from models.load import Canary, Encoders, Served, load_engines
from models.registry.slots import KNOWN
from models.registry.store import Registry
from models.utterance import MEL_BANDS
from models.vocoder import Vocoder, VocoderEngine
from protos.refrain.v1 import speech_pb2, speech_pb2_grpc
from tests.gateway.rig import Ear, Speaker, Status, gateway, hear, noise, settings
from tests.models.versions import folder

GAINS = {"1": 0.1, "2": 0.2, "3": 0.3}
CPU = ("CPUExecutionProvider",)
ACME, BETA = (("authorization", "Bearer a"),), (("authorization", "Bearer b"),)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """tiny 1, which is active, 2 and 3."""
    made = Registry(tmp_path / "models")
    for version, gain in GAINS.items():
        made.add(folder(tmp_path / "source" / version, version, gain=gain))
    made.promote("tiny@1")
    return made


@pytest.fixture(scope="module")
def shipped() -> Served:
    """The shipped models, loaded once for all gateways of this file; each makes its own engines of them."""
    with ThreadPoolExecutor(1) as pool:
        loaded = load_engines(None, CPU, 1, pool).loaded
    return Served({}, loaded={key: model for key, model in loaded.items() if key[0] in KNOWN})


class Rig:
    def __init__(self, running: app.Running, channel: grpc.aio.Channel) -> None:
        self.running = running
        self.speech: Any = speech_pb2_grpc.SpeechStub(channel)  # type: ignore[no-untyped-call]

    async def version(self, level: float, **how: Any) -> tuple[str, str]:
        """Which version made the wave of a mel of that level, and the status; `how` as `vocode`."""
        answer = await self.vocode(level, **how)
        gain = np.frombuffer(answer.audio_content, "<i2").mean() / 32_767 / level
        (version,) = [version for version, known in GAINS.items() if abs(known - gain) < 0.01]
        return version, Status.Status.Name(answer.cache_info.status)

    async def vocode(self, level: float, model: str = "", tenant: Any = None, mode: int = 0) -> Any:
        mel = {"data": np.full((MEL_BANDS, 3), level, "<f4").tobytes(), "bands": MEL_BANDS}
        request = speech_pb2.VocodeRequest(mel=mel, model=model, cache_control={"mode": mode})
        return await self.speech.Vocode(request, metadata=tenant)

    async def reload(self) -> bool:
        return await self.running.models.reload()

    async def metrics(self) -> dict[str, float]:
        url = f"http://127.0.0.1:{self.running.http_port}/metrics"
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=30).read().decode())
        lines = [line.rpartition(" ") for line in page.splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in lines}


@contextlib.asynccontextmanager
async def served(registry: Registry, shipped: Served, **tables: Any) -> AsyncIterator[Rig]:
    """A gateway on the registry."""

    def load(models_dir: Any, providers: Any, threads: int, pool: Any, keys: Any, before: Any) -> Served:
        return load_engines(models_dir, CPU, threads, pool, keys, before or shipped)

    assert registry.folder is not None
    how = settings(registry.folder.parent / "data", engines={"models_dir": registry.folder}, **tables)
    with (
        mock.patch.object(app, "load_engines", load),
        mock.patch.object(app, "load_encoders", return_value=Encoders()),
    ):
        async with (
            app.running(how) as running,
            grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
        ):
            yield Rig(running, channel)


# ------------------------------------------------------------------------------------------------------- the choice


@pytest.fixture
def engines(registry: Registry) -> Iterator[dict[str, Engine]]:
    with ThreadPoolExecutor(1) as pool:
        yield {version: VocoderEngine(Vocoder(registry.find(f"tiny@{version}").folder), pool) for version in GAINS}


DIGESTS = [number.to_bytes(32, "big") for number in range(20_000)]


@pytest.mark.parametrize("percent", [0.5, 5.0, 50.0, 97.0])
def test_the_share_is_as_large_as_it_is_said_to_be(engines: dict[str, Engine], percent: float) -> None:
    """Within five standard deviations of a binomial."""
    canary = Canary(engines["2"], percent)
    taken = sum(takes(canary, "acme", digest) for digest in DIGESTS)
    share, count = percent / 100, len(DIGESTS)
    assert abs(taken - share * count) < 5 * np.sqrt(count * share * (1 - share))


def test_the_choice_stands_and_a_larger_share_only_adds_to_it(engines: dict[str, Engine]) -> None:
    small, large = Canary(engines["2"], 5.0), Canary(engines["2"], 20.0)
    taken = {digest for digest in DIGESTS if takes(small, "acme", digest)}
    assert taken == {digest for digest in DIGESTS if takes(small, "acme", digest)}
    assert taken < {digest for digest in DIGESTS if takes(large, "acme", digest)}
    assert not any(takes(Canary(engines["2"], 0.0), "acme", digest) for digest in DIGESTS)
    assert all(takes(Canary(engines["2"], 100.0), "acme", digest) for digest in DIGESTS)


def test_each_trial_and_each_tenant_has_guinea_pigs_of_its_own(engines: dict[str, Engine]) -> None:
    def taken(engine: Engine, tenant: str) -> set[bytes]:
        return {digest for digest in DIGESTS if takes(Canary(engine, 10.0), tenant, digest)}

    first, other_trial, other_tenant = (
        taken(engines["2"], "acme"), taken(engines["3"], "acme"), taken(engines["2"], "beta"),
    )  # fmt: skip
    for other in (other_trial, other_tenant):
        assert abs(len(first & other) - 0.01 * len(DIGESTS)) < 5 * np.sqrt(0.01 * len(DIGESTS))


def test_names_and_tenants_come_before_the_share(engines: dict[str, Engine]) -> None:
    active, other = engines["1"], engines["2"]
    made = Engines(
        Served(
            {"vocode": {"tiny": active}},
            {"vocode": {"tiny@1": active, "tiny@2": other}},
            {"vocode": Canary(other, 0.0, frozenset({"acme"}))},
        )
    )
    assert made.of("vocode", "", "beta", DIGESTS[0]) is active
    assert made.of("vocode", "", "acme", DIGESTS[0]) is other
    assert made.of("vocode", "tiny", "acme", DIGESTS[0]) is other
    assert made.of("vocode", "tiny@1", "acme", DIGESTS[0]) is active
    assert made.of("vocode", "tiny@2", "beta", DIGESTS[0]) is other
    assert made.names("vocode") == ("tiny", "tiny@1", "tiny@2")
    assert list(made) == [active, other]
    with pytest.raises(BadField, match=r"model is 'tiny@3': .*tiny, tiny@1, tiny@2"):
        made.of("vocode", "tiny@3", "acme", DIGESTS[0])


def test_a_model_of_another_name_gets_only_what_names_it_or_nothing(engines: dict[str, Engine], tmp_path: Path) -> None:
    """Who names the active model by name gets that, though a model of another name is on trial."""
    with ThreadPoolExecutor(1) as pool:
        other = VocoderEngine(Vocoder(folder(tmp_path / "other", name="other")), pool)
        made = Engines(
            Served({"vocode": {"tiny": engines["1"], "other": other}}, canaries={"vocode": Canary(other, 100.0)})
        )
        assert made.of("vocode", "", "acme", DIGESTS[0]) is other
        assert made.of("vocode", "other", "acme", DIGESTS[0]) is other
        assert made.of("vocode", "tiny", "acme", DIGESTS[0]) is engines["1"]


# ------------------------------------------------------------------------------------------------------ the gateway


async def test_a_share_of_the_requests_goes_to_the_canary_and_their_answers_lie_side_by_side(
    registry: Registry, shipped: Served
) -> None:
    registry.try_out("tiny@2", 50, [])
    levels = [-0.5 - 0.05 * n for n in range(40)]
    async with served(registry, shipped) as rig:
        first = [await rig.version(level) for level in levels]
        again = [await rig.version(level) for level in levels]
        at_once = [await rig.version(level) for level in levels]
        assert {status for _, status in first} == {"MISS"}
        assert {status for _, status in again + at_once} == {"HIT_EXACT"}
        versions = [version for version, _ in first]
        assert set(versions) == {"1", "2"}
        assert versions == [version for version, _ in again] == [version for version, _ in at_once]
        # Pinned, each version answers every request, and has kept what it had answered before.
        for version in ("1", "2"):
            pinned = [await rig.version(level, model=f"tiny@{version}") for level in levels]
            assert [made for made, _ in pinned] == [version] * len(levels)
            assert [status for _, status in pinned] == ["HIT_EXACT" if was == version else "MISS" for was in versions]
        assert await rig.version(levels[0], model="tiny") == (versions[0], "HIT_EXACT")
        with pytest.raises(grpc.aio.AioRpcError, match=r"model is 'tiny@3'.*tiny, tiny@1, tiny@2"):
            await rig.version(levels[0], model="tiny@3")
        models = (await rig.speech.ListModels(speech_pb2.ListModelsRequest())).models
        told = {tuple(model.versions): model.share for model in models if model.name == "tiny"}
        assert told == {("tiny@1",): 0.5, ("tiny@2",): 0.5}
        metrics = await rig.metrics()
        share = {
            version: sum(
                value for name, value in metrics.items()
                if name.startswith("refrain_engine_answers_total{") and f'models="tiny@{version}"' in name
            )
            for version in ("1", "2")
        }  # fmt: skip
        assert sum(share.values()) == 5 * len(levels) + 1
        took = "refrain_engine_compute_seconds_count{"
        runs = sum(value for name, value in metrics.items() if name.startswith(took) and "tiny@" in name)
        assert runs >= 2 * len(levels)


async def test_tenants_get_it_whole_and_others_not_at_all(registry: Registry, shipped: Served) -> None:
    registry.try_out("tiny@2", 0, ["acme"])
    async with served(registry, shipped, tokens={"a": "acme", "b": "beta"}) as rig:
        for level in (-1.0, -2.0, -3.0):
            assert await rig.version(level, tenant=ACME) == ("2", "MISS")
            assert await rig.version(level, tenant=BETA) == ("1", "MISS")


async def test_it_comes_and_goes_while_the_gateway_runs_and_nothing_stored_is_lost(
    registry: Registry, shipped: Served
) -> None:
    async with served(registry, shipped) as rig:
        assert [await rig.version(-1.0) for _ in range(3)] == [("1", "MISS"), ("1", "HIT_EXACT"), ("1", "HIT_EXACT")]
        registry.try_out("tiny@2", 100, [])
        assert await rig.reload()
        assert [await rig.version(-1.0) for _ in range(3)] == [("2", "MISS"), ("2", "HIT_EXACT"), ("2", "HIT_EXACT")]
        registry.roll_back("tiny")
        assert await rig.reload()
        assert await rig.version(-1.0) == ("1", "HIT_EXACT")
        registry.promote("tiny@2")
        assert await rig.reload()
        assert await rig.version(-1.0) == ("2", "HIT_EXACT")
        assert await rig.version(-1.0, model="tiny@2") == ("2", "HIT_EXACT")
        with pytest.raises(grpc.aio.AioRpcError, match="model is 'tiny@1'"):
            await rig.version(-1.0, model="tiny@1")
        registry.roll_back("tiny")
        assert await rig.reload()
        assert await rig.version(-1.0) == ("1", "HIT_EXACT")


async def test_a_changed_registry_is_noticed_without_being_told(
    registry: Registry, shipped: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.reload.LOOK_EVERY_S", 0.01)
    async with served(registry, shipped) as rig:
        models, reloads = rig.running.models, asyncio.Queue[bool]()
        reload = models.reload

        async def told() -> bool:
            reloads.put_nowait(await reload())
            return True

        monkeypatch.setattr(models, "reload", told)
        registry.promote("tiny@2")
        assert await reloads.get()
        assert await rig.version(-1.0) == ("2", "MISS")
        models.ask()  # what SIGHUP does
        assert await reloads.get()


async def test_requests_that_run_while_engines_change_all_end_well_and_each_with_one_version(
    registry: Registry, shipped: Served
) -> None:
    """The engine that an answer names is the one that made it, whatever served when it began and when it ended."""
    async with served(registry, shipped) as rig:
        of = {}
        for version in GAINS:
            registry.promote(f"tiny@{version}") if version != "1" else None
            assert await rig.reload()
            of[(await rig.vocode(-1.0)).cache_info.engine] = GAINS[version]
        old = weakref.ref(rig.running.models.engines.of("vocode"))

        async def call(number: int) -> None:
            level = -1.0 - number / 100
            answer = await rig.vocode(level, mode=speech_pb2.CacheControl.BYPASS)
            gain = np.frombuffer(answer.audio_content, "<i2").mean() / 32_767 / level
            assert gain == pytest.approx(of[answer.cache_info.engine], abs=0.01)

        calls = [asyncio.create_task(call(number)) for number in range(120)]
        for turn in range(6):
            registry.promote(f"tiny@{turn % 3 + 1}")
            assert await rig.reload()
        await asyncio.gather(*calls)
        registry.promote("tiny@1")
        assert await rig.reload()
        assert await rig.version(-1.0) == ("1", "HIT_EXACT")
        assert old() is None, "the sessions of what serves no more are let go"


async def test_an_answer_looked_for_before_engines_changed_is_not_the_next_ones(
    registry: Registry, shipped: Served
) -> None:
    """What a request is found by the next time is learned when it is answered; the key is from before."""
    async with served(registry, shipped, device={"size": 1_000}) as rig:  # too small: all comes from Redis
        assert await rig.version(-1.0) == ("1", "MISS")
        await rig.running.tier.drain()
        get, asked, told = rig.running.tier.get, asyncio.Event(), asyncio.Event()

        async def held(key: Any) -> Any:
            asked.set()
            await told.wait()
            return await get(key)

        with mock.patch.object(rig.running.tier, "get", held):
            early = asyncio.create_task(rig.version(-1.0))
            await asked.wait()
            registry.promote("tiny@2")
            assert await rig.reload()
            told.set()
            assert await early == ("1", "HIT_EXACT")
        assert await rig.version(-1.0) == ("2", "MISS")


async def test_a_registry_that_cannot_be_used_changes_nothing(
    registry: Registry, shipped: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(registry, shipped) as rig:
        new = registry.promote("tiny@2")
        data = (new.folder / "model.onnx").read_bytes()
        (new.folder / "model.onnx").write_bytes(data[:-1])
        assert not await rig.reload()
        assert await rig.version(-1.0) == ("1", "MISS")
        assert "tiny/2/model.onnx: sha256 is" in caplog.text
        found = await rig.metrics()
        assert found['refrain_model_reloads_total{result="refused"}'] == 1
        assert found['refrain_model_reloads_total{result="done"}'] == 0
        (new.folder / "model.onnx").write_bytes(data)
        assert await rig.reload()
        assert await rig.version(-1.0) == ("2", "MISS")


async def test_a_gateway_does_not_start_with_a_version_that_is_off(registry: Registry, shipped: Served) -> None:
    (registry.find("tiny@1").folder / "model.onnx").write_bytes(b"")
    with pytest.raises(Exception, match=r"tiny/1/model\.onnx: sha256 is"):
        async with served(registry, shipped):
            pass


async def test_a_stream_with_interim_results_ends_on_the_engine_it_began_with(tmp_path: Path) -> None:
    """Its final words are stored under the engine that heard them, though another took over meanwhile."""

    class Second(Ear):
        name = "second-ear"

    async with gateway(tmp_path) as rig:
        second = Second()
        before = {"recognize": {rig.ear.info.name: rig.ear}, "synthesize": {rig.speaker.info.name: rig.speaker}}
        after = Served(
            {**before, "vocode": {rig.singer.info.name: rig.singer}, "recognize": {second.info.name: second}}  # type: ignore[dict-item]
        )
        sound = noise(1.0)
        whole = hear(sound)
        asked: asyncio.Queue[Any] = asyncio.Queue()

        async def messages() -> AsyncIterator[Any]:
            config = speech_pb2.StreamingRecognitionConfig(config=whole.config, interim_results=True)
            yield speech_pb2.StreamingRecognizeRequest(streaming_config=config)
            yield speech_pb2.StreamingRecognizeRequest(audio=whole.content[: len(whole.content) // 2])
            await asked.get()
            yield speech_pb2.StreamingRecognizeRequest(audio=whole.content[len(whole.content) // 2 :])

        call = rig.speech.StreamingRecognize(messages())
        answers = aiter(call)
        responses = [await anext(answers)]
        with mock.patch.object(app, "load_engines", return_value=after):
            assert await rig.running.models.reload()
        asked.put_nowait(None)
        responses += [response async for response in answers]
        info = responses[-1].cache_info
        assert (info.engine, info.status) == (rig.ear.info.identity, Status.MISS)
        assert (rig.ear.runs, second.runs) == (1, 0)
        answer = await rig.speech.Recognize(whole)
        assert (answer.cache_info.engine, answer.cache_info.status) == (second.info.identity, Status.MISS)


async def test_a_stream_whose_mood_leaves_with_its_engine_is_told_so(tmp_path: Path) -> None:
    class Second(Speaker):
        name = "second-speaker"

    async with gateway(tmp_path) as rig:
        second = Second()
        second.info = dataclasses.replace(second.info, emotions=("neutral",))
        engines = {"recognize": rig.ear, "synthesize": second, "vocode": rig.singer}
        after = Served({task: {engine.info.name: engine} for task, engine in engines.items()})
        asked: asyncio.Queue[Any] = asyncio.Queue()

        async def messages() -> AsyncIterator[Any]:
            config = speech_pb2.StreamingSynthesizeConfig(voice={"emotion": "cheerful"})
            yield speech_pb2.StreamingSynthesizeRequest(streaming_config=config)
            yield speech_pb2.StreamingSynthesizeRequest(input={"text": "Hello there. "})
            await asked.get()
            yield speech_pb2.StreamingSynthesizeRequest(input={"text": "Goodbye."})

        call = rig.speech.StreamingSynthesize(messages())
        while not (await call.read()).HasField("cache_info"):
            pass
        with mock.patch.object(app, "load_engines", return_value=after):
            assert await rig.running.models.reload()
        asked.put_nowait(None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details() == "voice.emotion is 'cheerful'; allowed: neutral"
        assert second.runs == 0
