"""Voices by embedding and moods by example: what EmbedVoice says, what resolves to what, and what that is called."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
import soundfile

from gateway.admission import Slots
from gateway.encoders import Listener
from gateway.settings import SettingsError
from gateway.voices import VoiceBook, unit
from models.engine import Unfit
from models.utterance import MEL_RATE, Audio, Samples
from protos.refrain.v1 import cache_pb2, speech_pb2
from tests.gateway.hearers import encoders, tone
from tests.gateway.rig import VOICES, Rig, Status, gateway, say

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FUZZY = {"match": speech_pb2.CacheControl.FUZZY}
ANNA, NEAR_ANNA, BERT, NOBODY = (tone(pitch) for pitch in (VOICES["anna"], 310.0, VOICES["bert"], 700.0))
CHEERFUL = tone(500.0, bright=True)


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with gateway(tmp_path) as rig:
        yield rig


def sample(samples: Samples) -> dict[str, Any]:
    pcm = np.round(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()
    return {
        "explicit_decoding_config": {"encoding": speech_pb2.LINEAR16, "sample_rate_hertz": 16_000},
        "content": pcm,
    }


def embed(samples: Samples, **fields: Any) -> speech_pb2.EmbedVoiceRequest:
    return speech_pb2.EmbedVoiceRequest(recording=sample(samples), **fields)


async def embedding_of(rig: Rig, samples: Samples, dimensions: int = 0) -> list[float]:
    return list((await rig.speech.EmbedVoice(embed(samples, dimensions=dimensions))).embedding.values)


def like(values: list[float], text: str = "Hello there.", **control: Any) -> speech_pb2.SynthesizeRequest:
    return say(text, voice={"embedding": {"values": values}}, cache_control=control)


def feeling(samples: Samples, text: str = "Hello there.", **control: Any) -> speech_pb2.SynthesizeRequest:
    return say(text, voice={"emotion_audio": sample(samples)}, cache_control=control)


async def refused(call: Any, field: str, *words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is INVALID
    text = caught.value.details() or ""
    assert text.startswith(f"{field} is "), text
    for word in words:
        assert word in text


async def audits_done(rig: Rig) -> None:
    while tasks := list(rig.running.recall._tasks):
        await asyncio.wait(tasks)


# -------------------------------------------------------------------------------------------------------- EmbedVoice


async def test_a_recording_becomes_the_encoders_embedding_and_the_voice_near_it(rig: Rig) -> None:
    answer = await rig.speech.EmbedVoice(embed(NEAR_ANNA))
    values = np.array(answer.embedding.values, np.float32)
    assert np.linalg.norm(values) == pytest.approx(1.0, abs=1e-6)
    assert values @ rig.voices.embed(NEAR_ANNA) == pytest.approx(1.0, abs=1e-5)  # but for 16 bits
    assert answer.nearest_voice.name == "anna"
    assert answer.nearest_voice.cosine == pytest.approx(values @ rig.voices.embed(ANNA), abs=1e-5)
    models = {model.family: model for model in (await rig.speech.ListModels(speech_pb2.ListModelsRequest())).models}
    assert answer.cache_info.engine == models["speaker"].identity
    assert models["emotion"].name == rig.moods.name


async def test_embeddings_are_remembered_counted_and_erased_like_other_answers(rig: Rig) -> None:
    request = embed(ANNA, cache_control={"subject_id": "somebody"})
    first, second = [await rig.speech.EmbedVoice(request) for _ in range(2)]
    assert [answer.cache_info.status for answer in (first, second)] == [Status.MISS, Status.HIT_EXACT]
    assert first.embedding == second.embedding
    assert first.nearest_voice == second.nearest_voice
    assert rig.voices.runs == 1
    rows = (await rig.admin.GetStats(cache_pb2.GetStatsRequest())).outcomes
    assert sorted(row.status for row in rows if row.task == "embed") == [Status.HIT_EXACT, Status.MISS]
    await rig.admin.Erase(cache_pb2.EraseRequest(subject_id="somebody"))
    assert (await rig.speech.EmbedVoice(request)).cache_info.status == Status.MISS


async def test_callers_with_one_recording_share_a_run(rig: Rig) -> None:
    answers = await asyncio.gather(*(rig.speech.EmbedVoice(embed(ANNA)) for _ in range(5)))
    assert rig.voices.runs == 1
    assert len({answer.embedding.SerializeToString() for answer in answers}) == 1


@pytest.mark.parametrize("dimensions", [8, 16, 32, 64, 128, 256])
async def test_fewer_numbers_are_a_prefix_at_length_one(rig: Rig, dimensions: int) -> None:
    whole = np.array(await embedding_of(rig, NEAR_ANNA), np.float32)
    short = np.array(await embedding_of(rig, NEAR_ANNA, dimensions), np.float32)
    assert short.shape == (dimensions,)
    assert np.allclose(short, unit(whole[:dimensions]), atol=1e-6)


async def test_a_voice_that_nobody_has_has_no_near_one(rig: Rig) -> None:
    assert not (await rig.speech.EmbedVoice(embed(NOBODY))).HasField("nearest_voice")


async def test_a_container_says_itself_what_it_is(rig: Rig) -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(VOICES["bert"], rate=22_050), 22_050, format="FLAC")
    request = speech_pb2.EmbedVoiceRequest(recording={"content": file.getvalue()})
    assert (await rig.speech.EmbedVoice(request)).nearest_voice.name == "bert"


@pytest.mark.parametrize(
    ("request_", "field", "word"),
    [
        (speech_pb2.EmbedVoiceRequest(), "recording.content", "empty"),
        (embed(ANNA[:7_999]), "recording.content", "0.5 s to 60 s"),
        (embed(np.tile(ANNA, 61)), "recording.content", "0.5 s to 60 s"),
        (embed(np.zeros(16_000, np.float32)), "recording.content", "digital silence"),
        (embed(ANNA * np.float32(1e-3)), "recording.content", "too quiet to hear"),
        (embed(ANNA, dimensions=255), "dimensions", "8, 16, 32, 64, 128, 256, or 0"),
        (embed(ANNA, dimensions=-8), "dimensions", "8, 16, 32, 64, 128, 256, or 0"),
        (embed(ANNA, model="other"), "model", "pitch-speaker"),
        (embed(ANNA, cache_control={"mode": 9}), "cache_control.mode", "BYPASS"),
        (speech_pb2.EmbedVoiceRequest(recording={"content": b"x" * 20_000}), "recording.content", "no header"),
        (
            speech_pb2.EmbedVoiceRequest(
                recording={"content": b"12", "explicit_decoding_config": {"encoding": speech_pb2.LINEAR16}}
            ),
            "recording.explicit_decoding_config.sample_rate_hertz",
            "8000 to 48000",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_recording_without_a_voice_is_refused_by_field(rig: Rig, request_: Any, field: str, word: str) -> None:
    await refused(rig.speech.EmbedVoice(request_), field, word)
    assert (await rig.speech.EmbedVoice(embed(ANNA))).nearest_voice.name == "anna"


async def test_nothing_is_stored_of_a_recording_that_was_refused(rig: Rig) -> None:
    stored = rig.running.cache.stats.stored
    await refused(rig.speech.EmbedVoice(embed(ANNA * np.float32(1e-3))), "recording.content")
    assert rig.running.cache.stats.stored == stored


async def test_a_gateway_without_encoders_says_so(tmp_path: Path) -> None:
    async with gateway(tmp_path, deaf=True) as rig:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rig.speech.EmbedVoice(embed(ANNA))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await refused(rig.speech.Synthesize(feeling(CHEERFUL, **FUZZY)), "voice.emotion_audio", "voice.emotion")
        assert (await rig.speech.Synthesize(say())).audio_content


# ------------------------------------------------------------------------------------------------ voices by embedding


async def test_a_registered_embedding_is_that_voice_exactly(rig: Rig) -> None:
    await rig.speech.Synthesize(say(voice={"name": "bert"}))
    own = list(rig.speaker.info.voice_embeddings["bert"])
    for values in (own, own[:8], [number * 1e30 for number in own], [number * 1e-30 for number in own]):
        answer = await rig.speech.Synthesize(like(values))
        assert answer.cache_info.status == Status.HIT_EXACT


async def test_a_near_embedding_is_fuzzy_and_has_to_be_asked_for(rig: Rig) -> None:
    values = await embedding_of(rig, NEAR_ANNA)
    await refused(rig.speech.Synthesize(like(values)), "voice.embedding", "to voice 'anna'", "match FUZZY")
    first = await rig.speech.Synthesize(like(values, **FUZZY))
    assert first.cache_info.status == Status.MISS
    by_name = await rig.speech.Synthesize(say(voice={"name": "anna"}))
    assert by_name.cache_info.status == Status.HIT_EXACT
    second = await rig.speech.Synthesize(like(values, **FUZZY))
    assert second.cache_info.status == Status.HIT_FUZZY
    assert second.cache_info.similarity == pytest.approx(float(np.dot(values, rig.voices.embed(ANNA))), abs=1e-5)
    assert first.audio_content == second.audio_content == by_name.audio_content
    audits = await audited(rig)
    assert rig.speaker.runs - audits == 1


async def audited(rig: Rig) -> int:
    await audits_done(rig)
    return int((await rig.admin.GetStats(cache_pb2.GetStatsRequest())).near_audits.audited)


@pytest.mark.parametrize("mode", ["DEFAULT", "ONLY_IF_CACHED"])
@pytest.mark.parametrize("dimensions", [8, 64])
async def test_near_is_never_called_exact(rig: Rig, mode: str, dimensions: int) -> None:
    await rig.speech.Synthesize(say(voice={"name": "anna"}))
    values = await embedding_of(rig, NEAR_ANNA, dimensions)
    answer = await rig.speech.Synthesize(like(values, mode=mode, **FUZZY))
    assert answer.cache_info.status == Status.HIT_FUZZY
    assert 0.8 < answer.cache_info.similarity < 1.0


async def test_an_embedding_near_nobody_is_refused_and_the_nearest_named(rig: Rig) -> None:
    values = await embedding_of(rig, tone(350.0))
    await refused(rig.speech.Synthesize(like(values, **FUZZY)), "voice.embedding", "'anna', has cosine 0.3", "0.80")


async def test_a_request_may_ask_for_a_nearer_voice_than_it_would_get(rig: Rig) -> None:
    values = await embedding_of(rig, NEAR_ANNA)
    assert (await rig.speech.Synthesize(like(values, **FUZZY, min_similarity=0.95))).audio_content
    await refused(rig.speech.Synthesize(like(values, **FUZZY, min_similarity=0.97)), "voice.embedding", "0.970")


async def test_settings_replace_a_voice_and_the_threshold(tmp_path: Path) -> None:
    far = encoders(tmp_path / "other").speaker.embed(NOBODY)  # type: ignore[union-attr]
    async with gateway(tmp_path, voices={"anna": {"embedding": far.tolist()}}, voice_threshold=0.99) as rig:
        assert (await rig.speech.EmbedVoice(embed(NOBODY))).nearest_voice.name == "anna"
        assert not (await rig.speech.EmbedVoice(embed(ANNA))).HasField("nearest_voice")
        assert not (await rig.speech.EmbedVoice(embed(tone(1_550.0)))).HasField("nearest_voice")


@pytest.mark.parametrize(
    ("voices", "message"),
    [
        ({"anna": {"embedding": [float("nan")] * 8}}, "voices: voice 'anna': .* finite numbers"),
        ({"anna": {"embedding": [0.0] * 16}}, "voices: voice 'anna': .* not all zero"),
        ({"carl": {"embedding": [1.0] * 8}}, "voices.carl: the synthesizer has no such voice; it has anna, bert"),
    ],
)
async def test_a_voice_that_cannot_be_registered_keeps_the_gateway_from_starting(
    tmp_path: Path, voices: Any, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        async with gateway(tmp_path, voices=voices):
            pass


async def test_other_registered_voices_are_other_answers(tmp_path: Path) -> None:
    """The same recording, on the same folder: what was remembered under other registered voices is not given."""
    async with gateway(tmp_path) as rig:
        assert (await rig.speech.EmbedVoice(embed(NEAR_ANNA))).HasField("nearest_voice")
    async with gateway(tmp_path, voice_threshold=0.999) as rig:
        assert not (await rig.speech.EmbedVoice(embed(NEAR_ANNA))).HasField("nearest_voice")


# ---------------------------------------------------------------------------------------------------- moods by example


async def test_a_mood_by_example_is_fuzzy_has_to_be_asked_for_and_is_heard_once(rig: Rig) -> None:
    named = await rig.speech.Synthesize(say(voice={"emotion": "cheerful"}))
    await refused(rig.speech.Synthesize(feeling(CHEERFUL)), "voice.emotion_audio", "match FUZZY", "voice.emotion")
    assert rig.moods.runs == 0
    answers = await asyncio.gather(*(rig.speech.Synthesize(feeling(CHEERFUL, **FUZZY)) for _ in range(4)))
    for answer in answers:
        assert answer.audio_content == named.audio_content
        assert answer.cache_info.status == Status.HIT_FUZZY
        assert answer.cache_info.similarity == pytest.approx(0.9)
    audits = await audited(rig)
    assert rig.moods.runs - audits == 1


async def test_only_if_cached_hears_no_mood_that_is_not_known_yet(rig: Rig) -> None:
    await rig.speech.Synthesize(say(voice={"emotion": "cheerful"}))
    kept = feeling(CHEERFUL, mode="ONLY_IF_CACHED", **FUZZY)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.speech.Synthesize(kept)
    assert (caught.value.code(), rig.moods.runs) == (grpc.StatusCode.NOT_FOUND, 0)
    await rig.speech.Synthesize(feeling(CHEERFUL, **FUZZY))
    assert (await rig.speech.Synthesize(kept)).cache_info.status == Status.HIT_FUZZY


async def test_a_mood_by_name_wins_over_an_example_whatever_that_is(rig: Rig) -> None:
    voice = {"emotion": "neutral", "emotion_audio": {"content": b"no sound"}}
    assert (await rig.speech.Synthesize(say(voice=voice))).cache_info.status == Status.MISS
    assert (await rig.speech.Synthesize(say())).cache_info.status == Status.HIT_EXACT
    assert rig.moods.runs == 0


async def test_a_voice_and_a_mood_by_example_are_as_near_as_the_farther_of_them(rig: Rig) -> None:
    voice = {"embedding": {"values": await embedding_of(rig, NEAR_ANNA)}, "emotion_audio": sample(CHEERFUL)}
    request = say(voice=voice, cache_control=FUZZY)
    await rig.speech.Synthesize(request)
    info = (await rig.speech.Synthesize(request)).cache_info
    assert (info.status, info.similarity) == (Status.HIT_FUZZY, pytest.approx(0.9))
    await audits_done(rig)
    audits = (await rig.admin.GetStats(cache_pb2.GetStatsRequest())).near_audits
    assert (audits.audited, audits.wrong, audits.undecided) == (1, 0, 0), "it sounds like anna, and cheerful"


@pytest.mark.parametrize(
    ("example", "field", "word"),
    [
        ({"content": b""}, "voice.emotion_audio.content", "empty"),
        ({"content": b"x" * 9_000}, "voice.emotion_audio.content", "no header"),
        (sample(CHEERFUL[:1_000]), "voice.emotion_audio.content", "0.1 s"),
        (sample(CHEERFUL[:7_000]), "voice.emotion_audio.content", "0.5 s to 60 s"),
        (sample(np.zeros(16_000, np.float32)), "voice.emotion_audio.content", "digital silence"),
        (sample(CHEERFUL * np.float32(1e-3)), "voice.emotion_audio", "too quiet to hear"),
        (
            {"content": b"12", "explicit_decoding_config": {"encoding": 77}},
            "voice.emotion_audio.explicit_decoding_config.encoding",
            "LINEAR16",
        ),
    ],
)
async def test_an_example_that_is_none_is_refused_by_field(rig: Rig, example: Any, field: str, word: str) -> None:
    request = say(voice={"emotion_audio": example}, cache_control=FUZZY)
    await refused(rig.speech.Synthesize(request), field, word)
    stream = [speech_pb2.StreamingSynthesizeRequest(streaming_config={"voice": request.voice, "cache_control": FUZZY})]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in rig.speech.StreamingSynthesize(iter(stream)):
            pass
    assert caught.value.code() is INVALID
    assert field.removeprefix("voice.") in (caught.value.details() or "")
    warmed = await rig.admin.Warm(cache_pb2.WarmRequest(requests=[request]))
    assert field in warmed.failures[0]
    assert rig.speaker.runs == 0


async def test_streamed_sentences_are_spoken_in_the_mood_of_the_example(rig: Rig) -> None:
    voice = {"emotion_audio": sample(tone(500.0, 50.0, bright=True))}  # more bytes than any other config has
    stream = [
        speech_pb2.StreamingSynthesizeRequest(streaming_config={"voice": voice, "cache_control": FUZZY}),
        speech_pb2.StreamingSynthesizeRequest(input={"text": "One sentence. And another. "}),
    ]
    for status in (Status.MISS, Status.HIT_FUZZY):
        answers = [answer async for answer in rig.speech.StreamingSynthesize(iter(stream))]
        infos = [answer.cache_info for answer in answers if answer.HasField("cache_info")]
        assert [info.status for info in infos] == [status, status]
    stream[0] = speech_pb2.StreamingSynthesizeRequest(streaming_config={"voice": {"emotion": "cheerful"}})
    answers = [answer async for answer in rig.speech.StreamingSynthesize(iter(stream))]
    infos = [answer.cache_info for answer in answers if answer.HasField("cache_info")]
    assert [info.status for info in infos] == [Status.HIT_EXACT] * 2
    audits = await audited(rig)
    assert rig.moods.runs - audits == 1


async def test_what_is_warmed_by_example_is_there_by_name(rig: Rig) -> None:
    warmed = await rig.admin.Warm(cache_pb2.WarmRequest(requests=[feeling(CHEERFUL, **FUZZY)]))
    assert (warmed.computed, list(warmed.failures)) == (1, [])
    answer = await rig.speech.Synthesize(say(voice={"emotion": "cheerful"}))
    assert answer.cache_info.status == Status.HIT_EXACT


# -------------------------------------------------------------------------------------------------- right and wrong


async def test_a_wrong_voice_that_is_reported_is_not_given_again_and_others_are(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants={"default": {"wrong_hit_limit": 0.9}}) as rig:
        values = await embedding_of(rig, NEAR_ANNA)
        for _ in range(2):
            info = (await rig.speech.Synthesize(like(values, **FUZZY))).cache_info
        await audits_done(rig)
        before = (await rig.admin.GetStats(cache_pb2.GetStatsRequest())).near_audits
        report = cache_pb2.ReportWrongHitRequest(entry_id=info.entry_id)
        assert (await rig.admin.ReportWrongHit(report)).quarantined
        assert not (await rig.admin.ReportWrongHit(report)).quarantined
        stats = await rig.admin.GetStats(cache_pb2.GetStatsRequest())
        assert (stats.near_audits.wrong, stats.audits.wrong) == (before.wrong + 1, 0), "recall's are other books"
        await refused(rig.speech.Synthesize(like(values, **FUZZY)), "voice.embedding", "'anna'", "wrong")
        other = await embedding_of(rig, tone(305.0))
        assert (await rig.speech.Synthesize(like(other, **FUZZY))).cache_info.status == Status.HIT_FUZZY
        assert (await rig.speech.Synthesize(say(voice={"name": "anna"}))).cache_info.status == Status.HIT_EXACT


async def test_a_reported_voice_is_refused_after_a_restart(tmp_path: Path) -> None:
    tolerant = {"default": {"wrong_hit_limit": 0.9}}
    async with gateway(tmp_path, tenants=tolerant) as rig:
        values = await embedding_of(rig, NEAR_ANNA)
        for _ in range(2):
            info = (await rig.speech.Synthesize(like(values, **FUZZY))).cache_info
        await audits_done(rig)
        await rig.admin.ReportWrongHit(cache_pb2.ReportWrongHitRequest(entry_id=info.entry_id))
    async with gateway(tmp_path, tenants=tolerant) as rig:
        await refused(rig.speech.Synthesize(like(values, **FUZZY)), "voice.embedding", "'anna'", "wrong")


async def test_where_answers_must_be_proved_first_near_ones_are_refused_and_audited(tmp_path: Path) -> None:
    async with gateway(tmp_path, tenants={"default": {"require_near_proof": True}}) as rig:
        values = await embedding_of(rig, NEAR_ANNA)
        for count, text in enumerate(("Hello there.", "And goodbye."), 1):  # what was judged right is not judged again
            await refused(rig.speech.Synthesize(like(values, text, **FUZZY)), "voice.embedding", "audits")
            await audits_done(rig)
            audits = (await rig.admin.GetStats(cache_pb2.GetStatsRequest())).near_audits
            assert (audits.audited, audits.wrong, audits.undecided) == (count, 0, 0)


@pytest.fixture
def listener(tmp_path: Path) -> Any:
    heard = encoders(tmp_path)
    assert heard.speaker is not None
    book = VoiceBook({name: heard.speaker.embed(tone(pitch)).tolist() for name, pitch in VOICES.items()}, threshold=0.8)
    with ThreadPoolExecutor(1) as pool:
        slots = Slots(1, 8, clock=lambda: 0.0)
        yield Listener(heard.speaker, heard.emotion, book, pool, slots.slot), heard


@pytest.mark.parametrize(
    ("spoken", "asked", "mood", "verdict"),
    [
        (300.0, 310.0, None, True),
        (1_500.0, 310.0, None, None),
        (350.0, 300.0, None, None),
        (300.0, 310.0, "neutral", True),
        (300.0, None, "neutral", True),
        (300.0, None, "cheerful", None),
        (300.0, 310.0, "cheerful", None),
    ],
    ids=["right", "another's voice", "nobody's voice", "both right", "right mood", "another mood", "one of two right"],
)
async def test_the_judge_hears_what_was_asked_for(
    listener: Any, spoken: float, asked: float | None, mood: str | None, verdict: bool | None
) -> None:
    ear, heard = listener
    embedding = None if asked is None else heard.speaker.embed(tone(asked)).tolist()
    chunks = [Audio(tone(spoken, 0.5, MEL_RATE)), Audio(tone(spoken, 0.5, MEL_RATE))]
    assert await ear.judge(chunks, "anna", embedding, mood) is verdict


@pytest.mark.parametrize("asked", ["sad", "calm", "angry", "neutral"])
async def test_a_mood_that_is_not_heard_is_undecided(listener: Any, asked: str) -> None:
    ear, _ = listener
    assert await ear.judge([Audio(tone(300.0, 1.0, MEL_RATE, bright=True))], "anna", None, asked) is None


@pytest.mark.parametrize(("dimensions", "verdict"), [(256, False), (128, None)])
async def test_only_a_whole_embedding_can_be_a_strangers(listener: Any, dimensions: int, verdict: bool | None) -> None:
    """What was asked for lies on the other side of what is heard, as the tones' own loudnesses never do."""
    ear, heard = listener
    asked = (-heard.speaker.embed(tone(1_500.0)))[:dimensions].tolist()
    assert await ear.judge([Audio(tone(1_500.0, 1.0, MEL_RATE))], "anna", asked, None) is verdict
    assert await ear.judge([Audio(tone(1_500.0, 1.0, MEL_RATE))], "bert", asked, None) is None


