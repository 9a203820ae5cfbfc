"""Stores of runs, opened: the traps of keeping runs, and errors as sentences.

Which store is meant is for `l2i.run.address` to say; who opens one finds it here, too.

Three traps, and what is done about them here.

- MLflow stores artifact locations as absolute paths. A store that was moved, or is mounted
  elsewhere in a container, goes on writing to the old path without a word: `experiment_id`
  compares and refuses. One that was copied reads, and removes, the original's files:
  `check_own` refuses.
- Two processes that create one sqlite store at the same time break each other's migration, and
  a process killed amid the migration leaves a store that nothing can open: the store is made
  under a lock and under another name, and renamed when it is whole.
- A tracking server that is not there is asked for minutes before MLflow gives up: `connect`
  knocks first.

Over 300 lines: three traps, each with its guard.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from l2i.errors import L2IError, StoreError
from l2i.run.address import Store, in_image, local_path, locate, mask, sqlite_uri
from l2i.run.signals import held_signals
from l2i.run.view import EXPERIMENT_TAGS
from l2i.storage import FileLock, is_s3, s3
from l2i.storage.patience import patiently

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = [
    "Store",
    "check_own",
    "connect",
    "experiment_id",
    "local_path",
    "locate",
    "mask",
    "read_only",
    "store_errors",
    "unlocked",
]

T = TypeVar("T")


def _newer(message: str) -> str:
    """What there is to say of a database that a newer MLflow wrote; empty: that is not the fault.

    MLflow calls each one out of date that has not its own version, and asks to migrate it.
    """
    match = re.search(r"out-of-date database schema \(found version (\w+)", message)
    if match is None:
        return ""
    import mlflow
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    migrations = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    try:
        migrations.get_revision(match[1])
    except CommandError:
        return (
            f"it was written by a newer MLflow than the {mlflow.__version__} of this l2i. Use the "
            "newer l2i, or another store."
        )
    return ""


@contextmanager
def store_errors(store: Store, doing: str) -> Iterator[None]:
    """Turn what MLflow, the database, the disk or the network raise into one sentence, which
    begins with "The run store X cannot be <doing>"."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except L2IError:
        raise
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        _still_there(store)
        if newer := _newer(str(error)):
            raise StoreError(f"The run store {store.shown} cannot be {doing}: {newer}") from error
        hint = ""
        if "disk is full" in str(error) or "No space left" in str(error):
            hint = " Free some disk space and give the same command again."
        elif isinstance(error, PermissionError) or "readonly database" in str(error):
            hint = f" User {os.getuid()} may not write in {store.root}"
            hint += ": docker run --user $(id -u):$(id -g)." if in_image() else "."
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = mask(lines[0]).rstrip(".") if lines else type(error).__name__
        raise StoreError(f"The run store {store.shown} cannot be {doing}: {why}.{hint}") from error


