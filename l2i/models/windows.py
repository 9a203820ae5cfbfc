"""Where in a clip the windows lie that a model hears, and their maps side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """Where in a clip the windows lie that a model hears.

    Attributes
    ----------
    starts : tuple of int
        Their first samples.
    length : int
        Samples of a window.
    covers : int
        Samples that a window's map stands for: more than `length` where the model pads it.
    """

    starts: tuple[int, ...]
    length: int
    covers: int

    def side_by_side(self, maps: Tensor, samples: int) -> Tensor:
        """Maps of clips from those of their windows.

        The frames of the clip are as long as those of the windows (to the rounding of their
        number), and evenly spaced. Each is taken from the window whose middle is nearest to it: of
        windows that overlap the middle parts are kept, each as long as the step from one to
        the next; of the first the beginning, of the last the end, too. Frames after the clip's end
        are left out.

        Parameters
        ----------
        maps : Tensor [B * n, D, F, T]
            All windows of the first clip, then of the second, ...
        samples : int
            S, of the clips.

        Returns
        -------
        Tensor [B, D, F, T']
            T' is about S * T / `covers`.

        Examples
        --------
        Two windows of four samples, two apart, each sample a frame; three are kept of each:

        >>> x = torch.arange(6.0)
        >>> windows = x.unfold(0, 4, 2).view(2, 1, 1, 4)
        >>> Places((0, 2), 4, 4).side_by_side(windows, 6).flatten()
        tensor([0., 1., 2., 3., 4., 5.])
        """
        per_window = maps.shape[3]
        if self.starts == (0,) and samples == self.covers:
            return maps
        frames = max(1, round(samples * per_window / self.covers))
        starts = torch.tensor(self.starts, dtype=torch.float64)
        centres = (torch.arange(frames, dtype=torch.float64) + 0.5) * (samples / frames)
        which = torch.empty(frames, dtype=torch.long)
        # In parts: a clip of an hour has many windows and more frames.
        for some in torch.arange(frames).split(4096):
            away = centres[some, None] - (starts + self.length / 2)
            which[some] = away.abs().argmin(1)
        frame = ((centres - starts[which]) * (per_window / self.covers)).floor().long()
        frame = frame.clamp(0, per_window - 1)
        windows = maps.unflatten(0, (-1, len(self.starts)))
        kept = windows[:, which.to(maps.device), :, :, frame.to(maps.device)]  # [T', B, D, F]
        return kept.permute(1, 2, 3, 0).contiguous()
