"""A run whose method is L-MAC, with the built-in classifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from l2i.errors import ConfigError
from l2i.recipes.measuring.evaluate import evaluate
from l2i.recipes.publishing.explain import explain
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from tests.recipes.conftest import small_config

pytestmark = pytest.mark.usefixtures("undrawn")

QUIET = Progress(quiet=True)


def test_a_run(bench: Path, tmp_path: Path) -> None:
    """Asked by magnitudes: trained, found again, measured, explained; a setting that is none is
    told."""
    words = ("method.name=lmac", "parts.mask-decoder.epochs=2", "parts.mask-decoder.width=16")
    config = small_config("demo", *words)
    done = train(config, QUIET)
    assert set(done.scores) >= {"ff_mean", "fid_in", "average_drop"}
    assert train(config, QUIET).finished_before
    again = evaluate("latest", QUIET, keep=False)
    assert again["scores"]["ff_mean"] == pytest.approx(done.scores["ff_mean"], abs=1e-5)
    sound = next(Path("mlruns").rglob("explanations/*/original.wav"))
    (explained,) = explain("latest", [sound], QUIET, out=tmp_path / "out")
    assert explained["method"] == "lmac" and 0 <= explained["kept"] <= 1
    with pytest.raises(ConfigError, match=r"parts\.mask-decoder\.epohcs"):
        train(small_config("demo", words[0], "parts.mask-decoder.epohcs=2"), QUIET)
