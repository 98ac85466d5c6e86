"""The load beside its control, in time and in answers; and which fuzzy answers were wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.bounds import upper
from bench.replay_compare import compare
from bench.replay_control import REST_S, Rounds, Schedule, scheduled
from bench.replay_inputs import Item
from bench.replay_judge import Judge, Judged, Kin, Pairing, Unequal, words_digest, worst
from bench.replay_quality import (
    added_pairs,
    added_quality,
    breakdown,
    control_says,
    pairs_json,
    quality,
    worth,
)
from bench.replay_things import COPY, RECORDING, TAKE, Things

HALF = Rounds(0.5, 10.0, 5.0)

# When what is sent.


def laid(count: int, rounds: Rounds, seconds: float = 60.0) -> Schedule:
    return scheduled(np.linspace(0.0, seconds, count), rounds, seed=1)


def test_without_a_control_the_load_is_as_it_was() -> None:
    due = np.linspace(0.0, 60.0, 50)
    found = scheduled(due, Rounds(0.0, 10.0, 0.0), seed=1)
    assert (found.due_s == due).all()
    assert not found.pairing.past.any()
    assert (found.pairing.pair == -1).all()


def test_load_and_control_take_turns_and_never_meet() -> None:
    found = laid(400, HALF)
    past, since = found.pairing.past, found.due_s - HALF.warmup_s
    within = since % (HALF.length_s + HALF.pause_s)
    counted = since >= 0
    assert (within[counted & ~past] <= HALF.length_s).all()
    assert (within[past] >= HALF.length_s + REST_S).all()
    assert (within[past] <= 2 * HALF.length_s + REST_S).all()
    assert (np.diff(found.due_s) >= 0).all()
    assert (found.due_s < found.pairing.until_s)[counted].all()
    assert not past[~counted].any()


def test_each_control_is_that_of_one_request_at_the_same_moment_of_its_round() -> None:
    found = laid(400, HALF)
    pairs = found.pairing.pair[found.pairing.past]
    assert 100 < len(pairs) == len(set(pairs.tolist())) < 270
    for pair in pairs.tolist():
        ours, theirs = np.flatnonzero(found.pairing.pair == pair).tolist()
        assert found.request[ours] == found.request[theirs] == pair
        assert found.due_s[theirs] - found.due_s[ours] == pytest.approx(HALF.length_s + REST_S)


@given(st.integers(1, 7))
@settings(deadline=None)
def test_parts_hold_whole_pairs_and_together_everything(shares: int) -> None:
    found = laid(200, HALF)
    parts = [found.of(share, shares) for share in range(shares)]
    assert sum(len(part.due_s) for part in parts) == len(found.due_s)
    for part in parts:
        pairs = part.pairing.pair[part.pairing.pair >= 0]
        assert (np.unique(pairs, return_counts=True)[1] == 2).all()


def test_the_load_stands_still_while_its_control_is_sent() -> None:
    assert [HALF.paused(at) for at in (0.0, 5.0, 15.0, 16.0, 27.0, 37.0)] == [0.0, 0.0, 0.0, 1.0, 12.0, 12.0]
    assert Rounds(0.0, 10.0, 0.0).paused(99.0) == 0.0


# Answers.


def test_sounds_are_equal_near_or_different() -> None:
    rng = np.random.default_rng(1)
    tone = (8000 * np.sin(np.arange(22050) * 0.2)).astype("<i2")
    loud = np.clip(tone * 1.02, -32768, 32767).astype("<i2")
    other = rng.integers(-8000, 8000, 22050).astype("<i2")
    assert compare("synthesize", tone.tobytes(), tone.tobytes()) == ("equal", 0.0)
    verdict, apart = compare("synthesize", tone.tobytes(), loud.tobytes())
    assert verdict == "near"
    assert apart is not None
    assert 0 < apart <= 20 * np.log10(1.02), "of the bands that sound"
    assert compare("synthesize", tone.tobytes(), other.tobytes())[0] == "different"
    assert compare("synthesize", tone.tobytes(), tone[:9000].tobytes()) == ("different", None)
    assert compare("recognize", b"turn it on", b"turn it off") == ("different", pytest.approx(1 / 3))


def test_words_are_told_apart_only_by_who_has_the_recording() -> None:
    assert words_digest("Turn it ON, please.", b"a") == words_digest("turn it on please", b"a")
    assert words_digest("turn it on", b"a") != words_digest("turn it off", b"a")
    assert words_digest("turn it on", b"a") != words_digest("turn it on", b"b")


def test_the_worst_come_first_and_once() -> None:
    near, apart = Unequal(1, "HIT_EXACT", "near", 0.5), Unequal(2, "HIT_EXACT", "different", 3.0)
    other = Unequal(3, "MISS", "different", None)
    assert worst([near, apart, other, near]) == [other, apart, near]


THINGS = Things(
    np.zeros(0, np.int32),
    (
        Item("recognize", "Turn it on.", "ann", "sad", fuzzy=True),
        Item("recognize", "Turn it on.", "ann", "sad", noise=1, fuzzy=True),
        Item("recognize", "Turn it on.", "bob", "sad", speed=1.1, fuzzy=True),
        Item("synthesize", "Hello.", "ann", "sad"),
    ),
    (RECORDING, COPY, TAKE, "text"),
    (11, 12, 13, 14),
    (0, 0, 0, 3),
)
REQUESTS = [b"r0", b"r1", b"r2", b"r3"]


def judged(*answers: tuple[int, str, bytes], pairs: bool = False) -> Judged:
    """Each answer is what was asked for, the status and the answer; with `pairs` every second is a control's."""
    count = len(answers)
    past = np.arange(count) % 2 == 1 if pairs else np.zeros(count, bool)
    pair = np.arange(count) // 2 if pairs else np.full(count, -1)
    kin = Kin(THINGS.lead, [kind == COPY for kind in THINGS.kinds])
    judge = Judge([item.task for item in THINGS.items], kin, REQUESTS, Pairing(past, pair, np.full(count, 10.0)))
    for number, (ask, status, answer) in enumerate(answers):
        judge.answered(number, ask, status, 4000 if past[number] else 1000, 1.0, answer)
    return judge.result()


