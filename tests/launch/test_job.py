"""The description of a job: what it may say, its round trip, its signature, its payload."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l2i.config import read_toml, toml_of
from l2i.errors import LaunchError, UsageError
from l2i.launch.job import Job, find_job, keep_job, list_jobs
from l2i.launch.spec import JobSpec, Task, decode
from tests.launch.conftest import IMAGE
from tests.stores import Said

TASKS = tuple(Task(index=i, key=f"key{i}", title=f"fold {i + 1}") for i in range(4))


def spec(**values: Any) -> JobSpec:
    """A description of four tasks."""
    given = {"name": "four", "file": "four.toml", "config": {"extends": "demo"}, "tasks": TASKS}
    return JobSpec.make(**(given | values))


def test_json_round_trip() -> None:
    """What is written is read back, equal and with the same signature."""
    one = spec(
        image=IMAGE,
        inputs={"classifier.weights": "s3://b/w"},
        environment={"A": "1"},
        secrets={"MLFLOW_TRACKING_PASSWORD": "arn:x"},
        gpus=2,
    )
    text = json.dumps(one.model_dump(mode="json"))
    other = JobSpec(**json.loads(text))
    assert other == one and other.signature == one.signature and other.id == one.id


def test_the_same_description_is_the_same_job() -> None:
    """And any change of it another."""
    assert spec().id == spec().id and spec().id.startswith("four-")
    changes: list[dict[str, Any]] = [{"gpus": 1}, {"attempts": 2}, {"environment": {"A": "1"}}]
    assert len({spec(**c).signature for c in [{}, *changes]}) == 4
    assert spec(parent="f" * 32).id == spec().id  # It may be made anew.
    assert spec(parent="f" * 32).only([1]).parent == "f" * 32
    assert spec().only([1, 3]).tasks == (TASKS[1], TASKS[3])
    assert spec().only([0, 1, 2, 3]).id != spec().id


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "a b"}, "name"),
        ({"tasks": ()}, "tasks"),
        ({"tasks": (TASKS[0], TASKS[0])}, "A task comes twice"),
        ({"gpus": -1}, "gpus"),
        ({"timeout_s": 5}, "timeout_s"),
        ({"attempts": 11}, "attempts"),
        ({"memory_mib": 3}, "memory_mib"),
        ({"environment": {"1A": "x"}}, "'1A' is no name of a variable"),
        ({"environment": {"AWS_SECRET_ACCESS_KEY": "hunter2"}}, "looks like a secret"),
        ({"outputs": {"tracking": "http://me:hunter2@host"}}, "has a password in its address"),
        ({"inputs": {"classifier.weights": "/home/w"}}, "is no s3:// address"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_mistakes(values: dict[str, Any], sentence: str) -> None:
    """A sentence each, without the value of a secret."""
    with pytest.raises(UsageError) as error:
        spec(**values)
    assert sentence in str(error.value) and "hunter2" not in str(error.value)


def test_the_bound() -> None:
    """Tasks times attempts times hours times GPUs."""
    one = spec(gpus=2, timeout_s=1800, attempts=3)
    assert one.bound_hours == 4 * 3 * 0.5 and one.gpu_hours == 12.0


def test_payload() -> None:
    """What a task is told comes out as it went in; a subset keeps its indices; nonsense is
    refused."""
    one = spec(overrides=("run.seed=1",), options={"run.device": "cpu"}, sweep="abc")
    decoded = decode(one.payload)
    assert decoded["tasks"] == [0, 1, 2, 3] and decoded["job"] == one.id
    assert (decoded["overrides"], decoded["options"]) == (["run.seed=1"], {"run.device": "cpu"})
    assert (decoded["config"], decoded["sweep"]) == ({"extends": "demo"}, "abc")
    assert decode(one.only([1, 3]).payload)["tasks"] == [1, 3]
    for word in ("", "x", "eJw=", one.payload[:-9]):
        with pytest.raises(UsageError, match="L2I_JOB holds no job"):
            decode(word)
    # Thousands of tasks take no more room than four.
    many = spec(tasks=tuple(Task(index=i, key=str(i), title=str(i)) for i in range(10_000)))
    assert len(many.payload) < 300


def test_the_payload_of_an_older_version() -> None:
    """It knows of no parent run: a task makes it."""
    assert decode(spec(sweep="abc", parent="f" * 32).payload)["parent"] == "f" * 32
    assert decode(spec(sweep="abc").payload)["parent"] == ""


def test_a_tree_goes_through_toml(tmp_path: Path) -> None:
    """A sweep's tree, nested as it may be, is read back equal."""
    tree = {
        "extends_not": 'é \u007f "quoted"',
        "dataset": {"name": "demo", "limit": 3},
        "sweep": {
            "interpreter.maps": [["512"], ["512", "256"]],
            "settings": [{"name": "a b", "x": {"y": 1e-5}}, {"name": "c", "on": True}],
        },
    }
    path = tmp_path / "x.toml"
    path.write_text(toml_of(tree), encoding="utf-8")
    assert read_toml(path) == tree


def test_jobs_are_found_again(tmp_path: Path) -> None:
    """By id, by its beginning, as the latest; what is damaged is passed over."""
    with pytest.raises(LaunchError, match="No job was submitted from here"):
        find_job(tmp_path, "latest")
    old = Job("four-1", "local", spec(), submitted="2026-01-01T00:00:00+00:00")
    new = Job("four-2", "aws-batch", spec(), "native", {"queue": "q"}, "2026-01-02T00:00:00+00:00")
    keep_job(tmp_path, old)
    keep_job(tmp_path, new)
    (tmp_path / "work/jobs/broken").mkdir()
    (tmp_path / "work/jobs/broken/job.json").write_text("{")
    assert list_jobs(tmp_path) == [new, old]
    assert find_job(tmp_path, "latest") == new and find_job(tmp_path, "native") == new
    assert find_job(tmp_path, "four-1") == old
    for word, sentence in (("four", "fits several jobs"), ("x", "There is no job 'x'")):
        with pytest.raises(LaunchError, match=sentence):
            find_job(tmp_path, word)


def test_dry_run_prints_the_description(
    sweep_file: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON that is read back; nothing is written or begun."""
    answer = say("submit", str(sweep_file), "--dry-run", "--env", "A=1", "--secret", "TOKEN=SOURCE")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    again = JobSpec(**{k: v for k, v in document.items() if k not in ("id", "gpu_hours")})
    assert again.id == document["id"] and len(again.tasks) == 4
    assert again.environment == {"A": "1"} and again.secrets == {"TOKEN": "SOURCE"}
    assert again.tasks[0].title == "pooling=attention, fold 1, seed 0"
    assert not Path("mlruns").exists()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--on", "slurm"), 2, "cannot write to"),
        (("--on", "lokal"), 2, "'local'"),
        (("--write", "x"), 2, "--write is for files"),
        (("--env", "NOT_THERE"), 2, "there is no such variable here"),
        (("--gpus", "1", "--max-gpu-hours", "1"), 2, "more than --max-gpu-hours 1"),
        (("-o", "classifier.epocs=1"), 2, "did you mean 'classifier.epochs'"),
        (("--on", "docker"), 1, "needs --image NAME"),
    ],
)
def test_submit_refuses(
    words: tuple[str, ...], code: int, sentence: str, sweep_file: Path, say: Callable[..., Said]
) -> None:
    """One sentence, nothing begun."""
    answer = say("submit", str(sweep_file), *words)
    assert answer.code == code and sentence in answer.err and "Traceback" not in answer.err
    assert not Path("mlruns/work/jobs").exists()
