"""The simulation runs the gateway's own audits, and its worlds are what their scenarios say."""

from __future__ import annotations

import numpy as np

from bench.audit_widths import _bounds
from bench.audits import SCENARIOS, WORDS, JudgeErrors, Scenario, judged, live, make_world
from gateway.fingerprint.audit import MORE, SETS, Audit


def scenario(name: str) -> Scenario:
    return next(one for one in SCENARIOS if one.name == name)


def test_a_world_has_as_many_wrong_hits_as_its_scenario_says() -> None:
    world = make_world(scenario("2 % wrong from the middle on"), 100_000, np.random.default_rng(1))
    wrong, late = np.array(world.wrong), np.array(world.moments) > 0.5
    assert wrong[~late].sum() == 0
    assert 0.015 < wrong[late].mean() < 0.025
    assert np.array(world.similarities)[wrong].mean() < np.array(world.similarities)[~wrong].mean()


def test_a_judge_errs_as_often_as_he_is_said_to() -> None:
    judge = JudgeErrors(found=0.7, missed=0.1, accused=0.01, unsure=0.1)
    chances = (np.arange(1000) + 0.5) / 1000
    said = [[judged(judge, wrong, chance) for chance in chances] for wrong in (True, False)]
    assert [row.count("wrong") for row in said] == [700, 10]
    assert [row.count("right") for row in said] == [100, 890]


def test_nothing_is_served_before_it_is_proved_and_little_that_is_wrong_after() -> None:
    clean = live(make_world(scenario("nothing confusable"), 20_000, np.random.default_rng(1)), Audit(), WORDS, 1)
    assert clean.served_wrong == 0
    assert 0.1 < clean.right_withheld / clean.right < 0.6
    wrong = live(make_world(scenario("5 % wrong"), 20_000, np.random.default_rng(1)), Audit(), WORDS, 1, trail=50)
    assert wrong.served < clean.served
    assert len(wrong.trail) >= 50
    assert all(bound <= 0.005 for _, bound, _, _, lowest in wrong.trail if lowest < SETS)
    at_once = live(make_world(scenario("5 % wrong"), 20_000, np.random.default_rng(1)), Audit(proof=False), WORDS, 1)
    assert at_once.rate > wrong.rate


def test_all_ways_to_count_bound_the_same_rate() -> None:
    rng = np.random.default_rng(3)
    band = rng.choice(SETS, 30_000)
    wrong = rng.random(len(band)) < 0.002
    least = np.full(len(band), 2)
    halvings = np.maximum(0, least - np.array(MORE)[band])
    ways = _bounds(band, wrong, least, halvings, rng.random(len(band)) < 0.5**halvings)
    assert len(ways) == 4
    for bounds in ways.values():
        assert 0.002 < bounds[-1] < bounds[0]
