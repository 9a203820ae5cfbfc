"""Waiting for what may come back: a store that is away, a database that another program holds."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 300.0
"""How long a store may be away before it is given up, in seconds; ``L2I_PATIENCE``."""

# The command line shows what is logged here.
_log = logging.getLogger("l2i")
# A store that was away for less is not worth a word.
_UNSAID_S = 1.0
# Many threads wait for the same store.
_AGAIN_S = 60.0
_told: dict[str, float] = {}
_lock = threading.Lock()

T = TypeVar("T")


def patience_s() -> float:
    """How long to wait for a store that is away, as the environment says."""
    try:
        return max(0.0, float(os.environ.get("L2I_PATIENCE", "")))
    except ValueError:
        return PATIENCE_S


def patiently(
    work: Callable[[], T],
    may_pass: Callable[[Exception], bool],
    say: Callable[[Exception], str],
    patience: float | None = None,
) -> T:
    """Do it, and again with growing pauses while it fails for reasons that may pass.

    Parameters
    ----------
    work : callable
    may_pass : callable
        Whether to try again after this error.
    say : callable
        A sentence without its full stop about this error, logged once it lasts a second.
    patience : float, optional
        Seconds; by default `patience_s`.
    """
    patience = patience_s() if patience is None else patience
    begin = time.monotonic()
    pause = 0.5
    while True:
        try:
            return work()
        except Exception as error:
            now = time.monotonic()
            left = begin + patience - now
            if left <= 0 or not may_pass(error):
                raise
            if now - begin >= _UNSAID_S:
                _tell(say(error), patience)
            # Many clients that a store lost at once should not all come back at once.
            time.sleep(min(pause * random.uniform(0.5, 1.0), left))
            pause = min(2 * pause, 30.0)


def _tell(sentence: str, patience: float) -> None:
    now = time.monotonic()
    with _lock:
        if now - _told.get(sentence, -_AGAIN_S) < _AGAIN_S:
            return
        _told[sentence] = now
    _log.warning("%s; waiting up to %.0f s for it.", sentence, patience)
