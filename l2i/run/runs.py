"""Reading the store: listing runs, finding one by a word, fetching its artifacts.

Every function first sets runs KILLED that say RUNNING though their process is gone (`reap`),
so that nothing a person sees is left over from a crash.
"""

from __future__ import annotations

import io
import os
import platform
import re
import shutil
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2i.errors import StoreError, UsageError
from l2i.registry import nearest
from l2i.run.lock import RunLock
from l2i.run.outbox import send_event, sync
from l2i.run.store import Store, check_own, connect, known_tags, local_path, locate, store_errors
from l2i.storage import is_s3, s3
from l2i.storage.patience import patience_s as patience

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = [
    "Garbage",
    "RunInfo",
    "adopt",
    "collect_garbage",
    "delete_run",
    "download",
    "fetch_artifact",
    "find_finished",
    "find_garbage",
    "find_run",
    "list_artifacts",
    "list_runs",
    "reap",
    "register",
    "resolve_run",
    "running_parents",
    "running_tasks",
    "search_runs",
]

_OURS = "tags.`l2i.signature` LIKE '%'"
_NEWEST = ["attributes.start_time DESC"]
# Runs of these kinds have networks; a run of an older version has no kind, and has them too. Runs
# of all other kinds are about such runs: what was measured of one, or a table of several.
_MODELS = frozenset({"train", "import", ""})
# A run is made a moment before it is locked; a younger one without a lock is given that moment.
_GRACE_S = 60.0
# How long somebody who waits for an artifact waits for an object store that is away.
_READING_S = 10.0


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
    def scores(self) -> dict[str, float]:
        """Its figures of test clips, by the names of `l2i.metrics.METRICS`."""
        start = "test/"
        return {k.removeprefix(start): v for k, v in self.metrics.items() if k.startswith(start)}

    def is_about(self, words: Iterable[str]) -> bool:
        """Whether each word is in its name, its experiment, its data set or its method.

        Case plays no part.
        """
        about = (
            *(self.name, self.experiment, self.tags.get("l2i.dataset", "")),
            *(self.tags.get("l2i.method", ""), self.params.get("methods", "")),
        )
        text = "\n".join(about).casefold()
        return all(word.casefold() in text for word in words)

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
        tags=known_tags(run.data.tags),
        metrics=dict(run.data.metrics),
        start=_time(run.info.start_time),
        end=_time(run.info.end_time),
    )


def _experiments(client: MlflowClient) -> dict[str, str]:
    """Id to name of every experiment."""
    names: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        names.update({e.experiment_id: e.name for e in page})
        token = page.token
        if not token:
            return names


def search_runs(
    store: Store,
    client: MlflowClient,
    query: str,
    *,
    experiment: str | None = None,
    limit: int = 1,
    kinds: Container[str] | None = None,
    words: Sequence[str] = (),
    order: Sequence[str] = (),
    binned: bool = False,
) -> list[RunInfo]:
    """Runs of a query that are about all `words` (`RunInfo.is_about`), newest first.

    `order` has what they are sorted by before that, in MLflow's words; with `binned` they are those
    in MLflow's bin.

    Raises
    ------
    StoreError
    """
    from mlflow.entities import ViewType

    # The query language cannot ask for a tag that is absent or one of a few, nor for a word in one
    # of several places: kinds and words are told apart here.
    whole = kinds is None and not words
    with store_errors(store, "read"):
        experiments = _experiments(client)
        wanted = [i for i, name in experiments.items() if experiment in (None, name)]
        if not wanted:
            return []
        runs: list[RunInfo] = []
        token = None
        while len(runs) < limit:
            page = client.search_runs(
                wanted,
                query,
                ViewType.DELETED_ONLY if binned else ViewType.ACTIVE_ONLY,
                max_results=min(limit - len(runs) if whole else 100, 1000),
                order_by=[*order, *_NEWEST],
                page_token=token,
            )
            some = [_info(run, experiments) for run in page]
            runs += [r for r in some if (kinds is None or r.kind in kinds) and r.is_about(words)]
            token = page.token
            if not token:
                break
        return runs[:limit]


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
    running = search_runs(store, client, f"attributes.status = 'RUNNING' AND {_OURS}", limit=10_000)
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
    runs = search_runs(store, connect(store), query)
    return runs[0] if runs else None


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


def running_tasks() -> list[RunInfo]:
    """Runs of tasks of jobs that say RUNNING, wherever their processes are."""
    query = "attributes.status = 'RUNNING' AND tags.`l2i.job` LIKE '%'"
    store = locate()
    return search_runs(store, connect(store), query, limit=10_000) if store.exists else []


def running_parents() -> list[RunInfo]:
    """Runs above sweeps that say RUNNING."""
    query = "attributes.status = 'RUNNING' AND tags.`l2i.kind` = 'sweep'"
    store = locate()
    return search_runs(store, connect(store), query, limit=10_000) if store.exists else []


