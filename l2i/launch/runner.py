"""Jobs whose tasks are processes of this machine: those of ``local``, the containers of ``docker``.

A process of its own keeps each job, which the terminal that began it does not end::

    mlruns/work/jobs/<id>/plan.json          what to start
    mlruns/work/jobs/<id>/tasks/<n>.json     how far task n is
    mlruns/work/jobs/<id>/tasks/<n>.log      what it said, of all attempts
    mlruns/work/jobs/<id>/lock               held while the process lives
    mlruns/work/jobs/<id>/cancelled          somebody wants no more of it

Here is what a client asks, and the engine `Local`; what the process does is in `l2i.launch.keeper`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from l2i.environment import cpu_count
from l2i.errors import LaunchError
from l2i.launch.job import Check, Job, JobState, State, TaskState, keep_job, known_job
from l2i.launch.keeper import POLL_S, Process, task_record
from l2i.launch.processes import GRACE_S
from l2i.launch.spec import JobSpec
from l2i.storage import FileLock, atomic_write_text, disk_errors

__all__ = ["KeptHere", "Local", "Process", "begin", "cancel", "is_alive", "job_state", "log_lines"]


def begin(
    folder: Path,
    processes: Sequence[Process],
    *,
    attempts: int,
    timeout_s: int,
    parallel: int,
    environment: Mapping[str, str],
    last: Sequence[str] = (),
) -> int:
    """Start what keeps a job, unless it is there already or has nothing left to do.

    Parameters
    ----------
    folder : Path
        The job's.
    processes : sequence of Process
        One per task.
    attempts, timeout_s, parallel : int
        As in `l2i.launch.spec.JobSpec`; `parallel` 0: all at once.
    environment : mapping
        Added to this process's own, which may hold secrets and is not written down.
    last : sequence of str
        A command that is run when all is over and not all succeeded, unless it was cancelled.

    Returns
    -------
    int
        The process that keeps the job; 0: none has to.
    """
    plan = {
        "processes": [asdict(process) for process in processes],
        "attempts": attempts,
        "timeout_s": timeout_s,
        "parallel": parallel or len(processes),
        "last": list(last),
    }
    with disk_errors(folder):
        (folder / "tasks").mkdir(parents=True, exist_ok=True)
        if is_alive(folder):
            return _pid(folder)
        if (folder / "plan.json").exists() and job_state(folder).over:
            return 0
        atomic_write_text(folder / "plan.json", json.dumps(plan, indent=1) + "\n")
        with open(folder / "keeper.log", "ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-P", "-m", "l2i.launch.keeper", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )
    end = time.monotonic() + 30
    while not is_alive(folder):
        if keeper.poll() is not None:
            if job_state(folder).over:
                return 0  # Over before anybody looked.
            raise LaunchError(f"The job could not be begun; {folder / 'keeper.log'} says why.")
        if time.monotonic() > end:
            raise LaunchError(f"The job did not begin in 30 s; look at {folder / 'keeper.log'}.")
        time.sleep(0.05)
    return keeper.pid


def is_alive(folder: Path) -> bool:
    """Whether a process keeps the job now."""
    if not (folder / "lock").exists():
        return False
    lock = FileLock(folder / "lock")
    if not lock.take():
        return True
    lock.release()
    return False


def _pid(folder: Path) -> int:
    with suppress(OSError, ValueError):
        return int((folder / "lock").read_text() or 0)
    return 0


def job_state(folder: Path) -> JobState:
    """How far the tasks are, as the files of the job say.

    Raises
    ------
    LaunchError
        There is no such job in this folder.
    """
    try:
        plan = json.loads((folder / "plan.json").read_text())
    except (OSError, ValueError):
        raise LaunchError(f"There is no job in {folder}: it was removed, or never begun.") from None
    alive, stopped = is_alive(folder), (folder / "cancelled").exists()
    tasks = []
    for index in range(len(plan["processes"])):
        record = task_record(folder, index)
        state, why = State(record["state"]), record["why"]
        if not alive and not state.over:
            # Its keeper is gone: the machine was restarted, or somebody killed it.
            state = State.CANCELLED if stopped else State.WAITING
            why = "stopped" if stopped else "its keeper is gone; 'l2i submit' again goes on"
        elif state is State.WAITING and alive and not why:
            why = f"{plan['parallel']} at a time"
        log = str(folder / "tasks" / f"{index}.log")
        tasks.append(TaskState(index, state, record["attempt"], why, record["exit_code"], log))
    return JobState(tuple(tasks))


def cancel(folder: Path) -> None:
    """End a job, and wait until its processes are gone."""
    if not (folder / "plan.json").exists():
        return
    if not is_alive(folder) and job_state(folder).over:
        return
    with disk_errors(folder):
        atomic_write_text(folder / "cancelled", datetime.now(UTC).isoformat() + "\n")
    end = time.monotonic() + GRACE_S + 15
    while is_alive(folder) and time.monotonic() < end:
        time.sleep(POLL_S)
    if is_alive(folder) and (pid := _pid(folder)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def log_lines(folder: Path, index: int, *, wait: bool) -> Iterator[str]:
    """Lines of a task's log; with `wait`, until it is over."""
    path = folder / "tasks" / f"{index}.log"
    rest = ""
    place = 0
    while True:
        over = job_state(folder).tasks[index].state.over or not is_alive(folder)
        if path.exists():
            with open(path, encoding="utf-8", errors="replace") as file:
                file.seek(place)
                text = rest + file.read()
                place = file.tell()
            *lines, rest = text.split("\n")
            yield from lines
        if over or not wait:
            if rest:
                yield rest
            return
        time.sleep(POLL_S)


