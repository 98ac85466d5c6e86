"""Model folders to engines: those that the registry says serve, and beside each the one on trial.

Loading again, after the registry has changed, loads only what is new: sessions and engines that still serve are the
same objects, so that what runs in them goes on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from models.engine import Engine
from models.onnx import CUDA, ModelFileError, Providers
from models.recognizer import Recognizer, RecognizerEngine
from models.registry.manifest import check_files
from models.registry.slots import ENCODERS, FAMILIES, KNOWN
from models.registry.store import CHAINS, EMBEDDED, Registry, Serving, Version
from models.registry.verify import told, try_once
from models.synthesizer import AcousticModel, SynthesizerEngine
from models.vocoder import Vocoder, VocoderEngine

if TYPE_CHECKING:
    from models.emotion import EmotionEncoder
    from models.speaker import SpeakerEncoder

__all__ = [
    "EMBEDDED", "ENCODERS", "FAMILIES", "KNOWN", "Canary", "Encoders", "Served", "load_encoders", "load_engines",
    "model_folders", "resolve_providers",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Encoders:
    """What turns example audio into a voice or a mood; None where there is no such model folder."""

    speaker: SpeakerEncoder | None = None
    emotion: EmotionEncoder | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """An engine on trial beside a task's default."""

    engine: Engine
    percent: float
    """Of the requests that name no version."""
    tenants: frozenset[str] = frozenset()
    """Of whom it gets all."""


