"""The description of a job: what is to be done, and what it needs; the same on every engine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from l2i.errors import UsageError

OUTPUT_VARIABLES = {
    "tracking": "MLFLOW_TRACKING_URI",
    "artifacts": "L2I_ARTIFACTS",
    "endpoint": "AWS_ENDPOINT_URL_S3",
}
"""What a description calls an output, and the variable by which a task knows it."""

# Characters of a payload, at most: AWS Batch takes 8192 of overrides in all.
_LIMIT = 6000
KEYS = (
    *("name", "file", "config", "overrides", "options", "sweep", "parent", "audit"),
    *("inputs", "checkpoint_minutes"),
)
"""What of a `JobSpec` its tasks are told."""

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
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]

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
        """What its tasks are told, in one word of letters, digits, ``-``, ``_`` and ``=``, for one
        environment variable: it goes wherever a container goes, and needs neither a bucket nor a
        shared folder.

        Raises
        ------
        UsageError
            It would be longer than engines take.
        """
        what = self.model_dump(mode="json")
        document = {key: what[key] for key in KEYS if what[key]}
        tasks = [task.index for task in self.tasks]
        # All of them, in order, need not be written down: thousands of numbers would not fit.
        in_order = tasks == list(range(len(tasks)))
        document |= {"job": self.id, "tasks": len(tasks) if in_order else tasks}
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        word = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode()
        if len(word) > _LIMIT:
            raise UsageError(
                f"What {self.file} has to say takes {len(word)} characters, and an engine hands on "
                f"{_LIMIT}: split it into several files."
            )
        return word

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


def decode(word: str) -> dict[str, Any]:
    """What `JobSpec.payload` packed; ``tasks`` is a list of indices.

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
