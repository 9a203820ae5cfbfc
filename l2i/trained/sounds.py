"""Sounds that are given as a folder, files or samples, as clips of one length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from l2i import config
from l2i.data import open_dataset
from l2i.data.cards import in_threads
from l2i.dsp.audio import fit_length, read_part
from l2i.errors import DataError, UsageError
from l2i.library import clips_of
from l2i.types import Classifier

_LONGEST_S = 10.0

Clips = str | Path | Sequence[Any] | NDArray[Any] | Tensor


def gathered(
    classifier: Classifier, sounds: Clips, sample_rate: int | None, duration_s: float | None
) -> NDArray[np.float32]:
    """Clips [N, S] of one length, at the classifier's rate."""
    rate = classifier.sample_rate
    most = _LONGEST_S if duration_s is None else duration_s
    if not most > 0:
        raise UsageError(f"duration_s {duration_s} must be above 0.")
    if isinstance(sounds, str | Path) and Path(sounds).is_file():
        sounds = [sounds]
    if isinstance(sounds, str | Path):
        folder = config.Dataset(name="folder", data_dir=str(sounds))
        paths = [c.path for c in open_dataset(folder, unlabelled=True).clips() if c.path]
        clips = _decoded(paths, rate, most)
    elif isinstance(sounds, Tensor | np.ndarray):
        clips = clips_of(classifier, sounds, sample_rate)[0]
    elif not isinstance(sounds, Sequence):
        raise UsageError(
            f"Sounds are a folder, a list of files, or samples, not {type(sounds).__name__}."
        )
    elif sounds and all(isinstance(s, str | Path) for s in sounds):
        clips = _decoded([Path(s) for s in sounds], rate, most)
    else:
        clips = [clips_of(classifier, s, sample_rate)[0][0] for s in sounds]
    if not clips:
        raise DataError("There are no sounds.")
    longest = max(map(len, clips))
    n = round(duration_s * rate) if duration_s else min(longest, round(_LONGEST_S * rate))
    n = max(n, getattr(classifier, "min_samples", 1))
    return np.stack([fit_length(clip, n) for clip in clips])


def _decoded(paths: Sequence[Path], rate: int, most_s: float) -> list[NDArray[np.float32]]:
    return list(in_threads(lambda path: read_part(path, rate, duration_s=most_s), paths))
