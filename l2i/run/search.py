"""What a store knows of runs: the rows that a question is answered by.

A sqlite file is read as it is. To ask MLflow costs its import, which takes longer than all else
that a command like ``l2i runs`` does; it is asked where the store is no file of this machine, where
the question is in its own language, and whenever the file does not answer: locked, broken, or
written by a version whose tables are not known.

Over 300 lines: one question, asked in three ways that must agree.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from l2i.run.address import Store, known_tags
from l2i.run.store import connect, read_only, store_errors

MODELS = frozenset({"train", "import", ""})
"""Runs of these kinds have networks; a run of an older version has no kind, and has them too. Runs
of all other kinds are about such runs: what was measured of one, or a table of several."""
_PAGE = 100


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
        return self.kind in MODELS


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs are looked for; what is left out does not matter.

    Attributes
    ----------
    status : str
        ``RUNNING``, ``FINISHED``, ``FAILED`` or ``KILLED``.
    run_id : str
        How it begins.
    name : str
        The whole of it.
    tags : mapping of str to (str or None)
        What they are; None: there is one, whatever it is.
    where : str
        More, in MLflow's language.
    best : str
        A metric by which the best come first, and runs without it last.
    lower : bool
        Whether the lowest is the best.
    experiment : str, optional
        By default all of them.
    words : sequence of str
        What they are about, all of it: see `RunInfo.is_about`.
    binned : bool
        Those in MLflow's bin, in place of all others.
    """

    status: str = ""
    run_id: str = ""
    name: str = ""
    tags: Mapping[str, str | None] = field(default_factory=dict)
    where: str = ""
    best: str = ""
    lower: bool = False
    experiment: str | None = None
    words: Sequence[str] = ()
    binned: bool = False

    def query(self) -> str:
        """The same in MLflow's language, which has no escape for a quote.

        >>> Wanted(status="FINISHED", tags={"l2i.kind": None}).query()
        "attributes.status = 'FINISHED' AND tags.`l2i.kind` LIKE '%'"
        """
        parts = [f"attributes.status = '{self.status}'"] * bool(self.status)
        parts += [f"attributes.run_id LIKE '{self.run_id}%'"] * bool(self.run_id)
        parts += [f"attributes.run_name = '{self.name}'"] * bool(self.name)
        for key, value in self.tags.items():
            parts.append(f"tags.`{key}` " + ("LIKE '%'" if value is None else f"= '{value}'"))
        return " AND ".join([*parts, self.where] if self.where else parts)

    def order(self) -> list[str]:
        """MLflow's order: the best, or else the newest, first."""
        best = [f"metrics.`{self.best}` {'ASC' if self.lower else 'DESC'}"] if self.best else []
        return [*best, "attributes.start_time DESC"]

    def sql(self) -> tuple[str, list[str]]:
        """The same for the tables of a store, as a query and its values."""
        parts = ["r.lifecycle_stage = ?", "e.lifecycle_stage = 'active'"]
        values = ["deleted" if self.binned else "active"]
        equal = {"e.name": self.experiment, "r.status": self.status, "r.name": self.name}
        for column, value in equal.items():
            if value:
                parts.append(f"{column} = ?")
                values.append(value)
        if self.run_id:
            parts.append("substr(r.run_uuid, 1, length(?)) = ?")
            values += [self.run_id] * 2
        for key, value in self.tags.items():
            same = "" if value is None else " AND value = ?"
            parts.append(f"r.run_uuid IN (SELECT run_uuid FROM tags WHERE key = ?{same})")
            values += [key] if value is None else [key, value]
        # As MLflow sorts: figures, then what is no number, then runs without the figure.
        way = "ASC" if self.lower else "DESC"
        rank = "CASE WHEN m.is_nan THEN 1 WHEN m.value IS NULL THEN 2 ELSE 0 END"
        return (
            "SELECT r.run_uuid, r.name, e.name, r.experiment_id, r.status, r.artifact_uri, "
            "r.start_time, r.end_time FROM runs r JOIN experiments e USING (experiment_id) "
            "LEFT JOIN latest_metrics m ON m.run_uuid = r.run_uuid AND m.key = ? "
            f"WHERE {' AND '.join(parts)} "
            f"ORDER BY {rank}, m.value {way}, r.start_time DESC, r.run_uuid"
        ), [self.best, *values]


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


# --- the tables of a sqlite file ----------------------------------------------------------------


@cache
def _versions() -> Path | None:
    """Where MLflow has its tables' versions, a file for each; it is not imported."""
    spec = importlib.util.find_spec("mlflow")
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / "store" / "db_migrations" / "versions" if places else None


