"""Classifiers by a word: a file of Python and a name in it, a module and a name, a checkpoint of
``transformers``, an entry point.

=========================  ====================================================================
``yamnet.py:load``         ``load`` of the file ``yamnet.py``
``package.module:name``    ``name`` of an importable module
``hf:folder``              the audio classifier in ``folder``, see `l2i.models.hugging_face`
``model.ts``               TorchScript (``.ts``, ``.pt``, ``.jit``), with ``model.json`` beside it,
                           which holds what `l2i.models.wrapped.wrap` is told: ``sample_rate``,
                           ``classes``, ``task``, ``window_s``, ...
``name``                   of the entry points ``l2i.classifiers`` of installed packages
=========================  ====================================================================

What Python names is a classifier, as `l2i.models.wrapped.wrap` makes it, or a function without
arguments that returns one. The file's code is run: name only files that you trust.

Over 300 lines: words to classifiers and back: who keeps one must reopen it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l2i.errors import CheckpointError, DataError, L2IError, UsageError
from l2i.models.wrapped import wrap
from l2i.registry import CLASSIFIERS, call, did_you_mean, load_object, source_digest
from l2i.storage import write_json
from l2i.types import Classifier

_ABOUT, _KEPT = "classifier.json", "classifier"
_CHECKPOINT = "hf:"
_SCRIPTS = (".ts", ".pt", ".jit")
_TOLD = (
    *("sample_rate", "classes", "task", "window_s", "hop_s", "pool", "pool_on", "outputs"),
    *("output", "threshold", "model_rate"),
)


def load_classifier(spec: str) -> Classifier:
    """The classifier that a word names; see the module.

    Raises
    ------
    UsageError
        The word names nothing, or something that is no classifier.
    DataError
        The file is not there, or its code fails.
    """
    if spec.startswith(_CHECKPOINT):
        from l2i.models.hugging_face import from_transformers

        return from_transformers(Path(spec.removeprefix(_CHECKPOINT)))
    if spec.endswith(_SCRIPTS):
        return _script(Path(spec).expanduser())
    spec = CLASSIFIERS.where(spec)
    if not all(spec.rpartition(":")[::2]):
        raise UsageError(f"{spec!r} names no classifier: give {CLASSIFIERS.forms}.")
    classifier = load_object(spec)
    if not isinstance(classifier, Classifier) and callable(classifier):
        classifier = call(spec, classifier)
    if not isinstance(classifier, Classifier):
        what = "nothing" if classifier is None else f"of type {type(classifier).__name__}"
        raise UsageError(
            f"{spec} is {what}, and no classifier: let it return what l2i.wrap(...) gives."
        )
    return classifier


def _script(path: Path) -> Classifier:
    """A TorchScript file, as the JSON beside it tells."""
    about = path.with_suffix(".json")
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        told = json.loads(about.read_text(encoding="utf-8"))
    except OSError:
        raise UsageError(
            f"{path} does not say its rate and its classes: put them beside it into {about.name}, "
            '{"sample_rate": 16000, "classes": ["cat", "dog"], "task": "single-label"} say.'
        ) from None
    except ValueError as error:
        raise DataError(f"{about} is no JSON: {error}.") from None
    if not isinstance(told, dict) or "sample_rate" not in told:
        raise DataError(f"{about} does not say the sample_rate.")
    if unknown := [key for key in told if key not in _TOLD]:
        hint = did_you_mean(unknown[0], _TOLD, f"; it may have: {', '.join(_TOLD)}.")
        raise DataError(f"{about} has {unknown[0]!r}{hint}")
    try:
        model = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError, OSError):
        raise DataError(
            f"{path} is no TorchScript file: save a module by torch.jit.script(model).save(...), "
            "or name a file of Python, FILE.py:NAME."
        ) from None
    return wrap(model, **told)


@dataclass(frozen=True)
class Loaded:
    """A classifier, and how it came about.

    Attributes
    ----------
    classifier : Classifier
    spec : str
        The word that named it; of an entry point the ``MODULE:NAME`` behind it.
    digest : str
        Covers its code, the files that it keeps, and its weights if they can be seen: another
        classifier by the same word has another one.
    """

    classifier: Classifier
    spec: str
    digest: str

    @property
    def word(self) -> str:
        """What a run is called after: the file, the module or the checkpoint."""
        head, colon, tail = self.spec.rpartition(":")
        path = Path(tail if head == "hf" or not colon else head)
        return re.sub(r"[^\w.-]+", "_", path.name if head == "hf" else path.stem)[-40:]


def open_classifier(spec: str) -> Loaded:
    """Load a classifier, and find out what identifies it; as `load_classifier`."""
    classifier = load_classifier(spec)
    if not spec.endswith(_SCRIPTS):
        spec = CLASSIFIERS.where(spec)
    words = hashlib.sha256(repr(classifier.classes).encode())
    base, files = _sources(spec)
    for path in files:
        words.update(path.relative_to(base).as_posix().encode() + path.read_bytes())
    if not files or ".py:" in spec:
        words.update(source_digest(spec).encode())
    model = getattr(classifier, "model", None)
    if isinstance(model, nn.Module):
        for name, tensor in sorted(model.state_dict().items()):
            words.update(name.encode())
            if isinstance(tensor, Tensor):
                plain = tensor.detach().cpu().contiguous()
                words.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return Loaded(classifier, spec, words.hexdigest()[:20])


def keep_classifier(loaded: Loaded, folder: Path) -> None:
    """Write what `reopen_classifier` needs into a folder.

    ``classifier.json`` says how it is loaded. The file of Python, the checkpoint of transformers
    or the TorchScript goes along, and so do the files that the Python's variable ``KEEP`` names,
    relative to it; of an installed module its package is required.
    """
    spec = loaded.spec
    # What an attempt that was stopped has left.
    shutil.rmtree(folder / _KEPT, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    base, files = _sources(spec)
    for path in files:
        target = folder / _KEPT / path.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if spec.startswith(_CHECKPOINT):
        spec = f"{_CHECKPOINT}{_KEPT}"
    elif files:
        spec = f"{_KEPT}/{Path(spec).name}"
        if ".py:" in spec:
            _try_kept(files[0], files[1:], folder / spec)
    about = {
        "spec": spec,
        "digest": loaded.digest,
        "requirements": _requirements(loaded.spec),
        "sample_rate": loaded.classifier.sample_rate,
        "task": str(loaded.classifier.task),
        "classes": list(loaded.classifier.classes),
    }
    write_json(folder / _ABOUT, about)


def _try_kept(source: Path, kept: Sequence[Path], copy: Path) -> None:
    """Whether what is kept of a file suffices to load it: later there may be nothing else."""
    beside = source.parent.resolve()
    have = {path.resolve() for path in (source, *kept)}
    for path in (source, *(path for path in kept if path.suffix == ".py")):
        for name in _imported(path):
            at = getattr(sys.modules.get(name), "__file__", None)
            if at is None or Path(at).resolve() in have:
                continue
            if Path(at).resolve() in (beside / f"{name}.py", beside / name / "__init__.py"):
                word = Path(at).resolve().relative_to(beside).as_posix()
                raise DataError(
                    f"{path} imports {name!r}, which lies beside it and is not kept with the run: "
                    f"name its files in {source.name}, KEEP = [{word!r}]."
                )
    try:
        load_classifier(str(copy))
    except L2IError as error:
        raise DataError(
            f"What is kept of {source} cannot be loaded ({error}) Name the files beside it that "
            'it needs in it: KEEP = ["weights.pt"].'
        ) from error


def reopen_classifier(folder: Path) -> Loaded:
    """The classifier that `keep_classifier` wrote; its code is run.

    Raises
    ------
    CheckpointError
        Its package is not installed here, or it is another classifier than it was.
    """
    about = kept_classifier(folder)
    spec = about["spec"]
    for head in ("", _CHECKPOINT):
        if spec.startswith(f"{head}{_KEPT}"):
            spec = f"{head}{folder / spec.removeprefix(head)}"
            break
    try:
        loaded = open_classifier(spec)
    except L2IError as error:
        needs = ", ".join(about["requirements"])
        raise CheckpointError(
            f"The classifier of this run cannot be loaded: {error}"
            + (f" It needs: {needs}." if needs else "")
        ) from error
    have = loaded.classifier
    if list(have.classes) != about["classes"] or have.sample_rate != about["sample_rate"]:
        raise CheckpointError(
            f"{about['spec']} is another classifier than this run was made with: it has "
            f"{len(have.classes)} classes at {have.sample_rate} Hz, and had "
            f"{len(about['classes'])} at {about['sample_rate']} Hz."
        )
    return loaded


def kept_classifier(folder: Path) -> dict[str, Any]:
    """What ``classifier.json`` says.

    Raises
    ------
    CheckpointError
        It is not there, or damaged.
    """
    try:
        about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        known = {"spec", "digest", "requirements", "sample_rate", "task", "classes"}
        if missing := known - set(about):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / _ABOUT} is damaged: {error}.") from None
    return about


def is_kept(folder: Path) -> bool:
    """Whether a folder has a classifier that `keep_classifier` wrote."""
    return (folder / _ABOUT).is_file()


def _sources(spec: str) -> tuple[Path, list[Path]]:
    """The files that a word stands for, and the folder that they are in; of a module none."""
    where = spec.rpartition(":")[0]
    if spec.startswith(_CHECKPOINT):
        base = Path(spec.removeprefix(_CHECKPOINT)).expanduser()
        return base, sorted(path for path in base.iterdir() if path.is_file())
    if spec.endswith(_SCRIPTS):
        path = Path(spec).expanduser()
        return path.parent, [path, path.with_suffix(".json")]
    if where.endswith(".py"):
        path = Path(where).expanduser()
        return path.parent, [path, *_kept(where)]
    return Path(), []


def _kept(where: str) -> list[Path]:
    """The files that a file of Python keeps with it, by its variable ``KEEP``."""
    source = Path(where).expanduser()
    files = []
    for word in getattr(_module(where), "KEEP", ()):
        path = source.parent / word
        if not path.is_file() or ".." in Path(word).parts or Path(word).is_absolute():
            raise DataError(f"KEEP of {source} names {word!r}, which is no file beside it.")
        files.append(path)
    return files


def _requirements(spec: str) -> list[str]:
    """Packages that a classifier needs: those of the variable ``REQUIREMENTS`` of its file; else
    those that are imported in it, with their versions."""
    where = spec.rpartition(":")[0]
    if spec.startswith(_CHECKPOINT):
        return _of_packages(["transformers"])
    if spec.endswith(_SCRIPTS):
        return []
    if not where.endswith(".py"):
        return _of_packages([where.partition(".")[0]])
    source = Path(where).expanduser()
    told = getattr(_module(where), "REQUIREMENTS", None)
    if told is not None:
        return [str(word) for word in told]
    return _of_packages(sorted(_imported(source)))


def _imported(source: Path) -> set[str]:
    """Top-level names of the modules that a file of Python imports."""
    names = set()
    for node in ast.walk(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _of_packages(names: Sequence[str]) -> list[str]:
    """Distributions of importable names, with versions; without what l2i itself needs."""
    known = packages_distributions()
    own = {"l2i", "torch", "numpy", "pydantic", "safetensors", "soundfile", "soxr"}
    packages = dict.fromkeys(d for n in names if n not in own for d in known.get(n, ()))
    return [f"{d}=={version(d).partition('+')[0]}" for d in packages]


def _module(where: str) -> Any:
    return sys.modules[load_object(f"{where}:__name__")]
