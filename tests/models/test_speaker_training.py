"""Training of the voice encoder: a few steps on hums, shipped, read back and measured; and the arithmetic of trials."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnx", reason="training needs the extra `train`")

from models.speaker import DIMENSIONS, SpeakerEncoder  # noqa: E402
from models.training import speaker  # noqa: E402
from models.training.recognizer_data import share  # noqa: E402
from models.training.speaker_data import TEST, Mixer, Pool, split_of  # noqa: E402
from models.training.speaker_net import NestedMargin  # noqa: E402
from models.training.speaker_report import equal_error_rate, joined, measured, segments, trials  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def hum(pitch: float, seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * 16_000)) / 16_000
    buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12))
    return np.asarray(0.1 * buzz * (1 + 0.5 * np.sin(20 * time)), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six voices to learn from, three to steer by and three to measure with: hums of 5 s; and two noises."""
    wanted = {"train": 6, "dev": 3, "test": 3}
    names = []
    for name in (f"voice{n}" for n in itertools.count()):
        if wanted[split_of(name)]:
            wanted[split_of(name)] -= 1
            names.append(name)
        if not any(wanted.values()):
            break
    rows = []
    for number, name in enumerate(names):
        for kind, seconds in (("speakers_en", 5.0), *[("commands_en", 1.0)] * 6):
            path = f"{kind}{len(rows)}.wav"
            sf.write(tmp_path / path, hum(90 + 15 * number, seconds), 16_000)
            rows.append({"path": path, "kind": kind, "speaker": name, "use": "train"})
    paths = [f"noise{n}.wav" for n in range(60)]
    for path in (next(p for p in paths if share(p) < TEST), next(p for p in paths if share(p) >= TEST)):
        sf.write(tmp_path / path, 0.1 * np.random.default_rng(0).normal(size=80_000), 16_000)
        rows.append({"path": path, "kind": "noise", "speaker": "", "use": "train"})
    with (tmp_path / "index.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["path", "kind", "speaker", "use"])
        table.writeheader()
        table.writerows(rows)
    return tmp_path


def test_it_trains_resumes_and_ships(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    options = ["--speech", str(folder), "--work", str(work), "--out", str(out), "--batch", "8", "--look-every", "2"]
    speaker.main([*options, "--steps", "2"])
    speaker.main([*options, "--steps", "3", "--resume", "--plot", str(tmp_path / "eer.png")])
    assert '{"resumed_at": 2}' in capsys.readouterr().out
    assert (tmp_path / "eer.png").stat().st_size > 10_000
    assert SpeakerEncoder(out).embed(hum(100, 2.0)).shape == (256,)


def test_batches_repeat_and_hold_each_class_twice(folder: Path) -> None:
    from models.training.speaker_data import real_voices

    pool = Pool.make(list(real_voices(folder)), folder)
    first, classes = Mixer(pool, 16, seed=3).batch(5)
    again, _ = Mixer(pool, 16, seed=3).batch(5)
    assert torch.equal(first, again)
    assert torch.isfinite(first).all()
    assert torch.equal(classes[:8], classes[8:])
    assert len(set(classes[:8].tolist())) == 8


def test_a_margin_makes_it_harder() -> None:
    torch.manual_seed(0)
    margins, vectors = NestedMargin(5), torch.randn(6, DIMENSIONS[-1])
    classes = torch.tensor([0, 1, 2, 0, 1, 2])
    plain, right = margins(vectors, classes, 30.0, 0.0)
    strict, _ = margins(vectors, classes, 30.0, 0.2)
    assert strict > plain
    assert right.shape == (len(DIMENSIONS),)


def test_equal_error_rate() -> None:
    rng = np.random.default_rng(0)
    assert equal_error_rate(np.array([0.8, 0.9]), np.array([0.1, 0.2, 0.3])) == 0.0
    assert equal_error_rate(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1.0
    near, far = rng.normal(2.0, 1.0, 20_000), rng.normal(0.0, 1.0, 20_000)
    assert equal_error_rate(near, far) == pytest.approx(0.1587, abs=0.01)  # the normal tail beyond one deviation


def test_only_pairs_of_one_cut_are_tried() -> None:
    same, other = trials(["a", "a", "b", "a"], ["x", "x", "x", "y"])
    assert np.argwhere(same).tolist() == [[0, 1]]
    assert np.argwhere(other).tolist() == [[0, 2], [1, 2]]
    assert [cut for cut, _ in segments(np.zeros(80_000, np.float32))] == ["2.0", "2.0", "2.5", "2.5", "3.0", "4.0"]
    assert [len(piece) for piece in joined([np.zeros(16_000, np.float32)] * 5, 2.0)] == [32_000, 32_000]


def test_what_is_measured_has_intervals() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 256))
    vectors = np.repeat(centres, 4, axis=0) + 0.5 * rng.normal(size=(48, 256))
    found = measured(vectors.astype(np.float32), [str(n // 4) for n in range(48)], [""] * 48, draws=20)
    assert (found["same"], found["other"]) == (72, 1056)
    assert found["eer"]["256"][0] == 0.0
    rate, low, high = found["eer"]["8"]
    assert low <= high
    assert rate > 0.0
