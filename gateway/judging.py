"""Judging answers by likeness: a share of those recalled, and of voices and moods that were only near what was asked.

What is drawn and what follows is the audits'; here is what a judge does, beside the callers and never in their way.
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import cast

from cache_tiers.entry import CacheKey
from gateway import wire
from gateway.admission import Slots
from gateway.audits import Audits, Recalled, near_of
from gateway.call import Call
from gateway.computing import Computing
from gateway.encoders import Listener
from gateway.errors import BadField
from gateway.fingerprint.audit import Judgement
from models.engine import Witness
from models.utterance import Transcript, Waveform

RIGHT, WRONG = -1.0, 4.0
"""Audits: the engine's log-odds that a remembered text is wrong, up to which it counts as right, and from which as
wrong; undecided between."""
SHORT_LETTERS = 12
POWER_SHORT, POWER_LONG = 0.7, 0.07
"""What share of wrong texts is so found among those of which the embedded recognizer is sure: of one or two words, and
of longer ones. Measured by `bench.verdicts`; docs/audits.md."""


class Judging:
    """Of all calls."""

    def __init__(self, audits: Audits, slots: Slots, listener: Listener, computing: Computing) -> None:
        self._audits, self._slots, self._listener, self._computing = audits, slots, listener, computing

    def recalled(self, call: Call, found: Recalled, books: str, words: str, key: CacheKey) -> None:
        """An answer, `words` under `key`, was found for a recording by its likeness to an earlier one."""
        audited = replace(call, deadline=math.inf)  # whose compute time is not the answer's, should that be withheld
        if not self._slots.waiting:  # audits never stand in a caller's way
            judge = functools.partial(self._reading, audited, words)
            self._audits.maybe_audit(books, found, judge, call.fields.language, key.digest)

    def vouch(self, call: Call, near: Recalled) -> None:
        """Raises `BadField` where what was asked must not be taken for what it is near to: somebody said that it is
        not, or audits have stopped fuzzy answers; then it is audited all the same, for that alone can let it through.
        """
        field = "voice.embedding" if call.decoded.likeness is None else "voice.emotion_audio"
        what = f"near voice '{call.fields.voice}' and mood '{call.fields.emotion}'"
        books = near_of(call.tenant)
        if self._audits.shunned(books)(near.query, near.digest):
            raise BadField(field, what, "another, or a voice and a mood by name", "was reported or found to be wrong")
        if not self._audits.may_serve(books, near):
            self.near(call, near)
            raise BadField(field, what, "a voice and a mood by name", "audits have stopped this tenant's near ones")

    def near(self, call: Call, near: Recalled) -> None:
        audited = replace(call, deadline=math.inf)  # whose compute time is not that of the answer
        if not self._slots.waiting:  # audits never stand in a caller's way
            judge = functools.partial(self._listening, audited)
            self._audits.maybe_audit(near_of(call.tenant), near, judge, call.fields.voice, call.key.digest)

    async def _reading(self, call: Call, remembered: str) -> tuple[Judgement, float]:
        """Whether the remembered words are what the new recording says: by reading it, and, where the reading differs,
        by asking how unlikely they are, for a small recognizer mishears noise and must not accuse for that.

        Where the engine cannot be asked, another reading is nobody's verdict, which counts as wrong in the bound; so
        such a judge misses nothing, and his power is 1.
        """
        witness = hasattr(call.engine, "disbelief")
        power = (POWER_SHORT if len(remembered) <= SHORT_LETTERS else POWER_LONG) if witness else 1.0
        chunks = [chunk async for chunk in self._computing.run(call)]
        if any(isinstance(chunk, Transcript) and chunk.text == remembered for chunk in chunks):
            return "right", power
        if not witness:
            return "unjudged", 1.0
        waveform = cast(Waveform, wire.utterance_content(call.task.name, call.decoded.canonical))
        disbelief = await cast(Witness, call.engine).disbelief(waveform, remembered)
        return ("right" if disbelief <= RIGHT else "wrong" if disbelief >= WRONG else "undecided"), power

    async def _listening(self, call: Call) -> tuple[Judgement, float]:
        """Whether the answer sounds as was asked: by making it once more, and listening. What these ears are not sure
        of counts as nobody's judgement: how much they miss is not known."""
        decoded = call.decoded
        chunks = [chunk async for chunk in self._computing.run(call)]
        embedding = decoded.voice if isinstance(decoded.voice, tuple) else None
        mood = decoded.emotion if decoded.likeness is not None else None
        right = await self._listener.judge(chunks, call.fields.voice, embedding, mood)
        return ("unjudged" if right is None else "right" if right else "wrong"), 1.0
