"""A whole run on 48 clips of one second, made once and copied to each test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from l2i import plots
from l2i.cli import main
from l2i.config import Config, resolve
from l2i.models.vgg import VGG
from l2i.recipes.training.train import Outcome, train
from l2i.run.progress import Progress
from l2i.training.stage import Stage, open_stage
from tests.conftest import forget_variables

SMALL = """
[dataset]
name = "{name}"
clips_per_class = 6
sample_rate = 8000
duration_s = 1.1

[spectrogram]
n_fft = 256
hop_length = 64

[classifier]
epochs = 3
batch_size = 16
head = 32
width = 0.25
precision = "float32"

[dictionary]
components = 16
noise_components = 2
iterations = 5

[interpreter]
epochs = 3
batch_size = 16

[method]
name = "l2i"

[output]
clips = 2

[run]
threads = 1
"""


# Those of a run, as they are drawn.
_PICTURES = {
    name: getattr(plots, name) for name in ("training_curves", "dictionary", "confusion_matrix")
}


@dataclass(frozen=True)
class Finished:
    """A finished run, in the folder where it was made."""

    folder: Path
    outcome: Outcome

    @property
    def artifacts(self) -> Path:
        """What it left."""
        root = self.folder / "mlruns" / "artifacts" / self.outcome.experiment
        return root / self.outcome.run_id / "artifacts"


def small_config(name: str = "demo", *overrides: str) -> Config:
    """The small experiment."""
    Path("small.toml").write_text(SMALL.format(name=name), encoding="utf-8")
    return resolve("small.toml", overrides=overrides)


def stages_of(config: Config, last: str = "") -> dict[str, Path]:
    """Train the stages of a run, up to one of them or all, and no more: nothing is measured, drawn
    or explained. What each stage left, by its name."""
    left: dict[str, Path] = {}

    class Enough(Exception):
        pass

    def enough(*_: object) -> None:
        raise Enough

    @contextmanager
    def noted(name: str, *words: Any, **more: Any) -> Iterator[Stage]:
        with open_stage(name, *words, **more) as stage:
            yield stage
        left[name] = stage.result
        if name == last:
            raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("l2i.recipes.training.train.open_stage", noted)
        patch.setattr("l2i.recipes.training.train.evaluate_run", enough)
        with pytest.raises(Enough):
            train(config, Progress(quiet=True))
    return left


def passes_of_classifiers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool, torch.dtype]]:
    """Of each pass from now on: whether the network is trained, whether its answer has a gradient,
    and the answer's number format."""
    passes = []
    above = VGG.above

    def noted(self: VGG, y: torch.Tensor, blocks: int) -> torch.Tensor:
        logits = above(self, y, blocks)
        passes.append((self.training, logits.requires_grad, logits.dtype))
        return logits

    monkeypatch.setattr(VGG, "above", noted)
    return passes


def main_code(*words: str) -> int:
    """The exit code of `l2i`, in this process."""
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


@contextmanager
def made_in(folder: Path) -> Iterator[None]:
    """A folder to make a run in that outlives a test, whatever earlier tests have set."""
    with pytest.MonkeyPatch.context() as patch:
        forget_variables(patch)
        patch.chdir(folder)
        for name, draw in _PICTURES.items():
            patch.setattr(f"l2i.plots.{name}", draw)
        yield


@pytest.fixture(autouse=True)
def _as_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python writes no bytecode of the code that runs carry: they are shared."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Finished]:
    made: dict[str, Finished] = {}

    def make(name: str) -> Finished:
        if name not in made:
            folder = tmp_path_factory.mktemp(f"run-{name}")
            with made_in(folder):
                outcome = train(small_config(name), Progress(quiet=True))
            made[name] = Finished(folder, outcome)
        return made[name]

    return make


@pytest.fixture
def single(_made: Callable[[str], Finished], monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A run on `demo`; the current folder is where it was made. It must be left as it is."""
    finished = _made("demo")
    monkeypatch.chdir(finished.folder)
    return finished


@pytest.fixture
def multi(_made: Callable[[str], Finished], monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A run on `demo-multilabel`; likewise."""
    finished = _made("demo-multilabel")
    monkeypatch.chdir(finished.folder)
    return finished


@pytest.fixture
def copied(
    _made: Callable[[str], Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The run on `demo` and its settings in a folder of one's own, to do anything with."""
    finished = _made("demo")
    shutil.copytree(finished.folder / "mlruns", tmp_path / "mlruns")
    shutil.copy(finished.folder / "small.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main_code("runs", "relocate") == 0
    return tmp_path


@pytest.fixture
def bench(
    _made: Callable[[str], Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The finished stages of the run on `demo` in a folder of one's own, without the run."""
    finished = _made("demo")
    shutil.copytree(finished.folder / "mlruns" / "work" / "stages", tmp_path / "mlruns/work/stages")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's pictures are empty files, for tests that look at none: drawing them takes a quarter
    of a small training."""

    def empty(*words: Any) -> None:
        next(word for word in words if isinstance(word, Path)).write_bytes(b"")

    for name in _PICTURES:
        monkeypatch.setattr(f"l2i.plots.{name}", empty)
