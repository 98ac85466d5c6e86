"""The Python client: text, recordings and mels in, plain values out, and where each answer came from.

One synchronous client over one channel, safe to share between threads. Streams are iterators in and out. Whatever goes
wrong with a call is a `RefrainCallError`; options that no call could take are a ValueError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypedDict, Unpack, cast

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.stats import AuditCount, OutcomeCount, Stats, TierCount, human_seconds
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

Array = npt.NDArray[Any]


class RefrainCallError(Exception):
    """A call that failed: its gRPC status by name, the gateway's message, and the fields that were wrong."""

    def __init__(self, status: str, message: str, violations: Sequence[Violation] = (), retry_s: float = 0.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message, self.violations, self.retry_s = status, message, tuple(violations), retry_s


class Violation(NamedTuple):
    """A field of the request that was wrong, and what is allowed."""

    field: str
    description: str


class CacheOptions(TypedDict, total=False):
    """What a request may ask of the cache; see CacheControl in speech.proto."""

    mode: Literal["DEFAULT", "BYPASS", "REFRESH", "ONLY_IF_CACHED"]
    no_store: bool
    match: Literal["MATCH_UNSPECIFIED", "EXACT", "FUZZY"]
    ttl: float
    """Seconds."""
    max_age: float
    """Seconds."""
    min_similarity: float
    session_id: str
    subject_id: str


@dataclass(frozen=True, slots=True)
class Info:
    """Where an answer came from."""

    status: str
    """HIT_EXACT, HIT_FUZZY, MISS, COALESCED or BYPASS."""
    tier: str
    age_s: float
    similarity: float
    engine: str
    saved_ms: float
    entry_id: str
    elapsed_s: float
    """From the call to the end of its answer, as the client saw it."""

    def describe(self) -> str:
        """One line, such as "HIT_EXACT from device, 1.2 ms, 12 s old, saved 143 ms of compute"."""
        parts = [f"{self.status} from {self.tier}" if self.tier else self.status, human_seconds(self.elapsed_s)]
        if self.status.startswith("HIT"):
            parts.append(f"{human_seconds(self.age_s)} old" if self.age_s else "new")
        if self.status == "HIT_FUZZY":
            parts.append(f"similarity {self.similarity:.3f}")
        if self.saved_ms:
            parts.append(f"saved {human_seconds(self.saved_ms / 1e3)} of compute")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech, or a piece of it when streamed: then `info` is None but at the end of a sentence."""

    audio: bytes
    encoding: str
    rate: int
    info: Info | None

    def samples(self) -> npt.NDArray[np.float32]:
        """float32 within -1..1."""
        import io

        import soundfile

        raw = {"LINEAR16": "PCM_16", "MULAW": "ULAW"}.get(self.encoding)
        header = {"format": "RAW", "subtype": raw, "samplerate": self.rate, "channels": 1, "endian": "LITTLE"}
        samples, _ = soundfile.read(io.BytesIO(self.audio), dtype="float32", **(header if raw else {}))
        return np.asarray(samples, dtype=np.float32)

    def save(self, path: Path | str) -> None:
        """Writes the bytes as they came: WAV, FLAC and OGG_OPUS are files, the others headerless."""
        Path(path).write_bytes(self.audio)


class HeardWord(NamedTuple):
    text: str
    start_s: float
    end_s: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What was recognized. `info` is None for interim results of a stream."""

    transcript: str
    confidence: float
    words: tuple[HeardWord, ...]
    language: str
    final: bool
    info: Info | None


class Voice(NamedTuple):
    name: str
    languages: tuple[str, ...]
    emotions: tuple[str, ...]
    rate: int


class Model(NamedTuple):
    name: str
    family: str
    identity: str
    provider: str
    licence: str
    rate: int


class Warmed(NamedTuple):
    computed: int
    already_cached: int
    failures: tuple[str, ...]


class Erased(NamedTuple):
    dropped: int
    acknowledged: tuple[str, ...]


class RefrainClient:
    """`with RefrainClient() as refrain: refrain.synthesize("Hello").save("hello.wav")`."""

    def __init__(
        self, target: str = DEFAULT_TARGET, token: str | None = None, *, tls: bool = False, timeout: float | None = 60.0
    ) -> None:
        """`token` goes with every call. `timeout`: seconds for a whole call, streams included; None for no limit."""
        self.target, self.timeout = target, timeout
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
            raise RefrainCallError("UNAVAILABLE", hint) from None

    # Speech.

    def synthesize(
        self,
        text: str,
        voice: str | Sequence[float] = "",
        emotion: str = "",
        *,
        speed: float = 0.0,
        encoding: str = "WAV",
        rate: int = 0,
        language: str = "",
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Speech:
        """Text to speech. `voice` is a name or an embedding; what is empty or 0 is left to the gateway."""
        request = speech_pb2.SynthesizeRequest(
            input=speech_pb2.SynthesisInput(text=text), voice=_voice(voice, emotion, language),
            audio_config=_audio(encoding, rate, speed), model=model, cache_control=_control(cache),
        )  # fmt: skip
        return _speech(*self._call(self._speech.Synthesize, request))

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
        if isinstance(recording, np.ndarray):
            content, encoding = _pcm(recording), "LINEAR16"
            channels = 1 if recording.ndim == 1 else recording.shape[1]
        else:
            content = recording if isinstance(recording, bytes) else Path(recording).read_bytes()
        if fuzzy:
            cache["match"] = "FUZZY"
        config = _recognition(encoding, rate, channels, language, model, words)
        request = speech_pb2.RecognizeRequest(config=config, content=content, cache_control=_control(cache))
        response, elapsed = self._call(self._speech.Recognize, request)
        return _heard(response.results, _info(response.cache_info, elapsed), final=True)

    def vocode(
        self, mel: Array, *, encoding: str = "WAV", rate: int = 0, model: str = "", **cache: Unpack[CacheOptions]
    ) -> Speech:
        """Log-mel [80, T] to speech."""
        request = speech_pb2.VocodeRequest(
            mel=_mel(mel), audio_config=_audio(encoding, rate), model=model, cache_control=_control(cache)
        )
        return _speech(*self._call(self._speech.Vocode, request))

    def stream_synthesize(
        self,
        texts: Iterable[str],
        voice: str | Sequence[float] = "",
        emotion: str = "",
        *,
        speed: float = 0.0,
        encoding: str = "LINEAR16",
        rate: int = 22_050,
        language: str = "",
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Iterator[Speech]:
        """Text in pieces to speech in pieces. Headerless encodings only; `rate` is asked for, so it is known."""
        config = speech_pb2.StreamingSynthesizeConfig(
            voice=_voice(voice, emotion, language), audio_config=_audio(encoding, rate, speed), model=model,
            cache_control=_control(cache),
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
            config=_recognition(encoding, rate, channels, language, model, words), interim_results=interim,
            cache_control=_control(cache),
        )  # fmt: skip
        ask = speech_pb2.StreamingRecognizeRequest
        later = (ask(audio=piece) for piece in pieces)
        for response, info in self._stream(self._speech.StreamingRecognize, ask(streaming_config=config), later):
            yield _heard(response.results, info, final=all(result.is_final for result in response.results))

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
            audio_config=_audio(encoding, rate), model=model, cache_control=_control(cache)
        )
        ask = speech_pb2.StreamingVocodeRequest
        later = (ask(mel=_mel(mel)) for mel in mels)
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
            Model(m.name, m.family, m.identity, m.provider, m.licence, m.sample_rate_hertz) for m in response.models
        ]

    # The cache.

    def stats(self) -> Stats:
        """What the gateway has counted of the caller's tenant."""
        answer, _ = self._call(self._admin.GetStats, cache_pb2.GetStatsRequest())
        audits = answer.audits
        return Stats(
            [
                OutcomeCount(
                    row.task, row.status, row.tier, row.requests, row.bytes, _seconds(row.compute),
                    _seconds(row.saved_compute), _seconds(row.latency_p50), _seconds(row.latency_p99),
                )
                for row in answer.outcomes
            ],
            [TierCount(t.name, t.entries, t.bytes, t.capacity_bytes, t.evictions, t.errors) for t in answer.tiers],
            AuditCount(
                audits.audited, audits.wrong, audits.undecided, audits.wrong_upper_bound, audits.limit, audits.serving
            ),
            _seconds(answer.uptime),
            answer.failed,
        )  # fmt: skip

    def warm(
        self,
        texts: Iterable[str],
        voice: str | Sequence[float] = "",
        emotion: str = "",
        *,
        speed: float = 0.0,
        encoding: str = "WAV",
        rate: int = 0,
        language: str = "",
        model: str = "",
        **cache: Unpack[CacheOptions],
    ) -> Warmed:
        """Has texts spoken and stored before anyone asks. The options are part of what is stored: ask later with equal
        ones."""
        selection, audio = _voice(voice, emotion, language), _audio(encoding, rate, speed)
        requests = [
            speech_pb2.SynthesizeRequest(
                input=speech_pb2.SynthesisInput(text=text), voice=selection, audio_config=audio, model=model,
                cache_control=_control(cache),
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
        request = cache_pb2.InvalidateRequest(**_the_one(what))
        return int(self._call(self._admin.Invalidate, request)[0].dropped)

    def erase(self, *, subject_id: str = "", voice: str = "") -> Erased:
        """Removes every trace of a person or a voice."""
        request = cache_pb2.EraseRequest(**_the_one({"subject_id": subject_id, "voice": voice}))
        answer, _ = self._call(self._admin.Erase, request)
        return Erased(answer.dropped, tuple(answer.acknowledged))

    def report_wrong_hit(self, entry_id: str) -> bool:
        """Says that the fuzzy answer of this Info.entry_id was wrong. True when its pair is now kept apart."""
        request = cache_pb2.ReportWrongHitRequest(entry_id=entry_id)
        return bool(self._call(self._admin.ReportWrongHit, request)[0].quarantined)

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
                if _code(error) not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise _call_error(error, self.target) from None
            finally:
                watch.cancel()
        raise RefrainCallError("DEADLINE_EXCEEDED", f"nothing serves at {self.target} after {timeout:g} s")

    def _call(self, method: Callable[..., Any], request: Any) -> tuple[Any, float]:
        started = time.perf_counter()
        with _errors(self.target):
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
            with _errors(self.target):
                for response in call:
                    whole = response.HasField("cache_info")
                    yield response, _info(response.cache_info, time.perf_counter() - started) if whole else None
        finally:
            call.cancel()  # a caller who stops listening stops the work


@contextmanager
def _errors(target: str) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise _call_error(error, target) from None


def _code(error: Any) -> grpc.StatusCode:
    code = error.code()
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _call_error(error: Any, target: str) -> RefrainCallError:
    """Reads the google.rpc.Status that rides in the trailing metadata, where there is one."""
    code, message = _code(error), error.details() or ""
    violations: list[Violation] = []
    retry_s = 0.0
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status()
    if isinstance(data := trailing.get("grpc-status-details-bin"), bytes):
        status.MergeFromString(data)
    for detail in status.details:
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(bad):
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(retry):
            retry_s = _seconds(retry.retry_delay)
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in message.lower():
        message = f"nothing answers at {target}; is `refrain serve` running there? ({message})"
    return RefrainCallError(code.name, message, violations, retry_s)


def _stub(make: Callable[[grpc.Channel], Any], channel: grpc.Channel) -> Any:
    return make(channel)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _duration(seconds: float) -> Duration:
    whole = int(seconds // 1)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _info(info: Any, elapsed_s: float) -> Info:
    return Info(
        speech_pb2.CacheInfo.Status.Name(info.status), info.tier, _seconds(info.age), info.similarity, info.engine,
        _seconds(info.saved_compute) * 1e3, info.entry_id, elapsed_s,
    )  # fmt: skip


def _speech(response: Any, elapsed_s: float) -> Speech:
    config = response.audio_config
    encoding = speech_pb2.AudioEncoding.Name(config.audio_encoding)
    return Speech(response.audio_content, encoding, config.sample_rate_hertz, _info(response.cache_info, elapsed_s))


def _heard(results: Any, info: Info | None, *, final: bool) -> Heard:
    best = [result.alternatives[0] for result in results if result.alternatives]
    words = tuple(
        HeardWord(word.word, _seconds(word.start_offset), _seconds(word.end_offset), word.confidence)
        for alternative in best
        for word in alternative.words
    )
    transcript = " ".join(alternative.transcript.strip() for alternative in best)
    confidence = min((alternative.confidence for alternative in best), default=0.0)
    return Heard(transcript, confidence, words, results[0].language_code if results else "", final, info)


def _control(options: CacheOptions) -> speech_pb2.CacheControl:
    control = speech_pb2.CacheControl()
    for name, value in options.items():
        if name in ("ttl", "max_age"):
            getattr(control, name).CopyFrom(_duration(cast(float, value)))
        elif name in ("mode", "match"):
            kinds = speech_pb2.CacheControl.Mode if name == "mode" else speech_pb2.CacheControl.Match
            setattr(control, name, _number(kinds, name, cast(str, value)))
        else:
            setattr(control, name, value)
    return control


def _voice(voice: str | Sequence[float], emotion: str, language: str) -> speech_pb2.VoiceSelectionParams:
    params = speech_pb2.VoiceSelectionParams(emotion=emotion, language_code=language)
    if isinstance(voice, str):
        if voice:  # a name that is set and empty is not an absent one
            params.name = voice
    else:
        params.embedding.values.extend(voice)
    return params


def _audio(encoding: str, rate: int, speed: float = 0.0) -> speech_pb2.AudioConfig:
    number = _number(speech_pb2.AudioEncoding, "encoding", encoding)
    return speech_pb2.AudioConfig(audio_encoding=number, sample_rate_hertz=rate, speaking_rate=speed)


def _recognition(
    encoding: str, rate: int, channels: int, language: str, model: str, words: bool
) -> speech_pb2.RecognitionConfig:
    """Without an encoding the audio's own header says what it is."""
    config = speech_pb2.RecognitionConfig(language_codes=[language] if language else [], model=model)
    config.features.enable_word_time_offsets = config.features.enable_word_confidence = words
    if encoding:
        config.explicit_decoding_config.encoding = _number(speech_pb2.AudioEncoding, "encoding", encoding)
        config.explicit_decoding_config.sample_rate_hertz = rate
        config.explicit_decoding_config.audio_channel_count = channels
    else:
        config.auto_decoding_config.SetInParent()
    return config


def _mel(mel: Array) -> speech_pb2.MelSpectrogram:
    if mel.ndim != 2:
        raise ValueError(f"mel: shape {mel.shape}; [80, T] is needed")
    return speech_pb2.MelSpectrogram(data=np.ascontiguousarray(mel, dtype="<f4").tobytes(), bands=mel.shape[0])


def _pcm(samples: Array) -> bytes:
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples: {samples.dtype} {samples.shape}; floats [n] or [n, 2] within -1..1 are needed")
    if not np.all(np.isfinite(samples)):
        raise ValueError("samples: some are not finite numbers")
    return np.round(np.clip(samples, -1.0, 1.0) * 32_767.0).astype("<i2").tobytes()


def _number(kinds: Any, what: str, name: str) -> Any:
    if name.upper() not in kinds.keys():  # noqa: SIM118 - an enum wrapper is no container
        raise ValueError(f"{what} {name!r}: known are {', '.join(kinds.keys())}")
    return kinds.Value(name.upper())


def _the_one(choices: dict[str, Any]) -> dict[str, Any]:
    """What was chosen. Raises ValueError unless it is exactly one."""
    given = {name: value for name, value in choices.items() if value}
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(choices)}; {', '.join(given) or 'none'} given")
    return given
