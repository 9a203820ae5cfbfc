"""L-MAC's part: a mask decoder, trained through the frozen classifier.

With M the decoder's mask of a clip, c the class that the classifier decides on, and f its
probabilities::

    convinces * -log f_c(masked in)  +  leaves * log f_c(masked out)  +  size * mean(M)

``mask-decoder`` masks S = log(1 + |X|), and where the classifier's own features begin with that
transform it is asked by magnitudes, as published. ``audio-mask-decoder`` masks |X|, and the
classifier hears the sound, scaled as it is judged later: what LMAC-TD changed (Mancini, Paissan,
Ravanelli, Subakan 2024, arXiv 2409.08655), without its decoder in the time domain.

Source: Paissan, Ravanelli, Subakan, *Listenable Maps for Audio Classifiers*, ICML 2024, arXiv
2403.13086. Its code sums the term of size over the batch, and weighs it by .4: in batches of 16
that is a weight of 6.4, which is the default here. Differences: there each training clip is mixed
with noise of another data set, here some of them with one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.spectrogram import Domain, phase, synthesise
from l2i.errors import CheckpointError, UsageError
from l2i.models.checkpoint import load_weights, read_domain
from l2i.models.heard import Heard, hear
from l2i.models.mask_decoder import MaskDecoder
from l2i.run.device import epoch_generator
from l2i.training.fitting import best_epoch, in_batches, keep_best
from l2i.training.interpreter import layers_of
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage
from l2i.types import Features, Task

__all__ = ["AUDIO_MASK_DECODER", "MASK_DECODER", "MaskDecoderPart", "MaskDecoderSettings"]


class MaskDecoderSettings(BaseModel):
    """The table ``[parts.mask-decoder]``, or ``[parts.audio-mask-decoder]``."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(2e-4, gt=0, description="Of Adam.")
    weight_decay: float = Field(2e-6, ge=0)
    width: int = Field(256, ge=8, description="Channels at most; no more than the widest map has.")
    convinces: float = Field(4.0, ge=0, description="Weight of the class, masked in.")
    leaves: float = Field(0.2, ge=0, description="Weight of the class, masked out.")
    leaves_by: Literal["log-probability", "log-rest"] = Field(
        "log-probability",
        description="Masked out: log f, as published, without a bound; or -log(1 - f).",
    )
    size: float = Field(6.4, ge=0, description="Weight of the mean of the mask.")
    mixed: float = Field(0.5, ge=0, le=1, description="Share of clips mixed with another one.")
    mixed_db: float = Field(0.0, description="Level of a clip against the one it is mixed with.")


