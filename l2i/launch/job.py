"""What a job is: its description, the states of its tasks, and what an engine can do.

A task is one training of a sweep, or a share of the clips of an audit. It is done where ``l2i
task`` finds two variables: ``L2I_JOB`` (what there is to do, `JobSpec.payload`) and an index,
``L2I_TASK_INDEX`` or that of the engine. How a task ends tells the engine whether to try again:

==============  ================================================================
exit code       what it means
==============  ================================================================
0               done, and all of it is in the store
`RUN_AGAIN`     stopped by a signal, or the store is away: kept, and worth another attempt
`BUG`           a mistake of ours, with its traceback in the log
any other       what the job says is wrong; another attempt would end the same
==============  ================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from l2i.errors import LaunchError
from l2i.launch.spec import JobSpec
from l2i.storage import atomic_write_text, disk_errors

RUN_AGAIN = 75
"""A task's exit code for "run me again"; the one that sysexits.h calls a temporary failure."""

BUG = 70
"""A task's exit code for a bug; the one that sysexits.h calls an internal software error."""


def exit_sentence(code: int) -> str:
    """What a task's exit code says.

    >>> exit_sentence(75)
    'stopped by a signal, or its store is away (exit code 75)'
    """
    words = {
        1: "what the job points to is wrong",
        2: "the words of the job are wrong",
        BUG: "a bug",
        RUN_AGAIN: "stopped by a signal, or its store is away",
        137: "killed",
    }
    return f"{words[code]} (exit code {code})" if code in words else f"exit code {code}"


class State(StrEnum):
    """How far a task is."""

    WAITING = "waiting"  # In the queue: the engine has no room for it yet.
    STARTING = "starting"  # There is a machine for it, which fetches the image.
    RUNNING = "running"
    SUCCEEDED = "succeeded"  # Done, and all of it is in the store.
    FAILED = "failed"  # It ended otherwise, and is not tried again.
    CANCELLED = "cancelled"  # Somebody stopped it.

    @property
    def over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True)
class TaskState:
    """How far one task is.

    Attributes
    ----------
    index : int
        Its place in the job, from 0.
    state : State
    attempt : int
        From 1; 0: not begun.
    why : str
        Why it waits, or how it ended.
    exit_code : int or None
    log : str
        Where the engine keeps what it says.
    """

    index: int
    state: State
    attempt: int = 0
    why: str = ""
    exit_code: int | None = None
    log: str = ""


@dataclass(frozen=True)
class JobState:
    """How far a job is: its tasks, in order."""

    tasks: tuple[TaskState, ...]

    @property
    def over(self) -> bool:
        """Whether no task will change by itself."""
        return all(task.state.over for task in self.tasks)

    @property
    def state(self) -> State:
        """One word for all of them: how the worst ended, or how far the furthest is."""
        states = {task.state for task in self.tasks}
        if self.over:
            for state in (State.FAILED, State.CANCELLED):
                if state in states:
                    return state
            return State.SUCCEEDED
        for state in (State.RUNNING, State.STARTING):
            if state in states:
                return state
        return State.RUNNING if State.SUCCEEDED in states else State.WAITING

    def count(self) -> dict[State, int]:
        """How many tasks are in each state that occurs."""
        return {
            state: n for state in State if (n := sum(task.state == state for task in self.tasks))
        }

    @property
    def failed(self) -> list[int]:
        """Places of the tasks that a retry would do again."""
        return [t.index for t in self.tasks if t.state in (State.FAILED, State.CANCELLED)]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    sentence : str
    ok : bool or None
        None: it could not be found out.
    """

    sentence: str
    ok: bool | None = True


@dataclass(frozen=True)
class Job:
    """A job that was submitted.

    Attributes
    ----------
    id : str
    engine : str
    spec : JobSpec
    native : str
        The engine's own id.
    place : dict of str to str
        ``queue`` and ``region``, where the engine has them.
    submitted : str
        When, in UTC, as ISO 8601.
    new : bool
        Whether this submission began it.
    """

    id: str
    engine: str
    spec: JobSpec
    native: str = ""
    place: dict[str, str] = field(default_factory=dict)
    submitted: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    new: bool = False


class Launcher(Protocol):
    """Operations of an engine. All are idempotent.

    Attributes
    ----------
    name : str
        The word that names it: for ``--on``, and as a job's ``engine``.
    here : bool
        Whether its tasks see the files of this machine. An engine without it is elsewhere.
    """

    name: str

    def check(self, spec: JobSpec) -> list[Check]:
        """Whether it could be submitted now, without submitting it; asked before `submit`, too.

        What cannot be submitted is an error.
        """

    def submit(self, spec: JobSpec) -> Job:
        """Begin it; where this very job was begun before, that one is given back."""

    def status(self, job: Job) -> JobState:
        """How far it is."""

    def logs(self, job: Job, index: int, *, follow: bool = False) -> Iterator[str]:
        """Lines that a task has said, of all attempts; with `follow` until it is over."""

    def cancel(self, job: Job) -> None:
        """End what is not over; a job that is over is left as it is."""


# --- jobs that were submitted from here ---------------------------------------------------------


def _folder(root: Path) -> Path:
    return root / "work" / "jobs"


def keep_job(root: Path, job: Job) -> None:
    """Write down a job, so that `find_job` finds it later.

    Parameters
    ----------
    root : Path
        The store's local folder, ``mlruns``.
    job : Job
    """
    path = _folder(root) / job.id / "job.json"
    document = {**vars(job), "spec": job.spec.model_dump(mode="json")}
    del document["new"]
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _read(path: Path) -> Job | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Job(**{**record, "spec": JobSpec(**record["spec"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def list_jobs(root: Path) -> list[Job]:
    """Jobs that were submitted from here, the newest first."""
    jobs = [_read(path) for path in _folder(root).glob("*/job.json")]
    return sorted((j for j in jobs if j is not None), key=lambda j: j.submitted, reverse=True)


def known_job(root: Path, job_id: str) -> Job | None:
    """The job of this very id, where it was submitted from here."""
    return _read(_folder(root) / job_id / "job.json")


def find_job(root: Path, word: str) -> Job:
    """The job of this id, of the beginning of one, or of this name; ``latest``: the newest.

    Raises
    ------
    LaunchError
        There is none, or there are several.
    """
    jobs = list_jobs(root)
    if not jobs:
        raise LaunchError(
            f"No job was submitted from here ({_folder(root)}); 'l2i submit FILE --on local' does, "
            "and 'l2i jobs --queue NAME' finds those of a queue of AWS Batch."
        )
    if word == "latest":
        return jobs[0]
    exact = [job for job in jobs if word in (job.id, job.native)]
    fits = exact or [job for job in jobs if job.id.startswith(word)]
    if len({job.id for job in fits}) == 1:
        return fits[0]
    named = ", ".join(job.id for job in (fits or jobs)[:5])
    if fits:
        raise LaunchError(f"{word!r} fits several jobs: {named}.")
    raise LaunchError(f"There is no job {word!r} here; the newest are: {named}.")
