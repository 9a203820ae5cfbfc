"""Figures of a finished run, measured again; and the figures of a classifier known on paper."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from l2i.config import resolve
from l2i.data.split import spread
from l2i.errors import DataError, StoreError, UsageError
from l2i.recipes.measuring.evaluate import evaluate
from l2i.recipes.training.train import train
from l2i.run.artifacts import download
from l2i.run.progress import Progress
from l2i.run.runs import list_runs, resolve_run
from l2i.types import Clip
from tests.recipes.conftest import Finished, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

QUIET = Progress(quiet=True)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_the_same_figures(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """`evaluate` finds what the run found, to the last digit, and the same tables."""
    made: Finished = request.getfixturevalue(kind)
    result = evaluate(made.outcome.name, QUIET, out=tmp_path / "figures", keep=False)
    kept = json.loads((made.artifacts / "scores.json").read_text())
    assert result["scores"] == kept["scores"]
    assert result["per_class"] == kept["per_class"]
    again = (tmp_path / "figures" / "clips.csv").read_text()
    assert again == (made.artifacts / "clips.csv").read_text()


def test_it_is_a_run_under_the_other_one(copied: Path) -> None:
    """With the same files, and its figures as metrics; unless it is not to be kept."""
    before = {run.id for run in list_runs(kind="evaluate")}
    evaluated = evaluate("latest", QUIET)
    run = resolve_run(str(evaluated["kept"]))
    assert (run.kind, run.tags["mlflow.parentRunId"]) == ("evaluate", evaluated["run"]["id"])
    assert run.metrics["evaluate/ff_mean"] == evaluated["scores"]["ff_mean"]
    names = {path.name for path in download(run, "").iterdir()}
    assert {"scores.json", "clips.csv", "figures.html"} <= names
    assert evaluate("latest", QUIET, keep=False)["kept"] is None
    assert {run.id for run in list_runs(kind="evaluate")} - before == {evaluated["kept"]}


def test_a_higher_threshold_removes_less(single: Finished) -> None:
    """tau is the caller's to choose: the higher, the fewer components."""
    low = evaluate("latest", QUIET, threshold=0.0, keep=False)["scores"]["components_removed"]
    high = evaluate("latest", QUIET, threshold=0.9, keep=False)["scores"]["components_removed"]
    assert 0 < high < low


def test_unknown_runs(single: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is not there, or a store without runs, is said to be so."""
    with pytest.raises(UsageError, match="There is no run 'nothing'"):
        evaluate("nothing", QUIET)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="There are no runs"):
        evaluate("latest", QUIET)


def test_data_that_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the data have moved, the old place is named; --data-dir says the new one, and the
    figures are the same."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("high", "low"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for number in range(10):
            x = rng.normal(size=9000) * 0.1
            x = np.diff(x, append=0) if name == "high" else np.cumsum(x) / 50
            soundfile.write(tmp_path / "sounds" / name / f"{number}.wav", np.clip(x, -1, 1), 8000)
    small_config()
    over = ["dataset.data_dir=" + str(tmp_path / "sounds"), "output.clips=0"]
    over += ["interpreter.epochs=1", "classifier.epochs=1"]
    config = resolve("small.toml", dataset="folder", overrides=over)
    done = train(config, QUIET)
    (tmp_path / "sounds").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="sounds"):
        evaluate("latest", QUIET)
    result = evaluate("latest", QUIET, data_dir=str(tmp_path / "moved"))
    assert result["scores"] == done.scores


def test_spread_covers_classes() -> None:
    """Examples cover every class before any class has two."""
    clips = [Clip(str(i), (c,)) for i, c in enumerate([0] * 5 + [1] * 5 + [2])]
    chosen = [clips[i].labels[0] for i in spread(clips, 5)]
    assert sorted(chosen) == [0, 0, 1, 1, 2]
    assert len(spread(clips, 100)) == len(clips)
    assert spread([], 3) == []
