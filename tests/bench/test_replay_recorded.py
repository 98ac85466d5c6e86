"""Recorded inputs replayed: another gateway gets what the first one got, and answers as much of it from memory."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import soundfile

from bench.processes import Gateway, start_gateway
from gateway.cli import main
from gateway.input_files import Walk, input_files, walk
from gateway.trace import read_trace
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc
from tests.bench.waiting import until

CONSENT = """
[tokens]
one = "alpha"
two = "beta"
[tenants.alpha]
record_inputs = true
[tenants.beta]
record_inputs = true
"""
CACHED = speech_pb2.CacheControl.ONLY_IF_CACHED


class Original(NamedTuple):
    gateway: Gateway
    asked: list[Any]
    """What tenant alpha asked for, each once."""
    answers: Counter[str]
    """To alpha and beta, by status."""


@contextmanager
def called(gateway: Gateway) -> Iterator[tuple[Any, Any]]:
    with grpc.insecure_channel(gateway.target) as channel:
        yield speech_pb2_grpc.SpeechStub(channel), cache_pb2_grpc.CacheAdminStub(channel)  # type: ignore[no-untyped-call]


def ask(speech: Any, request: Any, token: str = "") -> Any:
    method = type(request).__name__.removesuffix("Request")
    return getattr(speech, method)(request, metadata=[("authorization", f"Bearer {token}")] if token else [])


def requests(speech: Any) -> list[Any]:
    """In voices, moods, formats, with options: of every task."""
    spoken = [
        speech_pb2.SynthesizeRequest(
            input={"text": "Your taxi waits outside."},
            voice={"name": voice, "emotion": mood},
            audio_config={"audio_encoding": encoding, "speaking_rate": rate},
        )
        for voice, mood, encoding, rate in (("slt", "cheerful", 2, 0), ("rms", "neutral", 4, 1.2), ("slt", "", 1, 0))
    ]
    wav = ask(speech, spoken[0], "one").audio_content
    samples, rate = soundfile.read(io.BytesIO(wav))
    flac = io.BytesIO()
    soundfile.write(flac, samples, rate, format="FLAC")
    config: dict[str, Any] = {"auto_decoding_config": {}}
    heard = [
        speech_pb2.RecognizeRequest(content=flac.getvalue(), config=config),
        speech_pb2.RecognizeRequest(content=wav, config={**config, "features": {"enable_word_time_offsets": True}}),
    ]
    mel = np.random.default_rng(1).uniform(-8, -2, (80, 40)).astype("<f4")
    sung = speech_pb2.VocodeRequest(
        mel={"data": mel.tobytes(), "bands": 80}, audio_config={"sample_rate_hertz": 16_000}
    )
    return [*spoken, *heard, sung]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Original]:
    folder = tmp_path_factory.mktemp("original")
    (folder / "refrain.toml").write_text(CONSENT)
    gateway = start_gateway(folder / "data", "--config", str(folder / "refrain.toml"))
    try:
        with called(gateway) as (speech, _):
            asked = requests(speech)
            for one in [*asked, *asked[1:], *asked[3:]]:
                ask(speech, one, "one")
            ask(speech, speech_pb2.SynthesizeRequest(input={"text": "Of another tenant."}), "two")
        count = 1 + 2 * len(asked) - 1 + len(asked[3:]) + 1
        trace = gateway.data_dir / "trace"  # made with its first record
        until(lambda: trace.exists() and len(list(read_trace(trace))) == count)
        until(lambda: recorded(gateway) == len(asked) + 1)
        yield Original(gateway, asked, Counter(one.status for one in read_trace(gateway.data_dir / "trace")))
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Knows nothing but what this module has replayed to it."""
    gateway = start_gateway(tmp_path_factory.mktemp("target"))
    yield gateway
    gateway.stop()


def recorded(gateway: Gateway) -> int:
    return sum(1 for path in input_files(gateway.data_dir / "inputs") for _ in walk(path, Walk()))


def replay(original: Gateway, target: str, out: Path, *words: str) -> int:
    folders = ["--inputs", str(original.data_dir / "inputs"), "--spoken", str(out.parent / "spoken")]
    trace = [str(original.data_dir / "trace"), "--target", target, "--json", str(out)]
    return main(["replay", *trace, *folders, "--rate", "10", *words])


