"""Training of the front end and of the acoustic model: a few steps on a tiny corpus, written as shipped, read back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnx", reason="training needs the extra `train`")

from models.pronounce import Pronouncer, unpack_lexicon  # noqa: E402
from models.synthesizer import AcousticModel  # noqa: E402
from models.training import acoustic, acoustic_export, corpus, g2p, phrases  # noqa: E402
from models.training.acoustic_data import frames_of_ends, load, word_starts  # noqa: E402
from models.training.acoustic_model import Acoustic, Speaking, begin_as, comb_table  # noqa: E402
from models.training.vocoder_pitch import track  # noqa: E402
from models.utterance import MEL_RATE, RECOGNIZER_RATE  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors lose more than they gain from threads."""
    torch.set_num_threads(1)


@pytest.fixture
def small_corpus(tmp_path: Path) -> Path:
    """Hums of two voices: the phones are said to be those of `hello`."""
    rng = np.random.default_rng(0)
    (tmp_path / "wav").mkdir()
    lines = []
    for n in range(8):
        time = np.arange(RECOGNIZER_RATE) / RECOGNIZER_RATE
        hum = sum(np.sin(2 * np.pi * k * (110 + 10 * n) * time) / k for k in range(1, 9))
        samples = 0.1 * hum * (time > 0.2) + 1e-3 * rng.normal(size=len(time))
        sf.write(tmp_path / f"wav/{n}.wav", samples, RECOGNIZER_RATE, subtype="PCM_16")
        entry = {
            "path": f"wav/{n}.wav",
            "text": "hello",
            "voice": ("slt", "kal16")[n % 2],
            "pitch": 1.0,
            "stretch": 1.0,
        }
        entry |= {"split": "dev" if n == 7 else "train", "seconds": 1.0}
        entry |= {"phones": ["pau", "hh", "ax", "l", "ow", "pau"], "ends": [0.2, 0.3, 0.4, 0.5, 0.8, 1.0]}
        lines.append(json.dumps(entry))
    (tmp_path / "index.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_acoustic_model_trains_resumes_and_ships(small_corpus: Path, tmp_path: Path) -> None:
    cache, run, out = tmp_path / "cache", tmp_path / "run", tmp_path / "acoustic"
    acoustic.prepare(small_corpus, cache, processes=1)
    items = list(load(cache))
    assert len(items) == 8
    assert all(item.frames.sum() == len(item.mel) == len(item.pitch) for item in items)
    acoustic.train(items, run, steps=3, minutes=9.0, frames=300, rate=1e-3, seed=1, sizes=(32, 32, 16))
    acoustic.train(items, run, steps=6, minutes=9.0, frames=300, rate=1e-3, seed=1, sizes=(32, 32, 16))
    reports = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [report["step"] for report in reports] == [3, 6]
    assert all(np.isfinite(list(report.values())).all() for report in reports)
    acoustic_export.export(run, out)  # holds ONNX against PyTorch itself
    model = AcousticModel(out)
    assert model.mel("hello").shape[0] == 80
    assert len(model.voices) >= 8
    begun = Acoustic(len(model.voices), 32, 32, 16)
    begin_as(begun, out)
    for name, weight in torch.load(run / "average.pt", weights_only=True).items():
        if name not in ("voice_pitch", "energy_scale"):
            torch.testing.assert_close(begun.state_dict()[name], weight)


def test_embeddings_are_shared_out_among_voices() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5, 256)) + 2 * rng.normal(size=256)  # alike, as voices are
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    centre, shares = acoustic_export.sharing(rows)
    speaking = Speaking(Acoustic(5, 32, 32, 16), torch.from_numpy(centre), torch.from_numpy(shares))
    torch.testing.assert_close(speaking.shares(torch.from_numpy(rows)), torch.eye(5), atol=1e-4, rtol=0.0)
    between = speaking.shares(torch.from_numpy(rows[:1] + rows[1:2]) / 2)
    torch.testing.assert_close(between, torch.tensor([[0.5, 0.5, 0.0, 0.0, 0.0]]), atol=1e-4, rtol=0.0)
    strange = speaking.shares(torch.from_numpy(rng.normal(size=(9, 256)).astype(np.float32)))
    assert float(strange.min()) >= 0.0
    torch.testing.assert_close(strange.sum(dim=1), torch.ones(9))
    with pytest.raises(ValueError, match="5 voices are not independent"):
        acoustic_export.sharing(rows[[0, 1, 2, 3, 3]])


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_derived_teacher_keeps_its_pace(tmp_path: Path) -> None:
    said = {}
    for voice in ("kal16", "kal-high"):
        job = corpus.Job("said.wav", "hello my friend", voice, "train", 1.0, 1.0)
        phones, ends = corpus.speak_teacher(job, tmp_path / "said.wav")
        samples, rate = sf.read(tmp_path / "said.wav", dtype="float32")
        assert rate == RECOGNIZER_RATE
        assert ends[-1] == pytest.approx(len(samples) / rate, abs=0.15)
        pitch = track(np.asarray(soxr.resample(samples, rate, MEL_RATE), np.float32))
        said[voice] = (phones, ends[-1], float(np.median(pitch.f0[pitch.voiced])))
    assert said["kal16"][0] == said["kal-high"][0]
    assert said["kal-high"][1] == pytest.approx(said["kal16"][1], rel=0.15)
    assert said["kal-high"][2] > 1.4 * said["kal16"][2]


