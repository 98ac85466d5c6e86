"""What zstd makes of the values that really lie in Redis, by kind of answer, beside what sealing them costs.

    python -m bench.redis_values --json OUT

Starts a gateway, has it speak, hear, embed and vocode, and reads back from its private Redis what it stored. Times are
processor time per value, the least of several runs, in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.figures import Figure, Figures
from bench.processes import Gateway, start_gateway
from bench.samples import SENTENCES
from cache_tiers.entry import CacheKey
from cache_tiers.link import RedisLink
from cache_tiers.master_key import load_or_create_master_key
from cache_tiers.packing import pack, unpack
from cache_tiers.sealed import Foreign, Keyring, Kind
from gateway.arguments import new_file
from gateway.client import RefrainClient
from models.mel import log_mel

VOICES = ("slt", "rms")
LEVELS = (1, 3)
REPEATS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=new_file, metavar="OUT")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        gateway = start_gateway(Path(folder))
        try:
            values = ask_for_all(gateway)
        finally:
            gateway.stop()
    figures = Figures({"answers": {kind: len(found) for kind, found in values.items()}})
    for kind, found in values.items():
        measure(figures, kind, found)
    figures.write(arguments.json)


def ask_for_all(gateway: Gateway) -> dict[str, list[bytes]]:
    """The plain bytes of what each kind of request had stored."""
    kinds: dict[str, list[bytes]] = {}
    known: set[bytes] = set()
    sounds: list[Path] = []
    with RefrainClient(gateway.target) as client:

        def stored(kind: str, ask: Callable[[], object]) -> None:
            ask()
            values, records = asyncio.run(read_all(gateway, known))
            if values:
                kinds[kind] = values
            if records:
                kinds.setdefault("fingerprint records", []).extend(records)

        def speak(encoding: str) -> None:
            for (n, text), voice in itertools.product(enumerate(SENTENCES), VOICES):
                path = gateway.data_dir / f"{voice}-{n}.{encoding.lower()}"
                client.synthesize(text, voice, encoding=encoding).save(path)
                if encoding == "WAV":
                    sounds.append(path)

        def vocode() -> None:
            for path in sounds:
                wave, _ = soundfile.read(path, dtype="float32")
                client.vocode(np.asarray(log_mel(wave), dtype=np.float32), encoding="LINEAR16")

        stored("speech, LINEAR16", lambda: speak("LINEAR16"))
        stored("speech, WAV", lambda: speak("WAV"))
        stored("speech, FLAC", lambda: speak("FLAC"))
        stored("speech, OGG_OPUS", lambda: speak("OGG_OPUS"))
        stored("vocoded, LINEAR16", vocode)
        stored("transcripts", lambda: [client.recognize(path) for path in sounds])
        stored("transcripts with words", lambda: [client.recognize(path, words=True) for path in sounds])
        stored("embeddings", lambda: [client.embed_voice(path) for path in sounds])
    return kinds


async def read_all(gateway: Gateway, known: set[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Values and records that were not known before, opened."""
    link = RedisLink(gateway.redis_url, deadline=5.0)
    keyring = Keyring(link, [load_or_create_master_key(gateway.data_dir / "master.key")])
    found: dict[Kind, list[bytes]] = {b"v": [], b"r": []}
    try:
        stable = -1
        while stable != (stable := int(await link.call("DBSIZE"))):  # noqa: ASYNC110 - writes go behind the answers
            await asyncio.sleep(0.5)
        for name in await link.call("KEYS", link.names.prefix + ":[vr]:*"):
            key = link.names.key_of(name)
            if key is not None and name not in known:
                known.add(name)
                kind: Kind = b"v" if name.startswith(link.names.values.encode()) else b"r"
                found[kind].append(await opened(keyring, key, kind, await link.call("GET", name)))
    finally:
        await link.aclose()
    return found[b"v"], found[b"r"]


async def opened(keyring: Keyring, key: CacheKey, kind: Kind, sealed: bytes) -> bytes:
    try:
        return await keyring.open(key, kind, sealed)
    except Foreign as error:
        raise RuntimeError(f"the gateway's own value does not open: {error}") from error


def measure(figures: Figures, kind: str, values: Sequence[bytes]) -> None:
    size = statistics.median(map(len, values))
    figures.add(Figure(f"{kind}: median size", size, "bytes"))
    cipher, nonce = AESGCM(os.urandom(32)), os.urandom(12)
    seal = each(lambda value: cipher.encrypt(nonce, value, b""), values)
    figures.add(Figure(f"{kind}: sealing", seal, "us"))
    read = zstandard.ZstdDecompressor().decompress
    for level in LEVELS:
        add_way(figures, f"{kind}: zstd {level}", zstandard.ZstdCompressor(level=level).compress, read, values)
    worth = [value for value in values if pack(value) is not None]
    figures.add(Figure(f"{kind}: worth packing", len(worth) / len(values), "share of the values"))
    if worth:
        add_way(figures, f"{kind}: packed", lambda value: pack(value) or value, read_packed, worth)


def add_way(
    figures: Figures,
    way: str,
    write: Callable[[bytes], bytes],
    read: Callable[[bytes], bytes],
    values: Sequence[bytes],
) -> None:
    packed = [write(value) for value in values]
    if [read(value) for value in packed] != list(values):
        raise RuntimeError(f"{way}: what comes out is not what went in")
    figures.add(Figure(f"{way}, of the size", sum(map(len, packed)) / sum(map(len, values)), "share"))
    figures.add(Figure(f"{way}, to pack", each(write, values), "us"))
    figures.add(Figure(f"{way}, to unpack", each(read, packed), "us"))


def read_packed(packed: bytes) -> bytes:
    return unpack(packed, 1 << 30)


def each(work: Callable[[bytes], bytes], values: Sequence[bytes]) -> float:
    """Microseconds of processor time per value."""
    least = float("inf")
    for _ in range(REPEATS):
        begun = time.thread_time()
        for value in values:
            work(value)
        least = min(least, time.thread_time() - begun)
    return 1e6 * least / len(values)


if __name__ == "__main__":
    main()
