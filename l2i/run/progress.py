"""How far a run is: bars on a terminal, timed lines elsewhere, nothing when quiet.

All of it goes to stderr, so that what a command answers can be piped. rich is imported only
where there is a terminal; where it is not installed, a terminal gets lines.

::

    progress = Progress()
    progress.say("Learning the interpreter on 320 clips.")
    with progress.task("interpreter", total=35, unit="epoch") as task:
        for epoch in range(1, 36):
            ...
            task.advance(note=f"fidelity {fidelity:.2f}")
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TextIO

_EVERY_S = 10.0
# What another process says of a task of its own, where it has no terminal.
_LINE = re.compile(r"(.+): ([\d.]+)(?:/([\d.]+))? \w+, (.*)")


def duration(seconds: float) -> str:
    """A span of time for people.

    >>> duration(0.042), duration(7.26), duration(75), duration(3700)
    ('0.04 s', '7.3 s', '1 min 15 s', '1 h 01 min')
    """
    if seconds < 0.995:  # What would be rounded up to the next unit is shown in that unit.
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _units(n: float, unit: str) -> str:
    """The unit's word for so many of it; MB are MB."""
    return unit if n == 1 or unit.isupper() else f"{unit}s"


def _rate(per_s: float, unit: str) -> str:
    if per_s <= 0:
        return ""
    return f"{per_s:.1f} {unit}/s" if per_s >= 1 else f"{1 / per_s:.1f} s/{unit}"


