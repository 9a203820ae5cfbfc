"""Whether evidence hangs on where clips come from, on shares of which the answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from l2i import config
from l2i.audit.cues import BANDS, Palette
from l2i.audit.scan import Rows
from l2i.audit.sources import _tied, groupings_of, source_notes
from l2i.data import open_dataset
from l2i.dsp.spectrogram import Domain
from l2i.types import Clip
from tests import miniatures

PALETTE = Palette(Domain(8000, 256, 64), None, torch.device("cpu"))
MICROPHONES = [f"mic-{n // 4 % 3}" for n in range(60)]


def _notes(evidence: Any, groupings: Any) -> list[str]:
    """Notes on sixty clips of two classes by turns, four of a recording."""
    n = len(evidence)
    nothing, zero = np.zeros(n, np.float32), np.zeros(n, np.int64)
    rows = Rows(
        *(np.arange(n), np.arange(n) % 2, zero, nothing, nothing, zero, nothing, evidence),
        *(evidence, np.zeros((n, 16), np.float32)),
    )
    clips = [Clip(f"clip-{i}", (), group=f"recording-{i // 4}") for i in range(n)]
    return source_notes(rows, clips, ["dog", "rain"], groupings, PALETTE)


def test_evidence_that_hangs_on_a_microphone() -> None:
    """One class has more of one band where one microphone recorded it, and has one sentence with
    the microphone, the band, both shares and clips; the other class has none."""
    evidence = np.random.default_rng(0).dirichlet([2.0] * BANDS, 60)
    groupings = {"fold": [str(n // 4 % 5) for n in range(60)], "microphone": MICROPHONES}
    assert _notes(evidence, groupings) == []
    hit = [n for n in range(60) if n % 2 == 0 and MICROPHONES[n] == "mic-1"]
    evidence[hit] = 0.6 * evidence[hit] + 0.4 * np.eye(BANDS)[5]
    (note,) = _notes(evidence, groupings)
    assert note.startswith("dog: the evidence differs by microphone (p 0.0")
    assert "In microphone mic-1 " in note
    band = PALETTE.parts[5]
    assert f"in the band, {band.low_hz:.0f} Hz to {band.high_hz:.0f} Hz; elsewhere" in note
    assert f"({len(hit)} clips)" in note
    heard = [int(word.split("-")[1]) for word in note[:-1].split("Hear ")[1].split(", ")]
    assert len(heard) == 3 and set(heard) <= set(hit)


def test_recordings_are_drawn_and_not_clips() -> None:
    """Clips of one recording are alike: of 300 sets whose groups mean nothing, about as many have a
    p below 5 % as chance has, though each recording has a sound of its own."""
    alarms = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        own = rng.dirichlet([1.0] * 6, 15)
        x = np.sqrt(0.9 * np.repeat(own, 4, axis=0) + 0.1 * rng.dirichlet([1.0] * 6, 60))
        groups = np.repeat(np.array(["a", "b", "c"])[np.arange(15) % 3], 4)
        result = _tied(x, groups, np.repeat(np.arange(15), 4), 199, seed)
        assert result is not None
        alarms += result[0] <= 0.05
    assert 3 <= alarms <= 27  # 15, and three standard deviations.
    assert _tied(x, np.array(["a"] * 60), np.arange(60), 199, 0) is None
    assert _tied(x, groups, groups, 199, 0) is None


def test_columns_of_a_folder(tmp_path: Path) -> None:
    """What the list of a folder calls a microphone is a grouping; other columns are none."""
    root = miniatures.folder_tree(tmp_path / "sounds")
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.wav"))
    lines = [f"{f},{f.split('/')[0]},m{n % 2},x" for n, f in enumerate(files)]
    (root / "meta.csv").write_text("\n".join(["filename,label,Microphone,mood", *lines]))
    data = open_dataset(config.Dataset(name="folder", data_dir=str(root)))
    known = groupings_of(data, data.clips())
    assert set(known) == {"recording", "Microphone"}
    at = {clip.id: n for n, clip in enumerate(data.clips())}
    assert [known["Microphone"][at[f]] for f in files] == [f"m{n % 2}" for n in range(len(files))]
