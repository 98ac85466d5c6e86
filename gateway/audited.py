"""Pairs that a tenant's audits judged, by names that a person can use: to report one, to drop or hear its answer."""

from __future__ import annotations

from typing import Final

from gateway.audits import Audits, near_of, respoken_of
from gateway.fingerprint.judged import badness
from gateway.keys import TenantKeys
from gateway.stats import AuditedPair

RECORDING: Final = "recording"
SAID_AGAIN: Final = "said again"
VOICE_AND_MOOD: Final = "voice and mood"


def audited_pairs(audits: Audits, keys: TenantKeys) -> list[AuditedPair]:
    """Of all the tenant's books, the worst first. A judge's "right" that was not counted, by lot, is right all the
    same."""
    tenant = keys.tenant
    books = ((RECORDING, "f", tenant), (SAID_AGAIN, "r", respoken_of(tenant)), (VOICE_AND_MOOD, "n", near_of(tenant)))
    found = [(badness(pair), kind, letter, pair) for kind, letter, book in books for pair in audits.judged(book)]
    return [
        AuditedPair(
            kind=kind,
            verdict="right" if pair.judgement == "faint" else pair.judgement,
            similarity=pair.similarity,
            entry_id=keys.pair_id(pair.asked, pair.recalled, letter),
            answer_id="e" + pair.answer.hex() if pair.answer else "",
            asked=pair.asked.hex(),
            recalled=pair.recalled.hex(),
            language="" if kind == VOICE_AND_MOOD else pair.label,
            voice=pair.label if kind == VOICE_AND_MOOD else "",
            at_s=float(pair.at),
        )
        for _, kind, letter, pair in sorted(found)
    ]
