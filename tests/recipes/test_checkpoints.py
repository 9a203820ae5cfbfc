"""A training that is stopped goes on on another machine, from what it left in the store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l2i.models.checkpoint import load_checkpoint
from l2i.recipes.training.train import train
from l2i.run.outbox import sync
from l2i.run.progress import Progress
from l2i.run.runs import list_runs
from l2i.run.search import RunInfo
from l2i.run.store import connect, locate
from l2i.run.tracker import Tracker
from l2i.training import stage as stages
from tests.recipes.conftest import Finished, small_config
from tests.servers import S3, Mlflow

pytestmark = pytest.mark.usefixtures("undrawn")

QUIET = Progress(quiet=True)


class _Gone(BaseException):
    """The machine is taken away."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Iterator[Mlflow]:
    """An MLflow server."""
    started = Mlflow(tmp_path_factory.mktemp("mlflow"), template)
    try:
        started.start()
        yield started
    finally:
        started.kill()


@pytest.fixture
def shared(
    server: Mlflow, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """A store that several machines write to; the function goes to one with a disk of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("L2I_ARTIFACTS", f"s3://bucket/{tmp_path.name}")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")

    def machine(name: str) -> None:
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for module in ("runs", "writing"):
            monkeypatch.setattr(f"l2i.run.{module}.platform.node", lambda: name)

    machine("first")
    return machine


def _runs() -> list[RunInfo]:
    """Those of this test: its experiment has its name."""
    return list_runs(Path.cwd().parent.name)


def _gone_after(monkeypatch: pytest.MonkeyPatch, stage: str, epoch: int) -> None:
    """The machine goes away when a stage has saved this epoch."""
    save = stages.Stage.save

    def until(self: stages.Stage, *args: object, **networks: object) -> None:
        save(self, *args, **networks)  # type: ignore[arg-type]
        if self.name == stage and len(self.history) == epoch:
            raise _Gone

    monkeypatch.setattr(stages.Stage, "save", until)


def _no_last_word(tracker: Tracker, *_: object) -> None:
    """A machine that is gone sent what it had, does not end its run, and sends nothing more."""
    assert tracker._outbox is not None
    assert tracker._outbox.close(wait_s=60) == ""


def test_on_another_machine(
    single: Finished, shared: Callable[[str], None], s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the second epoch of the interpreter: another disk fetches that checkpoint and
    the finished classifier, trains one epoch, and ends with the figures of a run that nobody
    stopped; of a finished run no checkpoint is kept."""
    words = ("run.checkpoint_minutes=0.0001", f"run.experiment={Path.cwd().parent.name}")
    with monkeypatch.context() as patch:
        _gone_after(patch, "interpreter", 2)
        with pytest.raises(_Gone):
            train(small_config("demo", *words), QUIET, owner="sweep/child")
    sync(locate(), 60)  # A slow machine may not have sent it all when it stopped.
    (run,) = _runs()
    assert run.status == "FAILED" and run.tags["l2i.task"] == "sweep/child"
    folder = next(s3.folder.glob(f"bucket/*/*/{run.id}/artifacts/checkpoint"))
    kept = {p.parent.name.partition("-")[0]: p for p in folder.rglob("*.safetensors")}
    assert load_checkpoint(kept["interpreter"], "state")[1]["history"][1]

    shared("second")
    epochs: list[tuple[str, int]] = []
    save = stages.Stage.save

    def count(self: stages.Stage, *args: object, **networks: object) -> None:
        save(self, *args, **networks)  # type: ignore[arg-type]
        epochs.append((self.name, len(self.history)))

    monkeypatch.setattr(stages.Stage, "save", count)
    done = train(small_config("demo", *words), QUIET, owner="sweep/child")
    assert epochs == [("interpreter", 3)]
    assert done.resumed and done.run_id == run.id
    assert done.scores == single.outcome.scores
    (run,) = _runs()
    assert run.status == "FINISHED" and run.tags["l2i.resumed_from"] == "interpreter, epoch 2"
    steps = [m.step for m in connect(locate()).get_metric_history(run.id, "interpreter/fidelity")]
    assert steps == [1, 2, 3]
    assert not list(folder.rglob("*.safetensors"))


def test_whose_run_says_running(
    shared: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that went away on the spot leaves its run RUNNING: another attempt of the same
    task resumes it, anybody else makes a run of their own."""
    words = (f"run.experiment={Path.cwd().parent.name}",)
    with monkeypatch.context() as patch:
        _gone_after(patch, "classifier", 1)
        patch.setattr("l2i.run.tracker.Tracker.end", _no_last_word)
        with pytest.raises(_Gone):
            train(small_config("demo", *words), QUIET, owner="sweep/child")
    (run,) = _runs()
    shutil.rmtree(Path(run.tags["l2i.lock"]).parent)
    shared("second")
    (run,) = _runs()
    assert run.status == "RUNNING"
    with monkeypatch.context() as patch:
        _gone_after(patch, "classifier", 2)
        with pytest.raises(_Gone):
            train(small_config("demo", *words), QUIET, owner="sweep/other")
    sync(locate(), 60)
    assert len(_runs()) == 2
    with monkeypatch.context() as patch:
        _gone_after(patch, "classifier", 3)
        with pytest.raises(_Gone):
            train(small_config("demo", *words), QUIET, owner="sweep/child")
    sync(locate(), 60)
    runs = _runs()
    assert len(runs) == 2
    assert {r.id: r.status for r in runs}[run.id] == "FAILED"
    assert {r.id: r.tags.get("l2i.resumed") for r in runs}[run.id] == "1"


def test_half_a_checkpoint_is_no_reason_to_stop(
    single: Finished, shared: Callable[[str], None], s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy in the store that is damaged: the stage begins anew, and says so."""
    words = ("run.checkpoint_minutes=0.0001", f"run.experiment={Path.cwd().parent.name}")
    with monkeypatch.context() as patch:
        _gone_after(patch, "classifier", 2)
        with pytest.raises(_Gone):
            train(small_config("demo", *words), QUIET)
    sync(locate(), 60)
    (file,) = s3.folder.glob("bucket/*/*/*/artifacts/checkpoint/*/state.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    shared("second")
    sentences: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda _self, sentence: sentences.append(sentence))
    done = train(small_config("demo", *words), Progress())
    assert any("is of no use" in sentence for sentence in sentences)
    assert done.resumed and done.scores == single.outcome.scores
