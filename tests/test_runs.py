"""`l2i.run.runs`: finding runs, and telling the dead from the living, whatever killed them."""

from __future__ import annotations

import platform
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from l2i.errors import StoreError, UsageError
from l2i.run.artifacts import download
from l2i.run.runs import find_finished, list_runs, mount_namespace, reap, resolve_run
from l2i.run.search import RunInfo
from l2i.run.store import Store, connect, experiment_id
from l2i.run.tracker import open_run
from l2i.storage import FileLock


class Stopped(Exception):
    """What interrupts a run in a test."""


def _make(name: str, *, finish: bool = True, experiment: str = "demo", signature: str = "") -> str:
    run_id = ""
    with (
        suppress(Stopped),
        open_run(experiment=experiment, name=name, signature=signature or name) as run,
    ):
        run_id = run.run_id
        if not finish:
            raise Stopped
    time.sleep(0.002)  # Start times are in milliseconds, and order the runs.
    return run_id


def _by_hand(store: Store, *, age_s: float = 0.0, **tags: str) -> str:
    """A run that says RUNNING, made `age_s` ago, without a process."""
    client = connect(store)
    start = int(1000 * (time.time() - age_s))
    tagged = {f"l2i.{key}": value for key, value in {"signature": "s", **tags}.items()}
    run = client.create_run(experiment_id(store, "demo"), start, tagged, "by hand")
    return str(run.info.run_id)


def _status(store: Store, run_id: str) -> str:
    return str(connect(store).get_run(run_id).info.status)


# --- processes that are killed ----------------------------------------------------------------

_CHILD = """
    import sys
    from l2i.run.tracker import open_run

    with open_run(experiment="demo", name="first", signature="aaaa") as run:
        print(run.run_id, run.resumed, flush=True)
        for step in range(1, 10):
            run.metrics("interpreter", step, {"loss": 1.0 / step})
            if step == int(sys.stdin.readline()):
                print("there", flush=True)
                sys.stdin.readline()
"""


def _until(process: Popen[str], last: int) -> list[str]:
    """Let the child write steps up to `last`, then wait; what it said first."""
    assert process.stdin is not None and process.stdout is not None
    first = process.stdout.readline().split()
    process.stdin.write(f"{last}\n" * last)
    process.stdin.flush()
    assert process.stdout.readline().strip() == "there", process.stdout.read()
    return first


def test_killed_runs_are_resumed_without_repeated_steps(
    store: Store, child: Callable[[str], Popen[str]]
) -> None:
    """A process ended by SIGKILL leaves its run RUNNING; the next one finds it dead and goes on in
    the same run. Ended by SIGTERM, the run is KILLED at once, with the reason, and the process
    ends with 143. The one after that finishes, and each step is in the store once."""
    first = child(_CHILD)
    run_id, resumed = _until(first, 3)
    assert resumed == "False"
    assert [run.status for run in list_runs()] == ["RUNNING"], "it lives, and is left alone"
    first.kill()
    first.wait()
    assert _status(store, run_id) == "RUNNING"
    assert [run.id for run in reap()] == [run_id]
    assert reap() == []
    assert _status(store, run_id) == "KILLED"

    second = child(_CHILD)
    assert _until(second, 5) == [run_id, "True"]
    assert _status(store, run_id) == "RUNNING"
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 143
    (listed,) = list_runs()
    assert listed.status == "KILLED"
    assert listed.tags["l2i.error"] == "Stopped by SIGTERM."

    with open_run(experiment="demo", name="first", signature="aaaa") as run:
        assert run.resumed and run.run_id == run_id
        for step in range(1, 8):
            run.metrics("interpreter", step, {"loss": 1.0 / step})
    history = connect(store).get_metric_history(run_id, "interpreter/loss")
    assert sorted((m.step, m.value) for m in history) == [(n, 1.0 / n) for n in range(1, 8)]
    (listed,) = list_runs()
    assert listed.status == "FINISHED" and listed.tags["l2i.resumed"] == "2"
    assert "l2i.error" not in listed.tags


# --- reaping ----------------------------------------------------------------------------------


def test_a_lock_that_is_held_is_a_life(store: Store) -> None:
    """While the lock is held the run lives; when it is free the run is dead."""
    run_id = _by_hand(store, host=platform.node(), mounts=mount_namespace())
    lock = FileLock(store.lock(run_id))
    assert lock.take()
    assert reap() == []
    lock.release()
    assert [run.id for run in reap()] == [run_id]
    assert _status(store, run_id) == "KILLED"


