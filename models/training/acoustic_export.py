"""The trained acoustic model as a model folder, and its voices as the speaker encoder's embeddings.

`export` writes a folder whose voices are axes of the embedding space, each as far from the others as can be. `embed`
then measures what the encoder makes of every voice, and rewrites the folder for it; it needs the folder alone, not the
training run, and has to be run again whenever the encoder changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import soundfile as sf
import torch
from onnx import numpy_helper

from models.onnx import read_manifest
from models.pronounce import PHONES
from models.speaker import SpeakerEncoder
from models.training.acoustic_data import VOICES
from models.training.acoustic_model import MOODS, VOICE_SIZE, Speaking, model_of
from models.training.corpus import read_index
from models.training.export import write_manifest
from models.utterance import Samples

NAMES = ("symbols", "voice", "emotion", "speed")
UTTERANCES, SHORTEST = 60, 1.5
"""How many utterances make a voice's embedding, and the shortest of them in seconds."""


def export(run: Path, folder: Path) -> None:
    """Writes FOLDER/model.onnx, voices.npz and model.toml, and holds the graph against PyTorch.

    Raises AssertionError where mels differ by more than 1e-3.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embeddings = np.eye(len(VOICES), VOICE_SIZE, dtype=np.float32)
    centre, shares = sharing(embeddings)
    model = model_of(torch.load(run / "average.pt", weights_only=True))
    speaking = Speaking(model, torch.from_numpy(centre), torch.from_numpy(shares)).eval()
    inputs = (
        torch.tensor([[0, 61, 6, 25, 31, 0]]),
        torch.from_numpy(embeddings[:1]),
        torch.tensor([MOODS[1].vector]),
        torch.tensor([1.0]),
    )
    torch.onnx.export(
        speaking,
        inputs,
        str(folder / "model.onnx"),
        input_names=list(NAMES),
        output_names=["mel", "frames"],
        dynamic_axes={"symbols": {1: "phones"}, "mel": {2: "frames"}, "frames": {1: "phones"}},
        opset_version=17,
        dynamo=False,
    )
    graph = onnx.load(str(folder / "model.onnx"))
    for output in graph.graph.output:  # one utterance, which the exporter cannot tell
        output.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, str(folder / "model.onnx"))
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    generator, worst = torch.Generator().manual_seed(1), 0.0
    for n in (1, 7, 40, 120):
        for place, mood in enumerate(MOODS):
            symbols = torch.randint(0, 2 * len(PHONES), (1, n), generator=generator)
            voice = torch.from_numpy(embeddings[[place % len(VOICES)]])
            trial = (symbols, voice, torch.tensor([mood.vector]), torch.tensor([0.8 + n / 100]))
            with torch.no_grad():
                mel, frames = speaking(*trial)
            got = session.run(None, {k: v.numpy() for k, v in zip(NAMES, trial, strict=True)})
            assert np.array_equal(got[1], frames.numpy()), "durations differ between ONNX and PyTorch"
            worst = max(worst, float(np.abs(got[0] - mel.numpy()).max(initial=0.0)))
    print(f"{folder / 'model.onnx'}: {(folder / 'model.onnx').stat().st_size} bytes, largest difference {worst:.2e}")
    assert worst < 1e-3, f"ONNX and PyTorch differ by {worst}"
    options = {"voices": list(VOICES), "emotions": [m.name for m in MOODS], "moods": [m.vector for m in MOODS]}
    write_voices(folder, embeddings, {**options, "phones": list(PHONES)})


def sharing(embeddings: Samples) -> tuple[Samples, Samples]:
    """Voices' embeddings [V, 256] -> centre [256], sharing [256, V]: (e - centre) @ sharing + 1 / V gives a voice's own
    share as 1 and the others' as 0, and of all such maps this is the least one. Raises ValueError where no map does.
    """
    exact = embeddings.astype(np.float64)
    centre = exact.mean(axis=0)
    found = np.linalg.pinv(exact - centre)
    count = len(exact)
    off = float(np.abs((exact - centre) @ found + 1 / count - np.eye(count)).max())
    if off > 1e-6:
        raise ValueError(f"embeddings: {count} voices are not independent of each other (off by {off:.1e})")
    return centre.astype(np.float32), found.astype(np.float32)


def write_voices(folder: Path, embeddings: Samples, options: Mapping[str, object]) -> None:
    """voices.npz, an array float32 [256] by the name of each voice, and the manifest that holds its digest."""
    names = [str(name) for name in options["voices"]]  # type: ignore[attr-defined]
    np.savez(folder / "voices.npz", **dict(zip(names, embeddings, strict=True)))  # type: ignore[arg-type]
    digest = hashlib.sha256((folder / "voices.npz").read_bytes()).hexdigest()
    write_manifest(folder, "acoustic", "acoustic", "Apache-2.0", {**options, "voices_sha256": digest})


def embed(folder: Path, corpora: Sequence[Path], encoder_folder: Path | None) -> None:
    """Measures every voice by its teacher's speech and rewrites FOLDER. Raises ValueError for one not in CORPORA."""
    encoder = SpeakerEncoder(encoder_folder) if encoder_folder else SpeakerEncoder()
    options: dict[str, Any] = read_manifest(folder)["options"]
    heard = {str(name): spoken_by(str(name), corpora) for name in options["voices"]}
    single = {name: np.array([encoder.embed(wave) for wave in waves]) for name, waves in heard.items()}
    means = np.array([rows[: len(rows) // 2].mean(axis=0) for rows in single.values()])
    embeddings = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    centre, shares = sharing(embeddings)
    graph = onnx.load(str(folder / "model.onnx"))
    for tensor in graph.graph.initializer:
        if tensor.name in ("centre", "sharing"):
            values = centre if tensor.name == "centre" else shares
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, str(folder / "model.onnx"))
    write_voices(folder, embeddings, {**options, "encoder_sha256": str(encoder.model.manifest["sha256"])})
    tell(list(single), embeddings, [rows[len(rows) // 2 :] for rows in single.values()], centre, shares)


def spoken_by(name: str, corpora: Sequence[Path]) -> list[npt.NDArray[np.float32]]:
    """UTTERANCES of a teacher voice as it is, at 16 kHz."""
    found: list[npt.NDArray[np.float32]] = []
    for corpus in corpora:
        for entry in read_index(corpus / "index.jsonl"):
            plain = entry["pitch"] == entry["stretch"] == 1.0 and float(str(entry["seconds"])) >= SHORTEST
            if plain and str(entry["voice"]).replace("kal16", "kal") == name and len(found) < UTTERANCES:
                found.append(sf.read(corpus / str(entry["path"]), dtype="float32")[0])
    if len(found) < UTTERANCES:
        raise ValueError(
            f"voice {name}: {len(found)} utterances of {SHORTEST} s in the corpora, but {UTTERANCES} are wanted"
        )
    return found


def tell(names: Sequence[str], means: Samples, others: Sequence[Samples], centre: Samples, shares: Samples) -> None:
    """Prints how alike voices are, and which voice single utterances that made no mean are taken for."""
    print("cosine".ljust(12), *(name[:10].rjust(10) for name in names))
    for name, row in zip(names, means @ means.T, strict=True):
        print(name.ljust(12), *(f"{value:10.2f}" for value in row))
    for place, (name, rows) in enumerate(zip(names, others, strict=True)):
        found = np.clip((rows - centre) @ shares + 1 / len(names), 0, 1)
        found /= found.sum(axis=1, keepdims=True)
        nearest = float((np.argmax(rows @ means.T, axis=1) == place).mean())
        print(
            f"{name:<12} one utterance: nearest to its own voice {nearest:.2f}, own share {found[:, place].mean():.2f}"
        )
