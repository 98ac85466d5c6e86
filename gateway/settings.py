"""Every setting, once: its name, default, bounds and meaning. Read by `app` alone, made by `load`.

A setting comes from, in this order: an override (the command line), the environment (REFRAIN_LISTEN__PORT=50052), the
TOML file given by --config, its default. Sizes may be written "256 MiB" and times "30 d", "10 s" or "50 ms". A key that
is not known is an error that names it and what is allowed there: a misspelt limit must not silently be no limit.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

_UNITS: Final = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_NAMES: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class SettingsError(ValueError):
    """Settings that cannot be used. Its text has one line for each thing that is wrong."""


def _seconds(value: object) -> object:
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]+)\s*", value) if isinstance(value, str) else None
    if match is None:
        return value
    number, unit = match.groups()
    if unit not in _UNITS:
        raise ValueError(f"unknown unit {unit!r}; known are {', '.join(_UNITS)}")
    return float(number) * _UNITS[unit]


def _redis_url(url: str) -> str:
    if url:
        from cache_tiers.address import parse_address  # brings redis-py along

        parse_address(url)
    return url


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Size = Annotated[ByteSize, Field(ge=0)]
Place = Annotated[Path, AfterValidator(Path.expanduser)]


def default_data_dir() -> Path:
    """Where this system keeps a user's application data."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "refrain"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "refrain"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "refrain"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Listen(_Table):
    """Where callers find the gateway."""

    host: str = "127.0.0.1"
    """Address for gRPC. One that other machines can reach needs tokens."""
    port: Port = 50_051
    """0 for any free one."""
    http_host: str = "127.0.0.1"
    """Address for metrics and health over HTTP."""
    http_port: Port = 9_464
    """0 for any free one."""
    max_message_bytes: Size = ByteSize(64 << 20)
    """Largest request message: 10 min, the longest recording served, as 48 kHz 16-bit mono are 55 MiB. gRPC refuses a
    larger one with RESOURCE_EXHAUSTED. Answers must not be limited so: the longest text, spoken slowly, is larger."""
    max_calls: Annotated[int, Field(ge=0)] = 0
    """Calls open at once, streams and health checks among them; gRPC refuses more with RESOURCE_EXHAUSTED. 0 for no
    limit: having one costs a quarter of the hit rate."""
    max_stream_bytes: Size = ByteSize(512 << 20)
    """What all streams together may keep of sound and mels until their callers half-close. Past that a stream gets
    RESOURCE_EXHAUSTED and when to come back."""
    stream_patience: Seconds = 60.0
    """How long a stream may send nothing before it ends with DEADLINE_EXCEEDED; 0 for ever."""
    grace: Seconds = 10.0
    """How long calls in progress may go on after a signal to stop."""


class Keys(_Table):
    """Files of 64 hex digits, readable by their owner alone; made in the data folder when absent. Gateways that share
    a Redis share both."""

    master: Place | None = None
    """Seals what lies in Redis."""
    other_masters: tuple[Place, ...] = ()
    """Open what lies in Redis and seal nothing: the next master key before it takes over, the last one until all data
    keys are wrapped anew (docs/operations.md)."""
    digest: Place | None = None
    """Makes cache keys. Another one is a flush: nothing stored before is found again."""


class Voice(_Table):
    """A registered voice, found by callers who send an embedding instead of a name."""

    embedding: Annotated[tuple[float, ...], Field(min_length=8, max_length=256)]
    """Matryoshka vector: 256 numbers, or a prefix of 8, 16, 32, 64 or 128 of them."""


