"""`refrain doctor`: is the Redis fit to be the second tier? And `refrain keys`: the master keys of what lies in it.

Both speak to Redis themselves, so that no gateway need run, except that a private server runs only while its gateway
does. The checks are cache_tiers.checkup's; here they become a table, or JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cache_tiers.fitness import Finding
    from cache_tiers.sealed import Keyring, WrappedKey

_STYLE: Final = {"ok": "green", "warn": "yellow", "wrong": "bold red"}
_NEARLY: Final = 0.9
"""Share of a data key's seals after which `keys list` says that the next one is near."""


@dataclass(frozen=True, slots=True)
class Access:
    """What the settings say of Redis and its keys."""

    url: str
    """Empty for the private server of this data folder."""
    data_dir: Path
    get_deadline: float
    masters: tuple[Path, ...]
    """The present one first."""


class NotNow(Exception):
    """What was asked can't be done; the text says what to do."""


ReadAccess = Callable[[argparse.Namespace], Access]


def add_doctor(parser: argparse.ArgumentParser, access: ReadAccess) -> None:
    """Examines a Redis and says what is wrong with it and what repairs it; status 1 when something is wrong."""
    add_access(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=lambda arguments: _told(lambda: _doctor(access(arguments), arguments.json)))


def add_keys(parser: argparse.ArgumentParser, access: ReadAccess) -> None:
    """Lists the data keys in Redis, and wraps them anew under the present master key."""
    commands = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
        made.set_defaults(run=lambda arguments: _told(lambda: run(arguments)))
        return made

    listing = "list the data keys, by whose master key they are wrapped, and how often they sealed"
    add_access(command("list", lambda arguments: _list(access(arguments)), listing))
    anew = "wrap all data keys anew under keys.master; values stay as they are"
    add_access(command("rotate", lambda arguments: _rotate(access(arguments)), anew))
    new = command(
        "new", lambda arguments: _new(arguments.file), "write a new master key to a file that is not there yet"
    )
    new.add_argument("file", type=Path)


def add_access(parser: argparse.ArgumentParser) -> None:
    """Options that say which Redis, and by which settings: what `cli.redis_access` reads."""
    parser.add_argument("--redis", metavar="URL", help="in place of the settings' redis.url")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, such as refrain.toml")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where keys and the private Redis are kept")


def _told(run: Callable[[], int]) -> int:
    """What the person at the keyboard can put right is a line on standard error."""
    from cache_tiers.link import Unavailable
    from cache_tiers.master_key import MasterKeyError

    logging.getLogger("cache_tiers").addHandler(logging.NullHandler())  # what went wrong is told once, by the findings
    try:
        return run()
    except (MasterKeyError, NotNow, OSError, Unavailable) as error:
        for line in str(error).splitlines():
            print(f"refrain: {line}", file=sys.stderr)
        return 1


def _url(access: Access) -> str:
    if access.url:
        return access.url
    socket = access.data_dir.absolute() / "redis" / "run" / "redis.sock"
    if not socket.exists():
        raise NotNow(
            f"no gateway runs on {access.data_dir}, with whose private Redis one could speak; start it, or name a"
            " server by --redis or redis.url"
        )
    return f"unix://{socket}"


def _doctor(access: Access, as_json: bool) -> int:
    from cache_tiers.checkup import examine

    findings = asyncio.run(examine(_url(access), get_deadline=access.get_deadline))
    if as_json:
        print(json.dumps([asdict(found) for found in findings], indent=2))
    else:
        _print(findings)
    return 1 if any(found.verdict == "wrong" for found in findings) else 0


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("check", "found", "wanted", "verdict", box=None, pad_edge=False)
    where = ""
    for found in findings:
        if found.where != where:
            where = found.where
            table.add_row(Text(where, style="bold"), "", "", "")
        table.add_row(found.check, Text(found.found), Text(found.wanted), Text(found.verdict, _STYLE[found.verdict]))
    console.print(table)
    repairs: dict[tuple[str, str], list[str]] = {}
    for found in findings:
        if found.repair:
            repairs.setdefault((found.check, found.repair), []).append(found.where)
    if repairs:
        console.print("\nWhat repairs it (settings last until a restart: CONFIG REWRITE keeps them):", highlight=False)
    for (check, repair), places in repairs.items():
        at = f" on {', '.join(places)}" if places[0] else ""
        console.print(Text(f"  {check}{at}: {repair}"), soft_wrap=True)


# ------------------------------------------------------------------------------------------------------------ keys


def _list(access: Access) -> int:
    async def survey(keyring: Keyring) -> list[WrappedKey]:
        return await keyring.survey()

    keys = with_keyring(access, survey)
    for key in keys:
        state = "present" if key.present else "other" if key.opens else "UNKNOWN"
        used = key.seals / 2**32
        near = ", the next one is near" if used > _NEARLY else ""
        print(f"{key.tenant:24} {key.generation:4}  master {key.master.hex()} {state:8} {used:6.1%} sealed{near}")
    strange = sum(not key.opens for key in keys)
    print(f"{len(keys)} data keys, {sum(key.present for key in keys)} under the present master key, {strange} unknown")
    return 1 if strange else 0


def _rotate(access: Access) -> int:
    async def rewrap(keyring: Keyring) -> tuple[int, list[WrappedKey]]:
        return await keyring.rewrap(), await keyring.survey()

    wrapped, keys = with_keyring(access, rewrap)
    print(f"{wrapped} data keys wrapped anew, {len(keys)} in all")
    left = [key for key in keys if not key.present]
    for key in left:
        print(f"refrain: {key.tenant}: wrapped by master key {key.master.hex()}, not known here", file=sys.stderr)
    return 1 if left else 0


def _new(file: Path) -> int:
    from cache_tiers.master_key import create_master_key

    if file.exists():
        raise NotNow(f"{file} is there already")
    create_master_key(file)
    print(f"{file}: a new master key")
    return 0


def with_keyring(access: Access, work: Callable[[Keyring], Any]) -> Any:
    """`work` with a keyring of these master keys; none is made. Raises MasterKeyError, NotNow, Unavailable."""
    from cache_tiers.link import RedisLink
    from cache_tiers.master_key import load_master_key
    from cache_tiers.sealed import Keyring

    masters = [load_master_key(path) for path in access.masters]
    url = _url(access)

    async def run() -> Any:
        link = RedisLink(url, deadline=5.0)
        try:
            return await work(Keyring(link, masters, deadline=5.0))
        finally:
            await link.aclose()

    return asyncio.run(run())
