"""What a run says, written to its store: one event at a time, in MLflow's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from l2i.errors import StoreError
from l2i.run.store import Store, connect, store_errors
from l2i.storage import is_s3, s3


def send_event(
    store: Store,
    run_id: str,
    artifact_uri: str,
    kind: str,
    data: Any,
    files: Path = Path(),
    *,
    unsure: bool = False,
) -> None:
    """Write one event to a store.

    Parameters
    ----------
    store : Store
    run_id, artifact_uri : str
    kind, data
        See `Outbox.add`.
    files : Path
        Those of the event ``files``.
    unsure : bool
        Whether the store may have it already.

    Raises
    ------
    StoreError
    """
    from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

    client = connect(store)
    with store_errors(store, "written"):
        if kind == "params":
            _log(client, run_id, params=[Param(k, v) for k, v in data.items()])
        elif kind == "metrics":
            metrics = [Metric(k, float(v), t, step) for k, v, t, step in data]
            _log(client, run_id, metrics=_new(client, run_id, metrics) if unsure else metrics)
        elif kind == "tags":
            _log(client, run_id, tags=[RunTag(k, v) for k, v in data.items()])
        elif kind == "untag":
            if data in client.get_run(run_id).data.tags:
                client.delete_tag(run_id, data)
        elif kind == "files":
            if is_s3(artifact_uri):
                place = s3.Location.parse(artifact_uri) / data
                s3.send(files, place if files.is_dir() else place / files.name, patience_s=0.0)
            else:
                log = client.log_artifacts if files.is_dir() else client.log_artifact
                log(run_id, str(files), data or None)
        elif kind == "inputs":
            # A run has each of them once, however often it is said.
            _once_more(client.log_inputs, run_id, datasets=[DatasetInput(Dataset(**data))])
        elif kind == "register":
            _register(client, run_id, artifact_uri, data)
        elif kind == "remove":
            _remove_files(artifact_uri, data)
        elif kind == "end":
            client.set_terminated(run_id, data["status"], data["time"])
        else:
            raise StoreError(f"There is no event of kind {kind!r}; a newer l2i wrote it.")


def _log(client: Any, run_id: str, **what: Sequence[Any]) -> None:
    """Log parameters, metrics or tags, as many in a request as a tracking server takes."""
    for kind, items in what.items():
        size = 1000 if kind == "metrics" else 100
        for start in range(0, len(items), size):
            _once_more(client.log_batch, run_id, **{kind: items[start : start + size]})


def _once_more(log: Callable[..., object], run_id: str, **what: Any) -> None:
    """Log something, once more where another process logged the same keys at the same moment.

    Then the database has taken the other's and refused ours, as a key that is there already: the
    second time MLflow finds it. Nothing else is tried again here; outages are the outbox's.
    """
    from mlflow.exceptions import MlflowException

    try:
        log(run_id, **what)
    except MlflowException as error:
        # sqlite and PostgreSQL say "unique constraint", MySQL "duplicate entry".
        if not any(word in str(error).lower() for word in ("unique constraint", "duplicate entry")):
            raise
        log(run_id, **what)


def _new(client: Any, run_id: str, metrics: Sequence[Any]) -> list[Any]:
    """Those that the store does not have."""
    there = {
        key: {m.step for m in client.get_metric_history(run_id, key)}
        for key in {m.key for m in metrics}
    }
    return [m for m in metrics if m.step not in there[m.key]]


def _register(client: Any, run_id: str, artifact_uri: str, data: Mapping[str, str]) -> None:
    """Make the run's model a version of a registered one, unless it is one already."""
    from mlflow.exceptions import MlflowException

    name = data["name"]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if not [v for v in client.search_model_versions(f"run_id = '{run_id}'") if v.name == name]:
        client.create_model_version(name, f"{artifact_uri.rstrip('/')}/{data['path']}", run_id)


def _remove_files(artifact_uri: str, folder: str) -> None:
    """As far as these keys may: what is left costs a little room and misleads nobody."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if is_s3(artifact_uri):
        with suppress(StoreError):
            s3.remove(s3.Location.parse(artifact_uri) / folder, patience_s=0.0)
        return
    with suppress(Exception):
        get_artifact_repository(artifact_uri).delete_artifacts(folder)
