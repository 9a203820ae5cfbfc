"""`l2i.run.search`: a sqlite file that is read as it is says what MLflow says of it."""

from __future__ import annotations

import math
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from l2i.run import search
from l2i.run.bin import delete_run
from l2i.run.runs import list_runs
from l2i.run.search import RunInfo, Wanted, experiment_names, search_runs
from l2i.run.store import Store, connect, experiment_id
from l2i.run.tracker import open_run
from tests.stores import Said

_WANTED = [
    Wanted(),
    Wanted(status="FINISHED"),
    Wanted(name="a"),
    Wanted(name="A"),
    Wanted(tags={"l2i.kind": None}),
    Wanted(tags={"l2i.kind": "noise"}),
    Wanted(tags={"l2i.kind": None, "l2i.dataset": "esc10"}, status="FINISHED"),
    Wanted(tags={"l2i.nobody": None}),
    Wanted(best="test/ff_mean"),
    Wanted(best="test/ff_mean", lower=True),
    Wanted(best="test/none"),
]


@pytest.fixture
def filled(store: Store) -> Store:
    """Runs of two experiments in all states, with figures that are no numbers; one is deleted."""
    return _fill(store)


def _fill(store: Store, many: int = 0) -> Store:
    """Start times are apart: MLflow and we order runs of one moment by their ids."""
    client = connect(store)
    start = 1_700_000_000_000
    for name, experiment, status, kind, score in (
        ("a", "demo", "FINISHED", "train", 0.5),
        ("b", "demo", "FAILED", "train", 0.9),
        ("a", "other", "FINISHED", "noise", math.nan),
        ("none", "other", "RUNNING", "train", None),
        ("inf", "demo", "KILLED", "", math.inf),
        ("gone", "demo", "FINISHED", "train", 0.7),
        *((f"many{n}", "many", "FINISHED", "train", 0.1) for n in range(many)),
    ):
        start += 1000
        tags = {"l2i.signature": name, "l2i.dataset": "esc10", "mlflow.l2i.lock": "/x"}
        if kind:
            tags["l2i.kind"] = kind
        where = experiment_id(store, experiment)
        run_id = client.create_run(where, start, tags, name).info.run_id
        client.log_param(run_id, "classifier.epochs", 3)
        if score is not None:
            client.log_metric(run_id, "test/ff_mean", 0.3, step=0)
            client.log_metric(run_id, "test/ff_mean", score, step=1)
        if status != "RUNNING":
            client.set_terminated(run_id, status, start + 500)
        if name == "gone":
            client.delete_run(run_id)
    return store


def _ask(store: Store, wanted: Wanted) -> list[RunInfo]:
    return [run for page in search._ask(store, wanted) for run in page]


def _read(store: Store, wanted: Wanted) -> list[RunInfo]:
    return [run for page in search._read(store, wanted) for run in page]


def test_the_file_and_mlflow_say_the_same(store: Store) -> None:
    """Each run with all that is known of it, in the same order, for every kind of question."""
    filled = _fill(store, many=130)
    (first,) = _read(filled, Wanted(name="b"))
    assert (first.metrics, first.experiment) == ({"test/ff_mean": 0.9}, "demo")
    for wanted in (*_WANTED, Wanted(run_id=first.id), Wanted(run_id=first.id[:7])):
        for experiment in (None, "demo", "nobody"):
            for binned in (False, True):
                asked = replace(wanted, experiment=experiment, binned=binned)
                own, theirs = _read(filled, asked), _ask(filled, asked)
                # A NaN is not equal to itself; its text is.
                assert [repr(run) for run in own] == [repr(run) for run in theirs], wanted
    assert len(_read(filled, Wanted())) == 135, "more than a page"
    assert [run.name for run in _read(filled, Wanted(binned=True))] == ["gone"]
    names = {e.name for e in connect(filled).search_experiments()}
    assert set(experiment_names(filled)) == names >= {"demo", "other", "many"}


def test_a_query_in_mlflows_language_is_mlflows(filled: Store) -> None:
    """The file is not asked what only MLflow understands."""
    wanted = Wanted(where="metrics.`test/ff_mean` > 0.4 AND attributes.status = 'FAILED'")
    assert [run.name for run in search_runs(filled, wanted, limit=9)] == ["b"]


def test_a_file_that_does_not_answer_is_left_to_mlflow(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether another version wrote it, or it is locked: the answer is the same."""
    wanted = Wanted(tags={"l2i.kind": "noise"})
    (expected,) = search_runs(filled, wanted)
    assert filled.database is not None
    kept = filled.database.with_name("kept.db")
    shutil.copyfile(filled.database, kept)
    with closing(sqlite3.connect(kept)) as base, base:
        base.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
    newer = Store(filled.uri, filled.root, filled.artifacts, filled.artifacts_chosen, kept)
    with pytest.raises(sqlite3.Error):
        _read(newer, wanted)
    # MLflow is asked by the store's address, which is that of the file that is right.
    (run,) = search_runs(newer, wanted)
    assert repr(run) == repr(expected)
    assert set(experiment_names(newer)) == set(experiment_names(filled))

    def locked(store: Store) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(search, "_reader", locked)
    (run,) = search_runs(filled, wanted)
    assert repr(run) == repr(expected)


def test_what_was_deleted_is_gone_at_once(store: Store) -> None:
    """The file is read anew each time."""
    for name in ("first", "second"):
        with open_run(experiment="demo", name=name, signature=name):
            pass
    assert sorted(run.name for run in list_runs()) == ["first", "second"]
    delete_run(next(run for run in list_runs() if run.name == "first"))
    assert [run.name for run in list_runs()] == ["second"]


_LOOK = """
import sys
from l2i.cli import main

try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
heavy = {"mlflow", "sqlalchemy", "pandas", "torch", "librosa"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


@pytest.mark.parametrize("words", [["runs"], ["runs", "show", "latest"], ["runs", "--sort", "FF"]])
def test_who_only_looks_does_not_wait_for_mlflow(
    filled: Store, say: Callable[..., Said], words: list[str]
) -> None:
    """Runs are listed and shown without the imports that take seconds."""
    expected = say(*words)
    assert expected.code == 0 and expected.out
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected.out
