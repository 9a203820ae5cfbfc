"""The interpreter network for hidden maps of any shape.

The published network (`l2i.models.interpreter`) is made for three maps of one classifier. This one
reads any number of maps of any channels, rows and frame rates; what follows the maps is the
published tail::

    each map [B, D_l, F_l, T_l]      rows and frames averaged down       -> [B, D_l, R, T_1]
                                     normalised, conv 1x1, ReLU          -> [B, 64, R, T_1]
    concatenated                     conv 3x3, ReLU                      -> [B, 128, R, T_1]
                                     conv (R, 1), ReLU                   -> [B, 128, 1, T_1]
                                     resized to T frames, conv (5), conv (5), each ReLU
                                                                         -> [B, K, T]

R is the number of rows of the map that has most, 4 at most. T_1 is the number of frames of the map
that has most, T / 4 at most. Fewer rows or frames are interpolated linearly, more are averaged.
Every frame stands for its share of the clip, so that maps of any rate lie over one another, and one
of a single frame is the same throughout.

Maps are normalised over channels, rows and frames of the clip (GroupNorm of one group): classifiers
give maps of any scale. It keeps no statistics, so that training and evaluation say the same, few
clips are enough, and averaged weights are all that is averaged.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models.interpreter import Psi

_MOST_ROWS = 4
# To a frame of what is computed of the maps there are so many of the spectrogram, at least: the
# published network has eight.
_FRAMES_A_STEP = 4
# Added to a map's variance: maps of any scale are made alike, and rounding is not made loud.
_EPS = 1e-8


@lru_cache(maxsize=64)
def _resizing(old: int, new: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Linear interpolation, or averages where there are fewer, as a matrix [old, new].

    As a matrix, since its gradient is the same from one time to the next on every device.
    """
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        eye = torch.eye(old).unsqueeze(0)
        if new <= old:
            matrix = F.adaptive_avg_pool1d(eye, new)
        else:
            matrix = F.interpolate(eye, size=new, mode="linear", align_corners=False)
        return matrix[0].to(device, dtype)


def in_time(x: Tensor, frames: int) -> Tensor:
    """X [B, C, R, T] with another number of frames."""
    if x.shape[3] == frames:
        return x
    return torch.matmul(x, _resizing(x.shape[3], frames, x.device, x.dtype))


def in_rows(x: Tensor, rows: int) -> Tensor:
    """X [B, C, R, T] with another number of rows."""
    if x.shape[2] == rows:
        return x
    return torch.matmul(_resizing(x.shape[2], rows, x.device, x.dtype).T, x)


class GeneralInterpreter(Psi):
    """Psi for any maps, its pooling and its head Theta.

    Parameters
    ----------
    components : int
        K.
    n_classes : int
        C.
    maps : tuple of str
        The layers read, as words (`l2i.models.axes`), in the order in which they are handed
        over.
    shapes : tuple of (int, int)
        Channels and rows (D_l, F_l) of each.
    pooling : {'attention', 'max'}
    attention_width : int
    skip_silence : bool
        See `l2i.models.interpreter.Psi`.
    width : int
        Channels that each map is brought to.

    Examples
    --------
    >>> shapes = ((64, 8), (512, 1))
    >>> psi = GeneralInterpreter(10, 3, maps=("a=B D F T", "b=B T D"), shapes=shapes)
    >>> interpretation = psi((torch.rand(2, 64, 8, 50), torch.rand(2, 512, 1, 12)), frames=200)
    >>> interpretation.activations.shape, interpretation.logits.shape
    (torch.Size([2, 10, 200]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        components: int,
        n_classes: int,
        *,
        maps: tuple[str, ...],
        shapes: tuple[tuple[int, int], ...],
        pooling: str = "attention",
        attention_width: int = 256,
        skip_silence: bool = False,
        width: int = 64,
    ) -> None:
        super().__init__()
        if not maps or len(maps) != len(shapes):
            raise ValueError(f"{len(maps)} maps and {len(shapes)} shapes: one for each is needed")
        self.maps = tuple(maps)
        self.shapes = tuple((int(d), int(f)) for d, f in shapes)
        self.skip_silence = skip_silence
        self.rows = max(min(_MOST_ROWS, f) for _, f in self.shapes)
        self.norms = nn.ModuleList(nn.GroupNorm(1, d, eps=_EPS) for d, _ in self.shapes)
        self.convs = nn.ModuleList(nn.Conv2d(d, width, 1) for d, _ in self.shapes)
        self.conv2 = nn.Conv2d(width * len(self.shapes), 2 * width, 3, padding=1)
        self.conv6 = nn.Conv2d(2 * width, 2 * width, (self.rows, 1))
        self.conv4 = nn.Conv1d(2 * width, components, 5, padding=2)
        self.conv5 = nn.Conv1d(components, components, 5, padding=2)
        self.end(components, n_classes, pooling, attention_width)

    def activations(self, maps: tuple[Tensor, ...], frames: int) -> Tensor:
        """H [B, K, T], as `Psi` has it; T_l may be any."""
        for word, (d, f), x in zip(self.maps, self.shapes, maps, strict=True):
            if x.shape[1:3] != (d, f):
                raise ValueError(
                    f"the map {word} has {x.shape[1]} channels of {x.shape[2]} rows, not {d} of {f}"
                )
        short = min(max(1, frames // _FRAMES_A_STEP), max(x.shape[3] for x in maps))
        branches = []
        for norm, conv, x in zip(self.norms, self.convs, maps, strict=True):
            # A map that is finer (of raw samples, say) is shortened before anything is computed.
            y = in_time(x, min(short, x.shape[3]))
            y = in_rows(y, min(self.rows, x.shape[2]))
            # Channels first: of maps whose channels are last in memory, as they are kept, the
            # gradient of this normalisation ends the process on a CPU (torch 2.13).
            y = norm(y.contiguous())
            branches.append(in_time(in_rows(F.relu(conv(y)), self.rows), short))
        y = F.relu(self.conv2(torch.cat(branches, dim=1)))
        y = in_time(F.relu(self.conv6(y)), frames).squeeze(2)
        return F.relu(self.conv5(F.relu(self.conv4(y))))
