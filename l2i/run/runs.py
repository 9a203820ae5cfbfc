"""Reading the store: listing runs, finding one by a word, fetching its artifacts.

Every function first sets runs KILLED that say RUNNING though their process is gone (`reap`),
so that nothing a person sees is left over from a crash.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2i.errors import StoreError, UsageError
from l2i.registry import nearest
from l2i.run.lock import RunLock
from l2i.run.outbox import sync
from l2i.run.store import Store, connect, local_path, locate, store_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = [
    "RunInfo",
    "adopt",
    "delete_run",
    "download",
    "find_finished",
    "find_run",
    "list_runs",
    "reap",
    "resolve_run",
]

_OURS = "tags.`l2i.signature` LIKE '%'"
_NEWEST = ["attributes.start_time DESC"]
# Runs of these kinds have networks; a run of an older version has no kind, and has them too. Runs
# of all other kinds are about such runs: what was measured of one, or a table of several.
_MODELS = frozenset({"train", "import", ""})
# A run is made a moment before it is locked; a younger one without a lock is given that moment.
_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What the store knows of one run.

    Attributes
    ----------
    status : str
        ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
    metrics : dict of str to float
        The last value of each.
    start, end : datetime or None
        With a time zone (UTC).
    """

    id: str
    name: str
    experiment: str
    experiment_id: str
    status: str
    artifact_uri: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    start: datetime | None = None
    end: datetime | None = None

    @property
    def kind(self) -> str:
        """``train``, ``import``, or what was measured, ``overlap`` say; empty: not known."""
        return self.tags.get("l2i.kind", "")

    @property
    def has_model(self) -> bool:
        """Whether a run of this kind leaves networks when it finishes."""
        return self.kind in _MODELS


