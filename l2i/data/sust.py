"""SONYC-UST v2.3: ten-second recordings of New York streets, eight coarse classes, multi-label.

Layout: ``annotations.csv``, and the sounds beside it, in ``audio/`` or in ``audio-0/`` …
``audio-18/``.

**Labels.** ``annotations.csv`` has one row per recording and annotator; a coarse presence is 1,
0, or -1 (not asked). Annotators above 0 are volunteers, below 0 project members who looked at
one coarse group, and 0 is the truth that was agreed on.

- *train*: a class is present if at least one volunteer says so. Recordings no volunteer has
  heard are left out.
- *validate*, *test*: annotator 0's row; recordings without one are left out, which leaves 664
  test recordings of v2.3. A -1 in that row counts as absent.

**Splits.** The published splits are by name: train (35 sensors), validate (9), test (48, later
in time, many of them also in train). `split` tests on *test* and trains on *train*. The clips an
epoch is chosen by are taken out of *train*, whole sensors at a time, as with every other data
set: so that the published validate split stays unseen, and can serve as a second test. Its clips
are among `clips()`, but in no part of `split()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from l2i.data.base import Card, DataSet, Entry, Files, Remote, clip_settings, listed
from l2i.data.places import AudioIndex, find_root, read_csv, safe_name, whole_number
from l2i.errors import DataError
from l2i.types import Clip, Task

if TYPE_CHECKING:
    from l2i import config

# Name of the class: its column.
_COARSE = {
    "engine": "1_engine_presence",
    "machinery-impact": "2_machinery-impact_presence",
    "non-machinery-impact": "3_non-machinery-impact_presence",
    "powered-saw": "4_powered-saw_presence",
    "alert-signal": "5_alert-signal_presence",
    "music": "6_music_presence",
    "human-voice": "7_human-voice_presence",
    "dog": "8_dog_presence",
}
_SPLITS = ("train", "validate", "test")
_COLUMNS = ("split", "sensor_id", "audio_filename", "annotator_id", *_COARSE.values())


def _remote(name: str, md5: str | None = None) -> Remote:
    return Remote(
        url=f"https://zenodo.org/records/3966543/files/{name}?download=1",
        name=name,
        md5=md5,
        unpack=name.endswith(".tar.gz"),
    )


_CARD = Card(
    name="sust",
    title="SONYC-UST v2.3",
    task=Task.MULTI_LABEL,
    classes=tuple(_COARSE),
    sample_rate=44100,
    duration_s=10.0,
    n_clips=18510,
    licence="CC BY 4.0",
    citation=(
        "M. Cartwright, J. Cramer, A. E. Mendez Mendez, Y. Wang, H.-H. Wu, V. Lostanlen, "
        "M. Fuentes, G. Dove, C. Mydlarz, J. Salamon, O. Nov, J. P. Bello. SONYC-UST-V2: "
        "An Urban Sound Tagging Dataset with Spatiotemporal Context. DCASE 2020. "
        "doi:10.5281/zenodo.3966543"
    ),
    homepage="https://zenodo.org/records/3966543",
    splits=(
        "test: the published test split, 664 recordings",
        "train: the published train split, 13,538 recordings of 35 sensors",
        "validate: taken from train, whole sensors (the published validate split stays unseen)",
    ),
    label_rules=(
        "Train: present if at least one volunteer says so. "
        "Validate and test: the agreed truth (annotator 0); recordings without it are left out."
    ),
    remotes=(
        _remote("annotations.csv", "70b507b15bb4cfcce4870925302f276b"),
        _remote("dcase-ust-taxonomy.yaml", "6c1cca1c4c383a6ebb0cb71cb74fe3a9"),
        _remote("README.md"),
        _remote("audio-0.tar.gz", "bbb4dbae7d2e58e18d24878b9ee1eb51"),
        *(_remote(f"audio-{i}.tar.gz") for i in range(1, 19)),
    ),
    folders=("sust", "SONYC-UST", "sonyc-ust"),
    marker="annotations.csv",
    size_bytes=18_000_000_000,
    notes="13.3 GB to fetch. Recordings of 10 s.",
)


def _open(wanted: config.Dataset) -> DataSet:
    root = find_root(_CARD, wanted.data_dir)
    rate, n_samples = clip_settings(_CARD, wanted)
    clips, notes = _read(root)
    return Files(
        _CARD, root, rate, n_samples, clips, notes, keep=lambda clip: clip.split != "validate"
    )


def _read(root: Path) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    path = root / _CARD.marker
    split_of: dict[str, str] = {}
    sensor_of: dict[str, str] = {}
    heard: dict[str, set[int]] = {}  # By volunteers.
    agreed: dict[str, set[int]] = {}  # By annotator 0.
    for line, row in read_csv(path, _COLUMNS):
        here = f"{path}, line {line}"
        # A recording has a row per annotator: to be listed more than once is the rule here.
        name = safe_name(path, line, row["audio_filename"], set(), str)
        split = row["split"].strip()
        if split not in _SPLITS:
            raise DataError(f"{here}: split {split!r} is none of {', '.join(_SPLITS)}.")
        if split_of.setdefault(name, split) != split:
            raise DataError(f"{here}: {name} is in the splits {split_of[name]!r} and {split!r}.")
        sensor_of[name] = row["sensor_id"].strip()
        annotator = whole_number(here, "annotator_id", row)
        present = {
            i
            for i, column in enumerate(_COARSE.values())
            if _presence(here, column, row[column]) == 1
        }
        if annotator > 0:
            heard.setdefault(name, set()).update(present)
        elif annotator == 0:
            agreed[name] = present
    numbered = sorted(root.glob("audio-*/"), key=lambda p: (len(p.name), p.name))
    files = AudioIndex([root / "audio", *numbered, root], (".wav", ".flac", ".ogg"))
    clips = []
    unlabelled = dict.fromkeys(_SPLITS, 0)
    for name, split in split_of.items():
        labels = (heard if split == "train" else agreed).get(name)
        if labels is None:
            unlabelled[split] += 1
            continue
        clips.append(
            Clip(
                id=Path(name).stem,
                labels=tuple(sorted(labels)),
                path=files.find(name),
                split=split,
                # The published splits share sensors, and stay as published: a group is a sensor
                # within its split.
                group=f"{split}:sensor-{sensor_of[name]}",
            )
        )
    if not clips:
        raise DataError(f"{path} lists no recording with a label.")
    twice = len(clips) - len({clip.id for clip in clips})
    if twice:
        raise DataError(f"{path} lists {twice} recordings that differ only in their suffix.")
    left_out = [f"{n} {split}" for split, n in unlabelled.items() if n]
    notes = (f"Recordings without a label, left out: {listed(left_out)}.",) if left_out else ()
    return tuple(clips), notes


def _presence(here: str, column: str, text: str) -> int:
    # Some copies were written by pandas, as 1.0.
    value = {"1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}.get(text.strip())
    if value is None:
        raise DataError(f"{here}: {column} is {text!r}, not 1, 0 or -1.")
    return value


SUST = Entry(_CARD, _open)
