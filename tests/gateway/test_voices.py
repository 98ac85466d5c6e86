"""An embedding becomes the registered voice it is near enough to, exactly where it is that voice's own, or nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.voices import CANDIDATES, NoNearVoice, VoiceBook

Vector = npt.NDArray[np.float32]


def embedding(seed: int, dimensions: int = 256) -> Vector:
    return np.random.default_rng(seed).normal(size=dimensions).astype(np.float32)


def near(vector: Vector, cosine: float, seed: int = 99) -> Vector:
    """A vector at that cosine to `vector`, on the whole and on any prefix of eight at a time."""
    parts = []
    for part in vector.reshape(-1, 8):
        unit = part / np.linalg.norm(part)
        off = np.random.default_rng(seed).normal(size=8)
        off -= (off @ unit) * unit
        off /= np.linalg.norm(off)
        parts.append(np.linalg.norm(part) * (cosine * unit + np.sqrt(1 - cosine**2) * off))
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture
def book() -> VoiceBook:
    return VoiceBook({name: embedding(seed).tolist() for seed, name in enumerate(("anna", "bert", "carl"))})


@settings(deadline=None)
@given(seed=st.integers(0, 2), scale=st.floats(1e-3, 1e3))
def test_a_voices_own_embedding_is_exactly_that_voice_however_long(seed: int, scale: float) -> None:
    names = ("anna", "bert", "carl")
    book = VoiceBook({name: embedding(number).tolist() for number, name in enumerate(names)})
    resolved = book.resolve((embedding(seed) * scale).tolist())
    assert (resolved.handle, resolved.exact) == (names[seed], True)


@pytest.mark.parametrize("dimensions", [8, 16, 32, 64, 128, 256])
def test_a_prefix_of_an_embedding_is_an_embedding_of_the_same_voice(book: VoiceBook, dimensions: int) -> None:
    resolved = book.resolve(embedding(1)[:dimensions].tolist())
    assert (resolved.handle, resolved.exact) == ("bert", True)


@pytest.mark.parametrize("dimensions", [8, 64, 256])
def test_a_longer_embedding_than_the_registered_is_compared_on_what_both_have(dimensions: int) -> None:
    book = VoiceBook({"anna": embedding(0)[:8].tolist(), "bert": embedding(1).tolist()})
    assert book.resolve(embedding(0)[:dimensions].tolist()).handle == "anna"
    assert book.resolve(embedding(1)[:dimensions].tolist()).handle == "bert"


def test_a_near_embedding_is_that_voice_but_not_exactly(book: VoiceBook) -> None:
    resolved = book.resolve(near(embedding(2), 0.95).tolist())
    assert resolved.handle == "carl"
    assert not resolved.exact
    assert resolved.cosine == pytest.approx(0.95, abs=1e-3)


@pytest.mark.parametrize(("cosine", "found"), [(0.91, True), (0.89, False)])
def test_the_threshold_decides(cosine: float, found: bool) -> None:
    book = VoiceBook({"anna": embedding(0).tolist()}, threshold=0.9)
    query = near(embedding(0), cosine).tolist()
    if found:
        assert book.resolve(query).handle == "anna"
    else:
        with pytest.raises(NoNearVoice, match=r"'anna', has cosine 0\.89.*at least 0\.90"):
            book.resolve(query)


@pytest.mark.parametrize(("dimensions", "found"), [(8, False), (16, False), (32, True), (64, True), (256, True)])
def test_each_length_has_its_threshold_and_others_that_of_the_next_shorter(dimensions: int, found: bool) -> None:
    book = VoiceBook({"anna": embedding(0).tolist()}, threshold={8: 0.97, 32: 0.9, 256: 0.8})
    query = near(embedding(0), 0.92)[:dimensions].tolist()
    if found:
        assert book.resolve(query).handle == "anna"
    else:
        with pytest.raises(NoNearVoice, match=r"at least 0\.97"):
            book.resolve(query)


def test_all_that_decides_is_in_the_identity() -> None:
    voices = {"anna": embedding(0).tolist(), "bert": embedding(1).tolist()}
    changed = [
        VoiceBook(voices, threshold=0.8),
        VoiceBook(voices, threshold={8: 0.85, 256: 0.8}),
        VoiceBook({"anna": voices["anna"]}),
        VoiceBook({"anna": voices["bert"], "bert": voices["anna"]}),
        VoiceBook({**voices, "bert": voices["bert"][:128]}),
        VoiceBook({}),
    ]
    assert len({book.identity for book in [VoiceBook(voices), *changed]}) == 1 + len(changed)
    assert VoiceBook(dict(reversed(voices.items()))).identity == VoiceBook(voices).identity


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_no_length_overflows_or_vanishes(book: VoiceBook, scale: float) -> None:
    resolved = book.resolve((embedding(1).astype(np.float64) * scale).tolist())
    assert (resolved.handle, resolved.exact) == ("bert", True)


def test_the_rest_of_the_vector_decides_between_voices_with_one_prefix() -> None:
    """As many as are confirmed share their first 32 numbers, so that the prefix alone says nothing."""
    head = embedding(0, 32)
    voices = {f"voice {n}": np.concatenate([head, embedding(n + 1, 224)]).tolist() for n in range(CANDIDATES)}
    book = VoiceBook(voices)
    for name, vector in voices.items():
        assert book.resolve(vector).handle == name


def test_where_no_voice_is_registered_none_is_near() -> None:
    with pytest.raises(NoNearVoice, match="none is registered"):
        VoiceBook({}).resolve(embedding(0).tolist())


@pytest.mark.parametrize("values", [[1.0] * 7, [0.0] * 32, [1.0] * 31 + [float("nan")], [float("inf")] * 8])
def test_an_embedding_that_is_none_is_not_registered(values: list[float]) -> None:
    with pytest.raises(ValueError, match="voice 'anna'"):
        VoiceBook({"anna": values})
