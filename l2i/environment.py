"""The environment variables that this package reads, and the processors that it may use.

An option of one command is ``L2I_<COMMAND>_<OPTION>``, ``L2I_TRAIN_SEED`` say: see
`l2i.cli.base.name_variables`. Here are those that mean the same to every command, and those that
are no option. Any other ``L2I_...`` is refused by the command line: a variable that is misspelt
would be a setting that nobody heeds.
"""

from __future__ import annotations

import os
from pathlib import Path

SHARED = {
    "L2I_DATASET": "the data set (--dataset)",
    "L2I_DATA_DIR": "the folder data sets lie in (--data-dir)",
    "L2I_DEVICE": "what to compute on (--device)",
    "L2I_ARTIFACTS": "where new experiments keep artifacts (--artifacts)",
    "L2I_QUIET": "1: no progress (--quiet)",
}
"""Options that mean the same to every command which has them."""

_STORES = {
    "L2I_MLRUNS": "the folder of runs, in place of ./mlruns",
    "L2I_CACHE_DIR": "the folder of what can be made again",
    "L2I_PATIENCE": "seconds that the end of a run waits for a store that is away",
    "L2I_DEBUG": "1: show the traceback behind a message",
}

_SET_BY_PROGRAMS = {
    "L2I_TORCH": "make setup: the build of torch, cpu or cuda",
    "L2I_REVISION": "an image: the commit it was built from",
    "L2I_IMAGE_DIGEST": "an image: its digest",
    "L2I_JOB": "a job's engine: what there is to do",
    "L2I_TASK_INDEX": "a job's engine: which task",
    "L2I_TASK_ATTEMPT": "a job's engine: which attempt of it",
    "L2I_TASK_ENGINE": "a job's engine: its name",
    "L2I_TEST_IMAGE": "the tests of images: the image",
}

VARIABLES = {**SHARED, **_STORES, **_SET_BY_PROGRAMS}
"""All that belong to no single command, and what each says."""

_INHERITED = {*_STORES, *("L2I_ARTIFACTS", "L2I_DATA_DIR", "L2I_REVISION", "L2I_IMAGE_DIGEST")}


def child_environment() -> dict[str, str]:
    """The environment of a process that is told by its words alone what to do.

    Stores and folders are where they are for its parent; no variable is an option of it.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("L2I_") or name in _INHERITED
    }


def usual_data_dir() -> str:
    """``L2I_DATA_DIR`` as an absolute path or an ``s3://`` address; empty where it is not set.

    It is for all data sets, so that one which takes no folder passes it by.
    """
    text = os.environ.get("L2I_DATA_DIR", "").strip()
    return text if not text or "://" in text else str(Path(text).expanduser().resolve())


def _quota() -> float:
    """CPUs that a container may use, by its control group; infinite where there is no limit."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return float("inf") if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return float("inf")


def cpu_count(at_once: int = 1) -> int:
    """Physical cores that this process may use, or that each of so many at once has to itself, at
    least one: affinity and a container's limit count.

    Where each of several trainings takes all cores, they wait for one another at every operation.
    """
    import psutil

    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # Not on macOS.
        allowed = os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    return max(1, int(min(allowed, physical, _quota())) // at_once)
