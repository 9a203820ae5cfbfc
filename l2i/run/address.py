"""Where runs are kept, and by which names.

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
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from l2i.errors import StoreError
from l2i.storage import existing

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


def sqlite_uri(database: Path) -> str:
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
        uri = sqlite_uri(database)
    artifacts: str | None = str(root / "artifacts")
    if uri.startswith(("http://", "https://", "databricks")):
        artifacts = None
    if chosen:
        artifacts = chosen if "://" in chosen else str(_path(chosen))
    return Store(uri, root, artifacts, bool(chosen), database)


def in_image() -> bool:
    """Whether this is one of our images, which say so."""
    return "L2I_REVISION" in os.environ


def lost_with_container(store: Store) -> str:
    """A warning where a store is in the layer that a container is removed with, else nothing."""
    if not in_image() or store.database is None:
        return ""
    if existing(store.root).stat().st_dev != os.stat("/").st_dev:
        return ""
    return (
        f"Runs go to {store.root} in this container, and are lost with it: mount a folder there "
        f"(docker run -v $PWD/mlruns:{store.root} ...)."
    )


def local_path(location: str) -> Path | None:
    """The local path of an artifact location, or None where it is elsewhere."""
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return None if "://" in location or location.startswith("mlflow-artifacts:") else Path(location)
