"""Makers of miniature data sets: a few short clips in the layout the real one has.

::

    from l2i import config
    from l2i.data import open_dataset
    from tests import miniatures

    root = miniatures.esc50(tmp_path / "esc10", esc10_only=True)
    data = open_dataset(config.Dataset(name="esc10", data_dir=str(root), **miniatures.FORM))

A clip is a chord that only its classes have, with some noise, so that a classifier can learn it.
The same call gives the same bytes. `make` has a miniature for every registered data set.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from l2i import config
from l2i.data import card, open_dataset
from l2i.data.base import DataSet

__all__ = [
    "DURATION_S",
    "FORM",
    "SAMPLE_RATE",
    "SUST",
    "Recording",
    "esc50",
    "folder_csv",
    "folder_tree",
    "make",
    "opened",
    "sound",
    "sust",
    "write_csv",
]

SAMPLE_RATE = 8000
DURATION_S = 0.25
# Fields of `l2i.config.Dataset`: the form the clips have, so that nothing is resampled or padded.
FORM: dict[str, Any] = {"sample_rate": SAMPLE_RATE, "duration_s": DURATION_S}


def sound(
    labels: Iterable[int], number: int, seconds: float = DURATION_S, rate: int = SAMPLE_RATE
) -> np.ndarray:
    """Float32 ``[S]``: for each class a tone and its fifth, and noise 20 dB below."""
    rng = np.random.default_rng([number, *sorted(labels)])
    n = round(seconds * rate)
    t = np.arange(n) / rate
    x = 0.02 * rng.standard_normal(n)
    for label in labels:
        # 51 steps of a 1/13 octave from 150 Hz end below half the sample rate.
        pitch = 150.0 * 2 ** (label / 13)
        for frequency in (pitch, 1.5 * pitch):
            x += 0.1 * np.sin(2 * np.pi * (frequency * t + rng.uniform()))
    return x.astype(np.float32)


def _write(
    path: Path,
    labels: Iterable[int],
    number: int,
    seconds: float = DURATION_S,
    rate: int = SAMPLE_RATE,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(labels, number, seconds, rate), rate, subtype="PCM_16")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A csv file with a first line of names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


# --- ESC-50 and ESC-10 ------------------------------------------------------------------------


def esc50(
    folder: Path,
    clips_per_class_and_fold: int = 1,
    esc10_only: bool = False,
    seconds: float = DURATION_S,
) -> Path:
    """ESC-50's layout: ``meta/esc50.csv`` and ``audio/``; five folds.

    Parameters
    ----------
    folder : Path
        Made; returned.
    clips_per_class_and_fold : int
        From the second on, clips are takes of the first's recording, two by two: A and B of one,
        A and B of the next.
    esc10_only : bool
        Only the ten classes of ESC-10: 50 clips in place of 250.
    seconds : float
        Length of each clip.
    """
    tens = set(card("esc10").classes)
    rows = []
    for target, name in enumerate(card("esc50").classes):
        if esc10_only and name not in tens:
            continue
        for fold in range(1, 6):
            for i in range(clips_per_class_and_fold):
                source = 10_000 * fold + 100 * target + i // 2
                take = "AB"[i % 2]
                file = f"{fold}-{source}-{take}-{target}.wav"
                _write(folder / "audio" / file, [target], 2 * source + i % 2, seconds)
                rows.append((file, fold, target, name, str(name in tens), source, take))
    rows.sort()  # As the real list is: by file name, not by class.
    header = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    write_csv(folder / "meta" / "esc50.csv", header, rows)
    return folder


# --- SONYC-UST --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """One recording of the miniature of SONYC-UST, and who heard what in it.

    Attributes
    ----------
    name, split : str
    sensor : int
    heard : mapping of int to tuple of str
        Annotator to the classes they marked present. Above 0 a volunteer, who was asked all;
        0 the agreed truth; below 0 a project member, asked only the classes they marked.
    labels : tuple of str or None
        What the label rules make of it; None where it is left out.
    """

    name: str
    split: str
    sensor: int
    heard: Mapping[int, tuple[str, ...]]
    labels: tuple[str, ...] | None


def _train(number: int, sensor: int, *heard: tuple[str, ...], labels: tuple[str, ...]) -> Recording:
    name = f"{sensor:02d}_{number:06d}.wav"
    return Recording(name, "train", sensor, dict(enumerate(heard, start=1)), labels)


# Every class is heard by two sensors of the training split or more.
SUST: tuple[Recording, ...] = (
    _train(1, 0, ("engine",), ("engine",), ("engine",), labels=("engine",)),
    # One volunteer of three is enough.
    _train(2, 0, (), ("dog",), (), labels=("dog",)),
    _train(3, 0, ("music",), ("human-voice",), (), labels=("music", "human-voice")),
    _train(4, 0, (), (), (), labels=()),
    _train(5, 1, ("powered-saw", "engine"), (), (), labels=("engine", "powered-saw")),
    _train(6, 1, ("machinery-impact",), (), (), labels=("machinery-impact",)),
    _train(7, 1, ("alert-signal",), ("alert-signal",), (), labels=("alert-signal",)),
    _train(8, 1, (), (), ("non-machinery-impact",), labels=("non-machinery-impact",)),
    _train(9, 2, ("engine",), ("music",), ("music",), labels=("engine", "music")),
    _train(10, 2, ("human-voice",), (), (), labels=("human-voice",)),
    _train(11, 2, ("dog",), ("dog",), ("dog",), labels=("dog",)),
    _train(12, 2, ("powered-saw",), (), (), labels=("powered-saw",)),
    _train(13, 3, ("machinery-impact",), ("alert-signal",), (),
           labels=("machinery-impact", "alert-signal")),
    _train(14, 3, ("non-machinery-impact",), (), (), labels=("non-machinery-impact",)),
    _train(15, 3, ("engine",), (), (), labels=("engine",)),
    # In the training split neither the agreed truth nor a project member is asked ...
    Recording("03_000016.wav", "train", 3, {1: ("music",), 0: ("dog",), -1: ("engine",)},
              ("music",)),
    # ... and a recording that no volunteer has heard is left out.
    Recording("03_000017.wav", "train", 3, {0: ("dog",), -2: ("dog",)}, None),
    # Elsewhere only the agreed truth counts.
    Recording("10_000018.wav", "validate", 10, {1: ("engine",), 0: ("music",)}, ("music",)),
    Recording("10_000019.wav", "validate", 10, {-1: ("dog",), 0: ()}, ()),
    Recording("11_000020.wav", "validate", 11, {1: ("dog",), -1: ("dog",)}, None),
    # Sensor 0 is in the training split too.
    Recording("00_000021.wav", "test", 0, {1: ("dog",), 2: ("dog",), 0: ("engine",)}, ("engine",)),
    Recording("12_000022.wav", "test", 12, {0: ("engine", "dog"), -1: ("music",)},
              ("engine", "dog")),
    Recording("12_000023.wav", "test", 12, {-3: ("music",), 1: ("music",)}, None),
    Recording("12_000024.wav", "test", 12, {0: ()}, ()),
)  # fmt: skip

_FINE = {
    "1": ("1_small-sounding-engine", "2_medium-sounding-engine", "3_large-sounding-engine",
          "X_engine-of-uncertain-size"),
    "2": ("1_rock-drill", "2_jackhammer", "3_hoe-ram", "4_pile-driver",
          "X_other-unknown-impact-machinery"),
    "3": ("1_non-machinery-impact",),
    "4": ("1_chainsaw", "2_small-medium-rotating-saw", "3_large-rotating-saw",
          "X_other-unknown-powered-saw"),
    "5": ("1_car-horn", "2_car-alarm", "3_siren", "4_reverse-beeper",
          "X_other-unknown-alert-signal"),
    "6": ("1_stationary-music", "2_mobile-music", "3_ice-cream-truck",
          "X_music-from-uncertain-source"),
    "7": ("1_person-or-small-group-talking", "2_person-or-small-group-shouting",
          "3_large-crowd", "4_amplified-speech", "X_other-unknown-human-voice"),
    "8": ("1_dog-barking-whining",),
}  # fmt: skip


def sust(
    folder: Path,
    recordings: Sequence[Recording] = SUST,
    audio: str = "audio",
    seconds: float = DURATION_S,
    rate: int = SAMPLE_RATE,
) -> Path:
    """SONYC-UST's layout: ``annotations.csv`` with its 78 columns, sounds in ``audio/``.

    Parameters
    ----------
    folder : Path
        Made; returned.
    recordings : sequence of Recording
    audio : str
        The folder of the sounds, which real copies have as ``audio-0`` … or not at all (".").
    seconds : float
        Length of each recording.
    rate : int
        Samples per second.
    """
    classes = card("sust").classes
    fine = [f"{coarse}-{name}" for coarse, names in _FINE.items() for name in names]
    header = [
        *("split", "sensor_id", "audio_filename", "annotator_id", "year", "week", "day", "hour"),
        *("borough", "block", "latitude", "longitude"),
        *(f"{name}_presence" for name in fine),
        *(f"{name}_proximity" for name in fine),
        *(f"{i}_{name}_presence" for i, name in enumerate(classes, start=1)),
    ]
    rows: list[list[object]] = []
    for number, recording in enumerate(recordings):
        for annotator, present in recording.heard.items():
            absent = -1 if annotator < 0 else 0
            row: list[object] = [recording.split, recording.sensor, recording.name, annotator]
            row += [2019, 20, 3, 12, 1, 547, 40.7, -74.0]
            row += [-1] * len(fine) + ["notsure"] * len(fine)
            row += [1 if name in present else absent for name in classes]
            rows.append(row)
        labels = [classes.index(name) for name in recording.labels or ()]
        _write(folder / audio / recording.name, labels, number, seconds, rate)
    write_csv(folder / "annotations.csv", header, rows)
    return folder


# --- a folder of one's own --------------------------------------------------------------------

_OWN = ("bark", "bell", "rain")


def folder_csv(
    folder: Path,
    by: str = "fold",
    clips_per_class: int = 6,
    multi: bool = False,
    seconds: float = DURATION_S,
) -> Path:
    """A folder with a list, ``meta.csv``; three classes.

    Parameters
    ----------
    folder : Path
        Made; returned.
    by : {'fold', 'split', ''}
        The column that divides the clips (three folds; or half train, and validate and test in
        turn); empty: there is none.
    clips_per_class : int
    multi : bool
        Every second clip carries the next class too, and there is one clip without a label.
    seconds : float
        Length of each clip.
    """
    header = ["filename", "label", *([by] if by else [])]
    rows: list[list[object]] = []
    for label, name in enumerate(_OWN):
        for i in range(clips_per_class):
            labels = [label]
            if multi and i % 2:
                labels.append((label + 1) % len(_OWN))
            file = f"{name}/{i}.wav"
            _write(folder / file, labels, 100 * label + i, seconds)
            division: dict[str, object] = {
                "fold": i % 3 + 1,
                "split": ("train", "validate", "train", "test")[i % 4],
            }
            words = ";".join(_OWN[x] for x in labels)
            rows.append([file, words, *([division[by]] if by else [])])
    if multi:
        _write(folder / "nothing.wav", [], 999, seconds)
        rows.append(["nothing.wav", "", *([{"fold": 1, "split": "train"}[by]] if by else [])])
    write_csv(folder / "meta.csv", header, rows)
    return folder


def folder_tree(folder: Path, clips_per_class: int = 6, seconds: float = DURATION_S) -> Path:
    """A folder with one sub-folder per class and no list; three classes."""
    for label, name in enumerate(_OWN):
        for i in range(clips_per_class):
            _write(folder / name / f"{i}.wav", [label], 100 * label + i, seconds)
    return folder


# --- all of them ------------------------------------------------------------------------------


def make(name: str, folder: Path) -> list[config.Dataset]:
    """A miniature of any registered data set, in each of the forms it may have.

    Parameters
    ----------
    name : str
        A name in `l2i.data.DATASETS`. A new data set needs a branch here, and the contract does the
        rest.
    folder : Path
        What is written lies below it.

    Returns
    -------
    list of l2i.config.Dataset
    """
    form: dict[str, Any] = {"name": name, **FORM}
    roots: list[Path]
    if name in ("demo", "demo-multilabel"):
        return [config.Dataset(**form, clips_per_class=10)]
    if name == "esc50":
        roots = [esc50(folder / name)]
    elif name == "esc10":
        # By itself, with two clips of each recording, and as a part of ESC-50.
        roots = [esc50(folder / "ESC-10", 3, esc10_only=True), esc50(folder / "ESC-50")]
    elif name == "sust":
        roots = [sust(folder / "sust"), sust(folder / "SONYC-UST", audio="audio-0")]
    elif name == "folder":
        roots = [
            folder_tree(folder / "tree"),
            *(folder_csv(folder / f"by-{by or 'none'}", by) for by in ("fold", "split", "")),
            folder_csv(folder / "multi", "fold", multi=True),
        ]
    else:
        raise KeyError(f"tests/miniatures.py has no miniature of the data set {name!r}")
    return [config.Dataset(**form, data_dir=str(root)) for root in roots]


def opened(name: str, root: Path, **changes: Any) -> DataSet:
    """A data set in a folder, in the form of its clips unless `changes` say otherwise."""
    return open_dataset(config.Dataset(**{"name": name, "data_dir": str(root), **FORM, **changes}))
