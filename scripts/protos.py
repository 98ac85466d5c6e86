"""Generates the Python modules of protos/, or with --check says whether the committed ones have drifted."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").rglob("*.proto"))


def generate(out: Path) -> None:
    """Runs protoc from the root, so that the modules are protos.refrain.v1.*."""
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    status = protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *outputs, *PROTOS])
    if status != 0:
        sys.exit(f"protoc failed with status {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a generated file is stale")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        stale = [
            str(path.relative_to(folder))
            for path in made
            if not (ROOT / path.relative_to(folder)).is_file()
            or (ROOT / path.relative_to(folder)).read_bytes() != path.read_bytes()
        ]
    if stale:
        sys.exit(f"stale, run `make protos`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
