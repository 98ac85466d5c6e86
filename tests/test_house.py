"""The rules of the house, kept by a machine: who imports whom, generated code as its source, documents that tell no
lies, and files that give nothing away of where they were written."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import GROUP, main

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))


# ------------------------------------------------------------------------------------------------- imports, protos


def test_every_import_contract_is_kept() -> None:
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    done = _run(sys.executable, "-c", lint)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contracts_are_those_of_the_house() -> None:
    """That one is kept says nothing when it has been emptied."""
    contracts = {contract["name"]: contract for contract in _pyproject()["tool"]["importlinter"]["contracts"]}
    (layers,) = (contract["layers"] for contract in contracts.values() if contract["type"] == "layers")
    assert layers == ["bench", "gateway", "cache_tiers | models"]
    forbidden = {
        (source, target)
        for contract in contracts.values()
        if contract["type"] == "forbidden"
        for source in contract["source_modules"]
        for target in contract["forbidden_modules"]
    }
    assert {
        ("cache_tiers", "protos"),
        ("cache_tiers", "models"),
        ("models", "cache_tiers"),
        ("models", "protos"),
        ("gateway", "torch"),
        ("gateway.fingerprint", "redis"),
        ("cache_tiers.policy", "time"),
    } <= forbidden


def test_only_these_touch_protos() -> None:
    allowed = {"admin.py", "client/client.py", "client/convert.py", "servicer.py", "streams.py", "upstream.py"}
    touching = {
        path.relative_to(ROOT / "gateway").as_posix()
        for path in (ROOT / "gateway").rglob("*.py")
        if re.search(r"^\s*(from|import) protos\b", path.read_text("utf-8"), re.MULTILINE)
    }
    assert {name for name in touching if not name.startswith("wire/")} <= allowed


def test_only_these_read_settings() -> None:
    reading = {
        path.relative_to(ROOT).as_posix()
        for package in ("gateway", "cache_tiers", "models")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*(from gateway\.settings|import gateway\.settings|from gateway import .*settings)",
                     path.read_text("utf-8"), re.MULTILINE)
    }  # fmt: skip
    assert reading <= {"gateway/app.py", "gateway/cli.py", "gateway/settings.py"}


def test_generated_protos_are_those_of_their_source() -> None:
    done = _run(sys.executable, "scripts/protos.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", ["bench", "cache_tiers", "gateway", "models"])
def test_every_file_opens_with_a_line_that_says_what_it_is_for(package: str) -> None:
    files = [path for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    silent = [str(path.relative_to(ROOT)) for path in files if not path.read_text("utf-8").startswith('"""')]
    assert not silent


# ---------------------------------------------------------------------------------------------------- documents


def _commands(document: str) -> Iterator[str]:
    """What the ``` blocks of a document tell a person to type, one command at a time."""
    path = ROOT / document
    if not path.is_file():
        return
    text = path.read_text("utf-8")
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if command.startswith(("refrain ", "make ", "python -m ")):
                yield command


ALL_COMMANDS = [(document, command) for document in DOCUMENTS for command in _commands(document)]


