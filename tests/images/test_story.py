"""The container's block of `docs/tutorial.md`."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import REPOSITORY
from tests.images.conftest import Place
from tests.recipes.test_story import blocks

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


def test_the_block_runs(place: Place) -> None:
    """One store for both sides: trained in a container, and explained by the line as it stands."""
    build, line = blocks()["In a container"]
    assert build == "make image-cpu"
    folder = place.folder / "story"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "small.toml").write_text((place.folder / "work" / "small.toml").read_text())
    line = line.replace("l2i:cpu", place.image.tag)
    (folder / "birds.flac").write_bytes(
        (REPOSITORY / "docs" / "sounds" / "alarm-and-birds.flac").read_bytes()
    )
    line = line.replace("docs/sounds/alarm-and-birds.flac", "birds.flac")
    head, _, _ = line.partition(" explain ")
    for command in (f"{head} train --config small.toml", line):
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=folder,
            env=place.image.engine.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert (folder / "contained" / "index.html").is_file()
