"""Signals that wait until something that must be whole is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["held_signals"]

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