class MaskDecoderPart:
    """A decoder from hidden maps to a mask: a `l2i.training.parts.Part`.

    Parameters
    ----------
    name : str
    linear : bool
        Whether its mask is a gain of |X|, through the sound, or of log(1 + |X|).
    """

    settings = MaskDecoderSettings

    def __init__(self, name: str, *, linear: bool) -> None:
        self.name = name
        self.linear = linear

    def check(self, settings: MaskDecoderSettings, sounds: Sounds, domain: Domain) -> None:
        """Whatever can be heard can be learnt from."""

    def fit(self, settings: MaskDecoderSettings, context: Context, stage: Stage) -> None:
        """Train from where the stage stands, and finish the stage with its best epoch.

        Raises
        ------
        UsageError
            The classifier has no gradients, or no hidden layers that can be read.
        DataError
            The loss is no longer a number.
        """
        clf, sounds, s = context.classifier, context.sounds, settings
        if not clf.differentiable:
            raise UsageError(
                "This classifier has no gradients, through which a mask decoder learns: take "
                "method 'shapley', or wrap it with a front_end in torch."
            )
        layers = layers_of(clf)

        def heard(rows: np.ndarray, mixed: torch.Generator | None = None) -> Heard:
            x = torch.from_numpy(np.array(sounds.waveforms[rows]))
            if mixed is not None:
                x = _mixed(x, s, mixed)
            return _copied(hear(clf, x, context.domain, layers))

        first = heard(sounds.train[:1])
        channels = [m.shape[1] for m in first.features.maps]
        shape: dict[str, Any] = {
            "maps": list(layers),
            "channels": channels,
            "n_bins": context.domain.n_bins,
            "sample_rate": context.domain.sample_rate,
            "width": max(8, min(s.width, max(channels))),
        }
        torch.manual_seed(context.seed)
        network = MaskDecoder(**shape).to(context.device)
        weights = sum(p.numel() for p in network.parameters())
        context.progress.say(f"The {self.name} has {weights / 1e6:.1f} million weights.")
        optimizer = torch.optim.Adam(
            network.parameters(), s.learning_rate, weight_decay=s.weight_decay
        )
        best = stage.restore(optimizer, network=network)
        done = len(stage.history)
        with context.progress.task(self.name, total=s.epochs, unit="epoch", done=done) as bar:
            for epoch in range(done + 1, s.epochs + 1):
                generator = epoch_generator(context.seed, self.name, epoch)
                order = torch.randperm(len(sounds.train), generator=generator)
                network.train()
                total = 0.0
                for some in in_batches(order, s.batch_size):
                    loss = self._loss(network, heard(sounds.train[some.numpy()], generator), s)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    total += float(loss.detach()) * len(some)
                network.eval()
                held = 0.0
                with torch.no_grad():
                    for part in torch.arange(len(sounds.validate)).split(s.batch_size):
                        one = self._loss(network, heard(sounds.validate[part.numpy()]), s)
                        held += float(one) * len(part)
                mean = total / len(order)
                n = len(sounds.validate)
                figures = {"loss": mean, "validation_loss": held / n if n else mean}
                best = keep_best(stage, figures, network, best)
                stage.save(optimizer, best, network=network)
                bar.advance(1, f"validation loss {figures['validation_loss']:.3f}")
        meta = {**shape, "epoch": best_epoch(stage)}
        stage.finish(best, meta, context.domain)

    def _loss(self, network: MaskDecoder, heard: Heard, s: MaskDecoderSettings) -> Tensor:
        mask = network(heard.features.maps, heard.size.shape[2])
        clf = heard.classifier
        own = heard.logits.argmax(1, keepdim=True)
        inside, outside = (self._ask(heard, part) for part in (mask, 1 - mask))
        log = F.logsigmoid if clf.task is Task.MULTI_LABEL else F.log_softmax
        words = {} if clf.task is Task.MULTI_LABEL else {"dim": 1}
        convinces = -log(inside, **words).gather(1, own).mean()
        if s.leaves_by == "log-probability":
            leaves = log(outside, **words).gather(1, own).mean()
        else:
            leaves = -(1 - clf.probabilities(outside).gather(1, own) + 1e-4).log().mean()
        return s.convinces * convinces + s.leaves * leaves + s.size * mask.mean()

    def _ask(self, heard: Heard, mask: Tensor) -> Tensor:
        """Logits [B, C] of what a mask [B, F, T] keeps of clips."""
        clf: Any = heard.classifier
        if self.linear:
            audio = synthesise(heard.spectrum, mask, heard.domain, heard.n_samples)
        else:
            kept = (mask * heard.size.log1p()).expm1()
            # Level: the classifier's front-end is a transform of its own.
            if heard.level is None and hasattr(clf, "logits_of"):
                found: Tensor = clf.logits_of(kept)
                return found
            direction = phase(heard.spectrum, heard.size)
            audio = synthesise(direction, kept, heard.domain, heard.n_samples)
        if audio.requires_grad:
            # Many a front-end takes the root of a power, which has no derivative in silence.
            audio.register_hook(lambda g: g.nan_to_num(0.0, 0.0, 0.0))
        return heard.judge(audio)

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> MaskDecoder:
        """The network, frozen, on the device."""
        read_domain(path, document, context.domain)
        try:
            network = MaskDecoder(
                maps=document["maps"],
                channels=document["channels"],
                n_bins=document["n_bins"],
                sample_rate=document["sample_rate"],
                width=document["width"],
            )
        except KeyError as error:
            raise CheckpointError(f"{path} does not say its {error.args[0]}.") from None
        load_weights(network, tensors, path)
        return network.to(context.device).eval().requires_grad_(False)


MASK_DECODER = MaskDecoderPart("mask-decoder", linear=False)
AUDIO_MASK_DECODER = MaskDecoderPart("audio-mask-decoder", linear=True)


def _mixed(x: Tensor, s: MaskDecoderSettings, generator: torch.Generator) -> Tensor:
    """Some of the clips [B, S], each with another one of them below or above it."""
    chosen = torch.rand(len(x), generator=generator) < s.mixed
    shift = int(torch.randint(1, max(2, len(x)), (), generator=generator))
    other = x.roll(shift, 0)
    power, theirs = (y.square().mean(1, keepdim=True).clamp_min(1e-12) for y in (x, other))
    gain = (power / theirs).sqrt() * 10 ** (-s.mixed_db / 20)
    both = x + gain.clamp(max=1e3) * other
    return torch.where(chosen.unsqueeze(1), both, x)


def _copied(heard: Heard) -> Heard:
    """A copy: what was made for inference takes part in no gradient."""
    features = Features(heard.logits.clone(), tuple(m.float().clone() for m in heard.features.maps))
    return replace(
        heard, spectrum=heard.spectrum.clone(), size=heard.size.clone(), features=features
    )
