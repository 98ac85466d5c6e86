"""The registry on disk: which model versions there are, and which serve.

Built in are the shipped models, or those that lie as folders of their own directly in the registry's folder.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from models.onnx import ModelFileError, read_manifest
from models.registry.manifest import MANIFEST, NAME, NAMES, UNVERSIONED, check_files
from models.registry.slots import BUILTIN, ENCODERS, FAMILIES, KNOWN, STATE, Slot, read_slots, write_slots

EMBEDDED: Final = Path(__file__).parent.parent / "embedded"
CHAINS: Final[Mapping[str, tuple[str, ...]]] = {
    "recognize": ("recognizer",),
    "synthesize": ("acoustic", "g2p", "vocoder"),
    "vocode": ("vocoder",),
}
"""Task to the families that answer it together, the one that gives the engine its name first."""
KEPT: Final = 10
"""How far back a family can be rolled."""


@dataclass(frozen=True, slots=True)
class Version:
    """One model version and where it lies."""

    name: str
    version: str
    family: str
    folder: Path
    manifest: str
    """sha256 of model.toml: what has another one is another model, whatever folder it is in."""
    builtin: bool = False

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def shipped(self) -> bool:
        """Whether it came with the program, and so needs no signature of its own."""
        return self.folder.is_relative_to(EMBEDDED)


@dataclass(frozen=True, slots=True)
class Serving:
    """A family's slot with its references found."""

    active: Version | None
    """None for an encoder that is not there."""
    canary: Version | None = None
    percent: float = 0.0
    tenants: frozenset[str] = field(default_factory=frozenset)


