"""How far a job and its tasks are, and what a task's exit code says of how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["BUG", "RUN_AGAIN", "JobState", "State", "TaskState", "exit_sentence"]

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
