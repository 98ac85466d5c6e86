"""Whether audits keep the wrong answers that are served under the limit, and how many hits that costs: a simulation.

    python -m bench.audits [--seeds 1000] [--requests 100000] [--json OUT] [--plot DIR]

Requests follow a power law over the phrases of a spoken log; some phrases are planted to be taken for another. The
gateway's own `Audit` decides what is audited and served; only the recordings and the judge, by his measured errors, are
made up. Every seed is another world; a seed fails when more than the limit of all that it served was wrong at its end.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import beta
from tqdm import tqdm

from bench.audit_widths import measure_widths
from bench.figures import Figure, Figures
from gateway.arguments import new_file, real, whole
from gateway.fingerprint.audit import EDGES, SETS, Audit, Judgement
from gateway.judging import POWER_LONG, POWER_SHORT

Array = npt.NDArray[np.float64]
Random = np.random.Generator

PHRASES: Final = 4715
ZIPF: Final = 1.14
"""Distinct phrases of 3,235 spoken restaurant dialogues, and the exponent of their popularity."""
FUZZY: Final = 0.3
"""Share of the requests that recall finds something for."""
RECORDINGS: Final = 3
"""Of each phrase that recall may find."""
REPLAYED: Final = 0.3
"""Share of the confused requests that are a recording that comes again byte by byte, one of RECORDINGS."""
RIGHT_BANDS: Final = (0.10, 0.20, 0.30, 0.40)
WRONG_BANDS: Final = (0.70, 0.20, 0.08, 0.02)
"""How alike right and wrong hits are, least alike first."""


@dataclass(frozen=True, slots=True)
class JudgeErrors:
    """A judge of whom `bench.verdicts` has measured how he errs: shares of wrong answers called wrong and right, of
    right ones called wrong and left undecided. None of 1,200 right ones was called wrong; a few are assumed to be."""

    found: float = 0.71
    missed: float = 0.01
    accused: float = 0.0002
    unsure: float = 0.06
    power: float = POWER_SHORT


WORDS: Final = JudgeErrors()
SENTENCES: Final = JudgeErrors(found=0.08, missed=0.06, unsure=0.16, power=POWER_LONG)
ROOM: Final = 0.9
"""Share of the chosen audits for which the engine has room."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`rate`: the share of wrong answers among hits that is planted, by the share of the requests that have passed."""

    name: str
    rate: Callable[[float], float]
    pairs: int = 0
    """Confusable phrases; 0 for a tenth of all."""
    judge: JudgeErrors = WORDS


SCENARIOS: Final = (
    Scenario("nothing confusable", lambda t: 0.0),
    Scenario("0.1 % wrong", lambda t: 0.001),
    Scenario("0.4 % wrong", lambda t: 0.004),
    Scenario("1 % wrong", lambda t: 0.01),
    Scenario("5 % wrong", lambda t: 0.05),
    Scenario("one popular pair, 2 %", lambda t: 0.02, 1),
    Scenario("2 % wrong from a tenth on", lambda t: 0.02 * (t > 0.1)),
    Scenario("2 % wrong from the middle on", lambda t: 0.02 * (t > 0.5)),
    Scenario("rising to 2 %", lambda t: 0.02 * t),
    Scenario("2 % wrong for a while", lambda t: 0.02 * (0.4 < t < 0.5)),
    Scenario("nothing confusable, sentences", lambda t: 0.0, judge=SENTENCES),
    Scenario("5 % wrong, sentences", lambda t: 0.05, judge=SENTENCES),
)

DRAWN: Final = ("0.1 % wrong", "1 % wrong", "2 % wrong for a while")


@dataclass(slots=True)
class World:
    """The fuzzy hits of one seed, in order: when, how alike, and the two recordings; is it wrong."""

    moments: list[float]
    similarities: list[float]
    wrong: list[bool]
    asked: list[bytes]
    recalled: list[bytes]


@dataclass(slots=True)
class Run:
    """What became of them."""

    right: int = 0
    """Right hits that were found, served or not."""
    right_withheld: int = 0
    served: int = 0
    served_wrong: int = 0
    audits: int = 0
    stops: int = 0
    trail: list[tuple[float, float, float, float, int]] = field(default_factory=list)
    """Share of the requests passed, bound, share of wrong ones among what was found lately and among all that was
    served, and the lowest band that is served."""

    @property
    def rate(self) -> float:
        return self.served_wrong / self.served if self.served else 0.0


