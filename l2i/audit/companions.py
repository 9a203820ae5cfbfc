"""Sounds of two classes that are taken for a third: a cue that is as loud as the sound it is in.

Where rain comes with every dog, no quiet part of a clip gives it away. What does is a mixture:
clips of two other classes become the class when they are heard together, and by themselves are not.
So the classes nearest to one are mixed, two at a time and with the same energy, and the pair that
raises its probability most is put to proof on other clips. The control is a sound of any further
class in place of either of the two: a class that all mixtures fall into rests on none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.audit.cues import Companion
from l2i.audit.proof import Proof, Read, Trial, p_value
from l2i.audit.settings import Settings
from l2i.dsp.mixing import rms
from l2i.explanation import Subject
from l2i.models.heard import hear

# Classes that are mixed with each other: ten pairs.
_NEAR = 5
_BATCH = 8
# The mean rise of the third one's probability from which on a pair is worth a proof.
_WORTH = 0.5
_NOTHING = np.zeros(0, np.bool_)


@torch.inference_mode()
def screen_companions(
    subject: Subject, label: int, clips: Mapping[int, NDArray[np.int64]], read: Read, s: Settings
) -> Trial | None:
    """The pair of classes whose mixtures are most like a third, if it is worth a proof.

    Parameters
    ----------
    subject : Subject
    label : int
        The third class.
    clips : mapping of int to int64 [N]
        Clips that are taken for a class and not for `label`, by the class, the nearest one first:
        at least ``settings.tried`` of each, of which so many are mixed here.
    read : callable
        Waveforms float32 [B, S] of numbered clips.
    s : Settings
    """
    near = list(clips)[:_NEAR]
    sounds = {c: read(clips[c][: s.tried]) for c in near}
    alone = {c: _sure(subject, x, label) for c, x in sounds.items()}
    trials = []
    for pair in combinations(near, 2):
        a, b = pair
        rise = _sure(subject, mixed(sounds[a], sounds[b]), label) - max(alone[a], alone[b])
        if rise >= _WORTH:
            trials.append(Trial(label, Companion(pair), 0.0, 0.0, rise))
    return max(trials, key=lambda trial: trial.insertion, default=None)


@torch.inference_mode()
def prove_companion(
    subject: Subject,
    trial: Trial,
    own: NDArray[np.int64],
    clips: Mapping[int, NDArray[np.int64]],
    read: Read,
    s: Settings,
    rng: np.random.Generator,
) -> Proof | None:
    """How many mixtures of two classes become the third; None if there is no further class.

    Parameters
    ----------
    subject : Subject
    trial : Trial
        One whose cue is a `Companion`.
    own : int64 [M]
        Clips of the third class, to listen to.
    clips : mapping of int to int64 [N]
        As for `screen_companions`; what was mixed there is not mixed here.
    read : callable
    s : Settings
    rng : numpy.random.Generator
        Draws the sounds of further classes.
    """
    assert isinstance(trial.cue, Companion)
    a, b = trial.cue.pair
    pair = clips[a][s.tried :], clips[b][s.tried :]
    others = np.setdiff1d(np.concatenate([*clips.values()]), np.concatenate([clips[a], clips[b]]))
    n = min(s.proved, *map(len, pair))
    if not n or not len(others):
        return None
    hosts, beside = (x[:n] for x in pair)
    third = rng.choice(others, n)
    flips, control = [], []
    for start in range(0, n, _BATCH):
        some = slice(start, start + _BATCH)
        x, y, z = (read(numbers[some]) for numbers in (hosts, beside, third))
        both, with_x, with_y = (
            _decided(subject, mixed(*two), trial.label) for two in ((x, y), (x, z), (y, z))
        )
        flips.append(both)
        control.append(with_x | with_y)
    into, into_control = np.concatenate(flips), np.concatenate(control)
    p = p_value(into, into_control)
    return Proof(trial, own, hosts, _NOTHING, _NOTHING, into, into_control, p, beside)


def mixed(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Clips [B, S], none of them silent, with others of the same energy, at the level of the first.

    >>> mixed(np.ones((1, 2), np.float32), np.array([[0.5, -0.5]], np.float32)).tolist()
    [[2.0, 0.0]]
    """
    gains = [rms(a) / rms(b) for a, b in zip(x, y, strict=True)]
    return x + y * np.array(gains, np.float32)[:, None]


def _sure(subject: Subject, x: NDArray[np.float32], label: int) -> float:
    return float(subject.classifier.probabilities(_logits(subject, x))[:, label].mean())


def _decided(subject: Subject, x: NDArray[np.float32], label: int) -> NDArray[np.bool_]:
    return subject.classifier.decisions(_logits(subject, x))[:, label].cpu().numpy()


def _logits(subject: Subject, x: NDArray[np.float32]) -> Tensor:
    return hear(subject.classifier, torch.from_numpy(x), subject.domain).logits
