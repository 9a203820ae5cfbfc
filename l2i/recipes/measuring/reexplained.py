"""Probes that have a method explain again: a sound that hardly differs, another class, a classifier
that has forgotten all."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from l2i.dsp.mixing import db_to_gain
from l2i.explanation import MethodSettings, Subject, make_method
from l2i.metrics.sensitivity import cosine_distance, rank_correlation, relative_change, ssim
from l2i.recipes.measuring.judging import ABSENT_SCORES, judge_absent
from l2i.recipes.measuring.probes import Case, Columns
from l2i.types import Classifier

_DRAWS = 10
_RADIUS = 0.02
_SNRS_DB = (30, 20, 10)
_SHIFT_S = 0.5
_SOFTER_DB = -20.0


def _numbers(x: Tensor) -> NDArray[np.float64]:
    return x.double().cpu().numpy()


class Stability:
    """What becomes of a mask when the sound hardly differs, and is taken for the same class.

    - ``max_sensitivity``: the greatest relative change over ten sounds with noise of 2 % of the
      clip's norm;
    - ``stability_30``, ``_20``, ``_10``: rank correlation with white noise that many dB below;
    - ``shift_change``: 1 less the cosine with the mask of the clip rotated by half a second,
      rotated back;
    - ``gain_change``: relative change of the mask of the clip 20 dB softer.

    Parameters
    ----------
    seed : int
        The noise's.
    """

    names = (
        "max_sensitivity",
        *(f"stability_{snr}" for snr in _SNRS_DB),
        *("shift_change", "gain_change"),
    )

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, case: Case) -> Columns:
        """Fifteen more explanations for each clip; NaN where the class is no longer said."""
        x, mask = case.heard.waveform, case.mask
        norm = x.norm(dim=1, keepdim=True)
        changes = []
        for draw in range(_DRAWS):
            other, stays = self._again(case, x + _RADIUS * norm * self._noise(case, draw))
            changes.append(np.where(stays, _numbers(relative_change(other, mask)), -np.inf))
        greatest = np.max(changes, axis=0)
        columns = {"max_sensitivity": np.where(np.isfinite(greatest), greatest, np.nan)}
        for snr in _SNRS_DB:
            noise = db_to_gain(-snr) * norm * self._noise(case, _DRAWS + snr)
            other, stays = self._again(case, x + noise)
            columns[f"stability_{snr}"] = np.where(stays, rank_correlation(other, mask), np.nan)
        hop, n = case.heard.domain.hop_length, x.shape[1]
        frames = min(round(_SHIFT_S * case.heard.domain.sample_rate / hop), n // hop // 2)
        other, stays = self._again(case, x.roll(frames * hop, dims=1))
        # The frame after the last whole hop is the first one again.
        around = slice(0, max(1, n // hop))
        back = other[:, :, around].roll(-frames, dims=2)
        away = _numbers(cosine_distance(back, mask[:, :, around]))
        columns["shift_change"] = np.where(stays, away, np.nan)
        other, stays = self._again(case, db_to_gain(_SOFTER_DB) * x)
        columns["gain_change"] = np.where(stays, _numbers(relative_change(other, mask)), np.nan)
        return columns

    def _noise(self, case: Case, number: int) -> Tensor:
        """White noise of norm 1 [P, S], each clip's its own."""
        n = case.heard.n_samples
        draws = [
            np.random.default_rng([self.seed, key, number]).standard_normal(n) for key in case.keys
        ]
        x = torch.from_numpy(np.stack(draws).astype(np.float32)).to(case.heard.waveform.device)
        return x / x.norm(dim=1, keepdim=True)

    @staticmethod
    def _again(case: Case, x: Tensor) -> tuple[Tensor, NDArray[np.bool_]]:
        other, heard = case.again(x)
        decided = heard.classifier.decisions(heard.logits)
        return other, decided.gather(1, case.classes.unsqueeze(1))[:, 0].cpu().numpy()


class Contrast:
    """Does another class get another explanation?

    ``contrast_next`` is 1 less the cosine with the mask of the most probable other class,
    ``contrast_absent`` with that of the least probable one.
    """

    names = ("contrast_next", "contrast_absent")

    def __call__(self, case: Case) -> Columns:
        """Two more explanations for each clip; NaN where the classifier has one class."""
        if case.heard.logits.shape[1] < 2:
            return {name: np.full(len(case.ids), np.nan) for name in self.names}
        columns = {}
        for word, classes in zip(("next", "absent"), _others(case), strict=True):
            mask = case.explain(case.heard, classes, case.keys)
            columns[f"contrast_{word}"] = _numbers(cosine_distance(mask, case.mask))
        return columns


