"""The process that keeps one job on this machine: it starts, watches and ends the job's tasks.

`l2i.launch.runner` starts it, ``python -m l2i.launch.keeper FOLDER``, and has the folder's layout.
Started again, it goes on with what is not over. No more than a queue of one machine has to be:
so many tasks at once, an attempt more where a task says so by its exit code or was killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from l2i.launch import processes
from l2i.launch.job import RUN_AGAIN, State, exit_sentence
from l2i.storage import FileLock, atomic_write_text

POLL_S = 0.2
"""Seconds between two looks at what tasks do."""


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


def task_record(folder: Path, index: int) -> dict[str, Any]:
    """How far a task is, as its file says: ``state``, ``attempt``, ``why``, ``exit_code``."""
    try:
        return json.loads((folder / "tasks" / f"{index}.json").read_text())
    except (OSError, ValueError):
        return {"state": State.WAITING, "attempt": 0, "why": "", "exit_code": None}


class _Keeper:
    """Starts, watches and ends the processes of one job."""

    def __init__(self, folder: Path) -> None:
        plan = json.loads((folder / "plan.json").read_text())
        self.folder = folder
        self.processes = [Process(**each) for each in plan["processes"]]
        self.attempts: int = plan["attempts"]
        self.timeout_s: int = plan["timeout_s"]
        self.parallel: int = plan["parallel"]
        self.last: list[str] = plan.get("last", [])
        self.states = [task_record(folder, n) for n in range(len(self.processes))]
        self.running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self.late: set[int] = set()
        self.told: dict[int, float] = {}
        self.stopping = False

    def _write(self, index: int, **changes: Any) -> None:
        self.states[index] |= changes
        path = self.folder / "tasks" / f"{index}.json"
        atomic_write_text(path, json.dumps(self.states[index]) + "\n")

    def keep(self) -> None:
        for index, state in enumerate(self.states):
            if not State(state["state"]).over and state["state"] != State.WAITING:
                # An earlier keeper began it, and both are gone.
                self._write(index, state=State.WAITING, why="", pid=None)
        while True:
            if not self.stopping and (self.folder / "cancelled").exists():
                self.stop()
            waiting = [n for n, s in enumerate(self.states) if s["state"] == State.WAITING]
            while waiting and not self.stopping and len(self.running) < self.parallel:
                self.start(waiting.pop(0))
            if not self.running and (self.stopping or not waiting):
                break
            self.watch()
            time.sleep(POLL_S)
        if not self.stopping and any(s["state"] != State.SUCCEEDED for s in self.states):
            _quietly(self.last)

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
                child = processes.start(
                    [word.replace("{attempt}", str(attempt)) for word in process.words],
                    {**os.environ, "L2I_TASK_INDEX": str(index), "L2I_TASK_ATTEMPT": str(attempt)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
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
                if now > self.told[index] + processes.GRACE_S:
                    processes.tell(child, signal.SIGKILL)
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
            processes.tell(self.running[index][0])

    def ended(self, index: int, code: int) -> None:
        process, state = self.processes[index], self.states[index]
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
        elif again and state["attempt"] < self.attempts:
            why = f"attempt {state['attempt']}: {how}"
            self._write(index, state=State.WAITING, why=why, exit_code=number)
        else:
            self._write(index, state=State.FAILED, why=how, exit_code=number)

    def stop(self) -> None:
        self.stopping = True
        for index in self.running:
            if index not in self.told:
                self.tell(index)
        for index, state in enumerate(self.states):
            if state["state"] == State.WAITING:
                self._write(index, state=State.CANCELLED, why="stopped")


def _quietly(words: Sequence[str]) -> str:
    if not words:
        return ""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


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
        for index in keeper.running:
            keeper.tell(index)
        processes.reap(child for child, _ in keeper.running.values())
        raise
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
