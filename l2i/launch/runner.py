"""What keeps a job's processes on this machine: those of ``local``, the containers of ``docker``.

One process per job, which the terminal that began it does not end::

    mlruns/work/jobs/<id>/plan.json          what to start
    mlruns/work/jobs/<id>/tasks/<n>.json     how far task n is
    mlruns/work/jobs/<id>/tasks/<n>.log      what it said, of all attempts
    mlruns/work/jobs/<id>/lock               held while the process lives
    mlruns/work/jobs/<id>/cancelled          somebody wants no more of it

Started again, it goes on with what is not over. No more than a queue of one machine has to be:
so many tasks at once, an attempt more where a task says so by its exit code or was killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from l2i.errors import LaunchError
from l2i.launch.job import (
    RUN_AGAIN,
    Job,
    JobSpec,
    JobState,
    State,
    TaskState,
    exit_sentence,
    find_job,
    keep_job,
)
from l2i.storage import FileLock, atomic_write_text, disk_errors

__all__ = ["KeptHere", "Process", "begin", "cancel", "is_alive", "job_state", "log_lines"]

# What a task that is told to stop has for its last checkpoint; Batch gives as much.
GRACE_S = 30.0
_POLL_S = 0.2


@dataclass(frozen=True)
class Process:
    """What one task starts.

    Attributes
    ----------
    words : list of str
        ``{attempt}`` stands for the number of the attempt.
    stop : list of str
        A command that asks it to end; empty: SIGTERM to the process.
    probe : list of str
        A command that says ``true`` where the memory did not suffice; empty: nobody knows.
    clear : list of str
        A command that removes what an attempt left.
    """

    words: list[str]
    stop: list[str]
    probe: list[str]
    clear: list[str]


def begin(
    folder: Path,
    processes: Sequence[Process],
    *,
    attempts: int,
    timeout_s: int,
    parallel: int,
    environment: Mapping[str, str],
) -> int:
    """Start what keeps a job, unless it is there already or has nothing left to do.

    Parameters
    ----------
    folder : Path
        The job's.
    processes : sequence of Process
        One per task.
    attempts, timeout_s, parallel : int
        As in `l2i.launch.job.JobSpec`; `parallel` 0: all at once.
    environment : mapping
        Added to this process's own, which may hold secrets and is not written down.

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
                [sys.executable, "-P", "-m", "l2i.launch.runner", str(folder)],
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


def _task(folder: Path, index: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "tasks" / f"{index}.json").read_text())
        return found
    except (OSError, ValueError):
        return {"state": State.WAITING, "attempt": 0, "why": "", "exit_code": None}


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
        found = _task(folder, index)
        state, why = State(found["state"]), found["why"]
        if not alive and not state.over:
            # Its keeper is gone: the machine was restarted, or somebody killed it.
            state = State.CANCELLED if stopped else State.WAITING
            why = "stopped" if stopped else "its keeper is gone; 'l2i submit' again goes on"
        elif state is State.WAITING and alive and not why:
            why = f"{plan['parallel']} at a time"
        log = str(folder / "tasks" / f"{index}.log")
        tasks.append(TaskState(index, state, found["attempt"], why, found["exit_code"], log))
    return JobState(tuple(tasks))


