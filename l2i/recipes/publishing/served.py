"""A run's networks as an MLflow model: loaded, served and registered without a checkout of l2i.

The folder ``model`` of a run is an MLflow model of flavour ``python_function``::

    model/MLmodel                     signature, versions
    model/artifacts/*.safetensors     classifier, dictionary, interpreter; no pickled code
    model/artifacts/classifier.json   how a classifier of the user's own is loaded; its code beside
    model/artifacts/config.toml       the run's settings
    model/code/l2i/                   this package, as it was when the run was made
    model/served_model.py             what MLflow runs to have the model
    model/requirements.txt            what `code` needs, with versions

Each row of its input is one sound, as a ``path``, as the ``bytes`` of a file, or as ``samples``
(a list, -1 to 1, mono) with their ``sample_rate``; text alone is a path. Each row of its output is
what `l2i.recipes.publishing.examples.write_explanation` finds of that sound, number for number.

The folder holds all of itself, so it goes wherever the run goes: exported, imported, moved, to
another store. MLflow's own "logged models" lie beside the runs, and would stay behind.

Over 300 lines: one class of MLflow's kind, and what writes it.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from mlflow.pyfunc.model import PythonModel
from numpy.typing import NDArray

import l2i
from l2i.config import Config, resolve
from l2i.config import Explanation as ExplanationSettings
from l2i.dsp.audio import fit_length
from l2i.dsp.spectrogram import common_gain, peak_normalise
from l2i.errors import DataError, L2IError, UsageError
from l2i.explained import explain_by
from l2i.explanation import MethodSettings, make_method
from l2i.models.heard import hear
from l2i.models.spec import is_kept, kept_classifier
from l2i.pages.sound import flac
from l2i.recipes.opening.bundle import (
    MODEL,
    build_subject,
    explainer_of,
    explanation_settings,
    kept_files,
    shortest_input,
    with_kept_method,
)
from l2i.recipes.publishing.served_input import columns_of, rows_of, sound_of
from l2i.registry import class_index, nearest
from l2i.run.device import pick_device

_NEEDS = ("torch", "numpy", "pydantic", "safetensors", "soundfile", "soxr")
_PARAMS = ("explain", "class_name", "threshold", "max_components")
_NOT_GIVEN = -1.0
_SCRIPT = '''\
"""What MLflow runs to have this model; the package l2i lies beside, in the folder code."""

from mlflow.models import set_model

from l2i.recipes.publishing.served import ServedModel

set_model(ServedModel())
'''


class ServedModel(PythonModel):
    """The networks of one run behind MLflow's ``predict``.

    ``L2I_DEVICE`` says what it computes on (``auto``, ``cpu``, ``cuda``, ``mps``).
    """

    def load_context(self, context: Any) -> None:
        """Open the checkpoints; called by MLflow."""
        folder = Path(context.artifacts["config"]).parent
        device, dtype, _ = pick_device(os.environ.get("L2I_DEVICE") or "auto", "float32")
        self._config = with_kept_method(resolve(folder / "config.toml"), folder)
        self._subject = build_subject(folder, self._config, device, dtype)

    # This is the one type hint from which MLflow makes no signature of its own.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Classify sounds, and explain what was said.

        Parameters
        ----------
        context
            MLflow's; not used.
        model_input : pandas.DataFrame, or rows
            One sound per row: ``path``, ``bytes`` (of a file of any format soundfile reads), or
            ``samples`` (in [-1, 1], mono) with ``sample_rate`` (Hz). Rows can be dicts, or paths
            and bytes as they are; one alone is one row.
        params : dict, optional
            ``explain`` (bool): also give the sounds. ``class_name``: what to explain instead of
            the most probable class. ``threshold`` and ``max_components`` instead of the run's.

        Returns
        -------
        list of dict
            Per row ``class``, ``probability`` and ``interpreter_probability`` of it; ``decided``,
            the classes found; ``probabilities`` and ``interpreter_probabilities``, class to
            probability; ``relevances``, of each of the K components for ``class``; ``components``,
            those selected, the most relevant first. With ``explain`` also ``explanation`` and
            ``removal``, each a FLAC file as bytes, of ``sample_rate`` Hz. What is the interpreter's
            and of components, L2I alone has.

        Raises
        ------
        MlflowException
            ``INVALID_PARAMETER_VALUE``: a row is no sound, or a parameter is wrong.
        """
        given, named = self._as_given(model_input, params)
        asked = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            if unknown := [key for key in {**(named or {}), **asked} if key not in _PARAMS]:
                like = nearest(str(unknown[0]), _PARAMS)
                hint = f" (did you mean {like!r}?)" if like else ""
                raise UsageError(
                    f"There is no parameter {unknown[0]!r}{hint}; there are: {', '.join(_PARAMS)}."
                )
            name = str(asked.get("class_name") or "")
            classes = self._subject.classifier.classes
            explained = class_index(classes, name, "The model") if name else None
            settings = self._settings(asked)
            sounds = []
            for number, row in enumerate(rows_of(given)):
                try:
                    sounds.append(sound_of(columns_of(row), self._subject.domain.sample_rate))
                except L2IError as error:
                    raise DataError(f"Row {number}: {error}") from error
            want = bool(asked.get("explain"))
            return [self._one(sound, explained, settings, want) for sound in sounds]
        except L2IError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def _as_given(self, model_input: Any, params: Any) -> tuple[Any, Any]:
        """Rows and parameters as the caller wrote them.

        MLflow drops, with a line in the log, all that the signature does not name: rows without
        a column, mistyped parameters. It keeps them nowhere but in its own call of this model.
        """
        frame = inspect.currentframe()
        while frame is not None:
            if frame.f_code is inspect.unwrap(PyFuncModel.predict).__code__:
                told = frame.f_locals
                if getattr(told["self"]._model_impl, "python_model", None) is self:
                    return told["data"], told["params"]
            frame = frame.f_back
        return model_input, params

    def _settings(self, asked: Mapping[str, Any]) -> ExplanationSettings:
        threshold = float(asked.get("threshold", _NOT_GIVEN))
        most = int(asked.get("max_components", _NOT_GIVEN))
        if threshold != _NOT_GIVEN and not 0 <= threshold < 1:
            raise UsageError(f"threshold is {threshold:g}; it is at least 0 and less than 1.")
        if most != _NOT_GIVEN and most < 0:
            raise UsageError(f"max_components is {most}; it is 0 (no limit) or more.")
        return explanation_settings(
            self._config,
            None if threshold == _NOT_GIVEN else threshold,
            None if most == _NOT_GIVEN else most,
        )

    def _one(
        self,
        sound: NDArray[np.float32],
        explained: int | None,
        settings: ExplanationSettings,
        want: bool,
    ) -> dict[str, Any]:
        subject = self._subject
        clf, rate = subject.classifier, subject.domain.sample_rate
        least = shortest_input(self._config, clf)
        x = torch.from_numpy(fit_length(sound, max(least, len(sound)))).unsqueeze(0)
        answer: dict[str, Any] = {}
        if self._config.method.name == "l2i":
            e, heard, interpretation = explainer_of(subject).explain(
                x,
                None if explained is None else [explained],
                threshold=settings.threshold,
                max_components=settings.max_components,
            )
            c = int(e.classes[0])
            g = clf.probabilities(interpretation.logits)[0].tolist()
            order = e.relevance[0].argsort(descending=True).tolist()
            answer = {
                "interpreter_probability": g[c],
                "interpreter_probabilities": dict(zip(clf.classes, g, strict=True)),
                "relevances": e.relevance[0].tolist(),
                "components": [k for k in order if e.selected[0, k]],
            }
            level = 1.0 if heard.level is None else heard.level
            audio, removal = e.audio * level, e.removal * level
        else:
            name = self._config.method.name
            told = MethodSettings(
                settings.threshold, settings.max_components, self._config.run.seed
            )
            way = make_method(name, subject, told)
            heard = hear(clf, x, subject.domain, way.layers)
            c = int(heard.logits.argmax()) if explained is None else explained
            if want:
                one = explain_by(way, heard, c, method=name)
                audio, removal = (torch.from_numpy(y)[None] for y in (one.audio, one.removal))
        p = clf.probabilities(heard.logits)[0].tolist()
        decided = clf.decisions(heard.logits)[0].nonzero()[:, 0].tolist()
        answer |= {
            "class": clf.classes[c],
            "probability": p[c],
            "decided": [clf.classes[k] for k in decided],
            "probabilities": dict(zip(clf.classes, p, strict=True)),
        }
        if want:
            # The original's level counts, as where all three are written.
            original = peak_normalise(x) if heard.level is None else x
            sounds = {"explanation": audio.cpu(), "removal": removal.cpu()}
            gain = common_gain((original, *sounds.values()))
            for name, samples in sounds.items():
                answer[name] = flac((samples[0] * gain).numpy()[: len(sound)], rate)
            answer["sample_rate"] = rate
        return answer


