"""Bounds and controls that need no classifier, on a run's mixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from l2i.errors import UsageError
from l2i.recipes.measuring.overlap import Overlap, overlap
from l2i.recipes.tables.benchmark import benchmark
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from tests.recipes.conftest import Finished, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

QUIET = Progress(quiet=True)
BOUNDS = ("oracle-ratio", "oracle-nmf")


def test_bounds_of_mixtures(single: Finished) -> None:
    """No mask separates better than the ideal ratio, and no gates of this dictionary better than
    its oracle; both do where the whole input does nothing. All figures but those that explain
    again are there."""
    done = benchmark(
        "latest",
        QUIET,
        methods=(*BOUNDS, "l2i", "full"),
        protocols=("mix0",),
        everything=True,
        repeats=2,
        limit=6,
        keep=False,
    )
    scores = {name: m["scores"] for name, m in done["methods"].items()}
    gains = [scores[name]["si_sdr_improvement"] for name in (*BOUNDS, "full")]
    assert gains[0] > gains[1] > gains[2] + 2 and gains[2] == pytest.approx(0, abs=0.01)
    assert "insertion" in scores["oracle-nmf"] and "contrast_next" not in scores["oracle-nmf"]
    assert "contrast_next" in scores["l2i"]
    wanted = Overlap(mixtures=3, method="oracle-ratio", level="energy", explain="first")
    result = overlap("latest", wanted, QUIET, keep=False)
    assert result["conditions"][0]["scores"]["si_sdr_improvement"] > 5


@pytest.mark.parametrize("name", BOUNDS)
def test_what_an_oracle_cannot(name: str, single: Finished) -> None:
    """It is nothing to train, and says so before anything is trained; noise is a part, too."""
    with pytest.raises(UsageError, match=f"Method '{name}' knows the parts of a mixture"):
        train(small_config("demo", f"method.name={name}"), QUIET)
    wanted = Overlap(mixtures=2, method=name, noise_db=6.0, level="energy", explain="first")
    result = overlap("latest", wanted, QUIET, keep=False)
    assert result["conditions"][0]["scores"]["si_sdr_improvement"] > 0


def test_blocks_of_the_classes(bench: Path) -> None:
    """A run of its own, learnt from the labels: it takes mixtures apart a little."""
    # Which class is explained is the classifier's word: one of the published width, as ever.
    words = ("method.name=nmf-classes", "parts.class-dictionary.each=4", "classifier.width=1")
    done = train(small_config("demo", *words), QUIET)
    assert train(small_config("demo", *words), QUIET).finished_before
    assert set(done.scores) >= {"ff_mean", "fid_in", "kept"}
    result = benchmark("latest", QUIET, protocols=("mix0",), methods=("nmf-classes",), keep=False)
    assert result["methods"]["nmf-classes"]["scores"]["si_sdr_improvement"] > 1
