"""MLflow's bin: what is put there, and what is removed for good."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from l2i.errors import StoreError, UsageError
from l2i.run.runs import OURS, open_store
from l2i.run.search import RunInfo, Wanted, search_runs
from l2i.run.store import check_own, connect, local_path, locate, store_errors
from l2i.storage import disk_usage


def delete_run(run: RunInfo) -> int:
    """Put a run, and all runs under it, into MLflow's bin.

    Returns
    -------
    int
        How many.

    Raises
    ------
    UsageError
        One of them is running.
    """
    store = locate()
    client = connect(store)
    below = search_runs(store, Wanted(tags={"mlflow.parentRunId": run.id}), limit=1000)
    for each in (run, *below):
        if each.status == "RUNNING":
            raise UsageError(f"Run {each.name} ({each.id[:8]}) is running: stop it first.")
    for each in (*below, run):
        with store_errors(store, "written"):
            client.delete_run(each.id)
    return 1 + len(below)


@dataclass(frozen=True, slots=True)
class Garbage:
    """What `collect_garbage` removes.

    Attributes
    ----------
    runs : list of RunInfo
        In MLflow's bin.
    kept : list of RunInfo
        In the bin as well, and kept: a registered model is theirs.
    folders : list of Path
        What `runs` have left here, and copies of artifacts that lie elsewhere.
    stages : list of Path
        Finished and half-finished stages, which trainings to come could use, and audits that were
        stopped.
    n_bytes : int
        What all the folders take, and the runs' artifacts on this machine.
    """

    runs: list[RunInfo]
    kept: list[RunInfo]
    folders: list[Path]
    stages: list[Path]
    n_bytes: int


def find_garbage(*, stages: bool = False) -> Garbage:
    """What may be removed for good: runs in the bin, and what they left on this machine; with
    `stages`, also those that are kept for trainings to come.

    Raises
    ------
    StoreError
        There are no runs, or the store is a server: there this is for who runs it.
    """
    store = open_store()
    if store.is_server:
        raise StoreError(
            f"{store.shown} is a server: its bin is emptied where it runs, by 'mlflow gc'."
        )
    binned = search_runs(store, Wanted(tags=OURS, binned=True), limit=1_000_000)
    with store_errors(store, "read"):
        registered = {v.run_id for v in connect(store).search_model_versions(max_results=10_000)}
    kept = [run for run in binned if run.id in registered]
    runs = [run for run in binned if run.id not in registered]
    for run in runs:
        check_own(store, run.id, run.artifact_uri)
    work = store.root / "work"
    # Not those of runs that this store does not know: they may be another store's, unfinished.
    left = [path for run in runs for path in (store.folder(run.id), store.lock(run.id))]
    folders = [path for path in left if path.exists()] + sorted((work / "downloads").glob("*"))
    caches = sorted([*work.glob("stages/*"), *work.glob("audits/*")]) if stages else []
    local = [place for run in runs if (place := local_path(run.artifact_uri)) is not None]
    n_bytes = sum(disk_usage(path) for path in (*folders, *caches, *local))
    return Garbage(runs, kept, folders, caches, n_bytes)


def collect_garbage(garbage: Garbage) -> None:
    """Remove what `find_garbage` found: runs with their artifacts, wherever these lie, and
    folders. There is no way back."""
    store = locate()
    if garbage.runs:
        from mlflow.cli import gc

        with store_errors(store, "written"), redirect_stdout(io.StringIO()):
            for start in range(0, len(garbage.runs), 100):
                ids = ",".join(run.id for run in garbage.runs[start : start + 100])
                gc.main(
                    [
                        *("--backend-store-uri", store.uri, "--tracking-uri", store.uri),
                        *("--run-ids", ids),
                    ],
                    standalone_mode=False,
                )
    for run in garbage.runs:
        place = local_path(run.artifact_uri)
        if place is not None and place.parent.name == run.id:
            # MLflow leaves the folder around the artifacts, and all of it where the path has a %.
            shutil.rmtree(place.parent, ignore_errors=True)
    for path in (*garbage.folders, *garbage.stages):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