def test_runs_of_another_machine_are_not_ours_to_judge(store: Store) -> None:
    """Another host, or another container of this host, whose lock cannot be seen: left alone."""
    away = _by_hand(store, age_s=9999, host="elsewhere", mounts="", lock="/away/run.lock")
    inside = _by_hand(
        store, age_s=9999, host=platform.node(), mounts="mnt:[1]", lock="/inside/run.lock"
    )
    assert reap() == []
    assert {_status(store, away), _status(store, inside)} == {"RUNNING"}


def test_a_run_of_this_machine_without_a_lock_is_dead(store: Store) -> None:
    """Its lock file is gone with its folder: nobody can hold it."""
    here = {"host": platform.node(), "mounts": mount_namespace()}
    gone = _by_hand(store, **here, lock=str(store.root / "work" / "gone.lock"))
    assert [run.id for run in reap()] == [gone]


def test_a_run_that_was_just_made_is_given_a_moment(store: Store) -> None:
    """Between making a run and locking it a moment passes: a young one without a lock is left
    alone, an old one is dead."""
    here = {"host": platform.node(), "mounts": mount_namespace()}
    young, old = _by_hand(store, **here), _by_hand(store, age_s=3600, **here)
    assert [run.id for run in reap()] == [old]
    assert _status(store, young) == "RUNNING"


def test_runs_of_others_are_left_alone(store: Store) -> None:
    """A run in the same store that this package did not make is neither reaped nor listed."""
    client = connect(store)
    theirs = client.create_run(client.create_experiment("theirs"), 0, {"mlflow.user": "x"})
    assert reap() == []
    assert list_runs() == []
    assert _status(store, theirs.info.run_id) == "RUNNING"


# --- listing ----------------------------------------------------------------------------------


def test_without_a_store_there_is_nothing_and_nothing_is_made() -> None:
    """Listing and looking are answered, and leave no folder; a run asked for is refused."""
    assert list_runs() == [] and list_runs("demo") == []
    assert find_finished("demo", "aaaa") is None
    assert reap() == []
    with pytest.raises(
        StoreError, match=r"There are no runs in .* yet; 'l2i train --dataset demo'"
    ):
        resolve_run("latest")
    assert not Path("mlruns").exists()


def test_runs_are_listed_newest_first(store: Store) -> None:
    """At most so many, of all experiments or of one."""
    a, b = _make("a"), _make("b", experiment="other", finish=False)
    c = _make("c")
    assert [run.id for run in list_runs()] == [c, b, a]
    assert [run.id for run in list_runs(limit=2)] == [c, b]
    assert [run.id for run in list_runs("demo")] == [c, a]
    assert [(run.name, run.experiment, run.status) for run in list_runs("other")] == [
        ("b", "other", "FAILED")
    ]


def test_an_unknown_experiment_is_answered_with_the_nearest(store: Store) -> None:
    """What there is not, what may be meant, what there is."""
    _make("a")
    with pytest.raises(UsageError, match=r"no experiment 'dmo' .* did you mean 'demo'\?.*Default"):
        list_runs("dmo")


# --- finding ----------------------------------------------------------------------------------


def test_latest_is_the_newest_finished_run(store: Store) -> None:
    """A newer one that is not finished is passed over."""
    with pytest.raises(StoreError, match="There are no runs in"):
        resolve_run("latest")
    _make("a")
    b = _make("b")
    _make("c", finish=False)
    assert resolve_run("latest").id == b
    assert resolve_run(" latest ").id == b


def test_where_none_is_finished_latest_says_what_there_is(store: Store) -> None:
    """By name, id and status, and what to do."""
    a = _make("a", finish=False)
    with pytest.raises(StoreError, match=rf"No run .* finished yet; .* a \({a[:8]}, failed\)"):
        resolve_run("latest")


def test_runs_are_found_by_id_by_its_first_digits_and_by_name(store: Store) -> None:
    """Six digits or more; of several with one name the newest finished one, or else the newest."""
    first = _make("twice", signature="1")
    second = _make("twice", signature="2")
    third = _make("twice", signature="3", finish=False)
    other = _make("it's", finish=False, signature="4")
    for word, want in (
        (first, first),
        (third, third),
        (first[:8], first),
        (third[:12], third),
        ("twice", second),
        ("it's", other),
    ):
        run = resolve_run(word)
        assert isinstance(run, RunInfo) and run.id == want, word


