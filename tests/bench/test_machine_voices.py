"""Machine voices: what is compared with what, and what is counted."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from bench import machine_voices
from bench.distort import Surroundings
from bench.machine_voices import CONDITIONS, Comparison, Counts, one_word_apart


def test_one_word_apart() -> None:
    assert one_word_apart(("five", "p m"), ("nine", "p m"))
    assert not one_word_apart(("five", "p m"), ("five", "p m"))
    assert not one_word_apart(("five", "p m"), ("nine", "a m"))


def test_shares_are_by_condition() -> None:
    counts = Counts()
    counts.add("a", "clean copy", True)
    counts.add("b", "clean copy", False)
    counts.add("a", "telephone", False)
    assert [counts.share_of(at) for at in ("clean copy", "telephone", "noise 5 dB")] == [50.0, 0.0, 0.0]


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed (Debian: espeak-ng)")
def test_every_saying_is_compared_with_those_one_word_away(monkeypatch: pytest.MonkeyPatch) -> None:
    form = "please {} the {} window"
    monkeypatch.setattr(machine_voices, "FORMS", {form: (("open", "close"), ("left", "right"))})
    comparison = Comparison(Surroundings([np.random.default_rng(1).normal(0, 0.01, 32_000).astype(np.float32)]))
    comparison.compare("espeak-ng", "en-us", form, np.random.default_rng(2))
    figures = {figure.name: figure for figure in comparison.report().figures}
    assert comparison.same["sentences"].tried.total() == 4 * len(CONDITIONS)
    assert comparison.apart["sentences"].tried.total() == 8 * len(CONDITIONS)
    assert figures["sentences, clean copy: known again"].value == 100.0
    wrong = figures["sentences: one word apart, taken for each other"]
    assert (wrong.unit, wrong.value) == ("of 40", len(comparison.mistaken))
