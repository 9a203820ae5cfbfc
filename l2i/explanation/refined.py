"""Gated L2I, refined: a few steps of descent from the gates that were read.

The head of `l2i.explanation.gated` says at once which components count. How far they must be
opened for *this* clip it knows from other clips; the classifier itself knows it of this one. So
log odds are shifted by d, one number for each component and second, found by descent through the
classifier, from zero, on what `l2i.explanation.gates` makes least: the explanation is to be as
probable as the clip, the removal improbable, and what is kept small. Where gates were trained to
let through all that convinces (the preset ``source``), size does not count, and the explanation is
to be more probable than the clip. Where a class may be one of several, and is there, size counts
little. For a class that no clip trained the gates for, all of them begin open, and there are more
steps.

Numbers are few, so that there is little room for masks that fool the classifier: with four a second
instead of one, removals take more off the class as the classifier explained has it, and less as
another classifier of the same clips does.

Answers that are learnt, refined by descent on each example, are known as semi-amortised (Kim,
Wiseman, Miller, Sontag, Rush 2018, arXiv 1802.02550).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.explanation.gated import GatedL2I
from l2i.models.answers import log_odds, objective
from l2i.models.gate_head import gate
from l2i.models.gated import split_sounds
from l2i.models.heard import Heard, hear
from l2i.models.optimizers import Adam

# Chosen by validation clips of ESC-10's fold 1, alone and mixed.
_STEPS, _RATE, _PIECE_S = 10, 1.0, 1.0
# The weights of `objective`; those of `source` chosen by mixtures of fold 3.
_WEIGHTS = {
    "evidence": {"size": 8.0, "margin": 3.0},
    "source": {"size": 0.0, "margin": 3.0, "surer": 3.0},
}
# That of size, of a class that is there, where it may be one of several: what a class has in common
# with others is missed less. By validation clips of demo-multilabel.
_SIZE_OF_SEVERAL = 1.0
# A gate is wholly open or shut from 2.4 on; one whose log odds are far beyond could not be moved.
_ODDS = 4.0
# Where there is nothing to go on from: all gates begin open, as those without training.
_OPEN, _STEPS_FROM_OPEN = 2.0, 25


class RefinedGates(GatedL2I):
    """The method as one of several: see `l2i.explanation.ExplanationMethod`.

    Attributes
    ----------
    for_many : str
        The method in whose place it is where there are very many clips: it takes a second for each.
    """

    for_many = "gated-l2i"

    def untrained(self, name: str) -> bool:
        """No: a class that no clip trained is found by descent alone."""
        return False

    def gates_of(self, heard: Heard, classes: Tensor) -> Tensor:
        """Gates [B, K, T] in [0, 1] of one class of each clip, refined."""
        # Clip by clip, each heard alone, as by `gates`: what is heard in a batch differs by
        # rounding, of which descent may make much.
        alone = zip(heard.waveform.split(1), classes.split(1), strict=True)
        return torch.cat(
            [
                self._refined(hear(heard.classifier, x, heard.domain, self.layers), c)
                for x, c in alone
            ]
        )

    def _refined(self, heard: Heard, classes: Tensor) -> Tensor:
        """Gates [1, K, T] of one clip."""
        clf, domain = heard.classifier, heard.domain
        # Copies: tensors that were made for inference take part in no gradient.
        with torch.inference_mode(False):
            heard, classes = heard.copied(), classes.clone()
            with torch.no_grad():
                taken = self.gating.take_apart(heard)
                if self.gating.untrained(clf.classes[int(classes)]):
                    odds, steps = torch.full_like(taken.activations, _OPEN), _STEPS_FROM_OPEN
                else:
                    odds = self.gating.log_odds(heard, classes) + self.gating.shift
                    odds, steps = odds.clamp(-_ODDS, _ODDS), _STEPS
                target = log_odds(heard.logits, classes, clf.task)
            frames = odds.shape[2]
            seconds = frames * domain.hop_length / domain.sample_rate
            pieces = max(2, round(seconds / _PIECE_S))
            shift = torch.zeros(1, odds.shape[1], pieces, device=odds.device, requires_grad=True)
            optimizer = Adam([shift], _RATE)
            weights = dict(_WEIGHTS[self.gating.preset])
            if clf.task == "multi-label" and float(target) > 0:
                weights["size"] = min(weights["size"], _SIZE_OF_SEVERAL)

            def gates() -> Tensor:
                over_time = F.interpolate(shift, size=frames, mode="linear", align_corners=True)
                return gate(odds + over_time)

            with torch.enable_grad():
                for _ in range(steps):
                    mask = self.gating.gain(taken, gates(), heard.size)
                    z = log_odds(
                        heard.judge(split_sounds(heard, mask), [0, 0]), classes.repeat(2), clf.task
                    )
                    kept = (mask * heard.size).sum() / heard.size.sum().clamp_min(1e-12)
                    loss = objective(z[:1], z[1:], target, kept, **weights)
                    optimizer.zero_grad()
                    loss.sum().backward()
                    optimizer.step()
            with torch.no_grad():
                return gates()
