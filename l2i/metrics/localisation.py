"""Does an explanation point at the moments when the class sounds? Where those are known.

A frame is active where its energy is within 20 dB of the loudest frame's, so that a clip's level
plays no part; of the class's part as of what the explanation keeps.

What a frame counts for an explanation is the energy that is kept of it. `time_iou` takes the frames
that one hears; `frame_f1` and `frame_auc` ask only in which order they are.

Sources: pointing game, Zhang et al., *Top-down Neural Attention by Excitation Backprop*, IJCV 2018,
arXiv 1608.00507; F1 of frames of attributions, Dumpis, Virtanen 2026, arXiv 2605.23293; the cut at
as many as there are, Manning, Raghavan, Schütze, *Introduction to Information Retrieval*, 2008,
section 8.4 (R-precision).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_RANGE_DB = 20.0


def active_frames(size: Tensor) -> Tensor:
    """Frames within 20 dB of the loudest one, of magnitudes [B, F, T]: [B, T], bool.

    None of silence.

    >>> active_frames(torch.tensor([[[1.0, 0.2, 0.05, 0.0]]])).tolist()
    [[True, True, False, False]]
    """
    energy = size.double().square().sum(dim=1)
    loudest = energy.amax(dim=1, keepdim=True)
    return (energy >= loudest * 10 ** (-_RANGE_DB / 10)) & (energy > 0)


def time_iou(kept: Tensor, part: Tensor) -> Tensor:
    """Active frames that both have, over those that either has.

    Parameters
    ----------
    kept, part : Tensor [B, F, T]
        Magnitudes of the explanation, and of the part that carries the class.

    Returns
    -------
    Tensor [B], float64
        In [0, 1]; NaN where the part is silent.

    Examples
    --------
    >>> part = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    >>> time_iou(torch.tensor([[[0.0, 1.0, 1.0, 0.0]]]), part).round(decimals=4).tolist()
    [0.3333]
    """
    a, b = active_frames(kept), active_frames(part)
    either = (a | b).sum(dim=1).double()
    return torch.where(b.any(dim=1), (a & b).sum(dim=1) / either, torch.nan)


def pointing(kept: Tensor, part: Tensor) -> Tensor:
    """1 where the explanation is loudest while the part is active, else 0.

    Parameters
    ----------
    kept, part : Tensor [B, F, T]
        As for `time_iou`.

    Returns
    -------
    Tensor [B], float64
        0 for an explanation of nothing; NaN where the part is silent.

    Examples
    --------
    >>> part = torch.tensor([[[1.0, 1.0, 0.0]]])
    >>> pointing(torch.tensor([[[0.1, 0.2, 0.3]]]), part).tolist()
    [0.0]
    """
    energy = kept.double().square().sum(dim=1)
    b = active_frames(part)
    hit = b.gather(1, energy.argmax(dim=1, keepdim=True))[:, 0] & energy.any(dim=1)
    return torch.where(b.any(dim=1), hit.double(), torch.nan)


def frame_f1(kept: Tensor, part: Tensor) -> Tensor:
    """F1 of the frames that count most, as many as the part has active ones.

    So the threshold is each clip's own, and no method is better for a lucky one: as many frames are
    named as there are, and precision and recall are the same. Frames that count alike are
    each named in part. Frames of which nothing is kept are never named.

    Parameters
    ----------
    kept, part : Tensor [B, F, T]
        As for `time_iou`.

    Returns
    -------
    Tensor [B], float64
        In [0, 1]; NaN where the part is silent.

    Examples
    --------
    >>> part = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    >>> frame_f1(torch.tensor([[[0.0, 3.0, 2.0, 1.0]]]), part).tolist()
    [0.5]
    """
    energy, b = kept.double().square().sum(dim=1), active_frames(part)
    wanted = b.sum(dim=1, keepdim=True)
    ordered = energy.sort(dim=1, descending=True).values
    threshold = ordered.gather(1, (wanted - 1).clamp_min(0))
    above, level = energy > threshold, (energy == threshold) & (energy > 0)
    room = (wanted - above.sum(dim=1, keepdim=True)).double()
    named = above.double() + level * (room / level.sum(dim=1, keepdim=True).clamp_min(1))
    hits = (named * b).sum(dim=1)
    f1 = 2 * hits / (named.sum(dim=1) + wanted[:, 0]).clamp_min(1)
    return torch.where(b.any(dim=1), f1, torch.nan)


def frame_auc(kept: Tensor, part: Tensor) -> Tensor:
    """Chance that an active frame of the part counts more than another frame.

    That is the area under the ROC curve (Hanley and McNeil 1982); a tie is half a hit.

    Parameters
    ----------
    kept, part : Tensor [B, F, T]
        As for `time_iou`.

    Returns
    -------
    Tensor [B], float64
        In [0, 1], 0.5 by chance; NaN where the part is active in all frames, or in none.

    Examples
    --------
    >>> part = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])
    >>> frame_auc(torch.tensor([[[0.0, 3.0, 2.0, 1.0]]]), part).tolist()
    [0.5]
    """
    from scipy.stats import rankdata

    energy, b = kept.double().square().sum(dim=1).cpu().numpy(), active_frames(part).cpu().numpy()
    rank = rankdata(energy, axis=1)
    n = b.sum(axis=1)
    pairs = n * (b.shape[1] - n)
    won = (rank * b).sum(axis=1) - n * (n + 1) / 2
    auc = np.divide(won, pairs, out=np.full(len(n), np.nan), where=pairs > 0)
    return torch.from_numpy(auc).to(kept.device)