def cancel(folder: Path) -> None:
    """End a job, and wait until its processes are gone."""
    if not (folder / "plan.json").exists():
        return
    if is_alive(folder):
        with disk_errors(folder):
            atomic_write_text(folder / "cancelled", datetime.now(UTC).isoformat() + "\n")
        end = time.monotonic() + GRACE_S + 15
        while is_alive(folder) and time.monotonic() < end:
            time.sleep(_POLL_S)
        if is_alive(folder) and (pid := _pid(folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return
    if not job_state(folder).over:
        with disk_errors(folder):
            atomic_write_text(folder / "cancelled", datetime.now(UTC).isoformat() + "\n")


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
        time.sleep(_POLL_S)


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

    def _known(self, spec: JobSpec) -> Job | None:
        """This very job, where it was begun before."""
        try:
            return find_job(self._root, spec.id)
        except LaunchError:
            return None

    def _begin(
        self, spec: JobSpec, processes: Sequence[Process], environment: Mapping[str, str]
    ) -> Job:
        """Begin the tasks; a job whose keeper is gone goes on."""
        known = self._known(spec)
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


# --- the keeper ---------------------------------------------------------------------------------


class _Keeper:
    """Starts, watches and ends the processes of one job."""

    def __init__(self, folder: Path) -> None:
        plan = json.loads((folder / "plan.json").read_text())
        self.folder = folder
        self.processes = [Process(**each) for each in plan["processes"]]
        self.attempts: int = plan["attempts"]
        self.timeout_s: int = plan["timeout_s"]
        self.parallel: int = plan["parallel"]
        self.states = [_task(folder, n) for n in range(len(self.processes))]
        self.running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self.late: set[int] = set()
        self.told: dict[int, float] = {}
        self.stopping = False

    def _write(self, index: int, **changes: Any) -> None:
        self.states[index] |= changes
        path = self.folder / "tasks" / f"{index}.json"
        atomic_write_text(path, json.dumps(self.states[index]) + "\n")

    def keep(self) -> None:
        for index, found in enumerate(self.states):
            if not State(found["state"]).over and found["state"] != State.WAITING:
                # An earlier keeper began it, and both are gone.
                self._write(index, state=State.WAITING, why="", pid=None)
        while True:
            if not self.stopping and (self.folder / "cancelled").exists():
                self.stop()
            waiting = [n for n, s in enumerate(self.states) if s["state"] == State.WAITING]
            while waiting and not self.stopping and len(self.running) < self.parallel:
                self.start(waiting.pop(0))
            if not self.running and (self.stopping or not waiting):
                return
            self.watch()
            time.sleep(_POLL_S)

    def start(self, index: int) -> None:
        process, attempt = self.processes[index], self.states[index]["attempt"] + 1
        _quietly(process.clear)
        path = self.folder / "tasks" / f"{index}.log"
        with open(path, "ab") as log:
            log.write(
                f"--- attempt {attempt}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode()
            )
            log.flush()
            try:
                child = subprocess.Popen(
                    [word.replace("{attempt}", str(attempt)) for word in process.words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={
                        **os.environ,
                        "L2I_TASK_INDEX": str(index),
                        "L2I_TASK_ATTEMPT": str(attempt),
                    },
                    start_new_session=True,
                    preexec_fn=_die_with_keeper,
                )
            except OSError as error:
                why = f"{process.words[0]} cannot be started: {error.strerror}"
                self._write(index, state=State.FAILED, attempt=attempt, why=why)
                return
        self.running[index] = (child, time.monotonic())
        self._write(index, state=State.RUNNING, attempt=attempt, why="", pid=child.pid)

    def watch(self) -> None:
        for index, (child, begun) in list(self.running.items()):
            code = child.poll()
            now = time.monotonic()
            if code is not None:
                del self.running[index]
                self.told.pop(index, None)
                self.ended(index, code)
            elif index in self.told:
                if now > self.told[index] + GRACE_S:
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
                    _quietly(self.processes[index].clear)
            elif now > begun + self.timeout_s:
                self.late.add(index)
                self.tell(index)

    def tell(self, index: int) -> None:
        """Ask a task to end."""
        self.told[index] = time.monotonic()
        stop = self.processes[index].stop
        if stop:
            subprocess.Popen(stop, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            with suppress(ProcessLookupError):
                os.killpg(self.running[index][0].pid, signal.SIGTERM)

    def ended(self, index: int, code: int) -> None:
        process, found = self.processes[index], self.states[index]
        memory = _quietly(process.probe).strip() == "true"
        _quietly(process.clear)
        number = 128 - code if code < 0 else code
        killed = number == 128 + signal.SIGKILL
        again = (number == RUN_AGAIN or killed) and not memory
        how = "it needed more than its memory_mib" if memory else exit_sentence(number)
        if code == 0:
            self._write(index, state=State.SUCCEEDED, why="", exit_code=0)
        elif self.stopping:
            self._write(index, state=State.CANCELLED, why="stopped", exit_code=number)
        elif index in self.late:
            why = f"it took longer than timeout_s = {self.timeout_s}"
            self._write(index, state=State.FAILED, why=why, exit_code=number)
        elif again and found["attempt"] < self.attempts:
            why = f"attempt {found['attempt']}: {how}"
            self._write(index, state=State.WAITING, why=why, exit_code=number)
        else:
            self._write(index, state=State.FAILED, why=how, exit_code=number)

    def stop(self) -> None:
        self.stopping = True
        for index in self.running:
            if index not in self.told:
                self.tell(index)
        for index, found in enumerate(self.states):
            if found["state"] == State.WAITING:
                self._write(index, state=State.CANCELLED, why="stopped")


def _quietly(words: Sequence[str]) -> str:
    if not words:
        return ""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _die_with_keeper() -> None:
    """No task goes on unseen, and beside the one that the next keeper starts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _main(folder: Path) -> int:
    end = time.monotonic() + 5
    # Whoever looks whether it is held holds it for an instant.
    lock = FileLock(folder / "lock")
    while not lock.take():
        if time.monotonic() > end:
            return 0
        time.sleep(0.05)
    lock.path.write_text(str(os.getpid()))
    keeper = _Keeper(folder)

    def stop(_number: int, _frame: object) -> None:
        # A signal of the machine, say. What is running ends, and a later submit goes on.
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, stop)
    try:
        keeper.keep()
    except SystemExit:
        for index in list(keeper.running):
            keeper.tell(index)
        end = time.monotonic() + GRACE_S
        while keeper.running and time.monotonic() < end:
            for index, (child, _) in list(keeper.running.items()):
                if child.poll() is not None:
                    del keeper.running[index]
            time.sleep(_POLL_S)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
