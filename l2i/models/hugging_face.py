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
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from l2i.errors import DataError, L2IError, UsageError
from l2i.models.layers import Places
from l2i.models.resampling import torchaudio
from l2i.models.wrapped import Pool, Wrapped, as_found, wrap
from l2i.types import Task

__all__ = ["from_transformers"]

# How far from the original's features ours may be, in the features' own units.
_SAME = 1e-3
_UNKNOWN_LEAST_S = 0.1


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
    twin = _twin(transformers, extractor)
    cut = _Cut(rate, twin, model.config, window_s, hop_s)
    original = _Original(model, extractor, cut)
    try:
        why = original.differs(twin)
        if why:
            warnings.warn(
                f"{why}, so it is used as it is, without gradients: explanations are Shapley "
                "values of a black box.",
                stacklevel=2,
            )
        return wrap(
            original if why or twin is None else _Windows(model),
            rate,
            _names(where, model.config),
            task or _task(where, model.config),
            front_end=None if why or twin is None else _FrontEnd(cut, twin),
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
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise DataError(f"transformers cannot be imported: {_told(error)}") from error
        raise DataError(
            "Models of transformers need it installed: 'pip install transformers', or "
            "'pip install l2i[hugging-face]'."
        ) from None
    except Exception as error:
        raise DataError(f"transformers cannot be imported: {_told(error)}") from error
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


# --- feature extractors in torch ------------------------------------------------------------------


class _Fbank:
    """``ASTFeatureExtractor``: Kaldi's log-mel bands [N, frames, M], by torchaudio."""

    def __init__(self, _: Any, of: Any) -> None:
        self.rate = of.sampling_rate
        self.bands = of.num_mel_bins
        self.frames = of.max_length
        # With torchaudio the frames are 25 ms and 10 ms, without it as many samples at any rate.
        in_numpy = hasattr(of, "mel_filters")
        frame, hop = (400, 160) if in_numpy else (int(self.rate * 0.025), int(self.rate * 0.01))
        self.length: int | None = frame + (self.frames - 1) * hop
        self.least = frame
        self.mean: float = of.mean if of.do_normalize else 0.0
        self.scale: float = 2 * of.std if of.do_normalize else 1.0
        self.lacks = ""
        try:
            torchaudio(f"{type(of).__name__} in torch")
        except L2IError as error:
            self.lacks = str(error).rstrip(".")

    def __call__(self, x: Tensor) -> Tensor:
        fbank = importlib.import_module("torchaudio.compliance.kaldi").fbank
        told = {"sample_frequency": self.rate, "num_mel_bins": self.bands}
        # It takes one sound at a time.
        y = torch.stack([fbank(one[None], window_type="hanning", **told) for one in x])
        y = nn.functional.pad(y, (0, 0, 0, self.frames - y.shape[1]))  # Below 0 it cuts.
        return (y - self.mean) / self.scale


class _LogMel:
    """``WhisperFeatureExtractor``: log-mel bands [N, M, frames]."""

    def __init__(self, _: Any, of: Any) -> None:
        self.n_fft, self.hop = of.n_fft, of.hop_length
        self.length: int | None = of.n_samples
        self.least = 1
        self.lacks = ""
        self.padding = of.padding_value
        self.window = torch.hann_window(self.n_fft)
        self.mel = torch.from_numpy(np.asarray(of.mel_filters)).float().T

    def __call__(self, x: Tensor) -> Tensor:
        assert self.length is not None
        x = nn.functional.pad(x, (0, self.length - x.shape[1]), value=self.padding)
        window = self.window.to(x.device)
        spectrum = torch.stft(x, self.n_fft, self.hop, window=window, return_complex=True)
        power = (spectrum.real.square() + spectrum.imag.square())[..., :-1]
        y = (self.mel.to(x.device) @ power).clamp_min(1e-10).log10()
        y = torch.maximum(y, y.amax(dim=(1, 2), keepdim=True) - 8)
        return (y + 4) / 4


class _Waveform:
    """``Wav2Vec2FeatureExtractor``: the samples [N, S], standardised or as they are."""

    def __init__(self, _: Any, of: Any) -> None:
        self.length: int | None = None
        self.least = 1
        self.lacks = ""
        self.standardised = of.do_normalize

    def __call__(self, x: Tensor) -> Tensor:
        if not self.standardised:
            return x
        x = x - x.mean(1, keepdim=True)
        return x / (x.square().mean(1, keepdim=True) + 1e-7).sqrt()


_Twin = _Fbank | _LogMel | _Waveform
_TWINS: Mapping[str, Callable[[Any, Any], _Twin]] = {
    "ASTFeatureExtractor": _Fbank,
    "WhisperFeatureExtractor": _LogMel,
    "Wav2Vec2FeatureExtractor": _Waveform,
}


def _twin(transformers: Any, extractor: Any) -> _Twin | None:
    # By its name: its class would import what it computes with.
    names = [kind.__name__ for kind in type(extractor).__mro__]
    kind = next((_TWINS[name] for name in names if name in _TWINS), None)
    return None if kind is None else kind(transformers, extractor)


class _Cut:
    """Windows [B, n, W] of waveforms [B, S]."""

    def __init__(
        self,
        rate: int,
        twin: _Twin | None,
        config: Any,
        window_s: float | None,
        hop_s: float | None,
    ) -> None:
        for word, value in (("window_s", window_s), ("hop_s", hop_s)):
            if value is not None and value * rate < 1:
                raise UsageError(f"{word} {value} is shorter than a sample.")
        longest = None if twin is None else twin.length
        self.window = longest if window_s is None else round(window_s * rate)
        if self.window is None and hop_s is not None:
            raise UsageError("hop_s is the step between windows: give window_s, too.")
        if longest is not None and self.window is not None and self.window > longest:
            raise UsageError(
                f"window_s {window_s} is longer than the {longest / rate:g} s that the feature "
                "extractor takes: what is beyond them would not be heard."
            )
        self.hop = self.window if hop_s is None else round(hop_s * rate)
        # A clip that is shorter makes no frame: here, in the network's convolutions, or in an
        # extractor that nobody knows.
        self.least = round(_UNKNOWN_LEAST_S * rate) if twin is None else twin.least
        kernels, strides = (getattr(config, f"conv_{word}", ()) for word in ("kernel", "stride"))
        field = 1
        for kernel, stride in reversed(list(zip(kernels, strides, strict=False))):
            field = (field - 1) * stride + kernel
        self.least = max(self.least, field)

    def __call__(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, max(0, self.least - x.shape[1])))
        if self.window is None or x.shape[1] <= self.window:
            return x.unsqueeze(1)
        return torch.stack([x[:, i : i + self.window] for i in self.starts(x.shape[1])], 1)

    def starts(self, samples: int) -> tuple[int, ...]:
        """First samples of the windows; the last one ends where the clip ends."""
        if self.window is None or self.hop is None or samples <= self.window:
            return (0,)
        last = samples - self.window
        return (*range(0, last, self.hop), last)


