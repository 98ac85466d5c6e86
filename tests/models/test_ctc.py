"""CTC reading against brute force: every path of a small example is walked and summed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from models.ctc import Alphabet, align, beam_search, greedy, score, words_of

ALPHABET = Alphabet("ab ")


def random_log_probs(steps: int, size: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0.0, 1.5, (steps, size))
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def spelled(path: tuple[int, ...], alphabet: Alphabet) -> str:
    return alphabet.decode([column for column, _ in itertools.groupby(path) if column != 0])


def every_text(log_probs: np.ndarray, alphabet: Alphabet) -> dict[str, float]:
    """Probability of each text that any path of columns spells."""
    sums: dict[str, float] = {}
    for path in itertools.product(range(alphabet.size), repeat=len(log_probs)):
        text = spelled(path, alphabet)
        chance = math.exp(sum(float(log_probs[t, column]) for t, column in enumerate(path)))
        sums[text] = sums.get(text, 0.0) + chance
    return sums


@pytest.mark.parametrize(("steps", "seed"), [(1, 0), (2, 1), (4, 2), (6, 3)])
def test_score_is_the_sum_over_all_paths(steps: int, seed: int) -> None:
    log_probs = random_log_probs(steps, ALPHABET.size, seed)
    texts = every_text(log_probs, ALPHABET)
    assert sum(texts.values()) == pytest.approx(1.0, abs=1e-5)
    for text, chance in texts.items():
        assert math.exp(score(log_probs, text, ALPHABET)) == pytest.approx(chance, rel=1e-4), text


def test_score_of_what_cannot_be_spelled_in_time_is_minus_infinity() -> None:
    log_probs = random_log_probs(3, ALPHABET.size, 4)
    assert score(log_probs, "aab", ALPHABET) == -math.inf  # two equal letters need a blank between them
    assert score(log_probs, "abab", ALPHABET) == -math.inf
    assert math.isfinite(score(log_probs, "aba", ALPHABET))


def test_score_of_no_frames() -> None:
    nothing = np.zeros((0, ALPHABET.size), np.float32)
    assert score(nothing, "", ALPHABET) == 0.0
    assert score(nothing, "a", ALPHABET) == -math.inf


def test_letters_outside_the_alphabet_are_refused() -> None:
    with pytest.raises(ValueError, match="'z'"):
        score(random_log_probs(3, ALPHABET.size, 0), "az", ALPHABET)


@pytest.mark.parametrize("seed", range(5))
def test_an_unpruned_beam_is_exact(seed: int) -> None:
    log_probs = random_log_probs(5, ALPHABET.size, seed)
    texts = every_text(log_probs, ALPHABET)
    found = beam_search(log_probs, ALPHABET, width=10_000, floor=-math.inf)
    assert {text for text, _ in found} == set(texts)
    for text, value in found:
        assert math.exp(value) == pytest.approx(texts[text], rel=1e-4), text
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)


def test_a_beam_sums_what_the_best_path_does_not() -> None:
    # blank is the best path in each frame (0.4 * 0.4), but "a" is likelier over its three paths (0.6)
    log_probs = np.log(np.array([[0.4, 0.35, 0.25, 1e-9], [0.4, 0.35, 0.25, 1e-9]], np.float32))
    assert greedy(log_probs, ALPHABET) == []
    assert beam_search(log_probs, ALPHABET, width=4)[0][0] == "a"


class Favour:
    """Favours one word, as soon as it begins."""

    def __init__(self, favourite: str) -> None:
        self.favourite = favourite

    def word(self, earlier: str, before: str, word: str) -> float:
        return 0.0 if word == self.favourite else -3.0

    def ahead(self, part: str) -> float:
        return 0.0 if self.favourite.startswith(part) else -3.0


def test_a_judge_decides_between_words_that_sound_alike() -> None:
    columns = np.array([[0.05, 0.5, 0.43, 0.02], [0.9, 0.03, 0.03, 0.04], [0.05, 0.02, 0.03, 0.9]], np.float32)
    log_probs = np.log(columns)
    assert beam_search(log_probs, ALPHABET)[0][0] == "a "
    assert beam_search(log_probs, ALPHABET, judge=Favour("b"))[0][0] == "b "


@pytest.mark.parametrize("seed", range(5))
def test_what_is_hoped_for_is_paid_back(seed: int) -> None:
    log_probs = random_log_probs(5, ALPHABET.size, seed)
    judge = Favour("ab")
    for text, value in beam_search(log_probs, ALPHABET, width=10_000, floor=-math.inf, judge=judge):
        bonus = sum(judge.word("", "", word) for word in text.split())
        assert value == pytest.approx(score(log_probs, text, ALPHABET) + bonus, rel=1e-4, abs=1e-4), text


def test_greedy_merges_repeats_and_gives_places() -> None:
    columns = [0, 1, 1, 0, 1, 3, 3, 2, 0]
    log_probs = np.full((len(columns), ALPHABET.size), -5.0, np.float32)
    for frame, column in enumerate(columns):
        log_probs[frame, column] = -0.1 * (frame + 1)
    letters = greedy(log_probs, ALPHABET, first_frame=100)
    assert [(letter.text, letter.start, letter.end) for letter in letters] == [
        ("a", 101, 103),
        ("a", 104, 105),
        (" ", 105, 107),
        ("b", 107, 108),
    ]
    assert letters[0].log_prob == pytest.approx(-0.2)
    assert ["".join(letter.text for letter in word) for word in words_of(letters)] == ["aa", "b"]


def test_nothing_heard_is_nothing_said() -> None:
    nothing = np.zeros((0, ALPHABET.size), np.float32)
    assert greedy(nothing, ALPHABET) == []
    assert beam_search(nothing, ALPHABET) == [("", 0.0)]
    assert words_of([]) == []


@pytest.mark.parametrize("text", ["a", "ab", "aa", "b a", "abab"])
def test_an_alignment_is_the_likeliest_of_all_paths_that_spell_the_text(text: str) -> None:
    log_probs = random_log_probs(6, ALPHABET.size, 8)
    paths = [p for p in itertools.product(range(ALPHABET.size), repeat=6) if spelled(p, ALPHABET) == text]
    best = max(paths, key=lambda path: sum(float(log_probs[t, column]) for t, column in enumerate(path)))
    runs = [(column, [t for t, _ in run]) for column, run in itertools.groupby(enumerate(best), lambda item: item[1])]
    places = [(ALPHABET.letters[c - 1], frames[0], frames[-1] + 1) for c, frames in runs if c != 0]
    found = align(log_probs, text, ALPHABET, first_frame=10)
    assert [(letter.text, letter.start - 10, letter.end - 10) for letter in found] == places
    assert all(
        letter.log_prob == log_probs[letter.start - 10 : letter.end - 10].max(axis=0)[ALPHABET.encode(letter.text)[0]]
        for letter in found
    )


def test_nothing_and_too_much_cannot_be_aligned() -> None:
    log_probs = random_log_probs(3, ALPHABET.size, 8)
    assert align(log_probs, "", ALPHABET) == []
    assert align(log_probs, "aabb", ALPHABET) == []
    assert align(log_probs[:0], "a", ALPHABET) == []
