"""`l2i.models.features`: what is kept of the frozen classifier, of each clip and view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from l2i.dsp.spectrogram import log_magnitude, peak_normalise
from l2i.models.features import FeatureStore, compute_features
from tests.toys import BANDS, SAMPLES, ToneClassifier, band_dictionary, tone

# Rows 1, 2 and 4 are asked for, each of a tone of its own; the peaks differ.
WAVES = torch.stack([tone(band, level=0.1 + 0.1 * band) for band in range(5)]).numpy()
ROWS = np.array([1, 2, 4])


def _kept(tmp_path: Path, waves: np.ndarray = WAVES, **how: Any) -> FeatureStore:
    return compute_features(
        ToneClassifier(),  # type: ignore[arg-type]
        band_dictionary(),
        waves,
        ROWS,
        ("tones",),
        tmp_path,
        batch_size=2,
        **how,
    )


def test_what_is_kept_is_what_the_classifier_says(tmp_path: Path) -> None:
    """Logits, maps, W'S and |S|^2 of the clips asked for, in their order, whatever the batch."""
    kept = _kept(tmp_path)
    classifier = ToneClassifier()
    spectrum = classifier.spectrum(torch.from_numpy(WAVES[ROWS]))
    size = log_magnitude(spectrum)
    said = classifier.features(spectrum, ("tones",))
    torch.testing.assert_close(kept.logits, said.logits)
    torch.testing.assert_close(kept.maps[0], said.maps[0].permute(0, 2, 3, 1))
    torch.testing.assert_close(kept.projected, band_dictionary().T @ size)
    torch.testing.assert_close(kept.energy, size.square().sum(dim=(1, 2)))


def test_views_are_rotations(tmp_path: Path) -> None:
    """Clip n of view v is row v * n_rows + n, rotated by v / views of its length."""
    kept = _kept(tmp_path, views=4)
    assert len(kept) == 12
    for view in range(4):
        turned = torch.roll(torch.from_numpy(WAVES[ROWS]), view * SAMPLES // 4, dims=1)
        want = ToneClassifier().logits(turned)
        torch.testing.assert_close(kept.logits[3 * view : 3 * view + 3], want)


def test_mixed_views_have_the_clip_and_another_one(tmp_path: Path) -> None:
    """The first view is the clips as they are; in each other one every clip's tone sounds, and at
    most one more, no louder, of the clips asked for."""
    kept = _kept(tmp_path, views=9, mixed_db=20.0, generator=torch.Generator().manual_seed(0))
    plain = _kept(tmp_path)
    torch.testing.assert_close(kept.logits[:3], plain.logits)
    tones = [{1}, {2}, {4}]
    levels = []
    for row in range(3, len(kept)):
        (own,) = tones[row % 3]
        logits = kept.logits[row]
        others = [k for k in range(BANDS) if k != own and logits[k] > 0.2]
        assert len(others) <= 1 and set(others) <= {1, 2, 4}
        assert logits[own] > 0.5
        levels += [float(logits[k] - logits[own]) for k in others]
    assert len(levels) > 8, "hardly any clip was mixed"
    assert max(levels) < 0.1 and min(levels) < -0.3


def test_mixed_views_depend_on_the_generator_alone(tmp_path: Path) -> None:
    """The same draws, the same features, whatever the peaks of the clips; other draws, others."""

    def of(seed: int, waves: np.ndarray = WAVES) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return _kept(tmp_path, waves, views=3, mixed_db=20.0, generator=generator).logits

    first = of(0)
    assert torch.equal(first, of(0)) and not torch.equal(first, of(1))
    torch.testing.assert_close(of(0, peak_normalise(torch.from_numpy(WAVES)).numpy()), first)
    with pytest.raises(ValueError, match="generator"):
        _kept(tmp_path, views=2, mixed_db=20.0)
