"""The way of a request, top to bottom: who asks, what for, is it remembered, else compute it.

    credentials -> decode -> own key -> L1 -> flight -> Bloom -> L2 -> HIT_EXACT
                                          | none, and fuzzy is allowed
                               recall -> the same key but for the recalled recording -> L1 -> L2 -> HIT_FUZZY
                               said before in the named session -> likewise
                                          | none
                               engine under the request's own key -> MISS, store, enrol

Nothing is stored under a recalled key, nothing is enrolled from a fuzzy answer, and a fuzzy request never joins the
flight of another input: a false match does not outlive its request.
"""

from __future__ import annotations

import array
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cache_tiers.device import Lease
from cache_tiers.entry import CacheKey, Entry
from cache_tiers.read_through import Answer, ReadThrough, Source
from gateway import wire
from gateway.admission import Slots
from gateway.audio import waveform
from gateway.audits import Recalled, TenantPolicy, respoken_of
from gateway.call import Call
from gateway.components import ComponentCache
from gateway.computing import Computing, in_thread
from gateway.encoders import Listener
from gateway.engines import Engines
from gateway.errors import BadField, DeadlineExceeded, NotCached, listed
from gateway.judging import Judging
from gateway.keys import KeyFields, Keys, TenantKeys
from gateway.notes import Fuzzy, Notes
from gateway.observe import Observer, Outcome
from gateway.recall import Recall
from gateway.recorder import Recorder
from gateway.respoken import Spoken
from gateway.shortcuts import Shortcut, Shortcuts
from gateway.stats import ABSENT, NOT_LOOKED, SPARED, TOO_OLD, UNAVAILABLE, UNLIKE, WITHHELD
from gateway.tasks import INLINE_BYTES, RECOGNIZE, SYNTHESIZE, Task
from gateway.tenants import CallContext, Tenants
from gateway.voices import NoNearVoice, VoiceBook
from gateway.wire.messages import transcript_of
from models.engine import Engine, Unfit

T = TypeVar("T")

MISS, HIT_EXACT, HIT_FUZZY, COALESCED, BYPASS = (
    wire.Status.MISS,
    wire.Status.HIT_EXACT,
    wire.Status.HIT_FUZZY,
    wire.Status.COALESCED,
    wire.Status.BYPASS,
)
_ABSENCES = {"": 0, "spared": SPARED, "absent": ABSENT, "unavailable": UNAVAILABLE}


@dataclass(slots=True)
class Served:
    """Where an answer comes from, and its messages."""

    status: wire.Status
    frames: AsyncIterator[bytes]
    tier: str = ""
    age_s: float = 0.0
    similarity: float = 1.0
    saved_ms: float = 0.0
    entry_id: str = ""
    release: Callable[[], None] = field(default=lambda: None)