def kinds(report: dict[str, object]) -> dict[str, tuple[int, int, float]]:
    rows = breakdown(report)["kinds"]
    return {row["kind"]: (row["fuzzy_judged"], row["fuzzy_wrong"], row["fuzzy_wrong_upper_bound"]) for row in rows}


def test_a_fuzzy_answer_is_right_if_the_words_were_spoken_or_the_model_heard_them_so() -> None:
    found = judged(
        (0, "MISS", b"turn it own"),  # as the model hears it
        (1, "HIT_FUZZY", b"turn it own"),
        (1, "HIT_FUZZY", b"Turn it on"),
        (2, "HIT_FUZZY", b"turn it off"),
    )
    report = quality(THINGS, REQUESTS, [found])
    assert kinds(report) == {
        COPY: (2, 0, pytest.approx(upper(0, 2))), RECORDING: (0, 0, 1.0), TAKE: (1, 1, 1.0),
    }  # fmt: skip
    voices = {row["voice"]: row["fuzzy_wrong"] for row in breakdown(report)["voices"]}
    assert voices == {"ann": 0, "bob": 1}
    assert json.loads(json.dumps(report)) == report
    assert "turn" not in json.dumps(report)


def test_what_a_model_made_of_a_noisy_copy_makes_nothing_right() -> None:
    found = judged((1, "BYPASS", b"turn it off"), (2, "HIT_FUZZY", b"turn it off"), (0, "MISS", b"turn it on"))
    assert kinds(quality(THINGS, REQUESTS, [found]))[TAKE][:2] == (1, 1)


def test_without_a_model_s_answer_nothing_is_judged() -> None:
    assert kinds(quality(THINGS, REQUESTS, [judged((1, "HIT_FUZZY", b"turn it off"))]))[COPY] == (0, 0, 1.0)


def test_parts_judge_each_other_s_answers() -> None:
    one = judged((1, "HIT_FUZZY", b"turn it own"), (1, "HIT_FUZZY", b"turn it off"))
    other = judged((0, "MISS", b"turn it own"))
    apart = [quality(THINGS, REQUESTS, [part]) for part in (one, other)]
    together = quality(THINGS, REQUESTS, [one, other])
    assert added_quality(apart) == together
    assert kinds(together)[COPY][:2] == (2, 1)


def test_the_load_and_its_control_are_summed_and_compared() -> None:
    found = judged(
        (3, "HIT_EXACT", b"a" * 40), (3, "BYPASS", b"a" * 40),
        (3, "MISS", b"b" * 40), (3, "BYPASS", b"b" * 4000),
        (0, "HIT_EXACT", b"turn it on"), (0, "BYPASS", b"turn it off"),
        pairs=True,
    )  # fmt: skip
    control = pairs_json(THINGS, [found])
    rows = {(row["task"], row["status"]): row for row in control["pairs"]}
    assert rows["synthesize", "HIT_EXACT"]["equal"] == 1
    assert rows["synthesize", "MISS"]["different"] == rows["recognize", "HIT_EXACT"]["different"] == 1
    assert [row["digest"] for row in control["unequal"]] == [f"{14:016x}", f"{11:016x}"]
    told = worth(control)
    assert told["compute_hit_rate"] == pytest.approx(2 / 3)
    assert told["speed_up"] == pytest.approx(4.0)
    assert told["speed_up_allowed"] == pytest.approx(3.0)
    assert told["speed_up_reached"] == pytest.approx(4 / 3)
    assert told["hits_different"] == 1
    twice = added_pairs([control, control])
    assert worth(twice)["speed_up"] == pytest.approx(4.0)
    assert twice["unequal"] == control["unequal"]
    assert sum(row["pairs"] for row in twice["pairs"]) == 6


def test_a_control_without_pairs_tells_nothing() -> None:
    control = pairs_json(THINGS, [])
    found = control | worth(control) | asdict(HALF) | {"requests": 0, "offered_per_s": 0.0}
    assert found["speed_up"] is None
    assert "sooner" not in control_says(found)


def test_a_control_that_the_engines_did_not_bear_is_said_and_tells_no_speed_up() -> None:
    found = judged((3, "MISS", b"a"), (3, "BYPASS", b"a"), pairs=True)
    control = pairs_json(THINGS, [found]) | {"spilled": 1}
    told = control_says(
        control | worth(control) | asdict(replace(HALF, share=1.0)) | {"requests": 1, "offered_per_s": 1.0}
    )
    assert "did not bear this rate" in told
    assert "sooner" not in told


def test_an_answer_without_its_other_half_is_counted() -> None:
    judge = Judge(["synthesize"], Kin([0], [False]), [b""], Pairing(np.array([False]), np.array([0]), np.array([1.0])))
    judge.answered(0, 0, "MISS", 1000, 2.0, b"a")
    found = judge.result()
    assert (found.unpaired, found.spilled, found.pairs) == (1, 0, {})