def register(run: RunInfo, name: str, path: str) -> None:
    """Make the model of a finished run a version of a registered model, unless it is one.

    Parameters
    ----------
    run : RunInfo
    name : str
        Of the registered model, which is made where there is none.
    path : str
        The model's folder among the run's artifacts.
    """
    store = locate()
    check_own(store, run.id, run.artifact_uri)
    event = {"kind": "register", "data": {"name": name, "path": path}}
    send_event(store, connect(store), run.id, run.artifact_uri, event, Path(), unsure=False)


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
    below = search_runs(store, client, f"tags.`mlflow.parentRunId` = '{run.id}'", limit=1000)
    for each in (run, *below):
        if each.status == "RUNNING":
            raise UsageError(f"Run {each.name} ({each.id[:8]}) is running: stop it first.")
    for each in (*below, run):
        with store_errors(store, "written"):
            client.delete_run(each.id)
    return 1 + len(below)


def find_finished(experiment: str, signature: str, tag: str = "l2i.signature") -> RunInfo | None:
    """The newest finished run with networks that has a signature as this tag, or None."""
    store = locate()
    if not store.exists:
        return None
    # A run may be done, and its store not have heard of it.
    sync(store, 5.0)
    query = f"attributes.status = 'FINISHED' AND tags.`{tag}` = '{signature}'"
    runs = search_runs(store, connect(store), query, experiment=experiment, kinds=_MODELS)
    return runs[0] if runs else None


def list_runs(
    experiment: str | None = None,
    limit: int = 20,
    *,
    status: str | None = None,
    kind: str | None = None,
    tags: Mapping[str, str] | None = None,
    words: Sequence[str] = (),
    where: str = "",
    best: str = "",
    lower: bool = False,
) -> list[RunInfo]:
    """The newest runs that this package made, newest first; empty where there is no store.

    What was measured of a run later is not among them unless its kind is asked for: it lies under
    that run.

    Parameters
    ----------
    experiment : str, optional
    limit : int
    status : str, optional
        ``running``, ``finished``, ``failed`` or ``killed``.
    kind : str, optional
        ``train``, ``import``, ``sweep``, ``overlap``, ...; ``all``: of every kind.
    tags : mapping of str to str, optional
        All of them; a name without a dot is one of ours: ``dataset`` is ``l2i.dataset``.
    words : sequence of str
        All of them in a run's name, experiment, data set or method, whatever the case.
    where : str
        More, in MLflow's language: ``metrics.`test/accuracy` > 0.9``.
    best : str
        A metric by which the best come first in place of the newest, ``test/accuracy`` say; runs
        that have none come last.
    lower : bool
        Whether the lowest is the best.

    Raises
    ------
    UsageError
        There is no such experiment, or MLflow does not understand `where` or `best`.
    """
    store = locate()
    if not store.exists:
        return []
    store, client = _open(store)
    from mlflow.exceptions import MlflowException

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
    query = [_OURS]
    if status:
        query.append(f"attributes.status = '{status.upper()}'")
    for key, value in (tags or {}).items():
        name = key if "." in key else f"l2i.{key}"
        if set(name) & set("`'\"") or "'" in value:
            raise UsageError(f"A tag that is looked for has no quotes: {key}={value}.")
        query.append(f"tags.`{name}` = '{value}'")
    if "`" in best:
        raise UsageError(f"A metric's name has no back-tick: {best}.")
    kinds: Container[str] | None = _MODELS | {"sweep"}
    if kind:
        kinds = None if kind == "all" else {kind}
    try:
        return search_runs(
            store,
            client,
            " AND ".join([*query, where] if where else query),
            experiment=experiment,
            limit=limit,
            kinds=kinds,
            words=words,
            order=[f"metrics.`{best}` {'ASC' if lower else 'DESC'}"] if best else (),
        )
    except StoreError as error:
        cause = error.__cause__
        if where and isinstance(cause, MlflowException) and cause.get_http_status_code() == 400:
            raise UsageError(
                f"MLflow does not understand {where!r}: {str(cause).splitlines()[0]}"
            ) from None
        raise


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
        Of all the folders, and of the runs' artifacts on this machine.
    """

    runs: list[RunInfo]
    kept: list[RunInfo]
    folders: list[Path]
    stages: list[Path]
    n_bytes: int


def find_garbage(*, stages: bool = False) -> Garbage:
    """What may be removed for good: runs in the bin, and what they left on this machine.

    Parameters
    ----------
    stages : bool
        Also the stages that are kept for trainings to come.

    Raises
    ------
    StoreError
        There are no runs, or the store is a server: there this is for who runs it.
    """
    store, client = _open()
    if store.is_server:
        raise StoreError(
            f"{store.shown} is a server: its bin is emptied where it runs, by 'mlflow gc'."
        )
    binned = search_runs(store, client, _OURS, limit=1_000_000, binned=True)
    with store_errors(store, "read"):
        registered = {v.run_id for v in client.search_model_versions(max_results=10_000)}
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
    n_bytes = sum(_size(path) for path in (*folders, *caches, *local))
    return Garbage(runs, kept, folders, caches, n_bytes)


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())


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


def _named(runs: Sequence[RunInfo]) -> str:
    return ", ".join(f"{run.name} ({run.id[:8]}, {run.status.lower()})" for run in runs)


def resolve_run(word: str) -> RunInfo:
    """The run that a word names.

    Parameters
    ----------
    word : str
        ``latest`` (the newest finished run with networks), a run id or its first six digits or
        more, or a run name or how it begins, if no other name of a run with networks begins so; of
        several runs with one name the newest finished one, or else the newest.

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
        finished = search_runs(store, client, done, kinds=_MODELS)
        if finished:
            return finished[0]
        others = search_runs(store, client, _OURS, limit=5, kinds=_MODELS)
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
        named = search_runs(store, client, f"attributes.run_name = '{word}'", limit=100)
        if named:
            return next((run for run in named if run.status == "FINISHED"), named[0])
    if re.fullmatch(r"[0-9a-f]{6,32}", word):
        fits = search_runs(store, client, f"attributes.run_id LIKE '{word}%'", limit=6)
        if len(fits) == 1:
            return fits[0]
        if fits:
            raise UsageError(f"{word!r} fits several runs: {_named(fits)}. Give more digits.")
    newest = search_runs(store, client, _OURS, limit=200)
    if not newest:
        raise StoreError(
            f"There are no runs in {store.shown} yet; 'l2i train --dataset demo' makes one."
        )
    begin = [run for run in newest if run.name == word]
    begin = begin or [run for run in newest if word and run.name.startswith(word)]
    # What was measured of a run is called after it, and begins as it does.
    begin = [run for run in begin if run.has_model] or begin
    if len({run.name for run in begin}) > 1:
        raise UsageError(f"{word!r} fits several runs: {_named(begin[:6])}. Give more of the name.")
    if begin:
        return next((run for run in begin if run.status == "FINISHED"), begin[0])
    like = nearest(word, [run.name for run in newest])
    hint = f"; did you mean {like!r}?" if like else "."
    raise UsageError(
        f"There is no run {word!r} in {store.shown}{hint} The newest are: {_named(newest[:5])}; "
        "'l2i runs' lists them."
    )


