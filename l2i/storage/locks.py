"""Locks that die with their holder.

The system frees a lock with the process that holds it, however that ends (SIGKILL included): a
lock that is free says that its holder is gone, and no heartbeat or timeout has to guess.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from l2i.storage.files import disk_errors

try:
    import fcntl
except ImportError:  # pragma: no cover - only on Windows, where two processes are not kept apart.
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """An exclusive lock on a file, held until `release` or the end of the process.

    Parameters
    ----------
    path : Path
        Made, with its folder, if absent. It stays, empty, when the lock is released; removing it
        is safe only for who holds the lock.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.lock"
    >>> mine, other = FileLock(path), FileLock(path)
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
        while self._file is None:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                # The file may have been removed while we waited: then others lock a new one.
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(self.path), os.fstat(file)):
                        self._file = file
            except BlockingIOError:
                return False
            finally:
                if self._file is None:
                    os.close(file)
        return True

    def release(self) -> None:
        """Let go; harmless where the lock is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


@contextmanager
def file_lock(path: str | Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock that other processes (and other threads of this one) wait for.

    Parameters
    ----------
    path : path
        The lock's file; see `FileLock`.
    on_wait : callable, optional
        Called once, before waiting, where another holds the lock.

    Raises
    ------
    StoreError
        The lock's file cannot be made.
    """
    lock = FileLock(Path(path))
    with disk_errors(path):
        free = lock.take()
    if not free and on_wait is not None:
        on_wait()
    try:
        if not free:
            lock.take(wait=True)
        yield
    finally:
        lock.release()
