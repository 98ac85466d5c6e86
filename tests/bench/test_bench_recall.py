"""`python -m bench.recall` on tiny folders made here, and its parts against slow and plain ways to the same."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

pytest.importorskip("numba", reason="the bench extra is not installed")

from bench import bounds, codecs, judge, recall, rooms
from bench.baselines import alike, digest, signature
from bench.clips import Choice, Clip, read_folder, windows
from bench.confirmed import Confirmed
from bench.distort import CONDITIONS, Surroundings, copy_of, possible
from bench.exhaustive import Everything, every_frame, trusted, whole
from bench.recall_plots import trade
from bench.swaps import Confusable, trimmed
from gateway.fingerprint.bits import Fingerprint
from gateway.fingerprint.verify import stride_of
from models.evidence import Stored, align
from models.training.opus_packets import audio_packets, without
from models.training.recognizer_data import share
from models.utterance import Samples

RATE = 16_000
WORDS = ("on", "off", "yes", "no", "one", "two")
QUIET_ROOM = np.zeros(10, np.float32)


def spoken(seed: int, syllables: int, pitch: float = 120.0) -> Samples:
    """Something that moves like speech: vowels of drawn formants over a gliding pitch, with pauses."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(1200)]
    for _ in range(syllables):
        n = int(rng.integers(2400, 4000))
        t = np.arange(n) / RATE
        glide = pitch * (1 + 0.3 * rng.uniform(-1, 1) * t / t[-1])
        peaks, widths = rng.uniform([300, 900, 2000], [800, 2000, 3200]), rng.uniform(80, 200, 3)
        vowel = np.zeros(n)
        for harmonic in range(1, 26):
            loud = np.sum(1 / (1 + ((harmonic * pitch - peaks) / widths) ** 2))
            vowel += loud * np.sin(2 * np.pi * harmonic * np.cumsum(glide) / RATE + rng.uniform(0, 6))
        parts += [vowel * np.hanning(n) * rng.uniform(0.5, 1.0), np.zeros(int(rng.integers(200, 1200)))]
    sound = np.concatenate([*parts, np.zeros(1200)])
    return np.asarray(0.3 * sound / np.abs(sound).max(), np.float32)


