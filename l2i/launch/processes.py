"""Child processes that end with who started them, and leave nothing running.

Each has a session of its own: Ctrl-C at the terminal is for the parent, which tells its children
in its own way, and what a child starts is ended with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO

GRACE_S = 30.0
"""What a training that is told to stop has for its last checkpoint; AWS Batch gives as much."""


def start(
    words: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that reads nothing.

    Raises
    ------
    OSError
        It cannot be started.
    """
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    """No child goes on unseen, and beside the one that the next parent starts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def tell(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Send a signal to a child and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def reap(processes: Iterable[subprocess.Popen[bytes]], grace_s: float = GRACE_S) -> None:
    """Wait for children that were told to end, and kill what of them is left after `grace_s`."""
    end = time.monotonic() + grace_s
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.1, end - time.monotonic()))
        tell(process, signal.SIGKILL)
        process.wait()
