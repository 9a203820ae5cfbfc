"""Finding runs: listing them, naming one by a word, telling the dead from the living.

Every function that people call first sets runs KILLED that say RUNNING though their process is
gone (`reap`), so that nothing a person sees is left over from a crash.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from l2i.errors import StoreError, UsageError
from l2i.registry import did_you_mean
from l2i.run.events import send_event
from l2i.run.outbox import Outbox, sync
from l2i.run.search import MODELS, RunInfo, Wanted, experiment_names, search_runs
from l2i.run.store import Store, check_own, connect, locate, store_errors
from l2i.storage import FileLock

OURS: dict[str, str | None] = {"l2i.signature": None}
"""The tag that all runs of this package have."""
# A run is made a moment before it is locked; a younger one without a lock is given that moment.
_GRACE_S = 60.0


def mount_namespace() -> str:
    """What a path means on this host: containers of one host have different ones."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""


def _is_dead(store: Store, run: RunInfo) -> bool:
    """Whether a run that says RUNNING certainly has no process any more."""
    same_host = run.tags.get("l2i.host") == platform.node()
    same_paths = same_host and run.tags.get("l2i.mounts", "") == mount_namespace()
    recorded = run.tags.get("l2i.lock")
    path = Path(recorded) if recorded and same_paths else store.lock(run.id)
    if path.exists():
        lock = FileLock(path)
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
    lock cannot be seen from here are left alone. The store is by default the one that the
    environment names, and is not made where it is absent.
    """
    store = store or locate()
    running = search_runs(store, Wanted(status="RUNNING", tags=OURS), limit=10_000)
    dead = [run for run in running if _is_dead(store, run)]
    for run in dead:
        with store_errors(store, "written"):
            connect(store).set_terminated(run.id, "KILLED")
    return dead


def open_store() -> Store:
    """The store that the environment names, whose dead runs are KILLED.

    Raises
    ------
    StoreError
        There is none yet, or it cannot be read.
    """
    store = locate()
    if not store.exists:
        raise no_runs(store)
    reap(store)
    return store


def no_runs(store: Store) -> StoreError:
    """What is said where there are none."""
    return StoreError(
        f"There are no runs in {store.shown} yet; 'l2i train --dataset demo' makes one."
    )


def find_run(run_id: str) -> RunInfo | None:
    """The finished run of this very id, or None."""
    return next(iter(search_runs(locate(), Wanted(status="FINISHED", run_id=run_id))), None)


def adopt(run: RunInfo, parent: str, tags: Mapping[str, str] | None = None) -> None:
    """Put a run under another one, unless it lies under one already; `tags` are added."""
    wanted = dict(tags or {})
    if parent and "mlflow.parentRunId" not in run.tags:
        wanted["mlflow.parentRunId"] = parent
    store = locate()
    for key, value in wanted.items():
        if run.tags.get(key) != value:
            with store_errors(store, "written"):
                connect(store).set_tag(run.id, key, value)


def running(tags: dict[str, str | None]) -> list[RunInfo]:
    """Runs with these tags that say RUNNING, wherever their processes are; None: any value."""
    return search_runs(locate(), Wanted(status="RUNNING", tags=tags), limit=10_000)


def register(run: RunInfo, name: str, path: str) -> None:
    """Make the model in the folder `path` of a finished run's artifacts a version of the registered
    model `name`, which is made where there is none, unless it is one."""
    store = locate()
    check_own(store, run.id, run.artifact_uri)
    send_event(store, run.id, run.artifact_uri, "register", {"name": name, "path": path})


def find_finished(experiment: str, signature: str, tag: str = "l2i.signature") -> RunInfo | None:
    """The newest finished run with networks that has a signature as this tag, or None."""
    store = locate()
    if not store.exists:
        return None
    # A run may be done, and its store not have heard of it.
    sync(store, 5.0)
    wanted = Wanted(status="FINISHED", tags={tag: signature}, experiment=experiment)
    return next(iter(search_runs(store, wanted, kinds=MODELS)), None)


def list_runs(
    experiment: str | None = None,
    limit: int = 20,
    *,
    status: str | None = None,
    kind: str | None = None,
    tags: Mapping[str, str] | None = None,
    **more: Any,
) -> list[RunInfo]:
    """The newest runs that this package made, newest first; empty where there is no store.

    What was measured of a run later is not among them unless its kind is asked for: it lies under
    that run. The status ``UNSENT`` is that of a run which is done, and whose store is not told yet.

    Parameters
    ----------
    experiment : str, optional
    limit : int
    status : str, optional
        ``running``, ``finished``, ``failed``, ``killed`` or ``unsent``.
    kind : str, optional
        ``train``, ``import``, ``sweep``, ``overlap``, ...; ``all``: of every kind.
    tags : mapping of str to str, optional
        All of them; a name without a dot is one of ours: ``dataset`` is ``l2i.dataset``.
    **more
        What else `Wanted` has: ``words``, ``where``, ``best``, ``lower``.

    Raises
    ------
    UsageError
        There is no such experiment, or MLflow does not understand ``where`` or ``best``.
    """
    if not locate().exists:
        return []
    store = open_store()
    if experiment is not None:
        names = experiment_names(store)
        if experiment not in names:
            hint = did_you_mean(experiment, names)
            raise UsageError(
                f"There is no experiment {experiment!r} in {store.shown}{hint} "
                f"There are: {', '.join(sorted(names))}."
            )
    asked: dict[str, str | None] = {}
    for key, value in (tags or {}).items():
        name = key if "." in key else f"l2i.{key}"
        if set(name) & set("`'\"") or "'" in value:
            raise UsageError(f"A tag that is looked for has no quotes: {key}={value}.")
        asked[name] = value
    state = (status or "").upper()
    killed = state in ("KILLED", "UNSENT")  # The store has both as killed.
    wanted = Wanted("KILLED" if killed else state, tags=OURS | asked, experiment=experiment, **more)
    if "`" in wanted.best:
        raise UsageError(f"A metric's name has no back-tick: {wanted.best}.")
    kinds: Container[str] | None = MODELS | {"sweep"}
    if kind:
        kinds = None if kind == "all" else {kind}
    try:
        runs = search_runs(store, wanted, limit=10_000 if killed else limit, kinds=kinds)
    except StoreError as error:
        status_of = getattr(error.__cause__, "get_http_status_code", None)
        if wanted.where and status_of is not None and status_of() == 400:
            first = str(error.__cause__).splitlines()[0]
            raise UsageError(f"MLflow does not understand {wanted.where!r}: {first}") from None
        raise
    return [run for run in map(told_here, runs) if state in ("", run.status)][:limit]


def told_here(run: RunInfo) -> RunInfo:
    """A run, ``UNSENT`` where it is done and the store is not told yet.

    Where the process is gone, `reap` takes it for killed.
    """
    done = run.status == "KILLED" and Outbox(locate(), run.id).ends == "FINISHED"
    return replace(run, status="UNSENT") if done else run


def _named(runs: Sequence[RunInfo]) -> str:
    return ", ".join(f"{run.name} ({run.id[:8]}, {run.status.lower()})" for run in runs)


def resolve_run(word: str) -> RunInfo:
    """The run that a word names.

    Parameters
    ----------
    word : str
        ``latest`` (the newest finished run with networks), a run id or its first four digits or
        more, or a run name or how it begins, if no other name of a run with networks begins so; of
        several runs with one name the newest finished one, or else the newest.

    Raises
    ------
    UsageError
        There is no such run, or a prefix fits several.
    StoreError
        There are no runs at all, or the store cannot be read.
    """
    store = open_store()
    word = word.strip()
    if word == "latest":
        finished = search_runs(store, Wanted(status="FINISHED", tags=OURS), kinds=MODELS)
        if finished:
            return finished[0]
        others = search_runs(store, Wanted(tags=OURS), limit=5, kinds=MODELS)
        if others:
            raise StoreError(
                f"No run in {store.shown} is finished yet; there are: {_named(others)}. Give the "
                "same 'l2i train' command again to go on, or name one of them."
            )
        raise no_runs(store)
    # The query language has no escape for a quote, so such a name is looked for below.
    if word and "'" not in word:
        named = search_runs(store, Wanted(name=word), limit=100)
        if named:
            return next((run for run in named if run.status == "FINISHED"), named[0])
    if re.fullmatch(r"[0-9a-f]{4,32}", word):
        fits = search_runs(store, Wanted(run_id=word), limit=6)
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise UsageError(f"{word!r} fits several runs: {_named(fits)}. Give more digits.")
    newest = search_runs(store, Wanted(tags=OURS), limit=200)
    if not newest:
        raise no_runs(store)
    begin = [run for run in newest if run.name == word]
    begin = begin or [run for run in newest if word and run.name.startswith(word)]
    # What was measured of a run is called after it, and begins as it does.
    begin = [run for run in begin if run.has_model] or begin
    if len({run.name for run in begin}) > 1:
        raise UsageError(f"{word!r} fits several runs: {_named(begin[:6])}. Give more of the name.")
    if begin:
        return next((run for run in begin if run.status == "FINISHED"), begin[0])
    hint = did_you_mean(word, [run.name for run in newest])
    raise UsageError(
        f"There is no run {word!r} in {store.shown}{hint} The newest are: {_named(newest[:5])}; "
        "'l2i runs' lists them."
    )
