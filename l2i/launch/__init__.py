"""Jobs on engines that exist: what a job is, who does it, how far it is.

A **job** is a sweep's trainings, each a **task**. It is described once (`JobSpec`), and an
**engine** schedules, queues and retries it::

    job         the protocol Launcher, states and exit codes, and jobs that were submitted
    spec        a job's description, JobSpec, and what of it a task is told
    aws         AWS in our words: clients, errors as sentences, jobs
    docker      containers of an image on this machine
    aws_batch   an array job of AWS Batch
    aws_setup   the queue it needs, as a stack of CloudFormation
    aws_template    that stack's template, and policies of IAM
    exports     files for what others run: SkyPilot, Kubernetes, Slurm
    runner      `local`, processes on this machine; jobs of it and of `docker`: begun, cancelled
    keeper      the process that keeps such a job
    processes   children that end with who started them

How to add an engine: one module with a class that has the five verbs of `l2i.launch.job.Launcher`,
all idempotent, and ``here``, whether its tasks see this machine's files. Name it in `ENGINES`, or,
without a change here, as ``MODULE:NAME``, ``FILE.py:NAME`` or an entry point ``l2i.engines``; its
jobs have this word as their ``engine``. How to add an export: a function from a `JobSpec` to text,
and its name in `EXPORTS` and in `l2i.cli.submit`. Nothing here imports torch or MLflow: where a
task's run is, is for ``l2i.run`` to say.
"""

from l2i.launch.job import Job, JobState, Launcher, State, TaskState
from l2i.launch.spec import JobSpec, Task
from l2i.registry import Registry

__all__ = [
    "ENGINES",
    "EXPORTS",
    "Job",
    "JobSpec",
    "JobState",
    "Launcher",
    "State",
    "Task",
    "TaskState",
]

ENGINES = Registry(
    "engine",
    {
        "local": "l2i.launch.runner:Local",
        "docker": "l2i.launch.docker:Docker",
        "aws-batch": "l2i.launch.aws_batch:AwsBatch",
    },
    "l2i.engines",
)
"""A class each, made with the folder where jobs are kept, and the place: ``queue``, ``region``."""

EXPORTS = Registry(
    "export",
    {
        "skypilot": "l2i.launch.exports:skypilot",
        "kubernetes": "l2i.launch.exports:kubernetes",
        "slurm": "l2i.launch.exports:slurm",
    },
)
"""A function each, from a `JobSpec` to the text of a file."""
