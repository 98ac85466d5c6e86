"""Inputs of tenants that consent are kept, sealed, within their bounds, and gone when they have to be."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio

from cache_tiers.entry import CacheKey
from cache_tiers.epochs import LocalEpochs
from cache_tiers.events import tenant_tag
from cache_tiers.link import RedisLink, Unavailable
from cache_tiers.sealed import Foreign, Keyring, Tampered
from gateway import recorder as recorder_module
from gateway import wire
from gateway.audio import Encoding, Output
from gateway.input_files import Kept, Walk, body_of, input_files, walk
from gateway.input_folder import PARTS
from gateway.keys import KeyFields, Keys
from gateway.recorder import Recorder
from gateway.settings import SettingsError, load
from gateway.tasks import RECOGNIZE, SYNTHESIZE, VOCODE
from gateway.trace import read_trace
from gateway.wire.recorded import RECORDED, recorded_of
from protos.refrain.v1 import cache_pb2, speech_pb2
from tests.cache_tiers.conftest import Server, until
from tests.gateway.rig import Rig, gateway, hear, noise, say

CONSENT = {"default": {"record_inputs": True}}
MASTER = bytes(range(32))


def kept(folder: Path) -> list[Kept]:
    """All records of the folder."""
    return [one for path in input_files(folder) for one in walk(path, Walk())]


def strange(folder: Path) -> tuple[int, int, int]:
    """How many in the folder are damaged, torn and erased."""
    walks = [Walk() for _ in input_files(folder)]
    for path, walked in zip(input_files(folder), walks, strict=True):
        list(walk(path, walked))
    return sum(one.damaged for one in walks), sum(one.torn for one in walks), sum(one.erased for one in walks)


async def opened(one: Kept, keyring: Keyring) -> bytes:
    return await keyring.open(CacheKey(one.head.tenant, one.raw), b"i", body_of(one))


async def written(folder: Path, count: int) -> list[Kept]:
    """The folder's records once there are so many."""
    await until(lambda: len(kept(folder)) >= count)
    return kept(folder)


# A gateway that records.


async def test_without_consent_nothing_is_kept(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants={"default": {}}) as rig:
        await rig.speech.Synthesize(say("Keep this to yourself."))
    assert not (tmp_path / "inputs").exists()


async def test_what_a_caller_forbids_to_store_is_not_kept(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants=CONSENT) as rig:
        await rig.speech.Synthesize(say("Not this.", cache_control={"no_store": True}))
        await rig.speech.Synthesize(say("Nor this.", cache_control={"mode": "BYPASS"}))
        await rig.speech.Synthesize(say("But this."))
    assert len(kept(tmp_path / "inputs")) == 1


async def test_what_was_asked_is_kept_sealed_once_and_found_by_the_trace(tmp_path: Path) -> None:
    spoken = say(
        "Nobody reads this.", voice={"name": "bert", "emotion": "cheerful"}, audio_config={"audio_encoding": 2}
    )
    spoken.cache_control.mode = speech_pb2.CacheControl.REFRESH
    heard = hear(noise(0.6))
    async with gateway(tmp_path, tenants=CONSENT) as rig:
        for _ in range(3):
            await rig.speech.Synthesize(spoken)
            await rig.speech.Recognize(heard)
        records = await written(tmp_path / "inputs", 2)
        link = RedisLink(f"unix://{tmp_path}/redis/run/redis.sock", deadline=5.0)
        keyring = Keyring(link, [bytes.fromhex((tmp_path / "master.key").read_text())])
        found = {one.head.digest: await opened(one, keyring) for one in records}
        await link.aclose()
    assert len(records) == 2
    digests = {record.digest for record in read_trace(tmp_path / "trace")}
    assert digests == set(found)
    spoken.cache_control.mode = speech_pb2.CacheControl.DEFAULT  # was that call's own
    tasks = {one.head.task: found[one.head.digest] for one in records}
    assert speech_pb2.SynthesizeRequest.FromString(tasks["synthesize"]) == spoken
    assert tasks["recognize"] == heard.SerializeToString()
    on_disk = b"".join(path.read_bytes() for path in input_files(tmp_path / "inputs"))
    assert b"Nobody" not in on_disk
    assert heard.content[100:200] not in on_disk
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in input_files(tmp_path / "inputs"))


