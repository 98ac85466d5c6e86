"""The registry: what is sound is taken in and found, what is off is refused by name, every step has a way back."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as elliptic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from models.load import Served, load_engines, model_folders
from models.onnx import ModelFileError, OnnxModel
from models.registry.graph import NEEDS, Graph, graph_of, mismatch
from models.registry.manifest import check_files
from models.registry.slots import BUILTIN, FAMILIES
from models.registry.store import EMBEDDED, Registry, version_in
from models.registry.verify import verify
from models.vocoder import Vocoder
from tests.models.versions import DOUBLE, folder, vocoder

CPU = ("CPUExecutionProvider",)
GRAPH = {
    "signature.inputs": {
        "mel": "float32 [b, 80, t]", "phase": "float64 [b]", "anchor": "int64 [1]", "position": "int64 [1]",
    },
    "signature.outputs": {"wave": "float32 [b, n]", "phases": "float64 [b, t]"},
}  # fmt: skip
SHIPPED = version_in(EMBEDDED / "vocoder").ref


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """tiny 1 and 2, of which nobody is served yet."""
    made = Registry(tmp_path / "models")
    for version, gain in (("1", 0.1), ("2", 0.2)):
        made.add(folder(tmp_path / "source" / version, version, gain=gain))
    return made


def key_pair(at: Path) -> tuple[Ed25519PrivateKey, Path]:
    private = Ed25519PrivateKey.generate()
    at.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, at


def seal(at: Path, key: Ed25519PrivateKey) -> Path:
    (at / "model.toml.sig").write_bytes(key.sign((at / "model.toml").read_bytes()))
    return at


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------------------- files, signature


def test_a_sound_folder_is_sound(tmp_path: Path) -> None:
    at = folder(tmp_path / "m", signature=GRAPH, files={"model.onnx": digest(vocoder())})
    assert check_files(at)["version"] == "1"
    assert verify(version_in(at)) == Graph(GRAPH["signature.inputs"], GRAPH["signature.outputs"])


@pytest.mark.parametrize("table", [False, True])
def test_a_file_whose_digest_is_off_is_refused(tmp_path: Path, table: bool) -> None:
    at = folder(tmp_path / "m", files={"model.onnx": digest(vocoder())} if table else None)
    (at / "model.onnx").write_bytes(vocoder(0.7))
    found = digest(vocoder(0.7))
    for check in (check_files, OnnxModel):
        with pytest.raises(ModelFileError, match=f"model.onnx: sha256 is {found}, but model.toml says"):
            check(at)


def test_files_that_the_manifest_names_otherwise_are_refused(tmp_path: Path) -> None:
    onnx = {"model.onnx": digest(vocoder())}
    at = folder(tmp_path / "extra", files=onnx)
    (at / "words.txt").write_text("one")
    with pytest.raises(ModelFileError, match=r"extra/words\.txt: not among the files that model\.toml names"):
        check_files(at)
    at = folder(tmp_path / "missing", files={**onnx, "words.txt": digest(b"one")})
    with pytest.raises(ModelFileError, match=r"missing/words\.txt: missing; model\.toml names it"):
        check_files(at)
    (at / "words.txt").write_text("two")
    with pytest.raises(ModelFileError, match=r"missing/words\.txt: sha256 is [0-9a-f]{64}, but model\.toml says"):
        check_files(at)
    (at / "words.txt").write_text("one")
    check_files(at)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"version": "1/2"}, "version is '1/2'; allowed are 1 to 64 letters"),
        ({"name": "a@b"}, "name is 'a@b'; allowed are 1 to 64 letters"),
        ({"version": 2}, "version is 2; allowed are"),
        ({"files": {"model.onnx": "abc"}}, "model.onnx is 'abc'; allowed are 64 lower-case hex digits"),
        ({"files": {"model.onnx": "0" * 64}}, "but files says 0000"),
        ({"sha256": "XY"}, "sha256 is 'XY'; allowed are 64 lower-case hex digits"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    version, name = parts.pop("version", "1"), parts.pop("name", "tiny")
    with pytest.raises(ModelFileError, match=said):
        check_files(folder(tmp_path / "m", version, name=name, **parts))


def test_with_trusted_keys_only_what_one_of_them_signed_is_loaded(tmp_path: Path) -> None:
    ours, key = key_pair(tmp_path / "ours.pem")
    theirs, other = key_pair(tmp_path / "theirs.pem")
    at = folder(tmp_path / "m", files={"model.onnx": digest(vocoder())})
    with pytest.raises(ModelFileError, match=r"model\.toml\.sig: missing; engines\.trusted_keys is set"):
        check_files(at, [key])
    seal(at, theirs)
    with pytest.raises(ModelFileError, match=r"not a signature of model\.toml by any key of engines\.trusted_keys"):
        check_files(at, [key])
    check_files(at, [key, other])
    seal(at, ours)
    check_files(at, [key])
    text = (at / "model.toml").read_text()
    (at / "model.toml").write_text(text.replace("MIT", "BSD"))
    with pytest.raises(ModelFileError, match="not a signature"):
        check_files(at, [key])


def test_a_signature_must_speak_for_all_files(tmp_path: Path) -> None:
    ours, key = key_pair(tmp_path / "ours.pem")
    with pytest.raises(ModelFileError, match="table 'files' is missing"):
        check_files(seal(folder(tmp_path / "m"), ours), [key])


def test_a_key_that_is_none_is_named(tmp_path: Path) -> None:
    at = folder(tmp_path / "m")
    (at / "model.toml.sig").write_bytes(b"")
    wrong = tmp_path / "wrong.pem"
    for data, said in (
        (None, "No such file"),
        (b"hello", "not a public key in PEM"),
        (
            elliptic(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "allowed is an Ed25519 public key",
        ),
    ):
        if data is not None:
            wrong.write_bytes(data)
        with pytest.raises(ModelFileError, match=f"engines.trusted_keys: .*wrong.pem: .*{said}"):
            check_files(at, [wrong])


# ------------------------------------------------------------------------------------------------------- the graph


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (vocoder(mel="spectrogram"), "inputs are spectrogram: .*, but its family needs mel: float32"),
        (vocoder(bands=40), r"input 'mel' is float32 \[b, 40, t\], but its family needs float32 \[1, 80, free\]"),
        (vocoder(kind=DOUBLE), r"input 'mel' is float64 \[b, 80, t\], but its family needs float32"),
    ],
)
def test_a_graph_that_its_family_cannot_run_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(ModelFileError, match=f"model.onnx: {said}"):
        verify(version_in(folder(tmp_path / "m", data=data)))


def test_a_graph_other_than_the_manifest_states_is_refused(tmp_path: Path) -> None:
    stated = {**GRAPH, "signature.outputs": {"wave": "float32 [b, n]"}}
    with pytest.raises(ModelFileError, match=r"signature\.outputs in model\.toml is wave: .*, but the graph has wave"):
        OnnxModel(folder(tmp_path / "m", signature=stated))
    with pytest.raises(ModelFileError, match="must be the tables"):
        OnnxModel(folder(tmp_path / "n", signature={"signature": {"inputs": 1}}))


def test_what_must_be_free_must_not_be_fixed() -> None:
    need = NEEDS["g2p"]
    manifest = {"family": "g2p"}
    assert mismatch(manifest, Graph({"letters": "int64 [a, b]"}, {"x": "float32 [a, b, c]"})) is None
    fixed = mismatch(manifest, Graph({"letters": "int64 [1, 12]"}, need.outputs))
    assert fixed == "input 'letters' is int64 [1, 12], but its family needs int64 [1, free]"
    assert mismatch(manifest, Graph(need.inputs, {"scores": "float32 [1, t, 40]"})) is not None
    assert mismatch(manifest, Graph(need.inputs, {})) is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shipped_graphs_are_what_their_families_need(family: str) -> None:
    model = OnnxModel(EMBEDDED / family)
    graph = graph_of(model.session)
    assert mismatch(model.manifest, graph) is None
    assert family in NEEDS


def test_a_model_that_does_not_run_is_refused(tmp_path: Path) -> None:
    """Its graph is right by all appearances; its answers are not."""
    with pytest.raises(ModelFileError, match="not finite"):
        verify(version_in(folder(tmp_path / "m", gain=float("nan"))))
    at = folder(tmp_path / "n")
    (at / "model.toml").write_text((at / "model.toml").read_text().replace("context", "contexts"))
    with pytest.raises(ModelFileError, match="not a vocoder: KeyError"):
        verify(version_in(at))


def test_the_identity_counts_every_file_that_can_change_an_answer(tmp_path: Path) -> None:
    def identity(place: str, change: Callable[[Path], object] = lambda at: None, **parts: Any) -> str:
        at = folder(tmp_path / place, **parts)
        change(at)
        return OnnxModel(at).identity

    plain = identity("plain")
    words = digest(b"one")
    assert plain == identity("card", lambda at: (at / "card.md").write_text("good"))
    assert plain == identity("version", version="2", name="other", licence="BSD")
    one = identity("one", lambda at: (at / "words.txt").write_text("one"))
    two = identity("two", lambda at: (at / "words.txt").write_text("two"))
    assert len({plain, one, two, identity("weights", gain=0.6), identity("options", context=1)}) == 5
    told = {"version": "1", "signature": {"options.words": {"words_sha256": words}}}
    named = [identity("n", **told), identity("m", lambda at: (at / "words.txt").write_text("one"), **told)]
    assert named[0] == named[1], "a file whose digest the options hold is counted once"


# ------------------------------------------------------------------------------------------------------ the registry


def test_what_is_added_is_there_and_serves_nobody(registry: Registry) -> None:
    versions, wrong = registry.versions()
    assert [version.ref for version in versions if not version.builtin] == ["tiny@1", "tiny@2"]
    assert wrong == []
    assert registry.folder is not None
    assert sorted(path.name for path in (registry.folder / "tiny").iterdir()) == ["1", "2"]
    assert registry.serving()["vocoder"].active == registry.find(SHIPPED)
    assert registry.find("tiny@1").folder == registry.folder / "tiny" / "1"


def test_what_must_not_be_added_is_not(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"tiny@1 is there already .* a version never changes"):
        registry.add(folder(tmp_path / "again", "1", gain=0.9))
    with pytest.raises(ModelFileError, match="field 'version' is missing"):
        registry.add(folder(tmp_path / "none", None))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match=r"name 'g2p' is taken by a g2p"):
        registry.add(folder(tmp_path / "g2p", name="g2p"))
    off = folder(tmp_path / "off", "3")
    (off / "model.onnx").write_bytes(b"")
    with pytest.raises(ModelFileError, match="sha256 is"):
        registry.add(off)
    with pytest.raises(ModelFileError, match=r"nowhere/model\.toml: missing"):
        registry.add(tmp_path / "nowhere")
    assert registry.folder is not None
    assert sorted(path.name for path in (registry.folder / "tiny").iterdir()) == ["1", "2"], "nothing half-way"


def test_one_is_on_trial_promoted_and_rolled_back(registry: Registry) -> None:
    def vocoders() -> tuple[str, str]:
        serving = registry.serving()["vocoder"]
        return getattr(serving.active, "ref", ""), getattr(serving.canary, "ref", "")

    registry.promote("tiny@1")
    assert vocoders() == ("tiny@1", "")
    registry.try_out("tiny@2", 5, ["acme", "acme"])
    assert vocoders() == ("tiny@1", "tiny@2")
    slot = registry.slots()["vocoder"]
    assert (slot.percent, slot.tenants, slot.before) == (5.0, ("acme",), (BUILTIN,))
    assert "tiny@2 is no longer on trial; tiny@1 gets all" in registry.roll_back("tiny")
    assert vocoders() == ("tiny@1", "")
    registry.try_out("tiny@2", 5, [])
    registry.promote("tiny@2")
    assert vocoders() == ("tiny@2", "")
    assert registry.roll_back("tiny") == "tiny@1 is active again, in place of tiny@2"
    assert registry.roll_back("tiny") == f"{SHIPPED} is active again, in place of tiny@1"
    assert vocoders() == (SHIPPED, "")
    with pytest.raises(ModelFileError, match="tiny: no canary, and no active model"):
        registry.roll_back("tiny")


def test_what_is_broken_can_be_rolled_back_but_not_to_what_is_broken(registry: Registry) -> None:
    registry.promote("tiny@1")
    registry.promote("tiny@2")
    registry.try_out("tiny@1", 1, [])
    for version in ("1", "2"):
        (registry.find(f"tiny@{version}").folder / "model.toml").unlink()
    assert registry.roll_back("tiny").startswith("tiny@1 is no longer on trial")
    with pytest.raises(ModelFileError, match=r"vocoder\.before = 'tiny@1': there is no .*tiny/1/model\.toml"):
        registry.roll_back("tiny")
    with pytest.raises(ModelFileError, match="has this name; allowed: tiny"):
        registry.roll_back("acoustic")


def test_the_shipped_model_can_be_promoted_again_and_be_on_trial(registry: Registry) -> None:
    registry.promote("tiny@1")
    registry.try_out(SHIPPED, 10, [])
    assert getattr(registry.serving()["vocoder"].canary, "builtin", False)
    registry.promote(SHIPPED)
    assert registry.slots()["vocoder"].active == BUILTIN


def test_trials_that_tell_nothing_are_refused(registry: Registry) -> None:
    with pytest.raises(ModelFileError, match="percent is 101; allowed are 0 to 100"):
        registry.try_out("tiny@1", 101, [])
    with pytest.raises(ModelFileError, match="tenant is 'a b'; allowed are"):
        registry.try_out("tiny@1", 1, ["a b"])
    with pytest.raises(ModelFileError, match=r"tiny@9: no such model; there are .*tiny@1, tiny@2"):
        registry.try_out("tiny@9", 1, [])
    with pytest.raises(ModelFileError, match=r"tiny: several versions; there are tiny@1, tiny@2"):
        registry.promote("tiny")
    registry.try_out("tiny@1", 1, [])
    for ref, step in (("tiny@2", lambda ref: registry.try_out(ref, 1, [])), ("tiny@2", registry.promote)):
        with pytest.raises(ModelFileError, match="tiny@1 is on trial"):
            step(ref)
    registry.promote("tiny@1")
    for step in (lambda ref: registry.try_out(ref, 1, []), registry.promote):
        with pytest.raises(ModelFileError, match="tiny@1: active already"):
            step("tiny@1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[vocoder", "not TOML"),
        ("[translator]\n", r"\[translator\]: no such family; known are recognizer, acoustic"),
        ("[vocoder]\nactiv = 'a@1'", "vocoder.activ: no such key; allowed here: active, before"),
        ("[vocoder]\nactive = 'tiny'", "vocoder.active = 'tiny': allowed is NAME@VERSION"),
        ("[vocoder]\nactive = '../x@1'", "vocoder.active = '../x@1': allowed is NAME@VERSION"),
        ("[vocoder]\ncanary = 'builtin'", "vocoder.canary = 'builtin': allowed is NAME@VERSION"),
        ("[vocoder]\npercent = 101", "vocoder.percent = 101: allowed are 0 to 100"),
        ("[vocoder]\ntenants = 'acme'", "vocoder.tenants = 'acme': allowed is a list of texts"),
        ("[vocoder]\nactive = 'tiny@9'", "vocoder.active = 'tiny@9': there is no .*tiny/9/model.toml"),
        ("[g2p]\nactive = 'tiny@1'", "g2p.active = 'tiny@1': its family is 'vocoder'"),
    ],
)
def test_a_registry_file_that_makes_no_sense_is_refused(registry: Registry, text: str, said: str) -> None:
    assert registry.folder is not None
    (registry.folder / "registry.toml").write_text(text)
    with pytest.raises(ModelFileError, match=rf"registry\.toml: {said}"):
        registry.serving()


def test_a_version_must_lie_where_its_name_says(registry: Registry) -> None:
    assert registry.folder is not None
    (registry.folder / "tiny" / "2").rename(registry.folder / "tiny" / "3")
    _, wrong = registry.versions()
    assert len(wrong) == 1
    assert "is tiny@2, so it must lie in tiny/2" in wrong[0]
    assert model_folders(registry.folder)["vocoder"] == EMBEDDED / "vocoder", "what does not serve does no harm"


# ------------------------------------------------------------------------------------------------------------ loading


def load(registry: Registry, pool: Executor, before: Served | None = None) -> Served:
    return load_engines(registry.folder, CPU, 1, pool, registry.trusted_keys, before)


def test_a_canary_serves_beside_the_active_one_in_every_task_it_is_part_of(registry: Registry, pool: Executor) -> None:
    registry.promote("tiny@1")
    registry.try_out("tiny@2", 20, ["acme"])
    served = load(registry, pool)
    assert set(served.canaries) == {"vocode", "synthesize"}
    canary = served.canaries["vocode"]
    assert (canary.percent, canary.tenants) == (20.0, {"acme"})
    active = served.by_task["vocode"]["tiny"]
    assert served.versions["vocode"] == {"tiny@1": active, "tiny@2": canary.engine}
    assert served.chains[canary.engine.info.identity] == ("tiny@2",)
    speaking = served.canaries["synthesize"].engine
    assert served.chains[speaking.info.identity][-1] == "tiny@2"
    assert served.versions["synthesize"]["tiny@2"] is speaking
    identities = {engine.info.identity for engine in (active, canary.engine, speaking)}
    assert len(identities) == 3


def test_loading_again_loads_what_is_new_and_lets_go_of_what_is_not_needed(registry: Registry, pool: Executor) -> None:
    registry.promote("tiny@1")
    first = load(registry, pool)
    old = weakref.ref(first.by_task["vocode"]["tiny"])
    registry.promote("tiny@2")
    second = load(registry, pool, first)
    assert second.by_task["recognize"] == first.by_task["recognize"]
    assert second.by_task["vocode"]["tiny"] is not old()
    del first
    assert old() is None
    assert load(registry, pool, second).by_task == second.by_task


def test_a_serving_version_that_is_off_is_refused(registry: Registry, pool: Executor) -> None:
    registry.promote("tiny@1")
    version = registry.find("tiny@1")
    (version.folder / "model.onnx").write_bytes(vocoder(0.9))
    with pytest.raises(ModelFileError, match=r"models/tiny/1/model\.onnx: sha256 is"):
        load(registry, pool)


def test_with_trusted_keys_stand_ins_must_be_signed_and_shipped_models_need_not(tmp_path: Path, pool: Executor) -> None:
    ours, key = key_pair(tmp_path / "ours.pem")
    registry = Registry(tmp_path / "models", [key])
    assert registry.folder is not None
    registry.folder.mkdir()
    load(registry, pool)
    at = folder(registry.folder / "mine", files={"model.onnx": digest(vocoder())})
    with pytest.raises(ModelFileError, match=r"mine/model\.toml\.sig: missing"):
        load(registry, pool)
    seal(at, ours)
    assert list(load(registry, pool).by_task["vocode"]) == ["tiny"]


def test_a_canary_in_a_synthesizer_must_have_its_voices(tmp_path: Path, pool: Executor) -> None:
    """The shipped acoustic model with a voice less."""
    shipped = EMBEDDED / "acoustic"
    text = (shipped / "model.toml").read_text()
    voices = OnnxModel(shipped).options["voices"]
    source = tmp_path / "source"
    source.mkdir()
    for path in shipped.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    changed = text.replace(f', "{voices[-1]}"', "", 1).replace("licence", 'version = "9"\nlicence', 1)
    (source / "model.toml").write_text(changed)
    registry = Registry(tmp_path / "models")
    new = registry.add(source)
    registry.try_out(new.ref, 1, [])
    with pytest.raises(ModelFileError, match=f"lacks the voices {voices[-1]} of the active model"):
        load(registry, pool)


def test_what_a_vocoder_of_the_registry_says_is_its_own(registry: Registry) -> None:
    mel = np.full((80, 4), -2.0, np.float32)
    loud = [float(Vocoder(registry.find(ref).folder).wave(mel)[0]) for ref in ("tiny@1", "tiny@2")]
    assert loud == pytest.approx([-0.2, -0.4])
