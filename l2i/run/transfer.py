"""Runs that move: exported whole and imported elsewhere, a store that was moved mended.

An export is a folder (or a prefix at ``s3://``) that any machine can read::

    <target>/<run id>/run.json     parameters, tags, every step of every metric, times
    <target>/<run id>/artifacts/   all of them

What is imported is a run of its own, tagged ``l2i.imported_from``; importing it again finds it.
An export may be a stranger's: a link in it, which could lead to any file of this machine, is
refused before anything is imported.

Over 300 lines: what is exported must come back: both sides of one format.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from l2i.errors import DataError, StoreError
from l2i.run.address import Store, kept_tag, local_path, locate, mask
from l2i.run.events import send_event
from l2i.run.search import RunInfo
from l2i.run.store import check_own, connect, experiment_id, store_errors, unlocked
from l2i.storage import (
    FileLock,
    atomic_path,
    atomic_write_text,
    disk_errors,
    is_s3,
    make_output,
    s3,
    safe_extract,
)

_FORMAT = 1
# These are of the machine where the run was made, or of its store.
_LOCAL_TAGS = ("l2i.lock", "l2i.host", "l2i.mounts", "mlflow.parentRunId")


def export_run(run: RunInfo, target: Path | str) -> str:
    """Write all of a run below a folder, or below an ``s3://`` address.

    Returns
    -------
    str
        The run's own folder there.

    Raises
    ------
    StoreError
        The store cannot be read, or the target not written.
    """
    if isinstance(target, str) and is_s3(target):
        with tempfile.TemporaryDirectory() as folder:
            _write(run, Path(folder))
            place = s3.Location.parse(target) / run.id
            # Its list comes last: an export without one is none.
            s3.send(Path(folder) / "artifacts", place / "artifacts")
            s3.write(place / "run.json", (Path(folder) / "run.json").read_bytes())
            return str(place)
    own = Path(target) / run.id
    with disk_errors(own):
        make_output(Path(target))
        make_output(own, run.id, run.name)
        _write(run, own)
    return str(own)


def export_archive(runs: Sequence[RunInfo], path: Path) -> None:
    """Write all of some runs into one zip file, whole or not at all.

    Raises
    ------
    StoreError
        The store cannot be read, or the file not written.
    """
    with tempfile.TemporaryDirectory() as folder, atomic_path(path) as fresh:
        for run in runs:
            export_run(run, Path(folder))
        shutil.make_archive(str(fresh.with_suffix("")), "zip", folder)


def _write(run: RunInfo, folder: Path) -> None:
    store = locate()
    client = connect(store)
    check_own(store, run.id, run.artifact_uri)
    (folder / "artifacts").mkdir(exist_ok=True)
    with store_errors(store, "read"):
        metrics = {
            key: [
                [m.step, m.value, m.timestamp]
                for m in sorted(client.get_metric_history(run.id, key), key=lambda m: m.step)
            ]
            for key in sorted(run.metrics)
        }
        if client.list_artifacts(run.id):
            client.download_artifacts(run.id, "", str(folder / "artifacts"))
    document = {
        "format": _FORMAT,
        "run_id": run.id,
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "start": run.start and round(1000 * run.start.timestamp()),
        "end": run.end and round(1000 * run.end.timestamp()),
        "params": run.params,
        "tags": {k: mask(v) for k, v in run.tags.items()},
        "metrics": metrics,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    atomic_write_text(folder / "run.json", text + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["format"] > _FORMAT:
            raise DataError(f"{path} was written by a newer l2i.")
        return {key: tree[key] for key in ("run_id", "params", "tags", "metrics")} | tree
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no export of a run: {error}.") from None


@contextmanager
def _exports(source: Path | str) -> Iterator[list[Path]]:
    """Folders of exports below a place or in an archive, here."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        if is_s3(source):
            s3.fetch(s3.Location.parse(str(source)), here)
        elif Path(source).is_file():
            safe_extract(source, here)
        elif Path(source).is_dir():
            here = Path(source)
        else:
            raise DataError(f"There is no folder or archive {source}.")
        yield sorted(p.parent for p in here.rglob("run.json"))


def import_runs(
    source: Path | str, *, experiment: str | None = None
) -> list[tuple[str, str, bool]]:
    """Make runs of all exports below a folder or an ``s3://`` address, or in an archive; of an
    `experiment`, or each of the one that it was of.

    Returns
    -------
    list of (str, str, bool)
        Id and name of each run, and whether it is new.

    Raises
    ------
    DataError
        There is no export, one is damaged, or one has links.
    """
    store = locate()
    with _exports(source) as folders:
        if not folders:
            raise DataError(f"There is no run below {source}: no run.json.")
        for folder in folders:
            _refuse_links(folder)
        documents = [(folder, _read(folder / "run.json")) for folder in folders]
        made = [_import(store, folder, doc, experiment) for folder, doc in documents]
        new = {doc["run_id"]: run for (_, doc), (run, _, _) in zip(documents, made, strict=True)}
        for _, doc in documents:
            if (parent := new.get(doc["tags"].get("mlflow.parentRunId", ""))) is not None:
                with store_errors(store, "written"):
                    connect(store).set_tag(new[doc["run_id"]], "mlflow.parentRunId", parent)
        return made


