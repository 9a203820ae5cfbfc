"""One run, from its start to its end, through crashes.

::

    with open_run(experiment="demo", name="demo-ab12", signature=config.signature(),
                  tags=provenance.tags(device), params=config.flat()) as run:
        run.metrics("interpreter", epoch, {"loss": loss})
        run.artifact(run.folder / "dictionary.png", "pictures")
        run.final({"test/accuracy": accuracy})

How a run ends is what its status says:

=================================  ========  =========
what happened                      status    exit code
=================================  ========  =========
the block was left                 FINISHED  0
Ctrl-C                             KILLED    130
SIGTERM, SIGHUP                    KILLED    143, 129
any exception                      FAILED    1 or 2
SIGKILL, power cut                 RUNNING, until the next command sees it: then KILLED
=================================  ========  =========

A run that is not FINISHED is resumed by the next `open_run` of the same experiment and
signature: same MLflow run, same folder. A metric step that the store already has is not
written again, so that a recipe that repeats its last epoch leaves no double points.

A run that says RUNNING on another machine is not taken over: it may be alive. Unless it has the
same `owner`: an engine that runs a task's attempts one after another, on whatever machine, says
that there is no other.
"""

from __future__ import annotations

import getpass
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from l2i.errors import StoreError
from l2i.run.address import Store, locate, lost_with_container, mask
from l2i.run.outbox import sync
from l2i.run.runs import reap
from l2i.run.signals import signals_as_exit
from l2i.run.store import connect, experiment_id, store_errors
from l2i.run.writing import STOPPED_WAIT_S, Tracker
from l2i.storage import FileLock

__all__ = ["Tracker", "check_place", "open_run"]

# A task of a job has more: engines that stop a container give it 30 seconds.
_STOPPED_TASK_WAIT_S = 20.0


def _take_over(
    store: Store, experiment: str, signature: str, owner: str
) -> tuple[Any, FileLock] | None:
    """The newest unfinished run of a signature, locked, or None."""
    client = connect(store)
    query = f"tags.`l2i.signature` = '{signature}' AND attributes.status != 'FINISHED'"
    with store_errors(store, "read"):
        candidates = client.search_runs(
            [experiment], query, order_by=["attributes.start_time DESC"], max_results=50
        )

    def is_own(run: Any) -> bool:
        return bool(owner) and run.data.tags.get("l2i.task") == owner

    for candidate in sorted(candidates, key=is_own, reverse=True):
        own = is_own(candidate)
        if candidate.info.status == "RUNNING" and not own:
            continue  # `reap` has been here: it is alive, or on a machine out of our sight.
        lock = FileLock(store.lock(candidate.info.run_id))
        if not lock.take():
            continue
        with store_errors(store, "written"):
            # Between the search and the lock another process may have finished it.
            run = client.get_run(candidate.info.run_id)
            if run.info.status != "FINISHED":
                client.update_run(run.info.run_id, status="RUNNING")
                return run, lock
        lock.release()
    return None


def _new(
    store: Store, experiment: str, name: str, signature: str, owner: str
) -> tuple[Any, FileLock]:
    with suppress(Exception):
        os.environ.setdefault("LOGNAME", getpass.getuser())
    with store_errors(store, "written"):
        run = connect(store).create_run(
            experiment,
            run_name=name,
            tags={
                "l2i.signature": signature,
                "mlflow.source.name": "l2i",
                "mlflow.source.type": "LOCAL",
                "mlflow.user": os.environ.get("LOGNAME", "unknown"),
                **({"l2i.task": owner} if owner else {}),
            },
        )
    lock = FileLock(store.lock(run.info.run_id))
    lock.take()
    return run, lock


def check_place(experiment: str) -> None:
    """Raise now what `open_run` would raise of the place: before hours of work, not after.

    Raises
    ------
    StoreError
        The store cannot be opened, or was moved.
    """
    experiment_id(locate(), experiment)


def _verdict(error: BaseException) -> tuple[str, str]:
    """Status and reason of a run that `error` ended."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "Stopped by Ctrl-C."
    if isinstance(error, SystemExit):
        if error.code in (None, 0):
            return "FINISHED", ""
        if isinstance(error.code, int) and error.code > 128:
            with suppress(ValueError):
                return "KILLED", f"Stopped by {signal.Signals(error.code - 128).name}."
        return "FAILED", f"Ended with exit code {error.code}."
    first = str(error).splitlines()[0] if str(error).strip() else ""
    kind = type(error).__name__
    return "FAILED", f"{kind}: {first}" if first else f"{kind}."


@contextmanager
def open_run(
    *,
    experiment: str,
    name: str,
    signature: str,
    tags: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    work_dir: Path | None = None,
    resume: bool = True,
    owner: str = "",
    on_away: Callable[[str], None] | None = None,
) -> Iterator[Tracker]:
    """A run to write to: the unfinished one of this signature, or else a new one.

    Parameters
    ----------
    experiment, name : str
        MLflow's; the name is for people and need not be unique.
    signature : str
        What is being done: an unfinished run of the experiment with the same one is resumed.
    tags, params : mapping
        Written at the start.
    work_dir : Path, optional
        Where `Tracker.folder` is made; by default beside the store.
    resume : bool
        False: always a new run.
    owner : str
        Who does it, where nobody else can be doing it at the same time: a task of a job. A run
        that says RUNNING and has this owner was left by an earlier attempt, and is resumed.
    on_away : callable, optional
        Given a sentence where the store goes away while the run is written (see `l2i.run.outbox`),
        or is one that will go with the container.

    Raises
    ------
    StoreError
        The store cannot be opened or written, or was moved.
    """
    store = locate()
    connect(store)
    sync(store, STOPPED_WAIT_S)
    reap(store)
    if on_away is not None and (warning := lost_with_container(store)):
        on_away(warning)
    where = experiment_id(store, experiment)
    with signals_as_exit() as ignore_signals:
        tracker: Tracker | None = None
        lock: FileLock | None = None
        try:
            taken = _take_over(store, where, signature, owner) if resume else None
            run, lock = taken or _new(store, where, mask(name), signature, owner)
            run_id = run.info.run_id
            folder = store.folder(run_id) if work_dir is None else work_dir / f"run-{run_id}"
            tracker = Tracker(
                store,
                run,
                folder=folder,
                lock=lock,
                resumed=taken is not None,
                stopped_wait_s=_STOPPED_TASK_WAIT_S if owner else STOPPED_WAIT_S,
            )
            tracker.begin({**(tags or {}), **({"l2i.task": owner} if owner else {})}, on_away)
            tracker.params(params or {})
            yield tracker
        except BaseException as error:
            ignore_signals()
            status, reason = _verdict(error)
            if tracker is not None:
                # Where even this cannot be written, the next command finds the lock free.
                with suppress(StoreError):
                    tracker.end(status, reason)
            elif lock is not None:
                lock.release()
            raise
        ignore_signals()
        tracker.end("FINISHED")
