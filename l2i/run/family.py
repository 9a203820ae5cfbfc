"""A sweep's runs that many machines make: one parent, and children that say of what they are.

No process holds the parent: whoever submits the job makes it, and each task that is done writes
the table anew. A child says by a tag, ``l2i.member.<signature>``, that it is the sweep's, and
which; it may be of several sweeps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2i.run.address import as_text, locate
from l2i.run.events import send_event
from l2i.run.search import RunInfo, Wanted, search_runs
from l2i.run.store import connect, experiment_id, store_errors


def member_tag(signature: str) -> str:
    """The tag of all runs of a sweep; its value is the child's key."""
    return f"l2i.member.{signature}"


def members(signature: str, *, finished: bool = False) -> dict[str, RunInfo]:
    """The newest run of each child of a sweep, by the child's key; a finished one if there is."""
    tag = member_tag(signature)
    wanted = Wanted(status="FINISHED" if finished else "", tags={tag: None})
    by_id: dict[str, RunInfo] = {}
    for run in search_runs(locate(), wanted, limit=50_000):
        known = by_id.get(run.tags[tag])
        if known is None or (run.status == "FINISHED" != known.status):
            by_id[run.tags[tag]] = run
    return by_id


def find_parent(experiment: str, signature: str) -> RunInfo | None:
    """The run above all of a sweep, the first where there are several; None where there is none."""
    tags = {"l2i.signature": signature, "l2i.kind": "sweep"}
    runs = search_runs(locate(), Wanted(tags=tags, experiment=experiment), limit=100)

    def begin(run: RunInfo) -> tuple[float, str]:
        return run.start.timestamp() if run.start else float("inf"), run.id

    return min(runs, key=begin, default=None)


def make_parent(
    experiment: str, name: str, signature: str, tags: Mapping[str, Any], params: Mapping[str, Any]
) -> str:
    """The id of the run above all of a sweep, which is made where there is none.

    Raises
    ------
    StoreError
        The store cannot be reached, or refuses.
    """
    store = locate()
    parent = find_parent(experiment, signature)
    if parent is not None and params.keys() <= parent.params.keys():
        return parent.id
    if parent is not None:
        # Whoever made it did not come to write its parameters.
        run_id, uri = parent.id, parent.artifact_uri
    else:
        where = experiment_id(store, experiment)
        texts = {key: as_text(value) for key, value in tags.items()}
        texts |= {"l2i.signature": signature, "mlflow.source.name": "l2i"}
        with store_errors(store, "written"):
            made = connect(store).create_run(where, run_name=name, tags=texts).info
        run_id, uri = str(made.run_id), made.artifact_uri
    texts = {key: as_text(value) for key, value in params.items()}
    send_event(store, run_id, uri, "params", texts)
    return run_id


def write_parent(
    run: RunInfo,
    figures: Mapping[str, float | None],
    step: int,
    files: Path,
    status: str,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a table's figures, without those that are None, and the files of a folder to the run
    above; the newest step, how many children they are of, is what is shown."""
    store = locate()
    now = time.time_ns() // 1_000_000
    points = [[key, value, now, step] for key, value in figures.items() if value is not None]
    for kind, data in (("metrics", points), ("files", ""), ("tags", dict(tags or {}))):
        send_event(store, run.id, run.artifact_uri, kind, data, files, unsure=True)
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
