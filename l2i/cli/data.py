"""``l2i data``: which data sets there are, what is in them, and how to have them.

Over 300 lines: a command of five, whose answers are long.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l2i.cli import kinds, options
from l2i.cli.base import Group, answered, emit_json, emit_table, emit_text, wants_json
from l2i.data import DATASETS, card, open_dataset, refuse_folder
from l2i.errors import DataError, UsageError
from l2i.run.progress import Progress
from l2i.storage import disk_usage, format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from l2i.data.base import Card, DataSet

_data_dir = click.option(
    "--data-dir",
    type=kinds.PLACE,
    metavar="DIR",
    help="Folder of the data set, or its parent; except in 'fetch' also an s3:// URL.  "
    "[default: the user's cache]",
)


@click.group(cls=Group, example="l2i data list")
def data() -> None:
    """List, describe, fetch and check data sets; empty their cache."""


@data.command("list", example="l2i data list --data-dir /data")
@_data_dir
@options.as_json
def list_(data_dir: Path | str | None) -> None:
    """List all data sets, and whether they are at hand."""
    cards = [card(name) for name in DATASETS]
    places = {c.name: _place(c, data_dir) for c in cards}
    if answered([{**_summary(c), "path": places[c.name]} for c in cards]):
        return
    rows = [
        (
            *(c.name, c.task.value, len(c.classes) or "-", c.n_clips or "-"),
            f"{c.duration_s:g} s",
            format_bytes(c.size_bytes) if c.size_bytes else "-",
            _at_hand(c, places[c.name]),
        )
        for c in cards
    ]
    head = ["name", "task", "classes", "clips", "length", "size", "at hand"]
    emit_table(head, rows, right=(2, 3, 4, 5))


def _at_hand(c: Card, place: str | None) -> str:
    if not c.folders:
        # Nothing of theirs lies in a known place.
        return "yours" if c.name == "folder" else "built in"
    return "yes" if place else "no"


@data.command(example="l2i data info esc10")
@click.argument("name", type=kinds.DATASET)
@_data_dir
@options.as_json
def info(name: str, data_dir: Path | str | None) -> None:
    """Show a data set: classes, licence, splits, labels, place."""
    from l2i import config
    from l2i.data.base import class_counts
    from l2i.data.cache import WaveformCache

    refuse_folder(name, options.resolved(data_dir) or "")
    c, place = card(name), _place(card(name), data_dir)
    counts: dict[str, int] = {}
    table: list[dict[str, Any]] = []
    if data_dir is not None and not isinstance(data_dir, str) and c.takes_folder:
        # What its clips say goes beyond the card, which of a folder says next to nothing.
        dataset = open_dataset(config.Dataset(name=name, data_dir=str(data_dir)))
        c, place, counts = (
            dataset.card,
            str(dataset.root),
            class_counts(dataset.card.classes, dataset.clips()),
        )
        table = _classes_of(dataset, {})
    cache = WaveformCache()
    cached = cache.entries(name)
    document = {
        **_summary(c),
        "name": name,
        "path": place,
        "counts": counts,
        "table": table,
        "cache": {
            "folder": str(cache.folder),
            "bytes": sum(entry.n_bytes for entry in cached),
            "entries": len(cached),
        },
    }
    if answered(document):
        return
    lines = [
        ("name", c.name),
        ("title", c.title),
        ("task", c.task.value),
        ("classes", _classes(c.classes, counts)),
        ("clips", f"{c.n_clips or 'as dataset'}, {c.duration_s:g} s at {c.sample_rate} Hz"),
        ("folds", ", ".join(map(str, c.folds)) or "none"),
        *(("split", line) for line in c.splits),
        ("labels", c.label_rules),
        ("licence", c.licence),
        ("citation", c.citation),
        ("homepage", c.homepage),
        *(("source", remote.url) for remote in c.remotes[:3]),
        ("source", f"and {len(c.remotes) - 3} more" if len(c.remotes) > 3 else ""),
        ("size", f"about {format_bytes(c.size_bytes)}" if c.size_bytes else ""),
        ("notes", c.notes),
        ("at hand", place or _at_hand(c, place)),
        ("cache", _cache_line(cached)),
    ]
    before = ""
    for key, text in lines:
        if text:
            _field("" if key == before else key, text)
            before = key
    _show_classes(table)


def _classes_of(dataset: DataSet, seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row per class, by the first fold; none where there is no split, which training says."""
    from l2i import config
    from l2i.data.survey import class_table

    usual = config.Dataset()
    fold = dataset.card.folds[0] if dataset.card.folds else 1
    try:
        split = dataset.split(fold, usual.validation_share, 0)
    except DataError as error:
        click.echo(f"There is no split yet: {error}", err=True)
        return []
    return class_table(dataset.card.classes, split, seconds)