class Absent:
    """Is nothing kept for a class that is not there? See `judge_absent`.

    Parameters
    ----------
    seed : int
        Decides which of the absent classes is asked for.
    """

    names = ABSENT_SCORES

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, case: Case) -> Columns:
        """One more explanation for each clip."""

        def mask_of(rows: list[int], classes: Tensor) -> Tensor:
            return case.explain(case.heard.take(rows), classes, [case.keys[i] for i in rows])

        return judge_absent(
            case.heard, case.classes, case.keys, self.seed, mask_of, linear=case.explain.linear
        )


def _others(case: Case) -> tuple[Tensor, Tensor]:
    """The most probable class but the one explained, and the least probable one [P] each."""
    own = case.classes.unsqueeze(1)
    logits = case.heard.logits
    most = logits.scatter(1, own, -torch.inf).argmax(dim=1)
    return most, logits.scatter(1, own, torch.inf).argmin(dim=1)


class Randomised:
    """Is the classifier read at all? The same method, when the classifier has forgotten all.

    ``randomised`` is the rank correlation of the masks by a classifier whose weights are shuffled
    with those by the classifier itself, and is to fall to that of masks that have nothing to do
    with one another: ``randomised_control``, of another clip. ``randomised_class`` is that of the
    most probable other class. Where a method has gates (``gates_of(heard, classes)``, [B, K, T]),
    theirs stand beside them. ``randomised_ssim`` sees the masks as pictures.

    Parameters
    ----------
    method : str
    subject : Subject
    settings : MethodSettings
    """

    def __init__(self, method: str, subject: Subject, settings: MethodSettings) -> None:
        self.classifier = shuffled(subject.classifier, settings.seed)
        self.explain: Any = None
        if self.classifier is not None:
            other = replace(subject, classifier=self.classifier)
            self.explain = make_method(method, other, settings)
        names = ["randomised", "randomised_control", "randomised_class", "randomised_ssim"]
        if hasattr(self.explain, "gates_of"):
            names += ["randomised_gates", "randomised_gates_control", "randomised_gates_class"]
        self.names = tuple(names)

    def __call__(self, case: Case) -> Columns:
        """Two more explanations for each clip; NaN for a classifier without weights."""
        columns = {name: np.full(len(case.ids), np.nan) for name in self.names}
        if self.classifier is None:
            return columns
        mask, heard = case.again(case.heard.waveform, self.classifier, self.explain)
        columns["randomised"] = rank_correlation(mask, case.mask)
        columns["randomised_control"] = control(case, case.mask)
        if min(mask.shape[1:]) >= 7:
            columns["randomised_ssim"] = _numbers(ssim(mask, case.mask))
        several = case.heard.logits.shape[1] > 1
        if several:
            other = case.explain(case.heard, _others(case)[0], case.keys)
            columns["randomised_class"] = rank_correlation(other, case.mask)
        if "randomised_gates" in self.names:
            explain: Any = case.explain
            own = explain.gates_of(case.heard, case.classes)
            gates = self.explain.gates_of(heard, case.classes)
            columns["randomised_gates"] = rank_correlation(gates, own)
            columns["randomised_gates_control"] = control(case, own)
            if several:
                other = explain.gates_of(case.heard, _others(case)[0])
                columns["randomised_gates_class"] = rank_correlation(other, own)
        return columns


def shuffled(classifier: Classifier, seed: int) -> Classifier | None:
    """A classifier that has forgotten what it learnt: a copy, weights shuffled within each tensor.

    Sizes and distributions of the weights are as they were, so that nothing but what was learnt is
    gone. An explanation that stays as it was did not come from there.

    Source: Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018, arXiv 1810.03292.

    Parameters
    ----------
    classifier : Classifier
        Left as it is.
    seed : int

    Returns
    -------
    Classifier or None
        None where it has no weights that could be shuffled: a black box.
    """
    names = [name for name, value in vars(classifier).items() if isinstance(value, nn.Module)]
    if not any(True for name in names for _ in getattr(classifier, name).parameters()):
        return None
    shuffled = deepcopy(classifier)
    # A module may hold another one: each tensor is shuffled once.
    weights = {id(w): w for name in names for w in getattr(shuffled, name).parameters()}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for w in weights.values():
            order = torch.randperm(w.numel(), generator=generator)
            w.copy_(w.flatten()[order.to(w.device)].view_as(w))
    return shuffled


def control(case: Case, own: Tensor) -> NDArray[np.float64]:
    """Rank correlation [P] of each mask, or gates, with those of the next clip of the batch.

    NaN where the batch has no other clip.
    """
    correlations = np.full(len(case.ids), np.nan)
    for row, name in enumerate(case.ids):
        ahead = [*range(row + 1, len(case.ids)), *range(row)]
        other = next((i for i in ahead if case.ids[i] != name), None)
        if other is not None:
            correlations[row] = rank_correlation(own[[row]], own[[other]])[0]
    return correlations
