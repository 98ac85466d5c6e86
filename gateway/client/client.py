"""`RefrainClient`: every call of the gateway as a method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.client.convert import (
    audio_config,
    audits_of,
    cache_control,
    embedded_of,
    explanation_of,
    heard_of,
    info_of,
    labels_of,
    mel_of,
    pair_of,
    recognition_config,
    recognize_request,
    sample_of,
    seconds_of,
    speech_of,
    the_one,
    voice_params,
)
from gateway.client.errors import RefrainCallError, call_error, code_of, errors_of
from gateway.client.explained import Explanation
from gateway.client.values import Array, CacheOptions, Embedded, Erased, Heard, Info, Model, Speech, Voice, Warmed
from gateway.stats import AuditedPair, OutcomeCount, Stats, TierCount
from protos.refrain.v1 import cache_pb2, cache_pb2_grpc, speech_pb2, speech_pb2_grpc

DEFAULT_TARGET: Final = "127.0.0.1:50051"
SERVICES: Final = ("refrain.v1.Speech", "refrain.v1.CacheAdmin")
WARM_AT_ONCE: Final = 1000
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # a gateway is an inside service, most often on this machine
    ("grpc.initial_reconnect_backoff_ms", 100),  # a gateway that is just starting is there in a moment
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class RefrainClient:
    """`with RefrainClient() as refrain: refrain.synthesize("Hello").save("hello.wav")`."""

    def __init__(
        self, target: str = DEFAULT_TARGET, token: str | None = None, *, tls: bool = False, timeout: float | None = 60.0
    ) -> None:
        """`token` goes with every call. `timeout`: seconds for a whole call, streams included; None for no limit."""
        self.target, self.timeout, self._tls = target, timeout, tls
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials(), _OPTIONS)
            if tls
            else grpc.insecure_channel(target, _OPTIONS)
        )
        self._speech: Any = _stub(speech_pb2_grpc.SpeechStub, self._channel)
        self._admin: Any = _stub(cache_pb2_grpc.CacheAdminStub, self._channel)
        self._health: Any = _stub(health_pb2_grpc.HealthStub, self._channel)

    def __enter__(self) -> RefrainClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()

    def connect(self, timeout: float = 5.0) -> None:
        """Connects now rather than at the first call. Raises RefrainCallError where nothing answers."""
        try:
            grpc.channel_ready_future(self._channel).result(timeout)
        except grpc.FutureTimeoutError:
            hint = f"nothing answers at {self.target}; is `refrain serve` running there?"
            if self._tls:
                hint = f"nothing answers over TLS at {self.target}; a gateway has none itself: is what ends it there?"
            raise RefrainCallError("UNAVAILABLE", hint) from None

    # Speech.

    def synthesize(
        self,
        text: str,
        voice: str | Sequence[float] | Array = "",
        emotion: str = "",
        *,
        emotion_audio: Path | str | bytes | None = None,
        fuzzy: bool = False,
        speed: float = 0.0,
        encoding: str = "WAV",
        rate: int = 0,
        language: str = "",
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Speech:
        """Text to speech. `voice` is a name or an embedding; what is empty or 0 is left to the gateway.

        `emotion_audio`: a file, or its bytes, with speech in the mood that is wanted, where `emotion` names none. It
        needs `fuzzy`, as does an embedding that is not a registered voice's own: the nearest will do.
        """
        if fuzzy:
            cache["match"] = "FUZZY"
        request = speech_pb2.SynthesizeRequest(
            input=speech_pb2.SynthesisInput(text=text), voice=voice_params(voice, emotion, language, emotion_audio),
            audio_config=audio_config(encoding, rate, speed), model=model, cache_control=cache_control(cache),
        )  # fmt: skip
        return speech_of(*self._call(self._speech.Synthesize, request))

    def recognize(
        self,
        recording: Path | str | bytes | Array,
        *,
        fuzzy: bool = False,
        encoding: str = "",
        rate: int = 0,
        channels: int = 0,
        language: str = "",
        model: str = "",
        words: bool = False,
        **cache: Unpack[CacheOptions],
    ) -> Heard:
        """Speech to text. `recording`: a file, its bytes, or samples within -1..1 ([n] or [n, 2]) at `rate`.

        Bytes without a header need `encoding` and `rate`. `words` asks for each word's place and confidence.
        """
        request = recognize_request(recording, fuzzy, encoding, rate, channels, language, model, words, cache)
        response, elapsed = self._call(self._speech.Recognize, request)
        return heard_of(response.results, info_of(response.cache_info, elapsed), final=True)

    def embed_voice(
        self,
        recording: Path | str | bytes | Array,
        *,
        dimensions: int = 0,
        encoding: str = "",
        rate: int = 0,
        channels: int = 0,
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Embedded:
        """Whose voice it is: `dimensions` (8, 16, 32, 64, 128 or 256; 0 for 256) numbers. `recording`: as in
        `recognize`, 0.5 s to 60 s of one speaker."""
        request = speech_pb2.EmbedVoiceRequest(
            recording=sample_of(recording, encoding, rate, channels), dimensions=dimensions, model=model,
            cache_control=cache_control(cache),
        )  # fmt: skip
        return embedded_of(*self._call(self._speech.EmbedVoice, request))

    def vocode(
        self, mel: Array, *, encoding: str = "WAV", rate: int = 0, model: str = "", **cache: Unpack[CacheOptions]
    ) -> Speech:
        """Log-mel [80, T] to speech."""
        request = speech_pb2.VocodeRequest(
            mel=mel_of(mel), audio_config=audio_config(encoding, rate), model=model, cache_control=cache_control(cache)
        )
        return speech_of(*self._call(self._speech.Vocode, request))

    def stream_synthesize(
        self,
        texts: Iterable[str],
        voice: str | Sequence[float] | Array = "",
        emotion: str = "",
        *,
        emotion_audio: Path | str | bytes | None = None,
        speed: float = 0.0,
        encoding: str = "LINEAR16",
        rate: int = 22_050,
        language: str = "",
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Iterator[Speech]:
        """Text in pieces to speech in pieces. Headerless encodings only; `rate` is asked for, so it is known."""
        config = speech_pb2.StreamingSynthesizeConfig(
            voice=voice_params(voice, emotion, language, emotion_audio),
            audio_config=audio_config(encoding, rate, speed), model=model, cache_control=cache_control(cache),
        )  # fmt: skip
        ask = speech_pb2.StreamingSynthesizeRequest
        later = (ask(input=speech_pb2.SynthesisInput(text=text)) for text in texts)
        for response, info in self._stream(self._speech.StreamingSynthesize, ask(streaming_config=config), later):
            yield Speech(response.audio_content, encoding, rate, info)

    def stream_recognize(
        self,
        pieces: Iterable[bytes],
        *,
        rate: int = 0,
        encoding: str = "LINEAR16",
        channels: int = 0,
        interim: bool = False,
        language: str = "",
        model: str = "",
        words: bool = False,
        **cache: Unpack[CacheOptions],
    ) -> Iterator[Heard]:
        """A recording in pieces to what was heard. Without `interim` there is one answer, when the pieces end."""
        config = speech_pb2.StreamingRecognitionConfig(
            config=recognition_config(encoding, rate, channels, language, model, words), interim_results=interim,
            cache_control=cache_control(cache),
        )  # fmt: skip
        ask = speech_pb2.StreamingRecognizeRequest
        later = (ask(audio=piece) for piece in pieces)
        for response, info in self._stream(self._speech.StreamingRecognize, ask(streaming_config=config), later):
            yield heard_of(response.results, info, final=all(result.is_final for result in response.results))

    def stream_vocode(
        self,
        mels: Iterable[Array],
        *,
        encoding: str = "LINEAR16",
        rate: int = 22_050,
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Iterator[Speech]:
        """Log-mel in pieces [80, T] to speech in pieces."""
        config = speech_pb2.StreamingVocodeConfig(
            audio_config=audio_config(encoding, rate), model=model, cache_control=cache_control(cache)
        )
        ask = speech_pb2.StreamingVocodeRequest
        later = (ask(mel=mel_of(mel)) for mel in mels)
        for response, info in self._stream(self._speech.StreamingVocode, ask(streaming_config=config), later):
            yield Speech(response.audio_content, encoding, rate, info)

    def list_voices(self, language: str = "") -> list[Voice]:
        response, _ = self._call(self._speech.ListVoices, speech_pb2.ListVoicesRequest(language_code=language))
        return [
            Voice(v.name, tuple(v.language_codes), tuple(v.emotions), v.natural_sample_rate_hertz)
            for v in response.voices
        ]

    def list_models(self) -> list[Model]:
        response, _ = self._call(self._speech.ListModels, speech_pb2.ListModelsRequest())
        return [
            Model(m.name, m.family, m.identity, m.provider, m.licence, m.sample_rate_hertz, tuple(m.versions), m.share)
            for m in response.models
        ]

    # The cache.

    def stats(self) -> Stats:
        """What the gateway has counted of the caller's tenant."""
        answer, _ = self._call(self._admin.GetStats, cache_pb2.GetStatsRequest())
        return Stats(
            [
                OutcomeCount(
                    row.task, row.status, row.tier, row.requests, row.bytes, seconds_of(row.compute),
                    seconds_of(row.saved_compute), seconds_of(row.latency_p50), seconds_of(row.latency_p99),
                )
                for row in answer.outcomes
            ],
            [TierCount(t.name, t.entries, t.bytes, t.capacity_bytes, t.evictions, t.errors) for t in answer.tiers],
            audits_of(answer.audits),
            seconds_of(answer.uptime),
            answer.failed,
            audits_of(answer.near_audits),
            *labels_of(answer),
        )  # fmt: skip

    def audited_pairs(self) -> list[AuditedPair]:
        """Fuzzy answers of the caller's tenant that were judged, the worst and the last, the worst first."""
        answer, _ = self._call(self._admin.ListAuditedPairs, cache_pb2.ListAuditedPairsRequest())
        return [pair_of(pair) for pair in answer.pairs]

    def warm(
        self,
        texts: Iterable[str],
        voice: str | Sequence[float] | Array = "",
        emotion: str = "",
        *,
        emotion_audio: Path | str | bytes | None = None,
        speed: float = 0.0,
        encoding: str = "WAV",
        rate: int = 0,
        language: str = "",
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Warmed:
        """Has texts spoken and stored before anyone asks. The options are part of what is stored: ask later with equal
        ones."""
        selection = voice_params(voice, emotion, language, emotion_audio)
        audio = audio_config(encoding, rate, speed)
        requests = [
            speech_pb2.SynthesizeRequest(
                input=speech_pb2.SynthesisInput(text=text), voice=selection, audio_config=audio, model=model,
                cache_control=cache_control(cache),
            )
            for text in texts
        ]  # fmt: skip
        computed = cached = 0
        failures: list[str] = []
        for start in range(0, len(requests), WARM_AT_ONCE):
            some = cache_pb2.WarmRequest(requests=requests[start : start + WARM_AT_ONCE])
            answer, _ = self._call(self._admin.Warm, some)
            computed, cached = computed + answer.computed, cached + answer.already_cached
            failures += answer.failures
        return Warmed(computed, cached, tuple(failures))

    def invalidate(self, *, entry_id: str = "", voice: str = "", engine: str = "", everything: bool = False) -> int:
        """Drops one entry, all of a voice or an engine, or everything of the tenant. Returns how many entries."""
        what = {"entry_id": entry_id, "voice": voice, "engine": engine, "everything": everything}
        request = cache_pb2.InvalidateRequest(**the_one(what))
        return int(self._call(self._admin.Invalidate, request)[0].dropped)

    def erase(self, *, subject_id: str = "", voice: str = "") -> Erased:
        """Removes every trace of a person or a voice."""
        request = cache_pb2.EraseRequest(**the_one({"subject_id": subject_id, "voice": voice}))
        answer, _ = self._call(self._admin.Erase, request)
        return Erased(answer.dropped, tuple(answer.acknowledged))

    def report_wrong_hit(self, entry_id: str) -> bool:
        """Says that the fuzzy answer of this Info.entry_id was wrong. True when its pair is now kept apart."""
        request = cache_pb2.ReportWrongHitRequest(entry_id=entry_id)
        return bool(self._call(self._admin.ReportWrongHit, request)[0].quarantined)

    def explain(
        self,
        recording: Path | str | bytes | Array,
        *,
        fuzzy: bool = True,
        encoding: str = "",
        rate: int = 0,
        channels: int = 0,
        language: str = "",
        model: str = "",
        words: bool = False,
        **cache: Unpack[CacheOptions],
    ) -> Explanation:
        """Why `recognize`, asked the same now, would or would not answer from an earlier recording. Runs no model,
        stores nothing."""
        request = recognize_request(recording, fuzzy, encoding, rate, channels, language, model, words, cache)
        return explanation_of(self._call(self._admin.ExplainRecall, request)[0])

    # Health.

    def health(self, service: str = "") -> str:
        """SERVING, NOT_SERVING or SERVICE_UNKNOWN."""
        try:
            answer, _ = self._call(self._health.Check, health_pb2.HealthCheckRequest(service=service))
        except RefrainCallError as error:
            if error.status == "NOT_FOUND":
                return "SERVICE_UNKNOWN"
            raise
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def wait_until_serving(self, timeout: float = 30.0, service: str = "") -> None:
        """Returns as soon as the gateway serves, be it up by now or not. Raises RefrainCallError after `timeout` s."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            watch = self._health.Watch(
                health_pb2.HealthCheckRequest(service=service),
                timeout=left,
                wait_for_ready=True,
                metadata=self._metadata,
            )
            try:
                for answer in watch:
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.RpcError as error:
                if code_of(error) not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise call_error(error, self.target) from None
            finally:
                watch.cancel()
        raise RefrainCallError("DEADLINE_EXCEEDED", f"nothing serves at {self.target} after {timeout:g} s")

    def _call(self, method: Callable[..., Any], request: Any) -> tuple[Any, float]:
        started = time.perf_counter()
        with errors_of(self.target):
            response = method(request, timeout=self.timeout, metadata=self._metadata)
        return response, time.perf_counter() - started

    def _stream(
        self, method: Callable[..., Any], first: Any, later: Iterable[Any]
    ) -> Iterator[tuple[Any, Info | None]]:
        def requests() -> Iterator[Any]:
            yield first
            yield from later

        started = time.perf_counter()
        call = method(requests(), timeout=self.timeout, metadata=self._metadata)
        try:
            with errors_of(self.target):
                for response in call:
                    whole = response.HasField("cache_info")
                    yield response, info_of(response.cache_info, time.perf_counter() - started) if whole else None
        finally:
            call.cancel()  # a caller who stops listening stops the work


def _stub(make: Callable[[grpc.Channel], Any], channel: grpc.Channel) -> Any:
    return make(channel)