def _quiet() -> None:
    """Keep MLflow and its migrations from talking on the terminal; before its import."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # What a run writes is sent again by its outbox, and a person at a terminal is told sooner.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Files of a server come through the server. By default it sends us on to the object store
    # behind it, at an address that often only it can reach.
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    # Not even errors, which it logs with their tracebacks: they come to us as exceptions too.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    for name in ("alembic", "sqlalchemy", "mlflow", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"(mlflow|alembic|sqlalchemy|pydantic)\b")


def _still_there(store: Store) -> None:
    # Made anew, it would know none of the runs that are being written, nor they their experiment.
    if store.uri in _clients and not store.exists:
        raise StoreError(
            f"The run store {store.shown} was there, and is gone: put it back. Without it, the "
            "same command makes a new one."
        )


_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def _knock(store: Store) -> None:
    """Whether anybody answers where a server or a database should be.

    MLflow would ask an absent database again and again for two minutes, and say nothing.
    """
    if store.is_server and any(
        k.lower() in ("http_proxy", "https_proxy", "all_proxy") for k in os.environ
    ):
        return  # A server that is only reached by way of a proxy need not answer us directly.
    try:
        parts = urlsplit(store.uri)
        port = parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    except ValueError:
        return  # Several hosts, or no address at all: the driver knows better.
    if not parts.hostname or port is None:
        return  # A database behind a local socket.
    what = "tracking server" if store.is_server else "database"
    try:
        socket.create_connection((parts.hostname, port), timeout=10).close()
    except OSError as error:
        raise StoreError(
            f"No {what} answers at {store.shown} ({error.strerror or error}); "
            "start it, or mend MLFLOW_TRACKING_URI."
        ) from None


def _create(store: Store) -> None:
    """Make the sqlite store under another name, and rename it when it is whole."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database = store.database
    assert database is not None
    lock = FileLock(database.with_name(f".{database.name}.lock"))
    lock.take(wait=True)
    try:
        if database.exists():
            return  # Another process made it while we waited.
        fresh = database.with_name(f".{database.name}.new")
        for leftover in database.parent.glob(f"{fresh.name}*"):
            leftover.unlink()
        made = SqlAlchemyStore(sqlite_uri(fresh), (store.root / "artifacts" / "Default").as_uri())
        made.engine.dispose()
        fresh.replace(database)
    finally:
        lock.release()


_clients: dict[str, MlflowClient] = {}


class _Patient:
    """A client of a sqlite store that waits while another program has locked the file."""

    def __init__(self, store: Store, client: MlflowClient) -> None:
        self._store = store
        self._client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: unlocked(self._store, lambda: method(*args, **kwargs))


def unlocked(store: Store, work: Callable[[], T]) -> T:
    """Do it, and again while another program has locked the sqlite file, as for a copy of it.

    sqlite has rolled back what met the lock, so that it can be done again. `l2i.storage.patience`
    says how long it is waited for, and that it is. A signal waits until an attempt is over.
    """

    def attempt() -> T:
        with held_signals():
            return work()

    return patiently(
        attempt,
        lambda error: "database is locked" in str(error),
        lambda error: f"The run store {store.shown} is locked by another program",
    )


def connect(store: Store) -> MlflowClient:
    """The client of a store, which is made first where it is a sqlite file that is absent.

    Raises
    ------
    StoreError
        It cannot be reached, made or read.
    """
    if store.uri in _clients:
        _still_there(store)
        return _clients[store.uri]
    _quiet()
    if store.database is None:
        _knock(store)
    from mlflow.tracking import MlflowClient

    _quiet()  # MLflow sets its own levels when it is imported.
    with store_errors(store, "opened"):
        if not store.exists:
            _create(store)
        try:
            client = unlocked(store, lambda: MlflowClient(tracking_uri=store.uri))
            if store.database is not None:
                client = cast("MlflowClient", _Patient(store, client))
            client.search_experiments(max_results=1)
        except ModuleNotFoundError as error:  # The driver of a database.
            raise StoreError(
                f"The run store {store.shown} needs the Python package {error.name!r}, which is "
                "not installed here: install it, or take sqlite or a tracking server."
            ) from error
    _clients[store.uri] = client
    return client


def check_own(store: Store, run_id: str, artifact_uri: str) -> None:
    """Refuse a run whose files do not lie where this store is.

    Raises
    ------
    StoreError
        The store was moved, or copied: MLflow's absolute paths still lead to the original.
    """
    there = local_path(artifact_uri)
    if there is None or store.database is None:
        return
    if there.resolve().is_relative_to(store.root.resolve()):
        return
    # <root>/artifacts/<experiment>/<run>/artifacts, with the other database in <root>.
    own = store.root.joinpath("artifacts", *there.parts[-3:])
    other = Path(*there.parts[:-4]) / store.database.name
    if own.exists() and not there.exists():
        raise StoreError(
            f"The artifacts of run {run_id[:8]} should lie in {there}, which is not there: the "
            f"store was moved or mounted elsewhere. 'l2i runs relocate' points it to {own}."
        )
    if _is_another(own, there) or (_is_another(other, store.database) and _has(other, run_id)):
        raise StoreError(
            f"{store.shown} is a copy of a store whose files still lie in {there.parent.parent}: "
            "let 'l2i runs relocate' point it to its own."
        )