class KeptHere:
    """What the engines of this machine share: all but what a task starts.

    Parameters
    ----------
    root : Path
        The store's local folder, ``mlruns``.
    place : mapping
        Not looked at.
    """

    name: str
    here = True

    def __init__(self, root: Path, place: Mapping[str, str]) -> None:
        self._root = root

    def _folder(self, job: Job | JobSpec) -> Path:
        return self._root / "work" / "jobs" / job.id

    def _begin(
        self,
        spec: JobSpec,
        processes: Sequence[Process],
        environment: Mapping[str, str],
        last: Sequence[str] = (),
    ) -> Job:
        """Begin the tasks; a job whose keeper is gone goes on."""
        known = known_job(self._root, spec.id)
        job = known or Job(spec.id, self.name, spec)
        if known is None:
            keep_job(self._root, job)
        pid = begin(
            self._folder(spec),
            processes,
            attempts=spec.attempts,
            timeout_s=spec.timeout_s,
            parallel=spec.parallel or 1,
            environment=environment,
            last=last,
        )
        return replace(job, native=str(pid or ""), new=known is None)

    def status(self, job: Job) -> JobState:
        """As the files in the job's folder say."""
        return job_state(self._folder(job))

    def logs(self, job: Job, index: int, *, follow: bool = False) -> Iterator[str]:
        """The task's log file: what its process, or its containers, have said."""
        return log_lines(self._folder(job), index, wait=follow)

    def cancel(self, job: Job) -> None:
        """Ask the tasks that run to end; those that wait are not begun."""
        cancel(self._folder(job))


def threads_of(spec: JobSpec, limit: int = sys.maxsize) -> dict[str, str]:
    """The variable by which tasks that run at the same time on one machine share its cores."""
    at_once = min(spec.parallel, len(spec.tasks))
    return {"OMP_NUM_THREADS": str(min(limit, cpu_count(at_once)))} if at_once > 1 else {}


class Local(KeptHere):
    """This machine, in the current folder: as ``l2i sweep``, and unattended."""

    name = "local"

    def check(self, spec: JobSpec) -> list[Check]:
        """Nothing is needed but this very program."""
        checks = [Check(f"{sys.executable} has l2i.")]
        if spec.gpus:
            checks.append(Check("GPUs are what this machine has; l2i doctor says.", None))
        return checks

    def submit(self, spec: JobSpec) -> Job:
        """Begin the tasks; a job whose keeper is gone goes on."""
        # -P: a random.py in the current folder is not the module of that name.
        l2i = [sys.executable, "-P", "-m", "l2i"]
        process = Process([*l2i, *spec.command], [], [], [])
        last = [*l2i, "jobs", "reconcile", spec.id]  # It closes the run above the tasks.
        variables = spec.variables(self.name)
        if "OMP_NUM_THREADS" not in os.environ:
            variables = threads_of(spec) | variables
        return self._begin(spec, [process] * len(spec.tasks), variables, last)