class Registry:
    """The models in a folder, which need not hold any; without a folder, the shipped ones. All errors are
    `ModelFileError`, with the file or the reference, what was given, and what is allowed."""

    def __init__(self, folder: Path | None, trusted_keys: Sequence[Path] = ()) -> None:
        self.folder, self.trusted_keys = folder, tuple(trusted_keys)

    # ---------------------------------------------------------------------------------------------------- reading

    def serving(self) -> dict[str, Serving]:
        """Every family with what serves it now. Versions that do not serve are not looked at."""
        builtins, slots = self.builtins(), self.slots()
        found = {}
        for family in KNOWN:
            slot = slots.get(family, Slot())
            active = builtins.get(family) if slot.active == BUILTIN else self._slotted(family, "active", slot.active)
            canary = self._slotted(family, "canary", slot.canary) if slot.canary else None
            found[family] = Serving(active, canary, slot.percent, frozenset(slot.tenants))
        return found

    def builtins(self) -> dict[str, Version]:
        """The shipped models, or those in the folder itself that stand in for them, by family."""
        shipped = {family: EMBEDDED / family for family in KNOWN}
        there = [at for family, at in shipped.items() if family in FAMILIES or (at / MANIFEST).is_file()]
        found = {at.name: version_in(at, builtin=True) for at in there}
        if self.folder is None:
            return found
        if not self.folder.is_dir():
            raise ModelFileError(f"{self.folder}: no such folder")
        seen: dict[str, Path] = {}
        for folder in _folders(self.folder):
            if not (folder / MANIFEST).is_file() and _folders(folder):
                continue  # NAME with its versions
            stand_in = version_in(folder, builtin=True)
            if stand_in.family in seen:
                raise ModelFileError(f"{folder}: family '{stand_in.family}' is already that of {seen[stand_in.family]}")
            seen[stand_in.family] = folder
            found[stand_in.family] = stand_in
        return found

    def versions(self) -> tuple[list[Version], list[str]]:
        """All versions, built-in ones first, and what is wrong with folders that hold none."""
        found, wrong = list(self.builtins().values()), []
        names = [] if self.folder is None else [at for at in _folders(self.folder) if not (at / MANIFEST).is_file()]
        for folder in [version for name in names for version in _folders(name)]:
            try:
                found.append(self._at(folder))
            except ModelFileError as error:
                wrong.append(str(error))
        return found, wrong

    def find(self, ref: str) -> Version:
        """The version that NAME@VERSION names, or the only one there is of NAME."""
        found, _ = self.versions()
        matching = [version for version in found if ref in (version.ref, version.name)]
        if len(matching) != 1:
            allowed = ", ".join(sorted(version.ref for version in matching or found))
            raise ModelFileError(f"{ref}: {'several versions' if matching else 'no such model'}; there are {allowed}")
        return matching[0]

    def slots(self) -> dict[str, Slot]:
        """registry.toml, checked but for whether what it refers to is there."""
        path = self._state()
        return {} if path is None else read_slots(path)

    def _slotted(self, family: str, key: str, ref: str) -> Version:
        for version in self.builtins().values():
            if version.ref == ref and version.family == family:
                return version
        name, _, number = ref.partition("@")
        assert self.folder is not None, "without a folder there are no slots"
        folder = self.folder / name / number
        if not (folder / MANIFEST).is_file():
            raise ModelFileError(f"{self._state()}: {family}.{key} = '{ref}': there is no {folder / MANIFEST}")
        version = self._at(folder)
        if version.family != family:
            raise ModelFileError(f"{self._state()}: {family}.{key} = '{ref}': its family is '{version.family}'")
        return version

    def _at(self, folder: Path) -> Version:
        """The version in NAME/VERSION."""
        version = version_in(folder)
        if (version.name, version.version) != (folder.parent.name, folder.name):
            place = f"{version.name}/{version.version}"
            raise ModelFileError(f"{folder / MANIFEST}: is {version.ref}, so it must lie in {place}")
        return version

    def _state(self) -> Path | None:
        return None if self.folder is None else self.folder / STATE

    # ---------------------------------------------------------------------------------------------------- changing

    def add(self, source: Path) -> Version:
        """Copies a model folder into the registry, whole or not at all. It serves nobody until it is told to."""
        manifest = check_files(source, self.trusted_keys)
        if "version" not in manifest:
            raise ModelFileError(f"{source / MANIFEST}: field 'version' is missing; allowed are {NAMES}")
        new = version_in(source)
        folder = self._writable()
        for other in self.versions()[0]:
            if other.name == new.name and other.family != new.family:
                taken = f"is taken by a {other.family}, {other.folder}"
                raise ModelFileError(f"{source / MANIFEST}: name '{new.name}' {taken}; allowed is one family a name")
            if other.ref == new.ref:
                raise ModelFileError(
                    f"{source / MANIFEST}: {new.ref} is there already ({other.folder}); a version never changes,"
                    " so give this one another"
                )
        place = folder / new.name / new.version
        place.parent.mkdir(parents=True, exist_ok=True)
        # A name that begins with a dot is nobody's version, should we be stopped half-way.
        half = place.parent / f".{new.version}.{secrets.token_hex(4)}"
        try:
            half.mkdir()
            for path in sorted(path for path in source.iterdir() if path.is_file()):
                shutil.copyfile(path, half / path.name)
            check_files(half, self.trusted_keys)
            half.rename(place)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        return version_in(place)

    def try_out(self, ref: str, percent: float, tenants: Sequence[str]) -> Version:
        """Makes `ref` its family's canary. `percent` 0 and no tenants: it gets only requests that name it."""
        new = self.find(ref)
        path, slots = self._writable() / STATE, self.slots()
        if not 0 <= percent <= 100:
            raise ModelFileError(f"percent is {percent:g}; allowed are 0 to 100")
        for tenant in tenants:
            if not NAME.fullmatch(tenant):
                raise ModelFileError(f"tenant is {tenant!r}; allowed are {NAMES}")
        if new.family in ENCODERS:
            raise ModelFileError(f"{new.ref}: a {new.family} encoder answers no requests to share; promote it instead")
        slot = slots.get(new.family, Slot())
        if self._named(new.family, slot.active) == new.ref:
            raise ModelFileError(f"{new.ref}: active already; a canary is another version")
        for family, other in slots.items():
            together = family == new.family or any({family, new.family} <= set(chain) for chain in CHAINS.values())
            if other.canary and together and other.canary != new.ref:
                name = other.canary.partition("@")[0]
                raise ModelFileError(
                    f"{new.ref}: {other.canary} is on trial, and of two at once in one answer nobody could say which"
                    f" made the difference; promote that, or end it with `refrain models rollback {name}`"
                )
        slots[new.family] = replace(slot, canary=new.ref, percent=percent, tenants=tuple(dict.fromkeys(tenants)))
        write_slots(path, slots)
        return new

    def promote(self, ref: str) -> Version:
        """Makes `ref` active; what was stays the way back."""
        new = self.find(ref)
        path, slots = self._writable() / STATE, self.slots()
        slot = slots.get(new.family, Slot())
        if self._named(new.family, slot.active) == new.ref:
            raise ModelFileError(f"{new.ref}: active already")
        if slot.canary not in ("", new.ref):
            raise ModelFileError(f"{new.ref}: {slot.canary} is on trial; promote that or roll it back first")
        active = BUILTIN if new.builtin else new.ref
        slots[new.family] = Slot(active, (*slot.before, slot.active)[-KEPT:])
        write_slots(path, slots)
        return new

    def roll_back(self, name: str) -> str:
        """Ends the canary of that name, or else brings back what was active before it. Returns what was done."""
        path, slots = self._writable() / STATE, self.slots()
        for family, slot in slots.items():
            if slot.canary.partition("@")[0] == name:
                slots[family] = replace(slot, canary="", percent=0.0, tenants=())
                write_slots(path, slots)
                return f"{slot.canary} is no longer on trial; {self._named(family, slot.active)} gets all requests"
        for family, slot in slots.items():
            was = self._named(family, slot.active)
            if name == was.partition("@")[0] and slot.before:
                *before, active = slot.before
                slots[family] = replace(slot, active=active, before=tuple(before))
                if active != BUILTIN:
                    self._slotted(family, "before", active)
                write_slots(path, slots)
                return f"{self._named(family, active)} is active again, in place of {was}"
        there = [slot.canary for slot in slots.values() if slot.canary]
        there += [self._named(family, slot.active) for family, slot in slots.items() if slot.before]
        allowed = ", ".join(sorted({ref.partition("@")[0] for ref in there})) or "none"
        raise ModelFileError(
            f"{name}: no canary, and no active model that took another's place, has this name; allowed: {allowed}"
        )

    def _named(self, family: str, ref: str) -> str:
        """NAME@VERSION of a slot's reference, be it there or not: what is broken can be rolled back all the same."""
        if ref != BUILTIN:
            return ref
        version = self.builtins().get(family)
        return version.ref if version else BUILTIN

    def _writable(self) -> Path:
        if self.folder is None:
            raise ModelFileError("engines.models_dir: not set, so there is no registry to change")
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder


def version_in(folder: Path, *, builtin: bool = False) -> Version:
    """What a model folder says it is. Raises `ModelFileError`."""
    manifest = read_manifest(folder)
    if manifest["family"] not in KNOWN:
        raise ModelFileError(f"{folder}: family '{manifest['family']}'; known are {', '.join(KNOWN)}")
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    version = str(manifest.get("version", UNVERSIONED))
    return Version(str(manifest["name"]), version, manifest["family"], folder, digest, builtin)


def _folders(at: Path) -> list[Path]:
    return sorted(path for path in at.iterdir() if path.is_dir() and not path.name.startswith("."))
