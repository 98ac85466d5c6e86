"""Plain values to request messages, and response messages to plain values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from google.protobuf.duration_pb2 import Duration

from gateway.client.explained import Candidate, Explanation, Timeline
from gateway.client.values import Array, CacheOptions, Embedded, Heard, HeardWord, Info, Speech
from gateway.stats import AuditCount, AuditedPair, LanguageAudits, LanguageCount, VoiceAudits
from protos.refrain.v1 import cache_pb2, speech_pb2


def seconds_of(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def duration_of(seconds: float) -> Duration:
    whole = int(seconds // 1)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def info_of(info: Any, elapsed_s: float) -> Info:
    return Info(
        speech_pb2.CacheInfo.Status.Name(info.status), info.tier, seconds_of(info.age), info.similarity, info.engine,
        seconds_of(info.saved_compute) * 1e3, info.entry_id, elapsed_s,
    )  # fmt: skip


def speech_of(response: Any, elapsed_s: float) -> Speech:
    config = response.audio_config
    encoding = speech_pb2.AudioEncoding.Name(config.audio_encoding)
    return Speech(response.audio_content, encoding, config.sample_rate_hertz, info_of(response.cache_info, elapsed_s))


def heard_of(results: Any, info: Info | None, *, final: bool) -> Heard:
    best = [result.alternatives[0] for result in results if result.alternatives]
    words = tuple(
        HeardWord(word.word, seconds_of(word.start_offset), seconds_of(word.end_offset), word.confidence)
        for alternative in best
        for word in alternative.words
    )
    transcript = " ".join(alternative.transcript.strip() for alternative in best)
    confidence = min((alternative.confidence for alternative in best), default=0.0)
    return Heard(transcript, confidence, words, results[0].language_code if results else "", final, info)


def embedded_of(response: Any, elapsed_s: float) -> Embedded:
    values = np.array(response.embedding.values, np.float32)
    near = response.nearest_voice
    return Embedded(values, near.name, near.cosine, info_of(response.cache_info, elapsed_s))


def explanation_of(told: Any) -> Explanation:
    """Of an ExplainRecallResponse."""
    kind = cache_pb2.ExplainRecallResponse
    return Explanation(
        kind.Outcome.Name(told.outcome), kind.Fingerprint.Name(told.fingerprint), kind.Serving.Name(told.serving),
        told.wrong_upper_bound, told.limit, told.from_similarity, told.recordings, seconds_of(told.length),
        seconds_of(told.frame), _line(told.level), _line(told.speech), tuple(map(_candidate_of, told.candidates)),
    )  # fmt: skip


def _candidate_of(told: Any) -> Candidate:
    lines = told.timeline
    timeline = Timeline(
        seconds_of(lines.start), _line(lines.level), _line(lines.speech), _line(lines.evidence), _line(lines.known),
        _line(lines.against),
    )  # fmt: skip
    return Candidate(
        told.entry_id, told.pair_id, told.itself, told.quarantined, told.accepted, told.reason, told.similarity,
        told.distance, told.score if told.HasField("score") else None, seconds_of(told.offset), told.pace,
        seconds_of(told.worst), told.remembered, told.transcript, timeline,
    )  # fmt: skip


def _line(values: Any) -> Array:
    return np.array(values, np.float32)


def audits_of(count: Any) -> AuditCount:
    return AuditCount(
        count.audited, count.wrong, count.undecided, count.wrong_upper_bound, count.limit, count.serving,
        count.doubted_upper_bound, count.from_similarity, count.alarms, count.shadow, count.would_serve, count.withheld,
    )  # fmt: skip


def labels_of(answer: Any) -> tuple[list[LanguageCount], list[LanguageAudits], list[VoiceAudits]]:
    """What a GetStatsResponse says by language and voice."""
    counts = [
        LanguageCount(row.task, row.language, row.requests, row.hits_exact, row.hits_fuzzy) for row in answer.languages
    ]
    audits = [
        LanguageAudits(row.language, row.audited, row.wrong, row.undecided, row.wrong_upper_bound)
        for row in answer.audits_by_language
    ]
    voices = [
        VoiceAudits(row.voice, row.audited, row.wrong, row.undecided, row.wrong_upper_bound)
        for row in answer.audits_by_voice
    ]
    return counts, audits, voices


def pair_of(told: Any) -> AuditedPair:
    kind, verdict = told.Kind.Name(told.kind), told.Verdict.Name(told.verdict)
    return AuditedPair(
        kind.lower().replace("_", " "), verdict.lower(), told.similarity, told.entry_id, told.answer_id, told.asked,
        told.recalled, told.language, told.voice, float(told.judged_at),
    )  # fmt: skip


def cache_control(options: CacheOptions) -> speech_pb2.CacheControl:
    control = speech_pb2.CacheControl()
    for name, value in options.items():
        if name in ("ttl", "max_age"):
            getattr(control, name).CopyFrom(duration_of(cast(float, value)))
        elif name in ("mode", "match"):
            kinds = speech_pb2.CacheControl.Mode if name == "mode" else speech_pb2.CacheControl.Match
            setattr(control, name, number_of(kinds, name, cast(str, value)))
        else:
            setattr(control, name, value)
    return control


def voice_params(
    voice: str | Sequence[float] | Array, emotion: str, language: str, emotion_audio: Path | str | bytes | None = None
) -> speech_pb2.VoiceSelectionParams:
    params = speech_pb2.VoiceSelectionParams(emotion=emotion, language_code=language)
    if isinstance(voice, str):
        if voice:  # a name that is set and empty is not an absent one
            params.name = voice
    else:
        values = np.asarray(voice, np.float32)
        if values.ndim != 1:
            raise ValueError(f"voice: shape {values.shape}; 8 to 256 numbers in a row are needed")
        params.embedding.values.extend(values.tolist())
    if emotion_audio is not None:
        params.emotion_audio.CopyFrom(sample_of(emotion_audio))
    return params


def audio_config(encoding: str, rate: int, speed: float = 0.0) -> speech_pb2.AudioConfig:
    number = number_of(speech_pb2.AudioEncoding, "encoding", encoding)
    return speech_pb2.AudioConfig(audio_encoding=number, sample_rate_hertz=rate, speaking_rate=speed)


def recognition_config(
    encoding: str, rate: int, channels: int, language: str, model: str, words: bool
) -> speech_pb2.RecognitionConfig:
    """Without an encoding the audio's own header says what it is."""
    config = speech_pb2.RecognitionConfig(language_codes=[language] if language else [], model=model)
    config.features.enable_word_time_offsets = config.features.enable_word_confidence = words
    if encoding:
        config.explicit_decoding_config.CopyFrom(explicit_config(encoding, rate, channels))
    else:
        config.auto_decoding_config.SetInParent()
    return config


