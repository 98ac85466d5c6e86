"""What measured figures depend on: cores, Python and the packages on the path. No names of machines."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any


def machine() -> dict[str, Any]:
    """What the figures depend on: cores, Python, and the packages on the path."""
    packages = ("grpcio", "onnxruntime", "onnxruntime-gpu", "protobuf", "numpy", "redis")
    versions = {}
    for name in packages:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": versions,
    }
