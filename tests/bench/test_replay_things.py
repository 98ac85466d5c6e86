"""What a trace's records stand for in a replay: kinds, kin, and that different digests are different requests."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench import trace_frames
from bench.distort import speech_power
from bench.replay_inputs import Inputs, Item
from bench.replay_things import COPY, FIELDS, MEL, RECORDING, TAKE, TEXT, Cast, Things, remade, things_of
from bench.trace_synth import Shape, pieces, synth
from gateway.stats import HIT_EXACT, HIT_FUZZY, MISS, UNLIKE
from gateway.trace import read_header
from protos.refrain.v1 import speech_pb2

CAST = Cast(["ann", "bob", "cid"], ["neutral", "sad"])
RECOGNIZE, SYNTHESIZE, VOCODE = 1, 2, 3
SHAPE = Shape(requests=2000, days=2.0, new_model_day=1.0)


def recorded(*records: dict[str, int]) -> trace_frames.Rows:
    rows = np.zeros(len(records), trace_frames.ROW)[list(FIELDS)]
    for row, record in zip(rows, records, strict=True):
        for name, value in record.items():
            row[name] = value
    return rows


def test_what_a_record_is_shows_in_its_kind() -> None:
    things = things_of(
        recorded(
            {"digest": 1, "task": SYNTHESIZE},
            {"digest": 2, "task": VOCODE},
            {"digest": 3, "task": RECOGNIZE, "status": MISS, "cause": UNLIKE},
            {"digest": 4, "task": RECOGNIZE, "status": HIT_FUZZY},
            {"digest": 5, "task": RECOGNIZE, "status": MISS},
        ),
        CAST,
        seed=1,
    )
    assert things.kinds == (TEXT, MEL, RECORDING, COPY, RECORDING)
    assert [item.fuzzy for item in things.items] == [False, False, True, True, False]
    copy, original = things.items[3], things.items[2]
    assert copy == replace(original, noise=4, snr_db=CAST.snr_db)
    assert things.lead[3] == things.lead[2] == 2


def test_a_copy_of_nothing_is_a_recording() -> None:
    things = things_of(recorded({"digest": 4, "task": RECOGNIZE, "status": HIT_FUZZY}), CAST, seed=1)
    assert things.kinds == (RECORDING,)


def test_the_match_can_be_overruled() -> None:
    rows = recorded({"digest": 3, "task": RECOGNIZE}, {"digest": 4, "task": RECOGNIZE, "status": HIT_FUZZY})
    asked = {
        match: [item.fuzzy for item in things_of(rows, replace(CAST, match=match), seed=1).items]
        for match in ("trace", "exact", "fuzzy")
    }
    assert asked == {"trace": [False, True], "exact": [False, False], "fuzzy": [True, True]}


def test_one_input_says_one_thing_in_every_voice_and_mood() -> None:
    both = {"input": 9, "task": SYNTHESIZE}
    things = things_of(
        recorded(
            {"digest": 1, "voice": 70, "emotion": 5, **both},
            {"digest": 2, "voice": 90, "emotion": 6, **both},
            {"digest": 1, "voice": 70, "emotion": 5, "task": SYNTHESIZE, "status": HIT_EXACT},
            {"digest": 3, "voice": 70, "task": SYNTHESIZE},
        ),
        CAST,
        seed=1,
    )
    first, second, other = things.items
    assert first.text == second.text != other.text
    assert first.voice == other.voice != second.voice
    assert first.emotion != second.emotion
    assert things.asks.tolist() == [0, 1, 0, 2]


def test_digests_that_differ_in_nothing_that_is_known_are_two_requests() -> None:
    both = {"input": 9, "task": SYNTHESIZE}
    one, other = things_of(recorded({"digest": 1, **both}, {"digest": 2, **both}), CAST, seed=1).items
    assert one.text == other.text
    assert one != other


# A trace that was made up.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[trace_frames.Rows, dict[str, object]]:
    path = tmp_path_factory.mktemp("synth") / "week.rft.gz"
    trace_frames.write(pieces(synth(SHAPE, 3)), path, synthesized={"seed": 3, **asdict(SHAPE)})
    return trace_frames.load(path, FIELDS), read_header(path)


def things(made: tuple[trace_frames.Rows, dict[str, object]], cast: Cast = CAST) -> Things:
    rows, header = made
    return things_of(rows, cast, 1, remade(header, rows, cast.phrases))


def test_a_synthesized_trace_is_sent_as_it_was_made(made: tuple[trace_frames.Rows, dict[str, object]]) -> None:
    found = things(made)
    assert set(found.kinds) == {TEXT, RECORDING, COPY, TAKE}
    assert len(set(found.items)) == len(found.items) == len(np.unique(made[0]["digest"]))
    originals = {item for item, kind in zip(found.items, found.kinds, strict=True) if kind in (RECORDING, TAKE)}
    heard: dict[str, set[str]] = {}
    for item, kind in zip(found.items, found.kinds, strict=True):
        heard.setdefault(item.text, set()).add(kind)
        if kind == COPY:
            plain = replace(item, noise=0, snr_db=0.0)
            assert plain in originals or replace(plain, fuzzy=not plain.fuzzy) in originals
    assert all(RECORDING in kinds for kinds in heard.values() if kinds & {COPY, TAKE})
    assert len({item.emotion for item in found.items}) == len(CAST.moods)
    again = things(made)
    assert again.items == found.items
    assert (again.asks == found.asks).all()


def test_another_take_is_another_recording_of_the_same_words(made: tuple[trace_frames.Rows, dict[str, object]]) -> None:
    found = things(made)
    spoken: dict[str, list[tuple[str, str, float]]] = {}
    for item, kind in zip(found.items, found.kinds, strict=True):
        if kind in (RECORDING, TAKE):
            spoken.setdefault(item.text, []).append((item.voice, item.emotion, item.speed))
    assert any(len(takes) > 1 for takes in spoken.values())
    assert all(len(takes) == len(set(takes)) for takes in spoken.values())
    assert all(found.items[lead].text == item.text for lead, item in zip(found.lead, found.items, strict=True))


def test_a_trace_is_not_made_again_from_other_phrases(made: tuple[trace_frames.Rows, dict[str, object]]) -> None:
    phrases = tuple((f"Phrase {n}.", 5) for n in range(10))
    with pytest.raises(ValueError, match="other phrases"):
        things(made, replace(CAST, phrases=phrases))


def test_other_traces_were_not_made() -> None:
    assert remade({}, recorded({"digest": 1}), ()) is None


# What is sent.


def test_a_copy_is_its_recording_with_that_much_noise_and_kept(tmp_path: Path) -> None:
    inputs = Inputs(tmp_path)
    clear = Item("recognize", "Good morning.", inputs.voices()[0], inputs.moods()[0])
    noisy = replace(clear, noise=5, snr_db=10.0, fuzzy=True)
    asked = speech_pb2.RecognizeRequest.FromString(inputs.request(noisy))
    assert asked.cache_control.match == speech_pb2.CacheControl.FUZZY
    assert inputs.request(noisy) == Inputs(tmp_path).request(noisy)
    sounds = {path.stat().st_size: soundfile.read(path, dtype="float32")[0] for path in tmp_path.glob("*.wav")}
    assert len(sounds) == 2, "the recording, and the copy that begins later and is longer"
    short, long = (sounds[size] for size in sorted(sounds))
    late = int(np.argmax(np.correlate(long, short, "valid")))
    assert late <= 0.05 * 16_000
    noise = long[late : late + len(short)] - short
    power = speech_power(short) / speech_power(noise)
    assert 10 * np.log10(power) == pytest.approx(10.0, abs=1.5)


def test_voice_mood_and_speed_are_in_the_request(tmp_path: Path) -> None:
    asked = Inputs(tmp_path).request(Item("synthesize", "Hello.", "slt", "cheerful", speed=1.001))
    told = speech_pb2.SynthesizeRequest.FromString(asked)
    assert (told.voice.name, told.voice.emotion) == ("slt", "cheerful")
    assert told.audio_config.speaking_rate == 1.001
