"""`docs/tutorial.md`, pasted into a shell from its first block to its last."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.recipes.conftest import small_config
from tests.recipes.test_gated_run import GATED
from tests.servers import free_port

STORY = (REPOSITORY / "docs" / "tutorial.md").read_text(encoding="utf-8")
# It needs an engine: tests/images/test_story.py has it.
_ELSEWHERE = "In a container"


def blocks() -> dict[str, list[str]]:
    """The lines that one types, by the heading that they stand below."""
    parts = re.split(r"^## (.+)$", STORY, flags=re.M)
    headings = ["", *parts[1::2]]
    return {
        name: re.findall(r"^\$ (.+)$", text, re.M)
        for name, text in zip(headings, parts[::2], strict=True)
    }


def test_it_is_one_story() -> None:
    """On the built-in sounds alone: nothing of it needs what is not there."""
    lines = [line for some in blocks().values() for line in some]
    assert len(lines) > 10
    for line in lines:
        assert "--data-dir" not in line
        assert "--dataset" not in line or "--dataset demo" in line


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_block_runs(bench: Path) -> None:
    """In order, in one shell, with the suite's small networks and short gates for the training."""
    shutil.copytree(REPOSITORY / "docs" / "sounds", bench / "docs" / "sounds")
    (bench / ".venv" / "bin").mkdir(parents=True)
    (bench / ".venv" / "bin" / "activate").touch()
    small_config("demo")
    typed = [line for name, some in blocks().items() if name != _ELSEWHERE for line in some]
    script = "\n".join(typed)
    small = " ".join(["--config small.toml", *(f"-o {word}" for word in GATED)])
    script = script.replace("--dataset demo", small)
    script = script.replace("5001", str(free_port()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-e", "-c", script],
        env=os.environ | {"PATH": path, "L2I_DEVICE": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = shell.communicate(timeout=1100)[0]
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output[-5000:]
    (answer,) = re.findall(r'^.*("predictions": .*)$', output, re.M)
    (row,) = json.loads("{" + answer[: answer.rindex("}") + 1])["predictions"]
    assert row["class"] == "birds" and 0 <= row["probability"] <= 1
    for name in ("heard/index.html", "untrained/index.html", "figures/scores.json", "kept"):
        assert (bench / name).exists(), name
    assert (bench / "mixed" / "pairs.csv").read_text().count("\n") > 8