def _reader(store: Store) -> sqlite3.Connection:
    """A connection that only reads; sqlite3.Error: it is no sqlite file, or of a newer MLflow."""
    if store.database is None:
        raise sqlite3.NotSupportedError
    base = read_only(store.database, 1.0)
    try:
        (version,) = base.execute("SELECT version_num FROM alembic_version").fetchone()
        known = _versions()
        if known is None or not any(known.glob(f"{version}_*.py")):
            raise sqlite3.NotSupportedError
    except BaseException:
        base.close()
        raise
    return base


def _pairs(base: sqlite3.Connection, table: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Run id to name to value, in a table that has a line for each value."""
    pairs: dict[str, dict[str, Any]] = {run_id: {} for run_id in ids}
    value = "CASE WHEN is_nan THEN NULL ELSE value END" if table == "latest_metrics" else "value"
    marks = ", ".join("?" * len(ids))
    query = f"SELECT run_uuid, key, {value} FROM {table} WHERE run_uuid IN ({marks})"
    for run_id, key, kept in base.execute(query, ids):
        pairs[run_id][key] = kept
    return pairs


def _read(store: Store, wanted: Wanted) -> Iterator[list[RunInfo]]:
    with closing(_reader(store)) as base:
        rows = base.execute(*wanted.sql())
        while some := rows.fetchmany(_PAGE):
            ids = [row[0] for row in some]
            params, tags, metrics = (
                _pairs(base, table, ids) for table in ("params", "tags", "latest_metrics")
            )
            yield [
                RunInfo(
                    id=run_id,
                    name=name or run_id,
                    experiment=experiment_name,
                    experiment_id=str(experiment_id),
                    status=status,
                    artifact_uri=uri,
                    params=params[run_id],
                    tags=known_tags(tags[run_id]),
                    metrics={
                        key: float("nan") if value is None else value
                        for key, value in metrics[run_id].items()
                    },
                    start=_time(start),
                    end=_time(end),
                )
                for run_id, name, experiment_name, experiment_id, status, uri, start, end in some
            ]


# --- MLflow -------------------------------------------------------------------------------------


def _experiments(store: Store) -> dict[str, str]:
    """Id to name of every experiment."""
    client = connect(store)
    names: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(max_results=1000, page_token=token)
        names.update({e.experiment_id: e.name for e in page})
        token = page.token
        if not token:
            return names


def _ask(store: Store, wanted: Wanted) -> Iterator[list[RunInfo]]:
    from mlflow.entities import ViewType

    client = connect(store)
    experiments = _experiments(store)
    places = [i for i, name in experiments.items() if wanted.experiment in (None, name)]
    token = None
    while places:
        page = client.search_runs(
            places,
            wanted.query(),
            ViewType.DELETED_ONLY if wanted.binned else ViewType.ACTIVE_ONLY,
            max_results=_PAGE,
            order_by=wanted.order(),
            page_token=token,
        )
        yield [
            RunInfo(
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
            for run in page
        ]
        token = page.token
        if not token:
            return


# --- either ------------------------------------------------------------------------------------


def experiment_names(store: Store) -> list[str]:
    """The names of a store's experiments, without those in the bin.

    Raises
    ------
    StoreError
        It cannot be read.
    """
    try:
        with closing(_reader(store)) as base:
            query = "SELECT name FROM experiments WHERE lifecycle_stage = 'active'"
            return [name for (name,) in base.execute(query)]
    except sqlite3.Error:
        with store_errors(store, "read"):
            return list(_experiments(store).values())


def search_runs(
    store: Store, wanted: Wanted, *, limit: int = 1, kinds: Container[str] | None = None
) -> list[RunInfo]:
    """The runs that are wanted, newest first; none where there is no store yet, which is not made.

    Parameters
    ----------
    store : Store
    wanted : Wanted
    limit : int
        How many at most.
    kinds : container of str, optional
        Only runs of these kinds.

    Raises
    ------
    StoreError
        The store cannot be read.
    """

    def take(pages: Iterable[list[RunInfo]]) -> list[RunInfo]:
        runs: list[RunInfo] = []
        for page in pages:
            of_kind = [run for run in page if kinds is None or run.kind in kinds]
            runs += [run for run in of_kind if run.is_about(wanted.words)]
            if len(runs) >= limit:
                break
        return runs[:limit]

    if not store.exists:
        return []
    if not wanted.where:
        try:
            return take(_read(store, wanted))
        except sqlite3.Error:
            pass  # MLflow waits for a lock, and says what is wrong with a file.
    with store_errors(store, "read"):
        return take(_ask(store, wanted))
