"""Sound: equal sound becomes equal bytes, streams equal wholes, and the worst that a client can send is refused."""

from __future__ import annotations

import functools
import io
import itertools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import audio, g711, ogg
from gateway.audio import AudioCollector, Decoding, Encoding, Output, StreamEncoder, canonical_pcm, encode, waveform
from gateway.containers import OPUS_RATES
from gateway.errors import BadField, EngineFailed, RefrainError, TooLarge
from models.utterance import Samples
from protos.refrain.v1 import speech_pb2 as pb

AUTO = Decoding(None)
L16 = Decoding(Encoding.LINEAR16, 16_000)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@functools.cache
def voice(seconds: float = 0.5, rate: int = 16_000) -> Samples:
    """Something between a vowel and a hiss, below 3.4 kHz so that every rate carries it."""
    t = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * f * t + f) / (i + 2) for i, f in enumerate((140, 420, 980, 2300, 3100)))
    return np.asarray(0.3 * tones * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t)), np.float32)


def pcm16(samples: npt.NDArray[Any]) -> bytes:
    pcm: bytes = np.rint(samples * 32_768).astype("<i2").tobytes()
    return pcm


def file(samples: npt.NDArray[Any], rate: int, kind: str, subtype: str) -> bytes:
    made = io.BytesIO()
    if subtype == "PCM_16":  # libsndfile's own rounding of float differs from container to container
        samples = np.frombuffer(pcm16(samples), "<i2").reshape(samples.shape)
    soundfile.write(made, samples, rate, subtype, format=kind)
    return made.getvalue()


@functools.cache
def recording(kind: str) -> bytes:
    kinds = {
        "WAV": ("WAV", "PCM_16"),
        "FLAC": ("FLAC", "PCM_16"),
        "OGG_OPUS": ("OGG", "OPUS"),
        "GSM": ("WAV", "GSM610"),
    }
    kinds |= {"IMA": ("WAV", "IMA_ADPCM"), "MS": ("WAV", "MS_ADPCM"), "FLOAT": ("WAV", "FLOAT")}
    return file(voice(), 16_000, *kinds[kind])


def chunked_wav(chunks: int) -> bytes:
    """A WAV with so many empty chunks before its sound."""
    content = recording("WAV")
    return content[:12] + b"note\0\0\0\0" * chunks + content[12:]


def tiny_pages(count: int) -> bytes:
    """An Ogg stream of pages without packets, none of them damaged."""
    flags = [ogg.FIRST, *[0] * (count - 2), ogg.LAST]
    heads = (struct.pack("<4sBBqIIIB", b"OggS", 0, flag, 0, 1, n, 0, 0) for n, flag in enumerate(flags))
    return b"".join(ogg.sealed(bytearray(head)) for head in heads)


def alike(a: Samples, b: Samples) -> float:
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


def refused(content: bytes, decoding: Decoding, field: str, says: str) -> None:
    with pytest.raises(BadField) as caught:
        canonical_pcm(content, decoding)
    assert caught.value.field == field, str(caught.value)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 500


# -------------------------------------------------------------------------------------------------------------- in


def test_encodings_are_numbered_as_in_the_proto() -> None:
    assert {e.name: int(e) for e in Encoding} == {n: v for n, v in pb.AudioEncoding.items() if v}


def test_canonical_pcm_is_returned_as_it_is() -> None:
    content = pcm16(voice())
    assert canonical_pcm(content, L16) is content


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize("explicit", [False, True])
def test_lossless_containers_give_the_same_bytes_as_raw_samples(kind: str, explicit: bool) -> None:
    decoding = Decoding(Encoding[kind], 16_000, 1) if explicit else AUTO
    assert canonical_pcm(recording(kind), decoding) == pcm16(voice())


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAW", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_plain_wav_is_what_libsndfile_reads(subtype: str, channels: int) -> None:
    sound = voice() if channels == 1 else np.stack([voice(), np.roll(voice(), 40)], 1)
    content = file(sound, 16_000, "WAV", subtype)
    read = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)[0].mean(axis=1)
    np.testing.assert_allclose(waveform(canonical_pcm(content, AUTO)).samples, read, atol=1.01 / 32_768)