def make_world(scenario: Scenario, requests: int, rng: Random) -> World:
    """Right hits by popularity; wrong ones of planted phrases, as often as those are asked and the scenario says."""
    popularity = np.arange(1, PHRASES + 1) ** -ZIPF
    popularity /= popularity.sum()
    moments = np.flatnonzero(rng.random(requests) < FUZZY) / requests
    n = len(moments)
    rates = np.array([scenario.rate(moment) for moment in moments])
    wrong = rng.random(n) < rates
    phrase = rng.choice(PHRASES, n, p=popularity)
    planted = rng.permutation(PHRASES)[: scenario.pairs or PHRASES // 10]
    weight = popularity[planted] / popularity[planted].sum()
    phrase[wrong] = rng.choice(planted, int(wrong.sum()), p=weight)
    recording = phrase * RECORDINGS + rng.integers(0, RECORDINGS, n)
    replayed = wrong & (rng.random(n) < REPLAYED)
    asked = np.where(replayed, -1 - phrase * RECORDINGS - rng.integers(0, RECORDINGS, n), np.arange(n))
    bands = np.where(wrong, rng.choice(SETS, n, p=WRONG_BANDS), rng.choice(SETS, n, p=RIGHT_BANDS))
    middles = np.array([(low + high) / 2 for low, high in zip((0.0, *EDGES), (*EDGES, 1.0), strict=True)])
    return World(
        moments.tolist(),
        middles[bands].tolist(),
        wrong.tolist(),
        [b"%d" % one for one in asked.tolist()],
        [b"%d" % one for one in np.where(wrong, -1 - recording, recording).tolist()],
    )


def judged(judge: JudgeErrors, wrong: bool, chance: float) -> Judgement:
    """What the judge says, by his shares of errors."""
    if wrong:
        return "wrong" if chance < judge.found else "right" if chance < judge.found + judge.missed else "undecided"
    return "wrong" if chance < judge.accused else "undecided" if chance < judge.accused + judge.unsure else "right"


def live(world: World, audit: Audit, judge: JudgeErrors, seed: int, trail: int = 0) -> Run:
    """Takes every hit through the audit as the request path does: coin, may it be served, verdict."""
    run, coin = Run(), random.Random(seed)
    lately: list[bool] = []
    was = False
    step = max(1, len(world.moments) // trail) if trail else 0
    hits = zip(world.moments, world.similarities, world.wrong, world.asked, world.recalled, strict=True)
    for number, (moment, similarity, wrong, asked, recalled) in enumerate(hits):
        pair = (asked, recalled)
        if audit.is_quarantined(pair):
            continue
        sample = audit.draw(coin, similarity)
        serves = audit.serves(similarity)
        if serves:
            audit.count_served()
            run.served += 1
            run.served_wrong += wrong
        if not wrong:
            run.right += 1
            run.right_withheld += not serves
        if sample is not None and coin.random() < ROOM:
            run.audits += 1
            verdict = judged(judge, wrong, coin.random())
            if verdict == "wrong":
                audit.quarantine(pair, sample)
            else:
                audit.record(sample, verdict, power=judge.power)
        serving = audit.served_from() < SETS
        run.stops += was and not serving
        was = serving
        if step:
            lately.append(wrong)
            if number % step == 0:
                run.trail.append(
                    (moment, audit.bound(), sum(lately[-1000:]) / len(lately[-1000:]), run.rate, audit.served_from())
                )
    return run


def runs(scenario: Scenario, seeds: int, requests: int, limit: float, proof: bool) -> Iterator[Run]:
    for seed in range(seeds):
        world = make_world(scenario, requests, np.random.default_rng([seed, len(scenario.name)]))
        yield live(world, Audit(limit, proof=proof), scenario.judge, seed)


def measure(scenario: Scenario, options: argparse.Namespace, out: Figures) -> None:
    found = list(
        tqdm(
            runs(scenario, options.seeds, options.requests, options.limit, not options.until_disproved),
            desc=scenario.name,
            total=options.seeds,
            leave=False,
        )
    )
    held = sum(run.rate <= options.limit for run in found)
    per_mille = 1000 * held / len(found)
    name = scenario.name
    out.add(Figure(f"{name}: served wrong rate under the limit", per_mille, "of 1,000 seeds", None, 930, "higher"))
    least = float(beta.ppf(0.05, held, len(found) - held + 1)) if held else 0.0
    out.add(Figure(f"{name}: the same, 95 % lower bound", 1000 * least, "of 1,000 seeds"))
    served = sum(run.served for run in found)
    wrong = sum(run.served_wrong for run in found)
    planted = float(np.mean([scenario.rate(t) for t in np.linspace(0, 1, 1001)]))
    out.add(Figure(f"{name}: wrong among served", 100 * wrong / max(served, 1), "%", 100 * planted))
    cost = sum(run.right_withheld for run in found) / sum(run.right for run in found)
    out.add(Figure(f"{name}: right hits withheld", 100 * cost, "%"))
    out.add(Figure(f"{name}: audits", sum(run.audits for run in found) / len(found), "a seed"))
    out.add(Figure(f"{name}: hits", sum(run.right for run in found) / len(found), "right ones a seed"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=whole(1), default=1000)
    parser.add_argument("--requests", type=whole(1), default=100_000)
    parser.add_argument("--limit", type=real(0, 1, above=True), default=0.005)
    parser.add_argument("--until-disproved", action="store_true", help="as without require_proof")
    parser.add_argument("--only", action="append", choices=[one.name for one in SCENARIOS], help="may be repeated")
    parser.add_argument("--json", type=new_file)
    parser.add_argument("--plot", type=Path, help="folder for a picture of the bound over time")
    options = parser.parse_args()
    out = Figures({"seeds": options.seeds, "requests": options.requests, "limit": options.limit})
    for scenario in SCENARIOS:
        if not options.only or scenario.name in options.only:
            measure(scenario, options, out)
    if not options.only:
        measure_widths(options.limit, out)
    out.write(options.json)
    if options.plot is not None:
        from bench.audit_plots import draw_trails

        options.plot.mkdir(parents=True, exist_ok=True)
        trails = {
            name: live(world_of(name, options.requests), Audit(options.limit), WORDS, 1, trail=600).trail
            for name in DRAWN
        }
        draw_trails(trails, options.limit, options.plot / "audits.png")


def world_of(name: str, requests: int) -> World:
    scenario = next(one for one in SCENARIOS if one.name == name)
    return make_world(scenario, requests, np.random.default_rng([1, len(name)]))


if __name__ == "__main__":
    main()