class RequestPath:
    """Knows no concrete tier, engine or transport beyond their protocols; `gateway.app` puts it together."""

    def __init__(
        self,
        *,
        cache: ReadThrough,
        keys: Keys,
        tenants: Tenants,
        policies: Callable[[str], TenantPolicy],
        engines: Engines,
        limits: wire.Limits,
        voices: VoiceBook,
        listener: Listener,
        recall: Recall,
        slots: Slots,
        observer: Observer,
        pool: Executor,
        clock: Callable[[], float],
        wall: Callable[[], float],
        step_limit_s: float | None,
        notes: Notes,
        components: ComponentCache | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._recorder, self._notes = recorder, notes
        self._cache, self._keys, self._tenants, self._policies = cache, keys, tenants, policies
        self._engines, self._limits, self._voices, self._recall = engines, limits, voices, recall
        self._listener, self._audits = listener, recall.audits
        self._slots, self._observer, self._pool, self._clock, self._wall = slots, observer, pool, clock, wall
        self._shortcuts = Shortcuts()
        self._computing = Computing(
            slots=slots, observer=observer, pool=pool, clock=clock, step_limit_s=step_limit_s, components=components
        )
        self._judging = Judging(self._audits, slots, listener, self._computing)

    # ------------------------------------------------------------------------------------------ whole answers

    async def whole(self, task: Task, data: bytes, context: CallContext) -> bytes:
        """One request message in, one response message out, both serialised."""
        started = self._clock()
        tenant = self._tenants.of(context)
        shortcut = self._shortcuts.find(task.name, tenant, data)
        if shortcut is not None:
            lease = self._cache.lookup_device(shortcut.key)
            if lease is not None:
                body = self._respond_at_once(task.name, tenant, shortcut, "device", lease.entry, started, len(data))
                lease.release()
                return body
            entry, absence = await self._cache.lookup_remote(shortcut.key)
            if entry is not None:
                return self._respond_at_once(task.name, tenant, shortcut, "redis", entry, started, len(data))
        decoded, input_digest = await self.decode(task, tenant, data, self._admit)
        decoded = await self.hear_example(tenant, decoded)
        call = self.prepare(task, tenant, decoded, started, len(data), input_digest)
        remaining_s = context.time_remaining()
        if remaining_s is not None:
            call.deadline = self._slots.now() + remaining_s
        if self._recorder is not None:
            self._recorder.take(call, data)
        if shortcut is not None:
            call.looked = absence if call.key == shortcut.key else ""
            return await self.answer(call)
        if not self._may_hit(call.decoded.control):
            return await self.answer(call)
        lease = self._cache.lookup_device(call.key)
        if lease is None or self._too_old(lease, call.decoded.control):
            return await self.answer(call, data)
        self._learn(call, data)
        return self._respond_hit(call, lease)

    async def answer(self, call: Call, data: bytes | None = None) -> bytes:
        """The whole answer of a prepared call, wherever it comes from. `data`: the request, for the next one's sake."""
        forgotten = self._shortcuts.forgotten
        while True:
            served = await self._serve(call, self._computing.whole(call))
            try:
                body = b"".join([frame async for frame in served.frames])
                break
            except DeadlineExceeded:
                if not self._takes_over(call, served):
                    raise
            finally:
                served.release()
        # Not where other engines came while this was looked for: they answer the same request under another key.
        if data is not None and served.status is HIT_EXACT and forgotten == self._shortcuts.forgotten:
            self._learn(call, data)
        self._settle(call, served, len(body), self._clock())
        return body + self._info(call, served)

    def _takes_over(self, call: Call, served: Served) -> bool:
        """Whether a deadline that passed was that of a call which this one followed: that one was in more of a hurry,
        and this one takes its place."""
        return served.status is COALESCED and self._slots.now() < call.deadline

    def _learn(self, call: Call, data: bytes) -> None:
        """Remembers which key the request has, where nothing else decides what it is answered with."""
        if call.task is SYNTHESIZE:
            self._notes.spoken(call.key, call.decoded.canonical)
        if call.near is None and call.decoded.control.max_age_s is None:
            self._shortcuts.learn(call.task.name, call.tenant, data, call.key, call.fields)

    def _respond_at_once(
        self, task: str, tenant: str, shortcut: Shortcut, tier: str, entry: Entry, started: float, bytes_in: int
    ) -> bytes:
        """The hit that must cost next to nothing: two look-ups, one concatenation, one count.

        The cache_info is written in two parts, one that stays the same and the age; protobuf merges them.
        """
        of = (entry.created, tier)
        if shortcut.of != of:
            name = "e" + shortcut.key.digest.hex()
            shortcut.info = wire.info_suffix(HIT_EXACT, tier, 0.0, 1.0, shortcut.fields.engine, entry.cost_ms, name)
            shortcut.of = of
        body = b"".join((entry.frames[0], shortcut.info, wire.age_suffix(self._wall() - entry.created)))
        now = self._clock() - started
        fields = shortcut.fields
        self._observer.record(
            Outcome(
                task, tenant, HIT_EXACT, tier, now, now, bytes_in, len(body), 0.0, entry.cost_ms, now * 1e3, 1.0,
                shortcut.key.digest, fields.voice, fields.emotion, False, fields.engine, fields.language,
            )
        )  # fmt: skip
        return body

    @staticmethod
    def _may_hit(control: wire.Control) -> bool:
        return control.mode in (wire.Mode.DEFAULT, wire.Mode.ONLY_IF_CACHED)

    def _too_old(self, lease: Lease, control: wire.Control) -> bool:
        if control.max_age_s is None or self._wall() - lease.entry.created <= control.max_age_s:
            return False
        lease.release()
        return True

    def _respond_hit(self, call: Call, lease: Lease) -> bytes:
        with lease:
            entry = lease.entry
            status, similarity, name = self._hit(call)
            age_s = self._wall() - entry.created
            served = Served(status, _replay([]), "device", age_s, similarity, entry.cost_ms, name)
            body = entry.frames[0] + self._info(call, served)
        self._settle(call, served, len(body), self._clock())
        return body

    # --------------------------------------------------------------------------------------- streamed answers

    async def streamed(
        self,
        task: Task,
        tenant: str,
        decoded: wire.Decoded,
        started: float,
        bytes_in: int,
        prepared: Callable[[Call], None] = lambda call: None,
        told: Callable[[bytes], bytes] = lambda frame: frame,
        engine: Engine | None = None,
    ) -> AsyncIterator[bytes]:
        """The messages of one streamed answer; the last carries the cache_info. `told` turns a stored one into one;
        `engine` is the one that has been at work already."""
        input_digest = await self._input_digest(task.name, tenant, decoded.canonical)
        in_frames = task.frames is not None
        call = self.prepare(task, tenant, decoded, started, bytes_in, input_digest, streaming=in_frames, engine=engine)
        if in_frames:
            self._notes.streamed(call.key, decoded.output)
        prepared(call)
        if self._recorder is not None:
            self._recorder.take(call)
        compute = self._computing.frames(call) if task.frames is not None else self._computing.whole(call)
        sent, first = 0, 0.0
        while True:
            served = await self._serve(call, compute)
            try:
                async for frame in served.frames:
                    first = first or self._clock()
                    sent += len(frame)
                    if frame:
                        yield told(frame)
                break
            except DeadlineExceeded:
                if sent or not self._takes_over(call, served):
                    raise
            finally:
                served.release()
        self._settle(call, served, sent, first or self._clock(), streaming=True)
        yield self._info(call, served)

    # ------------------------------------------------------------------------------------- one request's parts

    def tenant(self, context: CallContext) -> str:
        return self._tenants.of(context)

    def engine(self, task: Task, model: str, tenant: str) -> Engine:
        """The engine for a stream whose input is yet to come."""
        return self._engines.of(task.name, model, tenant)

    def engine_failed(self, engine: Engine) -> None:
        """Counts what an engine that streams could not do."""
        self._observer.engine_failed(engine.info.identity)

    def engines_changed(self, voices: VoiceBook) -> None:
        """Other engines serve from now on, whose voices `voices` has. Calls in progress keep theirs."""
        self._voices = voices
        self._listener.voices = voices
        self._shortcuts.forget()

    def forget_shortcuts(self) -> None:
        """What comes again is decoded again, once: the recorder wants to see it."""
        self._shortcuts.forget()

    def now(self) -> float:
        return self._clock()

    def slot(self, *, admitted: bool) -> AbstractAsyncContextManager[None]:
        """A place among the engine runs, for one step of a streaming recognizer. Raises `Overloaded`."""
        return self._slots.slot(admitted=admitted)

    async def decode(
        self, task: Task, tenant: str, data: bytes, admit: Callable[[Any], None] = lambda request: None
    ) -> tuple[wire.Decoded, bytes]:
        """The request and its input digest; what is large is parsed, checked and hashed in one go in a thread. `admit`
        may refuse what was parsed, before the rest is done."""
        keys, limits = self._keys.of(tenant), self._limits

        def parsed() -> Any:
            request = task.request(data)
            admit(request)
            return request

        def decoded(request: Any) -> tuple[wire.Decoded, bytes]:
            found = task.decode(request, limits)
            return found, keys.input_digest(task.name, found.canonical)

        if len(data) > INLINE_BYTES:
            return await self.in_thread(lambda: decoded(parsed()))
        request = parsed()
        return await self.in_thread(decoded, request) if task.costly(request) else decoded(request)

    def _admit(self, request: Any) -> None:
        """Raises `Overloaded` for a request that only an engine can answer while there is no room for it: it changes
        nothing, so it may be asked in a thread. What may be answered from memory is refused once memory has been asked
        (`_get`)."""
        if self._slots.full and not wire.reads_cache(request):
            raise self._slots.overloaded()

    async def _input_digest(self, kind: str, tenant: str, canonical: bytes) -> bytes:
        keys = self._keys.of(tenant)
        if len(canonical) > INLINE_BYTES:
            return await self.in_thread(keys.input_digest, kind, canonical)
        return keys.input_digest(kind, canonical)

    async def in_thread(self, work: Callable[..., T], *args: Any) -> T:
        """Blocking work, off the event loop."""
        return await in_thread(self._pool, work, *args)

    def prepare(
        self,
        task: Task,
        tenant: str,
        decoded: wire.Decoded,
        started: float,
        bytes_in: int,
        input_digest: bytes | None = None,
        *,
        streaming: bool = False,
        engine: Engine | None = None,
    ) -> Call:
        """Everything that names the answer: input digest and engine (unless they are known), voice handle, key."""
        keys = self._keys.of(tenant)
        input_digest = input_digest or keys.input_digest(task.name, decoded.canonical)
        engine = engine or self._engines.of(task.name, decoded.model, tenant, input_digest)
        policy = self._policies(tenant)
        voice, cosine = self._voice(decoded, engine, policy)
        if decoded.emotion and decoded.emotion not in engine.info.emotions:  # which came while a stream went on
            raise BadField("voice.emotion", decoded.emotion, listed(engine.info.emotions))
        near = _near(keys, decoded, voice, cosine)
        output = decoded.output
        fields = KeyFields(
            task=task.name,
            engine=engine.info.identity,
            voice=voice,
            emotion=decoded.emotion,
            language=decoded.language,
            speed=decoded.speed,
            encoding=int(output.encoding) if output else 0,
            rate=output.rate if output else 0,
            features=decoded.features,
            streaming=streaming,
        )
        call = Call(
            task=task,
            tenant=tenant,
            keys=keys,
            policy=policy,
            decoded=decoded,
            engine=engine,
            fields=fields,
            input_digest=input_digest,
            key=keys.cache_key(fields, input_digest),
            near=near,
            started=started,
            bytes_in=bytes_in,
        )
        if near is not None:
            self._judging.vouch(call, near)
        return call

    async def hear_example(self, tenant: str, decoded: wire.Decoded) -> wire.Decoded:
        """`decoded` with the mood its example is in, where it came with one. Raises `BadField`."""
        if not decoded.example:
            return decoded
        at, policy, control = "voice.emotion_audio", self._policies(tenant), decoded.control
        if not self._listener.hears_moods:
            raise BadField(at, decoded.example, "none; name the mood in voice.emotion", "no mood encoder runs here")
        if not policy.allows_fuzzy(control.match):
            allowed = "cache_control.match FUZZY where the tenant may have it, or voice.emotion by name"
            raise BadField(at, decoded.example, allowed, "a mood by example is only near what is meant")
        digest = await self._input_digest("mood", tenant, decoded.example)
        if control.mode == wire.Mode.ONLY_IF_CACHED and not self._listener.has_heard(digest):
            raise NotCached(f"{at}: the mood of this example is not known yet, and ONLY_IF_CACHED runs no model")
        try:
            mood, similarity = await self._listener.mood(digest, decoded.example)
        except Unfit as error:
            raise BadField(at, decoded.example, "a recording of speech", str(error)) from error
        least = max(control.min_similarity, policy.min_similarity)
        if mood not in self._limits.emotions or similarity < least:
            known = f"an example of {listed(self._limits.emotions)}, with a similarity of at least {least:.3f}"
            raise BadField(at, decoded.example, known, f"sounds {mood}, with a similarity of {similarity:.3f}")
        return replace(decoded, emotion=mood, example=b"", likeness=wire.Likeness(digest, similarity))

    def _voice(self, decoded: wire.Decoded, engine: Engine, policy: TenantPolicy) -> tuple[str, float]:
        if decoded.voice is None:
            voices = engine.info.voices
            return (voices[0] if voices else ""), 1.0
        if isinstance(decoded.voice, str):
            if decoded.voice not in engine.info.voices:  # another version has it
                raise BadField("voice.name", decoded.voice, listed(engine.info.voices))
            return decoded.voice, 1.0
        try:
            resolved = self._voices.resolve(decoded.voice)
        except NoNearVoice as error:
            allowed = f"one with a cosine of at least {error.threshold:.2f} to a registered voice, or a voice by name"
            raise BadField("voice.embedding", f"{len(decoded.voice)} numbers", allowed, str(error)) from error
        if resolved.exact:
            return resolved.handle, 1.0
        least = max(decoded.control.min_similarity, policy.min_similarity)
        if not policy.allows_fuzzy(decoded.control.match) or resolved.cosine < least:
            raise BadField(
                "voice.embedding",
                f"cosine {resolved.cosine:.3f} to voice '{resolved.handle}'",
                "a registered embedding, or cache_control.match FUZZY where the tenant may have it and a cosine of at"
                f" least {least:.3f}",
            )
        return resolved.handle, resolved.cosine

    async def _serve(self, call: Call, compute: Callable[[], AsyncIterator[bytes]]) -> Served:
        """Decides where the answer comes from. The frames are not yet read when this returns."""
        control = call.decoded.control
        bypass = control.mode == wire.Mode.BYPASS
        refresh = bypass or control.mode == wire.Mode.REFRESH
        if not refresh and (control.mode == wire.Mode.ONLY_IF_CACHED or call.fuzzy):
            found = await self._remembered(call)
            if found is not None:
                return found
            if control.mode == wire.Mode.ONLY_IF_CACHED:
                raise NotCached(f"no {call.task.name} answer to this request is cached")
        answer = await self._get(call, compute, refresh=refresh, store=not (bypass or control.no_store))
        max_age = control.max_age_s
        if answer.source is Source.MISS:
            call.cause = NOT_LOOKED if refresh else call.cause or _ABSENCES[answer.absence]
        while max_age is not None and answer.source is Source.HIT and answer.age_s > max_age:
            call.cause = TOO_OLD
            answer.release()
            answer = await self._get(call, compute, newer=True, store=not control.no_store)
        call.lookup_ms = (self._clock() - call.started) * 1e3
        if answer.source is Source.HIT:
            status, similarity, name = self._hit(call)
            saved_ms = answer.cost_ms
        else:
            status = BYPASS if bypass else MISS if answer.source is Source.MISS else COALESCED
            similarity, saved_ms, name = 0.0, 0.0, "" if bypass else "e" + call.key.digest.hex()
        return Served(status, answer.frames, answer.tier, answer.age_s, similarity, saved_ms, name, answer.release)

    def _hit(self, call: Call) -> tuple[wire.Status, float, str]:
        """What a hit under the own key is called, its similarity and entry_id; a fuzzy one may be audited."""
        if call.near is None:
            return HIT_EXACT, 1.0, "e" + call.key.digest.hex()
        self._judging.near(call, call.near)
        return HIT_FUZZY, call.near.similarity, call.keys.pair_id(call.near.query, call.near.digest, "n")

    async def _get(
        self,
        call: Call,
        compute: Callable[[], AsyncIterator[bytes]],
        *,
        store: bool,
        refresh: bool = False,
        newer: bool = False,
    ) -> Answer:
        """Reads through the tiers. Neither reading nor storing is a bypass, still in a flight, which outlives a caller
        only as long as somebody listens. Raises `Overloaded` at once where it could only begin what would be refused.
        """
        key, looked = call.key, call.looked
        full = self._slots.full and call.known is None  # what is known needs no slot
        if full and self._cache.must_compute(key, refresh=refresh, newer=newer, looked=looked):
            raise self._slots.overloaded()
        return await self._cache.get(
            key,
            compute,
            store=store,
            ttl_s=call.decoded.control.ttl_s,
            tags=call.tags(),
            refresh=refresh,
            newer=newer,
            looked=looked,
            cost_ms=lambda: call.compute_ms,
            on_commit=lambda key, entry: self._committed(call, entry),
        )

    async def _remembered(self, call: Call) -> Served | None:
        """What the tiers hold under the own key, else under the key of a recalled recording."""
        name = "e" + call.key.digest.hex()
        served = None if call.looked else await self._lookup(call, call.key, HIT_EXACT, 1.0, name)
        if served is not None:
            served.status, served.similarity, served.entry_id = self._hit(call)
        if served is not None or not call.fuzzy:
            return served
        recalled = await self._recall.find(
            call.tenant, call.decoded.canonical, call.input_digest, call.decoded.control.min_similarity
        )
        call.lookup_ms = (self._clock() - call.started) * 1e3
        if recalled is None:
            call.cause = UNLIKE
            return await self._said_before(call)
        return await self._recalled(call, recalled, call.tenant, "f")

    async def _said_before(self, call: Call) -> Served | None:
        """What the same command was answered with earlier in the session, where the request names one.

        Who wants to know when each word was said is not answered so: in another take that is another time.
        """
        control = call.decoded.control
        if not control.session_id or call.policy.respoken == "never":
            return None
        session = call.keys.input_digest("session", control.session_id.encode())
        shunned = self._audits.shunned(respoken_of(call.tenant))
        least = max(control.min_similarity, call.policy.min_similarity)

        def hear() -> Spoken:
            samples = waveform(call.decoded.canonical).samples
            accept = functools.partial(_allowed, shunned, call.input_digest)
            return self._recall.sessions.hear(call.tenant, session, samples, accept, least)

        call.spoken = await self.in_thread(hear)
        self._recall.sessions.used(call.spoken)
        call.lookup_ms = (self._clock() - call.started) * 1e3
        if call.spoken.said_before is None or call.fields.features & wire.OFFSETS:
            return None
        said = Recalled(call.spoken.said_before, call.input_digest, call.spoken.similarity, 0.0)
        return await self._recalled(call, said, respoken_of(call.tenant), "r")

    async def _recalled(self, call: Call, recalled: Recalled, books: str, kind: str) -> Served | None:
        """The answer to a recalled recording, told of this one; None where it is gone, or audits forbid it."""
        key = call.keys.cache_key(call.fields, recalled.digest)
        entry_id = call.keys.pair_id(call.input_digest, recalled.digest, kind)
        served = await self._lookup(call, key, HIT_FUZZY, recalled.similarity, entry_id)
        if served is None:
            return None
        frames = [frame async for frame in served.frames]
        served.release()
        shifted = [wire.shift_words(frame, recalled.offset_s, call.decoded.input_seconds) for frame in frames]
        self._judging.recalled(call, recalled, books, transcript_of(frames[0]), key)
        if not self._audits.may_serve(books, recalled):
            call.cause = WITHHELD
            return None
        served.frames, served.release = _replay(shifted), lambda: None
        return served

    async def _lookup(
        self, call: Call, key: CacheKey, status: wire.Status, similarity: float, entry_id: str
    ) -> Served | None:
        answer = await self._cache.lookup(key)
        if answer is None:
            return None
        max_age = call.decoded.control.max_age_s
        if max_age is not None and answer.age_s > max_age:
            answer.release()
            return None
        return Served(
            status, answer.frames, answer.tier, answer.age_s, similarity, answer.cost_ms, entry_id, answer.release
        )

    # -------------------------------------------------------------------------------------------- afterwards

    def _committed(self, call: Call, entry: Entry) -> None:
        """A computed answer has been stored: remember the recording, so that it can be recalled, or the phrase."""
        if call.task is RECOGNIZE and call.policy.enrols:
            self._recall.enrol(call.key, entry, call.input_digest, call.decoded.canonical)
            if call.spoken is not None:
                words = transcript_of(entry.frames[0])
                self._recall.sessions.remember(call.spoken, call.input_digest, words, entry.tags)
        elif call.task is SYNTHESIZE:
            self._notes.spoken(call.key, call.decoded.canonical)

    def _info(self, call: Call, served: Served) -> bytes:
        return wire.info_suffix(
            served.status,
            served.tier,
            served.age_s,
            served.similarity,
            call.fields.engine,
            served.saved_ms,
            served.entry_id,
        )

    def _settle(self, call: Call, served: Served, sent: int, first: float, *, streaming: bool = False) -> None:
        if served.status is HIT_FUZZY:
            answer = Fuzzy(call.tenant, call.task.name, served.similarity, served.tier, self._wall())
            self._notes.fuzzy(served.entry_id, answer)
        self._record(
            call, served.status, served.tier, served.similarity, served.saved_ms, sent, first, streaming=streaming
        )

    def _record(
        self,
        call: Call,
        status: wire.Status,
        tier: str,
        similarity: float,
        saved_ms: float,
        sent: int,
        first: float,
        *,
        streaming: bool,
    ) -> None:
        now = self._clock()
        self._observer.record(
            Outcome(
                task=call.task.name,
                tenant=call.tenant,
                status=status,
                tier=tier,
                latency_s=now - call.started,
                first_s=first - call.started,
                bytes_in=call.bytes_in,
                bytes_out=sent,
                compute_ms=call.compute_ms,
                saved_ms=saved_ms,
                lookup_ms=call.lookup_ms,
                similarity=similarity,
                digest=call.key.digest,
                voice=call.fields.voice,
                emotion=call.fields.emotion,
                streaming=streaming,
                engine=call.fields.engine,
                language=call.fields.language,
                input=b"" if status in (HIT_EXACT, HIT_FUZZY) else call.input_digest,
                cause=0 if status in (HIT_EXACT, HIT_FUZZY, COALESCED) else call.cause,
            )
        )


def _near(keys: TenantKeys, decoded: wire.Decoded, voice: str, cosine: float) -> Recalled | None:
    """What was asked for by likeness and what it was taken for, by their digests; None where all is named."""
    likeness = decoded.likeness
    if cosine >= 1.0 and likeness is None:
        return None
    asked = likeness.digest if likeness is not None else b""
    if isinstance(decoded.voice, tuple):
        asked += array.array("f", decoded.voice).tobytes()
    found = f"{voice}\0{decoded.emotion}".encode()
    similarity = min(cosine, likeness.similarity if likeness is not None else 1.0)
    return Recalled(keys.input_digest("near", found), keys.input_digest("near", asked), similarity, 0.0)


def _allowed(shunned: Callable[[bytes, bytes], bool], query: bytes, digest: bytes) -> bool:
    return digest != query and not shunned(query, digest)


async def _replay(frames: list[bytes]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame
