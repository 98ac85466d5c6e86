"""Writes docs/refrain.example.toml from the settings' own docstrings and defaults; --check says whether it is stale."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from gateway.settings import Settings, Tenant, Voice

OUT = Path(__file__).resolve().parent.parent / "docs" / "refrain.example.toml"
HEAD = """\
# Every setting with its default. What is commented out is what happens anyway.
# Sizes may be written "256 MiB", times "30 d", "10 s" or "50 ms". A key that is not known is an error.
# Each can come from the environment as well: REFRAIN_LISTEN__PORT=50052.
"""
TABLES = ("tenants", "voices", "tokens")


def toml(value: Any) -> str | None:
    """A default as TOML; None for one that TOML has no word for."""
    if value is None or value is PydanticUndefined:
        return None
    if isinstance(value, Path):
        return json.dumps("~/.local/share/refrain")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
            if type(value) is not int and value and value % size == 0:
                return f'"{value // size} {unit}"'
        return str(int(value))
    if isinstance(value, float):
        return f"{value:g}" if value < 1e5 else f'"{value / 86_400:g} d"'
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), 110)]


def table(model: type[BaseModel], skip: tuple[str, ...] = ()) -> list[str]:
    """The fields of one table, each under what it means."""
    lines: list[str] = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if name in skip or isinstance(default, BaseModel):
            continue
        lines += comment(field.description or "")
        written = toml(default)
        lines.append(f"# {name} = {written}" if written is not None else f"# {name} =")
    return lines


def example() -> str:
    lines = [HEAD, *table(Settings, TABLES), ""]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            about = "" if type(default).__doc__ is BaseModel.__doc__ else type(default).__doc__ or ""
            lines += [*comment(about), f"[{name}]", *table(type(default)), ""]
    lines += ["# Token to tenant. Better kept in tokens_file.", "# [tokens]", '# "a-long-random-word" = "alpha"', ""]
    lines += ["# What one tenant may have; any name that tokens give.", "# [tenants.alpha]", *table(Tenant), ""]
    lines += ["# A voice that requests may name by embedding.", "# [voices.slt]", *table(Voice), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is stale")
    made = example()
    if not parser.parse_args().check:
        OUT.write_text(made, "utf-8")
    elif not OUT.is_file() or OUT.read_text("utf-8") != made:
        sys.exit(f"stale, run `python scripts/example_config.py`: {OUT.name}")


if __name__ == "__main__":
    main()
