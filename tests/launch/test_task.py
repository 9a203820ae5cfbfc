"""One task, as an engine starts it: which training, how it ends, what it fetches; and watching."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import l2i
from l2i.config import read_toml
from l2i.errors import LaunchError, StoreError
from l2i.launch.job import Check, Job, keep_job
from l2i.launch.runner import Local
from l2i.launch.spec import JobSpec, Task
from l2i.recipes.tables.sweep_file import read_sweep
from l2i.recipes.training.train import Outcome
from l2i.run import outbox
from l2i.run.runs import list_runs
from l2i.run.store import Store, connect, locate
from tests.recipes.conftest import SMALL
from tests.servers import S3, free_port
from tests.stores import Said


def _payload(path: Path, sweep: str | None = None, **values: Any) -> str:
    wanted = read_sweep(path)
    tasks = tuple(Task(index=i, key=c.key, title=c.title) for i, c in enumerate(wanted.children))
    given = {"name": "four", "file": path.name, "config": read_toml(path), "tasks": tasks}
    given["sweep"] = wanted.signature if sweep is None else sweep
    return JobSpec.make(**(given | values)).payload


class _Trained:
    """Stands for the training: keeps what it was given, and ends as it is told."""

    def __init__(self, end: BaseException | None = None) -> None:
        self.end, self.given = end, []  # type: ignore[var-annotated]

    def __call__(self, config: Any, _progress: Any, **how: Any) -> Outcome:
        self.given.append((config, how))
        if self.end is not None:
            raise self.end
        return Outcome("f" * 32, "name", "demo", {})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, store: Store) -> Callable[..., _Trained]:
    """Put a training in place that ends so."""

    def put(end: BaseException | None = None) -> _Trained:
        training = _Trained(end)
        monkeypatch.setattr("l2i.recipes.training.train.train", training)
        return training

    return put


def test_which_training_it_is(
    sweep_file: Path, trained: Callable[..., _Trained], say: Callable[..., Said], monkeypatch: Any
) -> None:
    """By the option, or by the variable of whatever engine; a job of some tasks counts in these;
    the run says of what it is, and which attempt."""
    done, word = trained(), _payload(sweep_file, checkpoint_minutes=2.5)
    assert say("task", "--job", word, "--index", "3").code == 0
    monkeypatch.setenv("L2I_JOB", word)
    for name in ("AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            assert say("task").code == 0
    monkeypatch.setenv("AWS_BATCH_JOB_ATTEMPT", "2")
    monkeypatch.setenv("AWS_BATCH_JOB_ID", "native:1")
    assert say("task").code == 0  # Batch gives no index to a task alone.
    children = read_sweep(sweep_file).children
    configs = [config for config, _ in done.given]
    assert [c.signature() for c in configs] == [children[i].key for i in (3, 2, 2, 2, 0)]
    assert {c.run.checkpoint_minutes for c in configs} == {2.5}
    how = done.given[-1][1]
    signature = read_sweep(sweep_file).signature
    assert how["owner"] == f"{signature}/{children[0].key}"
    assert how["marks"][f"l2i.member.{signature}"] == children[0].key
    assert how["marks"]["l2i.attempt"] == "2" and how["marks"]["l2i.native"] == "native:1"


def test_the_run_above_is_the_one_that_it_is_told(
    sweep_file: Path, trained: Callable[..., _Trained], say: Callable[..., Said]
) -> None:
    """Whether it is there or not; a task that is told none takes the sweep's, or makes it."""
    done = trained()
    answer = say("task", "--job", _payload(sweep_file, parent="f" * 32), "--index", "0")
    assert answer.code == 0 and list_runs() == []
    assert "The run above the sweep was deleted: no table was written." in answer.err
    for index in ("1", "2"):
        answer = say("task", "--job", _payload(sweep_file), "--index", index)
        assert answer.code == 0 and "was deleted" not in answer.err
    (parent,) = list_runs()
    assert parent.params["sweep.children"] == "4"
    assert [how["parent"] for _, how in done.given] == ["f" * 32, parent.id, parent.id]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (SystemExit(143), 75),  # Stopped by SIGTERM, in order.
        (ZeroDivisionError("planted"), 70),
        (StoreError("The bucket is gone."), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_how_it_ends(
    end: BaseException,
    code: int,
    sweep_file: Path,
    trained: Callable[..., _Trained],
    say: Callable[..., Said],
) -> None:
    """The exit code says whether another attempt is worth while; a bug has its traceback."""
    trained(end)
    answer = say("task", "--job", _payload(sweep_file), "--index", "0")
    assert answer.code == code
    assert ("Traceback" in answer.err) == (code == 70)


def test_what_could_not_be_sent_is_worth_another_attempt(
    sweep_file: Path, trained: Callable[..., _Trained], say: Callable[..., Said]
) -> None:
    """In a container nothing of it would be left."""
    trained()
    outbox.UNSENT.append("Run x is done, and not all of it could be sent.")
    answer = say("task", "--job", _payload(sweep_file), "--index", "0")
    assert answer.code == 75 and "not all of it could be sent" in answer.err


def test_mistakes(
    sweep_file: Path, trained: Callable[..., _Trained], say: Callable[..., Said]
) -> None:
    """Another version that makes other trainings of the file; an index beyond; no job."""
    done = trained()
    for words, sentence in (
        (("--job", _payload(sweep_file, "abc"), "--index", "0"), "makes other trainings"),
        (("--job", _payload(sweep_file), "--index", "4"), "there is no task 4"),
        (("--job", "nonsense"), "L2I_JOB holds no job"),
        ((), "Missing option '--job'"),
    ):
        answer = say("task", *words)
        assert answer.code == 2 and sentence in answer.err and "Traceback" not in answer.err
    assert done.given == []


def test_inputs_are_fetched_once(
    s3: S3, trained: Callable[..., _Trained], say: Callable[..., Said]
) -> None:
    """Weights at s3:// are an input: a file of the task's disk stands in their place, whatever
    machine submits or does it; where there is nothing, a sentence."""
    (s3.folder / "bucket" / "weights").mkdir()
    (s3.folder / "bucket" / "weights" / "trunk.pkl").write_bytes(b"trunk")
    done = trained()
    text = 'extends = "demo"\n[classifier]\nwidth = 1.0\n[sweep]\nseeds = [0, 1]\n'
    Path("four.toml").write_text(text)
    key = "classifier.audioset_weights"
    answer = say("submit", "four.toml", "-o", f"{key}=s3://bucket/weights/trunk.pkl", "--dry-run")
    job = json.loads(answer.out)
    assert job["inputs"] == {key: "s3://bucket/weights/trunk.pkl"}
    spec = JobSpec(**{k: v for k, v in job.items() if k not in ("id", "gpu_hours")})
    for _ in range(2):
        answer = say("task", "--job", spec.payload, "--index", "1")
        assert answer.code == 0, answer.err
    assert "Fetched" not in answer.err
    weights = Path(done.given[0][0].classifier.audioset_weights)
    assert weights.read_bytes() == b"trunk"
    spec = spec.model_copy(update={"inputs": {key: "s3://bucket/weights/other.pkl"}})
    answer = say("task", "--job", spec.payload, "--index", "1")
    assert answer.code == 1 and "There is nothing at s3://bucket/weights/other.pkl" in answer.err


# --- the run above, made by whoever submits -------------------------------------------------------


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch, store: Store) -> list[JobSpec]:
    """What was submitted; no task begins."""
    specs: list[JobSpec] = []

    def submit(_engine: Local, spec: JobSpec) -> Job:
        specs.append(spec)
        keep_job(store.root, Job(spec.id, "local", spec))
        return Job(spec.id, "local", spec)

    monkeypatch.setattr(Local, "submit", submit)
    return specs