def _requirements(bundle: Path) -> list[str]:
    requirements = [f"mlflow=={metadata.version('mlflow')}"]
    for name in _NEEDS:
        # A build's own mark (+cpu) is not a version that an index knows.
        requirements.append(f"{name}=={metadata.version(name).partition('+')[0]}")
    if is_kept(bundle):
        requirements += kept_classifier(bundle)["requirements"]
    return requirements


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array, Map

    text, real, whole = DataType.string, DataType.double, DataType.long
    inputs: list[Any] = [
        ColSpec(text, "path", required=False),
        ColSpec(DataType.binary, "bytes", required=False),
        # Numbers of whatever kind: MLflow takes none that are whole for those that are not, nor
        # columns in which some rows have nothing.
        ColSpec(AnyType(), "samples", required=False),
        ColSpec(AnyType(), "sample_rate", required=False),
    ]
    outputs: list[Any] = [
        ColSpec(text, "class"),
        ColSpec(real, "probability"),
        ColSpec(real, "interpreter_probability", required=False),
        ColSpec(Array(text), "decided"),
        ColSpec(Map(real), "probabilities"),
        ColSpec(Map(real), "interpreter_probabilities", required=False),
        ColSpec(Array(real), "relevances", required=False),
        ColSpec(Array(whole), "components", required=False),
        ColSpec(DataType.binary, "explanation", required=False),
        ColSpec(DataType.binary, "removal", required=False),
        ColSpec(whole, "sample_rate", required=False),
    ]
    params = [
        ParamSpec("explain", DataType.boolean, False),
        ParamSpec("class_name", text, ""),
        ParamSpec("threshold", real, _NOT_GIVEN),
        ParamSpec("max_components", whole, int(_NOT_GIVEN)),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(params))