async def test_a_stream_is_kept_as_the_whole_request_it_amounts_to(tmp_path: Path) -> None:
    pcm = hear(noise(0.6, seed=3)).content
    config = {"explicit_decoding_config": {"encoding": 1, "sample_rate_hertz": 16_000}}
    config["features"] = {"enable_word_confidence": True}

    async def sound() -> AsyncIterator[Any]:
        yield speech_pb2.StreamingRecognizeRequest(streaming_config={"config": config})
        for at in range(0, len(pcm), 4000):
            yield speech_pb2.StreamingRecognizeRequest(audio=pcm[at : at + 4000])

    async def text() -> AsyncIterator[Any]:
        chosen = {"voice": {"name": "bert"}, "audio_config": {"audio_encoding": 4, "speaking_rate": 1.25}}
        yield speech_pb2.StreamingSynthesizeRequest(streaming_config=chosen)
        for piece in ("One sen", "tence. And ano", "ther."):
            yield speech_pb2.StreamingSynthesizeRequest(input={"text": piece})

    async with gateway(tmp_path, tenants=CONSENT) as rig:
        async for _ in rig.speech.StreamingRecognize(sound()):
            pass
        async for _ in rig.speech.StreamingSynthesize(text()):
            pass
        records = await written(tmp_path / "inputs", 3)
        assert all(one.head.streamed for one in records)
        link = RedisLink(f"unix://{tmp_path}/redis/run/redis.sock", deadline=5.0)
        keyring = Keyring(link, [bytes.fromhex((tmp_path / "master.key").read_text())])
        found = [(one.head.task, await opened(one, keyring)) for one in records]
        await link.aclose()
        (whole,) = (speech_pb2.RecognizeRequest.FromString(data) for task, data in found if task == "recognize")
        assert whole.content == pcm
        assert (await rig.speech.Recognize(whole)).cache_info.status == speech_pb2.CacheInfo.HIT_EXACT
    said = [speech_pb2.SynthesizeRequest.FromString(data) for task, data in found if task == "synthesize"]
    assert [one.input.text for one in said] == ["One sentence.", "And another."]
    assert {(one.voice.name, one.audio_config.audio_encoding, one.audio_config.speaking_rate) for one in said} == {
        ("bert", 4, 1.25)
    }


async def test_only_who_consents_is_recorded_and_withdrawing_consent_erases(tmp_path: Path) -> None:
    tokens = {"one": "alpha", "two": "beta", "three": "gamma"}
    consent = {"alpha": {"record_inputs": True}, "beta": {"record_inputs": True}}

    async def ask(rig: Rig) -> None:
        for token in tokens:
            metadata = (("authorization", f"Bearer {token}"),)
            await rig.speech.Synthesize(say(f"Of {token}."), metadata=metadata)

    async with gateway(tmp_path, tokens=tokens, tenants=consent) as rig:
        await ask(rig)
    assert {one.head.tenant for one in kept(tmp_path / "inputs")} == {"alpha", "beta"}
    async with gateway(tmp_path, tokens=tokens, tenants={"alpha": {"record_inputs": True}}):
        await until(lambda: {one.head.tenant for one in kept(tmp_path / "inputs")} == {"alpha"})
    async with gateway(tmp_path, tokens=tokens):
        assert not input_files(tmp_path / "inputs")


async def test_erasing_a_subject_or_a_voice_overwrites_what_came_of_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants=CONSENT) as rig:
        await rig.speech.Synthesize(say("Mine.", cache_control={"subject_id": "jo"}, voice={"name": "anna"}))
        await rig.speech.Synthesize(say("Yours.", cache_control={"subject_id": "al"}, voice={"name": "bert"}))
        await rig.speech.Synthesize(say("Nobody's.", voice={"name": "anna"}))
        before = await written(tmp_path / "inputs", 3)
        bodies = {one.head.digest: body_of(one) for one in before}
        await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="jo"))
        left = kept(tmp_path / "inputs")
        (gone,) = set(bodies) - {one.head.digest for one in left}
        assert len(left) == 2
        await rig.admin.Erase(cache_pb2.EraseRequest(voice="bert"))
        (last,) = kept(tmp_path / "inputs")
        on_disk = b"".join(path.read_bytes() for path in input_files(tmp_path / "inputs"))
        assert bodies[gone][22:60] not in on_disk
        assert gone.encode() not in on_disk
        assert bodies[last.head.digest] in on_disk
        await rig.speech.Synthesize(say("Mine.", cache_control={"subject_id": "jo"}, voice={"name": "anna"}))
        assert len(await written(tmp_path / "inputs", 2)) == 2  # asked again after it was erased: recorded again
    async with gateway(tmp_path, tenants=CONSENT):  # is told of all erasures anew: this one came after them
        assert len(kept(tmp_path / "inputs")) == 2


