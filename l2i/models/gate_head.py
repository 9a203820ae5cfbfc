"""The network that says which components count, and when: hidden maps to gates.

It reads nothing but the classifier: its hidden maps, and which channels of the deepest one speak
for the class asked for (the class's gradient, averaged over rows and frames, as Grad-CAM has it;
Selvaraju et al. 2017, arXiv 1610.02391). No parameter belongs to a class, so that any class of any
classifier can be asked for, and one that no clip trained it for, too. It does not hear the sound: a
head that does becomes a separator that knows the class's name, and shows the same for whatever
classifier::

    each map [B, D_l, F_l, T_l]     normalised, conv 1x1, ReLU, rows to channels, conv 1
    the deepest map                 the same, each channel weighted by its gradient
    summed over maps at T_1 frames                                  -> [B, width, T_1]
    residual blocks, conv (3) of dilation 1, 2, 4, 8, each modulated by the gradient (FiLM)
    conv (5), resized to T frames                                   -> log odds [B, K, T]
    stretched sigmoid (`gate`)                                      -> gates [B, K, T]

T_1 is the number of frames of the finest map, T / 4 at most. FiLM: Perez et al. 2018, arXiv
1709.07871.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.general import in_rows, in_time

_FRAMES_A_STEP = 4
# In frames of the finest map, of each block.
_DILATIONS = (1, 2, 4, 8)
# Maps of more rows are averaged down to so many.
_MOST_ROWS = 16
_EPS = 1e-8
# Gates begin nearly open: what is lost when they close is felt from there.
_OPEN = 2.0
# Sigmoids are stretched by so much and cut, so that a gate can be wholly open or shut.
_STRETCH = 0.1
_ASKED = 128


def gate(values: Tensor) -> Tensor:
    """Gates in [0, 1] of any numbers: a stretched sigmoid whose gradient goes on where it is cut.

    What a removal leaves at -40 dB is heard by a classifier that scales clips to their peak: a gate
    must be able to shut.
    """
    wide = (1 + 2 * _STRETCH) * values.sigmoid() - _STRETCH
    return wide + (wide.clamp(0, 1) - wide).detach()


class _Reader(nn.Module):
    """A map [B, D, F, T] to [B, width, T_1]."""

    def __init__(self, channels: int, rows: int, inner: int, width: int) -> None:
        super().__init__()
        self.rows = rows
        self.norm = nn.GroupNorm(1, channels, eps=_EPS)
        self.inner = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv1d(inner * rows, width, 1)

    def forward(self, x: Tensor, frames: int, weight: Tensor | None = None) -> Tensor:
        """`weight` [B, D]: of each channel."""
        y = in_rows(in_time(x, min(frames, x.shape[3])), self.rows)
        # Channels first: of maps whose channels are last in memory, as they are kept, the gradient
        # of this normalisation ends the process on a CPU (torch 2.13).
        y = self.norm(y.contiguous())
        if weight is not None:
            y = y * weight[:, :, None, None]
        y = F.relu(self.inner(y))
        return in_time(self.out(y.flatten(1, 2)).unsqueeze(2), frames).squeeze(2)


class _Block(nn.Module):
    """A dilated convolution in time, modulated and added."""

    def __init__(self, width: int, dilation: int, asked: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.GroupNorm(1, width)
        self.film = nn.Linear(asked, 2 * width)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, asked: Tensor) -> Tensor:
        scale, shift = self.film(asked).unsqueeze(2).chunk(2, dim=1)
        y = F.relu(self.norm(self.conv(x)) * (1 + scale) + shift)
        return x + self.mix(y)


class GateHead(nn.Module):
    """Hidden maps, and a class's gradient, to the log odds of gates.

    Parameters
    ----------
    components : int
        K.
    shapes : tuple of (int, int)
        Channels and rows (D_l, F_l) of each map, the deepest last.
    width : int
        Channels of the blocks.
    depths : int
        How many of the deepest maps are read a second time, with each channel weighted by its
        gradient.
    per_clip : bool
        One gate for all frames of a component.
    w : Tensor [F, K], optional
        The dictionary that its learning begins with, if it is learnt with the gates.

    Examples
    --------
    >>> import torch
    >>> head = GateHead(10, ((64, 8), (512, 4)))
    >>> maps = torch.rand(2, 64, 8, 50), torch.rand(2, 512, 4, 12)
    >>> gates = gate(head(maps, (torch.rand(2, 512),), 200))
    >>> gates.shape, bool((gates >= 0).all() and (gates <= 1).all())
    (torch.Size([2, 10, 200]), True)
    """

    def __init__(
        self,
        components: int,
        shapes: tuple[tuple[int, int], ...],
        *,
        width: int = 192,
        depths: int = 1,
        per_clip: bool = False,
        w: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.w = None if w is None else nn.Parameter(w.clone())
        self.shapes = tuple((int(d), int(f)) for d, f in shapes)
        self.depths = min(depths, len(self.shapes))
        self.per_clip = per_clip
        deepest = self.shapes[-1][0]

        def reader(d: int, f: int) -> _Reader:
            return _Reader(d, min(f, _MOST_ROWS), 32 if f > 4 else 64, width)

        self.readers = nn.ModuleList(reader(d, f) for d, f in self.shapes)
        self.evidence = reader(*self.shapes[-1])
        self.finer_evidence = nn.ModuleList(reader(d, f) for d, f in self.shapes[-self.depths : -1])
        self.asked = nn.Sequential(
            nn.Linear(deepest, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        )
        self.blocks = nn.ModuleList(_Block(width, n, _ASKED) for n in _DILATIONS)
        self.out = nn.Conv1d(width, components, 5, padding=2)
        nn.init.constant_(self.out.bias, _OPEN)  # type: ignore[arg-type]

    def forward(
        self, maps: tuple[Tensor, ...], gradients: tuple[Tensor, ...], frames: int
    ) -> Tensor:
        """What one class's gates of each clip are the `gate` of.

        Parameters
        ----------
        maps : tuple of Tensor [B, D_l, F_l, T_l]
        gradients : tuple of Tensor [B, D_l]
            The class's logit by the channels of the deepest maps, of any length.
        frames : int
            T.

        Returns
        -------
        Tensor [B, K, T]
            Any numbers.
        """
        *finer, direction = (F.normalize(g, dim=1) * g.shape[1] ** 0.5 for g in gradients)
        short = min(max(1, frames // _FRAMES_A_STEP), max(x.shape[3] for x in maps))
        y = self.evidence(maps[-1], short, direction)
        weighted = zip(self.finer_evidence, maps[-len(gradients) : -1], finer, strict=True)
        for reader, x, weight in weighted:
            y = y + reader(x, short, weight)
        for reader, x in zip(self.readers, maps, strict=True):
            y = y + reader(x, short)
        asked = self.asked(direction)
        for block in self.blocks:
            y = block(y, asked)
        values = self.out(F.relu(y))
        if self.per_clip:
            values = values.mean(dim=2, keepdim=True)
        return F.interpolate(values, size=frames, mode="linear", align_corners=False)
