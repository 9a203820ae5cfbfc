"""What an explanation is asked beyond FF and Fid-In: at a stated size, tile by tile, by another
protocol, by another classifier. Those that have the method explain again are in `reexplained`.

A probe is given a `Case`, explanations of some clips, and has a column of values for each of its
figures; their means over pairs are scores of the same name.

Over 300 lines: a probe each of one shape, which are compared by reading them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.dsp.spectrogram import linear_gain
from l2i.errors import UsageError
from l2i.explanation import ExplanationMethod, split_heard
from l2i.metrics import faithfulness
from l2i.metrics.curves import FIXED, SHARES, STATED, ByEnergy
from l2i.metrics.sensitivity import faithfulness_correlation, infidelity, tiles
from l2i.models.heard import Heard, hear
from l2i.types import Classifier

Columns = dict[str, NDArray[Any]]
_BATCH = 16
_SETS = 50


@dataclass(frozen=True)
class Case:
    """Explanations of P clips by one method.

    Attributes
    ----------
    heard : Heard
        P clips.
    classes : Tensor [P], int64
        The class explained.
    mask : Tensor [P, F, T]
    explain : ExplanationMethod
        What made them.
    keys : tuple of int
        What is random of each clip is drawn from it.
    ids : tuple of str
        Each clip's.
    """

    heard: Heard
    classes: Tensor
    mask: Tensor
    explain: ExplanationMethod
    keys: tuple[int, ...]
    ids: tuple[str, ...]

    @cached_property
    def gain(self) -> Tensor:
        """The mask as a linear gain [P, F, T]."""
        return linear_gain(self.mask, self.heard.size, linear=self.explain.linear)

    def take(self, rows: Sequence[int]) -> Case:
        """Some of them."""
        at = list(rows)
        keys, ids = tuple(self.keys[i] for i in at), tuple(self.ids[i] for i in at)
        return Case(self.heard.take(at), self.classes[at], self.mask[at], self.explain, keys, ids)

    def again(
        self, waveform: Tensor, classifier: Classifier | None = None, by: Any = None
    ) -> tuple[Tensor, Heard]:
        """Masks [P, F, T] of the same classes of other sounds [P, S], and these as heard.

        Parameters
        ----------
        waveform : Tensor [P, S]
        classifier : Classifier, optional
            Who hears them, if not the one explained.
        by : ExplanationMethod, optional
            Who explains, if not the same.
        """
        explain = self.explain if by is None else by
        with torch.inference_mode():
            heard = hear(
                classifier or self.heard.classifier, waveform, self.heard.domain, explain.layers
            )
        return explain(heard, self.classes, self.keys), heard


class Probe(Protocol):
    """Figures of explanations, by name; each is a line of `l2i.metrics.METRICS`."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, case: Case) -> Columns:
        """Values [P] of each of `names`; NaN where one is not defined."""


def of_class(classifier: Classifier, logits: Tensor, classes: Tensor) -> NDArray[np.float64]:
    """Probability of one class per clip [P], of logits [P, C]."""
    p = classifier.probabilities(logits)
    return p.gather(1, classes.unsqueeze(1))[:, 0].double().cpu().numpy()


def _decided(classifier: Classifier, logits: Tensor, classes: Tensor) -> NDArray[np.float64]:
    decided = classifier.decisions(logits)
    return decided.gather(1, classes.unsqueeze(1))[:, 0].double().cpu().numpy()


@dataclass(frozen=True)
class OnSome:
    """A probe that is asked of some clips alone, since it takes long; of the others, NaN."""

    probe: Probe
    ids: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """The probe's."""
        return self.probe.names

    def __call__(self, case: Case) -> Columns:
        """Values of the clips that are meant."""
        rows = [i for i, name in enumerate(case.ids) if name in self.ids]
        columns = {name: np.full(len(case.ids), np.nan) for name in self.names}
        if rows:
            for name, values in self.probe(case.take(rows)).items():
                columns[name][rows] = values
        return columns


