"""Folders of results are known by their mark, and one run's are not written over by another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from l2i.errors import StoreError
from l2i.storage import MARK, is_output, make_output


def test_a_new_folder_is_marked(tmp_path: Path) -> None:
    """With the parents it needs; made again by the same run, by none, or emptied by its owner."""
    folder = tmp_path / "a" / "b"
    make_output(folder, "0123456789ab", "first")
    assert [p.name for p in folder.iterdir()] == [MARK]
    assert not is_output(folder.parent)
    make_output(folder, "fedcba987654", "second")
    (folder / "a.wav").write_text("sound")
    make_output(folder, "fedcba987654", "second")
    make_output(folder)
    with pytest.raises(StoreError, match=r"what run second \(fedcba98\) gave: choose another"):
        make_output(folder, "0123456789ab", "first")
    assert '"second"' in (folder / MARK).read_text(encoding="utf-8")


def test_a_folder_of_the_users_is_not_marked(tmp_path: Path) -> None:
    """Else a class of theirs would be gone from the data set."""
    (tmp_path / "bark.wav").write_text("sound")
    make_output(tmp_path, "0123456789ab", "first")
    assert not is_output(tmp_path)


def test_a_damaged_mark_is_a_mark(tmp_path: Path) -> None:
    """It says nothing of a run, and is written anew."""
    (tmp_path / MARK).write_text("{")
    (tmp_path / "a.wav").write_text("sound")
    assert is_output(tmp_path)
    make_output(tmp_path, "0123456789ab", "first")
    with pytest.raises(StoreError, match="what run first"):
        make_output(tmp_path, "fedcba987654", "second")
