"""Requests to canonical utterances: every field checked here, once, and refused by its path in the proto.

`decode_synthesize` lies on the path of every hit, so the checks are written to cost nothing where all is well: a field
is read once, compared, and only a failure makes a message.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from google.protobuf.duration_pb2 import Duration

from gateway import audio
from gateway.audio import HEADERLESS, Decoding, Encoding, Output
from gateway.containers import HIGHEST_RATE, LOWEST_RATE, OPUS_RATES
from gateway.errors import BadField, NotServed, listed
from gateway.text import SPEAKABLE, canonical_text, speakable
from gateway.wire.values import CONFIDENCE, DEFAULT_CONTROL, OFFSETS, Control, Decoded, Limits, Match, Mode
from models.utterance import MEL_BANDS, MEL_HOP, MEL_RATE, RECOGNIZER_RATE, Mel, Text, Waveform
from protos.refrain.v1 import speech_pb2 as pb

EMBEDDING_LENGTHS: Final = (8, 16, 32, 64, 128, 256)
MEL_LOWEST: Final = -11.6
MEL_HIGHEST: Final = 5.0
MEL_TOLERANCE: Final = 0.01
"""What a float16 detour may add at the ends of the range."""
MEL_FRAME_BYTES: Final = 4 * MEL_BANDS
MEL_FRAMES: Final = int(audio.LONGEST_S * MEL_RATE / MEL_HOP)
SAMPLE_SHORTEST_S: Final = 0.5
SAMPLE_LONGEST_S: Final = 60.0
"""A voice or a mood is known long before; encoding takes memory by the second."""
TTL_SECONDS: Final = 366 * 86_400
AGE_SECONDS: Final = 315_576_000_000
"""The longest google.protobuf.Duration there is (duration.proto): 10,000 years."""
ID_BYTES: Final = 128


# ------------------------------------------------------------------------------------------------------------ tasks


def decode_recognize(request: pb.RecognizeRequest, limits: Limits) -> Decoded:
    """Raises `BadField`. Takes as long as decoding takes: see `costly`."""
    model, language, features = _recognition(request.config, limits, "config")
    control = _control(request.cache_control, "cache_control") if request.HasField("cache_control") else DEFAULT_CONTROL
    pcm = audio.canonical_pcm(request.content, decoding_of(request.config, "content", "config"))
    seconds = len(pcm) / (2 * RECOGNIZER_RATE)
    return Decoded(pcm, None, "", 1.0, language, model, None, features, control, seconds)


def decode_synthesize(request: pb.SynthesizeRequest, limits: Limits) -> Decoded:
    """Raises `BadField`."""
    text = canonical_text(request.input.text, "input.text", limits.text_bytes)
    if not speakable(text):
        raise BadField("input.text", text, SPEAKABLE, "holds nothing this voice can speak")
    voice, emotion, language, example = _voice(request.voice, limits, "voice")
    output = _output(request.audio_config, "audio_config")
    speed = _speed(request.audio_config.speaking_rate, "audio_config.speaking_rate")
    model = _model(request.model, "synthesize", limits, "model")
    control = _control(request.cache_control, "cache_control") if request.HasField("cache_control") else DEFAULT_CONTROL
    return Decoded(text.encode(), voice, emotion, speed, language, model, output, 0, control, 0.0, example)


def decode_vocode(request: pb.VocodeRequest, limits: Limits) -> Decoded:
    """Raises `BadField`."""
    output = _output(request.audio_config, "audio_config")
    _no_speed(request.audio_config.speaking_rate, "audio_config.speaking_rate")
    model = _model(request.model, "vocode", limits, "model")
    control = _control(request.cache_control, "cache_control") if request.HasField("cache_control") else DEFAULT_CONTROL
    mel = mel_bytes(request.mel, "mel")
    seconds = len(mel) / MEL_FRAME_BYTES * MEL_HOP / MEL_RATE
    return Decoded(mel, None, "", 1.0, "", model, output, 0, control, seconds)


def decode_embed(request: pb.EmbedVoiceRequest, limits: Limits) -> Decoded:
    """Raises `BadField`, and `NotServed` where there is no voice encoder. Takes as long as decoding takes."""
    if not limits.models.get("embed"):
        raise NotServed("this gateway runs no voice encoder")
    dimensions = request.dimensions or EMBEDDING_LENGTHS[-1]
    if dimensions not in EMBEDDING_LENGTHS:
        raise BadField("dimensions", dimensions, f"{', '.join(map(str, EMBEDDING_LENGTHS))}, or 0 for 256")
    model = _model(request.model, "embed", limits, "model")
    control = _control(request.cache_control, "cache_control") if request.HasField("cache_control") else DEFAULT_CONTROL
    pcm = _sample(request.recording, "recording")
    seconds = len(pcm) / (2 * RECOGNIZER_RATE)
    return Decoded(pcm, None, "", 1.0, "", model, None, dimensions, control, seconds)


def decode_streaming_recognize_config(config: pb.StreamingRecognitionConfig, limits: Limits) -> Decoded:
    """`config` without its sound, which `streams.audio_collector` gathers. Raises `BadField`."""
    model, language, features = _recognition(config.config, limits, "streaming_config.config")
    decoding_of(config.config, "audio", "streaming_config.config")
    control = _control(config.cache_control, "streaming_config.cache_control")
    return Decoded(b"", None, "", 1.0, language, model, None, features, control, 0.0)


def decode_streaming_synthesize_config(config: pb.StreamingSynthesizeConfig, limits: Limits) -> Decoded:
    """`config` without its text, which `streams.sentences` gathers. Raises `BadField`."""
    voice, emotion, language, example = _voice(config.voice, limits, "streaming_config.voice")
    output = _headerless(_output(config.audio_config, "streaming_config.audio_config"))
    speed = _speed(config.audio_config.speaking_rate, "streaming_config.audio_config.speaking_rate")
    model = _model(config.model, "synthesize", limits, "streaming_config.model")
    control = _control(config.cache_control, "streaming_config.cache_control")
    return Decoded(b"", voice, emotion, speed, language, model, output, 0, control, 0.0, example)


def decode_streaming_vocode_config(config: pb.StreamingVocodeConfig, limits: Limits) -> Decoded:
    """`config` without its mel, which `streams.mel_collector` gathers. Raises `BadField`."""
    output = _headerless(_output(config.audio_config, "streaming_config.audio_config"))
    _no_speed(config.audio_config.speaking_rate, "streaming_config.audio_config.speaking_rate")
    model = _model(config.model, "vocode", limits, "streaming_config.model")
    control = _control(config.cache_control, "streaming_config.cache_control")
    return Decoded(b"", None, "", 1.0, "", model, output, 0, control, 0.0)


def reads_cache(
    request: pb.RecognizeRequest | pb.SynthesizeRequest | pb.VocodeRequest | pb.EmbedVoiceRequest,
) -> bool:
    """Whether a request may be answered from memory. Never raises: what is wrong with it, decoding says."""
    return _MODES.get(request.cache_control.mode) not in (Mode.BYPASS, Mode.REFRESH)


def costly(request: pb.RecognizeRequest) -> bool:
    """Whether decoding `request` belongs in a thread. Never raises: what is wrong with it, decoding says."""
    try:
        return audio.costly(decoding_of(request.config, "content", "config"), request.content)
    except BadField:
        return False


def costly_sample(request: pb.EmbedVoiceRequest) -> bool:
    """`costly`, of a request to embed."""
    try:
        sample = request.recording
        return audio.costly(decoding_of(sample, "recording.content", "recording"), sample.content)
    except BadField:
        return False


def utterance_content(task: str, canonical: bytes) -> Waveform | Text | Mel:
    """What an engine takes, from what was hashed: made on a miss only."""
    if task in ("recognize", "embed"):
        return audio.waveform(canonical)
    if task == "synthesize":
        return Text(canonical.decode())
    if task == "vocode":
        return Mel(np.frombuffer(canonical, "<f4").reshape(MEL_BANDS, -1))
    raise ValueError(f"no task {task!r}")


# ----------------------------------------------------------------------------------------------------------- fields


def _recognition(config: pb.RecognitionConfig, limits: Limits, at: str) -> tuple[str, str, int]:
    codes = config.language_codes
    if len(codes) > 1:
        raise BadField(f"{at}.language_codes", ", ".join(codes[:5]), "at most one")
    language = _language(codes[0] if codes else "", limits, f"{at}.language_codes")
    features = config.features
    bits = OFFSETS * features.enable_word_time_offsets | CONFIDENCE * features.enable_word_confidence
    return _model(config.model, "recognize", limits, f"{at}.model"), language, bits


def decoding_of(config: pb.RecognitionConfig | pb.VoiceSample, content_field: str, at: str) -> Decoding:
    """How `config` says the sound is encoded. Raises `BadField`."""
    if not config.HasField("explicit_decoding_config"):
        return Decoding(None, 0, 0, content_field, f"{at}.explicit_decoding_config")
    explicit, at = config.explicit_decoding_config, f"{at}.explicit_decoding_config"
    encoding = _ENCODINGS.get(explicit.encoding)
    if encoding is None:
        raise BadField(f"{at}.encoding", explicit.encoding, _ENCODING_NAMES)
    rate, channels = explicit.sample_rate_hertz, explicit.audio_channel_count
    if not LOWEST_RATE <= rate <= HIGHEST_RATE and (rate or encoding in HEADERLESS):
        needed = f", required for {encoding.name}" if encoding in HEADERLESS else ", or 0 for the header's"
        raise BadField(f"{at}.sample_rate_hertz", rate, audio.ALLOWED_RATES + needed)
    if not 0 <= channels <= 2:
        raise BadField(f"{at}.audio_channel_count", channels, "1 or 2, or 0 for what the recording has")
    return Decoding(encoding, rate, channels, content_field, at)


def _sample(sample: pb.VoiceSample, at: str) -> bytes:
    """Canonical PCM of a sample of speech, 0.5 s to 60 s of it."""
    pcm = audio.canonical_pcm(sample.content, decoding_of(sample, f"{at}.content", at))
    seconds = len(pcm) / (2 * RECOGNIZER_RATE)
    if not SAMPLE_SHORTEST_S <= seconds <= SAMPLE_LONGEST_S:
        allowed = f"{SAMPLE_SHORTEST_S:g} s to {SAMPLE_LONGEST_S:g} s of speech"
        raise BadField(f"{at}.content", sample.content, allowed, f"{seconds:.6g} s")
    return pcm


def _voice(
    params: pb.VoiceSelectionParams, limits: Limits, at: str
) -> tuple[str | tuple[float, ...] | None, str, str, bytes]:
    """Voice, mood, language, and canonical PCM of the mood's example, where that is to say which mood."""
    name = params.name
    voice: str | tuple[float, ...] | None = name or None
    if name:
        if name not in limits.voices:
            raise BadField(f"{at}.name", name, listed(limits.voices))
    elif params.HasField("embedding"):
        voice = _embedding(params.embedding, f"{at}.embedding.values")
    emotion, example = params.emotion, b""
    if not emotion:
        if params.HasField("emotion_audio"):
            example = _sample(params.emotion_audio, f"{at}.emotion_audio")
        else:
            emotion = limits.default_emotion
    elif emotion not in limits.emotions:
        raise BadField(f"{at}.emotion", emotion, listed(limits.emotions))
    code = params.language_code
    return voice, emotion, _language(code, limits, f"{at}.language_code") if code else limits.languages[0], example


