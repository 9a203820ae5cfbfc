"""One parent for many machines, a table of what is finished, no run RUNNING for ever."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest

from l2i.launch.job import Job, keep_job
from l2i.launch.runner import Process, begin, cancel
from l2i.launch.spec import JobSpec, Task
from l2i.recipes.tables.sweep_file import facts, read_sweep
from l2i.recipes.tables.sweep_table import gather
from l2i.run.family import find_parent, make_parent, member_tag, members
from l2i.run.search import RunInfo
from l2i.run.store import Store, connect, experiment_id
from tests.launch.conftest import IMAGE, Batch
from tests.stores import Said


def _run(store: Store, status: str = "RUNNING", **tags: str) -> str:
    """A run of another machine, as its store has it."""
    client = connect(store)
    named = {"l2i.signature": "s", "l2i.host": "elsewhere", "l2i.lock": "/elsewhere/lock"}
    named |= {k.replace("__", "."): v for k, v in tags.items()}
    run = client.create_run("0", run_name="child", tags=named)
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


def _status(store: Store, run_id: str) -> tuple[str, str]:
    client = connect(store).get_run(run_id)
    return client.info.status, client.data.tags.get("l2i.error", "")


# --- the parent ---------------------------------------------------------------------------------


def test_what_was_begun_and_killed_becomes_the_parent(store: Store) -> None:
    """Whole: with the parameters that nobody came to write. Among several runs it is the first."""
    client = connect(store)
    where = experiment_id(store, "demo")
    tags = {"l2i.kind": "sweep", "l2i.signature": "abc"}
    client.create_run(where, tags=tags, start_time=2)
    begun = client.create_run(where, tags=tags, start_time=1).info
    params = {"sweep.children": 4}
    for _ in range(2):
        made = make_parent("demo", "four-sweep", "abc", {"l2i.kind": "sweep"}, params)
        assert made == begun.run_id
        assert client.get_run(made).data.params == {"sweep.children": "4"}
    assert len(client.search_runs([where])) == 2


@pytest.fixture
def parent(store: Store, sweep_file: Path) -> RunInfo:
    """The run above a sweep of four."""
    wanted = read_sweep(sweep_file)
    make_parent(**facts(wanted))
    made = find_parent("demo", wanted.signature)
    assert made is not None
    return made


def _child(store: Store, sweep_file: Path, number: int, accuracy: float | None) -> str:
    wanted = read_sweep(sweep_file)
    status = "RUNNING" if accuracy is None else "FINISHED"
    tag = member_tag(wanted.signature).replace(".", "__")
    run_id = _run(store, "RUNNING", **{tag: wanted.children[number].key})
    if accuracy is not None:
        connect(store).log_metric(run_id, "test/accuracy", accuracy)
        connect(store).set_terminated(run_id, status)
    return run_id


def test_the_table_is_of_what_is_finished(
    store: Store, sweep_file: Path, parent: RunInfo, tmp_path: Path
) -> None:
    """After each child the parent has a table of all that are finished; with the last it is
    FINISHED itself."""
    wanted = read_sweep(sweep_file)
    client = connect(store)
    assert gather(wanted) == (0, 4)
    _child(store, sweep_file, 0, 0.5)
    _child(store, sweep_file, 1, None)
    assert gather(wanted) == (1, 4)
    assert _status(store, parent.id)[0] == "RUNNING"
    key = "pooling_attention/accuracy/mean"
    assert client.get_run(parent.id).data.metrics[key] == 0.5
    for number, accuracy in ((1, 1.0), (2, 0.25), (3, 0.75)):
        _child(store, sweep_file, number, accuracy)
    assert gather(wanted) == (4, 4) and gather(wanted) == (4, 4)
    run = client.get_run(parent.id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics[key] == 0.75
    assert run.data.metrics["pooling_max/accuracy/mean"] == 0.5
    text = Path(client.download_artifacts(parent.id, "sweep.json", str(tmp_path))).read_text()
    children = json.loads(text)["children"]
    assert [c["scores"]["accuracy"] for c in children] == [0.5, 1.0, 0.25, 0.75]
    assert set(members(wanted.signature)) == {c.key for c in wanted.children}


# --- runs whose job is gone ---------------------------------------------------------------------


@pytest.fixture
def job(store: Store) -> Callable[..., Path]:
    """Begin a job of one Python program, kept in this folder."""
    folders = []

    def start(name: str, code: str, sweep: str = "", last: Sequence[str] = ()) -> Path:
        tasks = (Task(index=0, key=name, title=name),)
        spec = JobSpec.make(name=name, file="x.toml", config={}, sweep=sweep, tasks=tasks)
        keep_job(store.root, Job(name, "local", spec))
        folder = store.root / "work" / "jobs" / name
        process = Process([sys.executable, "-c", code], [], [], [])
        begin(folder, [process], attempts=1, timeout_s=60, parallel=1, environment={}, last=last)
        folders.append(folder)
        return folder

    yield start  # type: ignore[misc]
    for folder in folders:
        cancel(folder)


def _tags(name: str, engine: str = "local") -> dict[str, str]:
    return {"l2i__job": name, "l2i__job_task": "0", "l2i__engine": engine, "l2i__native": name}


def test_what_is_gone_is_closed(
    store: Store, job: Callable[..., Path], say: Callable[..., Said]
) -> None:
    """A run of a job that is over is KILLED, with the reason; of one that runs, of an engine that
    cannot be asked, of a job that was submitted elsewhere, it is left alone and named."""
    job("runs", "import time; time.sleep(60)")
    over = job("over", "")
    while (over / "lock").read_text() and not _ended(over):
        pass
    runs = {
        "runs": _run(store, **_tags("runs")),
        "over": _run(store, **_tags("over")),
        "cluster": _run(store, **_tags("cluster", "slurm")),
        "elsewhere": _run(store, **_tags("elsewhere")),
        "mine": _run(store),
    }
    answer = say("jobs", "reconcile", "--json")
    assert answer.code == 0, answer.err
    alive = {each["run_id"]: each["alive"] for each in json.loads(answer.out)}
    assert alive == {
        runs["runs"]: True,
        runs["over"]: False,
        runs["cluster"]: None,
        runs["elsewhere"]: None,
    }
    status, why = _status(store, runs["over"])
    assert status == "KILLED" and "succeeded on this machine" in why
    assert all(_status(store, runs[n])[0] == "RUNNING" for n in runs if n != "over")
    answer = say("jobs", "reconcile")
    assert answer.code == 0 and "not known: no way to ask slurm" in answer.out


def _ended(folder: Path) -> bool:
    from l2i.launch.runner import is_alive

    return not is_alive(folder)


def test_on_batch(
    store: Store, aws: Batch, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS is asked by the id that the task was given; where it is away nothing is closed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert say("batch", "setup", "--queue", "q", "--image", IMAGE, "--yes").code == 0
    batch = boto3.client("batch")

    def submit(*script: str) -> str:
        variables = [{"name": "SCRIPT", "value": json.dumps(script)}]
        made = batch.submit_job(
            jobName="scripted",
            jobQueue="q",
            jobDefinition="l2i-q",
            containerOverrides={"environment": variables},
        )
        return str(made["jobId"])

    ids = {"over": submit("exit 0"), "runs": submit("hang"), "gone": "no-such-job"}
    for name, state in (("over", "SUCCEEDED"), ("runs", "RUNNING")):
        while batch.describe_jobs(jobs=[ids[name]])["jobs"][0]["status"] != state:
            pass
    runs: dict[str, Any] = {}
    for name, native in ids.items():
        runs[name] = _run(store, **(_tags(name, "aws-batch") | {"l2i__native": native}))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    document = json.loads(say("jobs", "reconcile", "--json").out)
    assert [each["alive"] for each in document] == [None] * 3
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
    assert say("jobs", "reconcile").code == 0
    assert {n: _status(store, r)[0] for n, r in runs.items()} == {
        "over": "KILLED",
        "runs": "RUNNING",
        "gone": "KILLED",
    }
    batch.terminate_job(jobId=ids["runs"], reason="the test is over")


def test_a_parent_of_which_nothing_runs(
    store: Store, sweep_file: Path, parent: RunInfo, say: Callable[..., Said]
) -> None:
    """Is closed as FAILED where children are missing, and left alone while one runs."""
    running = _child(store, sweep_file, 0, None)
    _child(store, sweep_file, 1, 0.5)
    assert say("jobs", "reconcile").code == 0
    assert _status(store, parent.id)[0] == "RUNNING"
    connect(store).set_terminated(running, "KILLED")
    assert say("jobs", "reconcile").code == 0
    assert _status(store, parent.id) == ("FAILED", "1 of 4 are done.")


def test_a_parent_of_which_nothing_has_begun(
    store: Store,
    sweep_file: Path,
    parent: RunInfo,
    say: Callable[..., Said],
    job: Callable[..., Path],
) -> None:
    """Its job may wait in a queue that nobody here knows, but not for longer than a day; one that
    is known here, and over, waits for nothing."""
    (looked_at,) = json.loads(say("jobs", "reconcile", "--json").out)
    assert looked_at["alive"] is None and "no task of it has begun" in looked_at["verdict"]
    assert _status(store, parent.id)[0] == "RUNNING"

    wanted = read_sweep(sweep_file)
    tags = {"l2i.signature": "old", "l2i.kind": "sweep"}
    old = connect(store).create_run("0", tags=tags, start_time=1).info.run_id
    folder = job("over", "", sweep=wanted.signature)
    while not _ended(folder):
        pass
    assert say("jobs", "reconcile").code == 0
    assert _status(store, old) == ("FAILED", "0 of 0 are done.")
    assert _status(store, parent.id) == ("FAILED", "0 of 4 are done.")


def test_a_parent_is_closed_with_its_job(
    store: Store,
    sweep_file: Path,
    parent: RunInfo,
    say: Callable[..., Said],
    job: Callable[..., Path],
) -> None:
    """When its tasks are over and not all succeeded, and by 'l2i cancel', whatever its children
    say; not while another job of the sweep goes on."""
    sweep = read_sweep(sweep_file).signature
    job("runs", "import time; time.sleep(60)", sweep)
    job("other", "import time; time.sleep(60)", sweep)
    _child(store, sweep_file, 0, None)
    assert say("cancel", "runs").code == 0
    assert _status(store, parent.id)[0] == "RUNNING"
    assert say("cancel", "other").code == 0
    assert _status(store, parent.id) == ("KILLED", "0 of 4 are done.")

    make_parent("demo", "again", "fails", {"l2i.kind": "sweep"}, {"sweep.children": 1})
    again = find_parent("demo", "fails")
    assert again is not None
    last = [sys.executable, "-P", "-m", "l2i", "jobs", "reconcile", "fails"]
    folder = job("fails", "raise SystemExit(1)", "fails", last)
    while not _ended(folder):
        time.sleep(0.1)
    assert _status(store, again.id) == ("FAILED", "0 of 1 are done.")