class Tenant(_Table):
    """What one tenant may have. Tenants that are not listed get these defaults."""

    fuzzy: Literal["never", "shadow", "on_request", "always"] = "on_request"
    """Whether a similar earlier recording may answer: never, where a request asks for it, or unless it asks not to.
    With "shadow" all are looked up and audited as if they could be, and none is served: it shows what would be."""
    min_similarity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Raises the similarity a fuzzy answer needs. Below recall's own threshold it changes nothing."""
    wrong_hit_limit: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """Largest share of fuzzy answers that may be wrong. Audits, which run the model again for a share of them, begin
    and stop fuzzy answers by it."""
    require_proof: bool = True
    """Serve fuzzy answers to recordings only once some 800 audits have brought the upper 95 % bound of that share under
    the limit. If false, they are served until audits show that wrong ones have become frequent."""
    require_near_proof: bool = False
    """The same for voices by embedding and moods by example."""
    pool_audits: bool = False
    """Share what audits found with all other tenants that have this set, so that fuzzy answers begin sooner. What is
    shared is counts; and none, of a tenant whose own audits have raised an alarm."""
    device_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Largest share of the first tier that its answers may take: past it, they make room for each other. With 1 it
    may push out all others'."""
    pin_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Largest share of the room for pins (device.pin_share) that its pinned answers may take."""
    respoken: Literal["never", "on_request"] = "on_request"
    """Whether a command said again, in a request that names its session and may be answered fuzzily, is answered as the
    first time. Audited by itself, under the same limit."""
    record_inputs: bool = False
    """Consent to keep what it sends, text, recordings and mels, sealed in files, so that its load can be replayed as it
    was; [inputs] says how much, for how long. Taken back, what was kept is erased at the next start."""


class Device(_Table):
    """The first tier: memory of the device that runs the models."""

    size: Size = ByteSize(256 << 20)
    """For answers, in host memory whatever the device: no model reads them."""
    components: Size = ByteSize(32 << 20)
    """Beside it, on the device itself, for mels between acoustic model and vocoder: a text asked for again in another
    encoding or rate then costs the vocoder alone. 0 for none."""
    policy: Literal["worth", "tinylfu", "lfu", "lru"] = "worth"
    """Who is evicted. By worth: frequency times compute saved per byte, aged; it finds out by itself how far frequency
    outweighs recency, and alone has pins and device_share (docs/benchmarks.md has all of them side by side)."""
    pin_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of this tier that pinned answers may take."""


class Redis(_Table):
    """The second tier."""

    url: Annotated[str, AfterValidator(_redis_url)] = Field(default="", repr=False)
    """redis://, rediss:// or unix:// for one server, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE for the master that
    Sentinels name, redis+cluster://HOST:PORT,HOST:PORT for a Cluster, both with rediss for TLS; empty for a private
    server that is started and kept in the data folder."""
    maxmemory: Size = ByteSize(1 << 30)
    """Of the private server. Another's is its operator's."""
    get_deadline: Seconds = 0.05
    """A read that takes longer is a miss."""
    put_deadline: Seconds = 1.0
    """A write, beside the request, that takes longer is dropped and counted."""
    write_queue: Size = ByteSize(64 << 20)
    """Bytes of answers that may wait to be written; more are dropped and counted."""
    ttl: Annotated[Seconds, Field(gt=0, le=366 * 86_400)] = 30 * 86_400.0
    """How long an answer stays where its request did not say."""
    ttl_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of a time to live by which it is shortened at random, lest answers stored together expire together."""
    pack_up_to: Size = ByteSize(16 << 10)
    """Answers of at most this size are stored packed where that saves a tenth or more: transcripts and fingerprints.
    Speech as LINEAR16 shrinks to 0.72, but takes half as long again to read then; "16 MiB" if memory matters more."""


class Engines(_Table):
    """The models and the threads they run in."""

    models_dir: Place | None = None
    """The registry: folders NAME/VERSION that `refrain models add` fills, and folders of models that stand in for the
    shipped ones of the same family. "models" in the data folder if absent."""
    trusted_keys: tuple[Place, ...] = ()
    """Files with an Ed25519 public key each, in PEM. With any, a model that is not shipped is loaded only if
    model.toml.sig in its folder is a signature of its model.toml by one of them."""
    providers: tuple[str, ...] = ("auto",)
    """ONNX Runtime execution providers in order of preference, or "auto" for the best that really runs."""
    strict_providers: bool = False
    """Refuse to start where the first provider does not run, rather than warn in the log and run on the CPU."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 1
    """Within one model run; 0 for as many as there are cores."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Model runs at once; 0 for as many as there are cores."""
    step_limit: Seconds = 120.0
    """A model run that has not ended by then is broken off, and its request fails; 0 for no limit."""
    queue: Annotated[int, Field(ge=0, le=1_000_000)] = 256
    """Runs that may wait for a worker; a caller past that gets RESOURCE_EXHAUSTED and when to come back."""


