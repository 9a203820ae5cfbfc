"""Shapley values, amortised: a network that says them at once, of clips it was not trained on.

With the players of a sound (`l2i.models.players`), v(s) the log-odds of a class by the sound that a
coalition s leaves, by a linear gain, and phi what the network says of the players, which adds up to
v(all) - v(none)::

    mean over coalitions    (v(s) - v(none) - s . phi)^2

Coalitions are drawn from the Shapley kernel, with their complements: where phi is free, the loss is
least at the Shapley values. All coalitions of all sounds are heard once, before the first epoch,
with every class's logit; then one class of each sound is asked for in each epoch, in every second
case the one that the classifier decides on. The classifier is asked, and no gradient goes through
it but the class's own, which the network reads.

Source: Jethani, Sudarshan, Covert, Lee, Ranganath, *FastSHAP: Real-Time Shapley Value Estimation*,
ICLR 2022, arXiv 2107.07436. Differences: there players are pixels or features, which are the same
for all inputs, and the network has an output for each class; here they are a clip's own objects,
and the class is asked for by its gradient. There coalitions are drawn anew in each step; here they
are drawn once, since a sound is dearer to mask than a picture.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from l2i.dsp.spectrogram import synthesise
from l2i.errors import CheckpointError, UsageError
from l2i.models.gated import take_apart
from l2i.models.heard import Heard, class_gradients, need_gradients
from l2i.models.players import Players, ShapleyHead, coalitions, players_of, worth
from l2i.run.device import epoch_generator
from l2i.storage import atomic_path
from l2i.training.fitting import in_batches
from l2i.training.interpreter import layers_of
from l2i.training.masks import Hear, Lesson, MaskPart, MaskSettings
from l2i.training.parts import Context
from l2i.training.stage import Stage
from l2i.types import Classifier

# What the classifier hears at once.
_AT_ONCE = 16


class ShapleySettings(MaskSettings):
    """The table ``[parts.shapley-values]``."""

    learning_rate: float = Field(1e-3, gt=0, description="Learning rate of Adam.")
    objects: int = Field(
        16, ge=2, le=64, description="Groups of components, at most, that play in a clip."
    )
    times: int = Field(
        1, ge=1, le=8, description="Stretches of time; each object plays in each of them."
    )
    coalitions: int = Field(
        16,
        ge=1,
        le=512,
        description="Random coalitions per sound; each is heard with its complement.",
    )
    views: int = Field(2, ge=1, le=16, description="Sounds that are made of each training clip.")
    width: int = Field(192, ge=1, description="Units of the hidden layers.")


@dataclass(frozen=True)
class _Played:
    """Coalitions of a batch of sounds, and what the classifier said of them."""

    players: Players
    sets: Tensor  # [B, n, J * Q]
    logits: Tensor  # [B, n, C]


class ShapleyPart(MaskPart):
    """The network of Shapley values; see the module."""

    name = "shapley-values"
    settings = ShapleySettings
    network = ShapleyHead
    # What one training has; set by `fit`.
    w: Tensor
    folder: Path

    def layers(self, classifier: Classifier) -> tuple[str, ...]:
        """All that an interpreter would read."""
        need_gradients(classifier, f"the part {self.name!r}")
        return layers_of(classifier)

    def fit(self, settings: Any, context: Context, stage: Stage) -> None:
        """See `MaskPart.fit`."""
        one = copy.copy(self)
        one.w, one.folder = context.parts["dictionary"], stage.folder / "coalitions"
        super(ShapleyPart, one).fit(settings, context, stage)

    def shape(self, settings: ShapleySettings, first: Heard) -> dict[str, Any]:
        """As wide as the maps, with a value for each component."""
        if self.w.shape[1] * settings.times < 2:
            raise UsageError(
                "One player alone has nothing to share: set dictionary.components to 2 or more."
            )
        return {
            "shapes": [[m.shape[1], m.shape[2]] for m in first.features.maps],
            "components": self.w.shape[1],
            "objects": min(settings.objects, self.w.shape[1]),
            "times": settings.times,
            "width": settings.width,
        }

    def lessons(
        self, network: nn.Module, settings: Any, context: Context, heard: Hear
    ) -> list[Lesson]:
        """All coalitions are played; then comes the only lesson."""
        s, sounds, seed = settings, context.sounds, context.seed
        # Batches stay together, and so do the mixtures that are made of them.
        batches = [
            sounds.train[some.numpy()]
            for view in range(s.views)
            for some in in_batches(
                torch.randperm(
                    len(sounds.train), generator=epoch_generator(seed, self.name, "view", view)
                ),
                s.batch_size,
            )
        ]
        held = [
            sounds.validate[some.numpy()]
            for some in torch.arange(len(sounds.validate)).split(s.batch_size)
        ]

        def sound(n: int) -> Heard:
            if n >= len(batches):
                return heard(held[n - len(batches)], None)
            return heard(batches[n], epoch_generator(seed, self.name, "sounds", n))

        total = len(batches) + len(held)
        played = []
        with context.progress.task("coalitions", total=total, unit="batch") as bar:
            for n in range(total):
                played.append(self._play(n, sound, network, s, seed))
                bar.advance(1)
        with torch.no_grad():
            nothing = torch.zeros(1, sounds.n_samples, device=context.device)
            silence = context.classifier.logits(nothing).clone()

        def loss(n: int, generator: torch.Generator | None) -> Tensor:
            x = sound(n)
            return coalition_loss(network, x, _asked(x.logits, generator), silence, played[n])

        def losses(generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
            for n in torch.randperm(len(batches), generator=generator).tolist():
                yield loss(n, generator), len(batches[n])

        first = {int(rows[0]): len(batches) + n for n, rows in enumerate(held)}
        return [Lesson(s.epochs, losses, lambda rows: loss(first[int(rows[0])], None))]

    @torch.no_grad()
    def _play(self, n: int, sound: Any, network: Any, s: ShapleySettings, seed: int) -> _Played:
        """The coalitions of a batch: those in the stage's folder, where they have been heard."""
        path = self.folder / f"{n}.npz"
        if not path.exists():
            self._hear(path, sound(n), network, s.coalitions, np.random.default_rng([seed, n]))
        with np.load(path) as file:
            owner, there, sets, logits = (
                torch.from_numpy(file[k]).to(self.w.device)
                for k in ("owner", "there", "sets", "logits")
            )
        return _Played(Players(owner, there, network.times), sets.float(), logits)

    def _hear(
        self, path: Path, heard: Heard, network: Any, pairs: int, draw: np.random.Generator
    ) -> None:
        taken = take_apart(heard, self.w)
        players = players_of(taken, network.objects, network.times)
        count = players.there.shape[1]
        sets = np.stack([coalitions(count, pairs, draw) for _ in heard.size])
        logits = []
        for row, own in enumerate(torch.from_numpy(sets).to(self.w.device)):
            for some in own.split(_AT_ONCE):
                at = torch.full((len(some),), row, device=some.device)
                who = Players(players.owner[at], players.there[at], players.times)
                mask = taken.take(at).mask(who.gates(some, heard.size.shape[2]))
                audio = synthesise(heard.spectrum[at], mask, heard.domain, heard.n_samples)
                logits.append(heard.judge(audio, at).float())
        answers = torch.cat(logits).view(*sets.shape[:2], -1)
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                owner=players.owner.cpu().numpy(),
                there=players.there.cpu().numpy(),
                sets=sets.astype(np.uint8),
                logits=answers.cpu().numpy(),
            )

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> Any:
        """The network, frozen, on the device."""
        network = super().load(tensors, document, path, context)
        k = context.parts["dictionary"].shape[1]
        if network.components != k:
            raise CheckpointError(
                f"{path} is for {network.components} components, the dictionary has {k}."
            )
        return network