@dataclass(eq=False)
class Task:
    """One thing that goes on; made by `Progress.task`.

    Attributes
    ----------
    done : float
        Units done, those before a resume included.
    total : float or None
    """

    name: str
    total: float | None
    unit: str
    done: float
    _show: Callable[[Task, str], None]

    def __post_init__(self) -> None:
        self._first = self.done
        self._start = time.monotonic()

    def advance(self, n: float = 1, note: str = "") -> None:
        """`n` more units are done; `note` is shown beside them."""
        self.done += n
        self._show(self, note)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the task began in this process."""
        return time.monotonic() - self._start

    def line(self, note: str = "") -> str:
        """The state in one line, for where there is no terminal."""
        count = f"{self.done:g}" + (f"/{self.total:g}" if self.total is not None else "")
        of = self.done if self.total is None else self.total
        words = [f"{self.name}: {count} {_units(of, self.unit)}"]
        rate = (self.done - self._first) / self.elapsed_s if self.elapsed_s > 0 else 0.0
        if rate > 0:
            words.append(_rate(rate, self.unit))
            if self.total is not None and self.done < self.total:
                words.append(f"about {duration((self.total - self.done) / rate)} left")
        if self.total is not None and self.done >= self.total:
            words.append(f"done in {duration(self.elapsed_s)}")
        if note:
            words.append(note)
        return ", ".join(words)


class Progress:
    """Where a recipe says how far it is.

    Parameters
    ----------
    quiet : bool
        Say nothing at all.
    stream : text file, optional
        By default stderr.
    every_s : float
        Seconds between lines where there is no terminal.
    """

    def __init__(
        self, quiet: bool = False, stream: TextIO | None = None, every_s: float = _EVERY_S
    ) -> None:
        self.quiet = quiet
        self._stream = stream
        self._every_s = every_s
        self._bars: Any = None
        self._depth = 0

    @property
    def _out(self) -> TextIO:
        return self._stream or sys.stderr  # Looked up late: tests and shells replace it.

    @property
    def _is_terminal(self) -> bool:
        return self._out.isatty() and os.environ.get("TERM", "") != "dumb"

    def say(self, sentence: str) -> None:
        """One line, above the bars where there are any."""
        if self.quiet:
            return
        if self._bars is not None:
            self._bars.console.print(sentence, markup=False, highlight=False)
        else:
            print(sentence, file=self._out, flush=True)

    @contextmanager
    def task(
        self, name: str, total: float | None = None, unit: str = "step", done: float = 0
    ) -> Iterator[Task]:
        """A thing that goes on while the block runs; tasks may be nested.

        Parameters
        ----------
        name, unit : str
            For people: ``"interpreter"``, ``"epoch"``; of one.
        total : float, optional
            Units in all; None where nobody knows.
        done : float
            Units that an earlier process has done.
        """
        if self.quiet:
            yield Task(name, total, unit, done, lambda task, note: None)
        elif self._is_terminal and find_spec("rich") is not None:
            with self._bar(name, total, unit, done) as (task, _, _):
                yield task
        else:
            yield from self._lines(name, total, unit, done)

    @contextmanager
    def once_begun(self, name: str, unit: str = "step") -> Iterator[Callable[[float], Task]]:
        """A task that begins with its first unit: where nothing is to be done, nothing is shown.

        Yields a function from the units in all to the task, which is made when it is first called.
        """
        with ExitStack() as stack:
            begun: list[Task] = []

            def task(total: float) -> Task:
                if not begun:
                    begun.append(stack.enter_context(self.task(name, total, unit)))
                return begun[0]

            yield task

    @contextmanager
    def watch(self, name: str) -> Iterator[Callable[[str], None]]:
        """Another process that goes on while the block runs: yields what shows its latest line.

        Its line is one of `Task.line`; on a terminal it is a bar of its own, which goes away with
        the block.
        """
        if self.quiet:
            yield lambda line: None
            return
        if self._is_terminal and find_spec("rich") is not None:
            with self._bar(name, None, "", 0, leave=False) as (_, bars, bar):
                latest = ""

                def show(line: str) -> None:
                    nonlocal latest
                    if line == latest or not (match := _LINE.match(line)):
                        return
                    latest = line
                    what, done, total, rest = match.groups()
                    left = next((w for w in rest.split(", ") if w.endswith(" left")), "")
                    bars.update(
                        bar,
                        description=f"{name}, {what}",
                        completed=float(done),
                        total=float(total) if total else None,
                        note=left,
                        refresh=True,
                    )

                yield show
            return
        last, before = time.monotonic(), ""

        def tell(line: str) -> None:
            nonlocal last, before
            now = time.monotonic()
            if line != before and now - last >= 6 * self._every_s:
                last, before = now, line
                print(f"{name}: {line}", file=self._out, flush=True)

        yield tell

    def _lines(self, name: str, total: float | None, unit: str, done: float) -> Iterator[Task]:
        last = time.monotonic()
        latest = ""

        def show(task: Task, note: str) -> None:
            nonlocal last, latest
            latest = note
            now = time.monotonic()
            over = task.total is not None and task.done >= task.total
            if over or now - last >= self._every_s:
                last = now
                print(task.line(note), file=self._out, flush=True)

        task = Task(name, total, unit, done, show)
        yield task
        # A task whose end is not known, or that stopped early, still says where it ended.
        if task.done > done and (task.total is None or task.done < task.total):
            count = f"{task.done:g} {_units(task.done, unit)}"
            print(
                f"{name}: {count}, done in {duration(task.elapsed_s)}"
                + (f", {latest}" if latest else ""),
                file=self._out,
                flush=True,
            )

    @contextmanager
    def _bar(
        self, name: str, total: float | None, unit: str, done: float, *, leave: bool = True
    ) -> Iterator[tuple[Task, Any, Any]]:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(file=self._out),
            )
            self._bars.start()
        bars = self._bars
        self._depth += 1
        bar = bars.add_task(name, total=total, completed=done, note="", rate="")

        def show(task: Task, note: str) -> None:
            rate = (task.done - done) / task.elapsed_s if task.elapsed_s > 0 else 0.0
            bars.update(bar, completed=task.done, note=note, rate=_rate(rate, unit))

        try:
            yield Task(name, total, unit, done, show), bars, bar
        finally:
            if not leave:
                bars.remove_task(bar)
            self._depth -= 1
            if self._depth == 0:
                # Bars that are over stay on the screen; the next task begins below them.
                bars.stop()
                self._bars = None
