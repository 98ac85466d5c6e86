"""`refrain models`: what a running gateway has, and the registry on this machine that says what it should have.

The registry is changed on disk, where running gateways notice; no gateway need run. Without a subcommand, and with
`list --running`, the gateway is asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.client import Model
    from models.registry.slots import Slot
    from models.registry.store import Registry, Version


def add_subcommands(
    parser: argparse.ArgumentParser,
    running: Callable[[argparse.Namespace], int],
    registry: Callable[[argparse.Namespace], Registry],
) -> None:
    """`running` asks the gateway, for which `parser` has the options already; `registry` is where --config and
    --models-dir say."""

    def on_disk(run: Callable[[Registry, argparse.Namespace], None], arguments: argparse.Namespace) -> int:
        from models.onnx import ModelFileError

        try:
            run(registry(arguments), arguments)
        except (ModelFileError, OSError) as error:
            for line in str(error).splitlines():
                print(f"refrain: {line}", file=sys.stderr)
            return 1
        return 0

    commands = parser.add_subparsers(title="subcommands; none: what the gateway runs", metavar="SUBCOMMAND")

    def command(name: str, run: Callable[[Registry, argparse.Namespace], None], what: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what)
        made.add_argument("--config", type=Path, metavar="FILE", help="settings that say where the registry is")
        made.add_argument("--models-dir", type=Path, metavar="DIR", help="the registry, in place of the settings' one")
        made.set_defaults(run=lambda arguments: on_disk(run, arguments))
        return made

    listed = command("list", _list, "list the models of the registry, and which of them serve")
    listed.add_argument("--running", action="store_true", help="ask the gateway what it runs instead")
    listed.set_defaults(run=lambda arguments: running(arguments) if arguments.running else on_disk(_list, arguments))
    show = command("show", _show, "print all that is known of one model")
    show.add_argument("model", metavar="NAME[@VERSION]", help="of the registry, or a model folder")
    verify = command("verify", _verify, "check files, signature and graph, and run each model once")
    verify.add_argument("model", nargs="?", metavar="NAME|FOLDER", help="a name, NAME@VERSION or folder; default all")
    add = command("add", _add, "check a model folder and copy it into the registry")
    add.add_argument("folder", type=Path)
    add.add_argument("--canary", type=_percent, metavar="SHARE", help="put it on trial with this percentage at once")
    canary = command("canary", _canary, "put a version on trial beside the active one")
    canary.add_argument("model", metavar="NAME@VERSION")
    canary.add_argument("--percent", type=_percent, metavar="P", help="of the requests that name no version, 0 to 100")
    canary.add_argument(
        "--tenant", action="append", default=[], metavar="T", help="who gets it always; may be repeated"
    )
    promote = command("promote", _promote, "make a version the active one")
    promote.add_argument("model", metavar="NAME@VERSION")
    back = command("rollback", _roll_back, "end the trial of a model, or bring back what was active before it")
    back.add_argument("model", metavar="NAME")


def print_running(models: Sequence[Model]) -> None:
    """The gateway's own account, a line each."""
    for model in models:
        told = [f"{model.name:20} {model.family:12} {model.identity[:12]}", model.provider, model.licence]
        told += [" + ".join(model.versions)] if model.versions else []
        told += [f"{100 * model.share:.4g} % of the requests"] if model.share != 1 else []
        print("  ".join(told))


def _list(registry: Registry, arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from models.onnx import read_manifest

    versions, wrong = registry.versions()
    slots = registry.slots()
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "family", "serves", "licence", "where"):
        table.add_column(heading, overflow="fold")
    for version in versions:
        where = "built in" if version.builtin else str(version.folder)
        licence = str(read_manifest(version.folder)["licence"])
        table.add_row(version.ref, version.family, _serves(version, slots), licence, where)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for problem in wrong:
        print(f"refrain: {problem}", file=sys.stderr)