@pytest.mark.parametrize("kind", ["GSM", "IMA", "MS"])
def test_packed_wav_is_what_libsndfile_reads(kind: str) -> None:
    read = soundfile.read(io.BytesIO(recording(kind)), dtype="int16")[0]
    pcm = canonical_pcm(recording(kind), AUTO)
    assert 8_000 <= len(pcm) // 2 <= len(read)
    assert read.tobytes().startswith(pcm)


def test_extensible_and_piped_wavs_are_read() -> None:
    assert canonical_pcm(file(voice(), 16_000, "WAVEX", "PCM_16"), AUTO) == pcm16(voice())
    for size in (0, 0x7FFFF000, 0xFFFFFFFF):
        piped = bytearray(recording("WAV"))
        piped[40:44] = struct.pack("<I", size)
        assert canonical_pcm(bytes(piped), AUTO) == pcm16(voice())


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_encoding_and_rate_survives_a_round_trip(encoding: Encoding, rate: int) -> None:
    if encoding is Encoding.OGG_OPUS and rate not in OPUS_RATES:
        rate = 24_000
    content = encode(voice(), 16_000, Output(encoding, rate))
    heard = waveform(canonical_pcm(content, Decoding(encoding, rate))).samples
    assert abs(len(heard) - len(voice())) <= 2
    assert alike(heard, voice()) > (0.95 if encoding is Encoding.OGG_OPUS else 0.999)