@pytest.mark.parametrize("seconds", [0.0, 0.1])
async def test_an_answer_too_short_to_hear_is_undecided(listener: Any, seconds: float) -> None:
    ear, heard = listener
    embedding = heard.speaker.embed(ANNA).tolist()
    assert await ear.judge([Audio(tone(300.0, seconds, MEL_RATE))], "anna", embedding, None) is None


async def test_an_example_that_could_not_be_heard_is_not_remembered(listener: Any) -> None:
    ear, heard = listener
    for _ in range(2):
        with pytest.raises(Unfit, match="too short"):
            await ear.mood(b"digest", bytes(100))
    assert heard.emotion.runs == 2
    pcm = np.round(CHEERFUL * 32_767).astype("<i2").tobytes()
    assert await ear.mood(b"digest", pcm) == ("cheerful", 0.9)


async def test_a_caller_who_leaves_does_not_take_the_example_from_another(listener: Any) -> None:
    ear, heard = listener
    pcm = np.round(CHEERFUL * 32_767).astype("<i2").tobytes()
    leaver, stayer = (asyncio.ensure_future(ear.mood(b"digest", pcm)) for _ in range(2))
    await asyncio.sleep(0)
    leaver.cancel()
    assert await stayer == ("cheerful", 0.9)
    assert heard.emotion.runs == 1
