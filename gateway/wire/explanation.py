"""An explanation to a serialised ExplainRecallResponse."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf.duration_pb2 import Duration

from gateway.explain import Candidate, Explanation
from models.bands import HOP_S
from models.utterance import Samples
from protos.refrain.v1 import cache_pb2 as pb


def explain_response(told: Explanation) -> bytes:
    response = pb.ExplainRecallResponse(
        outcome=int(told.outcome),  # type: ignore[arg-type]
        fingerprint=int(told.made),  # type: ignore[arg-type]
        serving=int(told.serving),  # type: ignore[arg-type]
        wrong_upper_bound=told.audits.wrong_upper_bound,
        limit=told.audits.limit,
        from_similarity=told.audits.from_similarity,
        recordings=told.recordings,
        length=_duration(told.seconds),
        frame=_duration(HOP_S),
    )
    if told.query is not None and told.query.heard is not None:
        response.level.extend(told.query.level.tolist())
        response.speech.extend(told.query.heard.speech.sum(axis=1).tolist())
    for candidate in told.candidates:
        response.candidates.append(_candidate(candidate))
    return response.SerializeToString()


def _candidate(told: Candidate) -> pb.RecallCandidate:
    verdict = told.verdict
    candidate = pb.RecallCandidate(
        entry_id=told.entry_id,
        pair_id=told.pair_id,
        itself=told.itself,
        quarantined=told.quarantined,
        accepted=told.accepted,
        reason=told.reason,
        similarity=verdict.similarity,
        distance=verdict.distance,
        remembered=told.words is not None,
        transcript=told.words or "",
    )
    if math.isfinite(verdict.score):
        candidate.score = verdict.score
        candidate.offset.CopyFrom(_duration(verdict.offset_s))
        candidate.pace = verdict.pace
        candidate.worst.CopyFrom(_duration(verdict.worst_s))
        candidate.timeline.CopyFrom(_timeline(told))
    return candidate


def _timeline(told: Candidate) -> pb.RecallTimeline:
    lines = told.verdict.lines  # models.evidence.timeline says what its rows are, and how they are scaled
    in_stored, in_query = lines[-2], lines[-1]
    return pb.RecallTimeline(
        start=_duration(told.verdict.first * HOP_S),
        level=_where(in_stored, lines[2:5].sum(axis=0)),
        speech=_where(in_query, lines[5:8].sum(axis=0)),
        evidence=(7 * lines[0]).tolist(),
        known=(7 * lines[1]).tolist(),
        against=told.against.tolist(),
    )


def _where(inside: Samples, values: Samples) -> list[float]:
    return list(np.where(inside > 0, values, -1.0).tolist())


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