async def test_erasing_a_tenant_leaves_nothing_of_it_to_open_not_even_a_copy(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants=CONSENT) as rig:
        await rig.speech.Synthesize(say("All of it."))
        (one,) = await written(tmp_path / "inputs", 1)
        copied = body_of(one)
        await rig.admin.Invalidate(cache_pb2.InvalidateRequest(everything=True))
        assert kept(tmp_path / "inputs") == []
        link = RedisLink(f"unix://{tmp_path}/redis/run/redis.sock", deadline=5.0)
        keyring = Keyring(link, [bytes.fromhex((tmp_path / "master.key").read_text())])
        with pytest.raises(Foreign):
            await keyring.open(CacheKey("default", one.raw), b"i", copied)
        await link.aclose()


async def test_an_erasure_reaches_files_whose_gateway_is_gone(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants=CONSENT) as rig:
        await rig.speech.Synthesize(say("Before.", cache_control={"subject_id": "jo"}))
    assert len(kept(tmp_path / "inputs")) == 1
    async with gateway(tmp_path, tenants=CONSENT) as rig:
        await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="jo"))
        assert kept(tmp_path / "inputs") == []


async def test_two_gateways_on_one_folder_leave_each_other_whole(tmp_path: Path, redis_server: Server) -> None:
    inputs = {"path": str(tmp_path / "shared")}
    url = {"url": redis_server.url, "get_deadline": 1.0}
    for name in ("digest", "master"):
        key = tmp_path / f"{name}.key"
        key.write_text(MASTER.hex())
        key.chmod(0o600)
    keys = {name: str(tmp_path / f"{name}.key") for name in ("digest", "master")}
    common: dict[str, Any] = {"inputs": inputs, "redis": url, "keys": keys, "tenants": CONSENT}
    async with gateway(tmp_path / "a", **common) as one, gateway(tmp_path / "b", **common) as other:
        subject = {"subject_id": "jo"}
        for number in range(5):
            await one.speech.Synthesize(say(f"A {number}.", cache_control=subject))
            await other.speech.Synthesize(say(f"B {number}.", cache_control=subject if number else {}))
        assert len(await written(tmp_path / "shared", 10)) == 10
        assert len(input_files(tmp_path / "shared")) == 2
        await one.admin.Erase(cache_pb2.EraseRequest(subject_id="jo"))
        await other.speech.Synthesize(say("After."))
        assert len(await written(tmp_path / "shared", 2)) == 2
    assert len(kept(tmp_path / "shared")) == 2
    assert strange(tmp_path / "shared") == (0, 0, 9)


async def test_metrics_tell_what_is_recorded(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants=CONSENT) as rig:
        await rig.speech.Synthesize(say())
        await written(tmp_path / "inputs", 1)

        def page() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{rig.running.http_port}/metrics", timeout=10) as told:
                return str(told.read().decode())

        lines = (await asyncio.to_thread(page)).splitlines()
    assert "refrain_inputs_recorded_total 1.0" in lines
    assert 'refrain_inputs_dropped_total{reason="disk"} 0.0' in lines
    (size,) = (float(line.split()[1]) for line in lines if line.startswith("refrain_inputs_bytes "))
    assert size == sum(path.stat().st_size for path in input_files(tmp_path / "inputs"))


async def test_a_gateway_that_cannot_write_answers_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("no folder")
    async with gateway(tmp_path, inputs={"path": str(tmp_path / "taken")}, tenants=CONSENT) as rig:
        answer = await rig.speech.Synthesize(say())
        assert answer.audio_content
        with pytest.raises(grpc.aio.AioRpcError):
            await rig.speech.Synthesize(say(""))


# The recorder alone, with real keys in a real Redis.


