import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from protos.refrain.v1 import speech_pb2 as _speech_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WarmRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[_speech_pb2.SynthesizeRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[_speech_pb2.SynthesizeRequest, _Mapping]]] = ...) -> None: ...

class WarmResponse(_message.Message):
    __slots__ = ("computed", "already_cached", "failures")
    COMPUTED_FIELD_NUMBER: _ClassVar[int]
    ALREADY_CACHED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    computed: int
    already_cached: int
    failures: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, computed: _Optional[int] = ..., already_cached: _Optional[int] = ..., failures: _Optional[_Iterable[str]] = ...) -> None: ...

class InvalidateRequest(_message.Message):
    __slots__ = ("entry_id", "voice", "engine", "everything")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    voice: str
    engine: str
    everything: bool
    def __init__(self, entry_id: _Optional[str] = ..., voice: _Optional[str] = ..., engine: _Optional[str] = ..., everything: _Optional[bool] = ...) -> None: ...

class InvalidateResponse(_message.Message):
    __slots__ = ("dropped",)
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    dropped: int
    def __init__(self, dropped: _Optional[int] = ...) -> None: ...

class EraseRequest(_message.Message):
    __slots__ = ("subject_id", "voice")
    SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    subject_id: str
    voice: str
    def __init__(self, subject_id: _Optional[str] = ..., voice: _Optional[str] = ...) -> None: ...

class EraseResponse(_message.Message):
    __slots__ = ("dropped", "acknowledged")
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    dropped: int
    acknowledged: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dropped: _Optional[int] = ..., acknowledged: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportWrongHitRequest(_message.Message):
    __slots__ = ("entry_id",)
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    def __init__(self, entry_id: _Optional[str] = ...) -> None: ...

class ReportWrongHitResponse(_message.Message):
    __slots__ = ("quarantined",)
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    quarantined: bool
    def __init__(self, quarantined: _Optional[bool] = ...) -> None: ...

