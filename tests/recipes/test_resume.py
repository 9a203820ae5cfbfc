"""Killed at any moment, the same command goes on, and ends with the same figures."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import l2i
from l2i.errors import StoreError
from l2i.models.checkpoint import load_checkpoint
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from l2i.run.runs import list_runs
from l2i.run.store import connect, locate
from l2i.training import stage as stages
from tests.recipes.conftest import Finished, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

QUIET = Progress(quiet=True)


def _start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    small_config("demo", *overrides)  # Writes small.toml.
    words = [w for over in overrides for w in ("-o", over)]
    return subprocess.Popen(
        [sys.executable, "-m", "l2i", "train", "--config", "small.toml", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(l2i.__file__).resolve().parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait_for_epoch(folder: Path, stage: str, child: subprocess.Popen[str]) -> None:
    """Until this process has finished an epoch of a stage, and saved its state."""
    begin, end = time.time(), time.monotonic() + 120
    while time.monotonic() < end:
        for path in folder.glob(f"mlruns/work/stages/{stage}-*/state.safetensors"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime > begin:
                    return
        assert child.poll() is None, child.communicate()[0]
        time.sleep(0.01)
    raise AssertionError(f"no epoch of {stage} in two minutes")


def _steps_are_whole(run_id: str, epochs: int = 3) -> None:
    client = connect(locate())
    for key in ("classifier/loss", "interpreter/fidelity", "interpreter/validation_loss"):
        steps = [m.step for m in client.get_metric_history(run_id, key)]
        assert steps == list(range(1, epochs + 1)), key


def _equal(a: Path, b: Path) -> None:
    """The same weights, to the last digit."""
    for name in ("classifier", "dictionary", "interpreter"):
        mine, _ = load_checkpoint(a / "model" / "artifacts" / f"{name}.safetensors", name)
        theirs, _ = load_checkpoint(b / "model" / "artifacts" / f"{name}.safetensors", name)
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert torch.equal(value, theirs[key]), f"{name}: {key}"


@pytest.mark.slow
def test_killed_again_and_again(
    single: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the classifier, SIGTERM and Ctrl-C in the interpreter: one MLflow run, every
    step once, and figures and weights of the run that nobody stopped."""
    monkeypatch.chdir(tmp_path)
    for number, stage, code in (
        (signal.SIGKILL, "classifier", -9),
        (signal.SIGTERM, "interpreter", 143),
        (signal.SIGINT, "interpreter", 130),
    ):
        child = _start(tmp_path)
        _wait_for_epoch(tmp_path, stage, child)
        child.send_signal(number)
        output = child.communicate(timeout=60)[0]
        assert child.returncode == code, output
        assert "Traceback" not in output, output
        (run,) = list_runs()
        # Whoever looks next sees that a run whose process is gone is not running.
        assert run.status == "KILLED", output
    done = train(small_config(), QUIET)
    assert done.resumed
    (run,) = list_runs()
    assert (run.id, run.status) == (done.run_id, "FINISHED")
    _steps_are_whole(done.run_id)
    assert done.scores == single.outcome.scores
    _equal(Finished(tmp_path, done).artifacts, single.artifacts)


@pytest.mark.parametrize("stage", ["classifier", "interpreter"])
def test_full_disk(
    stage: str, single: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when an epoch is to be saved ends the run with a sentence; with room
    again, the same command ends with the same figures."""
    monkeypatch.chdir(tmp_path)
    write = stages.save_checkpoint
    saves = 0

    def full(path: Path, kind: str, *rest: object) -> None:
        nonlocal saves
        if path.parent.name.startswith(stage):
            saves += 1
            if saves == 2:
                # As the system would, amid the file.
                patch.setattr(Path, "replace", _no_room)
                patch.setattr(os, "replace", _no_room)
        write(path, kind, *rest)  # type: ignore[arg-type]

    def _no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stages, "save_checkpoint", full)
        patch.setattr(os, "replace", os.replace)
        with pytest.raises(StoreError, match="disk is full"):
            train(small_config(), QUIET)
    (run,) = list_runs()
    assert run.status == "FAILED"
    done = train(small_config(), QUIET)
    assert done.resumed and done.run_id == run.id
    _steps_are_whole(done.run_id)
    assert done.scores == single.outcome.scores


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("interpreter", ["interpreter.average=0.9", "interpreter.head_learning_rate=2e-3"]),
        ("classifier", ["classifier.freeze_after=[0.3, 0.6]"]),
    ],
)
def test_what_a_stage_remembers_goes_on_too(
    stage: str, more: list[str], tmp_path: Path, bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in an interpreter whose weights are averaged and whose head has its own rate, or in
    a classifier of which one block is frozen and another about to be: the figures and weights of a
    run that nobody stopped."""
    whole = Finished(bench, train(small_config("demo", *more), QUIET))
    apart = tmp_path / "apart"
    apart.mkdir()
    monkeypatch.chdir(apart)
    save = stages.Stage.save

    def stopped(at: stages.Stage, *rest: object, **networks: object) -> None:
        save(at, *rest, **networks)  # type: ignore[arg-type]
        if at.name == stage and len(at.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages.Stage, "save", stopped)
        train(small_config("demo", *more), QUIET)
    done = train(small_config("demo", *more), QUIET)
    assert done.resumed
    assert done.scores == whole.outcome.scores
    _equal(Finished(apart, done).artifacts, whole.artifacts)


def test_damaged_state(tmp_path: Path, bench: Path) -> None:
    """A state that is damaged is named; it is not taken for a beginning."""
    from l2i.errors import CheckpointError

    config = small_config("demo", "interpreter.epochs=2")
    train(config, QUIET)
    (result,) = (
        p
        for p in bench.glob("mlruns/work/stages/interpreter-*/interpreter.safetensors")
        if len(load_checkpoint(p, "interpreter")[1]["history"]) == 2
    )
    result.write_bytes(result.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        train(config, QUIET, again=True)


def test_again_makes_a_second_run(single: Finished, bench: Path) -> None:
    """``--again`` makes a new run with the finished stages, and equal figures; what a process that
    was killed has left there is gone then."""
    (stage,) = bench.glob("mlruns/work/stages/interpreter-*")
    (stage / "train").mkdir()
    (stage / "train" / "features-0.npy").write_bytes(b"left")
    (stage / "mel.npy").write_bytes(b"left")
    first = train(small_config(), QUIET)
    second = train(small_config(), QUIET, again=True)
    assert first.run_id != second.run_id
    assert first.scores == second.scores == single.outcome.scores
    assert {path.name for path in stage.iterdir()} == {"lock", "interpreter.safetensors"}


def test_from_scratch_trains_all_stages_anew(single: Finished, bench: Path) -> None:
    """A new run, whose stages are written again, and with equal figures."""
    train(small_config(), QUIET)
    results = [*bench.glob("mlruns/work/stages/*/*.safetensors")]
    before = {path: path.stat().st_mtime_ns for path in results}
    outcome = train(small_config(), QUIET, from_scratch=True)
    assert outcome.run_id != single.outcome.run_id and not outcome.finished_before
    assert outcome.scores == single.outcome.scores
    own = {path for path in results if path.stat().st_mtime_ns > before[path]}
    assert {path.stem for path in own} == {"classifier", "dictionary", "interpreter"}
