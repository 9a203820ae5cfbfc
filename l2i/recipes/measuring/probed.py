"""Which probes there are for a method, and what becomes of their columns at the end: one reads the
class from masks alone, needs them all, and answers then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.dsp.spectrogram import kept_energy
from l2i.explanation import METHODS, MethodSettings, Subject
from l2i.metrics.curves import ByEnergy
from l2i.metrics.encoding import read_from
from l2i.metrics.sensitivity import tiles
from l2i.recipes.measuring.probes import (
    Attributions,
    Case,
    Columns,
    Completeness,
    Curves,
    OnSome,
    Probe,
    SpectrogramProtocol,
)
from l2i.recipes.measuring.reexplained import Contrast, Randomised, Stability


def all_probes(
    subject: Subject, method: str, settings: MethodSettings, again: frozenset[str]
) -> list[Probe]:
    """All there are; of `again`, ids of scenes, those that have the method explain again."""
    probes: list[Probe] = [Curves(), Attributions(settings.seed), Encoding()]
    if hasattr(subject.classifier, "logits_of") and subject.domain == getattr(
        subject.classifier, "domain", None
    ):
        probes.append(SpectrogramProtocol())
    # An oracle knows the parts of these mixtures, and of no sound that hardly differs from them.
    if again and not getattr(METHODS[method], "knows_parts", False):
        if hasattr(METHODS[method], "relevances_of"):
            probes.append(OnSome(Completeness(), again))
        for probe in (Stability(settings.seed), Contrast(), Randomised(method, subject, settings)):
            probes.append(OnSome(probe, again))
    return probes


def finished(
    rows: dict[str, NDArray[Any]], probes: Sequence[Probe], groups: NDArray[Any]
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Rows with the columns that come when all clips are seen, and the names of probes' scores.

    Parameters
    ----------
    rows : dict of str to array [P]
    probes : sequence of Probe
        That have seen the clips.
    groups : array [P]
        The recording of each row.
    """
    names = [name for probe in probes for name in probe.names]
    for probe in probes:
        if isinstance(probe, Encoding):
            columns = probe.finish(groups)
            rows = rows | columns
            names += columns
    if "other_ff" in names:
        names.append("transfer")
    return rows, names


class Encoding:
    """Can the class be read from the mask, without the sound?

    ``encoded`` is the share of clips whose class a linear classifier says of the mask's means in 64
    tiles, learnt from the other recordings' masks; ``encoded_control`` is the same of masks that
    have the loudest bins, of the same energy: what differs from it is not of the sound's level.
    """

    names = ()

    def __init__(self) -> None:
        self._features: list[NDArray[Any]] = []
        self._classes: list[NDArray[Any]] = []
        self._sounds: list[NDArray[Any]] = []

    @torch.inference_mode()
    def __call__(self, case: Case) -> Columns:
        """Nothing yet."""
        heard = case.heard
        tile = tiles(heard.size.shape[2], heard.domain).to(heard.size.device)
        kept = kept_energy(case.gain, heard.size).nan_to_num(0.0)
        order = ByEnergy(heard.size, heard.size)
        loudest = [order.gain(share)[i] for i, share in enumerate(kept.tolist())]
        both = torch.stack([_means(case.mask, tile), _means(torch.stack(loudest), tile)], dim=1)
        self._features.append(both.cpu().numpy())
        self._classes.append(case.classes.cpu().numpy())
        self._sounds.append((heard.size.amax(dim=(1, 2)) > 0).cpu().numpy())
        return {}

    def finish(self, groups: NDArray[np.str_]) -> Columns:
        """Columns ``encoded`` and ``encoded_control`` [P], of all masks that were seen; NaN for
        silent clips.

        Parameters
        ----------
        groups : [P]
            The recording of each, in their order.
        """
        if not self._features:
            return {"encoded": np.zeros(0), "encoded_control": np.zeros(0)}
        features, classes = np.concatenate(self._features), np.concatenate(self._classes)
        sounds = np.concatenate(self._sounds)
        columns = {name: np.full(len(classes), np.nan) for name in ("encoded", "encoded_control")}
        for i, values in enumerate(columns.values()):
            values[sounds] = read_from(features[sounds, i], classes[sounds], groups[sounds])
        return columns


def _means(mask: Tensor, tile: Tensor) -> Tensor:
    """Mean of each tile [P, tiles]; 0 where a tile has no bin."""
    count = int(tile.max()) + 1
    flat, at = mask.flatten(1).double(), tile.flatten()
    sums = torch.zeros(len(flat), count, dtype=torch.float64, device=flat.device)
    sums.index_add_(1, at, flat)
    return sums / torch.bincount(at, minlength=count).clamp_min(1)
