"""The shipped models answer every task, an operator's stand in their place, and a folder that is unsound is named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import onnxruntime as ort
import pytest

from models.engine import Engine
from models.load import EMBEDDED, ENCODERS, FAMILIES, load_engines, model_folders, resolve_providers
from models.onnx import ModelFileError, read_manifest

Engines = Mapping[str, Mapping[str, Engine]]
CPU = ("CPUExecutionProvider",)


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def shipped(pool: Executor) -> Engines:
    return load_engines(None, CPU, 1, pool).by_task


def manifest_only(models_dir: Path, name: str, family: str) -> Path:
    folder = models_dir / name
    folder.mkdir()
    fields = {"name": name, "family": family, "licence": "MIT", "sha256": "00"}
    (folder / "model.toml").write_text("\n".join(f'{key} = "{value}"' for key, value in fields.items()))
    return folder


def test_the_shipped_models_answer_every_task(shipped: Engines) -> None:
    families = {"recognize": "recognizer", "synthesize": "synthesizer", "vocode": "vocoder"}
    assert set(shipped) == set(families)
    for task, engines in shipped.items():
        ((name, engine),) = engines.items()
        assert (engine.info.name, engine.info.family) == (name, families[task])
        assert engine.info.provider == "CPUExecutionProvider"
        assert engine.info.licence
        assert engine.info.sample_rate > 0
        assert len(bytes.fromhex(engine.info.identity)) == 32
    speaker = next(iter(shipped["synthesize"].values()))
    assert speaker.info.voices
    assert speaker.info.emotions
    assert len({engine.info.identity for engines in shipped.values() for engine in engines.values()}) == 3


@pytest.mark.parametrize("family", model_folders(None))
def test_every_shipped_folder_is_of_its_family(family: str) -> None:
    assert read_manifest(EMBEDDED / family)["family"] == family


def test_an_operators_model_stands_in_the_place_of_the_shipped_one(
    shipped: Engines, pool: Executor, tmp_path: Path
) -> None:
    """The shipped vocoder with another option: another identity for every answer that it has a part in."""
    own = tmp_path / "my vocoder"
    shutil.copytree(EMBEDDED / "vocoder", own)
    text = (own / "model.toml").read_text()
    (own / "model.toml").write_text(text.replace(read_manifest(own)["name"], "mine") + "\nremark = 1\n")
    loaded = load_engines(tmp_path, CPU, 1, pool).by_task
    assert list(loaded["vocode"]) == ["mine"]
    for task, same in (("recognize", True), ("vocode", False), ("synthesize", False)):
        (before,), (now,) = shipped[task].values(), loaded[task].values()
        assert (before.info.identity == now.info.identity) == same, task


def test_folders_are_found_by_family_whatever_they_are_called(tmp_path: Path) -> None:
    one = manifest_only(tmp_path, "zebra", "vocoder")
    (tmp_path / "notes.txt").write_text("not a folder")
    folders = model_folders(tmp_path)
    assert folders == {**model_folders(None), "vocoder": one}
    assert set(FAMILIES) <= set(folders) <= {*FAMILIES, *ENCODERS}
    assert model_folders(None)["vocoder"] == EMBEDDED / "vocoder"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="nowhere: no such folder"):
        model_folders(tmp_path / "nowhere")


def test_a_family_that_is_not_known_is_named_with_those_that_are(tmp_path: Path) -> None:
    manifest_only(tmp_path, "odd", "translator")
    with pytest.raises(ModelFileError, match="odd: family 'translator'; known are recognizer, acoustic, g2p, vocoder"):
        model_folders(tmp_path)


def test_two_folders_of_one_family_are_both_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        manifest_only(tmp_path, name, "vocoder")
    with pytest.raises(ModelFileError, match=r"/b: family 'vocoder' is already that of .*/a"):
        model_folders(tmp_path)


def test_a_folder_that_is_no_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match="empty"):
        model_folders(tmp_path)


def test_providers_are_as_the_settings_say() -> None:
    wanted = ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    assert list(resolve_providers(wanted)) == wanted
    assert set(resolve_providers(["auto"])) <= set(ort.get_available_providers())


@pytest.mark.skipif(Path("/dev/nvidia0").exists() or Path("/dev/dxg").exists(), reason="this machine has a GPU")
def test_without_a_gpu_auto_asks_for_none_even_if_onnxruntime_was_built_for_one() -> None:
    assert list(resolve_providers(["auto"])) == []