def list_artifacts(
    store: Store, run_id: str, uri: str, folder: str, patience_s: float | None = None
) -> list[str]:
    """Paths of the artifacts that lie directly in a folder of a run's; ``""``: in none.

    Parameters
    ----------
    store : Store
    run_id, uri : str
        The run, and where its artifacts are.
    folder : str
    patience_s : float, optional
        How long an S3-compatible store may be away; by default as ``L2I_PATIENCE`` says.

    Raises
    ------
    StoreError
        They cannot be listed.
    """
    above = f"{folder}/" if folder else ""
    if is_s3(uri):
        below = s3.listing(_below(uri, folder), patience_s=patience_s)
        return sorted({above + file.name.partition("/")[0] for file in below})
    with store_errors(store, "read"):
        return sorted(a.path for a in connect(store).list_artifacts(run_id, folder or None))


def _below(uri: str, folder: str) -> s3.Location:
    place = s3.Location.parse(uri)
    return place / folder if folder else place


def fetch_artifact(
    store: Store,
    run_id: str,
    uri: str,
    path: str,
    target: Path,
    patience_s: float | None = None,
) -> Path:
    """Bring an artifact, a file or a folder with all it holds, to ``target/path``.

    Raises
    ------
    StoreError
        It cannot be fetched.
    """
    if is_s3(uri):
        folder, _, name = path.rpartition("/")
        above = _below(uri, folder)
        below = [
            file
            for file in s3.listing(above, patience_s=patience_s)
            if not name or file.name == name or file.name.startswith(f"{name}/")
        ]
        s3.fetch(above, target / folder, below, patience_s=patience_s)
        return target / path
    with store_errors(store, "read"):
        target.mkdir(parents=True, exist_ok=True)
        return Path(connect(store).download_artifacts(run_id, path, dst_path=str(target)))


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
    check_own(store, run.id, run.artifact_uri)
    base = local_path(run.artifact_uri)
    if base is not None:
        if (base / path).exists():
            return base / path
        if not base.is_dir():
            raise StoreError(
                f"The artifacts of run {run.name} ({run.id[:8]}) should lie in {base}, which is "
                "not there: the store was moved, copied or mounted elsewhere (which 'l2i runs "
                "relocate' mends), or nothing was written yet."
            )
    reading_s = min(_READING_S, patience())
    folder = path.rpartition("/")[0]
    there = list_artifacts(store, run.id, run.artifact_uri, folder, reading_s)
    if path and path not in there:
        raise StoreError(
            f"Run {run.name} ({run.id[:8]}) has no artifact {path!r}; "
            + (f"there are: {', '.join(there)}." if there else "it has none there.")
        )
    target = store.root / "work" / "downloads" / run.id
    return fetch_artifact(store, run.id, run.artifact_uri, path, target, reading_s)
