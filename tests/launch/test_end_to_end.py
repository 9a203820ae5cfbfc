"""A sweep on each engine, from the file to the table, through what goes wrong on the way.

The same scenario on processes, on containers, and on AWS Batch as moto has it, whose jobs are
containers too; with an MLflow server and an S3-compatible store, both real.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import l2i
from l2i.launch.runner import cancel
from l2i.run.artifacts import download
from l2i.run.family import members
from l2i.run.runs import find_run, list_runs
from l2i.run.search import RunInfo
from l2i.run.store import connect, locate
from l2i.storage.s3 import Location, send
from tests import miniatures
from tests.conftest import REPOSITORY, forget_variables
from tests.launch.conftest import Batch, point_at_batch
from tests.recipes.conftest import SMALL
from tests.servers import AKID, S3, SECRET, Mlflow, point_at
from tests.stores import Said

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 25
SWEEP = """
[sweep]
seeds = [0, 1, 2]
"""
# The image with this very code, and the planted bug; made from the one that `make image-cpu` makes.
BASE = os.environ.get("L2I_TEST_IMAGE", "l2i:cpu")
PLANTED = Path(__file__).parent / "planted"


def _docker(*words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, **how)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of an image with this code."""
    if shutil.which("docker") is None or _docker("info").returncode:
        pytest.skip("There is no Docker engine: containers are left out.")
    if _docker("image", "inspect", BASE).returncode:
        pytest.skip(
            f"There is no image {BASE} ('make image-cpu' makes it): containers are left out."
        )
    folder = tmp_path_factory.mktemp("image")
    shutil.copytree(
        Path(l2i.__file__).parent, folder / "l2i", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(PLANTED, folder / "planted", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\nCOPY l2i /opt/l2i/l2i\nCOPY planted /opt/planted\n"
        "ENV PYTHONPATH=/opt/planted\n"
    )
    done = _docker("build", "-q", "-t", "l2i:launch-test", str(folder))
    assert done.returncode == 0, done.stderr
    return _docker("image", "inspect", "-f", "{{.Id}}", "l2i:launch-test").stdout.strip()


@pytest.fixture
def stores(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An MLflow server, and an S3-compatible store for artifacts; the environment names both."""
    s3, mlflow = S3(tmp_path / "s3"), Mlflow(tmp_path / "mlflow", template)
    try:
        s3.start()
        mlflow.start()
        point_at(s3, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.url)
        monkeypatch.setenv("L2I_ARTIFACTS", "s3://bucket/runs")
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        yield s3
    finally:
        mlflow.kill()
        s3.kill()


class _Engine:
    """What is different from engine to engine."""

    words: list[str]
    remote = True  # Whether an attempt sees nothing of the disk of the one before.

    def kill(self, job: str, task: int) -> None:
        raise NotImplementedError


class _Local(_Engine):
    remote = False

    def __init__(self) -> None:
        self.words = ["--on", "local", "--parallel", "2"]
        path = f"{PLANTED}{os.pathsep}{REPOSITORY}"
        self.words += ["--env", f"PYTHONPATH={path}"]

    def kill(self, job: str, task: int) -> None:
        state = json.loads(Path(f"mlruns/work/jobs/{job}/tasks/{task}.json").read_text())
        os.killpg(state["pid"], signal.SIGKILL)


class _Containers(_Engine):
    def __init__(self, image: str) -> None:
        self.words = ["--on", "docker", "--image", image, "--parallel", "2"]
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            self.words += ["--secret", name]

    def kill(self, job: str, task: int) -> None:
        assert _docker("kill", f"l2i-{job}-{task}").returncode == 0


class _Batch(_Engine):
    def __init__(self, image: str) -> None:
        self.words = ["--on", "aws-batch", "--queue", "cpu", "--image", image, "--gpus", "0"]

    def kill(self, job: str, task: int) -> None:
        native = json.loads(Path(f"mlruns/work/jobs/{job}/job.json").read_text())["native"]
        name = _docker("ps", "-q", "--filter", f"label=job={native}:{task}").stdout.strip()
        assert _docker("kill", name).returncode == 0


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """Whatever a test that failed left running ends with it."""
    folder = Path.cwd() / "mlruns" / "work" / "jobs"
    yield
    for plan in folder.glob("*/plan.json"):
        cancel(plan.parent)


@pytest.fixture(
    params=[
        "local",
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("aws-batch", marks=pytest.mark.docker),
    ]
)
def engine(
    request: pytest.FixtureRequest,
    stores: S3,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[..., Said],
) -> Iterator[_Engine]:
    """The engine, ready."""
    if request.param == "local":
        yield _Local()
        return
    image = request.getfixturevalue("image")
    if request.param == "docker":
        yield _Containers(image)
        return
    # Tasks have the rights of a role, which is moto's business; here it is these keys.
    role = {"AWS_ACCESS_KEY_ID": AKID, "AWS_SECRET_ACCESS_KEY": SECRET}
    server = Batch(BATCH_ROLE=json.dumps(role), BATCH_MACHINES="2")
    try:
        server.start()
        point_at_batch(server, monkeypatch)
        # The keys of the S3-compatible store are for moto as good as any.
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", AKID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        answer = say("batch", "setup", "--queue", "cpu", "--gpus", "0", "--yes", "--image", image)
        assert answer.code == 0, answer.err
        yield _Batch(image)
    finally:
        server.kill()


def _file(name: str, sweep: str, data: str = "demo", epochs: int = EPOCHS) -> Path:
    text = SMALL.format(name=data).replace(
        "[interpreter]\nepochs = 3", f"[interpreter]\nepochs = {epochs}"
    )
    path = Path(name)
    path.write_text(text.replace("clips = 2", "clips = 0") + sweep)
    return path


def _show(say: Callable[..., Said], job: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(say("jobs", "show", job, "--json").out)
    return document


def _until(what: str, true: Callable[[], Any], within_s: float = 300, pause_s: float = 0.5) -> Any:
    end = time.monotonic() + within_s
    while not (state := true()):
        assert time.monotonic() < end, what
        time.sleep(pause_s)
    return state


def _checkpointed(stores: S3, say: Callable[..., Said], job: str, task: int) -> None:
    """Wait until a checkpoint of a task's interpreter is in the store; training goes on, which is a
    matter of seconds, and so nothing else is asked."""
    run_id = _until("no run", lambda: _show(say, job)["tasks"][task]["run_id"], pause_s=0.1)
    states = f"bucket/runs/*/{run_id}/artifacts/checkpoint/interpreter-*/state*"
    _until("no checkpoint", lambda: list(stores.folder.glob(states)), pause_s=0.02)


def _overs(say: Callable[..., Said], job: str) -> dict[str, Any] | None:
    shown = _show(say, job)
    over = all(t["state"] in ("succeeded", "failed", "cancelled") for t in shown["tasks"])
    return shown if over else None


def _run(run_id: str) -> RunInfo:
    run = find_run(run_id)
    assert run is not None
    return run


def test_a_sweep_through_all_that_may_happen(
    engine: _Engine, stores: S3, say: Callable[..., Said], tmp_path: Path
) -> None:
    """Three tasks: one is killed in the middle and resumes, one has a bug. What succeeded is in
    the table; the other is reported with its log, not retried by the engine, and done by
    ``jobs retry``; submitted again, nothing is new. The one that was killed ends with the figures
    of a run that nobody stopped."""
    path = _file("three.toml", SWEEP)
    words = [*engine.words, "--checkpoint-minutes", "0.02", "--env", "PLANTED=2"]
    words += ["--env", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false", "--env", "OMP_NUM_THREADS=1"]
    answer = say("submit", str(path), *words, "--json")
    assert answer.code == 0, answer.err
    job = json.loads(answer.out)["job"]

    _checkpointed(stores, say, job, 0)
    engine.kill(job, 0)
    state = _until("the job does not end", lambda: _overs(say, job), 600)
    seen = [(t["state"], t["attempt"]) for t in state["tasks"]]
    logs = "\n".join(say("logs", job, str(n)).out[-1500:] for n in range(3))
    assert seen == [("succeeded", 2), ("succeeded", 1), ("failed", 1)], logs
    assert state["tasks"][2]["exit_code"] == 70 and "a bug" in state["tasks"][2]["why"]
    assert "ZeroDivisionError: planted" in say("logs", job).out

    killed = _run(state["tasks"][0]["run_id"])
    assert killed.status == "FINISHED" and killed.tags["l2i.resumed"] == "1"
    assert killed.tags["l2i.attempt"] == "2" and "l2i.attempt.1" in killed.tags
    if engine.remote:
        assert killed.tags["l2i.resumed_from"].startswith("interpreter, epoch ")
    client = connect(locate())
    for key in ("classifier/loss", "interpreter/fidelity"):
        steps = [m.step for m in client.get_metric_history(killed.id, key)]
        assert steps == list(range(1, len(steps) + 1)), key
    assert len(client.get_metric_history(killed.id, "interpreter/fidelity")) == EPOCHS
    # Finished runs keep no checkpoints; they have their models.
    artifacts = stores.folder.glob(f"bucket/runs/*/{killed.id}/artifacts")
    names = {p.name for folder in artifacts for p in folder.iterdir() if any(p.rglob("*.*"))}
    assert "model" in names and "checkpoint" not in names

    (parent,) = [run for run in list_runs(limit=100) if run.kind == "sweep"]
    assert parent.status != "FINISHED" and parent.metrics["accuracy/mean"] >= 0
    assert len(_table(parent)) == 2

    # No run is left RUNNING: the one with the bug is FAILED, and the parent is closed.
    failed = members(parent.tags["l2i.signature"])
    assert sorted(run.status for run in failed.values()) == ["FAILED", *["FINISHED"] * 2]
    assert say("jobs", "reconcile").code == 0
    (parent,) = [run for run in list_runs(limit=100) if run.kind == "sweep"]
    assert parent.status == "FAILED"

    before = len(list_runs(limit=100))
    again = json.loads(say("submit", str(path), *words, "--json").out)
    assert again["job"] == job and not again["new"] and len(list_runs(limit=100)) == before

    answer = say("jobs", "retry", job, "--json")
    assert answer.code == 0, answer.err
    retried = json.loads(answer.out)["job"]
    state = _until("the retry does not end", lambda: _overs(say, retried))
    assert [t["state"] for t in state["tasks"]] == ["succeeded"], say("logs", retried, "0").out
    (parent,) = [run for run in list_runs(limit=100) if run.kind == "sweep"]
    assert parent.status == "FINISHED" and len(_table(parent)) == 3
    assert len(list_runs(limit=100)) == before  # The run that failed was resumed.
    for child in _table(parent):
        assert _run(child["run_id"]).tags["mlflow.parentRunId"] == parent.id

    _same_as_undisturbed(killed, path, tmp_path, say, "run.seed")


def _table(parent: RunInfo) -> list[dict[str, Any]]:
    return list(json.loads(download(parent, "sweep.json").read_text())["children"])


def _same_as_undisturbed(
    other: RunInfo, path: Path, tmp_path: Path, say: Callable[..., Said], key: str, *more: str
) -> None:
    """The same training in this process, in one piece, with a store of its own."""
    wanted = ("train", "--config", str(path.resolve()), "-o", f"{key}={other.params[key]}", *more)
    with pytest.MonkeyPatch.context() as patch:
        forget_variables(patch)
        patch.chdir(tmp_path)
        done = say(*wanted, "--json", "-q")
    assert done.code == 0, done.err
    scores = {k: v for k, v in json.loads(done.out)["scores"].items() if v is not None}
    mine = {k.removeprefix("test/"): v for k, v in other.metrics.items() if k.startswith("test/")}
    assert mine == pytest.approx(scores, abs=1e-9)


def test_data_from_the_bucket(
    engine: _Engine, stores: S3, say: Callable[..., Said], tmp_path: Path
) -> None:
    """A data set that no task's machine has: each brings it from the bucket, and its figures are
    those of the folder that was sent there."""
    local = miniatures.folder_csv(tmp_path / "clips", clips_per_class=9)
    send(local, Location("bucket", "clips"))
    path = _file("folds.toml", "\n[sweep]\nfolds = [1, 2]\n", "folder", epochs=1)
    words = [*engine.words, "--data-dir", "s3://bucket/clips"]
    words += ["--env", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false", "--env", "OMP_NUM_THREADS=1"]
    answer = say("submit", str(path), *words, "--json")
    assert answer.code == 0, answer.err
    job = json.loads(answer.out)["job"]
    state = _until("the job does not end", lambda: _overs(say, job))
    logs = "\n".join(say("logs", job, str(n)).out[-1500:] for n in range(2))
    assert [t["state"] for t in state["tasks"]] == ["succeeded"] * 2, logs
    for task in state["tasks"]:
        run = _run(task["run_id"])
        assert run.status == "FINISHED" and run.params["dataset.data_dir"] == "s3://bucket/clips"
    _same_as_undisturbed(run, path, tmp_path, say, "dataset.fold", "--data-dir", str(local))


def test_cancelled(engine: _Engine, stores: S3, say: Callable[..., Said]) -> None:
    """A job that is cancelled while it runs: its tasks end as cancelled, their runs are not
    RUNNING, the last checkpoint is in the store; one that does not run is not begun."""
    path = _file("two.toml", "\n[sweep]\nseeds = [5, 6, 7]\n")
    # So many epochs that none ends before it is told to.
    words = [*engine.words, "--checkpoint-minutes", "0.02", "-o", "interpreter.epochs=500"]
    words += ["--env", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false", "--env", "OMP_NUM_THREADS=1"]
    job = json.loads(say("submit", str(path), *words, "--json").out)["job"]
    _checkpointed(stores, say, job, 0)
    assert say("cancel", job).code == 0
    state = _until("the job does not end", lambda: _overs(say, job), 120)
    assert [t["state"] for t in state["tasks"]] == ["cancelled"] * 3
    assert state["tasks"][2]["attempt"] == 0
    assert say("jobs", "reconcile").code == 0
    states = [run.status for run in list_runs(limit=100)]
    assert len(states) == 3 and "RUNNING" not in states and "FINISHED" not in states
