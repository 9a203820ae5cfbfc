"""Which runs are alive: a run holds a lock on a file for as long as its process lives.

The kernel drops the lock with the process, however it ends (SIGKILL included), so a lock that
is free says that the run is dead, and no heartbeat or timeout has to guess.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["RunLock"]


class RunLock:
    """An exclusive lock on a file, held until `release` or the end of the process.

    Parameters
    ----------
    path : Path
        Made, with its folder, if absent. It stays behind when the lock is released.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.lock"
    >>> mine, other = RunLock(path), RunLock(path)
    >>> mine.take(), other.take()
    (True, False)
    >>> mine.release(); other.take()
    True
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def take(self, *, wait: bool = False) -> bool:
        """Take the lock; whether it was free. With `wait`, wait until it is."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Let go; harmless where the lock is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