class _FrontEnd:
    """Waveforms [B, S] to features [B, n, ...] of their windows."""

    def __init__(self, cut: _Cut, twin: _Twin) -> None:
        self.cut = cut
        self.twin = twin

    def __call__(self, x: Tensor) -> Tensor:
        windows = self.cut(x)
        return self.twin(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])

    def places(self, samples: int) -> Places:
        """Where the windows lie in clips of so many samples; the extractor pads most of them."""
        length = self.cut.window or max(samples, self.cut.least)
        return Places(self.cut.starts(samples), length, self.twin.length or length)


def _as_frames(logits: Tensor, n: int) -> Tensor:
    """Scores per window [B, n, C], which are pooled as scores per frame; of one window [B, C]."""
    return logits if n == 1 else logits.unflatten(0, (-1, n))


class _Windows(nn.Module):
    """A model that takes features [B, n, ...] of windows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.name: str = model.main_input_name

    def forward(self, features: Tensor) -> Tensor:
        scores = self.model(**{self.name: features.flatten(0, 1)}).logits
        return _as_frames(scores, features.shape[1])


class _Original:
    """A model with its own feature extractor: arrays [B, S] in, scores out, no gradients."""

    def __init__(self, model: Any, extractor: Any, cut: _Cut) -> None:
        self.model = model
        self.extractor = extractor
        self.cut = cut
        self.takes = set(inspect.signature(model.forward).parameters)

    def features(self, windows: Tensor) -> dict[str, Tensor]:
        inputs = self.extractor(
            [x.numpy() for x in windows],
            sampling_rate=self.extractor.sampling_rate,
            return_tensors="pt",
        )
        if (name := self.model.main_input_name) not in inputs:
            raise DataError(
                f"{type(self.model).__name__} takes {name}, and {type(self.extractor).__name__} "
                f"gives {', '.join(inputs)}: it is another model's."
            )
        return {k: v for k, v in inputs.items() if k in self.takes}

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        windows = self.cut(torch.from_numpy(x))
        to, kind = self.model.device, self.model.dtype
        with torch.no_grad(), as_found(self.model):
            given = {
                k: v.to(to, kind) if v.is_floating_point() else v.to(to)
                for k, v in self.features(windows.flatten(0, 1)).items()
            }
            logits = self.model(**given).logits.float().cpu()
        return _as_frames(logits, windows.shape[1]).numpy()

    def differs(self, twin: _Twin | None) -> str:
        """Why the features are not those of `twin`, as the beginning of a sentence, or ""."""
        name = type(self.extractor).__name__
        if twin is None:
            return f"{name} is not computed in torch here"
        if twin.lacks:
            return twin.lacks
        rate = self.extractor.sampling_rate
        noise = 0.1 * torch.randn(1, rate, generator=torch.Generator().manual_seed(0))
        noise[:, : rate // 4] = 0.0  # In silence it is the floor that counts.
        windows = self.cut(noise)[:, 0]
        wanted = dict(self.features(windows))
        features = wanted.pop(self.model.main_input_name)
        mask = wanted.pop("attention_mask", None)
        if wanted or (mask is not None and not bool(mask.all())):
            return f"{name} gives more than is computed in torch here"
        ours = twin(windows)
        if ours.shape != features.shape:
            return f"{name} gives the shape {list(features.shape)}, not {list(ours.shape)}"
        most = float((ours - features).abs().max())
        # NaN differs, too.
        return "" if most <= _SAME else f"{name} gives features that differ from ours by {most:.3g}"