def _embedding(embedding: pb.VoiceEmbedding, at: str) -> tuple[float, ...]:
    count = len(embedding.values)
    if count not in EMBEDDING_LENGTHS:
        lengths = ", ".join(map(str, EMBEDDING_LENGTHS))
        raise BadField(at, f"{count} numbers", f"{lengths} numbers")
    values = tuple(embedding.values)
    if not all(map(math.isfinite, values)):
        raise BadField(at, next(v for v in values if not math.isfinite(v)), "finite numbers")
    if math.hypot(*values) == 0.0:
        raise BadField(at, f"{count} zeros", "numbers that are not all zero")
    return values


def _language(code: str, limits: Limits, at: str) -> str:
    if not code:
        return limits.languages[0]
    folded = code.casefold()
    for language in limits.languages:
        if language.casefold() == folded:
            return language
    for language in limits.languages:
        if language.casefold().startswith(folded + "-"):
            return language
    raise BadField(at, code, listed(limits.languages))


def _model(name: str, task: str, limits: Limits, at: str) -> str:
    names = limits.models.get(task, ())
    if name and name not in names:
        raise BadField(at, name, listed(names))
    return name


_ENCODINGS: Final = {int(encoding): encoding for encoding in Encoding}
_ENCODING_NAMES: Final = ", ".join(encoding.name for encoding in Encoding)
_OWN_RATES: Final = {Encoding.MULAW: 8_000, Encoding.OGG_OPUS: 48_000}
_DEFAULT_OUTPUT: Final = Output(Encoding.LINEAR16, MEL_RATE)