@dataclass(frozen=True, slots=True)
class Served:
    """The engines that serve."""

    by_task: Mapping[str, Mapping[str, Engine]]
    """Task name to model name to engine; the first is the task's default."""
    versions: Mapping[str, Mapping[str, Engine]] = field(default_factory=dict)
    """Task name to NAME@VERSION of any model in a chain to the engine that has it."""
    canaries: Mapping[str, Canary] = field(default_factory=dict)
    """By task."""
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Engine identity to NAME@VERSION of every model in it, in the order of the work."""
    loaded: Mapping[tuple[object, ...], Any] = field(default_factory=dict, repr=False)
    """What the next loading need not do again."""


def load_engines(
    models_dir: Path | None,
    providers: Sequence[str],
    threads: int,
    pool: Executor,
    trusted_keys: Sequence[Path] = (),
    before: Served | None = None,
) -> Served:
    """The engines of all tasks. Raises `ModelFileError` for a model that is not what it must be.

    `models_dir` is a registry (`models.registry.store`), in which folders may stand in for the shipped models;
    `providers` as the settings say, "auto" being the best that can run here; `threads` within one run; blocking calls
    go to `pool`. What `before` holds is not loaded again. Every model but the shipped ones has its files checked and,
    with `trusted_keys`, must be signed; one from the registry is tried once.
    """
    registry = Registry(models_dir, trusted_keys)
    work = _Loading(registry, resolve_providers(providers), threads, pool, before.loaded if before else {})
    serving = registry.serving()
    actives = {family: _active(serving[family]) for families in CHAINS.values() for family in families}
    with ThreadPoolExecutor(3) as side_by_side:  # a session is made by one thread, and a start waits for all of them
        list(side_by_side.map(work.model, ("vocoder", "acoustic", "recognizer"), itertools.repeat(actives)))
    by_task, versions, canaries, chains = {}, {}, {}, {}
    for task, families in CHAINS.items():
        active = {family: actives[family] for family in families}
        engine = work.engine(task, active)
        by_task[task] = {engine.info.name: engine}
        versions[task] = {version.ref: engine for version in active.values()}
        chains[engine.info.identity] = tuple(version.ref for version in active.values())
        slot = _on_trial(task, [serving[family] for family in families])
        if slot is not None and slot.canary is not None:
            chain = active | {slot.canary.family: slot.canary}
            other = work.engine(task, chain)
            _check_canary(slot.canary, engine, other)
            by_task[task].setdefault(other.info.name, other)
            versions[task][slot.canary.ref] = other
            chains[other.info.identity] = tuple(version.ref for version in chain.values())
            canaries[task] = Canary(other, slot.percent, slot.tenants)
    return Served(by_task, versions, canaries, chains, work.used)


class _Loading:
    """One go at loading: models and engines by what they are made of, taken from `known` where they are there."""

    def __init__(
        self,
        registry: Registry,
        providers: Sequence[str],
        threads: int,
        pool: Executor,
        known: Mapping[tuple[object, ...], Any],
    ) -> None:
        self._registry, self._pool, self._known = registry, pool, known
        self._how: dict[str, Any] = {"providers": providers, "threads": threads}
        self.used: dict[tuple[object, ...], Any] = {}

    def engine(self, task: str, chain: Mapping[str, Version]) -> Engine:
        engine: Engine
        if task == "recognize":
            recognizer = self.model("recognizer", chain)
            engine = self._once((task, recognizer), lambda: RecognizerEngine(recognizer, self._pool))
            return engine
        vocoder = self.model("vocoder", chain)
        if task == "vocode":
            engine = self._once((task, vocoder), lambda: VocoderEngine(vocoder, self._pool))
            return engine
        acoustic = self.model("acoustic", chain)
        engine = self._once((task, acoustic, vocoder), lambda: SynthesizerEngine(acoustic, vocoder, self._pool))
        return engine

    def model(self, family: str, chain: Mapping[str, Version]) -> Any:
        """That model of a chain. Different ones may be asked for side by side."""
        if family == "recognizer":
            return self._model(lambda at: Recognizer(at, **self._how), chain[family])
        if family == "vocoder":
            return self._model(lambda at: Vocoder(at, **self._how), chain[family])
        g2p = chain["g2p"]
        return self._model(lambda at: AcousticModel(at, g2p.folder, **self._how), chain[family], g2p)

    def _model(self, make: Callable[[Path], Any], version: Version, *parts: Version) -> Any:
        """The model object of a version, checked and, unless it is built in, tried."""

        def checked() -> Any:
            for one in (version, *parts):
                if not one.shipped:
                    check_files(one.folder, self._registry.trusted_keys)
            model = told(version, lambda: make(version.folder))
            if not all(one.builtin for one in (version, *parts)):
                try_once(version, model)
            return model

        return self._once((version.family, version, *parts), checked)

    def _once(self, key: tuple[object, ...], make: Callable[[], Any]) -> Any:
        if key not in self.used:
            self.used[key] = self._known[key] if key in self._known else make()
        return self.used[key]


def _active(slot: Serving) -> Version:
    assert slot.active is not None, "the families of engines are all shipped"
    return slot.active


def _on_trial(task: str, slots: Sequence[Serving]) -> Serving | None:
    trials = [slot for slot in slots if slot.canary is not None]
    if len(trials) > 1:
        refs = " and ".join(slot.canary.ref for slot in trials if slot.canary is not None)
        raise ModelFileError(
            f"{task}: {refs} are on trial at once; allowed is one, or nobody could tell which did what"
        )
    return trials[0] if trials else None


def _check_canary(canary: Version, active: Engine, other: Engine) -> None:
    """A request does not choose who answers it, so whatever it may ask of the one it may ask of the other."""
    for field_name in ("voices", "emotions"):
        lacking = set(getattr(active.info, field_name)) - set(getattr(other.info, field_name))
        if lacking:
            raise ModelFileError(
                f"{canary.folder}: lacks the {field_name} {', '.join(sorted(lacking))} of the active model, so it"
                " cannot share its requests; promote it instead"
            )


def load_encoders(
    models_dir: Path | None, providers: Sequence[str], threads: int, trusted_keys: Sequence[Path] = ()
) -> Encoders:
    """The encoders whose folders are there; arguments and errors as those of `load_engines`."""
    serving = Registry(models_dir, trusted_keys).serving()
    how: dict[str, Any] = {"providers": resolve_providers(providers), "threads": threads}

    def encoder(family: str, make: Callable[..., Any]) -> Any:
        version = serving[family].active
        if version is None:
            return None
        if not version.shipped:
            check_files(version.folder, trusted_keys)
        model = told(version, lambda: make(version.folder, **how))
        if not version.builtin:
            try_once(version, model)
        return model

    return Encoders(encoder("speaker", _speaker), encoder("emotion", _emotion))


def _speaker(folder: Path, **how: Any) -> SpeakerEncoder:
    from models.speaker import SpeakerEncoder  # imported here: a gateway without one need not wait for it

    return SpeakerEncoder(folder, **how)


def _emotion(folder: Path, **how: Any) -> EmotionEncoder:
    from models.emotion import EmotionEncoder

    return EmotionEncoder(folder, **how)


def model_folders(models_dir: Path | None) -> dict[str, Path]:
    """Family to the folder of the model that serves it. Raises `ModelFileError`."""
    serving = Registry(models_dir).serving()
    return {family: slot.active.folder for family, slot in serving.items() if slot.active is not None}


def resolve_providers(providers: Sequence[str]) -> Providers:
    """Execution providers for a session. onnxruntime offers CUDA wherever its wheel was built with it, so "auto" asks
    the system whether there is a GPU at all; what then really runs is read from the session."""
    strict = getattr(providers, "strict", False)
    gpu = any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/dxg"))
    gpu = gpu and CUDA in ort.get_available_providers()
    if gpu and {CUDA, "auto"} & set(providers):
        ort.preload_dlls()
    if list(providers) != ["auto"]:
        return Providers(providers, strict=strict)
    return Providers([CUDA] if gpu else [], strict=strict)
