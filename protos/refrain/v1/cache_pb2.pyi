import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from protos.refrain.v1 import speech_pb2 as _speech_pb2
from google.protobuf.internal import containers as _containers
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
    __slots__ = ("audited", "wrong", "undecided", "wrong_upper_bound", "limit", "serving")
    AUDITED_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    UNDECIDED_FIELD_NUMBER: _ClassVar[int]
    WRONG_UPPER_BOUND_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    audited: int
    wrong: int
    undecided: int
    wrong_upper_bound: float
    limit: float
    serving: bool
    def __init__(self, audited: _Optional[int] = ..., wrong: _Optional[int] = ..., undecided: _Optional[int] = ..., wrong_upper_bound: _Optional[float] = ..., limit: _Optional[float] = ..., serving: _Optional[bool] = ...) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("outcomes", "tiers", "audits", "near_audits", "uptime", "failed")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    AUDITS_FIELD_NUMBER: _ClassVar[int]
    NEAR_AUDITS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeCount]
    tiers: _containers.RepeatedCompositeFieldContainer[TierStats]
    audits: AuditStats
    near_audits: AuditStats
    uptime: _duration_pb2.Duration
    failed: int
    def __init__(self, outcomes: _Optional[_Iterable[_Union[OutcomeCount, _Mapping]]] = ..., tiers: _Optional[_Iterable[_Union[TierStats, _Mapping]]] = ..., audits: _Optional[_Union[AuditStats, _Mapping]] = ..., near_audits: _Optional[_Union[AuditStats, _Mapping]] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., failed: _Optional[int] = ...) -> None: ...