def write_model(bundle: Path, config: Config, out: Path) -> dict[str, str]:
    """Make an MLflow model of three checkpoints.

    Parameters
    ----------
    bundle : Path
        Folder with ``classifier.safetensors``, ``dictionary.safetensors`` and
        ``interpreter.safetensors``.
    config : Config
    out : Path
        Made; must not be there.

    Returns
    -------
    dict of str to str
        Tags by which MLflow's pages know that a run has a model.
    """
    import yaml
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "config.toml").write_text(_portable(config).to_toml(), encoding="utf-8")
        script = work / "served_model.py"
        script.write_text(_SCRIPT, encoding="utf-8")
        code = work / "l2i"
        shutil.copytree(
            Path(l2i.__file__).parent,
            code,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
            copy_function=shutil.copyfile,  # Without the permissions: the user's umask decides.
        )
        files = [*sorted(bundle.glob("*.safetensors")), work / "config.toml"]
        if is_kept(bundle):
            files += [p for p in (bundle / "classifier.json", bundle / "classifier") if p.exists()]
        files += kept_files(bundle)
        # As addresses: of a path MLflow would decode what looks like an escape, %20 say.
        artifacts = {path.name: path.resolve().as_uri() for path in files}
        artifacts["config"] = artifacts.pop("config.toml")
        about = Model(metadata={"l2i_version": l2i.__version__})
        # A tenth of a second: it is text among the model's files, and in MLflow's pages.
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(800) / 8000)
        samples = [round(v, 3) for v in tone.tolist()]
        example = pd.DataFrame([{"samples": samples, "sample_rate": 8000}])
        # MLflow puts the folder of `code` first on the path, and forgets to take it away.
        before = list(sys.path)
        try:
            save_model(
                str(out),
                python_model=str(script),
                artifacts=artifacts,
                code_paths=[str(code)],
                pip_requirements=_requirements(bundle),
                signature=_signature(),
                input_example=(example, {"explain": False}),
                mlflow_model=about,
            )
        finally:
            sys.path[:] = before
    # No path of this machine in a model that is passed on.
    text = (out / "MLmodel").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(\s+(?:uri|model_code_path): )(?:file://)?/.*/([^/\n]+)$", r"\1\2", text)
    (out / "MLmodel").write_text(text, encoding="utf-8")
    # Not by Model.load, which decodes what looks like an escape in a path.
    told = Model.from_dict(yaml.safe_load(text))
    told.artifact_path = MODEL
    return {"mlflow.log-model.history": json.dumps([told.get_tags_dict()], default=str)}


def _portable(config: Config) -> Config:
    """Without where things lay on this machine: the model does not need them."""
    return config.changed(
        dataset={"data_dir": ""},
        classifier={"spec": _without_folder(config.classifier.spec)},
        method={"name": _without_folder(config.method.name)},
        explanation={"metrics": [_without_folder(word) for word in config.explanation.metrics]},
    )


def _without_folder(word: str) -> str:
    """``/home/me/mine.py:load`` as ``mine.py:load``; any other word as it stands."""
    return word.rpartition("/")[2]