def _serves(version: Version, slots: dict[str, Slot]) -> str:
    from models.registry.slots import BUILTIN, Slot

    slot = slots.get(version.family, Slot())
    own = BUILTIN if version.builtin else version.ref
    if slot.active in (own, version.ref):
        return "active"
    if slot.canary == version.ref:
        tenants = f" and {', '.join(slot.tenants)}" if slot.tenants else ""
        return f"canary, {slot.percent:g} %{tenants}"
    return "was active" if own in slot.before else ""


def _show(registry: Registry, arguments: argparse.Namespace) -> None:
    from models.onnx import OnnxModel
    from models.registry.graph import graph_of
    from models.registry.manifest import SEAL, digests_of

    (version,) = _meant(registry, arguments.model)
    model = OnnxModel(version.folder)
    sealed = "yes" if (version.folder / SEAL).is_file() else "no"
    for name, value in (
        ("model", version.ref), ("family", version.family), ("licence", model.manifest["licence"]),
        ("serves", _serves(version, registry.slots()) or "no"), ("folder", version.folder),
        ("identity", model.identity), ("signed", sealed),
    ):  # fmt: skip
        print(f"{name:9} {value}")
    print("\n# What model.toml may hold of its files and its graph:\n\n[files]")
    for name, digest in digests_of(version.folder).items():
        print(f'"{name}" = "{digest}"')
    print(f"\n{graph_of(model.session).as_toml()}")
    for name, value in model.options.items():
        text = str(value)
        print(f"# option {name}: {text if len(text) <= 80 else text[:77] + '...'}")


def _verify(registry: Registry, arguments: argparse.Namespace) -> None:
    from models.onnx import ModelFileError
    from models.registry.verify import verify

    wrong = list(registry.versions()[1]) if arguments.model is None else []
    chosen = registry.versions()[0] if arguments.model is None else _meant(registry, arguments.model)
    for version in chosen:
        try:
            verify(version, registry.trusted_keys)
            print(f"{version.ref}: sound")
        except ModelFileError as error:
            wrong.append(str(error))
    if wrong:
        raise ModelFileError("\n".join(wrong))


def _add(registry: Registry, arguments: argparse.Namespace) -> None:
    from models.registry.store import version_in
    from models.registry.verify import verify

    verify(version_in(arguments.folder), registry.trusted_keys)
    version = registry.add(arguments.folder)
    print(f"{version.ref} is in {version.folder}")
    if arguments.canary is not None:
        _on_trial(registry, version.ref, arguments.canary, [])
    else:
        print(f"nobody gets it yet: `refrain models canary {version.ref} --percent 5`, or `promote {version.ref}`")


def _canary(registry: Registry, arguments: argparse.Namespace) -> None:
    from models.onnx import ModelFileError

    if arguments.percent is None and not arguments.tenant:
        raise ModelFileError(f"{arguments.model}: give --percent, --tenant or both; --percent 0 is for who names it")
    _on_trial(registry, arguments.model, arguments.percent or 0.0, arguments.tenant)


def _on_trial(registry: Registry, ref: str, percent: float, tenants: Sequence[str]) -> None:
    version = registry.try_out(ref, percent, tenants)
    whom = f" and all of {', '.join(tenants)}" if tenants else ""
    print(f"{version.ref} gets {percent:g} % of the requests{whom}; `refrain models rollback {version.name}` ends that")


def _promote(registry: Registry, arguments: argparse.Namespace) -> None:
    from models.registry.slots import ENCODERS

    version = registry.promote(arguments.model)
    print(f"{version.ref} is active; `refrain models rollback {version.name}` brings back what was")
    if version.family in ENCODERS:
        print("encoders are loaded when a gateway starts: restart those that run")


def _roll_back(registry: Registry, arguments: argparse.Namespace) -> None:
    print(registry.roll_back(arguments.model))


def _meant(registry: Registry, model: str) -> list[Version]:
    """A model folder's version, that of NAME@VERSION, or all of NAME."""
    from models.registry.store import version_in

    if Path(model).is_dir():
        return [version_in(Path(model))]
    named = [version for version in registry.versions()[0] if version.name == model]
    return named or [registry.find(model)]


def _percent(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed are 0 to 100")
    return percent