class Desk:
    """A recorder on a folder, whose clocks the test sets."""

    def __init__(self, folder: Path, server: Server, **options: Any) -> None:
        self.now = 1_000_000.0
        self.missed = 0
        self.folder, self.epochs = folder, LocalEpochs()
        self.link = RedisLink(server.url, deadline=5.0)
        self.keyring = Keyring(self.link, [MASTER])
        self._keys = Keys(MASTER).of("default")
        settings: dict[str, Any] = {"size": 1 << 20, "keep_s": 1600.0, **options}
        consenting, clock = frozenset(["default"]), lambda: self.now
        self.recorder = Recorder(
            folder, self.keyring, self.epochs, MASTER, consenting, wall=clock, clock=clock, **settings
        )
        self.recorder.on_missed = self._count

    def _count(self) -> None:
        self.missed += 1

    def take(self, text: str, subject: str = "") -> None:
        request = say(text, cache_control={"subject_id": subject})
        decoded = wire.decode_synthesize(request, wire.Limits(models={"synthesize": ("m",)}))
        fields = KeyFields("synthesize", "e", "anna")
        key = self._keys.cache_key(fields, self._keys.input_digest("synthesize", decoded.canonical))
        call: Any = SimpleNamespace(
            key=key, tenant="default", task=SYNTHESIZE, fields=fields, keys=self._keys, decoded=decoded
        )
        self.recorder.take(call, request.SerializeToString())

    async def texts(self) -> list[str]:
        """What the records hold that open."""
        found = []
        for one in kept(self.folder):
            with contextlib.suppress(Tampered, Foreign):
                found.append(speech_pb2.SynthesizeRequest.FromString(await opened(one, self.keyring)).input.text)
        return found


@pytest_asyncio.fixture
async def desk(tmp_path: Path, redis_server: Server) -> AsyncIterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(folder: str = "inputs", **options: Any) -> Desk:
        desks.append(Desk(tmp_path / folder, redis_server, **options))
        return desks[-1]

    yield make
    for one in desks:
        await one.recorder.close()
        await one.link.aclose()


async def test_of_all_different_requests_the_same_share_is_kept_whoever_asks(desk: Callable[..., Desk]) -> None:
    one, other = desk("one", share=0.25), desk("other", share=0.25)
    for number in range(200):
        one.take(f"Number {number}.")
        other.take(f"Number {199 - number}.")
        other.take(f"Number {number}.")
    await one.recorder.flush()
    await other.recorder.flush()
    assert sorted(await one.texts()) == sorted(await other.texts())
    assert 25 < one.recorder.recorded < 80


async def test_a_full_queue_drops_counts_and_has_it_seen_again(desk: Callable[..., Desk]) -> None:
    one = desk(queue_bytes=150)
    for number in range(10):
        one.take(f"A sentence of some length, number {number}.")
    await one.recorder.flush()
    assert one.recorder.dropped["queue"] == 10 - one.recorder.recorded > 0
    await one.recorder.tidy()
    assert one.missed == 1
    for number in range(10):
        one.take(f"A sentence of some length, number {number}.")
        await one.recorder.flush()
    assert one.recorder.recorded == len(await one.texts()) == 10


async def test_a_full_disk_drops_counts_and_is_tried_again_later(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.take("Before.")
    await one.recorder.flush()
    size = sum(path.stat().st_size for path in input_files(one.folder))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))  # the kernel takes 100 bytes of the next, no more
    try:
        one.take("On a full disk.")
        one.take("While it is left alone.")
        await one.recorder.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one.recorder.dropped["disk"] == 2
    one.take("Still left alone.")
    await one.recorder.flush()
    one.now += recorder_module.RETRY_S
    one.take("On a full disk.")
    await one.recorder.flush()
    assert strange(one.folder) == (0, 0, 0)
    assert await one.texts() == ["Before.", "On a full disk."]


async def test_without_a_key_nothing_is_written(desk: Callable[..., Desk], redis_server: Server) -> None:
    one = desk()
    redis_server.kill()
    one.take("Nobody can seal this.")
    await one.recorder.flush()
    assert one.recorder.dropped["key"] == 1
    assert not input_files(one.folder)


