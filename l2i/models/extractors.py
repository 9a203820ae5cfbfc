"""Feature extractors of ``transformers``: in torch, with gradients, or as they are.

Which are computed in torch is in `l2i.models.hugging_face`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from l2i.errors import DataError, L2IError, UsageError
from l2i.models.hearing import as_found
from l2i.models.resampling import torchaudio
from l2i.models.windows import Places

# How far from the original's features ours may be, in the features' own units.
_SAME = 1e-3
_UNKNOWN_LEAST_S = 0.1


class _Fbank:
    """``ASTFeatureExtractor``: Kaldi's log-mel bands [N, frames, M], by torchaudio."""

    def __init__(self, of: Any) -> None:
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

    def __init__(self, of: Any) -> None:
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

    def __init__(self, of: Any) -> None:
        self.length: int | None = None
        self.least = 1
        self.lacks = ""
        self.standardised = of.do_normalize

    def __call__(self, x: Tensor) -> Tensor:
        if not self.standardised:
            return x
        x = x - x.mean(1, keepdim=True)
        return x / (x.square().mean(1, keepdim=True) + 1e-7).sqrt()


Twin = _Fbank | _LogMel | _Waveform
_TWINS: Mapping[str, Callable[[Any], Twin]] = {
    "ASTFeatureExtractor": _Fbank,
    "WhisperFeatureExtractor": _LogMel,
    "Wav2Vec2FeatureExtractor": _Waveform,
}


def twin_of(extractor: Any) -> Twin | None:
    """An extractor in torch, where it is one of those that are computed here."""
    # By its name: its class would import what it computes with.
    names = [kind.__name__ for kind in type(extractor).__mro__]
    kind = next((_TWINS[name] for name in names if name in _TWINS), None)
    return None if kind is None else kind(extractor)


class Cut:
    """Windows [B, n, W] of waveforms [B, S]."""

    def __init__(
        self, rate: int, twin: Twin | None, config: Any, window_s: float | None, hop_s: float | None
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


class FrontEnd:
    """Waveforms [B, S] to features [B, n, ...] of their windows."""

    def __init__(self, cut: Cut, twin: Twin) -> None:
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


class Windows(nn.Module):
    """A model that takes features [B, n, ...] of windows."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.name: str = model.main_input_name

    def forward(self, features: Tensor) -> Tensor:
        scores = self.model(**{self.name: features.flatten(0, 1)}).logits
        return _as_frames(scores, features.shape[1])


class Original:
    """A model with its own feature extractor: arrays [B, S] in, scores out, no gradients."""

    def __init__(self, model: Any, extractor: Any, cut: Cut) -> None:
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

    def differs(self, twin: Twin | None) -> str:
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
