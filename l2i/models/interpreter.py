"""The interpreter network: hidden maps -> activations H -> pooled z -> logits g(x) = Theta z.

The published network, in the paper's order, for the maps of a 5 s clip (T1 = 13 frames of the
512-channel map, rows = 4 of its mel rows; every convolution is followed by ReLU)::

    x512 [B, 512,  4, 13]  up 2, conv7 3x3, up 2            -> [B, 128, 4,  52]
    x256 [B, 256,  8, 26]  up 2, conv1 3x3, mean of 2 rows  -> [B, 256, 4,  52]
    x128 [B, 128, 16, 52]  conv8 (4,1) stride (4,1)         -> [B, 128, 4,  52]
    concatenated, up 2, conv2 3x3                           -> [B, 256, 4, 104]
    up 2, conv6 (4,1)                                       -> [B, 256, 1, 208]
    resized to T frames, conv4 (5), conv5 (5)               -> [B,   K, T]

"up 2" doubles the frames by linear interpolation with aligned corners.

Fast without a change of the function: interpolation in time mixes frames and a convolution's
tap mixes channels and rows, so the two commute. Each 3x3 convolution after an "up 2" is
computed as three taps on the short map, and one small matrix then interpolates, shifts and
adds them: half the arithmetic of the published order. In float32 on a CPU the three taps across
the rows, four rows to a tile, are Winograd's F(4, 3), which halves what is left once more.
`Interpreter.forward` is held to the published order by ``tests/test_interpreter.py``.

Differences: with fewer hidden maps (an ablation) the branches of the others are left out; with
another number of mel bands conv6 is as tall as the rows that are left; and a network may leave out
what cannot be heard (`skip_silence`).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.models import winograd
from l2i.models.vgg import channels
from l2i.types import Interpretation

_FACTOR = {"512": 1, "256": 2, "128": 4}
_WIDTH = {"512": 128, "256": 256, "128": 128}


@lru_cache(maxsize=64)
def interpolation_matrix(
    short: int, long: int, taps: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Linear interpolation from `short` to `long` frames, then a convolution's taps, as a matrix.

    Row t, column (s, d) is the weight of short frame s in long frame t + d - taps // 2, zero
    where that frame does not exist (the convolution's zero padding).

    Returns
    -------
    Tensor [long, short * taps]
    """
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        eye = torch.eye(short, dtype=torch.float64).unsqueeze(0)  # [1, short, short]
        up = F.interpolate(eye, size=long, mode="linear", align_corners=True)[0]  # [short, long]
        padded = F.pad(up, (taps // 2, taps // 2))
        shifted = torch.stack([padded[:, d : d + long] for d in range(taps)], dim=1)
        return shifted.reshape(short * taps, long).T.contiguous().to(device, dtype)


@lru_cache(maxsize=16)
def _tile_matrix(rows: int, dtype: torch.dtype) -> Tensor:
    """B' of every tile of four of `rows` rows between two of zeros [6 * tiles, rows]."""
    with torch.inference_mode(False):  # Kept, and gradients may be wanted later.
        tiles = rows // 4
        matrix = torch.zeros(6, tiles, rows + 2, dtype=dtype)
        for tile in range(tiles):
            matrix[:, tile, 4 * tile : 4 * tile + 6] = winograd.matrices(dtype)[1]
        return matrix[:, :, 1:-1].reshape(6 * tiles, rows).contiguous()


def _transformed(weight: Tensor) -> Tensor:
    """G times the three rows of a convolution's weights [6, C, taps * out]."""
    _, _, g = winograd.matrices(weight.dtype)
    return torch.matmul(g, weight.permute(2, 1, 3, 0).reshape(3, -1)).view(6, weight.shape[1], -1)


def _taps(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Each tap in time of a convolution [out, C, 3, taps] by itself, on the frames of x
    [B, C, R, T]: [B * R, T * taps, out]."""
    weight = conv.weight
    out, inner, height, taps = weight.shape
    batch, _, rows, short = x.shape
    if not winograd.worthwhile(x, rows):
        flat = weight.permute(3, 0, 1, 2).reshape(taps * out, inner, height, 1)
        y = F.conv2d(x, flat, padding=(height // 2, 0))  # [B, taps * out, R, T]
        # In channels_last the memory is already [B, R, T, taps, out]: no copy is made here.
        return y.permute(0, 2, 3, 1).reshape(batch * rows, short * taps, out)
    a, _, _ = winograd.matrices(x.dtype)
    tiles = rows // 4
    frames_first = x.permute(0, 2, 3, 1).reshape(batch, rows, short * inner)
    v = torch.matmul(_tile_matrix(rows, x.dtype), frames_first)
    v = v.view(batch, 6, tiles * short, inner).transpose(0, 1).reshape(6, -1, inner)
    m = torch.bmm(v, winograd.kept_with(conv, _transformed))  # [6, B * tiles * T, taps * out]
    y = torch.matmul(a, m.view(6, -1)).view(4, batch, tiles, short * taps, out)
    return y.permute(1, 2, 0, 3, 4).reshape(batch * rows, short * taps, out)


def _conv_after_upsampling(x: Tensor, conv: nn.Conv2d, frames: int) -> Tensor:
    """``conv(up(x))`` for x [B, C, R, T] and an "up" to `frames`, in the cheaper order."""
    assert conv.bias is not None
    out, _, _, taps = conv.weight.shape
    batch, _, rows, short = x.shape
    y = _taps(x, conv)
    matrix = interpolation_matrix(short, frames, taps, x.device, y.dtype)
    y = torch.matmul(matrix, y)  # [B * R, frames, out]
    return (y + conv.bias).view(batch, rows, frames, out).permute(0, 3, 1, 2)


def _of_one_row(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """A convolution in time of x [B, C, 1, T]."""
    return F.conv2d(x, conv.weight.unsqueeze(2), conv.bias, padding=(0, conv.kernel_size[0] // 2))


class AttentionPooling(nn.Module):
    """Gated attention over time: softmax over t of w . (tanh(V h_t) * relu(U h_t)).

    Parameters
    ----------
    components : int
        K.
    width : int
        Rows of V and U.
    """

    def __init__(self, components: int, width: int = 256) -> None:
        super().__init__()
        self.attention_V = nn.Sequential(nn.Linear(components, width), nn.Tanh())
        self.attention_U = nn.Sequential(nn.Linear(components, width), nn.ReLU())
        self.attention_weights = nn.Linear(width, 1)

    def forward(self, activations: Tensor) -> Tensor:
        """Activations [B, K, T] to z [B, K], a convex combination of their frames."""
        h = activations.transpose(1, 2)
        score = self.attention_weights(self.attention_V(h) * self.attention_U(h))  # [B, T, 1]
        return torch.bmm(activations, score.softmax(dim=1)).squeeze(2)


class MaxPooling(nn.Module):
    """The simpler variant: each component's greatest activation."""

    def forward(self, activations: Tensor) -> Tensor:
        """Activations [B, K, T] to z [B, K]."""
        return activations.amax(dim=2)


class Psi(nn.Module):
    """What interpreters share: silence, pooling and the head Theta; each has its own `activations`.

    Attributes
    ----------
    maps : tuple of str
        The hidden maps read, in the order in which they are handed over.
    skip_silence : bool
        Not published. Frames in which there is nothing to hear have no activations: attention that
        is paid to them adds nothing to z. Without it the network says of a pause what its biases
        make of it; the attention may look there, and what is said to have mattered cannot be heard.
    """

    maps: tuple[str, ...]
    skip_silence: bool

    def end(self, components: int, n_classes: int, pooling: str, attention_width: int) -> None:
        """Make pooling and head; the last thing that a constructor does, since weights are drawn in
        order."""
        self.pool = (
            AttentionPooling(components, attention_width)
            if pooling == "attention"
            else MaxPooling()
        )
        self.fc1 = nn.Linear(components, n_classes, bias=False)

    @property
    def theta(self) -> Tensor:
        """The head's weights [C, K]."""
        return self.fc1.weight

    def activations(self, maps: tuple[Tensor, ...], frames: int) -> Tensor:
        """H of a batch [B, K, T], non-negative, of maps [B, D_l, F_l, T_l] and T frames."""
        raise NotImplementedError

    def forward(
        self, maps: tuple[Tensor, ...], frames: int, audible: Tensor | None = None
    ) -> Interpretation:
        """Activations, pooled activations and logits of a batch.

        Parameters
        ----------
        maps : tuple of Tensor [B, D_l, F_l, T_l]
            In the order of the constructor's `maps`.
        frames : int
            T of the spectrogram.
        audible : Tensor [B, T], bool, optional
            Frames in which there is something to hear (see `audible_frames`). Read, and needed,
            where the network skips silence.
        """
        activations = self.activations(maps, frames)
        if self.skip_silence:
            if audible is None:
                raise ValueError("a network that skips silence must be told where it is")
            activations = activations * audible.unsqueeze(1)
        pooled = self.pool(activations)
        return Interpretation(activations, pooled, self.fc1(pooled))


class Interpreter(Psi):
    """Psi, its pooling and its head Theta.

    Parameters
    ----------
    components : int
        K.
    n_classes : int
        C.
    maps : sequence of {'512', '256', '128'}
        The hidden maps read, in the order in which they are handed over.
    rows : int
        Mel rows of the 512-channel map: mel bands / 32.
    pooling : {'attention', 'max'}
    attention_width : int
    skip_silence : bool
        See `Psi`.
    width : float
        The classifier's (see `l2i.models.vgg.VGG`): how many channels the maps have.
    """

    def __init__(
        self,
        components: int,
        n_classes: int,
        *,
        maps: tuple[str, ...] = ("512", "256", "128"),
        rows: int = 4,
        pooling: str = "attention",
        attention_width: int = 256,
        skip_silence: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.maps = tuple(maps)
        self.skip_silence = skip_silence
        branches = sum(_WIDTH[name] for name in self.maps)
        if "256" in maps:
            self.conv1 = nn.Conv2d(channels(256, width), 256, 3, padding=1)
        self.conv2 = nn.Conv2d(branches, 256, 3, padding=1)
        self.conv4 = nn.Conv1d(256, components, 5, padding=2)
        self.conv5 = nn.Conv1d(components, components, 5, padding=2)
        self.conv6 = nn.Conv2d(256, 256, (rows, 1))
        if "512" in maps:
            self.conv7 = nn.Conv2d(channels(512, width), 128, 3, padding=1)
        if "128" in maps:
            self.conv8 = nn.Conv2d(channels(128, width), 128, (4, 1), stride=(4, 1))
        self.end(components, n_classes, pooling, attention_width)

    def activations(self, maps: tuple[Tensor, ...], frames: int) -> Tensor:
        """H [B, K, T], as `Psi` has it."""
        given = dict(zip(self.maps, maps, strict=True))
        short = min(x.shape[3] // _FACTOR[name] for name, x in given.items())
        branches = []
        if "256" in given:
            a = _conv_after_upsampling(given["256"][..., : 2 * short], self.conv1, 4 * short)
            branches.append(F.avg_pool2d(F.relu(a), (2, 1)))
        if "512" in given:
            b = F.relu(_conv_after_upsampling(given["512"][..., :short], self.conv7, 2 * short))
            branches.append(_interpolate(b, 4 * short))
        if "128" in given:
            branches.append(F.relu(self.conv8(given["128"][..., : 4 * short])))
        y = torch.cat(branches, dim=1)
        y = F.relu(_conv_after_upsampling(y, self.conv2, 8 * short))
        # conv6 is one frame wide, so that it commutes with the interpolation, bias included.
        y = F.relu(_interpolate(self.conv6(y), 16 * short))
        # One row, and as images: channels stay last, where copies would put them first.
        y = F.interpolate(y, size=(1, frames), mode="bilinear", align_corners=True)
        return F.relu(_of_one_row(F.relu(_of_one_row(y, self.conv4)), self.conv5)).squeeze(2)


def _interpolate(x: Tensor, frames: int) -> Tensor:
    """Linear interpolation of x [B, C, R, T] in time, memory staying channels_last."""
    batch, channels, rows, short = x.shape
    matrix = interpolation_matrix(short, frames, 1, x.device, x.dtype)
    y = torch.matmul(matrix, x.permute(0, 2, 3, 1).reshape(batch * rows, short, channels))
    return y.view(batch, rows, frames, channels).permute(0, 3, 1, 2)
