"""`l2i.recipes.opening.disk`: what is told before a training is what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l2i.config import resolve
from l2i.data import open_dataset
from l2i.data.cache import WaveformCache
from l2i.models import features
from l2i.recipes.opening.disk import disk_needed
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from tests.miniatures import folder_tree
from tests.recipes.conftest import SMALL
from tests.stores import Said


def test_what_is_told_is_what_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoded clips to the byte of their samples; what the interpreter learns from, were none
    of it kept in memory, to the byte of its arrays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("L2I_CACHE_DIR", str(tmp_path / "cache"))
    Path("small.toml").write_text(SMALL)
    over = ["interpreter.views=3", "output.clips=0", "explanation.rule=published"]
    config = resolve("small.toml", dataset="demo", overrides=over)
    dataset = open_dataset(config.dataset)
    needed = disk_needed(config, dataset)

    taken: dict[str, int] = {}
    make = features._Disk.make

    def counted(self: features._Disk, like: list[features.Tensor]) -> list[features.Tensor]:
        taken[self._folder.name] = sum(array.nbytes for array in like)
        return make(self, like)

    monkeypatch.setattr(features, "memory_budget", lambda: 0)
    monkeypatch.setattr(features._Disk, "make", counted)
    train(config, Progress(quiet=True))
    assert sum(taken.values()) == needed.hidden and set(taken) == {"train", "validate"}
    (entry,) = WaveformCache().folder.glob("demo-*/waveforms.npy")
    assert np.load(entry, mmap_mode="r").nbytes == needed.decoded
    # It is given back when the stage ends.
    assert not list(Path("mlruns/work/stages").glob("*/*/features-*.npy"))


def test_data_check_tells_it(
    tmp_path: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is free, and whether that is enough; nothing where no training would begin."""
    folder = folder_tree(tmp_path / "sounds")
    words = ("data", "check", "folder", "--data-dir", str(folder), "--no-decode")
    disk = json.loads(say(*words, "--json").out)["disk"]
    assert min(disk.values()) > 0
    told = " ".join(say(*words).out.split())
    assert "in the cache for the decoded clips" in told and "That is not enough" not in told
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Full", (), {"free": 1000})())
    assert "That is not enough." in " ".join(say(*words).out.split())