@pytest.mark.parametrize(("document", "command"), ALL_COMMANDS, ids=[f"{d}: {c}" for d, c in ALL_COMMANDS])
def test_a_command_that_a_document_names_exists(
    document: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first of a pipeline, without comment, redirection and &.
    words = shlex.split(re.split(r"\s(?:\||>|&|;)", f" {command} ".replace("&&", "&"))[0], comments=True)
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word and not word.startswith("-")} <= _make_targets()
    elif words[0] == "python":
        assert _runs_as_module(words[2]), f"{words[2]} cannot be run with python -m"
    else:
        assert words[1] in _refrain_commands(), f"refrain has no command {words[1]}"
        with pytest.raises(SystemExit) as left:
            main([words[1], "--help"])
        assert left.value.code == 0
        told = capsys.readouterr().out
        if len(words) > 2 and re.search(rf"^    {re.escape(words[2])}\s", told, re.MULTILINE):  # a subcommand
            with pytest.raises(SystemExit):
                main([words[1], words[2], "--help"])
            told += capsys.readouterr().out
        known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", told))
        unknown = [word for word in words[2:] if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
        assert not unknown, f"refrain {words[1]} has no {unknown}"


def test_the_tests_themselves_are_named_as_make_runs_them() -> None:
    assert {"demo", "test", "lint", "protos", "setup", "clean"} <= _make_targets()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_links_to_is_there(document: str) -> None:
    path = ROOT / document
    text = path.read_text("utf-8") if path.is_file() else ""
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    lost = [target for target in targets if target and "://" not in target and not (path.parent / target).exists()]
    assert not lost


def test_every_command_of_another_package_can_be_loaded() -> None:
    for name, target in _pyproject()["project"]["entry-points"][GROUP].items():
        module, _, attribute = target.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None, f"{name}: no module {module}"
        assert spec.origin is not None
        assert f"def {attribute}(" in Path(spec.origin).read_text("utf-8"), name


def _make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    return {name for line in re.findall(r"^([\w. -]+):(?!=)", makefile, re.MULTILINE) for name in line.split()}


@cache
def _refrain_commands() -> frozenset[str]:
    """Our own, as argparse lists them, and those that other packages add."""
    from gateway.cli import _parser

    added = {point.name for point in entry_points(group=GROUP)} | set(_pyproject()["project"]["entry-points"][GROUP])
    return _parser()[1] | frozenset(added)


def _runs_as_module(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except ModuleNotFoundError:
        return False
    return spec is not None


# ------------------------------------------------------------------------------------------ what must not be told

FORBIDDEN = {
    # Written so that this file does not hold them itself.
    "a path of the machine it was written on": rb"(?<![\w.}$/-])/(?:work|root)/[\w.-]",
    "a home folder": rb"(?<![\w.}$/-])/(?:home|Users)/(?!(?:user|you|me)\b)[a-z][\w.-]*/",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a token of a code host": rb"\b(?:ghp|gho|ghs|github_pat|glpat)[_-][A-Za-z0-9_]{20,}",
    "an access key of a cloud": rb"\bAKIA[0-9A-Z]{16}\b",
    "a conflict left unresolved": rb"^(?:<{7}|>{7}) ",
}


def test_no_tracked_file_says_what_it_must_not() -> None:
    found = [
        f"{path}: {what}: {match[0].decode(errors='replace')}"
        for path, data in _tracked()
        if b"\0" not in data
        for what, pattern in FORBIDDEN.items()
        if (match := re.search(pattern, data, re.MULTILINE))
    ]
    assert not found


def test_no_tracked_model_or_picture_says_where_it_was_made() -> None:
    """Exporters like to write their sources' paths into what they export."""
    folders = [b"/" + name + b"/" for name in (b"work", b"root", b"site-packages")]
    binary = [(path, data) for path, data in _tracked() if b"\0" in data]
    assert not [(path, folder) for path, data in binary for folder in folders if folder in data]


def test_what_is_forbidden_would_be_found() -> None:
    paths = [b"see /" + b"work/main", b"open('/" + b"root/.cache/x')", b"=/" + b"home/jo/x"]
    for bad in (*paths, b"-----BEGIN " + b"RSA PRIVATE KEY-----", b"<" * 7 + b" HEAD"):
        assert any(re.search(pattern, bad, re.MULTILINE) for pattern in FORBIDDEN.values()), bad
    relative = [b"https://example.org/work/x", b"$HOME/work/x", b"a/root/b", b"./work/x"]
    for good in (*relative, b"/" + b"work/\n", b"=======\n"):
        assert not any(re.search(pattern, good, re.MULTILINE) for pattern in FORBIDDEN.values()), good


def test_nothing_is_tracked_that_is_made_anew() -> None:
    made = re.compile(r"(^|/)(__pycache__|\.venv|demo-out|\.[a-z]+_cache|\.hypothesis)(/|$)|\.py[cod]$|master\.key$")
    assert not [path for path, _ in _tracked() if made.search(path)]


@cache
def _tracked() -> tuple[tuple[str, bytes], ...]:
    listed = _run("git", "ls-files", "-z")
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if name]
    return tuple((name, (ROOT / name).read_bytes()) for name in names if (ROOT / name).is_file())


@cache
def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
