"""What a task is told, packed into one environment variable.

A variable goes wherever a container goes, and needs neither a bucket nor a shared folder. AWS
Batch takes 8192 characters of overrides in all, which is what `LIMIT` is about.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from l2i.errors import UsageError

LIMIT = 6000
"""Characters of a payload, at most."""

KEYS = (
    *("name", "file", "config", "overrides", "options", "sweep", "parent", "audit"),
    *("inputs", "checkpoint_minutes"),
)
"""What of a `l2i.launch.spec.JobSpec` its tasks are told."""


def encode(what: Mapping[str, Any], job: str, tasks: Sequence[int]) -> str:
    """The payload of a job: one word of letters, digits, ``-``, ``_`` and ``=``.

    Parameters
    ----------
    what : mapping
        The fields of `l2i.launch.spec.JobSpec`, as JSON has them; tasks are told some of them.
    job : str
        The job's id.
    tasks : sequence of int
        Their indices.

    Raises
    ------
    UsageError
        It would be longer than engines take.
    """
    document = {key: what[key] for key in KEYS if what[key]}
    document["job"] = job
    # All of them, in order, need not be written down: thousands of numbers would not fit.
    in_order = list(tasks) == list(range(len(tasks)))
    document["tasks"] = len(tasks) if in_order else list(tasks)
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    word = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode()
    if len(word) > LIMIT:
        raise UsageError(
            f"What {what['file']} has to say takes {len(word)} characters, and an engine hands on "
            f"{LIMIT}: split it into several files."
        )
    return word


def decode(word: str) -> dict[str, Any]:
    """What `encode` packed; ``tasks`` is a list of indices.

    Raises
    ------
    UsageError
        It is no payload.
    """
    try:
        payload: dict[str, Any] = json.loads(zlib.decompress(base64.urlsafe_b64decode(word)))
        tasks = payload["tasks"]
        payload["tasks"] = list(range(tasks)) if isinstance(tasks, int) else list(tasks)
        return {
            "config": {},
            "overrides": [],
            "options": {},
            "sweep": "",
            "parent": "",
            "audit": None,
            "inputs": {},
            "checkpoint_minutes": 0,
            **payload,
        }
    except (ValueError, KeyError, TypeError, zlib.error):
        raise UsageError("L2I_JOB holds no job: it is set by 'l2i submit'.") from None
