"""Where runs are kept, and the traps of keeping them.

By default a folder ``mlruns/`` under the current one::

    mlruns/mlflow.db            parameters, metrics, tags (sqlite)
    mlruns/artifacts/<name>/    artifacts of the experiment <name>
    mlruns/work/run-<id>/       checkpoints and other files of a run that is not over
    mlruns/work/run-<id>.lock   held by the process that does this run

``L2I_MLRUNS`` is that folder in place of ``./mlruns`` (the images set it to ``/mlruns``), or runs
go anywhere ``MLFLOW_TRACKING_URI`` says: another sqlite file (its folder then stands for
``mlruns/``), another database, or a tracking server. ``L2I_ARTIFACTS`` says where new
experiments put their artifacts (a folder, ``s3://bucket/prefix``); a server has a place of its
own.

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
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

from l2i.errors import L2IError, StoreError
from l2i.run.signals import held_signals
from l2i.storage import FileLock, existing
from l2i.storage.patience import patiently

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = [
    "MODE",
    "VIEW",
    "VIEW_STATE",
    "Store",
    "as_text",
    "check_own",
    "connect",
    "experiment_id",
    "kept_tag",
    "known_tags",
    "local_path",
    "locate",
    "lost_with_container",
    "mask",
    "read_only",
    "store_errors",
    "unlocked",
]

T = TypeVar("T")
# What MLflow takes of one value.
_VALUE_LENGTH = 5000
_SQLITE = re.compile(r"^sqlite(?:\+\w+)?:///(?P<path>[^?]+)")


@dataclass(frozen=True, slots=True)
class Store:
    """A place where runs are kept.

    Attributes
    ----------
    uri : str
        For MLflow.
    root : Path
        The local folder with locks and unfinished work.
    artifacts : str or None
        Folder or URI under which experiments keep artifacts; None: the server decides.
    artifacts_chosen : bool
        Whether `artifacts` was asked for rather than assumed.
    database : Path or None
        The sqlite file.
    """

    uri: str
    root: Path
    artifacts: str | None
    artifacts_chosen: bool
    database: Path | None

    @property
    def is_server(self) -> bool:
        """Whether a tracking server stands between us and the database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The store for people: a path where it has one, never a password."""
        return str(self.database) if self.database is not None else mask(self.uri)

    @property
    def exists(self) -> bool:
        """False where it is a sqlite file that nobody has made yet."""
        return self.database is None or self.database.exists()

    def folder(self, run_id: str) -> Path:
        """Where a run keeps its unfinished work on this machine."""
        return self.root / "work" / f"run-{run_id}"

    def lock(self, run_id: str) -> Path:
        """The file a live run holds a lock on."""
        return self.root / "work" / f"run-{run_id}.lock"


def mask(text: str) -> str:
    """`text` with passwords and tokens in it replaced by ``***``.

    >>> mask("postgresql://me:secret@host/db")
    'postgresql://me:***@host/db'
    >>> mask("--api-key=abc --epochs 3 --password hunter2")
    '--api-key=*** --epochs 3 --password ***'
    """
    text = re.sub(r"(\w://[^\s:/@]*):[^\s@/]+@", r"\1:***@", text)
    secret = r"[\w-]*(?:password|passwd|secret|token|api[-_]?key|access[-_]?key)[\w-]*"
    return re.sub(rf"(?i)(\b{secret}(?:=|\s+))(?!-)[^\s]+", r"\1***", text)


def as_text(value: Any) -> str:
    """A parameter or tag as MLflow keeps it, without passwords.

    >>> as_text(True), as_text([1, 2]), as_text(0.1), as_text("demo"), as_text(None)
    ('true', '[1, 2]', '0.1', 'demo', 'null')
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return mask(text[:_VALUE_LENGTH])


_HIDDEN = frozenset({"l2i.mounts", "l2i.lock", "l2i.folder", "l2i.platform"})
"""Tags that only machines read. MLflow's pages do not show those that begin as its own do."""


def kept_tag(key: str) -> str:
    """What a tag is called in the store.

    >>> kept_tag("l2i.lock"), kept_tag("l2i.kind")
    ('mlflow.l2i.lock', 'l2i.kind')
    """
    return f"mlflow.{key}" if key in _HIDDEN else key