class ExplainRecallResponse(_message.Message):
    __slots__ = ("outcome", "fingerprint", "serving", "wrong_upper_bound", "limit", "from_similarity", "recordings", "length", "frame", "level", "speech", "candidates")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[ExplainRecallResponse.Outcome]
        EXACT: _ClassVar[ExplainRecallResponse.Outcome]
        ANSWERED: _ClassVar[ExplainRecallResponse.Outcome]
        WITHHELD: _ClassVar[ExplainRecallResponse.Outcome]
        FORGOTTEN: _ClassVar[ExplainRecallResponse.Outcome]
        NOT_FOUND: _ClassVar[ExplainRecallResponse.Outcome]
        NOT_COMPARED: _ClassVar[ExplainRecallResponse.Outcome]
        NOT_READY: _ClassVar[ExplainRecallResponse.Outcome]
    OUTCOME_UNSPECIFIED: ExplainRecallResponse.Outcome
    EXACT: ExplainRecallResponse.Outcome
    ANSWERED: ExplainRecallResponse.Outcome
    WITHHELD: ExplainRecallResponse.Outcome
    FORGOTTEN: ExplainRecallResponse.Outcome
    NOT_FOUND: ExplainRecallResponse.Outcome
    NOT_COMPARED: ExplainRecallResponse.Outcome
    NOT_READY: ExplainRecallResponse.Outcome
    class Fingerprint(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FINGERPRINT_UNSPECIFIED: _ClassVar[ExplainRecallResponse.Fingerprint]
        MADE: _ClassVar[ExplainRecallResponse.Fingerprint]
        TOO_SHORT: _ClassVar[ExplainRecallResponse.Fingerprint]
        TOO_LONG: _ClassVar[ExplainRecallResponse.Fingerprint]
        SILENT: _ClassVar[ExplainRecallResponse.Fingerprint]
    FINGERPRINT_UNSPECIFIED: ExplainRecallResponse.Fingerprint
    MADE: ExplainRecallResponse.Fingerprint
    TOO_SHORT: ExplainRecallResponse.Fingerprint
    TOO_LONG: ExplainRecallResponse.Fingerprint
    SILENT: ExplainRecallResponse.Fingerprint
    class Serving(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SERVING_UNSPECIFIED: _ClassVar[ExplainRecallResponse.Serving]
        SERVED: _ClassVar[ExplainRecallResponse.Serving]
        NOT_ASKED: _ClassVar[ExplainRecallResponse.Serving]
        NEVER: _ClassVar[ExplainRecallResponse.Serving]
        SHADOW: _ClassVar[ExplainRecallResponse.Serving]
        HELD_BACK: _ClassVar[ExplainRecallResponse.Serving]
    SERVING_UNSPECIFIED: ExplainRecallResponse.Serving
    SERVED: ExplainRecallResponse.Serving
    NOT_ASKED: ExplainRecallResponse.Serving
    NEVER: ExplainRecallResponse.Serving
    SHADOW: ExplainRecallResponse.Serving
    HELD_BACK: ExplainRecallResponse.Serving
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    WRONG_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FROM_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    RECORDINGS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SPEECH_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    outcome: ExplainRecallResponse.Outcome
    fingerprint: ExplainRecallResponse.Fingerprint
    serving: ExplainRecallResponse.Serving
    wrong_upper_bound: float
    limit: float
    from_similarity: float
    recordings: int
    length: _duration_pb2.Duration
    frame: _duration_pb2.Duration
    level: _containers.RepeatedScalarFieldContainer[float]
    speech: _containers.RepeatedScalarFieldContainer[float]
    candidates: _containers.RepeatedCompositeFieldContainer[RecallCandidate]
    def __init__(self, outcome: _Optional[_Union[ExplainRecallResponse.Outcome, str]] = ..., fingerprint: _Optional[_Union[ExplainRecallResponse.Fingerprint, str]] = ..., serving: _Optional[_Union[ExplainRecallResponse.Serving, str]] = ..., wrong_upper_bound: _Optional[float] = ..., limit: _Optional[float] = ..., from_similarity: _Optional[float] = ..., recordings: _Optional[int] = ..., length: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., frame: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., level: _Optional[_Iterable[float]] = ..., speech: _Optional[_Iterable[float]] = ..., candidates: _Optional[_Iterable[_Union[RecallCandidate, _Mapping]]] = ...) -> None: ...

class RecallCandidate(_message.Message):
    __slots__ = ("entry_id", "pair_id", "itself", "quarantined", "accepted", "reason", "similarity", "distance", "score", "offset", "pace", "worst", "remembered", "transcript", "timeline")
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    PAIR_ID_FIELD_NUMBER: _ClassVar[int]
    ITSELF_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    WORST_FIELD_NUMBER: _ClassVar[int]
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    pair_id: str
    itself: bool
    quarantined: bool
    accepted: bool
    reason: str
    similarity: float
    distance: float
    score: float
    offset: _duration_pb2.Duration
    pace: float
    worst: _duration_pb2.Duration
    remembered: bool
    transcript: str
    timeline: RecallTimeline
    def __init__(self, entry_id: _Optional[str] = ..., pair_id: _Optional[str] = ..., itself: _Optional[bool] = ..., quarantined: _Optional[bool] = ..., accepted: _Optional[bool] = ..., reason: _Optional[str] = ..., similarity: _Optional[float] = ..., distance: _Optional[float] = ..., score: _Optional[float] = ..., offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pace: _Optional[float] = ..., worst: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., remembered: _Optional[bool] = ..., transcript: _Optional[str] = ..., timeline: _Optional[_Union[RecallTimeline, _Mapping]] = ...) -> None: ...

class RecallTimeline(_message.Message):
    __slots__ = ("start", "level", "speech", "evidence", "known", "against")
    START_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SPEECH_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    AGAINST_FIELD_NUMBER: _ClassVar[int]
    start: _duration_pb2.Duration
    level: _containers.RepeatedScalarFieldContainer[float]
    speech: _containers.RepeatedScalarFieldContainer[float]
    evidence: _containers.RepeatedScalarFieldContainer[float]
    known: _containers.RepeatedScalarFieldContainer[float]
    against: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, start: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., level: _Optional[_Iterable[float]] = ..., speech: _Optional[_Iterable[float]] = ..., evidence: _Optional[_Iterable[float]] = ..., known: _Optional[_Iterable[float]] = ..., against: _Optional[_Iterable[float]] = ...) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OutcomeCount(_message.Message):
    __slots__ = ("task", "status", "tier", "requests", "bytes", "compute", "saved_compute", "latency_p50", "latency_p99")
    TASK_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    SAVED_COMPUTE_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_FIELD_NUMBER: _ClassVar[int]
    task: str
    status: _speech_pb2.CacheInfo.Status
    tier: str
    requests: int
    bytes: int
    compute: _duration_pb2.Duration
    saved_compute: _duration_pb2.Duration
    latency_p50: _duration_pb2.Duration
    latency_p99: _duration_pb2.Duration
    def __init__(self, task: _Optional[str] = ..., status: _Optional[_Union[_speech_pb2.CacheInfo.Status, str]] = ..., tier: _Optional[str] = ..., requests: _Optional[int] = ..., bytes: _Optional[int] = ..., compute: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., saved_compute: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency_p50: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., latency_p99: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TierStats(_message.Message):
    __slots__ = ("name", "entries", "bytes", "capacity_bytes", "evictions", "errors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    entries: int
    bytes: int
    capacity_bytes: int
    evictions: int
    errors: int
    def __init__(self, name: _Optional[str] = ..., entries: _Optional[int] = ..., bytes: _Optional[int] = ..., capacity_bytes: _Optional[int] = ..., evictions: _Optional[int] = ..., errors: _Optional[int] = ...) -> None: ...

class AuditStats(_message.Message):
    __slots__ = ("audited", "wrong", "undecided", "wrong_upper_bound", "limit", "serving", "doubted_upper_bound", "from_similarity", "alarms", "shadow", "would_serve", "withheld")
    AUDITED_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    WRONG_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    DOUBTED_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    FROM_SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    WOULD_SERVE_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    audited: int
    wrong: int
    undecided: int
    wrong_upper_bound: float
    limit: float
    serving: bool
    doubted_upper_bound: float
    from_similarity: float
    alarms: int
    shadow: bool
    would_serve: int
    withheld: int
    def __init__(self, audited: _Optional[int] = ..., wrong: _Optional[int] = ..., undecided: _Optional[int] = ..., wrong_upper_bound: _Optional[float] = ..., limit: _Optional[float] = ..., serving: _Optional[bool] = ..., doubted_upper_bound: _Optional[float] = ..., from_similarity: _Optional[float] = ..., alarms: _Optional[int] = ..., shadow: _Optional[bool] = ..., would_serve: _Optional[int] = ..., withheld: _Optional[int] = ...) -> None: ...

class LanguageCount(_message.Message):
    __slots__ = ("task", "language", "requests", "hits_exact", "hits_fuzzy")
    TASK_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    HITS_EXACT_FIELD_NUMBER: _ClassVar[int]
    HITS_FUZZY_FIELD_NUMBER: _ClassVar[int]
    task: str
    language: str
    requests: int
    hits_exact: int
    hits_fuzzy: int
    def __init__(self, task: _Optional[str] = ..., language: _Optional[str] = ..., requests: _Optional[int] = ..., hits_exact: _Optional[int] = ..., hits_fuzzy: _Optional[int] = ...) -> None: ...

class LanguageAudits(_message.Message):
    __slots__ = ("language", "audited", "wrong", "undecided", "wrong_upper_bound")
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    AUDITED_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    WRONG_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    language: str
    audited: int
    wrong: int
    undecided: int
    wrong_upper_bound: float
    def __init__(self, language: _Optional[str] = ..., audited: _Optional[int] = ..., wrong: _Optional[int] = ..., undecided: _Optional[int] = ..., wrong_upper_bound: _Optional[float] = ...) -> None: ...

class VoiceAudits(_message.Message):
    __slots__ = ("voice", "audited", "wrong", "undecided", "wrong_upper_bound")
    VOICE_FIELD_NUMBER: _ClassVar[int]
    AUDITED_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    WRONG_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    voice: str
    audited: int
    wrong: int
    undecided: int
    wrong_upper_bound: float
    def __init__(self, voice: _Optional[str] = ..., audited: _Optional[int] = ..., wrong: _Optional[int] = ..., undecided: _Optional[int] = ..., wrong_upper_bound: _Optional[float] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("outcomes", "tiers", "audits", "near_audits", "languages", "audits_by_language", "audits_by_voice", "uptime", "failed")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    AUDITS_FIELD_NUMBER: _ClassVar[int]
    NEAR_AUDITS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGES_FIELD_NUMBER: _ClassVar[int]
    AUDITS_BY_LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    AUDITS_BY_VOICE_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeCount]
    tiers: _containers.RepeatedCompositeFieldContainer[TierStats]
    audits: AuditStats
    near_audits: AuditStats
    languages: _containers.RepeatedCompositeFieldContainer[LanguageCount]
    audits_by_language: _containers.RepeatedCompositeFieldContainer[LanguageAudits]
    audits_by_voice: _containers.RepeatedCompositeFieldContainer[VoiceAudits]
    uptime: _duration_pb2.Duration
    failed: int
    def __init__(self, outcomes: _Optional[_Iterable[_Union[OutcomeCount, _Mapping]]] = ..., tiers: _Optional[_Iterable[_Union[TierStats, _Mapping]]] = ..., audits: _Optional[_Union[AuditStats, _Mapping]] = ..., near_audits: _Optional[_Union[AuditStats, _Mapping]] = ..., languages: _Optional[_Iterable[_Union[LanguageCount, _Mapping]]] = ..., audits_by_language: _Optional[_Iterable[_Union[LanguageAudits, _Mapping]]] = ..., audits_by_voice: _Optional[_Iterable[_Union[VoiceAudits, _Mapping]]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., failed: _Optional[int] = ...) -> None: ...

class ListAuditedPairsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditedPair(_message.Message):
    __slots__ = ("kind", "verdict", "similarity", "entry_id", "answer_id", "asked", "recalled", "language", "voice", "judged_at")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[AuditedPair.Kind]
        RECORDING: _ClassVar[AuditedPair.Kind]
        SAID_AGAIN: _ClassVar[AuditedPair.Kind]
        VOICE_AND_MOOD: _ClassVar[AuditedPair.Kind]
    KIND_UNSPECIFIED: AuditedPair.Kind
    RECORDING: AuditedPair.Kind
    SAID_AGAIN: AuditedPair.Kind
    VOICE_AND_MOOD: AuditedPair.Kind
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[AuditedPair.Verdict]
        RIGHT: _ClassVar[AuditedPair.Verdict]
        WRONG: _ClassVar[AuditedPair.Verdict]
        UNDECIDED: _ClassVar[AuditedPair.Verdict]
        UNJUDGED: _ClassVar[AuditedPair.Verdict]
    VERDICT_UNSPECIFIED: AuditedPair.Verdict
    RIGHT: AuditedPair.Verdict
    WRONG: AuditedPair.Verdict
    UNDECIDED: AuditedPair.Verdict
    UNJUDGED: AuditedPair.Verdict
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    ANSWER_ID_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    RECALLED_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    JUDGED_AT_FIELD_NUMBER: _ClassVar[int]
    kind: AuditedPair.Kind
    verdict: AuditedPair.Verdict
    similarity: float
    entry_id: str
    answer_id: str
    asked: str
    recalled: str
    language: str
    voice: str
    judged_at: int
    def __init__(self, kind: _Optional[_Union[AuditedPair.Kind, str]] = ..., verdict: _Optional[_Union[AuditedPair.Verdict, str]] = ..., similarity: _Optional[float] = ..., entry_id: _Optional[str] = ..., answer_id: _Optional[str] = ..., asked: _Optional[str] = ..., recalled: _Optional[str] = ..., language: _Optional[str] = ..., voice: _Optional[str] = ..., judged_at: _Optional[int] = ...) -> None: ...

class ListAuditedPairsResponse(_message.Message):
    __slots__ = ("pairs",)
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[AuditedPair]
    def __init__(self, pairs: _Optional[_Iterable[_Union[AuditedPair, _Mapping]]] = ...) -> None: ...