def _output(config: pb.AudioConfig, at: str) -> Output:
    number, rate = config.audio_encoding, config.sample_rate_hertz
    if not number and not rate:
        return _DEFAULT_OUTPUT
    encoding = _ENCODINGS.get(number or Encoding.LINEAR16)
    if encoding is None:
        raise BadField(f"{at}.audio_encoding", number, _ENCODING_NAMES)
    if rate == 0:
        return Output(encoding, _OWN_RATES.get(encoding, MEL_RATE))
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadField(f"{at}.sample_rate_hertz", rate, f"{audio.ALLOWED_RATES}, or 0 for the model's own")
    if encoding is Encoding.OGG_OPUS and rate not in OPUS_RATES:
        rates = ", ".join(map(str, OPUS_RATES))
        raise BadField(f"{at}.sample_rate_hertz", rate, f"{rates} for OGG_OPUS, or 0 for 48000")
    return Output(encoding, rate)


def _headerless(output: Output) -> Output:
    if output.encoding not in HEADERLESS:
        allowed = "LINEAR16 or MULAW in a stream"
        raise BadField("streaming_config.audio_config.audio_encoding", output.encoding.name, allowed)
    return output


def _speed(rate: float, at: str) -> float:
    if rate == 0:
        return 1.0
    if not 0.5 <= rate <= 2.0:
        raise BadField(at, rate, "0.5 to 2, or 0 for 1")
    return round(rate, 3)