def known_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a store under the names that we know them by; older runs have them under these."""
    names = {f"mlflow.{key}": key for key in _HIDDEN}
    return {names.get(key, key): value for key, value in tags.items()}


def _path(text: str) -> Path:
    """A path as a variable names it, which no shell may have read: ``~`` is the home folder."""
    return Path(os.path.expanduser(text)).absolute()


def _sqlite_uri(database: Path) -> str:
    """The address of a sqlite file, whose folders may be called ``100%20x`` or ``what?``."""
    path = str(database).replace("%", "%25").replace("?", "%3F")
    # Given the short form, MLflow makes the folder, and would make one called 100%2520x.
    return f"sqlite:///{path}" if path == str(database) else f"sqlite+pysqlite:///{path}"


def locate() -> Store:
    """The store that the environment and the current folder name; nothing is touched.

    Raises
    ------
    StoreError
        ``MLFLOW_TRACKING_URI`` names a kind of store that MLflow no longer writes.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    chosen = os.environ.get("L2I_ARTIFACTS", "").strip()
    root = _path(os.environ.get("L2I_MLRUNS", "").strip() or "mlruns")
    database: Path | None = None
    if not uri:
        database = root / "mlflow.db"
    elif match := _SQLITE.match(uri):
        database = _path(unquote(match["path"]))
        root = database.parent
    elif "://" not in uri or uri.startswith(("file:", "sqlite:")):
        raise StoreError(
            f"MLFLOW_TRACKING_URI={mask(uri)!r} is not a store that lasts: give the address of a "
            "tracking server (http://...), of a database, or sqlite:///FILE."
        )
    if database is not None:
        uri = _sqlite_uri(database)
    artifacts: str | None = str(root / "artifacts")
    if uri.startswith(("http://", "https://", "databricks")):
        artifacts = None
    if chosen:
        artifacts = chosen if "://" in chosen else str(_path(chosen))
    return Store(uri, root, artifacts, bool(chosen), database)


def _in_image() -> bool:
    """Whether this is one of our images, which say so."""
    return "L2I_REVISION" in os.environ


def lost_with_container(store: Store) -> str:
    """A warning where a store is in the layer that a container is removed with, else nothing."""
    if not _in_image() or store.database is None:
        return ""
    if existing(store.root).stat().st_dev != os.stat("/").st_dev:
        return ""
    return (
        f"Runs go to {store.root} in this container, and are lost with it: mount a folder there "
        f"(docker run -v $PWD/mlruns:{store.root} ...)."
    )


def _permission_hint(store: Store) -> str:
    who = f" User {os.getuid()} may not write in {store.root}"
    return f"{who}: docker run --user $(id -u):$(id -g)." if _in_image() else f"{who}."


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return mask(lines[0]).rstrip(".") if lines else type(error).__name__


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
    """Turn what MLflow, the database, the disk or the network raise into one sentence.

    Parameters
    ----------
    store : Store
    doing : str
        What failed, as in "The run store X cannot be <doing>".
    """
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except L2IError:
        raise
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        if newer := _newer(str(error)):
            raise StoreError(f"The run store {store.shown} cannot be {doing}: {newer}") from error
        hint = ""
        if "disk is full" in str(error) or "No space left" in str(error):
            hint = " Free some disk space and give the same command again."
        elif isinstance(error, PermissionError) or "readonly database" in str(error):
            hint = _permission_hint(store)
        raise StoreError(
            f"The run store {store.shown} cannot be {doing}: {_first_line(error)}.{hint}"
        ) from error


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
        made = SqlAlchemyStore(_sqlite_uri(fresh), (store.root / "artifacts" / "Default").as_uri())
        made.engine.dispose()
        fresh.replace(database)
    finally:
        lock.release()


MODE = "?workflowType=machine_learning"
"""At the end of an address of MLflow's pages; without it they are those for language models."""
VIEW = "l2i"
"""MLflow's pages show the runs of an experiment with the columns that matter where their address
has ``viewStateShareKey=l2i``: a "shared view", kept as a tag of the experiment."""
_COLUMNS = (
    *("attributes.`Created`", "attributes.`Duration`"),
    *("metrics.`test/accuracy`", "metrics.`test/auprc_macro`", "metrics.`test/fidelity_top1`"),
    *("metrics.`test/ff_mean`", "metrics.`test/fid_in`", "metrics.`test/kept`"),
    *("params.`dataset.fold`", "params.`run.seed`", "tags.`l2i.kind`"),
)
VIEW_STATE = {
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": list(_COLUMNS),
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsHiddenMode": "FIRST_10_RUNS",
    "viewMaximized": True,
    "runListHidden": False,
    "groupBy": None,
    "groupsExpanded": {},
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "autoRefreshEnabled": True,
    "isAccordionReordered": False,
}
_EXPERIMENT_TAGS = {
    # Lets MLflow open its pages for runs, and not those for language models.
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{VIEW}": json.dumps(VIEW_STATE),
}
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
    if store.uri in _clients and store.exists:
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


def local_path(location: str) -> Path | None:
    """The local path of an artifact location, or None where it is elsewhere."""
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return None if "://" in location or location.startswith("mlflow-artifacts:") else Path(location)


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


def experiment_id(store: Store, client: MlflowClient, name: str) -> str:
    """The id of an experiment, which is made where there is none.

    Raises
    ------
    StoreError
        Its artifacts are kept elsewhere than this store keeps artifacts, or it is deleted.
    """
    from mlflow.exceptions import MlflowException

    expected = _expected(store, name)
    with store_errors(store, "read"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                client.create_experiment(name, artifact_location=expected, tags=_EXPERIMENT_TAGS)
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
