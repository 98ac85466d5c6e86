"""`registry.toml`: what each family serves, read with care and written whole.

It has a table for each family that does not simply serve its built-in model:

    [vocoder]
    active = "clear@2"      # NAME@VERSION, or "builtin"
    before = ["builtin"]    # what was active before, the newest last: the way back
    canary = "clear@3"      # the version on trial
    percent = 5.0           # its share of the requests that name no version
    tenants = ["acme"]      # and those of whom it gets all
"""

from __future__ import annotations

import json
import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.onnx import ModelFileError
from models.registry.manifest import NAME, NAMES

STATE: Final = "registry.toml"
BUILTIN: Final = "builtin"
FAMILIES: Final = ("recognizer", "acoustic", "g2p", "vocoder")
ENCODERS: Final = ("speaker", "emotion")
"""Families that answer no task themselves. Refrain runs without them, so a folder of one may be missing."""
KNOWN: Final = (*FAMILIES, *ENCODERS)


@dataclass(frozen=True, slots=True)
class Slot:
    """What a family serves. References are NAME@VERSION or BUILTIN."""

    active: str = BUILTIN
    before: tuple[str, ...] = ()
    canary: str = ""
    percent: float = 0.0
    tenants: tuple[str, ...] = ()


def read_slots(path: Path) -> dict[str, Slot]:
    """By family, as far as they are stated; none where there is no file. Raises `ModelFileError`."""
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{path}: not TOML: {error}") from error
    return {family: _slot(path, family, table) for family, table in tables.items()}


def _slot(path: Path, family: str, table: Any) -> Slot:
    if family not in KNOWN:
        raise ModelFileError(f"{path}: [{family}]: no such family; known are {', '.join(KNOWN)}")
    kinds: dict[str, Any] = {"active": str, "before": list, "canary": str, "percent": (int, float), "tenants": list}
    if not isinstance(table, dict) or (odd := set(table) - set(kinds)):
        given = min(odd) if isinstance(table, dict) else table
        raise ModelFileError(f"{path}: {family}.{given}: no such key; allowed here: {', '.join(kinds)}")
    for key, value in table.items():
        inner = value if isinstance(value, list) else []
        if not isinstance(value, kinds[key]) or not all(isinstance(one, str) for one in inner):
            wanted = {str: "a text", list: "a list of texts"}.get(kinds[key], "a number")
            raise ModelFileError(f"{path}: {family}.{key} = {value!r}: allowed is {wanted}")
    refs = [("active", table.get("active", BUILTIN)), *(("before", ref) for ref in table.get("before", ()))]
    refs += [("canary", table["canary"])] if table.get("canary") else []
    for key, ref in refs:
        parts = ref.split("@")
        named = len(parts) == 2 and all(map(NAME.fullmatch, parts))
        if not named and (key == "canary" or ref != BUILTIN):
            raise ModelFileError(f"{path}: {family}.{key} = {ref!r}: allowed is NAME@VERSION, each {NAMES}")
    if not 0 <= table.get("percent", 0) <= 100:
        raise ModelFileError(f"{path}: {family}.percent = {table['percent']!r}: allowed are 0 to 100")
    lists = {key: tuple(table.get(key, ())) for key in ("before", "tenants")}
    return Slot(**{**table, **lists, "percent": float(table.get("percent", 0.0))})


def write_slots(path: Path, slots: Mapping[str, Slot]) -> None:
    """Whole or not at all: a gateway may be reading."""
    lines = ["# Written by `refrain models`, and read again by a running gateway within seconds."]
    for family, slot in sorted(slots.items()):
        lines += ["", f"[{family}]", f"active = {json.dumps(slot.active)}", f"before = {json.dumps(slot.before)}"]
        if slot.canary:
            lines += [f"canary = {json.dumps(slot.canary)}", f"percent = {float(slot.percent)}"]
            lines += [f"tenants = {json.dumps(slot.tenants)}"]
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with half.open("w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
