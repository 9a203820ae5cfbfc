"""Changes to training clips, so that a classifier trained from scratch on little data does not
learn its clips by heart.

All of it happens on mel magnitudes and decibels, after the STFT: a time shift and a mixture of
two clips commute with it (a mixture up to the phases), so that each clip is transformed once
and not once per epoch.

Sources: mixup, Zhang et al. 2018 (arXiv 1710.09412); SpecAugment, Park et al. 2019
(arXiv 1904.08779); FilterAugment, Nam, Kim and Park 2022 (arXiv 2110.03282), its linear type.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.dsp.spectrogram import power_to_db


def shift_frames(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each clip [B, T, M] by a random number of frames; what leaves at the end
    re-enters at the start."""
    frames = mel.shape[1]
    start = torch.randint(frames, (len(mel), 1), generator=generator)
    index = (torch.arange(frames) + start) % frames
    return mel.gather(1, index.to(mel.device).unsqueeze(-1).expand_as(mel))


def crop_frames(mel: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """A random window of `frames` out of each clip [B, T, M]."""
    start = torch.randint(mel.shape[1] - frames + 1, (len(mel), 1), generator=generator)
    index = (torch.arange(frames) + start).to(mel.device)
    return mel.gather(1, index.unsqueeze(-1).expand(-1, -1, mel.shape[2]))


def mixup(
    mel: Tensor, targets: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each clip with another of its batch, and their targets likewise.

    Parameters
    ----------
    mel : Tensor [B, T, M]
        Magnitudes.
    targets : Tensor [B, C]
    alpha : float
        The share of the first clip is drawn from Beta(alpha, alpha), and turned so that the
        first clip is the louder one.
    """
    # Beta from two gammas by way of a seeded generator, which torch.distributions cannot take.
    drawn = torch._standard_gamma(torch.full((len(mel), 2), alpha, dtype=torch.float64), generator)
    share = (drawn[:, 0] / drawn.sum(dim=1).clamp_min(1e-300)).to(mel)
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(mel), generator=generator).to(mel.device)
    w = share.view(-1, 1, 1)
    return w * mel + (1 - w) * mel[other], share[:, None] * targets + (1 - share)[
        :, None
    ] * targets[other]


def filter_bands(
    mel: Tensor, gain_db: float, generator: torch.Generator, points: int = 6
) -> Tensor:
    """FilterAugment: each clip through a random smooth filter, as of another microphone or room.

    Parameters
    ----------
    mel : Tensor [B, T, M]
        Magnitudes.
    gain_db : float
        Each of `points` gains, evenly spaced over the bands, is drawn from +-gain_db; between
        them decibels are interpolated. A single point is a gain of the clip as a whole.
    """
    db = (torch.rand(len(mel), 1, points, generator=generator) * 2 - 1) * gain_db
    db = F.interpolate(db, size=mel.shape[2], mode="linear", align_corners=True)
    return mel * (10 ** (db / 20)).to(mel)


def add_noise(mel: Tensor, quietest_db: float, generator: torch.Generator) -> Tensor:
    """Lay stationary noise under seven of ten clips.

    What lies under a sound, of a room, a microphone or a lossy format, is its recording's own: a
    classifier may know by it which recording it hears, and new clips have another.

    Parameters
    ----------
    mel : Tensor [B, T, M]
        Mel magnitudes.
    quietest_db : float
        Below the clip's own level, both as root mean squares over frames and bands; the loudest
        is 10 dB below it. Silence stays silence.

    Returns
    -------
    Tensor [B, T, M]
        The magnitudes' sum. The noise falls towards high bands, give or take 10 dB at each of
        six points; its values are Rayleigh-distributed, as Gaussian noise's magnitudes are.
    """
    clips, _, bands = mel.shape
    db = 10 + (quietest_db - 10) * torch.rand(clips, 1, 1, generator=generator)
    slope = 1 / (torch.arange(bands) + bands / 16)
    shape = filter_bands(slope.expand(clips, 1, bands), 10.0, generator)
    shape = shape / shape.square().mean(dim=2, keepdim=True).sqrt()
    drawn = torch.rand(mel.shape, generator=generator).clamp_min_(torch.finfo(torch.float32).tiny)
    rayleigh = drawn.log_().neg_().sqrt_()  # Its mean square is one.
    given = torch.rand(clips, 1, 1, generator=generator) < 0.7
    level = mel.square().mean(dim=(1, 2), keepdim=True).sqrt()
    return mel + level * (given * 10 ** (-db / 20) * shape * rayleigh).to(mel)


def mask_bands(db: Tensor, axis: int, count: int, width: int, generator: torch.Generator) -> Tensor:
    """SpecAugment: set `count` random stretches of up to `width` to each clip's mean.

    Parameters
    ----------
    db : Tensor [B, T, M]
        Decibels.
    axis : {1, 2}
        1 masks frames, 2 mel bands.
    """
    size = db.shape[axis]
    width = min(width, size)
    hidden = torch.zeros(len(db), size, dtype=torch.bool)
    for _ in range(count):
        length = torch.randint(width + 1, (len(db), 1), generator=generator)
        start = (torch.rand(len(db), 1, generator=generator) * (size - length + 1).float()).long()
        position = torch.arange(size)
        hidden |= (position >= start) & (position < start + length)
    mean = db.mean(dim=(1, 2), keepdim=True)
    hidden = hidden.to(db.device)
    return torch.where(hidden.unsqueeze(2 if axis == 1 else 1), mean, db)


def cropped(frames: int, share: float, min_frames: int = 1) -> int:
    """How many frames `augment` leaves of a clip."""
    return min(frames, max(min_frames, round(frames * share)))


def augment(
    mel: Tensor,
    targets: Tensor,
    generator: torch.Generator,
    *,
    shift: bool = True,
    mixup_alpha: float = 0.0,
    gain_db: float = 0.0,
    filter_db: float = 0.0,
    noise_db: float = 0.0,
    crop_share: float = 1.0,
    frequency_masks: int = 0,
    frequency_mask_bands: int = 0,
    time_masks: int = 0,
    time_mask_share: float = 0.0,
    min_frames: int = 1,
) -> tuple[Tensor, Tensor]:
    """The whole chain: shift, crop, mixup, noise, gain, filter, decibels, masks.

    Parameters
    ----------
    mel : Tensor [B, T, M]
        Mel magnitudes.
    targets : Tensor [B, C]
    generator : torch.Generator
        On the CPU; all that is random is drawn from it.

    Returns
    -------
    Tensor [B, 1, T', M], dB
        T' is T, or the crop's.
    Tensor [B, C]
    """
    if shift:
        mel = shift_frames(mel, generator)
    frames = cropped(mel.shape[1], crop_share, min_frames)
    if frames < mel.shape[1]:
        mel = crop_frames(mel, frames, generator)
    if mixup_alpha > 0:
        mel, targets = mixup(mel, targets, mixup_alpha, generator)
    if noise_db > 0:
        mel = add_noise(mel, noise_db, generator)
    if gain_db > 0:
        mel = filter_bands(mel, gain_db, generator, points=1)
    if filter_db > 0:
        mel = filter_bands(mel, filter_db, generator)
    db = power_to_db(mel)
    db = mask_bands(db, 2, frequency_masks, frequency_mask_bands, generator)
    db = mask_bands(db, 1, time_masks, round(db.shape[1] * time_mask_share), generator)
    return db.unsqueeze(1), targets
