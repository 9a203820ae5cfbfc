"""`l2i.run.tracker`: one run from its start to its end, and through whatever ends it early."""

from __future__ import annotations

import logging
import math
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from l2i.errors import StoreError
from l2i.run.runs import list_runs
from l2i.run.search import RunInfo
from l2i.run.store import Store, connect, local_path
from l2i.run.tracker import Tracker, open_run


@contextmanager
def _run(signature: str = "aaaa", **how: Any) -> Iterator[Tracker]:
    given = {"experiment": "demo", "name": "first", "signature": signature, **how}
    with open_run(**given) as run:
        yield run


def _steps(store: Store, run_id: str, key: str) -> list[tuple[int, float]]:
    history = connect(store).get_metric_history(run_id, key)
    return sorted((m.step, m.value) for m in history)


def _only() -> RunInfo:
    (run,) = list_runs()
    return run


class Stopped(Exception):
    """What interrupts a run in a test."""


# --- what is written --------------------------------------------------------------------------


def test_a_run_keeps_what_it_was_told(store: Store) -> None:
    """Parameters, figures with and without steps, tags and files; and it is FINISHED."""
    with _run(tags={"l2i.commit": "abc"}, params={"run.seed": 0, "classifier.steps": []}) as run:
        assert [known.status for known in list_runs()] == ["RUNNING"] and not run.resumed
        run.metrics("interpreter", 1, {"loss": 0.5, "fidelity": None})
        run.metrics("interpreter", 2, {"loss": 0.25})
        run.final({"test/accuracy": 0.75, "test/auprc": None})
        (run.folder / "picture.txt").write_text("a picture")
        run.artifact(run.folder / "picture.txt", "pictures")
        (run.folder / "many").mkdir()
        (run.folder / "many" / "a.txt").write_text("a")
        run.artifact(run.folder / "many", "more")
    info = _only()
    assert (info.id, info.name, info.experiment) == (run.run_id, "first", "demo")
    assert info.status == "FINISHED"
    assert info.params == {"run.seed": "0", "classifier.steps": "[]"}
    assert info.metrics == {"interpreter/loss": 0.25, "test/accuracy": 0.75}
    assert _steps(store, info.id, "interpreter/loss") == [(1, 0.5), (2, 0.25)]
    assert info.tags["l2i.commit"] == "abc" and info.tags["l2i.signature"] == "aaaa"
    assert "l2i.resumed" not in info.tags and "l2i.error" not in info.tags
    assert info.start is not None and info.end is not None and info.start <= info.end
    base = local_path(info.artifact_uri)
    assert base == store.root / "artifacts" / "demo" / info.id / "artifacts"
    assert (base / "pictures" / "picture.txt").read_text() == "a picture"
    assert (base / "more" / "a.txt").read_text() == "a"
    assert run.folder == store.folder(run.run_id)
    assert not store.lock(run.run_id).exists()


def test_figures_that_are_no_numbers_are_kept(store: Store) -> None:
    """NaN and infinity are worth seeing: a loss that went wrong."""
    with _run() as run:
        run.metrics("classifier", 1, {"nan": math.nan, "up": math.inf, "down": -math.inf})
    metrics = _only().metrics
    assert math.isnan(metrics["classifier/nan"])
    assert metrics["classifier/up"] > 1e300 and metrics["classifier/down"] < -1e300


def test_many_and_long_values_fit(store: Store) -> None:
    """More than one request holds, and texts longer than MLflow takes, which are cut."""
    params = {f"key.{n}": n for n in range(230)} | {"long": "x" * 9000}
    with _run(params=params) as run:
        run.metrics("stage", 1, {f"m{n}": n for n in range(1100)})
    info = _only()
    assert len(info.params) == 231 and len(info.metrics) == 1100
    assert info.params["key.229"] == "229" and info.params["long"] == "x" * 5000


def test_passwords_do_not_get_into_the_store(store: Store) -> None:
    """Neither by way of a parameter nor of a tag."""
    with _run(params={"dataset.data_dir": "https://me:hunter2@host/x"}) as run:
        run.tags({"l2i.command": "l2i train --api-key=hunter2"})
    info = _only()
    assert "hunter2" not in str(info)
    assert info.params["dataset.data_dir"] == "https://me:***@host/x"


def test_a_file_that_is_absent_is_the_callers_bug(store: Store) -> None:
    """And not a fault of the store."""
    with pytest.raises(FileNotFoundError), _run() as run:
        run.artifact(Path("absent.png"))
    assert _only().status == "FAILED"