async def test_what_is_erased_while_it_waits_is_never_written(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.take("Mine.", subject="jo")
    one.take("Yours.")
    tag = Keys(MASTER).of("default").tag("subject", "jo")
    one.epochs.bump(tag)
    await one.recorder.erase(tag)
    await one.recorder.flush()
    assert await one.texts() == ["Yours."]
    assert one.recorder.dropped["erased"] == 1


async def test_what_came_after_an_erasure_is_spared_when_it_is_told_again(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.take("Before.")
    await one.recorder.flush()
    one.epochs.bump(tenant_tag("default"))
    one.take("After.")
    await one.recorder.flush()
    for _ in range(2):
        await one.recorder.erase(tenant_tag("default"))
        assert await one.texts() == ["After."]


async def test_an_erasure_reaches_what_came_before_epochs_were_lost(desk: Callable[..., Desk]) -> None:
    one = desk()
    for _ in range(3):
        one.epochs.bump(tenant_tag("default"))
    one.take("Before.")
    await one.recorder.flush()
    one.recorder._epochs = LocalEpochs()  # of a Redis restored from an older copy
    one.recorder._epochs.bump(tenant_tag("default"))
    await one.recorder.erase(tenant_tag("default"))
    assert await one.texts() == []


async def test_nothing_is_kept_for_longer_than_allowed(desk: Callable[..., Desk]) -> None:
    one = desk()
    begun = one.now
    for number in range(48):
        one.take(f"Number {number}.")
        await one.recorder.flush()
        await one.recorder.tidy()
        assert all(one.now - record.head.time_us / 1e6 < 1600 for record in kept(one.folder))
        one.now += 50.0
    assert one.now - begun == 2400
    assert len(kept(one.folder)) >= 30
    assert one.missed
    before = one.recorder.recorded
    one.take("Number 0.")  # was removed
    one.take("Number 47.")  # is there
    await one.recorder.flush()
    assert one.recorder.recorded == before + 1


async def test_the_oldest_make_room(desk: Callable[..., Desk]) -> None:
    one = desk(size=64 << 10)
    for number in range(400):
        one.take(f"{number} " + "word " * 40)
        one.now += 0.01
        await one.recorder.flush()
        assert sum(path.stat().st_size for path in input_files(one.folder)) <= 64 << 10
    texts = await one.texts()
    assert texts[-1].startswith("399 ")
    assert texts == sorted(texts, key=lambda text: int(text.split()[0]))
    assert 60 < len(texts) < 400
    await one.recorder.tidy()
    one.take("0 " + "word " * 40)  # was removed
    await one.recorder.flush()
    assert one.recorder.recorded == 401


async def test_an_input_that_takes_too_much_room_is_dropped(desk: Callable[..., Desk]) -> None:
    one = desk(size=PARTS * 4096)
    one.take("word " * 900)
    one.take("Short.")
    await one.recorder.flush()
    assert one.recorder.dropped["large"] == 1
    assert await one.texts() == ["Short."]


async def test_a_file_that_is_being_written_is_not_removed_by_another(desk: Callable[..., Desk]) -> None:
    one, other = desk(), desk()
    one.take("Of one.")
    await one.recorder.flush()
    other.now += 2000
    await other.recorder.tidy()
    assert await one.texts() == ["Of one."]
    one.recorder._folder.close()
    await other.recorder.tidy()
    assert not input_files(one.folder)


async def test_what_is_recorded_is_known_after_a_restart(desk: Callable[..., Desk]) -> None:
    one, other = desk(), desk()
    one.take("Once.")
    await one.recorder.flush()
    await other.recorder.start()  # reads beside what comes meanwhile
    other.take("Once.")
    await other.recorder.flush()
    assert other.recorder.recorded == 0


@pytest.mark.parametrize("voice", ["bert", None, (0.5,) * 8])
@pytest.mark.parametrize("ttl_s", [None, 90.5])
def test_a_streams_whole_request_means_the_same(voice: Any, ttl_s: float | None) -> None:
    limits = wire.Limits(models=dict.fromkeys(RECORDED, ("m",)), voices={"bert"}, emotions={"neutral", "sad"})
    control = wire.Control(wire.Mode.DEFAULT, True, wire.Match.FUZZY, ttl_s, ttl_s, 0.25, "a session", "jo")
    pcm = hear(noise(0.3)).content
    mel = np.full((80, 20), -3, "<f4").tobytes()
    output = Output(Encoding.MULAW, 16_000)
    said = wire.Decoded(b"Say it.", voice, "sad", 1.25, "en-US", "m", output, 0, control, 0.0)
    heard = wire.Decoded(pcm, None, "", 1.0, "en-US", "m", None, wire.OFFSETS | wire.CONFIDENCE, control, 0.3)
    sung = wire.Decoded(mel, None, "", 1.0, "", "m", output, 0, control, 20 * 256 / 22_050)
    for task, decoded in ((SYNTHESIZE, said), (RECOGNIZE, heard), (VOCODE, sung)):
        assert task.decode(task.request(recorded_of(task.name, decoded)), limits) == decoded


# Damage.


async def three(desk: Callable[..., Desk]) -> tuple[Desk, Path]:
    one = desk()
    for text in ("The first.", "The second.", "The third."):
        one.take(text)
    await one.recorder.flush()
    (path,) = input_files(one.folder)
    return one, path


async def test_a_record_that_a_crash_cut_short_is_skipped_and_told(desk: Callable[..., Desk]) -> None:
    one, path = await three(desk)
    data, last = path.read_bytes(), kept(one.folder)[2].at
    for end in range(last + 1, len(data), 7):
        path.write_bytes(data[:end])
        assert len(kept(one.folder)) == 2
        assert strange(one.folder) == (0, 1, 0)
    other = desk()
    await other.recorder.start()
    for text in ("The first.", "The second.", "The third."):
        other.take(text)
    await other.recorder.flush()
    assert (other.recorder.recorded, strange(one.folder)) == (1, (0, 1, 0))  # the third, in a file of its own
    assert sorted(await other.texts()) == ["The first.", "The second.", "The third."]
    for end in (0, 5, 30):  # in the middle of the file's own header
        path.write_bytes(data[:end])
        assert not list(walk(path, Walk()))


async def test_a_flipped_bit_costs_the_record_it_is_in_and_no_other(desk: Callable[..., Desk]) -> None:
    one, path = await three(desk)
    data, places = path.read_bytes(), kept(one.folder)
    for at in range(places[1].at, places[2].at):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        assert await one.texts() == ["The first.", "The third."], at


async def test_a_damaged_header_costs_no_record(desk: Callable[..., Desk]) -> None:
    one, path = await three(desk)
    data, first = path.read_bytes(), kept(one.folder)[0].at
    for at in range(0, first, 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        assert len(await one.texts()) == 3, at


async def test_another_master_key_opens_nothing(desk: Callable[..., Desk]) -> None:
    one, _ = await three(desk)
    stranger = Keyring(one.link, [bytes(32)])
    for record in kept(one.folder):
        with pytest.raises(Foreign):
            await opened(record, stranger)


async def test_a_record_does_not_open_as_another_tenants_or_as_a_value(desk: Callable[..., Desk]) -> None:
    one, _ = await three(desk)
    first, second, _ = kept(one.folder)
    for key, kind in ((CacheKey("default", second.raw), b"i"), (CacheKey("default", first.raw), b"v")):
        with pytest.raises(Tampered):
            await one.keyring.open(key, kind, body_of(first))  # type: ignore[arg-type]


async def test_redis_gone_is_no_verdict_on_a_record(desk: Callable[..., Desk], redis_server: Server) -> None:
    one, _ = await three(desk)
    redis_server.kill()
    with pytest.raises(Unavailable):
        await opened(kept(one.folder)[0], Keyring(one.link, [MASTER]))


# The settings.


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"inputs": {"size": "1 MiB"}}, "inputs.size = '1 MiB': "),
        ({"inputs": {"keep": "91 d"}}, "inputs.keep = '91 d': "),
        ({"inputs": {"keep": "59 s"}}, "inputs.keep = '59 s': "),
        ({"inputs": {"share": 0}}, "inputs.share = 0: "),
        ({"inputs": {"share": 1.5}}, "inputs.share = 1.5: "),
        ({"inputs": {"queue": 0}}, "inputs.queue = 0: "),
        ({"tenants": {"a": {"record_input": True}}}, "is record_inputs meant?"),
        ({"tenants": {"a": {"record_inputs": True}}, "trace": {"enabled": False}}, "allowed with trace.enabled = true"),
    ],
)
def test_consent_and_bounds_are_settings_that_say_what_is_allowed(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, tables)
    assert said in str(caught.value)


def test_nobody_consents_unasked() -> None:
    assert not load().tenant("default").record_inputs
    assert load().inputs.keep == 7 * 86_400