class Trace(_Table):
    """The access trace: one small record a request, without text, audio or names."""

    enabled: bool = True
    """Whether there is one."""
    path: Place | None = None
    """Folder of the files; "trace" in the data folder if absent."""
    rotate_bytes: Annotated[ByteSize, Field(ge=4096)] = ByteSize(64 << 20)
    """A file that has grown to this is ended and the next begun."""
    keep: Annotated[int, Field(ge=0)] = 16
    """Files kept, the newest; 0 for all."""


class Inputs(_Table):
    """Recorded inputs, of tenants with `record_inputs = true` and no others: their requests, sealed under their data
    keys, for `refrain replay --inputs` (docs/traces.md)."""

    path: Place | None = None
    """Folder of the files; "inputs" in the data folder if absent."""
    size: Annotated[ByteSize, Field(ge=16 << 20, le=1 << 40)] = ByteSize(1 << 30)
    """Of all files together; the oldest make room. A request larger than a sixteenth of it is not kept."""
    keep: Annotated[Seconds, Field(ge=60, le=90 * 86_400)] = 7 * 86_400.0
    """No input is kept for longer than this."""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of all different requests the share that is kept. Which, a keyed digest says: one kept is kept from all who send
    it, and again when it has been removed."""
    queue: Annotated[ByteSize, Field(ge=1 << 20, le=1 << 32)] = ByteSize(64 << 20)
    """Bytes that may wait to be written; more are dropped and counted."""


class Status(_Table):
    """The status page, under / at the address for metrics. Everyone it is served to sees counts; entries, and what can
    be done with them, are for callers with a tenant's rights."""

    page: Literal["off", "loopback", "all"] = "loopback"
    """Who gets it: nobody, browsers on this machine (a tunnel is one), or whoever reaches `listen.http_host`."""
    show_text: bool = False
    """Whether the page tells the words of transcripts and spoken phrases to those with rights. Phrases are then kept in
    memory beside their entries."""