def _refuse_links(folder: Path) -> None:
    """Refuse what could bring in a file from outside the export, or is no file at all."""
    todo = [folder / "run.json", folder / "artifacts"]
    while todo:
        path = todo.pop()
        mode = path.lstat().st_mode if os.path.lexists(path) else stat.S_IFREG
        if stat.S_ISDIR(mode):
            todo += path.iterdir()
        elif not stat.S_ISREG(mode):
            raise DataError(
                f"{path} is a link or a device, and an export has only files of its own: nothing "
                "was imported."
            )


def _import(
    store: Store, folder: Path, document: dict[str, Any], experiment: str | None
) -> tuple[str, str, bool]:
    client = connect(store)
    name, origin = str(document["name"]), str(document["run_id"])
    # Whoever does a run that was RUNNING when it was exported, nobody does this one.
    running = document["status"] not in ("FINISHED", "FAILED", "KILLED")
    status = "KILLED" if running else str(document["status"])
    where = experiment_id(store, experiment or str(document["experiment"]))
    with store_errors(store, "read"):
        existing = client.search_runs([where], f"tags.`l2i.imported_from` = '{_id(origin)}'")
        existing += client.search_runs([where], f"attributes.run_id = '{_id(origin)}'")
    for old in existing:
        if old.info.status == status:
            return old.info.run_id, name, False
        with store_errors(store, "written"):
            client.delete_run(old.info.run_id)  # An import that was cut off.
    kept = {kept_tag(k): v for k, v in document["tags"].items() if k not in _LOCAL_TAGS}
    tags = kept | {"l2i.imported_from": origin}
    if running:
        tags["l2i.error"] = "It was exported while it was running."
    with store_errors(store, "written"):
        run = client.create_run(where, document["start"], tags, name)
    run_id, uri = run.info.run_id, run.info.artifact_uri
    lock = FileLock(store.lock(run_id))
    lock.take()
    put = partial(send_event, store, run_id, uri)
    try:
        put("params", document["params"])
        points = [
            [key, value, moment, step]
            for key, history in document["metrics"].items()
            for step, value, moment in history
        ]
        put("metrics", points)
        if any((folder / "artifacts").glob("*")):
            put("files", "", folder / "artifacts")
        end = document["end"] or round(1000 * time.time())
        put("end", {"status": status, "time": end})
    finally:
        lock.path.unlink(missing_ok=True)
        lock.release()
    return run_id, name, True


def _id(text: str) -> str:
    if not text.isalnum():
        raise DataError(f"{text!r} is no id of a run.")
    return text


def relocate() -> list[tuple[str, str, str]]:
    """Let the sqlite store of a folder that was moved point to where it lies now.

    MLflow keeps artifact locations as absolute paths, of experiments, runs and models.

    Returns
    -------
    list of (str, str, str)
        Experiment, its old and its new location: those that were wrong.

    Raises
    ------
    StoreError
        The store is no sqlite file, or the artifacts of an experiment are not here either.
    """
    store = locate()
    if store.database is None or store.artifacts is None or "://" in store.artifacts:
        raise StoreError(f"{store.shown} is no store in a folder: nothing in it has to be moved.")
    if not store.exists:
        raise StoreError(f"There are no runs in {store.shown} yet.")
    connect(store)  # Migrated, if it has to be, before its tables are touched.
    return unlocked(store, lambda: _relocate(store, store.artifacts or ""))


def _relocate(store: Store, artifacts: str) -> list[tuple[str, str, str]]:
    assert store.database is not None
    root = Path(artifacts)
    moved: list[tuple[str, str, str]] = []
    with store_errors(store, "written"), closing(sqlite3.connect(store.database)) as base, base:
        rows = base.execute("SELECT name, artifact_location FROM experiments").fetchall()
        for name, old in rows:
            here = local_path(old or "")
            if here is None or here.is_relative_to(root):
                continue
            parts = here.parts
            known = root.name in parts[:-1]
            after = len(parts) - parts[::-1].index(root.name) if known else len(parts) - 1
            new = root.joinpath(*parts[after:])
            if not new.is_dir() and _had_files(base, old, here):
                raise StoreError(
                    f"The artifacts of experiment {name!r} lay in {here}, and are not in {new} "
                    "either: copy them there first."
                )
            moved.append((name, old, new.as_uri() if old.startswith("file:") else str(new)))
        for _, old, new_uri in moved:
            for table, column in (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
                ("model_versions", "source"),
                ("model_versions", "storage_location"),
            ):
                base.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new_uri, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    return moved


def _had_files(base: sqlite3.Connection, location: str, here: Path) -> bool:
    """Whether runs of a location left files: a finished one did, one that was killed may have
    had none yet."""
    query = "SELECT count(*) FROM runs WHERE status = 'FINISHED' AND substr(artifact_uri, 1, ?) = ?"
    finished = base.execute(query, (len(location) + 1, f"{location}/")).fetchone()[0]
    return bool(finished) or any(here.glob("*/artifacts/*"))
