"""`l2i.models.augmentation`: what changes, by how much, and from which draw."""

from __future__ import annotations

import pytest
import torch

from l2i.dsp.spectrogram import power_to_db
from l2i.models.augmentation import (
    add_noise,
    augment,
    crop_frames,
    filter_bands,
    mask_bands,
    mixup,
    shift_frames,
)

B, T, M, C = 6, 20, 8, 3


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def mel() -> torch.Tensor:
    """Magnitudes of which no two are equal, so that each frame can be recognised."""
    return 1 + torch.arange(B * T * M, dtype=torch.float32).view(B, T, M)


@pytest.fixture
def targets() -> torch.Tensor:
    """One class each."""
    return torch.eye(C)[torch.arange(B) % C]


def test_shift_rotates_each_clip_by_its_own_amount(mel: torch.Tensor) -> None:
    """Each clip is a rotation of itself, and not all by the same number of frames."""
    got = shift_frames(mel, _generator())
    amounts = []
    for b in range(B):
        rolls = [n for n in range(T) if got[b].equal(mel[b].roll(-n, 0))]
        assert len(rolls) == 1
        amounts += rolls
    assert len(set(amounts)) > 1


def test_crop_is_a_window_of_each_clip(mel: torch.Tensor) -> None:
    """So many consecutive frames; over many draws the first and the last window both occur."""
    starts = set()
    for seed in range(40):
        got = crop_frames(mel, 15, _generator(seed))
        assert got.shape == (B, 15, M)
        for b in range(B):
            start = int((got[b, 0, 0] - mel[b, 0, 0]).item()) // M
            assert got[b].equal(mel[b, start : start + 15])
            starts.add(start)
    assert starts == set(range(6))


def test_mixup_mixes_clips_and_targets_alike(mel: torch.Tensor, targets: torch.Tensor) -> None:
    """Each clip is ``w a + (1 - w) b`` with w at least a half, its target with the same w, so
    that the target says which clip is the louder one and still sums to one."""
    got, blended = mixup(mel, targets, 0.3, _generator(3))
    torch.testing.assert_close(blended.sum(dim=1), torch.ones(B))
    assert (blended.gather(1, targets.argmax(1, keepdim=True)) >= 0.5).all()
    mixed = 0
    for b in range(B):
        fits = []
        for other in range(B):
            span = mel[other, 0, 0] - mel[b, 0, 0]
            share = 1 - (got[b, 0, 0] - mel[b, 0, 0]) / span if other != b else torch.tensor(1.0)
            if 0.5 - 1e-5 <= share <= 1 + 1e-5:
                clip = share * mel[b] + (1 - share) * mel[other]
                target = share * targets[b] + (1 - share) * targets[other]
                fits.append(
                    torch.allclose(got[b], clip, rtol=1e-4)
                    and torch.allclose(blended[b], target, atol=1e-3)
                )
        assert any(fits), b
        mixed += not got[b].equal(mel[b])
    assert mixed > 0


