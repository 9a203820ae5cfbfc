"""Audio classifiers of ``transformers``, from a folder or as they are loaded.

::

    clf = from_transformers("checkpoints/ast")      # config.json, weights, preprocessor_config.json
    clf = from_transformers(model, feature_extractor)

Their feature extractors leave torch and so cut the gradient. Three kinds are computed here again,
in torch, and compared at load with the original on a second of sound:

==============================  ==================================================================
``ASTFeatureExtractor``         Kaldi's log-mel bands, padded or cut to a number of frames; by
                                torchaudio
``WhisperFeatureExtractor``     log-mel bands of a clip padded or cut to a number of seconds
``Wav2Vec2FeatureExtractor``    the waveform itself, or standardised (HuBERT, WavLM, and others)
==============================  ==================================================================

Any other, and one that does not agree, is used as it is: the classifier is then a black box.

`transformers` is no dependency: it is imported where it is needed, and nothing is downloaded.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import nn

from l2i.errors import DataError, L2IError, UsageError
from l2i.models.extractors import Cut, FrontEnd, Original, Windows, twin_of
from l2i.models.hearing import Pool
from l2i.models.wrapped import Wrapped, wrap
from l2i.types import Task


def from_transformers(
    model: str | Path | nn.Module,
    feature_extractor: Any = None,
    *,
    task: Task | Literal["single-label", "multi-label"] | None = None,
    window_s: float | None = None,
    hop_s: float | None = None,
    pool: Pool = "mean",
    threshold: float | Sequence[float] = 0.5,
) -> Wrapped:
    """Make a classifier of an audio classification model of ``transformers``.

    Its class names are ``config.id2label``, its sample rate is the feature extractor's. Clips that
    are longer than the extractor takes are heard in windows of that length, the last of which ends
    where the clip ends; shorter ones are padded as the extractor pads them.

    Parameters
    ----------
    model : path or PreTrainedModel
        A folder that ``save_pretrained`` wrote, or a loaded model.
    feature_extractor : optional
        What the model hears by, or a processor that has it; by default the folder's.
    task : {'single-label', 'multi-label'}, optional
        By default multi-label where ``config.problem_type`` says so.
    window_s, hop_s : float, optional
        Seconds of the windows, and from one to the next (by default a window). By default what
        AST's or Whisper's extractor takes; the others hear whole clips.
    pool : {'mean', 'max'}
        How the probabilities of windows become those of the clip.
    threshold : float or sequence of float
        Multi-label: from which probability on a class counts as present.

    Returns
    -------
    Wrapped

    Raises
    ------
    DataError
        ``transformers`` is not installed, there is no such folder, or it has no finished
        classifier.
    UsageError
        The windows are not possible, or a loaded model comes without its feature extractor.

    Warns
    -----
    UserWarning
        There are no gradients, or the classes have no names.
    """
    transformers = _transformers()
    if isinstance(model, str | Path):
        where = f"The model in {model}"
        model, feature_extractor = _load(transformers, Path(model), feature_extractor)
    else:
        where = f"The {type(model).__name__}"
        if not hasattr(model, "config"):
            raise UsageError(f"{where} is no model of transformers: l2i.wrap takes any module.")
        if feature_extractor is None:
            raise UsageError("A loaded model needs its feature extractor: give feature_extractor.")
    # A processor has a tokenizer, too.
    extractor = getattr(feature_extractor, "feature_extractor", feature_extractor)
    rate = getattr(extractor, "sampling_rate", None)
    if not rate:
        raise DataError(f"{where} has a feature extractor that says no sampling_rate.")
    twin = twin_of(extractor)
    cut = Cut(rate, twin, model.config, window_s, hop_s)
    original = Original(model, extractor, cut)
    try:
        why = original.differs(twin)
        if why:
            warnings.warn(
                f"{why}, so it is used as it is, without gradients: explanations are Shapley "
                "values of a black box.",
                stacklevel=2,
            )
        return wrap(
            original if why or twin is None else Windows(model),
            rate,
            _names(where, model.config),
            task or _task(where, model.config),
            front_end=None if why or twin is None else FrontEnd(cut, twin),
            pool=pool,
            threshold=threshold,
        )
    except L2IError:
        raise
    except Exception as error:  # The model's own code, on features that may not be its own.
        raise DataError(
            f"{where} cannot hear what its feature extractor gives: {_told(error)}"
        ) from error


# --- what a folder holds ------------------------------------------------------------------------


def _transformers() -> Any:
    try:
        package = importlib.import_module("transformers")
    except Exception as error:
        if not isinstance(error, ModuleNotFoundError) or error.name != "transformers":
            raise DataError(f"transformers cannot be imported: {_told(error)}") from error
        raise DataError(
            "Models of transformers need it installed: 'pip install transformers', or "
            "'pip install \"l2i[hugging-face]\"'."
        ) from None
    try:
        importlib.import_module("torchaudio")
    except Exception:
        # A torchaudio made for another torch cannot be imported. transformers asks only whether
        # one is installed, and would fail with it; without one it computes in numpy.
        for place in (package.utils, package.utils.import_utils):
            for name in ("is_torchaudio_available", "is_speech_available"):
                setattr(place, name, lambda: False)
    return package


def _load(transformers: Any, folder: Path, extractor: Any) -> tuple[nn.Module, Any]:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder}: nothing is downloaded here, so give the folder of a "
            "checkpoint ('hf download NAME --local-dir FOLDER' fetches one)."
        )
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} is no checkpoint of transformers: it has no config.json.")
    # Code that lies in the folder is not run.
    given = {"local_files_only": True, "trust_remote_code": False}
    with _quiet(transformers):
        try:
            model, info = transformers.AutoModelForAudioClassification.from_pretrained(
                folder, output_loading_info=True, **given
            )
        except Exception as error:
            raise DataError(f"{folder} holds no audio classifier: {_told(error)}") from error
        # It matters in training alone, and old checkpoints lack it.
        missing = sorted(k for k in info["missing_keys"] if not k.endswith("masked_spec_embed"))
        if missing:
            raise DataError(
                f"{folder} holds no finished classifier: it has no weights for {missing[0]}"
                + (f" and {len(missing) - 1} more." if len(missing) > 1 else ".")
            )
        if extractor is None:
            try:
                extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **given)
            except Exception as error:
                if (folder / "preprocessor_config.json").is_file():
                    raise DataError(
                        f"The feature extractor in {folder} cannot be loaded: {_told(error)}"
                    ) from error
                raise DataError(
                    f"{folder} has no preprocessor_config.json, which says how the model hears: "
                    "copy it from the model it was trained from, or give feature_extractor."
                ) from error
    # The gradients of a checkpoint in half precision are too coarse.
    return model.float().eval(), extractor


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bar and no notes of the library's: what matters is raised."""
    log = transformers.utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def _names(where: str, config: Any) -> tuple[str, ...]:
    names = {int(i): str(name) for i, name in (config.id2label or {}).items()}
    classes = tuple(names[i] for i in sorted(names))
    if all(name == f"LABEL_{i}" for i, name in enumerate(classes)):
        warnings.warn(
            f"{where} has no class names, only LABEL_0 to LABEL_{len(classes) - 1}: write them "
            "into id2label of its config.",
            stacklevel=3,
        )
    return classes


def _task(where: str, config: Any) -> Task:
    kind = getattr(config, "problem_type", None)
    if kind == "regression":
        raise DataError(f"{where} is a regression and knows no classes.")
    return Task.MULTI_LABEL if kind == "multi_label_classification" else Task.SINGLE_LABEL


def _told(error: Exception) -> str:
    """The first line of what an exception says, as a sentence."""
    lines = str(error).strip().splitlines()
    return f"{lines[0].rstrip('.:')}." if lines else f"{type(error).__name__}."
