"""ESC-50 and ESC-10: environmental sounds, 40 clips per class in five folds.

Layout: ``meta/esc50.csv`` with ``filename,fold,target,category,esc10,src_file,take``, sounds in
``audio/``. A listed ``1-100032-A-0.wav`` may lie there as flac or ogg too. Clips cut from one
recording (``src_file``) never cross folds, and never stand on both sides of the validation
split either.

ESC-10 is the rows whose ``esc10`` is True, its classes in the order of their ESC-50 targets.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from l2i.data.base import Card, DataSet, Entry, Files, Remote, clip_settings, listed
from l2i.data.places import AudioIndex, find_root, read_csv, safe_name, whole_number
from l2i.errors import DataError
from l2i.types import Clip, Task

if TYPE_CHECKING:
    from l2i import config

__all__ = ["ESC10", "ESC50"]

_COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")

# By target, 0 to 49: ten of each kind.
_CLASSES = (
    # Animals.
    *("dog", "rooster", "pig", "cow", "frog", "cat", "hen", "insects", "sheep", "crow"),
    # Nature.
    *("rain", "sea_waves", "crackling_fire", "crickets", "chirping_birds", "water_drops"),
    *("wind", "pouring_water", "toilet_flush", "thunderstorm"),
    # People.
    *("crying_baby", "sneezing", "clapping", "breathing", "coughing", "footsteps", "laughing"),
    *("brushing_teeth", "snoring", "drinking_sipping"),
    # Indoors.
    *("door_wood_knock", "mouse_click", "keyboard_typing", "door_wood_creaks", "can_opening"),
    *("washing_machine", "vacuum_cleaner", "clock_alarm", "clock_tick", "glass_breaking"),
    # Outdoors.
    *("helicopter", "chainsaw", "siren", "car_horn", "engine", "train", "church_bells"),
    *("airplane", "fireworks", "hand_saw"),
)
_ESC10_TARGETS = (0, 1, 10, 11, 12, 20, 21, 38, 40, 41)

_CARD_50 = Card(
    name="esc50",
    title="ESC-50",
    task=Task.SINGLE_LABEL,
    classes=_CLASSES,
    sample_rate=44100,
    duration_s=5.0,
    n_clips=2000,
    licence="CC BY-NC 3.0",
    citation=(
        "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. "
        "Proc. 23rd ACM Conference on Multimedia, 2015. doi:10.1145/2733373.2806390"
    ),
    homepage="https://github.com/karolpiczak/ESC-50",
    folds=(1, 2, 3, 4, 5),
    splits=(
        "test: the fold asked for, 400 clips",
        "train: the other four folds",
        "validate: taken from train, whole source recordings, evenly by class",
    ),
    label_rules="The one target of each clip.",
    remotes=(
        Remote(
            url="https://github.com/karolpiczak/ESC-50/archive/master.zip",
            name="ESC-50-master.zip",
            unpack=True,
        ),
    ),
    folders=("esc50", "ESC-50-master", "ESC-50"),
    marker="meta/esc50.csv",
    size_bytes=885_000_000,
    notes="GitHub may repack the archive, so its contents are checked and not its checksum.",
)

_CARD_10 = replace(
    _CARD_50,
    name="esc10",
    title="ESC-10",
    classes=tuple(_CLASSES[t] for t in _ESC10_TARGETS),
    n_clips=400,
    licence="CC BY 3.0",
    splits=("test: the fold asked for, 80 clips", *_CARD_50.splits[1:]),
    label_rules="The one target of each clip, renumbered 0 to 9 in the order of ESC-50's targets.",
    folders=("esc50", "esc10", "ESC-50-master", "ESC-50", "ESC-10"),
    notes="Part of ESC-50's archive. " + _CARD_50.notes,
)


def _open(wanted: config.Dataset, card: Card) -> DataSet:
    root = find_root(card, wanted.data_dir)
    rate, n_samples = clip_settings(card, wanted)
    return Files(card, root, rate, n_samples, _read(root, card))


def _read(root: Path, card: Card) -> tuple[Clip, ...]:
    path = root / card.marker
    files = AudioIndex([root / "audio"], (".wav", ".flac", ".ogg"))
    label_of = {_CLASSES.index(name): i for i, name in enumerate(card.classes)}
    seen: set[str] = set()
    clips: list[Clip] = []
    for line, row in read_csv(path, _COLUMNS):
        here = f"{path}, line {line}"
        name = safe_name(path, line, row["filename"], seen, lambda n: Path(n).stem)
        target, fold = whole_number(here, "target", row), whole_number(here, "fold", row)
        if not 0 <= target < len(_CLASSES):
            raise DataError(f"{here}: target {target} is no class of ESC-50; they are 0 to 49.")
        if row["category"].strip() != _CLASSES[target]:
            raise DataError(
                f"{here}: category {row['category']!r} is not that of target {target}, "
                f"{_CLASSES[target]!r}."
            )
        if fold not in card.folds:
            raise DataError(
                f"{here}: there is no fold {fold}; the folds are {', '.join(map(str, card.folds))}."
            )
        if card is _CARD_10 and row["esc10"].strip().lower() != "true":
            continue
        if target not in label_of:
            raise DataError(f"{here}: {_CLASSES[target]!r} is not among the classes of ESC-10.")
        clips.append(
            Clip(
                id=Path(name).stem,
                labels=(label_of[target],),
                path=files.find(name),
                fold=fold,
                group=row["src_file"].strip(),
            )
        )
    present = {clip.labels[0] for clip in clips}
    absent = [name for i, name in enumerate(card.classes) if i not in present]
    if absent:
        hint = ""
        if card.name == "esc50" and set(_CARD_10.classes).isdisjoint(absent):
            hint = " A copy with only the ten classes of ESC-10 is the data set 'esc10'."
        some = "class" if len(absent) == 1 else f"{len(absent)} classes"
        raise DataError(f"{path} lists no clip of the {some} {listed(absent)}.{hint}")
    return tuple(clips)


ESC50 = Entry(_CARD_50, lambda wanted: _open(wanted, _CARD_50))
ESC10 = Entry(_CARD_10, lambda wanted: _open(wanted, _CARD_10))