class Curves:
    """FF and Fid-In at stated sizes, insertion and deletion, sufficiency and comprehensiveness.

    All are of audio, and of the mask as an order of bins; see `l2i.metrics.curves`.
    """

    names = (
        *(f"ff_at_{round(100 * share)}" for share in FIXED),
        *(f"fid_in_at_{round(100 * share)}" for share in FIXED),
        *("insertion", "deletion", "insertion_less_deletion", "sufficiency", "comprehensiveness"),
    )

    @torch.inference_mode()
    def __call__(self, case: Case) -> Columns:
        """Two sounds for each share of `SHARES`."""
        heard, classifier, c = case.heard, case.heard.classifier, case.classes
        order = ByEnergy(case.mask, heard.size)
        y = of_class(classifier, heard.logits, c)
        silence = of_class(classifier, heard.judge(torch.zeros_like(heard.waveform)), c)
        kept, left, columns = [silence], [y], {}
        for share in SHARES[1:-1]:
            audio, removal = split_heard(heard, order.gain(share), linear=True)
            logits = heard.judge(audio)
            kept.append(of_class(classifier, logits, c))
            left.append(of_class(classifier, heard.judge(removal), c))
            if share in FIXED:
                word = f"at_{round(100 * share)}"
                columns[f"ff_{word}"] = y - left[-1]
                columns[f"fid_in_{word}"] = _decided(classifier, logits, c)
        inside, outside = np.stack([*kept, y]), np.stack([*left, silence])
        stated = [SHARES.index(share) for share in STATED]
        columns |= {
            "insertion": np.trapezoid(inside, SHARES, axis=0),
            "deletion": np.trapezoid(outside, SHARES, axis=0),
            "insertion_less_deletion": np.trapezoid(inside - outside, SHARES, axis=0),
            "sufficiency": (y - inside[stated]).mean(axis=0),
            "comprehensiveness": (y - outside[stated]).mean(axis=0),
        }
        return columns