def _asked(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """One class [B] of each sound: the decision, or in every second case any; without a generator
    the decision."""
    decided = logits.argmax(1)
    if generator is None:
        return decided
    n, c = logits.shape
    drawn = torch.randint(c, (n,), generator=generator).to(decided)
    other = torch.rand(n, generator=generator) < 0.5
    return torch.where(other.to(decided.device), drawn, decided)


def coalition_loss(
    network: nn.Module, heard: Heard, classes: Tensor, silence: Tensor, played: _Played
) -> Tensor:
    """How far the network's values are from what coalitions are worth; see the module.

    Parameters
    ----------
    network : ShapleyHead
    heard : Heard
        B sounds.
    classes : Tensor [B], int64
        The class asked for.
    silence : Tensor [1, C]
        What the classifier says of silence.
    played : _Played
        Their coalitions.
    """
    task, n = heard.classifier.task, played.sets.shape[1]
    nothing = worth(silence.expand(len(classes), -1), classes, task)
    own = worth(played.logits.flatten(0, 1), classes.repeat_interleave(n), task)
    total = worth(heard.logits, classes, task) - nothing
    layer, maps = tuple(network.maps)[-1:], heard.features.maps  # type: ignore[arg-type]
    (gradient,) = class_gradients(heard, layer, maps[-1:], classes)
    values = played.players.values(network(maps, gradient), total)
    predicted = (played.sets @ values.unsqueeze(2)).squeeze(2)
    return (own.view(-1, n) - nothing.unsqueeze(1) - predicted).square().mean()


SHAPLEY_VALUES = ShapleyPart()
