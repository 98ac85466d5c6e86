"""`refrain models`: the registry from the keyboard, from a folder that somebody hands over to the way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.cli import main
from models.registry.store import Registry
from tests.models.versions import folder, vocoder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def run(models_dir: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        status = main(["models", *words, "--models-dir", str(models_dir)])
        return status, *capsys.readouterr()

    return call


def serving(models_dir: Path) -> tuple[str, str]:
    slot = Registry(models_dir).serving()["vocoder"]
    return getattr(slot.active, "ref", ""), getattr(slot.canary, "ref", "")


def test_from_a_folder_to_the_active_version_and_back(tmp_path: Path, models_dir: Path, run: Run) -> None:
    before = Registry(None).serving()["vocoder"].active
    assert before is not None
    status, out, _ = run("add", str(folder(tmp_path / "one", "1")))
    assert (status, serving(models_dir)) == (0, (before.ref, ""))
    assert out.startswith(f"tiny@1 is in {models_dir}/tiny/1\nnobody gets it yet")
    assert run("promote", "tiny@1")[0] == 0
    status, out, _ = run("add", str(folder(tmp_path / "two", "2", gain=0.2)), "--canary", "5%")
    assert (status, serving(models_dir)) == (0, ("tiny@1", "tiny@2"))
    assert "tiny@2 gets 5 % of the requests; `refrain models rollback tiny` ends that" in out
    assert run("canary", "tiny@2", "--percent", "10", "--tenant", "acme", "--tenant", "beta")[0] == 0
    rows = {line.split()[0]: line for line in run("list")[1].splitlines()}
    assert "active" in rows["tiny@1"]
    assert "canary, 10 % and acme, beta" in rows["tiny@2"]
    assert "was active" in rows[before.ref]
    assert run("rollback", "tiny")[1] == "tiny@2 is no longer on trial; tiny@1 gets all requests\n"
    assert run("rollback", "tiny")[1] == f"{before.ref} is active again, in place of tiny@1\n"
    assert serving(models_dir) == (before.ref, "")


def test_show_tells_what_a_manifest_may_hold(tmp_path: Path, run: Run) -> None:
    status, out, _ = run("show", str(folder(tmp_path / "one", "1")))
    assert status == 0
    assert "model     tiny@1" in out
    assert 'mel = "float32 [b, 80, t]"' in out
    assert '[files]\n"model.onnx" = "' in out
    told = out[out.index("[files]") : out.index("# option")]
    at = tmp_path / "one" / "model.toml"
    at.write_text(at.read_text() + told)
    assert run("verify", str(at.parent))[1] == "tiny@1: sound\n"


def test_verify_names_all_that_is_off(tmp_path: Path, models_dir: Path, run: Run) -> None:
    for version in ("1", "2"):
        run("add", str(folder(tmp_path / version, version)))
    (models_dir / "tiny" / "1" / "model.onnx").write_bytes(b"")
    status, out, err = run("verify", "tiny")
    assert (status, out) == (1, "tiny@2: sound\n")
    assert err.startswith(f"refrain: {models_dir}/tiny/1/model.onnx: sha256 is ")
    assert run("verify", "tiny@2")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "/nowhere"], "/nowhere/model.toml: missing"),
        (["add", "WRONG"], "model.onnx: input 'mel' is float32 [b, 40, t], but its family needs float32 [1, 80, free]"),
        (["canary", "tiny@1"], "tiny@1: give --percent, --tenant or both"),
        (["canary", "tiny@1", "--percent", "5"], "tiny@1: no such model; there are "),
        (["canary", "SPEAKER", "--percent", "5"], "no such model"),
        (["promote", "tiny"], "tiny: no such model; there are "),
        (["rollback", "tiny"], "tiny: no canary, and no active model"),
        (["show", "tiny"], "tiny: no such model"),
        (["list", "--config", "/nowhere.toml"], "/nowhere.toml: No such file"),
    ],
)
def test_what_fails_is_one_clear_line_and_status_1(words: list[str], said: str, tmp_path: Path, run: Run) -> None:
    wrong = folder(tmp_path / "wrong", data=vocoder(bands=40))
    status, out, err = run(*(word.replace("WRONG", str(wrong)) for word in words))
    assert (status, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("words", [["canary", "a@1", "--percent", "101"], ["add", ".", "--canary", "x"], ["sing"]])
def test_wrong_usage_is_status_2(words: list[str], run: Run) -> None:
    with pytest.raises(SystemExit) as left:
        run(*words)
    assert left.value.code == 2


def test_the_registry_is_in_the_data_folder_unless_the_settings_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFRAIN_DATA_DIR", str(tmp_path / "data"))
    source = str(folder(tmp_path / "one", "1"))
    assert main(["models", "add", source]) == 0
    assert f"tiny@1 is in {tmp_path}/data/models/tiny/1" in capsys.readouterr().out
    config = tmp_path / "refrain.toml"
    (tmp_path / "other").mkdir()
    config.write_text(f'[engines]\nmodels_dir = "{tmp_path}/other"\n')
    assert main(["models", "add", source, "--config", str(config)]) == 0
    assert f"tiny@1 is in {tmp_path}/other/tiny/1" in capsys.readouterr().out
