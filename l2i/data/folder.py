"""A folder of one's own.

Either with a list, ``meta.csv`` or ``metadata.csv``::

    filename,label,fold          filename,label,split         filename,label
    a.wav,dog,1                  a.wav,dog;music,train        a.wav,dog
    sub/b.flac,cat,2             b.wav,,test                  b.wav,cat

or with one sub-folder of sound files per class. File names are relative to the folder, or to
``audio/`` in it. The columns may be called ``file_name`` and ``category`` as well.

Sub-folders are read by one rule. A folder that holds a single folder and no sounds is passed
through. Where all folders are called as sides of a split are, ``train`` and ``test`` among them,
they are the split. The first folder after that is the class; its sounds may lie at any depth.

- Several labels are separated by ``;``. One row with two labels makes the data set multi-label,
  and then a row may have none.
- ``fold`` is a whole number from 1; ``split`` is train, validate or test. With neither, a fifth
  of the clips of each class is the test split, always the same fifth.
- An optional column ``group`` names the recording a clip was cut from: clips of one group never
  stand on both sides of a split that is made here.

Who needs no labels, since a classifier of another making is explained, may give a folder of sound
files, at any depth, without either.

Classes are sorted by name. Folders that l2i wrote (runs, explanations), that MLflow wrote or that a
system left (``__MACOSX``) are no classes; `check` names them.

Over 300 lines: four layouts of one folder, which must not be taken for each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from l2i.data.base import Card, DataSet, Entry, Files, clip_settings, listed, stratify
from l2i.data.places import candidates, read_csv, safe_name
from l2i.dsp.audio import SUFFIXES
from l2i.errors import DataError
from l2i.storage import MARK
from l2i.types import Clip, Task

if TYPE_CHECKING:
    from l2i import config

__all__ = ["FOLDER", "sounds_in"]

_LISTS = ("meta.csv", "metadata.csv")
_COLUMNS = (("filename", "file_name"), ("label", "category"))
_TEST_SHARE = 0.2
_TEST_SEED = 0
_SPLITS = {
    "train": "train",
    "validate": "validate",
    "validation": "validate",
    "valid": "validate",
    "val": "validate",
    "dev": "validate",
    "test": "test",
}

# Each tells a folder of ours: the mark of results and run stores, and what those of versions
# without it hold.
_OURS = (MARK, "mlflow.db", "work/stages")
# What unpacking, disks and servers leave beside one's own folders.
_OF_SYSTEMS = {
    *("__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information", "@eaDir", "#recycle")
}

_CARD = Card(
    name="folder",
    title="A folder of your own",
    task=Task.SINGLE_LABEL,
    classes=(),
    sample_rate=44100,
    duration_s=5.0,
    licence="yours",
    marker="meta.csv",
    citation="",
    splits=(
        "by the column fold or split of meta.csv; with neither, a fifth of each class is test",
        "validate: named in the column split, or else taken from train",
    ),
    label_rules=(
        "meta.csv or metadata.csv: filename,label[,split|fold][,group], several labels separated "
        "by ';' (multi-label); or one sub-folder per class, in train and test or without."
    ),
    notes="Set the length of its clips with -o dataset.duration_s=…",
)


def _open(wanted: config.Dataset) -> DataSet:
    if not wanted.data_dir:
        raise DataError("The data set 'folder' is a folder of yours: name it with --data-dir.")
    root = candidates(_CARD, wanted.data_dir)[0]
    if not root.is_dir():
        raise DataError(f"There is no folder {root}.")
    if path := _list_in(root):
        card, clips = _from_list(root, path)
        notes: list[str] = []
    else:
        card, clips, notes = _from_folders(root)
    if not clips:
        raise DataError(f"{root} lists no clips.")
    return _as_data_set(root, wanted, card, clips, notes)


def _as_data_set(
    root: Path, wanted: config.Dataset, card: Card, clips: list[Clip], notes: Sequence[str] = ()
) -> DataSet:
    """The clips of a folder, split where nobody has split them."""
    if not card.folds and all(clip.split is None for clip in clips):
        _, smaller = stratify(clips, _TEST_SHARE, _TEST_SEED, len(card.classes))
        test = {clip.id for clip in smaller}
        clips = [replace(c, split="test" if c.id in test else "train") for c in clips]
    card = replace(card, title=root.resolve().name or str(root), n_clips=len(clips))
    rate, n_samples = clip_settings(card, wanted)
    return Files(card, root, rate, n_samples, tuple(clips), tuple(notes))


def _open_unlabelled(wanted: config.Dataset) -> DataSet:
    """The same where there are labels; else all sound files, at any depth, without any."""
    if not wanted.data_dir:
        return _open(wanted)
    root = candidates(_CARD, wanted.data_dir)[0]
    if not root.is_dir() or _list_in(root):
        return _open(wanted)
    loose = _loose(root)
    classes = [p for p in _visible(root) if not _no_class(p)]
    if not loose and len(classes) > 1:
        return _open(wanted)
    files = [*loose, *(file for folder in sorted(classes) for file in sounds_in(folder))]
    if not files:
        raise DataError(f"{root} has no sound file ({', '.join(SUFFIXES)}).")
    ids = [file.relative_to(root).as_posix() for file in files]
    clips = [Clip(name, (), file, group=name) for name, file in zip(ids, files, strict=True)]
    return _as_data_set(root, wanted, replace(_CARD, task=Task.MULTI_LABEL), clips)


def _list_in(root: Path) -> Path | None:
    """A folder's list of clips, if it has one."""
    there = [root / name for name in _LISTS if (root / name).is_file()]
    if len(there) > 1:
        raise DataError(f"{root} has both {' and '.join(p.name for p in there)}: keep one.")
    return there[0] if there else None


