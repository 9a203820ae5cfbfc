"""What a run says, on this machine's disk first, and from there to a store that may be away.

A store on this machine keeps nothing twice. For any other (a tracking server, a database, an
S3-compatible store for artifacts) everything a run writes becomes an **event** in a file here::

    mlruns/work/outbox/<run id>/about.json      which store, which run
    mlruns/work/outbox/<run id>/events.jsonl    one event per line, in order
    mlruns/work/outbox/<run id>/sent            how many of them the store has
    mlruns/work/outbox/<run id>/files/<n>/      the files of event n

and a thread sends them in this order, with growing pauses while the store is away, so that
training neither waits nor fails. What is unsent when the run ends, or its process is killed, is
sent by ``l2i sync``, or by the next command that needs the store. An event may be sent twice (the
store took it, and went away before it said so), and counts once: of metrics the steps that the
store has are left out, all others replace what is there.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from l2i.errors import StoreError
from l2i.run.events import send_event
from l2i.run.store import Store, mask
from l2i.storage import FileLock, atomic_write_text, disk_errors, s3, write_json

UNSENT: list[str] = []
"""Sentences about what this process could not send; the command line ends with exit code 3."""

_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
# MLflow's codes for what another try would not mend.
_HOPELESS = {
    *("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"),
    *("UNAUTHENTICATED", "INVALID_STATE", "BAD_REQUEST", "ENDPOINT_NOT_FOUND"),
}


def _hopeless(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "error_code", None) in _HOPELESS:
            return True
        if getattr(seen, "errno", None) is not None and not isinstance(seen, ConnectionError):
            return True
        # A StoreError out of a ValueError: an address that can be none.
        if s3.is_hopeless(seen) or isinstance(seen.__cause__, ValueError):
            return True
        seen = seen.__cause__
    return False


class Outbox:
    """The events of one run.

    Attributes
    ----------
    folder : Path
    name : str
        The run's, as far as the folder says.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        self.folder = store.root / "work" / "outbox" / run_id
        self._events = self.folder / "events.jsonl"
        self._wake = threading.Condition()
        self._count = 0
        self._sent = 0
        self._unsure = True  # Whether the store may have an event that is not counted as sent.
        self._hopeless = ""
        self._thread: threading.Thread | None = None
        self._stop = False
        self._on_away: Any = None
        self.name = str(self.about.get("name", run_id))
        if self._events.exists():
            raw = self._events.read_bytes()
            whole = raw.rfind(b"\n") + 1
            if whole < len(raw):
                # A line that a crash cut was never promised to anybody.
                os.truncate(self._events, whole)
            self._count = raw[:whole].count(b"\n")
            with suppress(OSError, ValueError):
                self._sent = min(self._count, int((self.folder / "sent").read_text()))

    # --- keeping ----------------------------------------------------------------------------

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write down which run this is, for who finds the folder."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "about.json", {"store": mask(self._store.uri), **about})

    @property
    def about(self) -> dict[str, Any]:
        """What `describe` wrote; empty where that cannot be read."""
        try:
            facts: dict[str, Any] = json.loads((self.folder / "about.json").read_text())
        except (OSError, ValueError):
            return {}
        return facts

    @property
    def pending(self) -> int:
        """Events that the store does not have yet."""
        return self._count - self._sent

    @property
    def ends(self) -> str:
        """The status that the run ends with, where that is not sent yet; else empty."""
        ends = [str(event["data"]["status"]) for event in self.unsent() if event["kind"] == "end"]
        return ends[-1] if ends else ""

    def holds(self, folder: str) -> bool:
        """Whether files for this folder of the artifacts are not sent yet."""
        return any(e["kind"] == "files" and e["data"] == folder for e in self.unsent())

    def unsent(self) -> list[dict[str, Any]]:
        """The events that the store does not have yet."""
        return [event for _, event in self._read(self._sent)] if self.pending else []

    def add(self, kind: str, data: Any, source: Path | None = None) -> None:
        """Keep one event; on disk when this returns.

        Parameters
        ----------
        kind : str
            ``params``, ``metrics``, ``tags``, ``untag``, ``files``, ``remove``, ``inputs``,
            ``register`` or ``end``.
        data : JSON
        source : Path, optional
            For ``files``: a file, or a folder with all it holds; copied (or linked) here.
        """
        with disk_errors(self.folder):
            with self._wake:
                number = self._count + 1
            if source is not None:
                self._copy(source, self.folder / "files" / str(number))
            line = json.dumps({"kind": kind, "data": data}) + "\n"
            with self._wake:
                with open(self._events, "ab") as file:
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
                self._count = number
                self._wake.notify_all()

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        def link(a: str, b: str) -> None:
            try:
                os.link(a, b)
            except OSError:
                shutil.copy2(a, b)

        shutil.rmtree(target, ignore_errors=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=link)
        else:
            target.mkdir(parents=True)
            link(str(source), str(target / source.name))

    def _read(self, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
        with open(self._events, "rb") as file:
            for number, line in enumerate(file, start=1):
                if number > first and line.endswith(b"\n"):
                    yield number, json.loads(line)

    # --- sending ----------------------------------------------------------------------------

    def send(self) -> None:
        """Send what is pending, in order, as far as it goes.

        Raises
        ------
        StoreError
            The store is away, or refuses.
        """
        uri = str(self.about.get("artifact_uri", ""))
        for number, event in self._read(self._sent):
            files = self.folder / "files" / str(number)
            try:
                what = (event["kind"], event["data"], files)
                send_event(self._store, self.run_id, uri, *what, unsure=self._unsure)
            except BaseException:
                self._unsure = True
                raise
            self._unsure = False
            with self._wake:
                self._sent = number
                self._wake.notify_all()
            atomic_write_text(self.folder / "sent", f"{number}\n")
            shutil.rmtree(files, ignore_errors=True)

    def start(self, on_away: Any = None) -> None:
        """Send in the background from now on; `on_away` is called once, where the store is."""
        self._on_away = on_away
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        failures = 0
        while True:
            with self._wake:
                while not self._stop and (self._hopeless or not self.pending):
                    self._wake.wait()
                if self._stop:
                    return
            try:
                self.send()
                failures = 0
            except StoreError as error:
                if _hopeless(error):
                    self._hopeless = str(error)
                failures += 1
                if (failures == 2 or self._hopeless) and self._on_away is not None:
                    tell, self._on_away = self._on_away, None
                    tell(f"{error} What the run writes is kept here and sent later.")
                pause = _PAUSES_S[min(failures, len(_PAUSES_S)) - 1]
                with self._wake:
                    self._wake.notify_all()
                    if not self._stop:
                        self._wake.wait_for(lambda: self._stop, timeout=pause)
            except BaseException as error:  # A bug must not end as a silent thread.
                self._hopeless = f"{type(error).__name__}: {error}"
                with self._wake:
                    self._wake.notify_all()

    def close(self, wait_s: float) -> str:
        """Wait until all is sent, but not longer; then the thread is gone.

        Returns
        -------
        str
            Empty: all is sent, and the folder is gone. Else why not.
        """
        end = time.monotonic() + wait_s
        with self._wake:
            self._hopeless = ""
            self._wake.notify_all()
            while self.pending and not self._hopeless and time.monotonic() < end:
                self._wake.wait(timeout=max(0.0, min(1.0, end - time.monotonic())))
            why = self._hopeless or "the store is away"
            self._stop = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=15)
            self._thread = None
        if self.pending:
            return why
        shutil.rmtree(self.folder, ignore_errors=True)
        return ""


def outboxes(store: Store) -> list[Outbox]:
    """Those of this store, in a folder of this machine, the oldest first."""
    base = store.root / "work" / "outbox"
    if not base.is_dir():
        return []
    folders = sorted((p for p in base.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    pending = [Outbox(store, folder.name) for folder in folders]
    return [box for box in pending if box.about.get("store") == mask(store.uri)]


def sync(store: Store, wait_s: float) -> list[tuple[Outbox, str]]:
    """Send what earlier processes left; runs that are alive send for themselves.

    Each is given up where the store is away for more than `wait_s` seconds.

    Returns
    -------
    list of (Outbox, str)
        Each one that was looked at, and why not all of it could be sent (empty: it was).
    """
    outcomes = []
    for box in outboxes(store):
        lock = FileLock(store.lock(box.run_id))
        if not lock.take():
            continue
        try:
            box.start()
            outcomes.append((box, box.close(wait_s)))
        finally:
            lock.release()
        if not box.pending:
            with suppress(OSError):
                lock.path.unlink()
    return outcomes