def _no_speed(rate: float, at: str) -> None:
    if rate not in (0.0, 1.0):
        raise BadField(at, rate, "0 or 1: a mel has its pace already")


_MODES: Final = {int(mode): mode for mode in Mode}
_MATCHES: Final = {int(match): match for match in Match}


def _control(control: pb.CacheControl, at: str) -> Control:
    mode, match = _MODES.get(control.mode), _MATCHES.get(control.match)
    if mode is None:
        raise BadField(f"{at}.mode", control.mode, ", ".join(mode.name for mode in Mode))
    if match is None:
        raise BadField(f"{at}.match", control.match, "EXACT or FUZZY, or 0 for the tenant's policy")
    ttl = _duration(control.ttl, f"{at}.ttl", TTL_SECONDS) if control.HasField("ttl") else 0.0
    max_age = _duration(control.max_age, f"{at}.max_age", AGE_SECONDS) if control.HasField("max_age") else None
    similarity = control.min_similarity
    if not 0.0 <= similarity <= 1.0:
        raise BadField(f"{at}.min_similarity", similarity, "0 to 1")
    session, subject = control.session_id, control.subject_id
    if len(session.encode()) > ID_BYTES:
        raise BadField(f"{at}.session_id", session, f"at most {ID_BYTES} bytes of UTF-8")
    if len(subject.encode()) > ID_BYTES:
        raise BadField(f"{at}.subject_id", subject, f"at most {ID_BYTES} bytes of UTF-8")
    return Control(mode, control.no_store, match, ttl or None, max_age, similarity, session, subject)


def _duration(duration: Duration, at: str, most: int) -> float:
    seconds, nanos = duration.seconds, duration.nanos
    value = seconds + nanos / 1e9
    if seconds < 0 or not 0 <= nanos < 1_000_000_000 or value > most:
        raise BadField(at, f"{seconds} s and {nanos} ns", f"0 s to {most} s ({most // 86_400} days)")
    return value


def mel_bytes(mel: pb.MelSpectrogram, at: str) -> bytes:
    """The bytes of a mel of the shared kind: 80 bands, 1 to 51,679 frames, finite, in range. Raises `BadField`."""
    if mel.bands != MEL_BANDS:
        raise BadField(f"{at}.bands", mel.bands, f"{MEL_BANDS}")
    if mel.sample_rate_hertz not in (0, MEL_RATE):
        raise BadField(f"{at}.sample_rate_hertz", mel.sample_rate_hertz, f"{MEL_RATE}, or 0 for that")
    if mel.hop_length not in (0, MEL_HOP):
        raise BadField(f"{at}.hop_length", mel.hop_length, f"{MEL_HOP}, or 0 for that")
    data = mel.data
    frames, rest = divmod(len(data), MEL_FRAME_BYTES)
    if rest or not 1 <= frames <= MEL_FRAMES:
        allowed = f"float32 [{MEL_BANDS}, T]: {MEL_FRAME_BYTES} bytes for each of 1 to {MEL_FRAMES} frames"
        raise BadField(f"{at}.data", data, allowed)
    values = np.frombuffer(data, "<f4")
    low, high = float(values.min()), float(values.max())
    if not (low >= MEL_LOWEST - MEL_TOLERANCE and high <= MEL_HIGHEST + MEL_TOLERANCE):
        why = f"holds {low:.6g} to {high:.6g}" if math.isfinite(low + high) else "holds NaN or infinite values"
        raise BadField(f"{at}.data", data, f"natural logarithms within {MEL_LOWEST:g} to {MEL_HIGHEST:g}", why)
    return data
