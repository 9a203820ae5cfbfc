"""A data set at ``s3://``: what a run needs comes here, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l2i import config
from l2i.data import open_dataset
from l2i.data.places import cache_folder
from l2i.errors import DataError, StoreError
from l2i.storage.s3 import Location, send
from tests import miniatures
from tests.servers import S3
from tests.stores import Said


def _copy() -> Path:
    (folder,) = (p for p in (cache_folder() / "remote").iterdir() if p.is_dir())
    return folder


def _sounds(folder: Path) -> set[str]:
    return {p.name for p in folder.rglob("*.wav")}


PLACE = Location("bucket", "data")


@pytest.mark.parametrize(
    ("name", "shelf"),
    [("esc50", False), ("esc50", True), ("sust", False), ("sust", True), ("folder", False)],
)
def test_it_is_the_data_set(name: str, shelf: bool, s3: S3, tmp_path: Path) -> None:
    """The same clips, labels, splits and samples as the folder that was sent; `--data-dir` may
    name the data set or the shelf it stands on."""
    make = {"esc50": miniatures.esc50, "sust": miniatures.sust, "folder": miniatures.folder_tree}
    local = make[name](tmp_path / "local")
    own = miniatures.opened(name, local)
    within = own.card.folders[0] if shelf else ""
    send(local, PLACE / within if within else PLACE)
    dataset = miniatures.opened(name, "s3://bucket/data")  # type: ignore[arg-type]
    assert [(c.id, c.labels, c.fold, c.split) for c in dataset.clips()] == [
        (c.id, c.labels, c.fold, c.split) for c in own.clips()
    ]
    for clip, here in zip(dataset.clips(), own.clips(), strict=True):
        np.testing.assert_array_equal(dataset.load(clip), own.load(here))
    assert dataset.check().ok


def test_only_what_is_needed(s3: S3, tmp_path: Path) -> None:
    """ESC-10 in ESC-50's bucket: ten classes' sounds, no archive; of a few clips, those few."""
    local = miniatures.esc50(tmp_path / "local")
    (local / "ESC-50-master.zip").write_bytes(b"PK" * 1000)
    send(local, PLACE)
    few = config.Dataset(name="esc10", data_dir="s3://bucket/data", limit=10, fold=2)
    split = open_dataset(few, seed=1).split(2, few.validation_share, 1, 10)
    wanted = {c.path.name for c in (*split.train, *split.validate, *split.test) if c.path}
    assert _sounds(_copy()) == wanted and len(wanted) < 50
    data = open_dataset(config.Dataset(name="esc10", data_dir="s3://bucket/data"))
    assert _sounds(_copy()) == {c.path.name for c in data.clips() if c.path}
    assert len(_sounds(_copy())) == 50
    assert not list(_copy().rglob("*.zip"))


def test_nothing_is_fetched_twice(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time only the list is asked for; a clip that changed in the store is fetched."""
    local = miniatures.folder_csv(tmp_path / "local")
    send(local, PLACE)
    first = miniatures.opened("folder", "s3://bucket/data")  # type: ignore[arg-type]
    from l2i.storage import s3 as store

    fetched: list[str] = []
    real = store._download
    monkeypatch.setattr(
        store, "_download", lambda p, f, *rest: (fetched.append(f.name), real(p, f, *rest))
    )
    miniatures.opened("folder", "s3://bucket/data")  # type: ignore[arg-type]
    assert fetched == []
    a, b = (c.path for c in first.clips()[:2])
    assert a is not None and b is not None
    name = next(p for p in local.rglob(a.name))
    shutil.copy(next(local.rglob(b.name)), name)
    send(local, PLACE)
    again = miniatures.opened("folder", "s3://bucket/data")  # type: ignore[arg-type]
    assert len(fetched) == 1
    x, y = again.clips()[:2]
    np.testing.assert_array_equal(again.load(x), again.load(y))


def test_what_is_not_there(s3: S3, say: Callable[..., Said]) -> None:
    """Where it was looked for; no bucket; no store: one sentence each, exit code 1."""
    with pytest.raises(DataError, match=r"none of\n  s3://bucket/data/meta/esc50\.csv\n"):
        open_dataset(config.Dataset(name="esc50", data_dir="s3://bucket/data"))
    with pytest.raises(DataError, match="There is nothing at s3://bucket/data"):
        open_dataset(config.Dataset(name="folder", data_dir="s3://bucket/data"))
    with pytest.raises(StoreError, match="There is no bucket 'nowhere'"):
        open_dataset(config.Dataset(name="folder", data_dir="s3://nowhere/data"))
    answer = say("train", "--dataset", "esc50", "--data-dir", "s3://bucket/data", "-q")
    assert answer.code == 1 and "ESC-50 was not found" in answer.err
    answer = say("data", "check", "esc50", "--data-dir", "s3://bucket/data")
    assert answer.code == 1 and "ESC-50 was not found" in answer.err
    answer = say("train", "--dataset", "esc50", "--data-dir", "gs://bucket/data")
    assert answer.code == 2 and "neither a folder nor an s3:// address" in answer.err
    answer = say("data", "fetch", "esc50", "--data-dir", "s3://bucket/data")
    assert answer.code == 2 and "into a folder of this machine" in answer.err