@pytest.mark.parametrize("rate", OPUS_RATES)
def test_opus_goes_out_at_every_rate_it_knows(rate: int) -> None:
    content = encode(voice(), 16_000, Output(Encoding.OGG_OPUS, rate))
    assert soundfile.info(io.BytesIO(content)).samplerate == rate
    assert abs(len(canonical_pcm(content, AUTO)) // 2 - len(voice())) <= 2


def test_opus_of_an_unstated_rate_keeps_its_band() -> None:
    page = bytearray(recording("OGG_OPUS"))
    (_, body, end) = next(ogg.pages(bytes(page)))
    page[body + 12 : body + 16] = bytes(4)
    unstated = ogg.sealed(page[:end]) + bytes(page[end:])
    assert alike(waveform(canonical_pcm(unstated, AUTO)).samples, voice()) > 0.95


def test_stereo_is_the_mean_of_its_channels() -> None:
    left, right = voice(), np.roll(voice(), 100)
    stereo = np.stack([left, right], 1)
    want = waveform(pcm16((left + right) / 2)).samples
    for content, decoding in (
        (pcm16(stereo), Decoding(Encoding.LINEAR16, 16_000, 2)),
        (file(stereo, 16_000, "FLAC", "PCM_16"), AUTO),
    ):
        np.testing.assert_allclose(waveform(canonical_pcm(content, decoding)).samples, want, atol=1.01 / 32_768)


def test_mulaw_is_g711() -> None:
    assert g711.MULAW[[0x00, 0x7F, 0x80, 0xFF]].tolist() == [-32124, 0, 32124, 0]
    assert g711.ALAW[[0x55, 0xD5, 0x2A, 0xAA]].tolist() == [-8, 8, -32256, 32256]
    codes = np.arange(256)
    assert (g711.TO_MULAW[g711.MULAW.view(np.uint16)] == np.where(codes == 0x7F, 0xFF, codes)).all()


CONFIG = "config.explicit_decoding_config"
REFUSED: list[tuple[str, bytes, Decoding, str, str]] = [
    ("empty", b"", L16, "content", "empty"),
    ("empty auto", b"", AUTO, "content", "empty"),
    ("half a sample", pcm16(voice()) + b"\0", L16, "content", "truncated"),
    ("half a stereo sample", pcm16(voice())[:-2], Decoding(Encoding.LINEAR16, 8_000, 2), "content", "truncated"),
    ("0.05 s", pcm16(voice(0.05)), L16, "content", "0.05 s at 16000 Hz; allowed: 0.1 s to 600 s"),
    ("0.05 s of WAV", file(voice(0.05), 16_000, "WAV", "PCM_16"), AUTO, "content", "0.05 s at 16000 Hz"),
    ("0.05 s of FLAC", file(voice(0.05), 16_000, "FLAC", "PCM_16"), AUTO, "content", "0.05 s at 16000 Hz"),
    ("no frames", file(voice(0), 16_000, "WAV", "PCM_16"), AUTO, "content", "0 s at 16000 Hz"),
    ("11 min", b"\1\1" * (16_000 * 660), L16, "content", "660 s"),
    ("11 min of mu-law", b"\1" * (8_000 * 660), Decoding(Encoding.MULAW, 8_000), "content", "660 s"),
    ("silence", bytes(32_000), L16, "content", "digital silence"),
    ("nearly silence", b"\3\0\xfd\xff" * 8_000, L16, "content", "-80 dBFS"),
    ("silent FLAC", file(np.zeros(16_000, np.float32), 16_000, "FLAC", "PCM_16"), AUTO, "content", "digital silence"),
    ("silent mu-law", b"\xff" * 8_000, Decoding(Encoding.MULAW, 8_000), "content", "digital silence"),
    ("noise, auto", b"\x12\x34" * 16_000, AUTO, "content", f"headerless sound needs {CONFIG}"),
    ("raw said to be WAV", pcm16(voice()), Decoding(Encoding.WAV), "content", "has no WAV header"),
    ("FLAC said to be WAV", recording("FLAC"), Decoding(Encoding.WAV), "content", "is FLAC"),
    ("WAV said to be Opus", recording("WAV"), Decoding(Encoding.OGG_OPUS), "content", "is WAV"),
    ("Vorbis", file(voice(), 16_000, "OGG", "VORBIS"), AUTO, "content", "no plain Opus"),
    ("AIFF", file(voice(), 16_000, "AIFF", "PCM_16"), AUTO, "content", "no header that is known"),
    ("wrong rate", recording("WAV"), Decoding(Encoding.WAV, 8_000), f"{CONFIG}.sample_rate_hertz", "16000"),
    ("wrong FLAC rate", recording("FLAC"), Decoding(Encoding.FLAC, 44_100), f"{CONFIG}.sample_rate_hertz", "16000"),
    ("wrong channels", recording("WAV"), Decoding(Encoding.WAV, 0, 2), f"{CONFIG}.audio_channel_count", "1, as in"),
    ("96 kHz", file(voice(0.5, 96_000), 96_000, "WAV", "PCM_16"), AUTO, "content", "96000 Hz"),
    ("4 kHz FLAC", file(voice(0.5, 4_000), 4_000, "FLAC", "PCM_16"), AUTO, "content", "4000 Hz"),
    ("3 channels", file(np.zeros((9_000, 3), np.float32), 16_000, "WAV", "PCM_16"), AUTO, "content", "says 3 at"),
    ("4-channel FLAC", file(np.zeros((9_000, 4), np.float32), 16_000, "FLAC", "PCM_16"), AUTO, "content", "says 4 at"),
    ("cut WAV", recording("WAV")[:-2], AUTO, "content", "truncated"),
    ("cut WAV header", recording("WAV")[:30], AUTO, "content", "truncated"),
    ("cut FLAC", recording("FLAC")[: len(recording("FLAC")) // 2], AUTO, "content", "amaged"),
    ("cut FLAC header", recording("FLAC")[:40], AUTO, "content", "truncated"),
    ("cut Opus", recording("OGG_OPUS")[:-100], AUTO, "content", "truncated"),
    ("Opus twice", recording("OGG_OPUS") * 2, AUTO, "content", "another stream"),
    ("unknown WAV codec", recording("WAV")[:20] + b"\x55\0" + recording("WAV")[22:], AUTO, "content", "format tag 85"),
]


@pytest.mark.parametrize(
    ("content", "decoding", "field", "says"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refused_recordings(content: bytes, decoding: Decoding, field: str, says: str) -> None:
    refused(content, decoding, field, says)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_numbers_are_refused(value: float, subtype: str) -> None:
    broken = voice().copy()
    broken[100] = value
    refused(file(broken, 16_000, "WAV", subtype), AUTO, "content", "NaN or infinite")


def test_loud_float_samples_are_clipped() -> None:
    pcm = canonical_pcm(file(voice() * np.float32(1e30), 48_000, "WAV", "FLOAT"), AUTO)
    assert np.abs(waveform(pcm).samples).max() <= 1.0


@pytest.mark.parametrize("kind", ["FLAC", "OGG_OPUS"])
def test_damage_inside_is_found(kind: str) -> None:
    content = recording(kind)
    for at in range(len(content) // 2, len(content) - 30, len(content) // 23):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        refused(bytes(damaged), AUTO, "content", "damaged")


@pytest.mark.parametrize("announced", [0, 16_000])
def test_a_small_file_that_swells_is_stopped_at_ten_minutes(announced: int) -> None:
    """Eleven minutes of silence are some kB of FLAC; its header may say one second, or nothing."""
    bomb = bytearray(file(np.zeros(8_000 * 660, np.float32), 8_000, "FLAC", "PCM_16"))
    refused(bytes(bomb), AUTO, "content", "660 s at 8000 Hz")
    bomb[21:26] = bytes([bomb[21] & 0xF0]) + announced.to_bytes(4, "big")
    refused(bytes(bomb), AUTO, "content", "16000 frames announced" if announced else "allowed: 0.1 s to 600 s")


HEADS = [b"", b"RIFF", b"fLaC", b"OggS", *(recording(kind)[:60] for kind in ("WAV", "FLAC", "OGG_OPUS", "MS", "FLOAT"))]
DECODINGS = [AUTO, L16, *(Decoding(e, r, c) for e in Encoding for r in (8_000, 22_050) for c in (1, 2))]


def test_walks_through_a_recording_are_bounded() -> None:
    """Whoever sends headers alone gets no further than a thousand chunks or blocks, or sixty thousand pages."""
    assert canonical_pcm(chunked_wav(900), AUTO) == canonical_pcm(recording("WAV"), AUTO)
    refused(chunked_wav(1_000), AUTO, "content", "at most 1000 chunks")
    flac = recording("FLAC")
    refused(flac[:42] + b"\4\0\0\0" * 2_000, AUTO, "content", "at most 1000 metadata blocks")
    ogg.check(tiny_pages(ogg.MOST_PAGES))
    refused(tiny_pages(ogg.MOST_PAGES + 1), AUTO, "content", "more than 60000 pages")
    refused(b"OggS" + bytes(40 << 20), AUTO, "content", "at most 41943040 bytes")


def taken_or_refused(content: bytes, decoding: Decoding) -> None:
    try:
        pcm = canonical_pcm(content, decoding)
    except RefrainError:
        return
    assert 1_599 <= len(pcm) // 2 <= 16_000 * 600 + 1


@QUICK
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=5_000), decoding=st.sampled_from(DECODINGS))
def test_random_bytes_are_decoded_or_refused(head: bytes, tail: bytes, decoding: Decoding) -> None:
    taken_or_refused(head + tail, decoding)


@QUICK
@given(
    kind=st.sampled_from(["WAV", "FLAC", "OGG_OPUS", "GSM", "IMA", "MS", "FLOAT"]),
    edits=st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=4)), max_size=5),
    cut=st.integers(0, 1 << 16),
)
def test_damaged_headers_are_decoded_or_refused(kind: str, edits: list[tuple[int, bytes]], cut: int) -> None:
    content = bytearray(recording(kind))
    for at, new in edits:
        content[at : at + len(new)] = new
    taken_or_refused(bytes(content[: cut if cut % 4 == 0 else None]), AUTO)


@QUICK
@given(edits=st.lists(st.tuples(st.integers(28, 2_000), st.integers(0, 255)), min_size=1, max_size=5))
def test_opus_packets_of_nonsense_under_right_checksums(edits: list[tuple[int, int]]) -> None:
    content = bytearray(recording("OGG_OPUS"))
    for at, value in edits:
        content[at % len(content)] = value
    pages = [
        ogg.sealed(content[start:end]) for start, _, end in ogg.pages(bytes(content)) if start + 27 <= len(content)
    ]
    taken_or_refused(b"".join(pages), AUTO)


# --------------------------------------------------------------------------------------------------------- streams

STREAMED = [
    (Decoding(Encoding.LINEAR16, 16_000), 2),
    (Decoding(Encoding.LINEAR16, 44_100, 2), 4),
    (Decoding(Encoding.LINEAR16, 8_000), 2),
    (Decoding(Encoding.MULAW, 8_000), 1),
]


@QUICK
@given(case=st.sampled_from(STREAMED), sizes=st.lists(st.integers(0, 9_000), min_size=1, max_size=8))
def test_a_stream_gives_the_bytes_of_the_whole(case: tuple[Decoding, int], sizes: list[int]) -> None:
    decoding, width = case
    content = pcm16(voice(1.0))[: 32_000 - 32_000 % width]
    collector, at, told, turn = AudioCollector(decoding), 0, [], 0
    while at < len(content):
        size = max(sizes[turn % len(sizes)], 1 + turn)
        told.append(collector.push(content[at : at + size]))
        at, turn = at + size, turn + 1
    whole = collector.finish()
    assert whole == canonical_pcm(content, decoding)
    assert whole.startswith(b"".join(told))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG_OPUS"])
def test_a_streamed_container_is_decoded_when_whole(kind: str) -> None:
    collector = AudioCollector(AUTO)
    content = recording(kind)
    assert [collector.push(content[i : i + 1_000]) for i in range(0, len(content), 1_000)].count(b"") > 0
    assert collector.finish() == canonical_pcm(content, AUTO)


@pytest.mark.parametrize("decoding", [AUTO, L16, Decoding(Encoding.MULAW, 8_000)])
def test_an_empty_or_endless_stream_is_refused(decoding: Decoding) -> None:
    with pytest.raises(BadField):
        AudioCollector(decoding).finish()
    collector, endless = AudioCollector(decoding, 1 << 20), itertools.repeat(b"\1\2" * 200_000, 100)
    with pytest.raises(TooLarge):
        list(map(collector.push, endless))


# ------------------------------------------------------------------------------------------------------------- out


@pytest.mark.parametrize("encoding", [Encoding.LINEAR16, Encoding.MULAW])
@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
def test_a_streamed_answer_is_the_whole_answer(encoding: Encoding, rate: int) -> None:
    samples, output = voice(0.7, 22_050), Output(encoding, rate)
    stream = StreamEncoder(22_050, output)
    pieces = [stream.push(samples[i : i + 777]) for i in range(0, len(samples), 777)]
    assert b"".join([*pieces, stream.finish()]) == encode(samples, 22_050, output)


def test_resampling_is_soxr_hq() -> None:
    want = pcm16(np.clip(soxr.resample(voice(), 16_000, 24_000, "HQ"), -1, 1))
    assert encode(voice(), 16_000, Output(Encoding.LINEAR16, 24_000)) == want


@pytest.mark.parametrize("encoding", list(Encoding))
def test_equal_samples_are_equal_bytes(encoding: Encoding) -> None:
    output = Output(encoding, 16_000)
    assert encode(voice(), 22_050, output) == encode(voice().copy(), 22_050, output)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_too_loud_is_clipped_and_no_number_is_the_engines_fault(encoding: Encoding) -> None:
    loud = encode(voice() * np.float32(50), 16_000, Output(encoding, 16_000))
    assert np.abs(waveform(canonical_pcm(loud, Decoding(encoding, 16_000))).samples).max() > 0.9
    broken = voice().copy()
    broken[7] = np.nan
    with pytest.raises(EngineFailed):
        encode(broken, 16_000, Output(encoding, 16_000))


def test_wav_is_a_wav() -> None:
    content = encode(voice(), 16_000, Output(Encoding.WAV, 16_000))
    samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert (rate, samples.tobytes()) == (16_000, pcm16(voice()))


def test_headers_cannot_be_streamed() -> None:
    with pytest.raises(ValueError, match="FLAC"):
        StreamEncoder(22_050, Output(Encoding.FLAC, 16_000))


@pytest.mark.parametrize(
    ("decoding", "make", "costly"),
    [
        (L16, lambda: bytes(1 << 20), False),
        (L16, lambda: bytes(3 << 20), True),
        (Decoding(Encoding.MULAW, 8_000), lambda: bytes(8_000), False),
        (AUTO, lambda: recording("WAV"), False),
        (AUTO, lambda: recording("FLOAT"), False),
        (AUTO, lambda: recording("GSM"), True),
        (AUTO, lambda: recording("IMA"), True),
        (AUTO, lambda: recording("MS"), True),
        (AUTO, lambda: chunked_wav(4), False),
        (AUTO, lambda: chunked_wav(100), True),
        (AUTO, lambda: recording("FLAC"), True),
        (Decoding(Encoding.OGG_OPUS), lambda: recording("OGG_OPUS"), True),
    ],
)
def test_what_takes_long_is_known_before(decoding: Decoding, make: Callable[[], bytes], costly: bool) -> None:
    assert audio.costly(decoding, make()) is costly
