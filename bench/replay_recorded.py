"""Recorded inputs in a replay: what callers really sent stands where otherwise something would be made up.

A gateway keeps them for tenants that consent (gateway/recorder.py), sealed under data keys that lie in its Redis,
wrapped by its master key: so opening them takes that key, and a way to that Redis. They are found by the digests of the
trace.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bench.replay_inputs import Item
from bench.replay_things import Things
from cache_tiers.entry import CacheKey
from cache_tiers.link import Unavailable
from cache_tiers.master_key import MasterKeyError
from cache_tiers.sealed import Foreign, Keyring, Tampered
from gateway.cli import CommandError, redis_access
from gateway.doctor import NotNow, add_access, with_keyring
from gateway.input_files import Kept, Walk, body_of, input_files, walk
from protos.refrain.v1 import speech_pb2

RECORDED: Final = "recorded"
"""The kind of a thing whose input was recorded."""
_MATCHES: Final = {"exact": speech_pb2.CacheControl.EXACT, "fuzzy": speech_pb2.CacheControl.FUZZY}


@dataclass(slots=True)
class Opened:
    """What of a folder can be sent again."""

    requests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Task and serialised request by the trace's digest, 16 hex digits."""
    strange: Counter[str] = field(default_factory=Counter)
    """Records that can't, by why: damaged, torn (cut short by a crash), unknown (of keys not known, or erased)."""


def add_options(parser: argparse.ArgumentParser) -> None:
    what = "recorded inputs, which a gateway keeps for tenants that consent; the settings say how they are opened"
    parser.add_argument("--inputs", type=Path, metavar="FOLDER", help=what)
    parser.add_argument("--tenant", action="append", metavar="NAME", help="whose recorded inputs; may be repeated")
    add_access(parser)


def with_recorded(arguments: argparse.Namespace, things: Things) -> tuple[Things, dict[int, bytes], dict[str, Any]]:
    """The things, of which some are now recorded ones; the requests of these, by their number; and how many there are,
    for the report. Raises `CommandError`."""
    if arguments.inputs is None:
        return things, {}, {}
    wanted = {digest.to_bytes(8, "little").hex() for digest in things.digests}
    try:
        kept, strange = _find(arguments.inputs, wanted, arguments.tenant)
        opened: Opened = with_keyring(redis_access(arguments), lambda keyring: _open(kept, keyring))
    except (MasterKeyError, NotNow, OSError, Unavailable) as error:
        raise CommandError(f"--inputs {arguments.inputs}: {error}") from None
    if opened.strange["unknown"] and not opened.requests:
        why = "keys.master of these settings does not open their keys, or their tenant was erased"
        raise CommandError(f"--inputs {arguments.inputs}: none of {opened.strange['unknown']} inputs opens: {why}")
    found: dict[int, bytes] = {}
    for number, digest in enumerate(things.digests):
        task, request = opened.requests.get(digest.to_bytes(8, "little").hex(), ("", b""))
        if task == things.items[number].task:
            found[number] = _matched(task, request, arguments.match)
    asked = Counter(things.asks.tolist())
    counts = {
        "recorded": len(found),
        "of": len(things.items),
        "requests": sum(asked[number] for number in found),
        **(strange + opened.strange),
    }
    return _known(things, found), found, counts


def _find(
    folder: Path, wanted: Collection[str], tenants: Sequence[str] | None
) -> tuple[Mapping[str, Sequence[Kept]], Counter[str]]:
    """The records of wanted digests, the newest first, and how many are not whole. Raises `CommandError`, OSError."""
    files = input_files(folder)
    if not files:
        raise CommandError(f"--inputs {folder}: holds no recorded inputs (inputs-*.rfi)")
    kept: defaultdict[str, list[Kept]] = defaultdict(list)
    strange: Counter[str] = Counter()
    for path in files:
        walked = Walk()
        for one in walk(path, walked):
            if one.head.digest in wanted and (not tenants or one.head.tenant in tenants):
                kept[one.head.digest].insert(0, one)
        strange += Counter(damaged=walked.damaged, torn=walked.torn)
    whose = sorted({one.head.tenant for records in kept.values() for one in records})
    if len(whose) > 1 and not tenants:  # one caller's token would bring the words of one tenant to another
        raise CommandError(f"--inputs {folder}: holds inputs of {', '.join(whose)}; choose by --tenant NAME")
    return kept, strange


async def _open(kept: Mapping[str, Sequence[Kept]], keyring: Keyring) -> Opened:
    opened = Opened()
    for digest, records in kept.items():
        for one in records:
            try:
                request = await keyring.open(CacheKey(one.head.tenant, one.raw), b"i", body_of(one))
            except Tampered:
                opened.strange["damaged"] += 1
            except Foreign:
                opened.strange["unknown"] += 1
            else:
                opened.requests[digest] = one.head.task, request
                break
    return opened


def _matched(task: str, request: bytes, match: str) -> bytes:
    """`request`, with what `--match` says of recordings in place of what the caller said."""
    if task != "recognize" or match not in _MATCHES:
        return request
    heard = speech_pb2.RecognizeRequest.FromString(request)
    heard.cache_control.match = _MATCHES[match]
    return bytes(heard.SerializeToString())


def _known(things: Things, found: Mapping[int, bytes]) -> Things:
    """`things` as far as recorded ones are known: their words are not, so each is kin to itself alone."""
    items, kinds, leads = list(things.items), list(things.kinds), list[int]()
    first: dict[tuple[str, str], int] = {}
    for number, item in enumerate(things.items):
        if number in found:
            items[number], kinds[number] = _said(item, found[number]), RECORDED
            leads.append(number)
        else:
            leads.append(first.setdefault((item.task, item.text), number))
    return replace(things, items=tuple(items), kinds=tuple(kinds), lead=tuple(leads))


def _said(item: Item, request: bytes) -> Item:
    if item.task == "synthesize":
        voice = speech_pb2.SynthesizeRequest.FromString(request).voice
        return Item(item.task, "", voice.name, voice.emotion)
    if item.task == "recognize":
        control = speech_pb2.RecognizeRequest.FromString(request).cache_control
        return Item(item.task, "", fuzzy=control.match == speech_pb2.CacheControl.FUZZY)
    return Item(item.task, "")
