"""A method of one's own that learns: a decoder from hidden maps to a mask.

    l2i train --dataset demo --method experiments/methods/mask_decoder.py:MaskDecoder
    l2i train ... -o parts.decoder.epochs=20

The classifier is to say the class of the explanation alone, and not to say it of what is left, by
as small a mask as can be: the objective of L-MAC (Paissan, Ravanelli, Subakan 2024, arXiv
2403.13086) in a small network that is told which class is asked for. Here to show how little a
method needs: one file with a part, its settings, and the method.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.dsp.spectrogram import Domain
from l2i.explanation import MethodSettings, Subject, audible, split_audio
from l2i.models.checkpoint import load_weights
from l2i.models.heard import Heard, hear
from l2i.run.device import epoch_generator
from l2i.training.fitting import best_epoch, in_batches, keep_best
from l2i.training.interpreter import layers_of
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage


class Settings(BaseModel):
    """The table ``[parts.decoder]``."""

    epochs: int = 10
    batch_size: int = 8
    learning_rate: float = 2e-3
    width: int = 32
    lambda_out: float = 0.5
    lambda_size: float = 1.0


class Network(nn.Module):
    """The last hidden map and a class to a mask [B, F, T]."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(channels, width, 1)
        self.asked = nn.Embedding(classes, width)
        self.seen = nn.Conv2d(1, width, 3, padding=1)
        self.out = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, map_: Tensor, size: Tensor, classes: Tensor) -> Tensor:
        """Of maps [B, D, F_l, T_l], magnitudes [B, F, T] and classes [B]."""
        heard = self.read(F.relu(map_)) + self.asked(classes)[:, :, None, None]
        wide = F.interpolate(heard, size.shape[1:], mode="bilinear", align_corners=False)
        mask: Tensor = self.out(wide + self.seen(size.log1p().unsqueeze(1)))[:, 0].sigmoid()
        return mask


class Decoder:
    """What the method learns; see `l2i.training.parts.Part`."""

    name = "decoder"
    settings = Settings

    def check(self, settings: Settings, sounds: Sounds, domain: Domain) -> None:
        """Whatever can be heard can be learnt from."""

    def fit(self, settings: Settings, context: Context, stage: Stage) -> None:
        """Train through the audio and the frozen classifier."""
        clf, sounds, s = context.classifier, context.sounds, settings
        layer = layers_of(clf)[-1]

        def batch(rows: np.ndarray) -> tuple[Heard, Tensor]:
            x = torch.from_numpy(np.array(sounds.waveforms[rows]))
            heard = hear(clf, x, context.domain, [layer])
            # Copies: what was made for inference takes part in no gradient.
            return heard.take(torch.arange(len(x))), heard.logits.argmax(1)

        def loss_of(network: nn.Module, heard: Heard, classes: Tensor) -> Tensor:
            mask = network(heard.features.maps[0].clone(), heard.size.clone(), classes.clone())
            parts = split_audio(
                heard.spectrum.clone(), mask, heard.domain, heard.n_samples, linear=True
            )
            inside, outside = (clf.probabilities(heard.judge(part)) for part in parts)
            own = classes.clone().unsqueeze(1)
            kept = (mask * heard.size).sum((1, 2)) / heard.size.sum((1, 2)).clamp_min(1e-9)
            convinces = -inside.gather(1, own).clamp_min(1e-6).log().mean()
            leaves = -(1 - outside.gather(1, own)).clamp_min(1e-6).log().mean()
            return convinces + s.lambda_out * leaves + s.lambda_size * kept.mean()

        first, _ = batch(sounds.train[:1])
        shape = {
            "channels": first.features.maps[0].shape[1],
            "classes": len(clf.classes),
            "width": s.width,
        }
        torch.manual_seed(context.seed)
        network = Network(**shape).to(context.device)
        optimizer = torch.optim.Adam(network.parameters(), s.learning_rate)
        best = stage.restore(optimizer, network=network)
        done = len(stage.history)
        with context.progress.task(self.name, total=s.epochs, unit="epoch", done=done) as bar:
            for epoch in range(done + 1, s.epochs + 1):
                generator = epoch_generator(context.seed, self.name, epoch)
                order = torch.randperm(len(sounds.train), generator=generator)
                total = 0.0
                for some in in_batches(order, s.batch_size):
                    loss = loss_of(network, *batch(sounds.train[some.numpy()]))
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    total += float(loss.detach()) * len(some)
                with torch.no_grad():
                    held = float(loss_of(copy.deepcopy(network), *batch(sounds.validate)))
                figures = {"loss": total / len(order), "validation_loss": held}
                best = keep_best(stage, figures, network, best)
                stage.save(optimizer, best, network=network)
                bar.advance(1, f"validation loss {held:.3f}")
        stage.finish(best, {**shape, "layer": layer, "epoch": best_epoch(stage)}, context.domain)

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> tuple[Network, str]:
        """The network and the layer that it reads."""
        network = Network(document["channels"], document["classes"], document["width"])
        load_weights(network, tensors, path)
        return network.to(context.device).eval().requires_grad_(False), document["layer"]


class MaskDecoder:
    """The method: what it learns, what it reads, and its mask."""

    parts = (Decoder(),)
    linear = True

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.network, layer = subject.parts["decoder"]
        self.layers = (layer,)

    @torch.inference_mode()
    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask [B, F, T]; of silence, zero."""
        mask: Tensor = self.network(heard.features.maps[0], heard.size, classes)
        return mask * audible(heard.size).view(-1, 1, 1)
