"""How the process of a run ends, and what the run says of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

__all__ = ["signals_as_exit", "verdict"]


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


def verdict(error: BaseException) -> tuple[str, str]:
    """Status and reason of a run that `error` ended."""
    if isinstance(error, KeyboardInterrupt):
        return "KILLED", "Stopped by Ctrl-C."
    if isinstance(error, SystemExit):
        if error.code in (None, 0):
            return "FINISHED", ""
        if isinstance(error.code, int) and error.code > 128:
            with suppress(ValueError):
                return "KILLED", f"Stopped by {signal.Signals(error.code - 128).name}."
        return "FAILED", f"Ended with exit code {error.code}."
    first = str(error).splitlines()[0] if str(error).strip() else ""
    kind = type(error).__name__
    return "FAILED", f"{kind}: {first}" if first else f"{kind}."
