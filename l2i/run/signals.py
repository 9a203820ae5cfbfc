"""Signals that end a process in order, or wait until something that must be whole is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_signals() -> Iterator[None]:
    """Deliver SIGINT, SIGTERM and SIGHUP after the block, not within it.

    A handler that raises does so between any two instructions. Within a transaction of the run
    store it would leave sqlite's write lock to a connection that nobody closes, and the process
    would then wait for itself. The block should last seconds at most. In other threads than the
    main one no handler runs, and nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: Any) -> None:
        came.append(number)

    # Handlers that were not installed from Python (None) cannot be put back.
    before = {n: h for n in _NUMBERS if (h := signal.getsignal(n)) not in (None, signal.SIG_IGN)}
    try:
        for number in before:
            signal.signal(number, note)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        for again in dict.fromkeys(came):
            signal.raise_signal(again)


@contextmanager
def signals_as_exit() -> Iterator[Callable[[], None]]:
    """Turn SIGTERM and SIGHUP into SystemExit; yields a function that makes them be ignored.

    Python would die of them on the spot, and leave the run RUNNING.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def stop(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    try:
        for number in numbers:
            if before[number] is not signal.SIG_IGN:  # Started under nohup, say.
                signal.signal(number, stop)
        yield ignore
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
