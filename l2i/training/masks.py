"""What the parts share that learn a network from hidden maps to a mask."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from l2i.dsp.spectrogram import Domain
from l2i.errors import CheckpointError
from l2i.models.checkpoint import load_weights, read_domain
from l2i.models.heard import Heard, hear
from l2i.models.optimizers import Adam
from l2i.run.device import epoch_generator
from l2i.training.fitting import best_epoch, in_batches, keep_best
from l2i.training.interpreter import layers_of
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage
from l2i.types import Classifier

# What a checkpoint says beside the shape of its network.
_NOT_SHAPE = ("epoch", "history", "format", "kind", "spectrogram")


class MaskSettings(BaseModel):
    """Settings that all of them have."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(40, ge=1)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(2e-4, gt=0, description="Learning rate of Adam.")
    weight_decay: float = Field(2e-6, ge=0)
    mixed: float = Field(0.5, ge=0, le=1, description="Share of clips mixed with another one.")
    mixed_db: float = Field(0.0, description="Level of a clip against the one it is mixed with.")


Hear = Callable[[np.ndarray, torch.Generator | None], Heard]
"""Rows of the sounds, and what draws mixtures of them (none: as they are), to clips heard."""


@dataclass(frozen=True)
class Lesson:
    """Epochs that learn by one loss.

    Attributes
    ----------
    epochs : int
    losses : callable
        What draws an epoch -> the loss of each of its batches, and of how many clips.
    held : callable
        Rows of some validation clips -> their loss.
    """

    epochs: int
    losses: Callable[[torch.Generator], Iterator[tuple[Tensor, int]]]
    held: Callable[[NDArray[np.int64]], Tensor]


def clip_lesson(
    epochs: int, loss: Callable[[Heard], Tensor], train: NDArray[np.int64], size: int, heard: Hear
) -> Lesson:
    """A lesson of which each epoch has each training clip once, in batches of `size`."""

    def losses(generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
        order = torch.randperm(len(train), generator=generator)
        for some in in_batches(order, size):
            yield loss(heard(train[some.numpy()], generator)), len(some)

    return Lesson(epochs, losses, lambda rows: loss(heard(rows, None)))


class MaskPart:
    """A network from hidden maps to a mask: a `l2i.training.parts.Part`.

    One that inherits says what network it is, and its loss; which layers it reads, if not all; and
    what shape the network has, if its constructor takes anything else than `shape` has by itself.
    """

    name = ""
    settings: type[MaskSettings] = MaskSettings
    network: type[nn.Module]

    def layers(self, classifier: Classifier) -> tuple[str, ...]:
        """Those that the network reads: all that an interpreter would."""
        return layers_of(classifier)

    def shape(self, settings: Any, first: Heard) -> dict[str, Any]:
        """What the network is made with, beside the names of its ``maps``: what its constructor
        takes of the settings, of a clip that was heard, and of where its masks live."""
        known = {
            **settings.model_dump(),
            "channels": [m.shape[1] for m in first.features.maps],
            "n_classes": first.logits.shape[1],
            "n_bins": first.domain.n_bins,
            "sample_rate": first.domain.sample_rate,
            "hop_length": first.domain.hop_length,
        }
        return {k: known[k] for k in inspect.signature(self.network).parameters if k != "maps"}

    def loss(self, network: nn.Module, heard: Heard, settings: Any) -> Tensor:
        """The loss of a batch of clips."""
        raise NotImplementedError

    def lessons(
        self, network: nn.Module, settings: Any, context: Context, heard: Hear
    ) -> list[Lesson]:
        """What is learnt, one after the other; the best epoch is one of the last lesson's."""
        train, size = context.sounds.train, settings.batch_size
        loss = partial(self.loss, network, settings=settings)
        return [clip_lesson(settings.epochs, loss, train, size, heard)]

    def check(self, settings: Any, sounds: Sounds, domain: Domain) -> None:
        """Whatever can be heard can be learnt from."""

    def fit(self, settings: Any, context: Context, stage: Stage) -> None:
        """Train from where the stage stands, and finish the stage with its best epoch.

        Raises
        ------
        UsageError
            The classifier has no hidden layers that can be read.
        DataError
            The loss is no longer a number.
        """
        clf, sounds, s = context.classifier, context.sounds, settings
        layers = self.layers(clf)

        def heard(rows: np.ndarray, mixed: torch.Generator | None) -> Heard:
            x = torch.from_numpy(np.array(sounds.waveforms[rows]))
            if mixed is not None:
                x = _mixed(x, s, mixed)
            return hear(clf, x, context.domain, layers).copied()

        shape = {"maps": list(layers), **self.shape(s, heard(sounds.train[:1], None))}
        torch.manual_seed(context.seed)
        network = self.network(**shape).to(context.device)
        weights = sum(p.numel() for p in network.parameters())
        context.progress.say(f"The {self.name} has {weights / 1e6:.1f} million weights.")
        optimizer = Adam(network.parameters(), s.learning_rate, weight_decay=s.weight_decay)
        best = stage.restore(optimizer, network=network)
        done = len(stage.history)
        lessons = self.lessons(network, s, context, heard)
        lesson_of = [lesson for lesson in lessons for _ in range(lesson.epochs)]
        epochs = len(lesson_of)
        since = epochs - lessons[-1].epochs
        with context.progress.task(self.name, total=epochs, unit="epoch", done=done) as bar:
            for epoch in range(done + 1, epochs + 1):
                generator = epoch_generator(context.seed, self.name, epoch)
                # What a loss draws for itself, a repeated epoch draws again.
                torch.manual_seed(generator.initial_seed())
                lesson = lesson_of[epoch - 1]
                network.train()
                total, count = 0.0, 0
                for loss, clips in lesson.losses(generator):
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    total += float(loss.detach()) * clips
                    count += clips
                network.eval()
                held = 0.0
                with torch.no_grad():
                    for part in torch.arange(len(sounds.validate)).split(s.batch_size):
                        held += float(lesson.held(sounds.validate[part.numpy()])) * len(part)
                mean = total / count
                n = len(sounds.validate)
                figures = {"loss": mean, "validation_loss": held / n if n else mean}
                best = keep_best(stage, figures, network, best, since=since)
                stage.save(optimizer, best, network=network)
                bar.advance(1, f"validation loss {figures['validation_loss']:.3f}")
        stage.finish(best, {**shape, "epoch": best_epoch(stage, since=since)}, context.domain)

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> Any:
        """The network, frozen, on the device."""
        read_domain(path, document, context.domain)
        told = {k: v for k, v in document.items() if k not in _NOT_SHAPE}
        try:
            network = self.network(**told)
        except TypeError:
            raise CheckpointError(
                f"{path} does not say how large its network is: it is damaged, or of another l2i."
            ) from None
        load_weights(network, tensors, path)
        return network.to(context.device).eval().requires_grad_(False)


def _mixed(x: Tensor, s: MaskSettings, generator: torch.Generator) -> Tensor:
    """Some of the clips [B, S], each with another one of them below or above it."""
    chosen = torch.rand(len(x), generator=generator) < s.mixed
    other = x.roll(int(torch.randint(1, max(2, len(x)), (), generator=generator)), 0)
    power, theirs = (y.square().mean(1, keepdim=True).clamp_min(1e-12) for y in (x, other))
    gain = (power / theirs).sqrt() * 10 ** (-s.mixed_db / 20)
    both = x + gain.clamp(max=1e3) * other
    return torch.where(chosen.unsqueeze(1), both, x)