def _is_another(path: Path, known: Path) -> bool:
    return path.exists() and not (known.exists() and path.samefile(known))


def read_only(database: Path, wait_s: float = 5.0) -> sqlite3.Connection:
    """A connection to a sqlite file that leaves it as it is, and waits so long for a lock."""
    return sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=wait_s)


def _has(database: Path, run_id: str) -> bool:
    """Whether a sqlite store knows a run."""
    try:
        with closing(read_only(database)) as base:
            query = "SELECT count(*) FROM runs WHERE run_uuid = ?"
            return bool(base.execute(query, (run_id,)).fetchone()[0])
    except sqlite3.Error:
        return False


def _expected(store: Store, name: str) -> str | None:
    if store.artifacts is None:
        return None
    # An experiment's name may hold any character; a folder's may not.
    folder = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "experiment"
    if "://" in store.artifacts:
        return f"{store.artifacts.rstrip('/')}/{folder}"
    return (Path(store.artifacts) / folder).as_uri()


def _check_location(store: Store, name: str, actual: str, expected: str | None) -> None:
    here = local_path(actual)
    if store.is_server:
        if here is not None and not here.parent.is_dir():
            raise StoreError(
                f"The server {store.shown} keeps the artifacts of experiment {name!r} in "
                f"{here}, a folder that this machine does not have; start the server with "
                "--serve-artifacts, or take another --experiment."
            )
        return
    if actual.startswith("mlflow-artifacts:"):
        raise StoreError(
            f"Experiment {name!r} of {store.shown} was made through a tracking server, which "
            "alone can reach its artifacts: set MLFLOW_TRACKING_URI to the server's address, or "
            "take another --experiment."
        )
    wanted = local_path(expected or "")
    if here is None or wanted is None:
        # Elsewhere is no trap unless another place was asked for.
        moved = store.artifacts_chosen and expected is not None and actual != expected
    else:
        moved = here.resolve() != wanted.resolve()
    if moved:
        raise StoreError(
            f"Experiment {name!r} of {store.shown} keeps its artifacts in {here or actual}, not in "
            f"{wanted or expected}: the store was moved, copied or mounted elsewhere. Put it "
            "back (in a container: mount it) where it was, let 'l2i runs relocate' point to where "
            "it is now, or take another --experiment."
        )


def experiment_id(store: Store, name: str) -> str:
    """The id of an experiment, which is made where there is none.

    Raises
    ------
    StoreError
        Its artifacts are kept elsewhere than this store keeps artifacts, or in a bucket that is not
        there or refuses the keys; or it is deleted.
    """
    from mlflow.exceptions import MlflowException

    client, expected = connect(store), _expected(store, name)
    with store_errors(store, "read"):
        experiment = client.get_experiment_by_name(name)
        place = expected if experiment is None else experiment.artifact_location
        if place is not None and is_s3(place):
            # Before it is made, which would bind it to this place for ever.
            s3.check(s3.Location.parse(place))
        if experiment is None:
            try:
                client.create_experiment(name, artifact_location=expected, tags=EXPERIMENT_TAGS)
            except MlflowException as error:
                # Another process may have made it in between.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise StoreError(f"Experiment {name!r} vanished from {store.shown} while it was made.")
        if experiment.lifecycle_stage == "deleted":
            raise StoreError(
                f"Experiment {name!r} of {store.shown} is in the bin: restore it there (mlflow "
                f"experiments restore -x {experiment.experiment_id}), or take another --experiment."
            )
    _check_location(store, name, experiment.artifact_location, expected)
    return str(experiment.experiment_id)
