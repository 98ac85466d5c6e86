"""The command and the client against a gateway of canned answers: what is sent, what is shown, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import gateway.cli
from gateway.cli import main
from gateway.client import RefrainCallError, RefrainClient
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc

INFO = speech_pb2.CacheInfo(
    status=speech_pb2.CacheInfo.HIT_EXACT, tier="device", age=Duration(seconds=12), similarity=1.0, engine="e1",
    saved_compute=Duration(nanos=143_000_000), entry_id="entry",
)  # fmt: skip


class CannedSpeech(speech_pb2_grpc.SpeechServicer):
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.metadata: dict[str, str] = {}

    def _note(self, request: Any, context: grpc.ServicerContext) -> None:
        self.asked.append(request)
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}

    def Synthesize(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note(request, context)
        if not request.input.text:
            bad = error_details_pb2.BadRequest()
            bad.field_violations.add(field="input.text", description="empty; allowed: 1 to 5000 bytes")
            packed = AnyMessage()
            packed.Pack(bad)
            status = status_pb2.Status(code=3, message="input.text: empty; allowed: 1 to 5000 bytes", details=[packed])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message)
        config = speech_pb2.AudioConfig(audio_encoding=request.audio_config.audio_encoding, sample_rate_hertz=22_050)
        return speech_pb2.SynthesizeResponse(audio_content=b"\1\0" * 100, audio_config=config, cache_info=INFO)

    def Vocode(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note(request, context)
        config = speech_pb2.AudioConfig(audio_encoding=speech_pb2.WAV, sample_rate_hertz=22_050)
        return speech_pb2.VocodeResponse(audio_content=b"wave", audio_config=config, cache_info=INFO)

    def EmbedVoice(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note(request, context)
        dimensions = request.dimensions or 256
        near = speech_pb2.NearVoice(name="amy", cosine=0.91) if dimensions == 256 else None
        embedding = speech_pb2.VoiceEmbedding(values=[dimensions**-0.5] * dimensions)
        return speech_pb2.EmbedVoiceResponse(embedding=embedding, nearest_voice=near, cache_info=INFO)

    def Recognize(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._note(request, context)
        response = speech_pb2.RecognizeResponse(cache_info=INFO)
        for text in ("turn it", "off"):
            word = speech_pb2.WordInfo(
                word=text, start_offset=Duration(nanos=500_000_000), end_offset=Duration(seconds=1)
            )
            best = speech_pb2.SpeechRecognitionAlternative(transcript=text, confidence=0.9, words=[word])
            response.results.add(alternatives=[best], language_code="en-US")
        return response

    def StreamingSynthesize(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            self._note(request, context)
            if request.WhichOneof("streaming_request") == "input":
                yield speech_pb2.StreamingSynthesizeResponse(audio_content=request.input.text.encode())
        yield speech_pb2.StreamingSynthesizeResponse(audio_content=b"end", cache_info=INFO)

    def StreamingRecognize(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        heard = b"".join(request.audio for request in requests)
        best = speech_pb2.SpeechRecognitionAlternative(transcript=f"{len(heard)} bytes")
        for final in (False, True):
            result = speech_pb2.StreamingRecognitionResult(alternatives=[best], is_final=final)
            yield speech_pb2.StreamingRecognizeResponse(results=[result], cache_info=INFO if final else None)

    def StreamingVocode(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        frames = sum(len(request.mel.data) // 320 for request in requests)
        yield speech_pb2.StreamingVocodeResponse(audio_content=b"x" * frames, cache_info=INFO)

    def ListVoices(self, request: Any, context: grpc.ServicerContext) -> Any:
        voice = speech_pb2.VoiceInfo(
            name="amy", language_codes=["en-US"], emotions=["neutral", "calm"], natural_sample_rate_hertz=22_050
        )
        return speech_pb2.ListVoicesResponse(voices=[voice])

    def ListModels(self, request: Any, context: grpc.ServicerContext) -> Any:
        model = speech_pb2.ModelInfo(
            name="ear", family="recognizer", identity="abc123", provider="CPUExecutionProvider"
        )
        return speech_pb2.ListModelsResponse(models=[model])


class CannedAdmin(cache_pb2_grpc.CacheAdminServicer):
    def GetStats(self, request: Any, context: grpc.ServicerContext) -> Any:
        row = cache_pb2.OutcomeCount(
            task="recognize", status=speech_pb2.CacheInfo.HIT_EXACT, tier="device", requests=8, bytes=80,
            saved_compute=Duration(seconds=3, nanos=500_000_000), latency_p50=Duration(nanos=400_000),
        )  # fmt: skip
        voice = cache_pb2.VoiceAudits(voice="amy", audited=5, wrong=1, wrong_upper_bound=0.5)
        uptime = Duration(seconds=60)
        return cache_pb2.GetStatsResponse(outcomes=[row], failed=2, uptime=uptime, audits_by_voice=[voice])

    def ListAuditedPairs(self, request: Any, context: grpc.ServicerContext) -> Any:
        kinds = cache_pb2.AuditedPair
        wrong = cache_pb2.AuditedPair(
            kind=kinds.SAID_AGAIN,
            verdict=kinds.WRONG,
            similarity=0.875,
            entry_id="r" + 80 * "0",
            language="en-US",
            judged_at=60,
        )
        return cache_pb2.ListAuditedPairsResponse(pairs=[wrong])

    def Warm(self, request: Any, context: grpc.ServicerContext) -> Any:
        return cache_pb2.WarmResponse(computed=len(request.requests), failures=["one: no"])

    def Invalidate(self, request: Any, context: grpc.ServicerContext) -> Any:
        return cache_pb2.InvalidateResponse(dropped=5 if request.WhichOneof("what") == "everything" else 1)

    def Erase(self, request: Any, context: grpc.ServicerContext) -> Any:
        return cache_pb2.EraseResponse(dropped=4, acknowledged=["g1"])

    def ReportWrongHit(self, request: Any, context: grpc.ServicerContext) -> Any:
        return cache_pb2.ReportWrongHitResponse(quarantined=request.entry_id == "entry")


class Gateway:
    def __init__(self) -> None:
        self.speech, self.health = CannedSpeech(), health.HealthServicer()
        self.server = grpc.server(ThreadPoolExecutor(4))
        speech_pb2_grpc.add_SpeechServicer_to_server(self.speech, self.server)  # type: ignore[no-untyped-call]
        cache_pb2_grpc.add_CacheAdminServicer_to_server(CannedAdmin(), self.server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.target = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()


@pytest.fixture(scope="module")
def canned() -> Iterator[Gateway]:
    running = Gateway()
    yield running
    running.server.stop(None).wait()


@pytest.fixture
def client(canned: Gateway) -> Iterator[RefrainClient]:
    with RefrainClient(canned.target, "token-one") as connected:
        yield connected


@pytest.fixture(autouse=True)
def at(canned: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFRAIN_TARGET", canned.target)
    monkeypatch.delenv("REFRAIN_TOKEN", raising=False)
    canned.speech.asked.clear()


# The client.


def test_synthesize_sends_what_was_asked(client: RefrainClient, canned: Gateway, tmp_path: Path) -> None:
    speech = client.synthesize(
        "hi", "amy", "calm", speed=1.5, encoding="LINEAR16", mode="REFRESH", ttl=1.5, subject_id="me", no_store=True
    )
    (sent,) = canned.speech.asked
    assert (sent.input.text, sent.voice.name, sent.voice.emotion) == ("hi", "amy", "calm")
    assert (sent.audio_config.speaking_rate, sent.audio_config.audio_encoding) == (1.5, speech_pb2.LINEAR16)
    control = sent.cache_control
    assert (control.mode, control.subject_id, control.no_store) == (speech_pb2.CacheControl.REFRESH, "me", True)
    assert (control.ttl.seconds, control.ttl.nanos) == (1, 500_000_000)
    assert canned.speech.metadata["authorization"] == "Bearer token-one"
    assert (speech.encoding, speech.rate, len(speech.samples())) == ("LINEAR16", 22_050, 100)
    assert speech.info is not None
    assert (speech.info.status, speech.info.saved_ms, speech.info.entry_id) == ("HIT_EXACT", 143.0, "entry")
    speech.save(tmp_path / "x.raw")
    assert (tmp_path / "x.raw").read_bytes() == speech.audio


def test_a_recording_is_embedded_and_the_embedding_is_a_voice(client: RefrainClient, canned: Gateway) -> None:
    heard = client.embed_voice(np.zeros((8, 2), np.float32), rate=16_000, dimensions=16, subject_id="me")
    assert (heard.values.shape, heard.nearest, heard.cosine) == ((16,), "", 0.0)
    assert client.embed_voice(b"RIFF").nearest == "amy"
    client.synthesize("hi", heard.values, emotion_audio=b"OggS", fuzzy=True)
    samples, whole, spoken = canned.speech.asked
    explicit = samples.recording.explicit_decoding_config
    assert (explicit.encoding, explicit.sample_rate_hertz, explicit.audio_channel_count) == (1, 16_000, 2)
    assert (samples.dimensions, samples.cache_control.subject_id, len(samples.recording.content)) == (16, "me", 32)
    assert (whole.recording.content, whole.recording.WhichOneof("decoding_config")) == (b"RIFF", None)
    assert list(spoken.voice.embedding.values) == [0.25] * 16
    assert (spoken.voice.emotion_audio.content, spoken.voice.emotion) == (b"OggS", "")
    assert spoken.cache_control.match == speech_pb2.CacheControl.FUZZY
    with pytest.raises(ValueError, match=r"voice: shape \(1, 16\)"):
        client.synthesize("hi", heard.values[None])


def test_a_voice_is_a_name_an_embedding_or_left_to_the_gateway(client: RefrainClient, canned: Gateway) -> None:
    for voice in ("", "amy", [0.5] * 8):
        client.synthesize("hi", voice)
    assert [sent.voice.WhichOneof("voice") for sent in canned.speech.asked] == [None, "name", "embedding"]


def test_recognize_takes_files_bytes_and_samples(client: RefrainClient, canned: Gateway, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    client.recognize(path, fuzzy=True)
    client.recognize(b"RIFF", encoding="MULAW", rate=8000)
    heard = client.recognize(np.array([[0.0, 2.0], [-1.0, 0.5]], dtype=np.float32), rate=16_000)
    by_file, by_bytes, by_samples = canned.speech.asked
    assert by_file.config.WhichOneof("decoding_config") == "auto_decoding_config"
    assert by_file.cache_control.match == speech_pb2.CacheControl.FUZZY
    assert by_bytes.config.explicit_decoding_config.sample_rate_hertz == 8000
    assert by_samples.config.explicit_decoding_config.audio_channel_count == 2
    assert by_samples.content == np.array([0, 32767, -32767, 16384], dtype="<i2").tobytes()
    assert (heard.transcript, heard.language, heard.final) == ("turn it off", "en-US", True)
    assert (heard.words[0].text, heard.words[0].start_s, heard.words[0].end_s) == ("turn it", 0.5, 1.0)


def test_streams_are_iterators_both_ways(client: RefrainClient, canned: Gateway) -> None:
    pieces = list(client.stream_synthesize(iter(["one. ", "two."]), "amy", rate=16_000))
    assert [piece.audio for piece in pieces] == [b"one. ", b"two.", b"end"]
    assert [piece.info is not None for piece in pieces] == [False, False, True]
    assert canned.speech.asked[0].streaming_config.audio_config.sample_rate_hertz == 16_000
    interim, final = client.stream_recognize([b"ab", b"cde"], rate=16_000, interim=True)
    assert (interim.final, interim.info, final.final, final.transcript) == (False, None, True, "5 bytes")
    (speech,) = client.stream_vocode([np.zeros((80, 3)), np.zeros((80, 4))])
    assert len(speech.audio) == 7


def test_leaving_a_stream_early_is_allowed(client: RefrainClient) -> None:
    stream = client.stream_synthesize(iter(["one. ", "two."]))
    assert next(stream).audio == b"one. "
    stream.close()  # type: ignore[attr-defined]


def test_the_cache_is_run_through_the_client(client: RefrainClient) -> None:
    assert client.warm(["a", "b"], "amy") == (2, 0, ("one: no",))
    assert client.invalidate(everything=True) == 5
    assert client.erase(subject_id="me") == (4, ("g1",))
    assert client.report_wrong_hit("entry")
    with pytest.raises(ValueError, match="exactly one of entry_id, voice, engine, everything; none given"):
        client.invalidate()


def test_errors_carry_status_message_and_fields(client: RefrainClient) -> None:
    with pytest.raises(RefrainCallError) as caught:
        client.synthesize("")
    error = caught.value
    assert (error.status, error.violations[0].field) == ("INVALID_ARGUMENT", "input.text")
    assert error.violations[0].description == "empty; allowed: 1 to 5000 bytes"


@pytest.mark.parametrize("wrong", [{"encoding": "MP3"}, {"mode": "SOMETIMES"}, {"match": "NEARLY"}])
def test_options_that_do_not_exist_are_named(client: RefrainClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="known are"):
        client.synthesize("hi", **wrong)


def test_arrays_that_no_call_could_take(client: RefrainClient) -> None:
    with pytest.raises(ValueError, match=r"\[80, T\]"):
        client.vocode(np.zeros(5))
    with pytest.raises(ValueError, match="finite"):
        client.recognize(np.array([np.nan], dtype=np.float32), rate=16_000)
    with pytest.raises(ValueError, match="floats"):
        client.recognize(np.array([1], dtype=np.int16), rate=16_000)


def test_waiting_for_a_gateway_that_is_not_there_ends() -> None:
    with RefrainClient("127.0.0.1:1") as client, pytest.raises(RefrainCallError, match="nothing serves"):
        client.wait_until_serving(timeout=0.05)


def test_waiting_ends_when_the_gateway_serves(canned: Gateway, client: RefrainClient) -> None:
    canned.health.set("late", health_pb2.HealthCheckResponse.NOT_SERVING)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_until_serving, 10.0, "late")
        canned.health.set("late", health_pb2.HealthCheckResponse.SERVING)
        waiting.result()
    assert client.health("nobody") == "SERVICE_UNKNOWN"


# The command.


def test_say_writes_the_file_and_tells_where_it_came_from(
    canned: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.flac"
    assert main(["say", "hello", "--voice", "amy", "--refresh", "--token", "token-two", "-o", str(out)]) == 0
    assert out.read_bytes() == b"\1\0" * 100
    printed = capsys.readouterr().out
    assert "200 bytes of FLAC at 22050 Hz" in printed
    assert "HIT_EXACT from device, " in printed
    assert "12.0 s old, saved 143 ms of compute" in printed
    (sent,) = canned.speech.asked
    assert sent.cache_control.mode == speech_pb2.CacheControl.REFRESH
    assert canned.speech.metadata["authorization"] == "Bearer token-two"


def test_hear_prints_the_transcript_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    assert main(["hear", str(path), "--fuzzy", "--words"]) == 0
    first, *words, last = capsys.readouterr().out.splitlines()
    assert (first, len(words)) == ("turn it off", 2)
    assert last.startswith("HIT_EXACT from device")


def test_vocode_reads_numpy_files(tmp_path: Path, canned: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "mel.npy", np.zeros((80, 5), dtype=np.float64))
    assert main(["vocode", str(tmp_path / "mel.npy"), "-o", str(tmp_path / "out.wav")]) == 0
    assert len(canned.speech.asked[0].mel.data) == 80 * 5 * 4
    (tmp_path / "bad.npy").write_bytes(b"nonsense")
    assert main(["vocode", str(tmp_path / "bad.npy"), "-o", str(tmp_path / "out.wav")]) == 1
    assert "not a .npy file of numbers" in capsys.readouterr().err


def test_embed_writes_or_prints_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.wav", tmp_path / "a.npy"
    path.write_bytes(b"RIFF")
    assert main(["embed", str(path), "-o", str(out)]) == 0
    assert np.load(out).shape == (256,)
    first, near, last = capsys.readouterr().out.splitlines()
    assert (first, near) == (f"{out}: 256 numbers", "nearest voice: amy (cosine 0.910)")
    assert last.startswith("HIT_EXACT from device")
    assert main(["embed", str(path), "--dimensions", "16"]) == 0
    first, near, _ = capsys.readouterr().out.splitlines()
    assert (first.split(), near) == (["0.250000"] * 16, "no voice is near")


def test_say_takes_a_voice_and_a_mood_from_files(tmp_path: Path, canned: Gateway) -> None:
    path, numbers, out = tmp_path / "a.wav", tmp_path / "a.npy", tmp_path / "out.wav"
    path.write_bytes(b"RIFF")
    np.save(numbers, np.full(8, 0.5, np.float32))
    assert main(["say", "hi", "--voice-like", str(path), "--mood-like", str(path), "-o", str(out)]) == 0
    embed, like = canned.speech.asked
    assert embed.recording.content == like.voice.emotion_audio.content == b"RIFF"
    assert (len(like.voice.embedding.values), like.cache_control.match) == (256, speech_pb2.CacheControl.FUZZY)
    assert main(["say", "hi", "--voice-like", str(numbers), "-o", str(out)]) == 0
    assert list(canned.speech.asked[-1].voice.embedding.values) == [0.5] * 8
    with pytest.raises(SystemExit):
        main(["say", "hi", "--voice", "amy", "--voice-like", str(path), "-o", str(out)])


def test_judged_pairs_are_listed_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--pairs"]) == 0
    shown = capsys.readouterr().out
    assert "wrong     similarity 0.875  said again, en-US, 1970-01-01 00:01:00 UTC" in shown
    assert f"r{80 * '0'}\n" in shown, "in one piece"
    assert main(["stats", "--pairs", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["audited_pairs"][0]["verdict"] == "wrong"
    assert main(["wrong", "entry"]) == 0
    assert capsys.readouterr().out == "This pair is never matched again.\n"
    assert main(["wrong", "another"]) == 0
    assert "before" in capsys.readouterr().out


def test_stats_as_table_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats"]) == 0
    assert "8 requests" in capsys.readouterr().out
    assert main(["stats", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["hits_exact"] == 8
    assert main(["stats", "--json", str(tmp_path / "s.json"), "--price", "2"]) == 0
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["total"]["saved_s"] == 3.5
    (voice,) = told["audits_by_voice"]
    assert (voice["voice"], voice["audited"], voice["wrong"], voice["undecided"]) == ("amy", 5, 1, 0)


def test_voices_models_and_health(canned: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["voices"]) == 0
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert "amy" in printed
    assert "CPUExecutionProvider" in printed
    canned.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert main(["health"]) == 1
    canned.health.set("", health_pb2.HealthCheckResponse.SERVING)
    assert main(["health"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["say", "", "-o", "OUT"], "refrain: INVALID_ARGUMENT: input.text: empty"),
        (["hear", "/nowhere.wav"], "No such file"),
        (["hear", "x.raw"], "LINEAR16 has no header; give its --rate"),
        (["say", "x", "-o", "/nowhere/x.wav"], "refrain: /nowhere/x.wav: No such file or directory"),
        (
            ["voices", "--target", "127.0.0.1:1", "--timeout", "0.05"],
            "nothing answers at 127.0.0.1:1; is `refrain serve`",
        ),
        (["serve", "--config", "/nowhere.toml"], "refrain: /nowhere.toml: No such file"),
        (["serve", "--host", "0.0.0.0"], "no tokens are set"),
    ],
)
def test_what_fails_is_one_clear_line_and_status_1(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.replace("OUT", str(tmp_path / "x.wav")) for word in words]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("words", [[], ["sing"], ["say"], ["say", "x", "-o", "y", "--bypass", "--refresh"]])
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2


def test_serve_hands_its_options_to_the_app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    served: list[Any] = []

    class App:
        @staticmethod
        async def serve(settings: Any) -> None:
            served.append(settings)

    monkeypatch.setitem(sys.modules, "gateway.app", App)
    words = ["--port", "0", "--http-port", "0", "--data-dir", str(tmp_path), "--log-format", "json"]
    assert main(["serve", *words]) == 0
    (settings,) = served
    assert (settings.listen.port, settings.listen.http_port, settings.data_dir) == (0, 0, tmp_path)
    assert settings.log.format == "json"


@pytest.mark.parametrize(
    ("given", "threads"), [({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")]
)
def test_serve_has_numpy_work_in_one_thread_unless_told_otherwise(given: dict[str, str], threads: str) -> None:
    code = """
