"""What a command line may hold: types for argparse, each of which says what is allowed where it is something else."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path


def real(least: float = 0.0, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """A finite number from `least` to `most`; `above`: more than `least`."""
    told = f"numbers above {least:g}" if above else f"numbers from {least:g}"
    told += f" to {most:g}" if most < math.inf else ""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most) or (above and value == least):
            raise argparse.ArgumentTypeError(f"{text!r}: allowed are {told}")
        return value

    return read


def whole(least: int = 0, most: int | None = None) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""
    told = f"whole numbers from {least}" + (f" to {most}" if most is not None else "")

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text!r}: allowed are {told}")
        return value

    return read


def folder(text: str) -> Path:
    """A folder that is there."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: {'not a folder' if path.exists() else 'there is no such folder'}")
    return path


def old_file(text: str) -> Path:
    """A file that is there."""
    path = Path(text)
    if not path.exists() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: {'a folder' if path.is_dir() else 'there is no such file'}")
    return path


def new_file(text: str) -> Path:
    """A file to be written, in a folder that is there: found out before work whose result would be lost."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: a folder; name a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: there is no folder {str(path.parent)!r}")
    return path


def server(text: str) -> str:
    """Where a gateway listens: HOST:PORT, or another name that gRPC takes, such as unix:PATH."""
    if not text.strip() or text.lower().startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r}: allowed is HOST:PORT, without http://")
    return text