class Attributions:
    """Does the energy that is kept of a tile say what its removal does?

    A tile's attribution is the share of the clip's energy that the explanation has from it; random
    sets of a fifth of the tiles are taken out of the clip, as audio.

    Parameters
    ----------
    seed : int
        The sets'.
    """

    names = ("faithfulness_correlation", "infidelity")

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @torch.inference_mode()
    def __call__(self, case: Case) -> Columns:
        """Fifty removals for each clip."""
        heard, classifier = case.heard, case.heard.classifier
        tile = tiles(heard.size.shape[2], heard.domain).to(heard.size.device)
        count = int(tile.max()) + 1
        kept = (case.gain * heard.size).double().square().flatten(1)
        whole = heard.size.double().square().sum(dim=(1, 2)).clamp_min(1e-300)
        share = torch.zeros(len(kept), count, dtype=torch.float64, device=kept.device)
        share.scatter_add_(1, tile.flatten().expand_as(kept), kept)
        share /= whole.unsqueeze(1)
        y = of_class(classifier, heard.logits, case.classes)
        sums, falls = [], []
        for row, key in enumerate(case.keys):
            rng = np.random.default_rng([self.seed, key])
            sets = torch.zeros(_SETS, count)
            for chosen in sets:
                chosen[rng.permutation(count)[: max(1, count // 5)]] = 1.0
            sets = sets.to(kept.device)
            after = []
            for some in sets.split(_BATCH):
                at = [row] * len(some)
                _, removal = split_heard(heard.take(at), some[:, tile], linear=True)
                after.append(of_class(classifier, heard.judge(removal, at), case.classes[at]))
            sums.append((sets.double() @ share[row]).cpu().numpy())
            falls.append(y[row] - np.concatenate(after))
        a, d = np.stack(sums), np.stack(falls)
        return {
            "faithfulness_correlation": faithfulness_correlation(a, d),
            "infidelity": infidelity(a, d),
        }


class Completeness:
    """Do the relevances of a method that says they add up, add up?

    Such a method has ``relevances_of(heard, classes, keys)``, [P, J], and says by
    ``worth(logits, classes)``, [P], of what. ``completeness_gap`` is
    ``|sum r - (worth(clip) - worth(silence))|``.

    Source of the axiom: Sundararajan, Taly, Yan 2017, arXiv 1703.01365.
    """

    names = ("completeness_gap",)

    def __call__(self, case: Case) -> Columns:
        """One more explanation for each clip; NaN where the method says nothing of the kind."""
        explain: Any = case.explain
        if not hasattr(explain, "relevances_of"):
            return {"completeness_gap": np.full(len(case.ids), np.nan)}
        total = (
            explain.relevances_of(case.heard, case.classes, case.keys).double().flatten(1).sum(1)
        )
        heard, c = case.heard, case.classes
        with torch.inference_mode():
            silence = heard.classifier.logits(torch.zeros_like(heard.waveform))
            wanted = explain.worth(heard.logits, c) - explain.worth(silence, c)
        return {"completeness_gap": (total - wanted.double()).abs().cpu().numpy()}


class SpectrogramProtocol:
    """FF and its kin as others measure them: the masked spectrogram is the classifier's input.

    There is no inverse transform and no scaling to the peak in between. The mask acts as it does
    in audio: on log magnitudes, or as a gain. Only the built-in classifier has such an input.

    Source: the recipe ``ESC50/interpret`` of SpeechBrain, arXiv 2106.04624.
    """

    names = tuple(
        f"spectrogram_{name}"
        for name in ("average_increase", "average_drop", "average_gain", "ff_mean", "fid_in")
    )

    @torch.inference_mode()
    def __call__(self, case: Case) -> Columns:
        """NaN for any classifier but the built-in one."""
        heard, c = case.heard, case.classes
        classifier: Any = heard.classifier
        if heard.level is not None or not hasattr(classifier, "logits_of"):
            return {name: np.full(len(c), np.nan) for name in self.names}
        if case.explain.linear:
            inside, outside = case.mask * heard.size, (1 - case.mask) * heard.size
        else:
            logs = heard.size.log1p()
            inside, outside = (case.mask * logs).expm1(), ((1 - case.mask) * logs).expm1()
        answers = classifier.logits_of(inside)
        y = of_class(classifier, heard.logits, c)
        o = of_class(classifier, answers, c)
        q = of_class(classifier, classifier.logits_of(outside), c)
        values = (
            faithfulness.average_increase(y, o),
            faithfulness.average_drop(y, o),
            faithfulness.average_gain(y, o),
            y - q,
            _decided(classifier, answers, c),
        )
        return dict(zip(self.names, values, strict=True))


class Evaluator:
    """What a classifier says that was not in the loop: explanation and removal, heard by another.

    Only clips count of which both classifiers say the class.

    Parameters
    ----------
    classifier : Classifier
        With the same classes, by name, and the same sample rate.
    own : Classifier
        The one explained.

    Raises
    ------
    UsageError
        It has another sample rate, or no class in common.
    """

    names = ("agreed", "agreed_ff", "other_ff", "other_fid_in", "other_average_increase_margin")

    def __init__(self, classifier: Classifier, own: Classifier) -> None:
        if classifier.sample_rate != own.sample_rate:
            raise UsageError(
                f"The evaluator hears {classifier.sample_rate} Hz and the run's classifier "
                f"{own.sample_rate} Hz: take a run of the same sample rate."
            )
        places = {name: at for at, name in enumerate(classifier.classes)}
        self.places = [places.get(name, -1) for name in own.classes]
        if max(self.places) < 0:
            raise UsageError("The evaluator has no class in common with the run's classifier.")
        self.other = classifier

    @torch.inference_mode()
    def __call__(self, case: Case) -> Columns:
        """The sounds that `judge_masks` has judged, at the clips' level."""
        heard, own = case.heard, case.heard.classifier
        audio, removal = split_heard(heard, case.mask, linear=case.explain.linear)
        level = heard.waveform.abs().amax(dim=1, keepdim=True)
        at = torch.tensor(self.places, device=case.classes.device)[case.classes]
        known = (at >= 0).cpu().numpy()
        at = at.clamp_min(0)
        sounds = (heard.waveform, audio * level, removal * level)
        before, inside, outside = (self.other.logits(x.to(self.other.device)) for x in sounds)
        at = at.to(before.device)
        y, o, q = (of_class(self.other, x, at) for x in (before, inside, outside))
        both = known & (_decided(self.other, before, at) > 0)
        both &= _decided(own, heard.logits, case.classes) > 0
        mine = of_class(own, heard.logits, case.classes)
        fall = mine - of_class(own, heard.judge(removal), case.classes)
        values = {
            "agreed_ff": fall,
            "other_ff": y - q,
            "other_fid_in": _decided(self.other, inside, at),
            "other_average_increase_margin": faithfulness.average_increase(
                y, o, faithfulness.MARGIN
            ),
        }
        return {"agreed": both.astype(float)} | {
            name: np.where(both, v, np.nan) for name, v in values.items()
        }


def columns_of(probes: Iterable[Probe], case: Case) -> Columns:
    """All columns of some probes [P]; NaN for silent clips, of which nothing is explained."""
    sounds = (case.heard.size.amax(dim=(1, 2)) > 0).cpu().numpy()
    columns: Columns = {}
    for probe in probes:
        columns |= {k: np.where(sounds, v, np.nan) for k, v in probe(case).items()}
    return columns
