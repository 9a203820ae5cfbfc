"""Does the classifier miss what the explanation says matters, and is that enough for it?

y is the clip's probability of the class explained, o the explanation's, q the removal's; all
three of audio, through the classifier's own front-end.

Sources: removal by relevance, Parekh et al. 2022, arXiv 2202.11479; AI, AD and AG, Paissan et al.
2024, arXiv 2403.13086 (after Chattopadhyay et al. 2018 and Zhang et al. 2023). An implementation
in circulation takes the softmax twice in AD; these functions take probabilities and no logits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]

MARGIN = 1e-3
"""By how much an explanation is to be more probable for AI to count it with a margin: rounding
alone makes the whole input more convincing than itself in half of all clips."""


def summary(name: str, probability: NDArray[np.floating], logit: NDArray[np.floating]) -> dict:
    """Median and mean of the falls [N]; NaN where nothing was explained."""
    p, z = (x if len(x) else np.array([np.nan]) for x in (probability, logit))
    return {
        f"{name}_probability": float(np.median(p)),
        f"{name}_probability_mean": float(np.mean(p)),
        f"{name}_logit": float(np.median(z)),
    }


def average_increase(y: Values, o: Values, margin: float = 0.0) -> Values:
    """AI per pair [N]: 100 where the explanation alone is more convincing than the clip, else 0.

    Parameters
    ----------
    y, o : [N]
        Probability of the class explained: of the clip, of the explanation alone.
    margin : float
        By how much more, at least.

    Examples
    --------
    >>> average_increase(np.array([0.5, 0.5]), np.array([0.6, 0.5])).tolist()
    [100.0, 0.0]
    >>> average_increase(np.array([0.5, 0.5]), np.array([0.6, 0.5000001]), MARGIN).tolist()
    [100.0, 0.0]
    """
    return 100.0 * (y + margin < o)


def average_drop(y: Values, o: Values) -> Values:
    """AD per pair [N]: per cent of the probability that the explanation alone loses.

    Where y is 0 there is nothing to lose: 0.

    Examples
    --------
    >>> average_drop(np.array([0.5, 0.5]), np.array([0.4, 0.9])).round(6).tolist()
    [20.0, 0.0]
    """
    lost = np.maximum(y - o, 0.0)
    return 100.0 * np.divide(lost, y, out=np.zeros_like(lost), where=y > 0)


def average_gain(y: Values, o: Values) -> Values:
    """AG per pair [N]: per cent of the missing probability that the explanation alone gains.

    Where y is 1 there is nothing to gain: 0.

    Examples
    --------
    >>> average_gain(np.array([0.5, 1.0]), np.array([0.6, 1.0])).round(6).tolist()
    [20.0, 0.0]
    """
    won, room = np.maximum(o - y, 0.0), 1.0 - y
    return 100.0 * np.divide(won, room, out=np.zeros_like(won), where=room > 0)