def _show_classes(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    cells = [
        (
            # What is blank at an end would not be seen.
            row["class"] if row["class"] == row["class"].strip() else repr(row["class"]),
            *(row[side] for side in ("train", "validate", "test")),
            "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
        )
        for row in rows
    ]
    emit_table(["class", "train", "validate", "test", "seconds"], cells, right=(1, 2, 3, 4))


def _classes(names: Sequence[str], counts: Mapping[str, int]) -> str:
    if not names:
        return "as found"
    words = [f"{name} {counts[name]}" if counts else name for name in names]
    return f"{len(names)}{', clips of each' if counts else ''}: {', '.join(words)}"


def _cache_line(entries: list[Any]) -> str:

    if not entries:
        return "nothing"
    n_bytes = sum(entry.n_bytes for entry in entries)
    plural = "entry" if len(entries) == 1 else "entries"
    return f"{format_bytes(n_bytes)} in {len(entries)} {plural}, {entries[0].path.parent}"


@data.command(example="l2i data fetch esc50 --data-dir /data")
@click.argument("name", type=kinds.DATASET)
@_data_dir
@options.quiet
def fetch(name: str, data_dir: Path | str | None, progress: Progress) -> None:
    """Fetch a data set from its official source.

    What broke off is gone on with, what came is verified, and a folder that is not empty is
    never written into.
    """
    from l2i.data.fetch import fetch as fetch_data

    if isinstance(data_dir, str):
        raise UsageError(
            f"'l2i data fetch' writes into a folder of this machine, not to {data_dir}: fetch it "
            "to one, and copy that."
        )
    show = _Bytes(progress)
    try:
        target = fetch_data(name, data_dir or "", progress=show, on_step=progress.say)
    finally:
        show.close()
    click.echo(str(target))


class _Bytes:
    """One bar per file, in megabytes; `fetch` tells (name, bytes done, bytes in all)."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._name = ""
        self._bar = ExitStack()

    def __call__(self, name: str, done: int, total: int | None) -> None:
        if name != self._name:
            self.close()
            in_all = round(total / 1e6, 1) if total is not None else None
            # The first block is counted as done before: a resumed file has no false rate.
            task = self._progress.task(name, in_all, "MB", done=round(done / 1e6, 1))
            self._name, self._task = name, self._bar.enter_context(task)
        else:
            self._task.advance(round(done / 1e6, 1) - self._task.done)

    def close(self) -> None:
        self._bar.close()


@data.command(example="l2i data check esc10 --data-dir /data/ESC-10")
@click.argument("name", type=kinds.DATASET)
@_data_dir
@click.option(
    "--decode/--no-decode",
    default=True,
    help="Decode every clip, or only check that its file is there.",
)
@options.quiet
@options.as_json
def check(name: str, data_dir: Path | str | None, decode: bool, progress: Progress) -> None:
    """Show which clips of a data set are missing and which are invalid.

    Ends with exit code 1 if there are any.
    """
    from l2i import config
    from l2i.data.base import class_counts
    from l2i.recipes.opening.disk import disk_of, disk_sentence

    card(name)  # A name that is not known is said before the config looks at the rest.
    refuse_folder(name, options.resolved(data_dir) or "")
    dataset = open_dataset(config.Dataset(name=name, data_dir=str(data_dir or "")))
    n = len(dataset.clips())
    disk = disk_of(dataset, name)
    counts = class_counts(dataset.card.classes, dataset.clips())
    shown = Progress(progress.quiet or wants_json() or not decode)
    with shown.task(name, n, "clip") as task:
        report = dataset.check(decode, lambda done, total: task.advance(done - task.done))
    if wants_json():
        emit_json(
            {
                "name": name,
                "path": str(dataset.root) if dataset.root else None,
                "clips": report.n_clips,
                "classes": counts,
                "table": _classes_of(dataset, report.seconds),
                "missing": list(report.missing),
                "invalid": [{"file": file, "why": why} for file, why in report.invalid],
                "notes": list(report.notes),
                "disk": disk,
                "ok": report.ok,
            }
        )
    else:
        where = f" in {dataset.root.resolve()}" if dataset.root else ""
        click.echo(f"{dataset.card.title}: {report.n_clips} clips listed{where}.")
        _field("Classes:", _classes(dataset.card.classes, counts))
        table = _classes_of(dataset, report.seconds)
        _show_classes(table)
        _problems("missing", list(report.missing))
        _problems("invalid", [why for _, why in report.invalid])
        for note in report.notes:
            _field("Note:", note)
        if disk is not None:
            _field("Disk:", disk_sentence(disk))
        if report.ok:
            ends = "can be used" if decode else "are there"
            click.echo(f"All clips {ends}{'' if table else '; there is no split to train on'}.")
    if not report.ok:
        sys.exit(1)


def _problems(kind: str, lines: list[str], most: int = 20) -> None:
    click.echo(f"{kind.capitalize()}: {len(lines) or 'none'}")
    for line in lines[:most]:
        click.echo(f"  {line}")
    if len(lines) > most:
        click.echo(f"  and {len(lines) - most} more; --json lists them all")


@data.command(example="l2i data clean esc10 --yes")
@click.argument("name", type=kinds.DATASET, required=False)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def clean(name: str | None, yes: bool) -> None:
    """Remove decoded clips from the cache: of one data set, or of all.

    The data sets themselves are not touched; the next run decodes its clips anew.
    """
    from l2i.data.cache import WaveformCache

    if name is not None:
        card(name)  # A name that is not known is said, not passed over.
    cache = WaveformCache()
    entries = cache.entries(name)
    left = sum(disk_usage(path) for path in cache.leftovers())
    if not entries and not left:
        click.echo(f"Nothing to remove in {cache.folder}.")
        return
    for entry in entries:
        click.echo(
            f"{entry.dataset}: {entry.n_clips} clips at {entry.sample_rate} Hz, "
            f"{format_bytes(entry.n_bytes)}"
        )
    if left:
        click.echo(f"unfinished, of processes that were stopped: {format_bytes(left)}")
    if not yes and not click.confirm(f"Remove them from {cache.folder}?"):
        click.echo("Nothing was removed.")
        sys.exit(1)
    before = disk_usage(cache.folder)
    cache.clean(name)
    click.echo(f"Removed {format_bytes(max(0, before - disk_usage(cache.folder)))}.")


# --- showing ----------------------------------------------------------------------------------


def _place(c: Card, data_dir: Path | str | None) -> str | None:
    """Where a data set lies, if its list of clips is there."""
    from l2i.data.places import candidates

    if not c.folders:
        return None
    if isinstance(data_dir, str):
        from l2i.data.remote import find

        try:
            return str(find(c, data_dir))
        except DataError:
            return None
    return next((str(p) for p in candidates(c, data_dir or "") if (p / c.marker).is_file()), None)


def _summary(c: Card) -> dict[str, Any]:
    first = ("name", "title", "task", "classes", "n_clips", "sample_rate", "duration_s", "folds")
    more = ("splits", "label_rules", "licence", "citation", "homepage", "size_bytes", "notes")
    facts = {key: getattr(c, key) for key in (*first, *more)}
    return facts | {"sources": [remote.url for remote in c.remotes]}


def _field(key: str, text: str) -> None:
    emit_text(text, f"{key:<10}", 10)