def test_a_run_is_found_by_how_its_name_begins(store: Store) -> None:
    """If no other name begins so; a whole name goes before, and of several runs with one name the
    newest finished one."""
    _make("dogs-fold1-aaaaaa", signature="1")
    second = _make("dogs-fold1-aaaaaa", signature="2")
    other = _make("dogs-fold2-bbbbbb")
    whole = _make("dogs")
    assert resolve_run("dogs-fold1").id == second
    assert resolve_run("dogs-fold2-b").id == other
    assert resolve_run("dogs").id == whole
    with open_run(
        experiment="demo", name="dogs-fold2-bbbbbb-noise", signature="n", tags={"l2i.kind": "noise"}
    ) as measured:
        pass
    assert resolve_run("dogs-fold2-b").id == other, "what was measured of it is not meant"
    assert resolve_run("dogs-fold2-bbbbbb-n").id == measured.run_id
    with pytest.raises(UsageError, match=r"'dogs-' fits several runs: .*Give more of the name"):
        resolve_run("dogs-")


def test_digits_that_fit_several_runs_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs that fit are named; with more digits each is found, with fewer than four none."""
    ids = [f"abcd{n}{uuid.uuid4().hex[5:]}" for n in (1, 2)]

    def given() -> Iterator[uuid.UUID]:
        yield from map(uuid.UUID, ids)

    client, experiment = connect(store), experiment_id(store, "demo")
    draw = given()
    with monkeypatch.context() as patch:
        patch.setattr(
            "mlflow.store.tracking.sqlalchemy_store.uuid.uuid4", lambda: next(draw), raising=True
        )
        for name in "xy":
            client.create_run(experiment, 0, {"l2i.signature": name}, name)
    with pytest.raises(UsageError, match=r"'abcd' fits several runs: .*Give more digits"):
        resolve_run("abcd")
    with pytest.raises(UsageError, match="There is no run 'abc'"):
        resolve_run("abc")
    assert resolve_run("abcd1").name == "x"
    assert resolve_run("abcd2").name == "y"


def test_an_unknown_run_is_answered_with_the_nearest_and_the_newest(store: Store) -> None:
    """Also for a word that cannot be a name, or that holds a quote, or nothing."""
    _make("esc10-1-3fc2")
    with pytest.raises(UsageError) as caught:
        resolve_run("ecs10-1-3fc2")
    assert "did you mean 'esc10-1-3fc2'?" in str(caught.value)
    assert "The newest are: esc10-1-3fc2 (" in str(caught.value)
    for word in ("zzz", "abcdef12", "a'b", "", "x' OR '1'='1", "%%%%%%"):
        with pytest.raises(UsageError, match="There is no run"):
            resolve_run(word)


def test_a_finished_run_is_found_by_its_signature(store: Store) -> None:
    """The newest finished one of the experiment; not one that failed, not another experiment's."""
    _make("a", signature="aaaa")
    b = _make("b", signature="aaaa")
    _make("c", signature="cccc", finish=False)
    _make("d", signature="dddd", experiment="other")
    run = find_finished("demo", "aaaa")
    assert run is not None and run.id == b
    for experiment, signature in (
        ("demo", "cccc"),
        ("demo", "dddd"),
        ("demo", "aaa"),
        ("absent", "aaaa"),
    ):
        assert find_finished(experiment, signature) is None


# --- artifacts --------------------------------------------------------------------------------


def _with_artifacts(**how: Any) -> RunInfo:
    with open_run(experiment="demo", name="a", signature="a", **how) as run:
        Path("config.toml").write_text("[run]\n")
        run.artifact("config.toml")
        run.artifact("config.toml", "model")
    return resolve_run("a")


def test_artifacts_that_are_local_are_not_copied(store: Store) -> None:
    """A file, a file in a folder, a folder, all of them."""
    run = _with_artifacts()
    base = store.root / "artifacts" / "demo" / run.id / "artifacts"
    for path in ("config.toml", "model/config.toml", "model", ""):
        assert download(run, path) == base / path
    assert download(run, "model/config.toml").read_text() == "[run]\n"


def test_an_absent_artifact_is_said_with_what_there_is(store: Store) -> None:
    """In its folder."""
    run = _with_artifacts()
    with pytest.raises(StoreError, match=r"has no artifact 'scores.json'; there are: config.toml"):
        download(run, "scores.json")
    with pytest.raises(StoreError, match=r"has no artifact 'absent/x.json'; it has none there"):
        download(run, "absent/x.json")


def test_artifacts_left_behind_by_a_move_are_said_to_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose artifacts lay in a folder that is gone."""
    run = _with_artifacts()
    store.root.rename("moved")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///moved/mlflow.db")
    with pytest.raises(StoreError, match="which is not there: the store was moved"):
        download(resolve_run(run.id), "config.toml")
