"""Training of the recall networks on made-up syllables: what is wanted of a query, steps down, what is shipped."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnx", reason="training needs the extra `train`")

from models import added  # noqa: E402
from models.evidence import FEATURES, Stored  # noqa: E402
from models.recall import BANDS, EMBEDDED, RecallNets  # noqa: E402
from models.training import recall, recall_added, recall_distort, recall_heard, recall_near, recall_pairs  # noqa: E402
from models.training.recall_data import HELD_OUT, Sources  # noqa: E402
from models.training.recall_distort import Chances, distorted, on_the_net  # noqa: E402
from models.training.recall_front import bits_of, code_of, energies_of  # noqa: E402
from models.training.recall_heard import USUAL_LINES, query_of, usual_query  # noqa: E402
from models.training.recall_lines import PACE, Batches, Line, hear, lines_of  # noqa: E402
from models.training.recall_net import SHARPNESS, Ear, Judge, ShippedEar, ShippedJudge, export  # noqa: E402
from models.training.recall_pool import item, make_part  # noqa: E402
from models.training.recognizer_data import share  # noqa: E402
from tests.fingerprint.voice import say  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

RATE = 16_000


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors lose more than they gain from threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers of five words, a reader and a noise to learn from. Everything held out or marked `evaluate` is in
    the list only: to open it would fail."""
    folder = tmp_path_factory.mktemp("data")
    rows = []

    def row(kind: str, speaker: str, text: str = "", use: str = "train") -> Path:
        path = f"{kind}{len(rows)}.wav"
        rows.append({"path": path, "kind": kind, "speaker": speaker, "text": text, "use": use})
        return folder / path

    people = (f"voice{number}" for number in itertools.count())
    held_out = next(name for name in people if share(name) < HELD_OUT)
    learned_from = [next(name for name in people if share(name) >= HELD_OUT) for _ in range(3)]
    for number, speaker in enumerate(learned_from[:2]):
        for word in range(5):
            sf.write(row("commands_en", speaker, f"word {word}"), say(10 * number + word, 2), RATE)
    sf.write(row("speakers_en", learned_from[2]), say(40, 16), RATE)
    row("commands_en", held_out, "word 1")
    row("digits_en", learned_from[0], "one", "evaluate")
    while len({share(r["path"]) < HELD_OUT for r in rows if r["kind"] == "noise"}) < 2:
        path = row("noise", "")
        if share(path.name) >= HELD_OUT:
            sf.write(path, 0.1 * np.random.default_rng(len(rows)).normal(size=2 * RATE), RATE)
    with (folder / "index.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(6):
        sf.write(folder / f"{number}.wav", say(60 + number, 6), RATE)
    lines = [json.dumps({"path": f"{number}.wav", "voice": "buzz"}) for number in range(6)]
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def sources(data: Path, corpus: Path) -> Sources:
    return Sources.open(data, corpus)


def test_what_is_held_out_is_never_opened(sources: Sources) -> None:
    assert len(sources.words) == 10
    assert len({word.speaker for word in sources.words}) == 2
    assert len(sources.speech) == 1
    assert sources.noises


def test_a_folder_without_speech_is_told(data: Path, corpus: Path, tmp_path: Path) -> None:
    rows = (data / "index.csv").read_text().splitlines()
    (tmp_path / "index.csv").write_text("\n".join(rows[:11]) + "\n")
    with (data / "index.csv").open() as file:
        for row in itertools.islice(csv.DictReader(file), 10):
            (tmp_path / row["path"]).symlink_to(data / row["path"])
    with pytest.raises(ValueError, match="no speech to learn from"):
        Sources.open(tmp_path, corpus)


def test_an_undistorted_query_has_the_bits_that_are_wanted_of_it() -> None:
    clean = say(5)
    never = Chances(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    heard = distorted(clean, np.random.default_rng(0), lambda count, rng: np.ones(count, np.float32), never)
    found = item(heard, clean)
    bits, _ = bits_of(energies_of(heard))
    trusted = found.mask.reshape(-1) * (found.level > 0).repeat(2)
    assert not ((bits ^ found.bits.reshape(-1)) & trusted).any()
    # And on another grid, or at another pace, what is wanted is of that moment.
    assert agreement(item(clean, clean, shift=24), bits) > 0.9
    for pace in (0.98, 1.02):
        played = soxr.resample(clean, RATE * pace, RATE)
        own, _ = bits_of(energies_of(played))
        right, wrong = agreement(item(played, clean, pace), own), agreement(item(played, clean, 2 - pace), own)
        assert right > 0.85
        assert right > wrong + 0.05


def agreement(found: recall.recall_pool.Pool, bits: np.ndarray) -> float:
    """Share of the wanted, trusted bits of active frames that `bits` have."""
    trusted = found.mask.reshape(-1) * (found.level > 0).repeat(2)
    differ = (bits ^ found.bits.reshape(-1)) & trusted
    return 1 - np.bitwise_count(differ).sum() / np.bitwise_count(trusted).sum()


@pytest.mark.parametrize("codec", ["opus", "concealed", "gsm", "mp3", "telephone", "room", "coloured"])
def test_codecs_and_rooms_move_nothing_in_time(codec: str) -> None:
    clean, rng = say(7), np.random.default_rng(1)
    made = {
        "opus": lambda: recall_distort.opus(clean, 0.95),
        "concealed": lambda: recall_distort.concealed(clean, 0.95, rng),
        "gsm": lambda: recall_distort.gsm(clean),
        "mp3": lambda: recall_distort.mp3(clean, 0.9),
        "telephone": lambda: recall_distort.telephone(clean, rng),
        "room": lambda: recall_distort.in_a_room(clean, rng),
        "coloured": lambda: recall_distort.coloured(clean, rng),
    }
    heard = made[codec]()
    count = min(len(heard), len(clean))
    likeness = np.correlate(heard[1000 : count - 1000], clean[800 : count - 800])
    assert abs(int(np.abs(likeness).argmax()) - 200) <= 16, "samples, 1 ms"


def test_distorted_sound_is_as_long_and_finite(sources: Sources) -> None:
    always = Chances(*[1.0] * 6, opus=0.4, gsm=0.3, mp3=0.3, loss=1.0)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        for samples in (say(seed), np.zeros(RATE, np.float32)):
            for heard in (distorted(samples, rng, sources.noise, always), on_the_net(samples, rng, sources.noise)):
                assert heard.dtype == np.float32
                assert len(heard) == len(samples)
                assert np.isfinite(heard).all()


def test_packets_are_lost_alone_and_in_bursts() -> None:
    lost = [recall_distort.losses(4000, np.random.default_rng(seed)) for seed in range(20)]
    assert all(0.02 < row.mean() < 0.25 for row in lost)
    runs = [row.sum() / max(np.count_nonzero(np.diff(row.astype(int)) == 1), 1) for row in lost]
    assert min(runs) < 1.2
    assert max(runs) > 1.6


def test_the_pool_of_a_seed_is_always_the_same(sources: Sources, tmp_path: Path) -> None:
    first, again = (make_part(sources, 4.0, (1, 0)) for _ in range(2))
    assert np.array_equal(first.energies, again.energies)
    assert np.array_equal(first.bits, again.bits)
    first.save(tmp_path / "pool.npz")
    assert np.array_equal(first.load(tmp_path / "pool.npz").mask, first.mask)
    energies, bits, counts, levels = first.batch(np.random.default_rng(0), 3, 150)
    assert energies.shape == (3, 66, 150)
    assert bits.shape == counts.shape == (3, 64, 150)
    assert levels.shape == (3, 3, 150)
    assert np.array_equal(*(pool.batch(np.random.default_rng(0), 3, 40)[0] for pool in (first, again)))
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert counts.unique().numpy() == pytest.approx([0.0, 0.08, 1.0])


@pytest.mark.parametrize("kind", recall_pairs.KINDS)
def test_every_kind_of_pair_is_made(sources: Sources, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(recall_pairs, "KINDS", {kind: 1.0})
    rng = np.random.default_rng(0)
    pairs = [pair for _ in range(6) if (pair := recall_pairs.random_pair(sources, rng))]
    assert pairs
    for pair in pairs:
        assert pair.kind == kind
        assert len(pair.query.bits) == 2 * len(pair.query.level) == 2 * len(pair.query.energies)
        assert np.isfinite(pair.query.energies).all()


@pytest.mark.parametrize("line", USUAL_LINES)
def test_every_usual_line_is_heard(sources: Sources, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(recall_heard, "USUAL_LINES", {line: (1.0, 1.0)})
    heard = [usual_query(say(3), np.random.default_rng(seed), sources, same=bool(seed % 2)) for seed in range(6)]
    for query in heard:
        assert np.isfinite(query.energies).all()
        assert query.energies.dtype == np.float16
        assert len(query.bits) == 2 * len(query.level)
        assert query.level.max() == 3, "speech is still there"


def test_near_strangers_over_usual_lines_are_the_same_now_and_then(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall_pairs, "USUAL_KINDS", {"word": 1.0})
    rng = np.random.default_rng(0)
    kinds = [pair.kind for _ in range(24) if (pair := recall_pairs.usual_pair(sources, rng))]
    assert set(kinds) == {"word", "same"}


@pytest.mark.parametrize(
    "make", [recall_near.piece_swapped, recall_near.word_swapped, recall_near.word_in_sentence, recall_near.with_more]
)
def test_strangers_are_near_and_not_the_same(sources: Sources, make: object) -> None:
    rng = np.random.default_rng(3)
    both = [pair for _ in range(8) if (pair := make(sources, rng)) is not None]  # type: ignore[operator]
    assert both
    for stored, heard in both:
        count = min(len(stored), len(heard))
        assert len(stored) != len(heard) or np.abs(stored[:count] - heard[:count]).max() > 0.01


def test_pairs_are_kept_and_read_as_they_were(sources: Sources, tmp_path: Path) -> None:
    made = recall_pairs.gather(sources, 4, 1, 3, 2, seed=2, work=tmp_path)
    again = recall_pairs.gather(sources, 4, 1, 3, 2, seed=2, work=tmp_path)
    assert [pair.kind for pair in made] == [pair.kind for pair in again]
    assert [pair.kind.split()[0] for pair in made[5:7]] == ["word", "word"]
    for one, other in zip(made, again, strict=True):
        assert np.array_equal(one.stored.mask, other.stored.mask)
        assert np.array_equal(one.query.energies, other.query.energies)
        assert len(one.query.bits) == 2 * len(one.query.level)


def losses(printed: str, name: str) -> Iterator[float]:
    for line in printed.splitlines():
        if name in (told := json.loads(line)) and "loss" in told:
            yield told["loss"][0]


def test_a_few_steps_lower_both_losses(sources: Sources, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    plan = recall.Plan(1.0, 8, peak=2e-3, warm=1, slowest=0.9, print_every=2)
    ear = recall.Training("ear", Ear(), plan, tmp_path)
    recall.train_ear(ear, make_part(sources, 2.0, (1, 0)), seed=0, half=True)
    first, *_, last = losses(capsys.readouterr().out, "ear")
    assert last < first
    pairs = recall_pairs.gather(sources, 24, 4, 6, 3, seed=1, work=tmp_path)
    lines = lines_of(pairs, ear.averaged, sources, seed=1)
    assert {line.kind for line in lines} >= {"same", "other"}
    capsys.readouterr()
    judge = recall.Training("judge", Judge(drop=0.0), recall.Plan(1.0, 80, 3e-3, 1, 0.9, print_every=10), tmp_path)
    recall.train_judge(judge, Batches(lines), seed=0)
    first, *_, last = losses(capsys.readouterr().out, "judge")
    assert last < first


def test_batches_are_padded_with_silence_that_counts_and_with_nothing_that_does_not() -> None:
    lines = [Line(np.ones((FEATURES, frames), np.float16), "same") for frames in (30, 10, 20)]
    rows, there, same, counts = Batches(lines).batch(np.random.default_rng(0), many=64)
    assert rows.shape[:2] == (3, FEATURES)
    assert rows[:, 0].bool().sum(dim=1).tolist() == [10, 20, 30], "evidence where the recordings are"
    assert np.array_equal(rows[:, PACE].bool().numpy(), there.numpy()), "the pace in silence around them too"
    assert rows.shape[2] == there.sum(dim=1).max()
    assert same.tolist() == counts.tolist() == [1.0, 1.0, 1.0]
    judge = Judge().eval()
    short = int(there[0].sum())
    alone = judge(rows[:1, :, : short + 14], there[:1, : short + 14])
    assert torch.allclose(judge(rows, there)[0], alone[0], atol=1e-4)


def test_what_is_exported_is_what_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(1)
    ear, judge = Ear().eval(), Judge().eval()
    with torch.no_grad():
        for values in ear.parameters():
            # As shipped: large weights in half precision.
            values.copy_(values.half().float() if values.numel() > 4096 else values + 0.01 * torch.randn_like(values))
        for name, values in ear.named_buffers():
            values += 0.1 * torch.rand(values.shape) if values.is_floating_point() else 0
            assert "running" in name or "batches" in name
    export(ear, judge, 1.5, tmp_path)
    nets = RecallNets(tmp_path)
    assert nets.threshold == 1.5
    # Of silence the ear looks at roots of what is rounding; so here is something in every band.
    energies = np.random.default_rng(0).random((90, 2, BANDS), np.float32)
    silent, level = np.zeros(180, np.uint32), np.zeros(90, np.uint8)
    heard = nets.hear(energies.reshape(-1, BANDS), silent, level)
    with torch.no_grad():
        log_odds, speech = ShippedEar(ear)(torch.from_numpy(energies))
        assert np.abs(heard.log_odds - log_odds.reshape(-1, 32).numpy()).max() < 1e-4
        assert np.abs(heard.speech - speech.numpy()).max() < 1e-4
        rows = np.random.default_rng(0).random((FEATURES, 90), np.float32)
        score, against = nets.judge(rows)
        wanted, frames = ShippedJudge(judge)(torch.from_numpy(rows[None]))
        assert abs(score - wanted.item()) < 1e-4
        assert np.abs(against - frames[0].numpy()).max() < 1e-4
        padded, there = np.pad(rows, ((0, 0), (0, 40)))[None], torch.arange(130)[None] < 90
        assert SHARPNESS * judge(torch.from_numpy(padded), there).item() == pytest.approx(score, abs=1e-4)


def test_timelines_are_made_of_what_the_shipped_ear_hears(sources: Sources, tmp_path: Path) -> None:
    ear = Ear().eval()
    export(ear, Judge(), 0.0, tmp_path)
    query = query_of(say(9), np.random.default_rng(0), sources)
    heard = hear(ear, query)
    energies = 10 ** query.energies.astype(np.float32).reshape(-1, BANDS)
    shipped = RecallNets(tmp_path).hear(energies, query.bits, query.level)
    assert heard.log_odds.shape == shipped.log_odds.shape
    assert np.abs(heard.log_odds - shipped.log_odds).mean() < 0.05, "energies are kept in half precision"
    assert np.abs(heard.speech - shipped.speech).mean() < 0.01


def test_speech_is_added_before_and_after_and_half_of_the_time(sources: Sources) -> None:
    made = [recall_added.example(sources, np.random.default_rng(number)) for number in range(40)]
    assert {added for _, _, added in made} == {True, False}
    assert all(np.isfinite(stored).all() and np.isfinite(heard).all() for stored, heard, _ in made)


def test_what_is_told_apart_is_learned() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, added.FEATURES))
    told = rows[:, 3] - rows[:, 7] > 0.2
    found = recall_added.fitted(rows, told)
    right = (rows @ found.weights + found.bias > 0) == told
    assert right.mean() > 0.9


def test_a_judge_of_silence_is_learned_and_kept_in_its_folder(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recall"
    shutil.copytree(EMBEDDED, folder)
    rng = np.random.default_rng(1)
    monkeypatch.setattr(recall_added, "measured", lambda nets, stored, heard: rng.normal(size=added.FEATURES))
    recall_added.learn(sources, folder, 30, 0.5, seed=1)
    strict, loose = (added.Additions.read(one) for one in (folder, EMBEDDED))
    assert not np.array_equal(strict.weights, loose.weights)


def test_it_trains_goes_on_ships_and_starts_from_what_it_shipped(
    data: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    options = [str(out), "--data", str(data), "--corpus", str(corpus), "--seconds", "8", "--pairs", "6", "--words", "2"]
    options += ["--light", "3", "--usual", "3", "--additions", "0"]
    recall.main([*options, "--steps-ear", "2", "--steps-judge", "3"])
    kept = sorted(path.name for path in (out / "work").iterdir())
    recall.main([*options, "--steps-ear", "3", "--steps-judge", "3", "--threshold", "0.25"])
    assert sorted(path.name for path in (out / "work").iterdir()) == kept, "nothing is made twice"
    assert '{"ear": "goes on", "step": 2' in capsys.readouterr().out
    nets = RecallNets(out)
    assert nets.threshold == 0.25
    energies = np.random.default_rng(0).random((40, BANDS), np.float32)
    heard = nets.hear(energies, np.zeros(40, np.uint32), np.zeros(20, np.uint8))
    assert np.isfinite(heard.log_odds).all()
    ear, judge = recall.started(Ear(), out, "ear"), recall.started(Judge(), out, "judge")
    export(ear, judge, 0.25, tmp_path / "again")
    again = RecallNets(tmp_path / "again")
    same = again.hear(energies, heard.bits, heard.level)
    assert np.abs(same.log_odds - heard.log_odds).max() < 1e-4
    code = code_of(say(1))
    assert code is not None
    assert Stored.of(code.bits, code.mask, code.level).frames
    rows = np.ones((FEATURES, 30), np.float32)
    assert again.judge(rows)[0] == pytest.approx(nets.judge(rows)[0], abs=1e-5)
