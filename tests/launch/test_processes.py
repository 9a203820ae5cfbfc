"""Children that end with who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from l2i.launch import processes
from tests.conftest import REPOSITORY

# It starts another, and waits for it; what lives too long says so.
_FAMILY = """
import subprocess, sys
child = "import signal, time; {deaf}; print('here', flush=True); time.sleep(20); print('late')"
subprocess.run([sys.executable, "-c", child])
"""
_DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.mark.parametrize("deaf", ["pass", _DEAF])
def test_what_a_child_starts_ends_with_it(deaf: str) -> None:
    """When they are told, or else when their time is over."""
    ours, theirs = os.pipe()
    with open(theirs, "wb") as out:
        child = processes.start([sys.executable, "-c", _FAMILY.format(deaf=deaf)], {}, stdout=out)
    with open(ours, "rb") as told:
        assert told.readline() == b"here\n"
        processes.tell(child)
        processes.reap([child], grace_s=0.1)
        assert child.returncode == -signal.SIGTERM
        assert told.read() == b""  # All who held the other side are gone.


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells children of such an end.")
def test_a_child_ends_with_a_parent_that_is_killed() -> None:
    """The parent had no time to tell it."""
    child = "import time; print('here', flush=True); time.sleep(20); print('late')"
    code = (
        "import sys; from l2i.launch import processes; "
        f"processes.start([sys.executable, '-c', {child!r}], {{}}, stdout=sys.stdout.buffer).wait()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    with parent:
        assert parent.stdout.readline() == b"here\n"
        parent.kill()
        assert parent.stdout.read() == b""