import os, sys, unittest.mock
from gateway.cli import main
assert "numpy" not in sys.modules, "too late to say how many threads it has"
sys.modules["gateway.app"] = unittest.mock.Mock()
with unittest.mock.patch("asyncio.run", lambda work: print(os.environ["OPENBLAS_NUM_THREADS"])):
    sys.exit(main(["serve"]))
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == threads


def test_what_keeps_the_gateway_from_starting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class App:
        @staticmethod
        async def serve(settings: Any) -> None:
            raise PermissionError(13, "Permission denied", "/data")

    monkeypatch.setitem(sys.modules, "gateway.app", App)
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "refrain: /data: Permission denied\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["say", "x", "-o", "x.wav", "--ttl", "nan"], "argument --ttl: 'nan': allowed are numbers from 0 to"),
        (["say", "x", "-o", "x.wav", "--timeout", "0"], "argument --timeout: '0': allowed are numbers above 0"),
        (["say", "x", "-o", "x.wav", "--rate", "99999999999"], "argument --rate: '99999999999': allowed are whole"),
        (["embed", "x.wav", "--dimensions", "-8"], "argument --dimensions: '-8': allowed are whole"),
        (["health", "--target", "http://127.0.0.1:50051"], "argument --target: 'http://127.0.0.1:50051': allowed is"),
        (["stats", "--price", "-1"], "argument --price: '-1': allowed are numbers from 0"),
    ],
)
def test_a_number_or_an_address_that_means_nothing_is_told_with_what_is_allowed(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert why in capsys.readouterr().err


def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--token", "über\n"]) == 1
    told = capsys.readouterr().err
    assert told == "refrain: --token, REFRAIN_TOKEN: allowed are printable ASCII characters\n"


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["samples", "--out", str(tmp_path / "file"), "--voices", "slt"]) == 1
    assert capsys.readouterr().err == f"refrain: {tmp_path / 'file'}: File exists\n"


def add_sing(parser: Any) -> None:
    """Sing a song."""
    parser.add_argument("song")
    parser.set_defaults(run=lambda arguments: len(arguments.song))


def test_other_packages_add_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    points = [
        EntryPoint("sing", f"{__name__}:add_sing", gateway.cli.GROUP),
        EntryPoint("broken", "no.such.module:add", gateway.cli.GROUP),
    ]
    monkeypatch.setattr(gateway.cli, "entry_points", lambda group: points)
    assert main(["sing", "four"]) == 4
    assert "the command 'broken' cannot be loaded" in capsys.readouterr().err
