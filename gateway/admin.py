"""CacheAdmin: warm, invalidate, erase, report a wrong hit, explain, count, list what was judged. Always on the caller's
own tenant."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from google.protobuf.duration_pb2 import Duration

from cache_tiers.entry import CacheKey
from cache_tiers.erasure import Gateways
from cache_tiers.link import Unavailable as RedisUnavailable
from cache_tiers.read_through import ReadThrough
from gateway import wire
from gateway.audited import audited_pairs
from gateway.audits import near_of, respoken_of
from gateway.engines import Engines
from gateway.errors import BadField, EraseIncomplete, Unavailable, status_of
from gateway.explain import Explainer
from gateway.keys import Keys
from gateway.observe import Observer
from gateway.path import RequestPath
from gateway.recall import Recall
from gateway.stats import AuditCount, AuditedPair
from gateway.tasks import RECOGNIZE, SYNTHESIZE
from gateway.tenants import CallContext, Tenants
from gateway.wire.explanation import explain_response
from gateway.wire.messages import parse
from protos.refrain.v1 import cache_pb2, speech_pb2

WARM_AT_ONCE = 4
"""Requests of one Warm that compute at the same time, so that warming leaves room for callers."""
WARM_MOST = 1000


class Admin:
    def __init__(
        self,
        *,
        path: RequestPath,
        limits: wire.Limits,
        tenants: Tenants,
        keys: Keys,
        engines: Engines,
        cache: ReadThrough,
        gateways: Gateways,
        recall: Recall,
        observer: Observer,
    ) -> None:
        self._path, self._limits, self._tenants, self._keys, self._engines = path, limits, tenants, keys, engines
        self._cache, self._gateways, self._recall, self._observer = cache, gateways, recall, observer
        self._explainer = Explainer(path, recall, cache)

    async def warm(self, data: bytes, context: CallContext) -> bytes:
        tenant = self._tenants.of(context)
        request = parse(cache_pb2.WarmRequest, data)
        if len(request.requests) > WARM_MOST:
            raise BadField("requests", f"{len(request.requests)} requests", f"at most {WARM_MOST}")
        room = asyncio.Semaphore(WARM_AT_ONCE)
        answers = await asyncio.gather(*(self._warm_one(tenant, one, room) for one in request.requests))
        response = cache_pb2.WarmResponse()
        for index, answer in enumerate(answers):
            if isinstance(answer, str):
                response.failures.append(f"requests[{index}]: {answer}")
            elif answer in (speech_pb2.CacheInfo.MISS, speech_pb2.CacheInfo.COALESCED):
                response.computed += 1
            else:
                response.already_cached += 1
        return response.SerializeToString()

    async def _warm_one(self, tenant: str, request: speech_pb2.SynthesizeRequest, room: asyncio.Semaphore) -> int | str:
        async with room:
            try:
                started = self._path.now()
                decoded = await self._path.hear_example(tenant, await self._decoded(request))
                call = self._path.prepare(SYNTHESIZE, tenant, decoded, started, request.ByteSize())
                answer = speech_pb2.SynthesizeResponse.FromString(await self._path.answer(call))
            except Exception as error:  # one that fails does not keep the others from being warmed
                return status_of(error).message
            return int(answer.cache_info.status)

    async def _decoded(self, request: speech_pb2.SynthesizeRequest) -> wire.Decoded:
        if SYNTHESIZE.costly(request):
            return await self._path.in_thread(wire.decode_synthesize, request, self._limits)
        return wire.decode_synthesize(request, self._limits)

    async def invalidate(self, data: bytes, context: CallContext) -> bytes:
        tenant = self._tenants.of(context)
        keys = self._keys.of(tenant)
        request = parse(cache_pb2.InvalidateRequest, data)
        what = request.WhichOneof("what")
        try:
            if what == "entry_id":
                dropped = int(await self.drop_entry(tenant, request.entry_id))
            elif what == "voice":
                dropped = await self._gateways.invalidate(keys.tag("voice", request.voice))
            elif what == "engine":
                self._check_engine(request.engine)
                dropped = await self._gateways.invalidate(keys.tag("engine", request.engine))
            elif what == "everything" and request.everything:
                erased = await self._gateways.erase_tenant(tenant)
                if not erased.complete:
                    raise EraseIncomplete(erased.missing)
                dropped = erased.count
            else:
                raise BadField("what", what, "one of entry_id, voice, engine, or everything = true")
        except RedisUnavailable as error:
            raise _uncertain() from error
        return cache_pb2.InvalidateResponse(dropped=dropped).SerializeToString()

    async def drop_entry(self, tenant: str, entry_id: str) -> bool:
        """Drops one answer from every tier; True when one had it. Raises `BadField` and `Unavailable`."""
        try:
            return await self._cache.delete(entry_key(tenant, entry_id))
        except RedisUnavailable as error:
            raise _uncertain() from error

    def _check_engine(self, identity: str) -> None:
        if not identity or _hex(identity) is None:
            known = ", ".join(engine.info.identity[:12] + "..." for engine in self._engines)
            raise BadField("engine", identity, f"an identity in hex, such as ListModels gives (now {known})")

    async def erase(self, data: bytes, context: CallContext) -> bytes:
        keys = self._keys.of(self._tenants.of(context))
        request = parse(cache_pb2.EraseRequest, data)
        who = request.WhichOneof("who")
        if who == "subject_id" and request.subject_id:
            tag = keys.tag("subject", request.subject_id)
        elif who == "voice" and request.voice:
            tag = keys.tag("voice", request.voice)
        else:
            raise BadField("who", who, "a subject_id or a voice that is not empty")
        try:
            erased = await self._gateways.erase(tag)
        except RedisUnavailable as error:
            raise EraseIncomplete(["redis"]) from error
        if not erased.complete:
            raise EraseIncomplete(erased.missing)
        return cache_pb2.EraseResponse(
            dropped=erased.count, acknowledged=sorted(erased.acknowledged)
        ).SerializeToString()

    async def report_wrong_hit(self, data: bytes, context: CallContext) -> bytes:
        tenant = self._tenants.of(context)
        new = await self.report_entry(tenant, parse(cache_pb2.ReportWrongHitRequest, data).entry_id)
        return cache_pb2.ReportWrongHitResponse(quarantined=new).SerializeToString()

    async def report_entry(self, tenant: str, entry_id: str) -> bool:
        """A fuzzy answer was wrong: its pair is never matched again; True when it was not known. Raises `BadField`."""
        pair = self._keys.of(tenant).open_pair(entry_id)
        if pair is None:
            raise BadField(
                "entry_id",
                entry_id,
                "the entry_id of a HIT_FUZZY answer",
                "an exact answer can't be another recording's; drop it with Invalidate" if entry_id[:1] == "e" else "",
            )
        books = {"n": near_of(tenant), "r": respoken_of(tenant)}.get(entry_id[0], tenant)
        return await self._recall.audits.report_wrong(books, *pair)

    async def explain_recall(self, data: bytes, context: CallContext) -> bytes:
        tenant = self._tenants.of(context)
        decoded, input_digest = await self._path.decode(RECOGNIZE, tenant, data)
        return explain_response(await self._explainer.explain(tenant, decoded, input_digest, len(data)))

    async def stats(self, data: bytes, context: CallContext) -> bytes:
        tenant = self._tenants.of(context)
        parse(cache_pb2.GetStatsRequest, data)
        response = cache_pb2.GetStatsResponse(
            uptime=_duration(self._observer.uptime_s), failed=self._observer.failures(tenant)
        )
        for row in self._observer.snapshot(tenant):
            response.outcomes.add(
                task=row.task,
                status=row.status,
                tier=row.tier,
                requests=row.requests,
                bytes=row.bytes,
                compute=_duration(row.compute_s),
                saved_compute=_duration(row.saved_s),
                latency_p50=_duration(row.p50_s),
                latency_p99=_duration(row.p99_s),
            )
        for name, read in self._observer.tiers.items():
            tier = read()
            response.tiers.add(
                name=name,
                entries=tier.entries,
                bytes=tier.bytes,
                capacity_bytes=tier.capacity_bytes,
                evictions=sum(tier.evictions.values()),
                errors=tier.errors,
            )
        audit = self._recall.audits.count(tenant)
        response.audits.CopyFrom(_audits(audit))
        response.near_audits.CopyFrom(_audits(self._recall.audits.count(near_of(tenant))))
        for count in self._observer.languages(tenant):
            response.languages.add(
                task=count.task,
                language=count.language,
                requests=count.requests,
                hits_exact=count.hits_exact,
                hits_fuzzy=count.hits_fuzzy,
            )
        for found in self._recall.audits.by_language([tenant]):
            response.audits_by_language.add(
                language=found.language,
                audited=found.audited,
                wrong=found.wrong,
                undecided=found.undecided,
                wrong_upper_bound=found.wrong_upper_bound,
            )
        for of_voice in self._recall.audits.by_voice(tenant):
            response.audits_by_voice.add(**asdict(of_voice))
        return response.SerializeToString()

    async def list_audited_pairs(self, data: bytes, context: CallContext) -> bytes:
        tenant = self._tenants.of(context)
        parse(cache_pb2.ListAuditedPairsRequest, data)
        response = cache_pb2.ListAuditedPairsResponse()
        kinds, verdicts = cache_pb2.AuditedPair.Kind, cache_pb2.AuditedPair.Verdict
        for pair in self.audited_pairs(tenant):
            told = asdict(pair) | {"judged_at": int(pair.at_s)}
            del told["at_s"]
            told["kind"] = kinds.Value(pair.kind.upper().replace(" ", "_"))
            told["verdict"] = verdicts.Value(pair.verdict.upper())
            response.pairs.add(**told)
        return response.SerializeToString()

    def audited_pairs(self, tenant: str) -> list[AuditedPair]:
        """What audits judged of the tenant's fuzzy answers, the worst first."""
        return audited_pairs(self._recall.audits, self._keys.of(tenant))


def entry_key(tenant: str, entry_id: str) -> CacheKey:
    """The key of an answer by its entry_id. Raises `BadField`."""
    digest = _hex(entry_id[1:]) if entry_id[:1] == "e" else None
    if digest is None or len(digest) != 32:
        raise BadField("entry_id", entry_id, "the entry_id of an answer that was not fuzzy")
    return CacheKey(tenant, digest)


def _uncertain() -> Unavailable:
    return Unavailable("the shared tier does not answer, so nothing was dropped for certain; try again")


def _audits(count: AuditCount) -> cache_pb2.AuditStats:
    return cache_pb2.AuditStats(
        audited=count.audited,
        wrong=count.wrong,
        undecided=count.undecided,
        wrong_upper_bound=count.wrong_upper_bound,
        limit=count.limit,
        serving=count.serving,
        doubted_upper_bound=count.doubted_upper_bound,
        from_similarity=count.from_similarity,
        alarms=count.alarms,
        shadow=count.shadow,
        would_serve=count.would_serve,
        withheld=count.withheld,
    )


def _hex(text: str) -> bytes | None:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
