"""What a job is: its description, the states of its tasks, and what an engine can do.

A task is one training of a sweep, or a share of the clips of an audit. It is done where ``l2i
task`` finds two variables: ``L2I_JOB`` (what there is to do, `l2i.launch.payload`) and an index,
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

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from l2i.errors import LaunchError, UsageError
from l2i.launch.payload import encode
from l2i.storage import atomic_write_text, disk_errors

__all__ = [
    "BUG",
    "OUTPUT_VARIABLES",
    "RUN_AGAIN",
    "Audit",
    "Check",
    "Job",
    "JobSpec",
    "JobState",
    "Launcher",
    "State",
    "Task",
    "TaskState",
    "exit_sentence",
    "find_job",
    "keep_job",
    "list_jobs",
]

RUN_AGAIN = 75
"""A task's exit code for "run me again"; the one that sysexits.h calls a temporary failure."""

BUG = 70
"""A task's exit code for a bug; the one that sysexits.h calls an internal software error."""

OUTPUT_VARIABLES = {
    "tracking": "MLFLOW_TRACKING_URI",
    "artifacts": "L2I_ARTIFACTS",
    "endpoint": "AWS_ENDPOINT_URL_S3",
}
"""What a description calls an output, and the variable by which a task knows it."""

# Values that come with these names are somebody's secrets.
_SECRET = re.compile(r"(?i)(password|passwd|secret|token|api[-_]?key|access[-_]?key|credential)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Audit(_Model):
    """An audit whose clips are heard by a job's tasks, a share each.

    Attributes
    ----------
    run : str
        The id of the audited run.
    shares : int
        How many there are; a task's index is its share.
    """

    run: str
    shares: int = Field(ge=1)


class Task(_Model):
    """One training, or one share of an audit.

    Attributes
    ----------
    index : int
        Its place among the sweep's children, from 0; of one training: 0.
    key : str
        The same training has the same key.
    title : str
        For people: setting, fold, seed.
    """

    index: int = Field(ge=0)
    key: str
    title: str


class JobSpec(_Model):
    """What is to be done, and what it needs; the same on every engine.

    Attributes
    ----------
    name : str
        For people; letters, digits, ``-`` and ``_``.
    image : str
        A container image by its digest, ``name@sha256:...``; empty where none is needed.
    command : tuple of str
        What a task runs: words for ``l2i``, which is the image's entry point.
    file, config, overrides, options
        The sweep's file: its name, its tree, and what was laid over it.
    sweep : str
        The sweep's signature, or another word that its runs have in common; empty: one training.
    parent : str
        The id of the run above the tasks' runs; empty: of a sweep, a task makes it.
    audit : Audit, optional
        In place of trainings.
    tasks : tuple of Task
    inputs : dict of str to str
        Setting -> ``s3://`` address of the file that a task fetches for it, once.
    outputs : dict of str to str
        ``tracking``: the MLflow store; ``artifacts``: where new experiments keep artifacts;
        ``endpoint``: the S3-compatible store, where it is not Amazon's.
    gpus, vcpus, memory_mib, shared_memory_mib : int
        What each task has.
    timeout_s : int
        Limit of each attempt.
    attempts : int
        At most, of each task, the first included.
    parallel : int
        Tasks at once where the engine does not decide; 0: all.
    checkpoint_minutes : float
        Between uploads of the last checkpoint.
    environment : dict of str to str
    secrets : dict of str to str
        Variable -> the name of the secret that holds its value. Never the value.
    round : int
        0, and one more for each time that failed tasks are tried again by hand.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")
    image: str = ""
    command: tuple[str, ...] = ("task",)
    file: str
    config: dict[str, Any]
    overrides: tuple[str, ...] = ()
    options: dict[str, str] = Field(default_factory=dict)
    sweep: str = ""
    parent: str = ""
    audit: Audit | None = None
    tasks: tuple[Task, ...] = Field(min_length=1)
    inputs: dict[str, str] = Field(default_factory=dict)
    outputs: dict[str, str] = Field(default_factory=dict)
    gpus: int = Field(0, ge=0, le=64)
    vcpus: int = Field(2, ge=1, le=448)
    memory_mib: int = Field(4096, ge=256)
    shared_memory_mib: int = Field(1024, ge=64)
    timeout_s: int = Field(21_600, ge=60)
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    parallel: int = Field(0, ge=0)
    checkpoint_minutes: float = Field(5.0, ge=0.0)
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, str] = Field(default_factory=dict)
    round: int = Field(0, ge=0)

    @field_validator("environment", "secrets")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a variable")
        return value

    @field_validator("inputs")
    @classmethod
    def _addresses(cls, value: dict[str, str]) -> dict[str, str]:
        for key, uri in value.items():
            if not uri.startswith("s3://"):
                raise ValueError(f"{key}: {uri!r} is no s3:// address")
        return value

    @model_validator(mode="after")
    def _no_values_of_secrets(self) -> JobSpec:
        for name, value in self.environment.items():
            if value and _SECRET.search(name):
                raise ValueError(
                    f"the variable {name} looks like a secret, whose value must not be in a "
                    f"description that is shown and kept: name it by --secret {name}=NAME"
                )
        for what, uri in [*self.outputs.items(), *self.environment.items(), *self.inputs.items()]:
            if re.search(r"\w://[^\s/@]*:[^\s@/]+@", uri):
                raise ValueError(
                    f"{what} has a password in its address: leave it out there, and give it by "
                    "--secret MLFLOW_TRACKING_PASSWORD=NAME, say"
                )
        if len({task.index for task in self.tasks}) < len(self.tasks):
            raise ValueError("a task comes twice")
        return self

    @property
    def signature(self) -> str:
        """Twelve hexadecimal digits; the same description is the same job."""
        # The parent run may be made anew, and older jobs know of no audit: neither changes the job.
        left_out = {"parent"} if self.audit else {"parent", "audit"}
        known = self.model_dump(mode="json", exclude=left_out)
        text = json.dumps(known, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """The job's: its name, and digits of its signature."""
        return f"{self.name}-{self.signature[:8]}"

    @property
    def bound_hours(self) -> float:
        """Hours of all tasks, were every attempt to take all the time it may."""
        return len(self.tasks) * self.attempts * self.timeout_s / 3600

    @property
    def gpu_hours(self) -> float:
        """The most GPU hours that the job can take."""
        return self.gpus * self.bound_hours

    @property
    def payload(self) -> str:
        """What its tasks are told: see `l2i.launch.payload`."""
        return encode(self.model_dump(mode="json"), self.id, [task.index for task in self.tasks])

    def only(self, indices: list[int]) -> JobSpec:
        """The job of some of the tasks, to be tried again."""
        tasks = tuple(task for n, task in enumerate(self.tasks) if n in indices)
        return self.model_copy(update={"tasks": tasks, "round": self.round + 1})

    def variables(self, engine: str) -> dict[str, str]:
        """The environment of every task of an engine, but for its index, attempt, and secrets."""
        named = {name: self.outputs.get(key, "") for key, name in OUTPUT_VARIABLES.items()}
        named["L2I_IMAGE_DIGEST"] = self.image
        outputs = {name: value for name, value in named.items() if value}
        own = {"L2I_JOB": self.payload, "L2I_TASK_ENGINE": engine}
        return {**outputs, **self.environment, **own}

    @classmethod
    def make(cls, **values: Any) -> JobSpec:
        """A description, with a sentence about each mistake.

        Raises
        ------
        UsageError
        """
        try:
            return cls(**values)
        except ValidationError as error:
            problems = []
            for each in error.errors():
                where = ".".join(str(part) for part in each["loc"])
                message = each["msg"].removeprefix("Value error, ")
                problems.append(
                    f"{where}: {message}" if where else message[:1].upper() + message[1:]
                )
            raise UsageError("; ".join(problems) + ".") from None


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

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def sentence(self) -> str:
        """What it means."""
        return _SENTENCES[self]

    @property
    def over(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


_SENTENCES = {
    State.WAITING: "It is in the queue: the engine has no room for it yet.",
    State.STARTING: "There is a machine for it, which fetches the image.",
    State.RUNNING: "It is being done.",
    State.SUCCEEDED: "It is done, and all of it is in the store.",
    State.FAILED: "It ended otherwise, and is not tried again.",
    State.CANCELLED: "Somebody stopped it.",
}


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
        """Whether it could be submitted now, without submitting it."""
        ...

    def submit(self, spec: JobSpec) -> Job:
        """Begin it; where this very job was begun before, that one is given back."""
        ...

    def status(self, job: Job) -> JobState:
        """How far it is."""
        ...

    def logs(self, job: Job, index: int, *, follow: bool = False) -> Iterator[str]:
        """Lines that a task has said, of all attempts; with `follow` until it is over."""
        ...

    def cancel(self, job: Job) -> None:
        """End what is not over; a job that is over is left as it is."""
        ...


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
    document = {
        "id": job.id,
        "engine": job.engine,
        "native": job.native,
        "place": job.place,
        "submitted": job.submitted,
        "spec": job.spec.model_dump(mode="json"),
    }
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