def mount_namespace() -> str:
    """What a path means on this host: containers of one host have different ones."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def _info(run: Any, experiments: dict[str, str]) -> RunInfo:
    return RunInfo(
        id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        experiment=experiments.get(run.info.experiment_id, run.info.experiment_id),
        experiment_id=run.info.experiment_id,
        status=run.info.status,
        artifact_uri=run.info.artifact_uri,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        start=_time(run.info.start_time),
        end=_time(run.info.end_time),
    )


def _experiments(client: MlflowClient) -> dict[str, str]:
    """Id to name of every experiment."""
    found: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        found.update({e.experiment_id: e.name for e in page})
        token = page.token
        if not token:
            return found


def _search(
    store: Store,
    client: MlflowClient,
    query: str,
    *,
    experiment: str | None = None,
    limit: int = 1,
    kinds: Container[str] | None = None,
) -> list[RunInfo]:
    # The query language cannot ask for a tag that is absent or one of a few, so kinds are told
    # apart here.
    with store_errors(store, "read"):
        experiments = _experiments(client)
        wanted = [i for i, name in experiments.items() if experiment in (None, name)]
        if not wanted:
            return []
        found: list[RunInfo] = []
        token = None
        while len(found) < limit:
            page = client.search_runs(
                wanted,
                query,
                max_results=min(limit - len(found) if kinds is None else 100, 1000),
                order_by=_NEWEST,
                page_token=token,
            )
            some = [_info(run, experiments) for run in page]
            found += [r for r in some if kinds is None or r.kind in kinds]
            token = page.token
            if not token:
                break
        return found[:limit]


def _is_dead(store: Store, run: RunInfo) -> bool:
    """Whether a run that says RUNNING certainly has no process any more."""
    same_host = run.tags.get("l2i.host") == platform.node()
    same_paths = same_host and run.tags.get("l2i.mounts", "") == mount_namespace()
    recorded = run.tags.get("l2i.lock")
    path = Path(recorded) if recorded and same_paths else store.lock(run.id)
    if path.exists():
        lock = RunLock(path)
        if lock.take():
            lock.release()
            return True
        return False
    if not same_paths and recorded:
        return False  # On another machine, or in another container: not ours to judge.
    age_s = time.time() - run.start.timestamp() if run.start else _GRACE_S
    return same_paths and age_s >= (0.0 if recorded else _GRACE_S)


def reap(store: Store | None = None) -> list[RunInfo]:
    """Set runs KILLED that say RUNNING though their process is gone; return them.

    A run is gone when the lock that its process held is free. Runs of another machine whose
    lock cannot be seen from here are left alone.

    Parameters
    ----------
    store : Store, optional
        By default the one that the environment names. It is not made where it is absent.
    """
    store = store or locate()
    if not store.exists:
        return []
    client = connect(store)
    running = _search(store, client, f"attributes.status = 'RUNNING' AND {_OURS}", limit=10_000)
    dead = [run for run in running if _is_dead(store, run)]
    for run in dead:
        with store_errors(store, "written"):
            client.set_terminated(run.id, "KILLED")
    return dead


def _open(store: Store | None = None) -> tuple[Store, MlflowClient]:
    store = store or locate()
    if not store.exists:
        raise StoreError(
            f"There are no runs in {store.shown} yet; 'l2i train --dataset demo' makes one."
        )
    reap(store)
    return store, connect(store)


def find_run(run_id: str) -> RunInfo | None:
    """The finished run of this very id, or None."""
    store = locate()
    if not store.exists:
        return None
    query = f"attributes.status = 'FINISHED' AND attributes.run_id = '{run_id}'"
    found = _search(store, connect(store), query)
    return found[0] if found else None


def adopt(run: RunInfo, parent: str) -> None:
    """Put a run under another one, unless it lies under one already."""
    if "mlflow.parentRunId" not in run.tags:
        store = locate()
        with store_errors(store, "written"):
            connect(store).set_tag(run.id, "mlflow.parentRunId", parent)


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
    below = _search(store, client, f"tags.`mlflow.parentRunId` = '{run.id}'", limit=1000)
    for each in (run, *below):
        if each.status == "RUNNING":
            raise UsageError(f"Run {each.name} ({each.id[:8]}) is running: stop it first.")
    for each in (*below, run):
        with store_errors(store, "written"):
            client.delete_run(each.id)
    return 1 + len(below)


def find_finished(experiment: str, signature: str) -> RunInfo | None:
    """The newest finished run with networks of a signature, or None."""
    store = locate()
    if not store.exists:
        return None
    # A run may be done, and its store not have heard of it.
    sync(store, 5.0)
    query = f"attributes.status = 'FINISHED' AND tags.`l2i.signature` = '{signature}'"
    found = _search(store, connect(store), query, experiment=experiment, kinds=_MODELS)
    return found[0] if found else None


def list_runs(experiment: str | None = None, limit: int = 20) -> list[RunInfo]:
    """The newest runs that this package made, newest first; empty where there is no store.

    What was measured of a run later is not among them: it lies under that run.

    Raises
    ------
    UsageError
        There is no such experiment.
    """
    store = locate()
    if not store.exists:
        return []
    store, client = _open(store)
    if experiment is not None:
        with store_errors(store, "read"):
            names = list(_experiments(client).values())
        if experiment not in names:
            like = nearest(experiment, names)
            hint = f"; did you mean {like!r}?" if like else "."
            raise UsageError(
                f"There is no experiment {experiment!r} in {store.shown}{hint} "
                f"There are: {', '.join(sorted(names))}."
            )
    return _search(
        store, client, _OURS, experiment=experiment, limit=limit, kinds=_MODELS | {"sweep"}
    )


def _named(runs: Sequence[RunInfo]) -> str:
    return ", ".join(f"{run.name} ({run.id[:8]}, {run.status.lower()})" for run in runs)


def resolve_run(word: str) -> RunInfo:
    """The run that a word names.

    Parameters
    ----------
    word : str
        ``latest`` (the newest finished run with networks), a run id or its first six digits or
        more, or a run name; of several runs with one name the newest finished one, or else the
        newest.

    Raises
    ------
    UsageError
        There is no such run, or a prefix fits several.
    StoreError
        There are no runs at all, or the store cannot be read.
    """
    store, client = _open()
    word = word.strip()
    if word == "latest":
        done = f"attributes.status = 'FINISHED' AND {_OURS}"
        found = _search(store, client, done, kinds=_MODELS)
        if found:
            return found[0]
        others = _search(store, client, _OURS, limit=5, kinds=_MODELS)
        if others:
            raise StoreError(
                f"No run in {store.shown} is finished yet; there are: {_named(others)}. Give the "
                "same 'l2i train' command again to go on, or name one of them."
            )
        raise StoreError(
            f"There are no runs in {store.shown} yet; 'l2i train --dataset demo' makes one."
        )
    # The query language has no escape for a quote, so such a name is looked for below.
    if word and "'" not in word:
        named = _search(store, client, f"attributes.run_name = '{word}'", limit=100)
        if named:
            return next((run for run in named if run.status == "FINISHED"), named[0])
    if re.fullmatch(r"[0-9a-f]{6,32}", word):
        fits = _search(store, client, f"attributes.run_id LIKE '{word}%'", limit=6)
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise UsageError(f"{word!r} fits several runs: {_named(fits)}. Give more digits.")
    newest = _search(store, client, _OURS, limit=200)
    if not newest:
        raise StoreError(
            f"There are no runs in {store.shown} yet; 'l2i train --dataset demo' makes one."
        )
    for run in newest:
        if run.name == word:
            return run
    like = nearest(word, [run.name for run in newest])
    hint = f"; did you mean {like!r}?" if like else "."
    raise UsageError(
        f"There is no run {word!r} in {store.shown}{hint} The newest are: {_named(newest[:5])}; "
        "'l2i runs' lists them."
    )


def download(run: RunInfo, path: str) -> Path:
    """A local copy of one artifact of a run: a file, or a folder with all it holds.

    Parameters
    ----------
    run : RunInfo
    path : str
        Relative to the run's artifacts, with ``/``.

    Returns
    -------
    Path
        Of artifacts that are local already, the artifact itself: do not change it.

    Raises
    ------
    StoreError
        There is no such artifact, or it cannot be fetched.
    """
    store = locate()
    client = connect(store)
    base = local_path(run.artifact_uri)
    if base is not None:
        if (base / path).exists():
            return base / path
        if not base.is_dir():
            raise StoreError(
                f"The artifacts of run {run.name} ({run.id[:8]}) should lie in {base}, which is "
                "not there: the store was moved, or nothing was written yet."
            )
    with store_errors(store, "read"):
        folder, _, _leaf = path.rpartition("/")
        there = sorted(a.path for a in client.list_artifacts(run.id, folder or None))
    if path and path not in there:
        raise StoreError(
            f"Run {run.name} ({run.id[:8]}) has no artifact {path!r}; "
            + (f"there are: {', '.join(there)}." if there else "it has none there.")
        )
    with store_errors(store, "read"):
        target = store.root / "work" / "downloads" / run.id
        target.mkdir(parents=True, exist_ok=True)
        return Path(client.download_artifacts(run.id, path, dst_path=str(target)))
