"""The built-in classifier, frozen: waveform in, logits and hidden maps out.

Frozen means frozen: evaluation mode, no gradients, batch norms folded, weights a copy of their
own. Hidden maps are read by hooks that exist only while a context is open.

Its front-end begins with a transform, and scales each clip to its peak. Where explanations have
that transform too (`FrozenClassifier.domain`), they hand it over instead of a waveform
(`FrozenClassifier.features_of`), and it is computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import get_ident

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.dsp.spectrogram import SpectrogramSettings, log_mel, mel_filters, peak_normalise, stft
from l2i.errors import CheckpointError
from l2i.models.answers import Answers
from l2i.models.axes import Layer
from l2i.models.layers import Found
from l2i.models.vgg import HIDDEN_MAPS, MIN_FRAMES, VGG, fold_batch_norm
from l2i.types import Features, Task

# Clips the network hears at a time: on a CPU the first layers are bound by memory, and a small
# batch stays in the cache; a GPU wants more.
_AT_ONCE = {"cpu": 16, "cuda": 128, "mps": 64}


@contextmanager
def hidden_maps(network: nn.Module, layers: Sequence[str]) -> Iterator[list[Tensor]]:
    """Collect the outputs of named layers while the context is open.

    Parameters
    ----------
    network : nn.Module
    layers : sequence of str
        Dotted names within `network`.

    Yields
    ------
    list of Tensor
        Filled, in the order of `layers`, by the next forward pass of this thread: others may use
        the network meanwhile.
    """
    own = get_ident()
    outputs: list[Tensor] = [torch.empty(0)] * len(layers)

    def keep(index: int, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        if get_ident() == own:
            outputs[index] = output

    with ExitStack() as hooks:
        for i, name in enumerate(layers):
            hooks.enter_context(network.get_submodule(name).register_forward_hook(partial(keep, i)))
        yield outputs


class FrozenClassifier(Answers):
    """The classifier to be explained, with its own front-end.

    Parameters
    ----------
    network : VGG
        Copied; the original is left as it is.
    settings : SpectrogramSettings
        What the network was trained with.
    classes : sequence of str
    task : Task
    thresholds : sequence of float, optional
        Multi-label: from which probability on a class counts as present; 0.5 without.
    device : torch.device
    dtype : torch.dtype
        The network's arithmetic; the front-end is float32 always.

    Attributes
    ----------
    sample_rate : int
        Hz, of the waveforms it takes.
    domain : Domain
        The transform that its front-end begins with.
    width : float
        Channels of the network's trunk, as a share of the published one's.
    min_samples : int
        The shortest clip it can hear.
    published_maps : tuple of str
        Names of the maps that the published interpreter reads.
    differentiable : bool
        It has gradients to the waveform.
    """

    published_maps = tuple(HIDDEN_MAPS)
    differentiable = True

    def __init__(
        self,
        network: VGG,
        settings: SpectrogramSettings,
        classes: Sequence[str],
        task: Task,
        thresholds: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = torch.device(device)
        self.network = fold_batch_norm(network).to(self.device)
        self.settings = settings
        self.sample_rate, self.domain = settings.sample_rate, settings.domain
        self.width = network.width
        self.min_samples = MIN_FRAMES * settings.hop_length
        self.classes = tuple(classes)
        self.task = Task(task)
        self.dtype = dtype
        given = thresholds if thresholds is not None and len(thresholds) else [0.5] * len(classes)
        self.thresholds = torch.tensor(list(given), dtype=torch.float32, device=self.device)

    def computing_in(self, dtype: torch.dtype) -> FrozenClassifier:
        """The same network; products of matrices are computed in another number format."""
        other = copy.copy(self)
        other.dtype = dtype
        return other

    def chosen_layers(self) -> tuple[str, ...]:
        """Layers that an interpreter reads where none are named, the last one deepest."""
        return tuple(reversed(HIDDEN_MAPS))

    def layers(self) -> tuple[Found, ...]:
        """Those, with the size of the map of a second, or of the shortest clip that is heard."""
        names = self.chosen_layers()
        maps = self.features(torch.zeros(1, max(self.sample_rate, self.min_samples)), names).maps
        return tuple(
            Found(Layer(name, "B D F T"), "Sequential", *y.shape[1:])
            for name, y in zip(names, maps, strict=True)
        )

    def spectrum(self, waveform: Tensor) -> Tensor:
        """Complex spectrogram [B, F, T] of peak-normalised waveforms [B, S]."""
        return stft(peak_normalise(waveform.to(self.device)), self.settings)

    def features(self, waveform: Tensor, layers: Sequence[str] = ()) -> Features:
        """Logits and hidden maps of waveforms [B, S]; see `features_of`."""
        return self.features_of(self.spectrum(waveform), layers)

    @torch.inference_mode()
    def features_of(self, spectrum: Tensor, maps: Sequence[str] = ()) -> Features:
        """Logits and hidden maps of spectrograms.

        Parameters
        ----------
        spectrum : Tensor [B, F, T]
            Complex (or its magnitude), of peak-normalised waveforms.
        maps : sequence of {'512', '256', '128'}

        Returns
        -------
        Features
            ``maps[l]`` of shape [B, D_l, F_l, T_l], float32, memory channels_last.

        Raises
        ------
        CheckpointError
            If the clips are too short for the network.
        """
        if spectrum.shape[2] < MIN_FRAMES:
            raise CheckpointError(
                f"A clip of {spectrum.shape[2]} frames is too short for this network, which needs "
                f"{MIN_FRAMES}: set dataset.duration_s higher or spectrogram.hop_length lower."
            )
        logits, parts = [], []
        layers = [f"netx.{HIDDEN_MAPS[name]}" for name in maps]
        for some in spectrum.split(_AT_ONCE.get(self.device.type, 16)):
            mel = log_mel(some, self.settings).contiguous(memory_format=torch.channels_last)
            with (
                hidden_maps(self.network, layers) as outputs,
                torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32),
            ):
                logits.append(self.network(mel).float())
            # From frames first [B, D, T, F] to rows of frequency, columns of time.
            parts.append([y.float().transpose(2, 3) for y in outputs])
        return Features(
            torch.cat(logits), tuple(_join(list(pieces)) for pieces in zip(*parts, strict=True))
        )

    def logits(self, waveform: Tensor) -> Tensor:
        """Logits [B, C] of waveforms [B, S], through the classifier's own front-end.

        Gradients flow to a waveform that requires them.
        """
        if not (waveform.requires_grad and torch.is_grad_enabled()):
            return self.features(waveform).logits
        mel = log_mel(self.spectrum(waveform), self.settings)
        with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
            return self.network(mel.contiguous(memory_format=torch.channels_last)).float()

    def logits_of(self, size: Tensor) -> Tensor:
        """Logits [B, C] of magnitudes [B, F, T], to which gradients flow; float32 always."""
        mel = log_mel(size, self.settings).contiguous(memory_format=torch.channels_last)
        return self.network(mel)

    def logits_above(self, map_: Tensor, name: str, *more: str) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, C] of a hidden map [B, D, F, T], and deeper maps [B, D, T, F] on the way to
        them; gradients flow to all.

        Parameters
        ----------
        map_ : Tensor [B, D, F, T]
            What the layer `name` gives.
        name : str
        *more : str
            Deeper layers.
        """
        layers = [f"netx.{HIDDEN_MAPS[deeper]}" for deeper in more]
        with (
            hidden_maps(self.network, layers) as given,
            torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32),
        ):
            logits: Tensor = self.network.after(map_.transpose(2, 3), HIDDEN_MAPS[name])
        return logits.float(), given

    def attribution_layer(self) -> nn.Module:
        """The last layer whose map has frames and mel bands."""
        return self.network.get_submodule(f"netx.{HIDDEN_MAPS['512']}")

    def to_bins(self, attribution: Tensor, frames: int) -> Tensor:
        """What a map of `attribution_layer` says of each bin of the spectrogram.

        The map is stretched to all frames and mel bands, and a bin gets the mean of the bands
        that hear it, weighted by how well. A bin that no band hears gets nothing.

        Parameters
        ----------
        attribution : Tensor [B, 1, T_l, F_l]
        frames : int
            T.

        Returns
        -------
        Tensor [B, F, T]
        """
        grid = (frames, self.settings.n_mels)
        bands = F.interpolate(attribution, grid, mode="bilinear", align_corners=False)[:, 0]
        weight = mel_filters(self.settings, attribution.device)
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return weight @ bands.transpose(1, 2)


def _join(pieces: list[Tensor]) -> Tensor:
    pieces = [p.contiguous(memory_format=torch.channels_last) for p in pieces]
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]