def test_letters_to_phones_learn_and_ship(tmp_path: Path) -> None:
    pairs = [
        (word, tuple("b" if letter == "b" else "iy" for letter in word)) for word in ("be", "bee", "ebb", "beb", "eb")
    ]
    model = g2p.train(pairs, steps=30, seed=1, batch=8)
    letters, steps, targets, counts = g2p.batch_of(pairs)
    assert model(letters).shape == (5, 2 * letters.shape[1], 41)
    assert int(steps.max()) == 2 * letters.shape[1]
    assert int(counts.sum()) == len(targets)


def test_edit_distance() -> None:
    assert g2p.edits("kitten", "sitting") == 3
    assert g2p.edits("", "abc") == 3


def test_durations_never_drift() -> None:
    ends = np.cumsum(np.full(100, 0.0171))
    frames = frames_of_ends(list(ends), 147)
    assert frames.sum() == 147
    assert np.abs(np.cumsum(frames)[:-1] - ends[:-1] * 22050 / 256).max() <= 0.5


def test_word_starts_follow_what_was_spoken() -> None:
    lexicon = {"the": ("dh", "ax"), "apple": ("ae", "p", "ax", "l")}
    spoken = ["pau", "dh", "iy", "ae", "p", "ax", "l", "pau"]
    assert word_starts("The apple", spoken, lexicon) == [False, True, False, True, False, False, False, False]


def test_harmonics_stand_where_the_pitch_puts_them() -> None:
    table = comb_table()
    assert torch.isfinite(table).all()
    low, high = table[100], table[200]
    assert not torch.allclose(low, high, atol=0.5)
    model = Acoustic(4)
    between = model.comb_of(torch.log(torch.tensor([[150.0, 151.0]])))
    assert between.shape == (1, 2, 80)


def test_sentences_split_by_their_words() -> None:
    assert corpus.split_of("Hello, Anna!") == corpus.split_of("hello anna")
    found = [corpus.split_of(text) for text, _ in zip(phrases.sentences(1), range(3000), strict=False)]
    assert 0.005 < found.count("dev") / 3000 < 0.05


def test_own_sentences_are_plain_words() -> None:
    for text, _ in zip(phrases.sentences(3), range(2000), strict=False):
        assert corpus.PLAIN.fullmatch(text), text


def test_shipped_lexicon_is_the_one_named(tmp_path: Path) -> None:
    from models.pronounce import EMBEDDED

    assert len(unpack_lexicon((EMBEDDED / "lexicon.txt.gz").read_bytes())) > 50_000
    assert "hello" in Pronouncer()