def test_final_figures_may_be_measured_again(store: Store) -> None:
    """The same figure is not written twice (NaN being the same as NaN); another one is shown."""
    with _run() as run:
        for values in ({"a": 1.0, "b": math.nan}, {"a": 1.0, "b": math.nan}, {"a": 2.0}):
            run.final(values)
    info = _only()
    assert info.metrics["a"] == 2.0 and math.isnan(info.metrics["b"])
    assert _steps(store, info.id, "a") == [(0, 1.0), (1, 2.0)]
    assert len(_steps(store, info.id, "b")) == 1


def test_figures_of_the_machine_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and processor are watched unless that is switched off, from the run's own first
    figure on, so that theirs come last in MLflow; the watching ends with the run."""
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING")
    monkeypatch.setattr("l2i.run.writing._SYSTEM_INTERVAL_S", 0.05)
    before = threading.active_count()
    with _run() as run:
        assert threading.active_count() <= before
        run.metrics("classifier", 1, {"loss": 1.0})
        seen = threading.Event()
        monkeypatch.setattr(
            "mlflow.system_metrics.system_metrics_monitor.SystemMetricsMonitor.publish_metrics",
            lambda *_: seen.set(),
        )
        assert seen.wait(60)
    assert threading.active_count() <= before


def test_what_only_machines_read_is_hidden_in_mlflow(store: Store) -> None:
    """Lock, mounts, folder and platform begin as MLflow's own tags do, which its pages leave out;
    for us they are called as before, in runs of earlier versions, too."""
    with _run(tags={"l2i.folder": "/here", "l2i.kind": "train"}) as run:
        pass
    raw = connect(store).get_run(run.run_id).data.tags
    hidden = {"l2i.folder", "l2i.lock", "l2i.mounts"}
    assert {key for key in raw if "l2i." in key and key.startswith("mlflow.")} == {
        f"mlflow.{key}" for key in hidden
    }
    assert raw["l2i.kind"] == "train" and not hidden & set(raw)
    assert _only().tags["l2i.folder"] == "/here"
    connect(store).delete_tag(run.run_id, "mlflow.l2i.folder")
    connect(store).set_tag(run.run_id, "l2i.folder", "/there")
    assert _only().tags["l2i.folder"] == "/there"


# --- how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no such\nclass"), "FAILED", "ValueError: no such"),
        (ValueError(), "FAILED", "ValueError."),
        (KeyboardInterrupt(), "KILLED", "Stopped by Ctrl-C."),
        (SystemExit(143), "KILLED", "Stopped by SIGTERM."),
        (SystemExit(3), "FAILED", "Ended with exit code 3."),
        (SystemExit(0), "FINISHED", None),
    ],
)
def test_the_status_says_how_it_ended(
    store: Store, error: BaseException, status: str, reason: str | None
) -> None:
    """And a tag says why; the exception goes on to whoever can show it."""
    with pytest.raises(type(error)), _run():
        raise error
    info = _only()
    assert info.status == status
    assert info.tags.get("l2i.error") == reason


def test_signal_handlers_are_left_as_they_were(store: Store) -> None:
    """SIGTERM and SIGHUP are ours only while the run goes on."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(n) for n in numbers]
    with _run():
        assert [signal.getsignal(n) for n in numbers] != before
    with suppress(Stopped), _run():
        raise Stopped
    assert [signal.getsignal(n) for n in numbers] == before


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGTERM, "Stopped by SIGTERM."), (signal.SIGINT, "Stopped by Ctrl-C.")],
)
def test_a_signal_waits_for_the_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, reason: str
) -> None:
    """Within one it would leave sqlite's lock behind, and the run could not say how it ended."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    monkeypatch.setenv("L2I_PATIENCE", "1")
    sent: list[str] = []

    def interrupt(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO metrics") and not sent:
            sent.append(statement)
            signal.raise_signal(number)

    event.listen(Engine, "after_cursor_execute", interrupt)
    try:
        with pytest.raises((SystemExit, KeyboardInterrupt)), _run() as run:
            run.metrics("classifier", 1, {"loss": 0.5})
            run.metrics("classifier", 2, {"loss": 0.25})
    finally:
        event.remove(Engine, "after_cursor_execute", interrupt)
    assert len(sent) == 1
    info = _only()
    assert (info.status, info.tags["l2i.error"]) == ("KILLED", reason)
    assert info.metrics["classifier/loss"] == 0.5


def test_a_run_may_live_in_a_thread(store: Store) -> None:
    """Where no signal handler can be set, the run works all the same."""
    done: list[str] = []

    def work() -> None:
        with _run() as run:
            done.append(run.run_id)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [_only().id] == done and _only().status == "FINISHED"


# --- resuming ---------------------------------------------------------------------------------


def test_an_unfinished_run_is_resumed(store: Store) -> None:
    """Same run, same folder; steps that it has are not written again, whatever their values;
    what stopped it is forgotten when it finishes."""
    with suppress(Stopped), _run(params={"run.device": "cuda", "run.seed": 0}) as first:
        (first.folder / "state").write_text("epoch 2")
        for step in (1, 2):
            first.metrics("interpreter", step, {"loss": 1 / step})
        raise Stopped
    assert _only().status == "FAILED" and "l2i.error" in _only().tags
    for count in (1, 2):
        with suppress(Stopped), _run(params={"run.device": "cpu", "run.seed": 0}) as again:
            assert again.resumed and again.run_id == first.run_id
            assert (again.folder / "state").read_text() == "epoch 2"
            for step in range(1, 5):
                again.metrics("interpreter", step, {"loss": 1 / step})
            again.metrics("other", 1, {"loss": 7.0})
            if count == 1:
                raise Stopped
    info = _only()
    assert info.status == "FINISHED"
    assert _steps(store, info.id, "interpreter/loss") == [(n, 1 / n) for n in range(1, 5)]
    assert _steps(store, info.id, "other/loss") == [(1, 7.0)]
    assert info.tags["l2i.resumed"] == "2"
    assert "l2i.error" not in info.tags
    # MLflow keeps a parameter's first value for ever: the change is said.
    assert info.params == {"run.device": "cuda", "run.seed": "0"}
    assert info.tags["l2i.changed_params"] == "run.device: cuda -> cpu"


def test_a_finished_run_is_not_resumed(store: Store) -> None:
    """The next one of the same signature is a new run."""
    with _run() as first:
        pass
    with _run() as second:
        assert not second.resumed
    assert first.run_id != second.run_id
    assert len(list_runs()) == 2


def test_only_the_same_experiment_and_signature_are_resumed(store: Store) -> None:
    """Neither another signature nor the same one in another experiment; nor where a new run is
    asked for."""
    with suppress(Stopped), _run() as first:
        raise Stopped
    for how in ({"signature": "bbbb"}, {"experiment": "other"}, {"resume": False}):
        with _run(**how) as run:
            assert not run.resumed and run.run_id != first.run_id
    with _run() as run:
        assert run.resumed and run.run_id == first.run_id


def test_a_run_that_is_alive_is_not_taken_over(store: Store) -> None:
    """Two of one signature at once are two runs, and neither is called dead."""
    with _run() as first, _run() as second:
        assert not second.resumed and second.run_id != first.run_id
        assert {run.status for run in list_runs()} == {"RUNNING"}
    assert {run.status for run in list_runs()} == {"FINISHED"}


def test_the_folder_can_be_elsewhere(store: Store, tmp_path: Path) -> None:
    """Where it is asked for, and named after the run."""
    with _run(work_dir=tmp_path) as run:
        assert run.folder == tmp_path / f"run-{run.run_id}"
        assert run.folder.is_dir()


def test_a_store_that_another_program_has_locked(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is waited for, which is said, and the run goes on; with no patience it is given up.

    A trigger speaks as sqlite does, which MLflow lets wait for 20 seconds by itself.
    """

    def lock() -> None:
        with closing(sqlite3.connect("mlruns/mlflow.db")) as base, base:
            base.execute(
                "CREATE TRIGGER locked BEFORE INSERT ON metrics "
                "BEGIN SELECT RAISE(ABORT, 'database is locked'); END"
            )

    def free() -> None:
        with closing(sqlite3.connect("mlruns/mlflow.db")) as base, base:
            base.execute("DROP TRIGGER locked")

    with open_run(experiment="demo", name="a", signature="a") as run:
        run.metrics("classifier", 1, {"loss": 1.0})
        lock()
        # As soon as it was said, however long the pauses before were.
        said_of = logging.getLogger("l2i")
        said_of.addFilter(once := lambda _record: free() or True)
        try:
            run.metrics("classifier", 2, {"loss": 0.5})
        finally:
            said_of.removeFilter(once)
    history = connect(store).get_metric_history(run.run_id, "classifier/loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5)]
    (message,) = [record.getMessage() for record in caplog.records if record.name == "l2i"]
    assert message == (
        f"The run store {store.shown} is locked by another program; waiting up to 300 s for it."
    )
    lock()
    monkeypatch.setenv("L2I_PATIENCE", "0")
    with (
        pytest.raises(StoreError, match="cannot be written"),
        open_run(experiment="demo", name="b", signature="b") as run,
    ):
        run.metrics("classifier", 1, {"loss": 1.0})
