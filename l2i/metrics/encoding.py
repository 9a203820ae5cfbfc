"""Does a mask say the class by its shape alone, whatever is heard under it?

A method that is trained through a classifier can write its decision into the mask, and the
classifier reads it there. A small classifier of masks, without any sound, shows how much can be
read; how much is to be expected is shown by masks that nobody had a hand in.

Source: Jethani et al., *Have We Learned to Explain?*, AISTATS 2021, arXiv 2103.01890.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_RIDGE = 1.0


def read_from(
    features: NDArray[np.floating], classes: NDArray[np.int64], groups: NDArray[np.str_]
) -> NDArray[np.float64]:
    """Whether a linear classifier of features, learnt from the other recordings, says the class.

    Ridge regression of the classes on features of unit variance, with a penalty of one clip's
    weight for each.

    Parameters
    ----------
    features : [N, D]
    classes : int64 [N]
    groups : [N]
        The recording of each; it is left out when its own are judged.

    Returns
    -------
    [N]
        1 or 0; NaN where there is no other recording. Where all features are alike the others'
        most frequent class is said.

    Examples
    --------
    >>> classes = np.array([0, 1, 0, 1, 0, 1])
    >>> each = np.array(list("abcdef"))
    >>> read_from(np.eye(2)[classes], classes, each).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    >>> read_from(np.ones((6, 2)), classes, each).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    x = np.asarray(features, np.float64)
    y = np.eye(int(classes.max()) + 1)[classes] if len(classes) else np.zeros((0, 0))
    correct = np.full(len(x), np.nan)
    for name in np.unique(groups):
        out = groups == name
        if out.all():
            continue
        mean, spread = x[~out].mean(axis=0), x[~out].std(axis=0)
        # What hardly varies tells nothing, and is not to be blown up.
        scale = np.where(spread > 1e-6, spread, np.inf)
        a, b = (x[~out] - mean) / scale, y[~out] - y[~out].mean(axis=0)
        weights = np.linalg.solve(a.T @ a + _RIDGE * np.eye(a.shape[1]), a.T @ b)
        scores = (x[out] - mean) / scale @ weights + y[~out].mean(axis=0)
        correct[out] = scores.argmax(axis=1) == classes[out]
    return correct