def _from_list(root: Path, path: Path) -> tuple[Card, list[Clip]]:
    seen: set[str] = set()
    rows: list[tuple[str, list[str], int | None, str | None, str]] = []
    empty: list[int] = []
    by_fold = by_split = False
    for line, row in read_csv(path, _COLUMNS):
        here = f"{path}, line {line}"
        name = safe_name(path, line, row["filename"], seen, os.path.normpath)
        by_fold, by_split = "fold" in row, "split" in row
        if by_fold and by_split:
            raise DataError(f"{path} has both a column 'fold' and a column 'split': keep one.")
        labels = [word.strip() for word in row["label"].split(";")]
        labels = [word for word in labels if word]
        if not labels:
            empty.append(line)
        fold = split = None
        if by_fold:
            try:
                fold = int(row["fold"])
            except ValueError:
                fold = 0
            if fold < 1:
                raise DataError(f"{here}: fold {row['fold']!r} is not a whole number from 1.")
        if by_split:
            split = _SPLITS.get(row["split"].strip().lower())
            if split is None:
                raise DataError(f"{here}: split {row['split']!r} is none of train, validate, test.")
        rows.append((name, labels, fold, split, row.get("group", "").strip()))
    multi = any(len(set(labels)) > 1 for _, labels, *_ in rows)
    if empty and not multi:
        raise DataError(f"{path}, line {listed(empty)}: the label is empty.")
    classes = tuple(sorted({word for _, labels, *_ in rows for word in labels}))
    _two_classes(root, classes)
    index = {name: i for i, name in enumerate(classes)}
    clips = []
    for name, labels, fold, split, group in rows:
        file = root / name
        if not file.is_file() and (root / "audio" / name).is_file():
            file = root / "audio" / name
        ids = tuple(sorted({index[word] for word in labels}))
        clip_id = Path(os.path.normpath(name)).as_posix()
        clips.append(Clip(clip_id, ids, file, fold, split, group or clip_id))
    folds = tuple(sorted({clip.fold for clip in clips if clip.fold is not None}))
    if by_fold and len(folds) < 2:
        raise DataError(f"{path} has one fold only: there is nothing to train on beside it.")
    task = Task.MULTI_LABEL if multi else Task.SINGLE_LABEL
    return replace(_CARD, task=task, classes=classes, folds=folds), clips


