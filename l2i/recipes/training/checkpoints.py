"""The last checkpoint, kept where another machine finds it.

A stage keeps its state on the disk of its machine (see `stage`). Where the store is elsewhere, the
machine may be gone tomorrow: then a copy goes to the run's artifacts every few minutes, and when
the run is stopped::

    checkpoint/<stage>-<signature>/state.safetensors     of the stage that was being trained
    checkpoint/<stage>-<signature>/<stage>.safetensors   of each that was finished

and the attempt that goes on with the run begins by fetching what its own disk has not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from l2i.errors import CheckpointError, StoreError
from l2i.models.checkpoint import load_checkpoint
from l2i.run.progress import Progress
from l2i.run.tracker import Tracker

_FOLDER = "checkpoint"


class Checkpoints:
    """Copies of a run's stages in its artifacts; made by `keep_checkpoints`."""

    def __init__(self, run: Tracker, minutes: float, progress: Progress) -> None:
        self._run = run
        self._work = run.folder.parent / "stages"
        self._every_s = 60 * minutes
        self._progress = progress
        self._last = time.monotonic()
        self._latest: tuple[Path, tuple[int, int]] | None = None
        self._sent: dict[Path, tuple[int, int]] = {}

    def fetch(self, stages: Mapping[str, str]) -> str:
        """Bring here what an earlier attempt left in the store, and this disk has not.

        Parameters
        ----------
        stages : mapping
            Name -> signature, in the order in which they are done.

        Returns
        -------
        str
            For people: the stage and the epoch that were fetched last; empty: none.
        """
        if not (self._run.resumed and self._run.is_remote):
            return ""
        latest = ""
        there = set(self._run.listed(_FOLDER))
        for name, signature in stages.items():
            word = f"{name}-{signature}"
            if word not in there or any((self._work / word).glob("*.safetensors")):
                continue
            files = self._run.listed(f"{_FOLDER}/{word}")
            file, kind = f"{name}.safetensors", name
            if file not in files:
                file, kind = "state.safetensors", "state"
            if file not in files:
                continue
            fetched = self._run.fetch(f"{_FOLDER}/{word}/{file}", self._work.parent / "fetched")
            try:
                _, document = load_checkpoint(fetched, kind)
            except CheckpointError as error:
                # Half of one is worth nothing, and no reason to stop: the stage begins anew.
                self._progress.say(f"The uploaded checkpoint of the {name} is of no use: {error}")
                continue
            target = self._work / word / file
            target.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(target)
            self._sent[target] = _mark(target)
            latest = f"{name}, epoch {len(document['history'])}"
            if kind != "state":
                latest = f"{name}, finished"
        return latest

    def saved(self, path: Path) -> None:
        """A stage has written this file: its state after an epoch, or its result."""
        self._latest = (path, _mark(path))
        due = time.monotonic() - self._last >= self._every_s
        # While the store is away, copies of every few minutes would pile up on the disk.
        if path.name != "state.safetensors" or (
            due and not self._run.is_sending(f"{_FOLDER}/{path.parent.name}")
        ):
            self._send()

    def _send(self) -> None:
        if self._latest is None or not self._run.is_remote or not self._every_s:
            return
        path, mark = self._latest
        if self._sent.get(path) == mark or not path.exists():
            return
        self._run.artifact(path, f"{_FOLDER}/{path.parent.name}")
        self._sent[path] = mark
        self._last = time.monotonic()

    def done(self) -> None:
        """The run is finished, and has its model: checkpoints are of no more use."""
        if self._run.is_remote and (self._sent or self._run.resumed):
            self._run.remove_artifacts(_FOLDER)


def _mark(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@contextmanager
def keep_checkpoints(run: Tracker, minutes: float, progress: Progress) -> Iterator[Checkpoints]:
    """Keep copies while the block runs, and one more where it is stopped.

    Parameters
    ----------
    run : Tracker
    minutes : float
        Between copies; 0: none.
    progress : Progress
    """
    checkpoints = Checkpoints(run, minutes, progress)
    try:
        yield checkpoints
    except BaseException:
        with suppress(StoreError, OSError):
            checkpoints._send()
        raise
