"""Bounds: masks of one who knows the parts of a mixture.

With A and B the spectra of what carries the class and of the rest, and H_a, H_b their activations
under the dictionary W::

    oracle-ratio    |A| / (|A| + |B|)                                the ideal ratio mask
    oracle-nmf      W (G * H) / W H    with gates G = H_a / (H_a + H_b)

The first bounds what any mask of the spectrogram reaches, the second what gates on the components
of this dictionary reach. Where no part carries the class, nothing is kept. No classifier is asked:
an oracle separates sounds, and says nothing of what was heard in them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from l2i.dsp.spectrogram import magnitude, stft
from l2i.errors import UsageError
from l2i.explanation import MethodSettings, Subject
from l2i.explanation.families import AtOnce
from l2i.models.gated import activations_of, take_apart
from l2i.models.heard import Heard


class _Oracle(AtOnce):
    """What both share: the magnitudes of the parts."""

    costly = True
    knows_parts = True
    """It explains mixtures whose parts are known, and nothing else."""
    name = ""

    def sizes(self, heard: Heard) -> tuple[Tensor, Tensor]:
        """``|A|`` and ``|B|`` [B, F, T].

        Raises
        ------
        UsageError
            The parts are not known.
        """
        if heard.parts is None:
            raise UsageError(
                f"Method {self.name!r} needs the known parts of a mixture: give it to 'l2i "
                "overlap', or to 'l2i benchmark --protocol mix0'."
            )
        a, b = (magnitude(stft(part, heard.domain)) for part in heard.parts)
        return a, b


class OracleRatio(_Oracle):
    """The ideal ratio mask."""

    name = "oracle-ratio"

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        a, b = self.sizes(heard)
        return a / (a + b).clamp_min(torch.finfo(a.dtype).tiny)


class OracleNmf(_Oracle):
    """The gates that take the parts apart, on the components of the dictionary."""

    name = "oracle-nmf"
    parts = ("dictionary",)

    def __init__(self, subject: Subject, settings: MethodSettings) -> None:
        self.w: Tensor = subject.parts["dictionary"]

    def mask(self, heard: Heard, classes: Tensor) -> Tensor:
        """Mask [B, F, T], a linear gain."""
        a, b = (activations_of(size.log1p(), self.w) for size in self.sizes(heard))
        gates = a / (a + b).clamp_min(torch.finfo(a.dtype).tiny)
        return take_apart(heard, self.w).mask(gates)
