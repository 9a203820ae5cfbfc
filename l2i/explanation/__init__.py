"""Ways to explain a class of a clip: the method, and what it is compared with.

A way is an `ExplanationMethod`: spectrograms and classes in, masks in [0, 1] out; what is heard
is `split_audio` of the mask, whatever made it, and all are judged by the same figures. To add
one: write it in a file of its own here, and name it in `METHODS`;
``tests/contracts/test_methods.py`` asks of every method what the rest of the package relies on:

- masks are within [0, 1], of the spectrogram's shape, without NaN;
- silence is explained by nothing;
- a clip's mask does not depend on its neighbours in the batch;
- the classifier is left as it was.

`listen_to_interpret` is the method this package exists for, its formulas in the paper's order.
`baselines` are the others: gradients and occlusion by Captum, a mask of ones, and as many
components as L2I chooses, drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from l2i.explanation.listen_to_interpret import (
    Explainer,
    audible,
    random_ranks,
    reconstruction,
    relevance,
    select,
    soft_mask,
    split_audio,
)
from l2i.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "METHODS",
    "Explainer",
    "ExplanationMethod",
    "MethodSettings",
    "audible",
    "random_ranks",
    "reconstruction",
    "relevance",
    "select",
    "soft_mask",
    "split_audio",
]


@dataclass(frozen=True, slots=True)
class MethodSettings:
    """What methods are told.

    Attributes
    ----------
    threshold : float
        tau: L2I's, and the random baseline's.
    max_components : int
        0: no limit.
    seed : int
        Of whatever a method draws.
    """

    threshold: float = 0.2
    max_components: int = 0
    seed: int = 0


class ExplanationMethod(Protocol):
    """Spectrograms and classes in, masks out."""

    def __call__(self, spectrum: Tensor, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask of one class of each clip.

        Parameters
        ----------
        spectrum : Tensor [B, F, T], complex
            Of peak-normalised waveforms, as `FrozenClassifier.spectrum` gives it.
        classes : Tensor [B], int64
        keys : sequence of int
            One number per clip. What is random is drawn from it and the seed, so that a clip's
            mask depends neither on its neighbours nor on the order of clips.

        Returns
        -------
        Tensor [B, F, T]
            In [0, 1].
        """
        ...


METHODS: Mapping[str, Callable[[Explainer, MethodSettings], ExplanationMethod]] = Registry(
    "explanation method",
    {
        "l2i": "l2i.explanation.listen_to_interpret:ListenToInterpret",
        "random": "l2i.explanation.baselines:RandomComponents",
        "full": "l2i.explanation.baselines:Full",
        "saliency": "l2i.explanation.baselines:Saliency",
        "smoothgrad": "l2i.explanation.baselines:SmoothGrad",
        "integrated-gradients": "l2i.explanation.baselines:IntegratedGradients",
        "gradcam": "l2i.explanation.baselines:GradCam",
        "occlusion": "l2i.explanation.baselines:Occlusion",
    },
)
