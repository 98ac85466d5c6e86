import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_ENCODING_UNSPECIFIED: _ClassVar[AudioEncoding]
    LINEAR16: _ClassVar[AudioEncoding]
    WAV: _ClassVar[AudioEncoding]
    FLAC: _ClassVar[AudioEncoding]
    MULAW: _ClassVar[AudioEncoding]
    OGG_OPUS: _ClassVar[AudioEncoding]
AUDIO_ENCODING_UNSPECIFIED: AudioEncoding
LINEAR16: AudioEncoding
WAV: AudioEncoding
FLAC: AudioEncoding
MULAW: AudioEncoding
OGG_OPUS: AudioEncoding

class CacheControl(_message.Message):
    __slots__ = ("mode", "no_store", "match", "ttl", "max_age", "min_similarity", "session_id", "subject_id")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DEFAULT: _ClassVar[CacheControl.Mode]
        BYPASS: _ClassVar[CacheControl.Mode]
        REFRESH: _ClassVar[CacheControl.Mode]
        ONLY_IF_CACHED: _ClassVar[CacheControl.Mode]
    DEFAULT: CacheControl.Mode
    BYPASS: CacheControl.Mode
    REFRESH: CacheControl.Mode
    ONLY_IF_CACHED: CacheControl.Mode
    class Match(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MATCH_UNSPECIFIED: _ClassVar[CacheControl.Match]
        EXACT: _ClassVar[CacheControl.Match]
        FUZZY: _ClassVar[CacheControl.Match]
    MATCH_UNSPECIFIED: CacheControl.Match
    EXACT: CacheControl.Match
    FUZZY: CacheControl.Match
    MODE_FIELD_NUMBER: _ClassVar[int]
    NO_STORE_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    MIN_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    mode: CacheControl.Mode
    no_store: bool
    match: CacheControl.Match
    ttl: _duration_pb2.Duration
    max_age: _duration_pb2.Duration
    min_similarity: float
    session_id: str
    subject_id: str
    def __init__(self, mode: _Optional[_Union[CacheControl.Mode, str]] = ..., no_store: _Optional[bool] = ..., match: _Optional[_Union[CacheControl.Match, str]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., min_similarity: _Optional[float] = ..., session_id: _Optional[str] = ..., subject_id: _Optional[str] = ...) -> None: ...

class CacheInfo(_message.Message):
    __slots__ = ("status", "tier", "age", "similarity", "engine", "saved_compute", "entry_id")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[CacheInfo.Status]
        HIT_EXACT: _ClassVar[CacheInfo.Status]
        HIT_FUZZY: _ClassVar[CacheInfo.Status]
        MISS: _ClassVar[CacheInfo.Status]
        COALESCED: _ClassVar[CacheInfo.Status]
        BYPASS: _ClassVar[CacheInfo.Status]
    STATUS_UNSPECIFIED: CacheInfo.Status
    HIT_EXACT: CacheInfo.Status
    HIT_FUZZY: CacheInfo.Status
    MISS: CacheInfo.Status
    COALESCED: CacheInfo.Status
    BYPASS: CacheInfo.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    SAVED_COMPUTE_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    status: CacheInfo.Status
    tier: str
    age: _duration_pb2.Duration
    similarity: float
    engine: str
    saved_compute: _duration_pb2.Duration
    entry_id: str
    def __init__(self, status: _Optional[_Union[CacheInfo.Status, str]] = ..., tier: _Optional[str] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., similarity: _Optional[float] = ..., engine: _Optional[str] = ..., saved_compute: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., entry_id: _Optional[str] = ...) -> None: ...

class AudioConfig(_message.Message):
    __slots__ = ("audio_encoding", "sample_rate_hertz", "speaking_rate")
    AUDIO_ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    SPEAKING_RATE_FIELD_NUMBER: _ClassVar[int]
    audio_encoding: AudioEncoding
    sample_rate_hertz: int
    speaking_rate: float
    def __init__(self, audio_encoding: _Optional[_Union[AudioEncoding, str]] = ..., sample_rate_hertz: _Optional[int] = ..., speaking_rate: _Optional[float] = ...) -> None: ...

class ExplicitDecodingConfig(_message.Message):
    __slots__ = ("encoding", "sample_rate_hertz", "audio_channel_count")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    encoding: AudioEncoding
    sample_rate_hertz: int
    audio_channel_count: int
    def __init__(self, encoding: _Optional[_Union[AudioEncoding, str]] = ..., sample_rate_hertz: _Optional[int] = ..., audio_channel_count: _Optional[int] = ...) -> None: ...

class AutoDetectDecodingConfig(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VoiceSample(_message.Message):
    __slots__ = ("auto_decoding_config", "explicit_decoding_config", "content")
    AUTO_DECODING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_DECODING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    auto_decoding_config: AutoDetectDecodingConfig
    explicit_decoding_config: ExplicitDecodingConfig
    content: bytes
    def __init__(self, auto_decoding_config: _Optional[_Union[AutoDetectDecodingConfig, _Mapping]] = ..., explicit_decoding_config: _Optional[_Union[ExplicitDecodingConfig, _Mapping]] = ..., content: _Optional[bytes] = ...) -> None: ...

class RecognitionFeatures(_message.Message):
    __slots__ = ("enable_word_time_offsets", "enable_word_confidence")
    ENABLE_WORD_TIME_OFFSETS_FIELD_NUMBER: _ClassVar[int]
    ENABLE_WORD_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    enable_word_time_offsets: bool
    enable_word_confidence: bool
    def __init__(self, enable_word_time_offsets: _Optional[bool] = ..., enable_word_confidence: _Optional[bool] = ...) -> None: ...

class RecognitionConfig(_message.Message):
    __slots__ = ("auto_decoding_config", "explicit_decoding_config", "language_codes", "model", "features")
    AUTO_DECODING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    EXPLICIT_DECODING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    auto_decoding_config: AutoDetectDecodingConfig
    explicit_decoding_config: ExplicitDecodingConfig
    language_codes: _containers.RepeatedScalarFieldContainer[str]
    model: str
    features: RecognitionFeatures
    def __init__(self, auto_decoding_config: _Optional[_Union[AutoDetectDecodingConfig, _Mapping]] = ..., explicit_decoding_config: _Optional[_Union[ExplicitDecodingConfig, _Mapping]] = ..., language_codes: _Optional[_Iterable[str]] = ..., model: _Optional[str] = ..., features: _Optional[_Union[RecognitionFeatures, _Mapping]] = ...) -> None: ...

class RecognizeRequest(_message.Message):
    __slots__ = ("config", "content", "cache_control")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CACHE_CONTROL_FIELD_NUMBER: _ClassVar[int]
    config: RecognitionConfig
    content: bytes
    cache_control: CacheControl
    def __init__(self, config: _Optional[_Union[RecognitionConfig, _Mapping]] = ..., content: _Optional[bytes] = ..., cache_control: _Optional[_Union[CacheControl, _Mapping]] = ...) -> None: ...

class WordInfo(_message.Message):
    __slots__ = ("start_offset", "end_offset", "word", "confidence")
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    WORD_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    start_offset: _duration_pb2.Duration
    end_offset: _duration_pb2.Duration
    word: str
    confidence: float
    def __init__(self, start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., word: _Optional[str] = ..., confidence: _Optional[float] = ...) -> None: ...

class SpeechRecognitionAlternative(_message.Message):
    __slots__ = ("transcript", "confidence", "words")
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    transcript: str
    confidence: float
    words: _containers.RepeatedCompositeFieldContainer[WordInfo]
    def __init__(self, transcript: _Optional[str] = ..., confidence: _Optional[float] = ..., words: _Optional[_Iterable[_Union[WordInfo, _Mapping]]] = ...) -> None: ...

class SpeechRecognitionResult(_message.Message):
    __slots__ = ("alternatives", "is_final", "result_end_offset", "language_code")
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    RESULT_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    alternatives: _containers.RepeatedCompositeFieldContainer[SpeechRecognitionAlternative]
    is_final: bool
    result_end_offset: _duration_pb2.Duration
    language_code: str
    def __init__(self, alternatives: _Optional[_Iterable[_Union[SpeechRecognitionAlternative, _Mapping]]] = ..., is_final: _Optional[bool] = ..., result_end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., language_code: _Optional[str] = ...) -> None: ...

class RecognizeResponse(_message.Message):
    __slots__ = ("results", "cache_info")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_INFO_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SpeechRecognitionResult]
    cache_info: CacheInfo
    def __init__(self, results: _Optional[_Iterable[_Union[SpeechRecognitionResult, _Mapping]]] = ..., cache_info: _Optional[_Union[CacheInfo, _Mapping]] = ...) -> None: ...

class StreamingRecognitionConfig(_message.Message):
    __slots__ = ("config", "interim_results", "cache_control")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    INTERIM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_CONTROL_FIELD_NUMBER: _ClassVar[int]
    config: RecognitionConfig
    interim_results: bool
    cache_control: CacheControl
    def __init__(self, config: _Optional[_Union[RecognitionConfig, _Mapping]] = ..., interim_results: _Optional[bool] = ..., cache_control: _Optional[_Union[CacheControl, _Mapping]] = ...) -> None: ...

class StreamingRecognizeRequest(_message.Message):
    __slots__ = ("streaming_config", "audio")
    STREAMING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    streaming_config: StreamingRecognitionConfig
    audio: bytes
    def __init__(self, streaming_config: _Optional[_Union[StreamingRecognitionConfig, _Mapping]] = ..., audio: _Optional[bytes] = ...) -> None: ...

class StreamingRecognitionResult(_message.Message):
    __slots__ = ("alternatives", "is_final", "result_end_offset", "language_code")
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    RESULT_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    alternatives: _containers.RepeatedCompositeFieldContainer[SpeechRecognitionAlternative]
    is_final: bool
    result_end_offset: _duration_pb2.Duration
    language_code: str
    def __init__(self, alternatives: _Optional[_Iterable[_Union[SpeechRecognitionAlternative, _Mapping]]] = ..., is_final: _Optional[bool] = ..., result_end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., language_code: _Optional[str] = ...) -> None: ...

class StreamingRecognizeResponse(_message.Message):
    __slots__ = ("results", "cache_info")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_INFO_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[StreamingRecognitionResult]
    cache_info: CacheInfo
    def __init__(self, results: _Optional[_Iterable[_Union[StreamingRecognitionResult, _Mapping]]] = ..., cache_info: _Optional[_Union[CacheInfo, _Mapping]] = ...) -> None: ...

class SynthesisInput(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class VoiceEmbedding(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class VoiceSelectionParams(_message.Message):
    __slots__ = ("name", "embedding", "language_code", "emotion", "emotion_audio")
    NAME_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    EMOTION_FIELD_NUMBER: _ClassVar[int]
    EMOTION_AUDIO_FIELD_NUMBER: _ClassVar[int]
    name: str
    embedding: VoiceEmbedding
    language_code: str
    emotion: str
    emotion_audio: VoiceSample
    def __init__(self, name: _Optional[str] = ..., embedding: _Optional[_Union[VoiceEmbedding, _Mapping]] = ..., language_code: _Optional[str] = ..., emotion: _Optional[str] = ..., emotion_audio: _Optional[_Union[VoiceSample, _Mapping]] = ...) -> None: ...

class SynthesizeRequest(_message.Message):
    __slots__ = ("input", "voice", "audio_config", "model", "cache_control")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CONFIG_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CACHE_CONTROL_FIELD_NUMBER: _ClassVar[int]
    input: SynthesisInput
    voice: VoiceSelectionParams
    audio_config: AudioConfig
    model: str
    cache_control: CacheControl
    def __init__(self, input: _Optional[_Union[SynthesisInput, _Mapping]] = ..., voice: _Optional[_Union[VoiceSelectionParams, _Mapping]] = ..., audio_config: _Optional[_Union[AudioConfig, _Mapping]] = ..., model: _Optional[str] = ..., cache_control: _Optional[_Union[CacheControl, _Mapping]] = ...) -> None: ...

class SynthesizeResponse(_message.Message):
    __slots__ = ("audio_content", "audio_config", "cache_info")
    AUDIO_CONTENT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CACHE_INFO_FIELD_NUMBER: _ClassVar[int]
    audio_content: bytes
    audio_config: AudioConfig
    cache_info: CacheInfo
    def __init__(self, audio_content: _Optional[bytes] = ..., audio_config: _Optional[_Union[AudioConfig, _Mapping]] = ..., cache_info: _Optional[_Union[CacheInfo, _Mapping]] = ...) -> None: ...

class StreamingSynthesizeConfig(_message.Message):
    __slots__ = ("voice", "audio_config", "model", "cache_control")
    VOICE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CONFIG_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CACHE_CONTROL_FIELD_NUMBER: _ClassVar[int]
    voice: VoiceSelectionParams
    audio_config: AudioConfig
    model: str
    cache_control: CacheControl
    def __init__(self, voice: _Optional[_Union[VoiceSelectionParams, _Mapping]] = ..., audio_config: _Optional[_Union[AudioConfig, _Mapping]] = ..., model: _Optional[str] = ..., cache_control: _Optional[_Union[CacheControl, _Mapping]] = ...) -> None: ...

class StreamingSynthesizeRequest(_message.Message):
    __slots__ = ("streaming_config", "input")
    STREAMING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    streaming_config: StreamingSynthesizeConfig
    input: SynthesisInput
    def __init__(self, streaming_config: _Optional[_Union[StreamingSynthesizeConfig, _Mapping]] = ..., input: _Optional[_Union[SynthesisInput, _Mapping]] = ...) -> None: ...

class StreamingSynthesizeResponse(_message.Message):
    __slots__ = ("audio_content", "cache_info")
    AUDIO_CONTENT_FIELD_NUMBER: _ClassVar[int]
    CACHE_INFO_FIELD_NUMBER: _ClassVar[int]
    audio_content: bytes
    cache_info: CacheInfo
    def __init__(self, audio_content: _Optional[bytes] = ..., cache_info: _Optional[_Union[CacheInfo, _Mapping]] = ...) -> None: ...

class MelSpectrogram(_message.Message):
    __slots__ = ("data", "bands", "sample_rate_hertz", "hop_length")
    DATA_FIELD_NUMBER: _ClassVar[int]
    BANDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    HOP_LENGTH_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    bands: int
    sample_rate_hertz: int
    hop_length: int
    def __init__(self, data: _Optional[bytes] = ..., bands: _Optional[int] = ..., sample_rate_hertz: _Optional[int] = ..., hop_length: _Optional[int] = ...) -> None: ...

class VocodeRequest(_message.Message):
    __slots__ = ("mel", "audio_config", "model", "cache_control")
    MEL_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CONFIG_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CACHE_CONTROL_FIELD_NUMBER: _ClassVar[int]
    mel: MelSpectrogram
    audio_config: AudioConfig
    model: str
    cache_control: CacheControl
    def __init__(self, mel: _Optional[_Union[MelSpectrogram, _Mapping]] = ..., audio_config: _Optional[_Union[AudioConfig, _Mapping]] = ..., model: _Optional[str] = ..., cache_control: _Optional[_Union[CacheControl, _Mapping]] = ...) -> None: ...

class VocodeResponse(_message.Message):
    __slots__ = ("audio_content", "audio_config", "cache_info")
    AUDIO_CONTENT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CACHE_INFO_FIELD_NUMBER: _ClassVar[int]
    audio_content: bytes
    audio_config: AudioConfig
    cache_info: CacheInfo
    def __init__(self, audio_content: _Optional[bytes] = ..., audio_config: _Optional[_Union[AudioConfig, _Mapping]] = ..., cache_info: _Optional[_Union[CacheInfo, _Mapping]] = ...) -> None: ...

class StreamingVocodeConfig(_message.Message):
    __slots__ = ("audio_config", "model", "cache_control")
    AUDIO_CONFIG_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CACHE_CONTROL_FIELD_NUMBER: _ClassVar[int]
    audio_config: AudioConfig
    model: str
    cache_control: CacheControl
    def __init__(self, audio_config: _Optional[_Union[AudioConfig, _Mapping]] = ..., model: _Optional[str] = ..., cache_control: _Optional[_Union[CacheControl, _Mapping]] = ...) -> None: ...

class StreamingVocodeRequest(_message.Message):
    __slots__ = ("streaming_config", "mel")
    STREAMING_CONFIG_FIELD_NUMBER: _ClassVar[int]
    MEL_FIELD_NUMBER: _ClassVar[int]
    streaming_config: StreamingVocodeConfig
    mel: MelSpectrogram
    def __init__(self, streaming_config: _Optional[_Union[StreamingVocodeConfig, _Mapping]] = ..., mel: _Optional[_Union[MelSpectrogram, _Mapping]] = ...) -> None: ...

class StreamingVocodeResponse(_message.Message):
    __slots__ = ("audio_content", "cache_info")
    AUDIO_CONTENT_FIELD_NUMBER: _ClassVar[int]
    CACHE_INFO_FIELD_NUMBER: _ClassVar[int]
    audio_content: bytes
    cache_info: CacheInfo
    def __init__(self, audio_content: _Optional[bytes] = ..., cache_info: _Optional[_Union[CacheInfo, _Mapping]] = ...) -> None: ...

class EmbedVoiceRequest(_message.Message):
    __slots__ = ("recording", "dimensions", "model", "cache_control")
    RECORDING_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CACHE_CONTROL_FIELD_NUMBER: _ClassVar[int]
    recording: VoiceSample
    dimensions: int
    model: str
    cache_control: CacheControl
    def __init__(self, recording: _Optional[_Union[VoiceSample, _Mapping]] = ..., dimensions: _Optional[int] = ..., model: _Optional[str] = ..., cache_control: _Optional[_Union[CacheControl, _Mapping]] = ...) -> None: ...

class NearVoice(_message.Message):
    __slots__ = ("name", "cosine")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    name: str
    cosine: float
    def __init__(self, name: _Optional[str] = ..., cosine: _Optional[float] = ...) -> None: ...

class EmbedVoiceResponse(_message.Message):
    __slots__ = ("embedding", "nearest_voice", "cache_info")
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    NEAREST_VOICE_FIELD_NUMBER: _ClassVar[int]
    CACHE_INFO_FIELD_NUMBER: _ClassVar[int]
    embedding: VoiceEmbedding
    nearest_voice: NearVoice
    cache_info: CacheInfo
    def __init__(self, embedding: _Optional[_Union[VoiceEmbedding, _Mapping]] = ..., nearest_voice: _Optional[_Union[NearVoice, _Mapping]] = ..., cache_info: _Optional[_Union[CacheInfo, _Mapping]] = ...) -> None: ...

class ListVoicesRequest(_message.Message):
    __slots__ = ("language_code",)
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    language_code: str
    def __init__(self, language_code: _Optional[str] = ...) -> None: ...

class VoiceInfo(_message.Message):
    __slots__ = ("name", "language_codes", "emotions", "natural_sample_rate_hertz")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    EMOTIONS_FIELD_NUMBER: _ClassVar[int]
    NATURAL_SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    name: str
    language_codes: _containers.RepeatedScalarFieldContainer[str]
    emotions: _containers.RepeatedScalarFieldContainer[str]
    natural_sample_rate_hertz: int
    def __init__(self, name: _Optional[str] = ..., language_codes: _Optional[_Iterable[str]] = ..., emotions: _Optional[_Iterable[str]] = ..., natural_sample_rate_hertz: _Optional[int] = ...) -> None: ...

class ListVoicesResponse(_message.Message):
    __slots__ = ("voices",)
    VOICES_FIELD_NUMBER: _ClassVar[int]
    voices: _containers.RepeatedCompositeFieldContainer[VoiceInfo]
    def __init__(self, voices: _Optional[_Iterable[_Union[VoiceInfo, _Mapping]]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "family", "identity", "provider", "licence", "voices", "emotions", "sample_rate_hertz", "versions", "share")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    LICENCE_FIELD_NUMBER: _ClassVar[int]
    VOICES_FIELD_NUMBER: _ClassVar[int]
    EMOTIONS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    name: str
    family: str
    identity: str
    provider: str
    licence: str
    voices: _containers.RepeatedScalarFieldContainer[str]
    emotions: _containers.RepeatedScalarFieldContainer[str]
    sample_rate_hertz: int
    versions: _containers.RepeatedScalarFieldContainer[str]
    share: float
    def __init__(self, name: _Optional[str] = ..., family: _Optional[str] = ..., identity: _Optional[str] = ..., provider: _Optional[str] = ..., licence: _Optional[str] = ..., voices: _Optional[_Iterable[str]] = ..., emotions: _Optional[_Iterable[str]] = ..., sample_rate_hertz: _Optional[int] = ..., versions: _Optional[_Iterable[str]] = ..., share: _Optional[float] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ...) -> None: ...