def random_print(rng: np.random.Generator, frames: int) -> Fingerprint:
    first, last = sorted(rng.integers(0, frames, 2))
    level = np.zeros(frames, np.uint8)
    level[first : last + 1] = rng.integers(0, 4, last + 1 - first)

    def words() -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
        return rng.integers(0, 2**32, frames, dtype=np.uint32)

    return Fingerprint(words(), words() & words(), level, frames * 0.016, (words(), words()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers who say six words twice and a sentence, and a noise."""
    root = tmp_path_factory.mktemp("recall")
    rows: list[dict[str, str]] = []

    def add(kind: str, samples: Samples, **more: str) -> None:
        path = f"{kind}/{len(rows)}.flac"
        (root / kind).mkdir(exist_ok=True)
        sf.write(root / path, samples, RATE)
        rows.append({"path": path, "kind": kind, "speaker": "", "text": "", "lang": "en", **more})

    for number, speaker in enumerate(("ann", "bob")):
        for take in range(2):
            for place, text in enumerate(WORDS):
                seed = 100 * number + 10 * place + take
                add("commands", spoken(seed, 3, 110 + 70 * number), speaker=speaker, text=text, sex="fm"[number])
        add("reading", spoken(900 + number, 14), speaker=speaker, text=f"a sentence by {speaker}", sex="fm"[number])
    add("noise", np.random.default_rng(0).normal(0, 0.05, 2 * RATE).astype(np.float32))
    with (root / "index.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ("path", "kind", "speaker", "text", "lang", "sex"), restval="")
        table.writeheader()
        table.writerows(rows)
    return root


class TestExhaustive:
    """The compiled sweep finds exactly what plain loops find."""

    @pytest.mark.parametrize("bits", [trusted, whole])
    @pytest.mark.parametrize("stride", [every_frame, stride_of])
    def test_distances(self, bits, stride) -> None:  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(1)
        stored = [random_print(rng, int(frames)) for frames in rng.integers(20, 200, 8)]
        for limit in (0.4, 0.46, 0.5):
            everything = Everything(stored, bits, limit, stride)
            query = random_print(rng, int(rng.integers(20, 150)))
            look = rng.random(len(stored)) < 0.8
            slow = [self.distance(query, fp, bits(fp), stride(len(fp))) for fp in stored]
            assert list(everything.near(query, look)) == [i for i, d in enumerate(slow) if look[i] and d <= limit]
            least = min((d for i, d in enumerate(slow) if look[i]), default=0.5)
            assert everything.nearest(query, look)[1] == pytest.approx(min(least, 0.5))
            assert everything.distance(query, 0) == pytest.approx(min(slow[0], 0.5))

    @staticmethod
    def distance(query: Fingerprint, fp: Fingerprint, mask, stride: int) -> float:  # type: ignore[no-untyped-def]
        total = sum(int(word).bit_count() for word in mask[::stride])
        assert query.between is not None
        found = [9.0]
        for grid in (query.bits, query.between[0]):
            for shift in judge.first_shifts(len(query), len(fp)):
                differ = 0.0
                for frame in range(0, len(fp), stride):
                    counts = int(mask[frame]).bit_count()
                    if 0 <= frame + shift < len(grid):
                        counts = int((grid[frame + shift] ^ fp.bits[frame]) & mask[frame]).bit_count()
                    else:
                        counts /= 2
                    differ += counts
                found.append(differ / total if total else 9.0)
        return min(found)

    def test_accepts_what_the_judge_accepts(self) -> None:
        rng = np.random.default_rng(2)
        sounds = [spoken(seed, 3 + seed % 4) for seed in range(12)]
        stored = [judge.kept(query) for query in map(judge.hear, sounds) if query is not None]
        assert len(stored) == len(sounds)
        everything = Everything(stored)
        around = Surroundings([rng.normal(0, 0.05, RATE).astype(np.float32)], simulated=[np.ones(1, np.float32)])
        accepted = 0
        for number, condition in enumerate(("clean copy", "noise 20 dB", "noise 5 dB", "telephone", "speed +-2 %")):
            query = judge.hear(copy_of(sounds[number], condition, around, rng))
            assert query is not None
            found, near, asked = everything.accepted(query, np.ones(len(stored), np.bool_))
            assert found == [i for i, fp in enumerate(stored) if judge.judge(query, fp).accepted]
            assert len(found) <= asked <= near
            accepted += number in found
        assert accepted >= 1

    def test_no_path_confirms_more_than_the_bound(self) -> None:
        rng = np.random.default_rng(3)
        stored = [random_print(rng, int(frames)) for frames in rng.integers(25, 160, 6)]
        query = judge.hear(spoken(5, 4))
        assert query is not None
        assert query.heard is not None
        most = Confirmed(stored).at_most(query.heard, np.arange(len(stored)))
        for fp, bound in zip(stored, most, strict=True):
            assert align(Stored.of(fp.bits, fp.mask, fp.level), query.heard).confirmed <= bound
        own = judge.kept(query)
        path = align(Stored.of(own.bits, own.mask, own.level), query.heard)
        assert Confirmed([own]).at_most(query.heard, np.arange(1))[0] == pytest.approx(path.confirmed, abs=0.05)


class TestCopies:
    def test_every_condition_is_seeded_and_keeps_the_speech(self) -> None:
        sound = spoken(1, 6)
        hall = np.array([1.0, 0.0, 0.4], np.float32)
        around = Surroundings([np.random.default_rng(4).normal(0, 0.1, RATE).astype(np.float32)], [hall], [hall])
        assert [condition.name for condition in possible(around)] == list(CONDITIONS)
        for name in CONDITIONS:
            once, again = (copy_of(sound, name, around, np.random.default_rng(5)) for _ in range(2))
            assert np.array_equal(once, again), name
            assert once.dtype == np.float32
            assert np.isfinite(once).all()
            assert len(once) > 0.95 * len(sound), name

    def test_without_measured_rooms_there_is_no_such_condition(self) -> None:
        around = Surroundings([QUIET_ROOM], simulated=[QUIET_ROOM])
        assert "measured room" not in [condition.name for condition in possible(around)]

    @pytest.mark.parametrize("kbits", [8, 16])
    def test_opus_rate_is_about_what_it_says(self, kbits: int) -> None:
        assert codecs.opus_rate(spoken(2, 20), kbits) == pytest.approx(kbits, rel=0.35)

    def test_opus_of_another_rate_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"kbits: 32; allowed: 16, 8"):
            codecs.opus(spoken(2, 2), 32)

    def test_mp3_rate(self) -> None:
        assert codecs.MP3_32K == 0.85
        buffer = io.BytesIO()
        sound = spoken(2, 20)
        how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT"}
        sf.write(buffer, sound, RATE, compression_level=codecs.MP3_32K, **how)
        assert len(buffer.getvalue()) * 8 / (len(sound) / RATE) == pytest.approx(32_000, rel=0.1)

    def test_lost_packets_are_concealed_and_the_others_are_not_touched(self) -> None:
        sound = spoken(3, 12)
        data = codecs._encoded(sound, 16)
        count = len(audio_packets(data))
        none = without(data, np.zeros(count, np.bool_))
        assert none == data, "written again with the same checksums"
        lost = np.zeros(count, np.bool_)
        lost[count // 2] = True
        holed = without(data, lost)
        assert [len(p) == 1 for p in audio_packets(holed)] == list(lost)
        before, after = codecs._decoded(data), codecs._decoded(holed)
        assert len(before) == len(after)
        apart = np.flatnonzero(np.abs(before - after) > 1e-6)
        assert apart[0] >= (count // 2 - 2) * 320
        assert np.abs(after[apart[0] : apart[0] + 320]).max() > 0, "concealed, not silent"

    def test_zeroed_packets(self) -> None:
        sound = np.ones(32_000, np.float32)
        share_lost = float(np.mean(codecs.zeroed(sound, 0.1, np.random.default_rng(0)) == 0))
        assert share_lost == pytest.approx(0.1, abs=0.07)


class TestRooms:
    @pytest.mark.parametrize("rt60", [0.3, 0.45, 0.6])
    def test_a_simulated_room_decays_as_asked(self, rt60: float) -> None:
        response = rooms.simulated(rt60, np.random.default_rng(1))
        assert rooms.decay_time(response) == pytest.approx(rt60, rel=0.25)
        assert -14 < rooms.direct_to_reverberant(response) < 6

    def test_measured_rooms_that_ring_too_long_are_left_out(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        for name, rt60 in (("near", 0.4), ("church", 3.0)):
            at = np.arange(int(rt60 * 48_000)) / 48_000
            sf.write(tmp_path / f"{name}.wav", 0.5 * rng.normal(size=len(at)) * 10 ** (-3 * at / rt60), 48_000)
        (found,) = rooms.measured(tmp_path)
        assert rooms.decay_time(found) == pytest.approx(0.4, rel=0.2)
        (tmp_path / "near.wav").unlink()
        with pytest.raises(ValueError, match=r"1 WAV or FLAC files, none with an RT60 of 0.25 to 0.7 s"):
            rooms.measured(tmp_path)


class TestClips:
    def test_parts_of_a_folder(self, folder: Path) -> None:
        clips = read_folder(folder, Choice(), noise=False)
        assert len(clips) == 26
        assert {clip.speaker for clip in read_folder(folder, Choice(half=0), noise=False)} == {"ann"}
        assert {c.kind for c in read_folder(folder, Choice(kinds=("reading",)), noise=False)} == {"reading"}
        low, high = sorted(map(share, ("ann", "bob")))
        found = read_folder(folder, Choice(unseen=(low, high)), noise=False)
        assert {share(clip.speaker) for clip in found} == {low}
        assert len(read_folder(folder / "noise", Choice(), noise=True)) == 1
        with pytest.raises(ValueError, match="--kinds shouting: not in"):
            read_folder(folder, Choice(kinds=("shouting",)), noise=False)
        with pytest.raises(ValueError, match="no speech is left"):
            read_folder(folder, Choice(unseen=(0.0, 1e-9)), noise=False)

    def test_a_folder_without_an_index(self, tmp_path: Path) -> None:
        sf.write(tmp_path / "a.wav", spoken(1, 2), RATE)
        (clip,) = read_folder(tmp_path, Choice(), noise=False)
        assert (clip.text, clip.speaker) == ("a.wav", "a.wav")

    def test_a_folder_whose_index_tells_little(self, tmp_path: Path) -> None:
        for name, samples in (("a", spoken(1, 2)), ("b", spoken(2, 2)), ("empty", np.zeros(0, np.float32))):
            sf.write(tmp_path / f"{name}.wav", samples, RATE)
        (tmp_path / "index.csv").write_text("path,text\na.wav,on\nb.wav,off\nempty.wav,on\n", "utf-8-sig")
        clips = read_folder(tmp_path, Choice(), noise=False)
        assert [(clip.text, clip.speaker) for clip in clips] == [(":on", "a.wav"), (":off", "b.wav")]
        with pytest.raises(ValueError, match="no noise is left"):  # what is said is never taken for noise
            read_folder(tmp_path, Choice(), noise=True)
        (tmp_path / "index.csv").write_text("file\na.wav\n")
        with pytest.raises(ValueError, match="no column 'path'"):
            read_folder(tmp_path, Choice(), noise=False)

    def test_noise_of_any_kind_that_is_not_silent(self, tmp_path: Path) -> None:
        sf.write(tmp_path / "tram.wav", spoken(1, 2), RATE)
        sf.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
        (tmp_path / "index.csv").write_text("path,kind\ntram.wav,traffic\nsilence.wav,traffic\n")
        assert [clip.path for clip in read_folder(tmp_path, Choice(), noise=True)] == ["tram.wav"]

    def test_a_file_that_is_no_sound(self, tmp_path: Path) -> None:
        (tmp_path / "a.wav").write_bytes(b"words")
        with pytest.raises(ValueError, match=r"a\.wav"):
            read_folder(tmp_path, Choice(), noise=False)

    def test_windows_differ_where_they_do_not_overlap(self) -> None:
        pcm = np.zeros(20 * RATE, np.int16)
        clip = Clip("a", "", "a", "said", pcm, (), 0, len(pcm))
        cut = windows([clip], 10, np.random.default_rng(0))
        assert all(2 * RATE <= len(one.pcm) <= 8 * RATE and one.end - one.start == len(one.pcm) for one in cut)
        assert not clip.differs(cut[0])
        assert cut[0].differs(cut[-1])


class TestSwaps:
    def test_pairs_differ_in_one_word_and_are_seeded(self, folder: Path) -> None:
        clips = read_folder(folder, Choice(), noise=False)
        words = [clip for clip in clips if clip.kind == "commands"]
        speech = [clip for clip in clips if clip.kind == "reading"]
        around = Surroundings([np.ones(RATE, np.float32)], simulated=[QUIET_ROOM])
        confusable = Confusable(words, speech, around, 1)
        assert confusable.kinds == ("on and off", "yes and no", "digits", "other words")
        for number in (0, 4, 8, 24):  # all without noise
            one, same = confusable.swap(number), confusable.swap(number)
            assert one.about == same.about
            assert np.array_equal(one.heard, same.heard)
            assert one.same is not None
            assert np.array_equal(one.stored, one.same)
            assert not np.array_equal(one.stored, one.heard)
        assert not Confusable(words[:3], speech, around, 1), "three different words are too few"
        for number, level in ((0, 0.0), (4, -6.0), (8, -10.0)):
            pair = confusable.added(number)
            assert pair.same is not None
            assert pair.about == (f"{level:g} dB beside it", "clean copy")
            assert len(pair.same) == len(pair.heard) >= len(pair.stored)
            more = (pair.heard - pair.same)[pair.heard != pair.same]
            sentence = float(np.sqrt(np.mean(trimmed(pair.same) ** 2)))
            assert np.sqrt(np.mean(more**2)) == pytest.approx(sentence * 10 ** (level / 20), rel=0.1)
        assert confusable.sentences
        assert not Confusable(words, [], around, 1).sentences


class TestBounds:
    def test_clopper_and_pearson(self) -> None:
        assert bounds.upper(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
        assert bounds.upper(0, 0) == bounds.upper(3, 3) == 1.0

    def test_errors_of_one_speaker_widen_the_bound(self) -> None:
        found = bounds.bounds([0] * 9 + [5], [100] * 10, list(range(10)))
        assert (found.errors, found.trials) == (5, 1000)
        assert found.resampled > found.plain
        assert found.speakers == pytest.approx(bounds.upper(1, 10))
        low, high = bounds.share_interval([True, False] * 50, ["a"] * 50 + ["b"] * 50)
        assert low <= 50 <= high

    def test_trade(self) -> None:
        misses, alarms = trade(np.array([0.1, 0.2, np.nan]), np.array([0.15, np.inf]))
        assert list(np.round(misses, 2)) == [0.67, 0.67, 0.33]
        assert list(alarms) == [0.0, 0.5, 0.5]


def test_baselines_know_a_copy() -> None:
    sound = spoken(1, 6)
    assert digest(sound) == digest(sound.copy())
    assert digest(sound) != digest(0.5 * sound)
    assert alike(signature(sound), signature(0.5 * sound)[None])[0] > 0.9
    assert alike(signature(sound), signature(spoken(2, 6))[None])[0] < 0.7


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.recall", *arguments])
    recall.main()


def test_the_whole_of_it(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = ["--speech", str(folder), "--noise", str(folder)]
    sizes = ["--pairs", "400", "--queries", "20", "--windows", "4", "--swaps", "8"]
    run(monkeypatch, *place, *sizes, "--json", str(tmp_path / "out.json"), "--docs", str(tmp_path / "docs"))
    written = json.loads((tmp_path / "out.json").read_text())
    figures = {figure["name"]: figure for figure in written["figures"]}
    for name in ("words", "speech"):
        assert figures[f"{name}, clean copy: recall"]["target"] in (93, 99)
        assert f"{name}, noise 10 dB: among the candidates" in figures
        assert figures[f"{name}: false hits, all pairs"]["target"] == 0
    assert figures["speech, clean copy: recall"]["value"] == 100
    assert figures["words: pairs compared"]["value"] >= 300
    assert {"words, sex f: mean recall", "words, sex m: mean recall"} <= set(figures)
    assert figures["one-word swaps: pairs"]["value"] == 8
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == [
        "recall-by-distortion.png",
        "recall-by-snr.png",
        "recall-det.png",
    ]


def test_words_too_short_for_a_fingerprint_leave_the_rest_to_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sf.write(tmp_path / "noise.wav", spoken(9, 3), RATE)
    sf.write(tmp_path / "short.wav", spoken(1, 1)[2000:4000], RATE)
    rows = "path,kind,text\nnoise.wav,noise,\nshort.wav,word,on\n"
    (tmp_path / "index.csv").write_text(rows)
    place = ["--speech", str(tmp_path), "--noise", str(tmp_path), "--queries", "20", "--windows", "2"]
    with pytest.raises(SystemExit):
        run(monkeypatch, *place)
    assert "no recording of 0.3 s of speech or more" in capsys.readouterr().err
    sf.write(tmp_path / "long.wav", spoken(2, 14), RATE)
    (tmp_path / "index.csv").write_text(f"{rows}long.wav,sentence,on and on\n")
    run(monkeypatch, *place, "--json", str(tmp_path / "out.json"))
    figures = {figure["name"]: figure for figure in json.loads((tmp_path / "out.json").read_text())["figures"]}
    assert "speech, clean copy: recall" in figures
    assert not any(name.startswith("words") for name in figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unseen", "0.5", "0.2"], "--unseen 0.5 0.2"),
        (["--pairs", "0"], "--pairs 0: 1 or more"),
        (["--processes", "9999"], "--processes 9999"),
        (["--kinds", "shouting"], "--kinds shouting"),
    ],
)
def test_wrong_options(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "--speech", str(folder), "--noise", str(folder), *arguments)
    assert message in capsys.readouterr().err
