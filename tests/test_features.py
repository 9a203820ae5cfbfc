"""`l2i.models.features`: what is kept of the frozen classifier, of each clip and view."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from l2i.dsp.spectrogram import log_magnitude, peak_normalise
from l2i.models.features import FeatureStore, allocate, compute_features
from l2i.types import Features
from tests.toys import BANDS, SAMPLES, SETTINGS, ToneClassifier, band_dictionary, tone

# Rows 1, 2 and 4 are asked for, each of a tone of its own; the peaks differ.
WAVES = torch.stack([tone(band, level=0.1 + 0.1 * band) for band in range(5)]).numpy()
ROWS = np.array([1, 2, 4])


def _kept(tmp_path: Path, waves: np.ndarray = WAVES, **how: Any) -> FeatureStore:
    return compute_features(
        ToneClassifier(),  # type: ignore[arg-type]
        band_dictionary(),
        SETTINGS.domain,
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
    features = classifier.features_of(spectrum, ("tones",))
    torch.testing.assert_close(kept.logits, features.logits)
    torch.testing.assert_close(kept.maps[0], features.maps[0].permute(0, 2, 3, 1))
    torch.testing.assert_close(kept.projected, band_dictionary().T @ size)
    torch.testing.assert_close(kept.energy, size.square().sum(dim=(1, 2)))
    assert kept.audible.all()


def test_silence_is_kept_with_the_clip_it_is_of(tmp_path: Path) -> None:
    """A clip that is zero in its second half is inaudible there, in every view where that is."""
    waves = WAVES.copy()
    waves[ROWS[1], SAMPLES // 2 :] = 0
    kept = _kept(tmp_path, waves, views=2)
    half = kept.frames // 2
    assert kept.audible[[0, 2, 3, 5]].all()
    edge = 3  # A frame reaches over the border.
    assert kept.audible[1, : half - edge].all() and not kept.audible[1, half + edge :].any()
    assert kept.audible[4, half + edge : -edge].all()
    assert not kept.audible[4, edge : half - edge].any()
    _, audible, _, _ = kept.batch(torch.tensor([4, 0]), torch.device("cpu"))
    assert torch.equal(audible, kept.audible[[4, 0]])


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


@pytest.mark.parametrize("mixed_db", [0.0, 20.0])
def test_of_silenced_clips_a_stretch_with_the_loudest_sample_is_left(
    tmp_path: Path, mixed_db: float
) -> None:
    """One stretch, round the clip's end perhaps, of a tenth of the clip to all of it, with the
    click in it; the first view, and clips that were spared, are whole."""
    waves = WAVES / 4
    click = 700
    waves[:, click] = 1.0
    how = {"views": 31, "mixed_db": mixed_db, "generator": torch.Generator().manual_seed(0)}
    kept = _kept(tmp_path, waves, silenced=0.5, **how)
    assert kept.audible[:3].all()
    whole = kept.audible.all(dim=1)
    assert 0.4 < whole[3:].float().mean() < 0.65
    lengths = []
    for row in (~whole).nonzero()[:, 0].tolist():
        audible = kept.audible[row]
        starts = int((audible & ~audible.roll(1)).sum())
        assert starts == 1, row
        lengths.append(float(audible.float().mean()))
        if not mixed_db:  # Else both clips were rotated at random first.
            turned = (click + (row // 3) * SAMPLES // 31) % SAMPLES
            assert audible[turned // SETTINGS.hop_length], row
    assert min(lengths) > 0.1 and min(lengths) < 0.25 and max(lengths) > 0.8
    with pytest.raises(ValueError, match="generator"):
        _kept(tmp_path, views=2, silenced=0.5)


def test_silence_changes_nothing_but_what_it_is_given_to(tmp_path: Path) -> None:
    """Where chance gives it to no clip, mixtures are those of a view without it."""

    def of(silenced: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(5)
        how = {"views": 2, "mixed_db": 20.0, "generator": generator}
        return _kept(tmp_path, silenced=silenced, **how).energy

    without = of(0.0)
    assert torch.equal(of(1e-9), without)
    silenced = of(1.0)
    assert torch.equal(silenced[:3], without[:3]) and not torch.isclose(silenced, without)[3:].any()


class _Stopping(ToneClassifier):
    """Counts batches, and is interrupted at one of them."""

    def __init__(self, at: int = -1) -> None:
        self.batches = 0
        self.at = at

    def features_of(self, spectrum: torch.Tensor, maps: Sequence[str] = ()) -> Features:
        if self.batches == self.at:
            raise KeyboardInterrupt
        self.batches += 1
        return super().features_of(spectrum, maps)


def test_what_is_on_disk_is_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted again and again, each batch is computed once, with the same bits as in memory,
    where nothing is written; for another precision all is computed anew."""

    def of(classifier: ToneClassifier) -> tuple[list[torch.Tensor], list[int]]:
        told: list[int] = []
        kept = compute_features(
            classifier,  # type: ignore[arg-type]
            band_dictionary(),
            SETTINGS.domain,
            WAVES,
            ROWS,
            ("tones",),
            tmp_path,
            views=4,
            mixed_db=20.0,
            silenced=0.5,
            generator=torch.Generator().manual_seed(3),
            batch_size=2,
            on_clip=told.append,
        )
        return [kept.logits, *kept.maps, kept.audible, kept.projected, kept.energy], told

    whole, told = of(ToneClassifier())
    assert told == [2, 1] * 4 and not list(tmp_path.iterdir())
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    for at in (3, 0, 2):
        with pytest.raises(KeyboardInterrupt):
            of(_Stopping(at))
    last = _Stopping()
    stretch, told = of(last)
    assert last.batches == 8 - 3 - 0 - 2 and told == [8, 1, 2, 1]
    again = _Stopping()
    kept, told = of(again)
    assert again.batches == 0 and told == [12]
    for a, b, c in zip(whole, stretch, kept, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b) and torch.equal(a, c)
    other = _Stopping()
    other.dtype = torch.bfloat16
    of(other)
    assert other.batches == 8


def test_an_array_on_disk_leaves_no_file(tmp_path: Path) -> None:
    """It is mapped from a file without a name, and holds what is written to it."""
    array = allocate((3, 4), tmp_path / "stage", in_memory=False)
    assert array.shape == (3, 4) and array.dtype == torch.float32
    array[1] = 2.5
    assert float(array.sum()) == 10.0 and list((tmp_path / "stage").iterdir()) == []