def test_submit_makes_the_run_above(
    submitted: list[JobSpec], sweep_file: Path, say: Callable[..., Said]
) -> None:
    """Once, however often and for whatever machine it is submitted; none for a dry run, for what is
    refused, and for one training. The job's id does not tell."""
    assert say("submit", str(sweep_file), "--dry-run").code == 0
    assert say("submit", str(sweep_file), "--on", "docker").code == 1
    Path("one.toml").write_text('extends = "demo"\n')
    assert say("submit", "one.toml").code == 0
    assert list_runs() == [] and submitted.pop().parent == ""
    for words in ((), (), ("--memory", "2GiB")):
        assert say("submit", str(sweep_file), *words).code == 0
    (parent,) = list_runs()
    assert parent.status == "RUNNING" and parent.params["sweep.children"] == "4"
    assert [spec.parent for spec in submitted] == [parent.id] * 3
    told = json.loads(say("submit", str(sweep_file), "--dry-run").out)
    assert submitted[0].id == submitted[1].id == told["id"] != submitted[2].id
    # A job that is known stays with its run, which somebody may have deleted.
    connect(locate()).delete_run(parent.id)
    assert say("submit", str(sweep_file)).code == 0
    assert submitted[-1].parent == parent.id and list_runs() == []


def test_what_was_submitted_is_not_checked_anew(
    submitted: list[JobSpec],
    sweep_file: Path,
    say: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine refuses what is new, and gives back what it has."""
    assert say("submit", str(sweep_file)).code == 0

    def refuse(_engine: Local, _spec: JobSpec) -> list[Check]:
        raise LaunchError("The image is gone.")

    monkeypatch.setattr(Local, "check", refuse)
    assert say("submit", str(sweep_file)).code == 0
    assert len(submitted) == 2
    answer = say("submit", str(sweep_file), "--memory", "2GiB")
    assert answer.code == 1 and "The image is gone." in answer.err
    assert len(submitted) == 2 and len(list_runs()) == 1


def test_submit_where_the_store_is_away(
    submitted: list[JobSpec],
    sweep_file: Path,
    say: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the tasks may reach it: a warning, and they make the run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    answer = say("submit", str(sweep_file))
    assert answer.code == 0, answer.err
    assert "No tracking server answers" in answer.err
    assert answer.err.count("The tasks will make the parent run.") == 1
    assert [spec.parent for spec in submitted] == [""]


# --- real ones ----------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(l2i.__file__).resolve().parent.parent)}


@pytest.mark.slow
def test_told_to_stop_it_says_run_me_again(
    store: Store, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM while it trains: exit code 75, the run is KILLED; begun again it is resumed."""
    text = SMALL.format(name="demo").replace("clips = 2", "clips = 0")
    Path("two.toml").write_text(text + "\n[sweep]\nseeds = [0, 1]\n")
    environment = {**_environment(), "L2I_JOB": _payload(Path("two.toml"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "l2i", "task", "--index", "1"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not list(Path("mlruns/work/stages").glob("classifier-*/state.safetensors")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    process.terminate()
    errors = process.communicate()[1]
    assert process.returncode == 75 and "Traceback" not in errors, errors
    (run,) = [r for r in list_runs() if r.kind == "train"]
    assert run.status == "KILLED"
    monkeypatch.setenv("L2I_JOB", environment["L2I_JOB"])
    monkeypatch.setenv("L2I_TASK_ATTEMPT", "2")
    answer = say("task", "--index", "1")
    assert answer.code == 0 and "1 of 2 trainings" in answer.err, answer.err
    (run,) = [r for r in list_runs() if r.kind == "train"]
    assert run.status == "FINISHED"
    assert (run.tags["l2i.resumed"], run.tags["l2i.attempt"]) == ("1", "2")


def test_watching_ends_and_the_job_does_not(store: Store, say: Callable[..., Said]) -> None:
    """Ctrl-C: exit code 130, the command that looks on again, and the job runs on."""
    Path("two.toml").write_text('extends = "demo"\n[sweep]\nseeds = [0, 1]\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "l2i", "submit", "two.toml", "--watch"],
        env=_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "running" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 130
        job = json.loads(say("jobs", "--json").out)[0]
        assert f"'l2i jobs show {job['job']} --watch' looks on" in rest
        assert "Traceback" not in rest and job["tasks"] == {"waiting": 1, "running": 1}
    finally:
        answer = say("cancel", "latest")
    assert answer.code == 0
    assert json.loads(say("jobs", "--json").out)[0]["tasks"] == {"cancelled": 2}