def test_another_gateway_is_sent_the_same_and_hits_as_often(
    original: Original, target: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "out.json", ["--data-dir", str(original.gateway.data_dir)]
    assert replay(original.gateway, target.target, out, *data, "--tenant", "alpha", "--tenant", "beta") == 0
    report = json.loads(out.read_text())
    everything = len(original.asked) + 1
    assert report["inputs"] == {"recorded": everything, "of": everything, "requests": report["requests"]}
    assert f"recorded: {everything} of {everything}" in capsys.readouterr().out
    assert report["errors"] == 0
    assert report["misses"] == original.answers["MISS"] == everything
    assert report["hits"] + report["coalesced"] == original.answers["HIT_EXACT"] > everything
    with called(target) as (speech, _):
        for one in original.asked:  # the very same requests: none of them runs a model now
            one.cache_control.mode = CACHED
            assert ask(speech, one).cache_info.status == speech_pb2.CacheInfo.HIT_EXACT
            one.ClearField("cache_control")


def test_the_trace_tells_that_inputs_lie_beside_it(original: Original, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "info", str(original.gateway.data_dir / "trace")]) == 0
    assert f"--inputs {original.gateway.data_dir / 'inputs'}" in capsys.readouterr().out


def test_what_is_not_recorded_is_made_up_and_counted(original: Original, target: Gateway, tmp_path: Path) -> None:
    out, data = tmp_path / "out.json", ["--data-dir", str(original.gateway.data_dir)]
    (damaged,) = input_files(original.gateway.data_dir / "inputs")
    copy = tmp_path / "copy"
    copy.mkdir()
    content, places = damaged.read_bytes(), list(walk(damaged, Walk()))
    flipped = bytearray(content)
    flipped[places[1].at + len(places[1].raw) + 60] ^= 1  # within its body
    flipped[places[2].at + 30] ^= 1  # within its head
    (copy / damaged.name).write_bytes(flipped[:-9])
    assert replay(original.gateway, target.target, out, *data, "--inputs", str(copy), "--tenant", "alpha") == 0
    report = json.loads(out.read_text())
    found = report["inputs"]
    assert (found["recorded"], found["of"]) == (len(original.asked) - 2, len(original.asked) + 1)
    assert (found["damaged"], found["torn"]) == (2, 1)
    assert report["errors"] == 0


def test_one_tenants_words_are_not_sent_in_the_name_of_another_unasked(
    original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data-dir", str(original.gateway.data_dir)]
    assert replay(original.gateway, "127.0.0.1:1", tmp_path / "out.json", *data) == 1
    assert "holds inputs of alpha, beta; choose by --tenant NAME" in capsys.readouterr().err


def test_another_master_key_is_told(original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "other.key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    (tmp_path / "other.toml").write_text(f'[keys]\nmaster = "{key}"\n')
    settings = ["--config", str(tmp_path / "other.toml"), "--redis", original.gateway.redis_url, "--tenant", "alpha"]
    assert replay(original.gateway, "127.0.0.1:1", tmp_path / "out.json", *settings) == 1
    assert "keys.master of these settings does not open their keys" in capsys.readouterr().err


def test_without_its_redis_or_its_files_it_says_so(
    original: Original, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data-dir", str(tmp_path), "--tenant", "alpha"]
    (tmp_path / "master.key").write_text("ab" * 32)
    (tmp_path / "master.key").chmod(0o600)
    assert replay(original.gateway, "127.0.0.1:1", tmp_path / "out.json", *words) == 1
    assert "no gateway runs on" in capsys.readouterr().err
    assert replay(original.gateway, "127.0.0.1:1", tmp_path / "out.json", "--inputs", str(tmp_path)) == 1
    assert "holds no recorded inputs" in capsys.readouterr().err


def test_an_erased_tenant_is_replayed_without_its_words(
    original: Original, target: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last of this module: it takes from the original what others need."""
    with called(original.gateway) as (_, admin):
        everything = cache_pb2.InvalidateRequest(everything=True)
        admin.Invalidate(everything, metadata=[("authorization", "Bearer one")])
    assert recorded(original.gateway) == 1
    out, data = tmp_path / "out.json", ["--data-dir", str(original.gateway.data_dir)]
    assert replay(original.gateway, target.target, out, *data) == 0
    assert json.loads(out.read_text())["inputs"]["recorded"] == 1
