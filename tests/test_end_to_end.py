"""The shipped whole, as users run it: `refrain serve` in its own process, the embedded models, the command line."""

from __future__ import annotations

import difflib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from bench.processes import Gateway, start_gateway
from gateway.client import Heard, RefrainCallError, RefrainClient
from models.mel import log_mel

PHRASE = "The driver is two minutes away."


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("data")
    config = folder / "refrain.toml"
    config.write_text("[tenants.default]\nrequire_proof = false\n")
    running = start_gateway(folder, "--config", str(config))
    yield running
    running.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[RefrainClient]:
    with RefrainClient(gateway.target) as client:
        yield client


def refrain(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    """One command line call, as a user types it."""
    command = [sys.executable, "-m", "gateway.cli", *words, "--target", gateway.target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_every_voice_speaks_in_every_mood_and_they_differ(client: RefrainClient) -> None:
    voices = client.list_voices()
    assert len(voices) >= 4
    assert set(voices[0].emotions) == {"neutral", "cheerful", "sad", "angry", "calm"}
    spoken = {voice.name: client.synthesize(PHRASE, voice.name).audio for voice in voices}
    moods = {emotion: client.synthesize(PHRASE, voices[0].name, emotion).audio for emotion in voices[0].emotions}
    assert len(set(spoken.values())) == len(voices)
    assert len(set(moods.values())) == len(moods)


def test_speech_is_as_long_as_speech_is_and_neither_silent_nor_clipped(client: RefrainClient) -> None:
    samples = client.synthesize(PHRASE).samples()
    assert 1.0 < len(samples) / 22_050 < 4.0
    assert 0.05 < np.abs(samples).max() < 1.0
    assert np.mean(np.abs(samples) > 0.99) < 0.001


@pytest.mark.parametrize("encoding", ["LINEAR16", "WAV", "FLAC", "MULAW", "OGG_OPUS"])
def test_what_is_said_in_any_encoding_is_heard(client: RefrainClient, encoding: str) -> None:
    spoken = client.synthesize(PHRASE, encoding=encoding)
    headerless = encoding in ("LINEAR16", "MULAW")
    rate = {"LINEAR16": 22_050, "MULAW": 8_000}.get(encoding, 0)
    heard = client.recognize(spoken.audio, encoding=encoding if headerless else "", rate=rate)
    # By letters, for words may be heard as others that sound alike ("the drive to minute the way" at 8 kHz).
    likeness = difflib.SequenceMatcher(None, heard.transcript, "the driver is two minutes away", autojunk=False).ratio()
    assert likeness > 0.7, heard.transcript


def test_a_noisy_copy_is_recalled_and_another_sentence_is_not(client: RefrainClient) -> None:
    rng = np.random.default_rng(3)
    original = at_16k(client.synthesize("I have set an alarm for six fifteen.").samples())
    other = at_16k(client.synthesize("I have set an alarm for six fifty.").samples())
    heard = client.recognize(original, rate=16_000)
    noisy = 0.4 * original + 0.4 * rng.normal(0, np.sqrt(np.mean(original**2)) / 32, len(original)).astype(np.float32)
    again = recalled(client, noisy)
    assert again.info is not None
    assert again.info.status == "HIT_FUZZY"
    assert again.transcript == heard.transcript
    different = client.recognize(other, rate=16_000, fuzzy=True)
    assert different.info is not None
    assert different.info.status == "MISS"


def recalled(client: RefrainClient, samples: np.ndarray) -> Heard:
    """Asks until the original, which is enrolled behind its response, can be recalled."""
    for _ in range(200):
        try:
            return client.recognize(samples, rate=16_000, fuzzy=True, mode="ONLY_IF_CACHED")
        except RefrainCallError as error:
            assert error.status == "NOT_FOUND"
    raise AssertionError("the copy was not recalled")


def at_16k(samples: np.ndarray) -> np.ndarray:
    return np.asarray(soxr.resample(samples, 22_050, 16_000), np.float32)


def test_streams_give_the_sound_of_whole_calls(client: RefrainClient) -> None:
    pieces = list(client.stream_synthesize(["One moment, ", "please. ", "Thank you."]))
    whole = b"".join(
        client.synthesize(text, encoding="LINEAR16").audio for text in ("One moment, please.", "Thank you.")
    )
    assert_same_sound(b"".join(piece.audio for piece in pieces), whole)
    assert sum(piece.info is not None for piece in pieces) == 2
    mel = log_mel(client.synthesize(PHRASE).samples())
    streamed = b"".join(piece.audio for piece in client.stream_vocode([mel[:, :50], mel[:, 50:]]))
    assert_same_sound(streamed, client.vocode(mel, encoding="LINEAR16").audio)


def assert_same_sound(one: bytes, other: bytes) -> None:
    """Equal up to 1e-4 of full scale: who listens gets it made in other pieces."""
    np.testing.assert_allclose(np.frombuffer(one, "<i2") / 32_767, np.frombuffer(other, "<i2") / 32_767, atol=1e-4)


def test_interim_transcripts_end_in_the_final_one(client: RefrainClient) -> None:
    samples = at_16k(client.synthesize("Your order will arrive in twenty minutes.").samples())
    pcm = (samples * 32_767).astype("<i2").tobytes()
    pieces = [pcm[start : start + 6_400] for start in range(0, len(pcm), 6_400)]
    heard = list(client.stream_recognize(pieces, rate=16_000, interim=True))
    assert len(heard) >= 2
    assert heard[-1].info is not None
    assert client.recognize(samples, rate=16_000).transcript == [h for h in heard if h.transcript][-1].transcript


def test_the_command_line_says_hears_vocodes_and_counts(gateway: Gateway, tmp_path: Path) -> None:
    wav, mel, out, counts = (tmp_path / name for name in ("taxi.wav", "mel.npy", "out.wav", "stats.json"))
    said = refrain(gateway, "say", "Your taxi is on its way", "--voice", "slt", "--emotion", "cheerful", "-o", str(wav))
    assert said.returncode == 0, said.stderr
    samples, rate = soundfile.read(wav, dtype="float32")
    assert rate == 22_050
    for expected in ("MISS", "HIT_EXACT"):
        heard = refrain(gateway, "hear", str(wav))
        assert heard.returncode == 0, heard.stderr
        assert expected in heard.stdout + heard.stderr
    np.save(mel, log_mel(samples))
    assert refrain(gateway, "vocode", str(mel), "-o", str(out)).returncode == 0
    assert soundfile.info(out).frames > 0
    assert refrain(gateway, "stats").returncode == 0
    assert refrain(gateway, "stats", "--json", str(counts)).returncode == 0
    assert json.loads(counts.read_text())
    assert refrain(gateway, "models").returncode == 0
    wrong = refrain(gateway, "say", "Hello", "--voice", "nobody", "-o", str(wav))
    assert wrong.returncode == 1
    assert "nobody" in wrong.stderr
    assert "slt" in wrong.stderr


def test_a_voice_is_embedded_and_speaks_by_its_embedding(client: RefrainClient) -> None:
    names = [voice.name for voice in client.list_voices()]
    own = {name: client.embed_voice(client.synthesize(PHRASE, name).audio) for name in names}
    known = 0
    for name, heard in own.items():
        assert np.linalg.norm(heard.values) == pytest.approx(1.0, abs=1e-5)
        again = client.embed_voice(client.synthesize("I have set an alarm for six fifteen.", name).audio).values
        known += max(names, key=lambda other: float(again @ own[other].values)) == name
        if heard.nearest:
            spoken = client.synthesize(PHRASE, heard.values, fuzzy=True)
            assert spoken.info is not None
            assert spoken.info.status == "HIT_FUZZY"
            assert spoken.audio == client.synthesize(PHRASE, heard.nearest).audio
        else:
            with pytest.raises(RefrainCallError, match="no registered voice is near it"):
                client.synthesize(PHRASE, heard.values, fuzzy=True)
    assert known >= 0.75 * len(names), "voices are known again by what else they say"


def test_a_mood_is_heard_in_an_example(client: RefrainClient) -> None:
    voice = client.list_voices()[0]
    example = client.synthesize(PHRASE, voice.name, "angry").audio
    spoken = client.synthesize("Thank you.", voice.name, emotion_audio=example, fuzzy=True)
    assert spoken.audio in {client.synthesize("Thank you.", voice.name, mood).audio for mood in voice.emotions}
    with pytest.raises(RefrainCallError, match="match FUZZY"):
        client.synthesize("Thank you.", voice.name, emotion_audio=example)


def test_metrics_add_up_to_the_gateways_own_counts(gateway: Gateway, client: RefrainClient) -> None:
    client.synthesize(PHRASE)
    stats = client.stats()
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.http_port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    counted = sum(float(line.split()[-1]) for line in lines if line.startswith("refrain_requests_total{"))
    assert counted == sum(row.requests for row in stats.outcomes) > 0
    for path in ("healthz", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway.http_port}/{path}", timeout=10) as page:
            assert page.status == 200


def test_a_restart_keeps_what_was_said_and_heard(tmp_path: Path) -> None:
    first = start_gateway(tmp_path)
    with RefrainClient(first.target) as client:
        samples = at_16k(client.synthesize("You have three new messages.").samples())
        heard = client.recognize(samples, rate=16_000)
    first.stop()
    assert first.process.returncode == 0
    second = start_gateway(tmp_path)
    try:
        with RefrainClient(second.target) as client:
            again = client.recognize(samples, rate=16_000)
            assert again.info is not None
            assert (again.info.status, again.info.tier) == ("HIT_EXACT", "redis")
            assert again.transcript == heard.transcript
    finally:
        second.stop()


def test_a_killed_gateway_starts_again_on_its_folder(tmp_path: Path) -> None:
    first = start_gateway(tmp_path)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    start_gateway(tmp_path).stop()
