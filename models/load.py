"""Model folders to engines: the shipped ones, or an operator's in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import onnxruntime as ort

from models.engine import Engine
from models.onnx import ModelFileError, read_manifest
from models.recognizer import Recognizer, RecognizerEngine
from models.synthesizer import AcousticModel, SynthesizerEngine
from models.vocoder import Vocoder, VocoderEngine

EMBEDDED = Path(__file__).parent / "embedded"
FAMILIES = ("recognizer", "acoustic", "g2p", "vocoder")


def load_engines(
    models_dir: Path | None, providers: Sequence[str], threads: int, pool: Executor
) -> Mapping[str, Mapping[str, Engine]]:
    """Task name to model name to engine. Raises `ModelFileError` for a folder that is not a sound model folder.

    `models_dir` holds model folders that stand in for the shipped ones of the same family; `providers` as the settings
    say, "auto" being the best that can run here; `threads` within one run; blocking calls go to `pool`.
    """
    folders = model_folders(models_dir)
    wanted = resolve_providers(providers)
    recognizer = Recognizer(folders["recognizer"], providers=wanted, threads=threads)
    vocoder = Vocoder(folders["vocoder"], providers=wanted, threads=threads)
    acoustic = AcousticModel(folders["acoustic"], folders["g2p"], providers=wanted, threads=threads)
    engines: list[tuple[str, Engine]] = [
        ("recognize", RecognizerEngine(recognizer, pool)),
        ("synthesize", SynthesizerEngine(acoustic, vocoder, pool)),
        ("vocode", VocoderEngine(vocoder, pool)),
    ]
    return {task: {engine.info.name: engine} for task, engine in engines}


def model_folders(models_dir: Path | None) -> dict[str, Path]:
    """Family to folder. Raises `ModelFileError` for a family that is not known, or two folders of one family."""
    found = {family: EMBEDDED / family for family in FAMILIES}
    if models_dir is None:
        return found
    if not models_dir.is_dir():
        raise ModelFileError(f"{models_dir}: no such folder")
    seen: dict[str, Path] = {}
    for folder in sorted(path for path in models_dir.iterdir() if path.is_dir()):
        family = read_manifest(folder)["family"]
        if family not in FAMILIES:
            raise ModelFileError(f"{folder}: family '{family}'; known are {', '.join(FAMILIES)}")
        if family in seen:
            raise ModelFileError(f"{folder}: family '{family}' is already that of {seen[family]}")
        seen[family] = folder
    return found | seen


def resolve_providers(providers: Sequence[str]) -> list[str]:
    """Execution providers for a session. onnxruntime offers CUDA wherever its wheel was built with it, so "auto" asks
    the system whether there is a GPU at all; what then really runs is read from the session."""
    if list(providers) != ["auto"]:
        return list(providers)
    gpu = any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/dxg"))
    if gpu and "CUDAExecutionProvider" in ort.get_available_providers():
        ort.preload_dlls()
        return ["CUDAExecutionProvider"]
    return []