class Log(_Table):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """All settings. Immutable once made."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, env_prefix="REFRAIN_", env_nested_delimiter="__"
    )

    listen: Listen = Listen()
    data_dir: Place = Field(default_factory=default_data_dir)
    """Keys, trace, and the private Redis server's files."""
    tokens: dict[str, str] = Field(default_factory=dict, repr=False)
    """Token to tenant. Without any, callers on this machine are tenant "default" and no others are served."""
    tokens_file: Place | None = None
    """More of them, to keep secrets out of this file: a line "TOKEN TENANT" each; # begins a comment."""
    tenants: dict[str, Tenant] = Field(default_factory=dict)
    keys: Keys = Keys()
    voices: dict[str, Voice] = Field(default_factory=dict)
    """Name in ListVoices to its embedding; the synthesizer has its own of its voices, which these replace."""
    voice_threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Cosine from which an embedding is taken for a registered voice; absent for the voice encoder's own."""
    device: Device = Device()
    redis: Redis = Redis()
    engines: Engines = Engines()
    max_entry_bytes: Size = ByteSize(16 << 20)
    """Larger answers are sent and not stored: 6 min of speech at the models' own rate."""
    trace: Trace = Trace()
    inputs: Inputs = Inputs()
    status: Status = Status()
    log: Log = Log()

    def tenant(self, name: str) -> Tenant:
        """The policy of a tenant, listed or not."""
        return self.tenants.get(name, _DEFAULT_TENANT)

    @property
    def models_dir(self) -> Path:
        return self.engines.models_dir or self.data_dir / "models"

    @property
    def trace_dir(self) -> Path:
        return self.trace.path or self.data_dir / "trace"

    @property
    def inputs_dir(self) -> Path:
        return self.inputs.path or self.data_dir / "inputs"

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.tokens_file is not None:
            self.tokens.update(_read_tokens(self.tokens_file))
        for name in {*self.tokens.values(), *self.tenants}:
            if not _NAMES.fullmatch(name):
                raise ValueError(f"tenant {name!r}: a name is 1 to 64 letters, digits and _ . -, letter or digit first")
        for name, tenant in self.tenants.items():
            if tenant.device_share < 1 and self.device.policy != "worth":
                raise ValueError(
                    f"tenants.{name}.device_share = {tenant.device_share:g}: device.policy = {self.device.policy!r} has"
                    ' no shares; allowed is 1, or any with device.policy = "worth"'
                )
            if tenant.record_inputs and not self.trace.enabled:
                raise ValueError(
                    f"tenants.{name}.record_inputs = true: inputs are found by the access trace, which is switched off;"
                    " allowed with trace.enabled = true"
                )
        if any(not token.isascii() or [token] != token.split() for token in self.tokens):
            raise ValueError("tokens: a token is one word of ASCII characters")
        if not self.tokens and not is_loopback(self.listen.host):
            raise ValueError(
                f"listen.host = {self.listen.host!r} can be reached from other machines, but no tokens are set, so"
                " anyone could use it; set [tokens] or tokens_file, or listen on 127.0.0.1"
            )
        return self


_DEFAULT_TENANT: Final = Tenant()


def load(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings from all sources. `overrides` are nested like the TOML file. Raises `SettingsError`."""
    from_file = _read_toml(config) if config is not None else {}

    class FromFile(PydanticBaseSettingsSource):
        def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
            return from_file.get(field_name), field_name, False

        def __call__(self) -> dict[str, Any]:
            return from_file

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, FromFile(settings_cls)

    try:
        return Loaded(**(overrides or {}))
    except ValidationError as error:
        where = f"{config}: " if config is not None else ""
        raise SettingsError("\n".join(f"{where}{_explain(problem)}" for problem in error.errors())) from None
    except ValueError as error:  # the environment holds something that is no JSON where a table is expected
        raise SettingsError(str(error)) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None


def _read_tokens(path: Path) -> dict[str, str]:
    tokens = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"tokens_file {path}: {error}") from None
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if len(words) == 2:
            tokens[words[0]] = words[1]
        elif words:
            raise ValueError(f"tokens_file {path}, line {number}: {len(words)} words; a line is TOKEN TENANT")
    return tokens


def _explain(problem: Any) -> str:
    """One line for a pydantic error: the key, what was given, what is allowed. A token is never shown."""
    place = tuple(map(str, problem["loc"]))
    if place[:1] == ("tokens",):
        return 'tokens: each is TOKEN = "TENANT", both text'
    key = ".".join(place)
    if problem["type"] == "extra_forbidden":
        allowed = _allowed(place[:-1])
        near = difflib.get_close_matches(place[-1], allowed, 1)
        guess = f" (is {near[0]} meant?)" if near else ""
        return f"{key}: no such setting{guess}; allowed here: {', '.join(allowed)}"
    what = str(problem["msg"]).removeprefix("Value error, ")
    given = "" if not key or _holds_password(place) else f" = {problem['input']!r}"
    return f"{key}{given}: {what}" if key else what


def _holds_password(place: tuple[str, ...]) -> bool:
    return place in (("redis",), ("redis", "url"))


def _allowed(place: tuple[str, ...]) -> list[str]:
    """The keys of the table at `place`."""
    model: type[BaseModel] = Settings
    for name in place:
        if name in model.model_fields:
            annotation = model.model_fields[name].annotation
            tables = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
            model = next((kind for kind in tables if issubclass(kind, BaseModel)), model)
    return list(model.model_fields)
