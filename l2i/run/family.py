"""A sweep's runs that many machines make: one parent, and children that say of what they are.

No process holds the parent: whichever task comes first makes it, and each that is done writes
the table anew. A child says by a tag, ``l2i.member.<signature>``, that it is the sweep's, and
which; it may be of several sweeps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2i.run.outbox import send_event
from l2i.run.search import RunInfo, Wanted, search_runs
from l2i.run.store import as_text, connect, experiment_id, locate, store_errors

__all__ = ["close_run", "find_parent", "make_parent", "member_tag", "members", "write_parent"]

# At least this long a run is left to be seen by others, before it is asked which is the parent.
_SETTLE_S = 1.0
# A store that is slow to take a run is slow with the others' too: so many times as long as it took.
_SETTLE_FACTOR = 4.0
# On the run that tasks have agreed upon.
_AGREED = "l2i.parent_agreed"


def member_tag(signature: str) -> str:
    """The tag of all runs of a sweep; its value is the child's key."""
    return f"l2i.member.{signature}"


def members(signature: str, *, finished: bool = False) -> dict[str, RunInfo]:
    """The newest run of each child of a sweep, by the child's key; a finished one if there is."""
    store = locate()
    if not store.exists:
        return {}
    tag = member_tag(signature)
    wanted = Wanted(status="FINISHED" if finished else "", tags={tag: None})
    by_id: dict[str, RunInfo] = {}
    for run in search_runs(store, wanted, limit=50_000):
        known = by_id.get(run.tags[tag])
        if known is None or (run.status == "FINISHED" != known.status):
            by_id[run.tags[tag]] = run
    return by_id


def find_parent(experiment: str, signature: str) -> RunInfo | None:
    """The run above all of a sweep, or None."""
    return min(_parents(experiment, signature), key=_order, default=None)


def _parents(experiment: str, signature: str) -> list[RunInfo]:
    store = locate()
    if not store.exists:
        return []
    wanted = Wanted(tags={"l2i.signature": signature, "l2i.kind": "sweep"})
    return search_runs(store, wanted, experiment=experiment, limit=100)


def _order(run: RunInfo) -> tuple[bool, float, str]:
    """The parent that all processes take where there are several: an agreed one, else the first."""
    begin = run.start.timestamp() if run.start else float("inf")
    return _AGREED not in run.tags, begin, run.id


def make_parent(
    experiment: str,
    name: str,
    signature: str,
    tags: Mapping[str, Any],
    params: Mapping[str, Any],
) -> str:
    """The id of the run above all of a sweep, which is made where there is none.

    A run store has nothing that only one of many can do, so that tasks agree in steps. Where no run
    is agreed upon, each makes one, leaves the others' time to be seen, takes an agreed one or else
    the first of all, says on it that it is agreed upon, and removes its own other. One who comes
    late, or whose run is late to be seen, so finds the mark, whatever the order of the two runs;
    and what somebody made who was killed in between is taken by the next.

    Raises
    ------
    StoreError
        The store cannot be reached, or refuses.
    """
    known = find_parent(experiment, signature)
    if known is not None and _AGREED in known.tags:
        return known.id
    store = locate()
    client = connect(store)
    where = experiment_id(store, client, experiment)
    begin = time.monotonic()
    with store_errors(store, "written"):
        texts = {key: as_text(value) for key, value in tags.items()}
        own = client.create_run(
            where,
            run_name=name,
            tags={**texts, "l2i.signature": signature, "mlflow.source.name": "l2i"},
        ).info
    time.sleep(max(_SETTLE_S, _SETTLE_FACTOR * (time.monotonic() - begin)))
    parent = find_parent(experiment, signature)
    chosen, uri = own.run_id, own.artifact_uri
    if parent is not None:
        chosen, uri = parent.id, parent.artifact_uri
    if parent is None or _AGREED not in parent.tags:
        # Whoever made it may not have come so far.
        asked = {key: as_text(value) for key, value in params.items()}
        # By events, which two may write at once.
        for kind, data in (("params", asked), ("tags", {_AGREED: "true"})):
            event = {"kind": kind, "data": data}
            send_event(store, client, chosen, uri, event, Path(), unsure=False)
    if chosen != own.run_id:
        with store_errors(store, "written"):
            client.delete_run(own.run_id)
    return str(chosen)


def write_parent(
    run: RunInfo,
    figures: Mapping[str, float | None],
    step: int,
    files: Path,
    status: str,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a table's figures and files to the run above; the newest step is what is shown.

    Parameters
    ----------
    run : RunInfo
    figures : mapping
        None is left out.
    step : int
        How many children the figures are of.
    files : Path
        A folder.
    status : str
        ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
    tags : mapping, optional
    """
    store = locate()
    client = connect(store)
    now = time.time_ns() // 1_000_000
    points = [[key, value, now, step] for key, value in figures.items() if value is not None]
    for kind, data in (("metrics", points), ("files", ""), ("tags", dict(tags or {}))):
        event = {"kind": kind, "data": data}
        send_event(store, client, run.id, run.artifact_uri, event, files, unsure=True)
    if run.status != status:
        close_run(run.id, status)


def close_run(run_id: str, status: str, reason: str = "") -> None:
    """Set a run's status; RUNNING opens it again."""
    store = locate()
    client = connect(store)
    with store_errors(store, "written"):
        if reason:
            client.set_tag(run_id, "l2i.error", reason)
        if status == "RUNNING":
            client.update_run(run_id, status)
        else:
            client.set_terminated(run_id, status)