def _from_folders(root: Path) -> tuple[Card, list[Clip], list[str]]:
    by_class: dict[str, list[Path]] = {}
    notes: list[str] = []
    left: list[Path] = []
    sides: dict[Path, str] = {}
    above, places = _class_folders(root)
    if places != [above]:
        notes.append(
            f"The folders {listed(p.name for p in places)} are the sides of the split; classes "
            "are the folders in them."
        )
    elif above != root:
        notes.append(f"Classes are the folders in {above.relative_to(root)}.")
    for place in places:
        for folder in sorted(_visible(place)):
            if why := _no_class(folder):
                notes.append(f"The folder {folder.name!r} is no class: {why}.")
                continue
            files = sorted(_files(folder))
            sounds = [file for file in files if _is_sound(file)]
            by_class.setdefault(folder.name, []).extend(sounds)
            left += [file for file in files if not _is_sound(file)]
            if place != above:
                sides |= dict.fromkeys(sounds, _SPLITS[place.name.lower()])
    if not any(by_class.values()):
        raise DataError(
            f"{root} has neither a {_CARD.marker} nor sub-folders with sound files "
            f"({', '.join(SUFFIXES)}), one per class."
        )
    for name, files in by_class.items():
        if not files:
            others = [file.relative_to(root) for file in left if name in file.parts]
            raise DataError(
                f"The class {name!r} has no clip: {above / name} has no sound file"
                + (f" in a format that is read, only {listed(others)}." if others else ".")
            )
    classes = tuple(sorted(by_class))
    _two_classes(root, classes, above)
    clips = []
    for label, name in enumerate(classes):
        for file in by_class[name]:
            clip_id = file.relative_to(root).as_posix()
            clips.append(Clip(clip_id, (label,), file, split=sides.get(file), group=clip_id))
    for place in dict.fromkeys([root, above, *places]):
        left += _loose(place)
    if left:
        names = listed(file.relative_to(root) for file in left)
        notes.append(
            f"{len(left)} {'file is' if len(left) == 1 else 'files are'} left out, in no class or "
            f"in no format that is read: {names}."
        )
    return replace(_CARD, classes=classes), clips, notes


def _visible(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]


def _class_folders(root: Path) -> tuple[Path, list[Path]]:
    """The folder below which there are nothing but data, and those that hold the classes: itself,
    or one for each side of the split."""
    above = root
    while True:
        inside = [p for p in _visible(above) if not _no_class(p)]
        if len(inside) != 1 or _loose(above):
            break
        below = inside[0]
        # A class, if there are sounds in it; and links may lead round in circles.
        if _loose(below) or below.is_symlink() or not _visible(below):
            break
        above = below
    sides = {_SPLITS.get(p.name.lower()) for p in inside}
    if None not in sides and {"train", "test"} <= sides:
        return above, sorted(inside)
    return above, [above]


def _is_sound(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES


def _files(folder: Path) -> Iterator[Path]:
    """Files of a class, and of folders in it, linked ones too; without those that are hidden.

    A link to where it has been, or to a folder above the class, is given itself.
    """
    # By its name: the parent of '.' is '.'.
    parent = Path(os.path.abspath(folder)).parent.resolve()
    seen = {parent, *parent.parents, *folder.resolve().parents}
    for above, folders, files in os.walk(folder, followlinks=True):
        place = Path(above).resolve()
        if place in seen:
            folders.clear()
            yield Path(above)
            continue
        seen.add(place)
        folders[:] = [
            name for name in folders if not (name.startswith(".") or _no_class(Path(above, name)))
        ]
        yield from (Path(above, name) for name in files if not name.startswith("."))


def sounds_in(folder: Path) -> list[Path]:
    """The sound files in a folder, at any depth, but for hidden ones and those that l2i wrote."""
    return [] if _no_class(folder) else [f for f in sorted(_files(folder)) if _is_sound(f)]


def _no_class(folder: Path) -> str:
    """Why the sounds in a folder are none of the data set's; empty: they are."""
    if any((folder / name).exists() for name in _OURS):
        return "l2i wrote it"
    # Explanations of versions without the mark; where sounds lie beside them, they are somebody's.
    if any(folder.glob("*/explanation.json")) and not any(map(_is_sound, folder.iterdir())):
        return "l2i wrote it"
    if (folder / "0" / "meta.yaml").is_file():
        return "MLflow wrote it"
    return "a system left it" if folder.name in _OF_SYSTEMS else ""


def _loose(folder: Path) -> list[Path]:
    """Sounds that lie in a folder itself, and so in no class."""
    return [p for p in sorted(folder.iterdir()) if p.is_file() and _is_sound(p)]


def _two_classes(root: Path, classes: tuple[str, ...], above: Path | None = None) -> None:
    """Refuse fewer; sounds that lie in `above`, beside the folder of a class, may be why."""
    if len(classes) < 2:
        loose = _loose(above) if above else []
        names = listed(file.relative_to(root) for file in loose)
        why = f" A folder is passed through where it is alone, and beside it there is {names}."
        raise DataError(
            f"{root} has {'one class only, ' + repr(classes[0]) if classes else 'no class'}: "
            f"a classifier needs two.{why if loose else ''}"
        )


FOLDER = Entry(_CARD, _open, _open_unlabelled)