def test_mixup_with_a_small_alpha_seldom_mixes() -> None:
    """Beta(alpha, alpha) has its mass at the ends for a small alpha, in the middle for a large
    one: the mean share of the louder clip falls from near 1 to near 1/2."""
    n = 4000
    mel, targets = torch.zeros(n, 1, 1), torch.zeros(n, 1)
    mel[: n // 2] = 1  # Half of the clips are 1, half are 0: of mixed pairs, half show the share.
    means = []
    for alpha in (0.01, 0.3, 50.0):
        got, _ = mixup(mel, targets, alpha, _generator(4))
        value = got.flatten()
        mixed = (value - 0.5).abs() + 0.5
        # Pairs of equal clips always show 1, so half of the shares are diluted.
        means.append(2 * mixed.mean().item() - 1)
    assert means[0] > 0.97
    assert means[0] > means[1] > means[2]
    assert means[2] == pytest.approx(0.54, abs=0.03)  # 1/2 + the mean deviation of Beta(50, 50).


@pytest.mark.parametrize("axis", [1, 2])
def test_masks_hide_whole_frames_or_whole_bands(axis: int) -> None:
    """What is hidden is whole frames (axis 1) or bands (axis 2), at most count times width of
    them, set to the clip's mean; the rest is untouched; over some draws something is hidden."""
    db = torch.randn(B, T, M, generator=_generator(5))
    hidden_ever = 0
    for seed in range(10):
        got = mask_bands(db, axis, 2, 3, _generator(seed))
        for b in range(B):
            hidden = (got[b] != db[b]).all(dim=2 - axis)
            assert hidden.sum() <= 6
            assert (got[b] != db[b]).sum() == hidden.sum() * (T * M // db.shape[axis])
            lost = got[b][hidden] if axis == 1 else got[b][:, hidden]
            torch.testing.assert_close(lost, db[b].mean().expand_as(lost))
            hidden_ever += int(hidden.sum())
    assert hidden_ever > 0


def test_a_mask_wider_than_the_clip_hides_at_most_all() -> None:
    """A width beyond the axis is the axis; no mask and no width are no change."""
    db = torch.randn(B, T, M, generator=_generator(6))
    got = mask_bands(db, 2, 1, 100, _generator())
    assert got.isfinite().all()
    assert mask_bands(db, 2, 0, 5, _generator()).equal(db)
    assert mask_bands(db, 1, 3, 0, _generator()).equal(db)


def test_with_everything_off_only_decibels_are_left(
    mel: torch.Tensor, targets: torch.Tensor
) -> None:
    """No shift, no crop, no mixture, no gain, no mask: the classifier's own front-end."""
    db, augmented = augment(mel, targets, _generator(), shift=False)
    assert db.equal(power_to_db(mel).unsqueeze(1))
    assert augmented.equal(targets)


def test_gain_is_at_most_so_many_decibels(mel: torch.Tensor, targets: torch.Tensor) -> None:
    """Each clip is louder or softer as a whole, some more and some less, within the limit: since
    decibels are of the magnitude (10 log10 |X|), a gain of g dB shows as g / 2."""
    got, _ = augment(mel, targets, _generator(7), shift=False, gain_db=6.0)
    change = (got - power_to_db(mel).unsqueeze(1)).flatten(1)
    assert (change.amax(dim=1) - change.amin(dim=1)).max() < 1e-4
    assert change.abs().max() <= 3.0 + 1e-4
    assert change[:, 0].min() < 0 < change[:, 0].max()


def test_filter_is_smooth_over_the_bands_and_the_same_in_all_frames(mel: torch.Tensor) -> None:
    """Each clip has gains of its own, within the limit, as many straight stretches as there are
    points less one, and none over time."""
    got = filter_bands(mel, 6.0, _generator(2), points=3)
    db = 20 * (got / mel).log10()
    assert db.abs().max() <= 6.0 + 1e-4
    torch.testing.assert_close(db, db[:, :1].expand_as(db), atol=1e-4, rtol=0)
    assert len({round(float(first), 3) for first in db[:, 0, 0]}) == B
    # Eight bands, three points: the knee lies between the fourth band and the fifth.
    bend = db[:, 0].diff(n=2, dim=1).abs() > 1e-3
    assert bend.any() and not bend[:, [0, 1, 4, 5]].any()


def test_noise_lies_so_far_below_its_clip() -> None:
    """Seven of ten clips have it, from 10 dB below their own level to the limit; it falls towards
    high bands, is as loud at the end as at the start, and no two frames have the same."""
    clips, frames, bands = 400, 300, 32
    mel = 0.01 * torch.ones(clips, frames, bands)
    noise = add_noise(mel, 40.0, _generator(3)) - mel
    assert noise.min() >= 0
    level = noise.square().mean(dim=(1, 2)).sqrt()
    given = level > 0
    assert 0.6 < given.float().mean() < 0.8
    db = 20 * (level[given] / 0.01).log10()
    assert -40.2 < db.min() < -38 and -12 < db.max() < -9.8
    heard = noise[given] / level[given, None, None]
    low, high = heard[:, :, :8].mean(), heard[:, :, -8:].mean()
    assert low > 3 * high
    torch.testing.assert_close(heard[:, :150].mean(), heard[:, 150:].mean(), rtol=0.02, atol=0)
    # Rayleigh: the standard deviation is 0.523 of the mean.
    ratio = heard.std(dim=1) / heard.mean(dim=1)
    assert abs(float(ratio.mean()) - 0.523) < 0.01


def test_silence_has_no_noise_below_it() -> None:
    """What is so many decibels below nothing is nothing."""
    assert add_noise(torch.zeros(20, T, M), 60.0, _generator()).abs().max() == 0


def test_no_noise_draws_nothing(mel: torch.Tensor, targets: torch.Tensor) -> None:
    """Switched off, it leaves what comes after it to the draws it had before."""
    plain, _ = augment(mel, targets, _generator(8), gain_db=6.0)
    off, _ = augment(mel, targets, _generator(8), gain_db=6.0, noise_db=0.0)
    on, _ = augment(mel, targets, _generator(8), gain_db=6.0, noise_db=60.0)
    assert off.equal(plain) and not on.equal(plain)


def test_no_filter_draws_nothing(mel: torch.Tensor, targets: torch.Tensor) -> None:
    """Switched off, it leaves what comes after it to the draws it had before."""
    how = {"gain_db": 6.0, "frequency_masks": 2, "frequency_mask_bands": 3}
    plain, _ = augment(mel, targets, _generator(8), **how)
    off, _ = augment(mel, targets, _generator(8), filter_db=0.0, **how)
    on, _ = augment(mel, targets, _generator(8), filter_db=6.0, **how)
    assert off.equal(plain) and not on.equal(plain)


def test_a_crop_is_not_shorter_than_the_network_needs(
    mel: torch.Tensor, targets: torch.Tensor
) -> None:
    """`crop_share` says how long, `min_frames` how short at least, the clip how long at most."""
    for share, least, want in ((0.5, 1, 10), (0.5, 16, 16), (0.5, 99, T), (1.0, 1, T)):
        got, _ = augment(mel, targets, _generator(), crop_share=share, min_frames=least)
        assert got.shape == (B, 1, want, M)


def test_all_that_is_random_comes_from_the_generator(
    mel: torch.Tensor, targets: torch.Tensor
) -> None:
    """The same generator gives the same batch, another one another; the global generator is
    neither read nor moved; the input is left as it is."""
    how = {
        "mixup_alpha": 0.3,
        "gain_db": 6.0,
        "filter_db": 6.0,
        "noise_db": 60.0,
        "crop_share": 0.8,
        "frequency_masks": 2,
        "frequency_mask_bands": 3,
        "time_masks": 2,
        "time_mask_share": 0.2,
    }
    before, state = mel.clone(), torch.get_rng_state()
    a, said_a = augment(mel, targets, _generator(8), **how)
    torch.manual_seed(123)
    state_b = torch.get_rng_state()
    b, said_b = augment(mel, targets, _generator(8), **how)
    assert a.equal(b) and said_a.equal(said_b)
    assert torch.get_rng_state().equal(state_b)
    torch.set_rng_state(state)
    c, _ = augment(mel, targets, _generator(9), **how)
    assert not a.equal(c)
    assert mel.equal(before)