def recognize_request(
    recording: Path | str | bytes | Array,
    fuzzy: bool,
    encoding: str,
    rate: int,
    channels: int,
    language: str,
    model: str,
    words: bool,
    cache: CacheOptions,
) -> speech_pb2.RecognizeRequest:
    content, encoding, channels = recording_of(recording, encoding, channels)
    if fuzzy:
        cache["match"] = "FUZZY"
    config = recognition_config(encoding, rate, channels, language, model, words)
    return speech_pb2.RecognizeRequest(config=config, content=content, cache_control=cache_control(cache))


def recording_of(recording: Path | str | bytes | Array, encoding: str, channels: int) -> tuple[bytes, str, int]:
    """The bytes of a file, of bytes or of samples, and what is now known of their encoding and channels."""
    if isinstance(recording, np.ndarray):
        return pcm_of(recording), "LINEAR16", 1 if recording.ndim == 1 else recording.shape[1]
    return recording if isinstance(recording, bytes) else Path(recording).read_bytes(), encoding, channels


def sample_of(
    recording: Path | str | bytes | Array, encoding: str = "", rate: int = 0, channels: int = 0
) -> speech_pb2.VoiceSample:
    content, encoding, channels = recording_of(recording, encoding, channels)
    sample = speech_pb2.VoiceSample(content=content)
    if encoding:
        sample.explicit_decoding_config.CopyFrom(explicit_config(encoding, rate, channels))
    return sample


def explicit_config(encoding: str, rate: int, channels: int) -> speech_pb2.ExplicitDecodingConfig:
    number = number_of(speech_pb2.AudioEncoding, "encoding", encoding)
    return speech_pb2.ExplicitDecodingConfig(encoding=number, sample_rate_hertz=rate, audio_channel_count=channels)


def mel_of(mel: Array) -> speech_pb2.MelSpectrogram:
    if mel.ndim != 2:
        raise ValueError(f"mel: shape {mel.shape}; [80, T] is needed")
    return speech_pb2.MelSpectrogram(data=np.ascontiguousarray(mel, dtype="<f4").tobytes(), bands=mel.shape[0])


def pcm_of(samples: Array) -> bytes:
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples: {samples.dtype} {samples.shape}; floats [n] or [n, 2] within -1..1 are needed")
    if not np.all(np.isfinite(samples)):
        raise ValueError("samples: some are not finite numbers")
    return np.round(np.clip(samples, -1.0, 1.0) * 32_767.0).astype("<i2").tobytes()


def number_of(kinds: Any, what: str, name: str) -> Any:
    if name.upper() not in kinds.keys():  # noqa: SIM118 - an enum wrapper is no container
        raise ValueError(f"{what} {name!r}: known are {', '.join(kinds.keys())}")
    return kinds.Value(name.upper())


def the_one(choices: dict[str, Any]) -> dict[str, Any]:
    """What was chosen. Raises ValueError unless it is exactly one."""
    given = {name: value for name, value in choices.items() if value}
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(choices)}; {', '.join(given) or 'none'} given")
    return given
