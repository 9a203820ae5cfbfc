"""Tasks as processes on this machine, in the current folder: as ``l2i sweep``, and unattended."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from l2i.errors import LaunchError
from l2i.launch.job import Check, Job, JobSpec, JobState, find_job, keep_job
from l2i.launch.runner import Process, begin, cancel, follow, job_state

__all__ = ["Local"]


class Local:
    """This machine.

    Parameters
    ----------
    root : Path
        The store's local folder, ``mlruns``.
    place : mapping
        Not looked at.
    """

    name = "local"

    def __init__(self, root: Path, place: Mapping[str, str]) -> None:
        self._root = root

    def _folder(self, job: Job | JobSpec) -> Path:
        return self._root / "work" / "jobs" / job.id

    def check(self, spec: JobSpec) -> list[Check]:
        """Nothing is needed but this very program."""
        found = [Check(f"{sys.executable} has l2i.")]
        if spec.gpus:
            found.append(Check("GPUs are what this machine has; l2i doctor says.", None))
        return found

    def submit(self, spec: JobSpec) -> Job:
        """Begin the tasks; a job whose keeper is gone goes on."""
        command = [sys.executable, "-m", "l2i", *spec.command]
        job = Job(spec.id, self.name, spec)
        known = _known(self._root, job)
        if known is None:
            keep_job(self._root, job)
        pid = begin(
            self._folder(spec),
            [Process(command, [], [], [])] * len(spec.tasks),
            attempts=spec.attempts,
            timeout_s=spec.timeout_s,
            parallel=spec.parallel or 1,
            environment={**spec.variables(), "L2I_TASK_ENGINE": self.name},
        )
        return replace(known or job, native=str(pid or ""), new=known is None)

    def status(self, job: Job) -> JobState:
        """As the files in the job's folder say."""
        return job_state(self._folder(job))

    def logs(self, job: Job, index: int, *, follow: bool = False) -> Iterator[str]:
        """The task's log file."""
        return _follow(self._folder(job), index, wait=follow)

    def cancel(self, job: Job) -> None:
        """SIGTERM to the tasks that run; those that wait are not begun."""
        cancel(self._folder(job))


_follow = follow


def _known(root: Path, job: Job) -> Job | None:
    try:
        return find_job(root, job.id)
    except LaunchError:
        return None
