"""What a run says while it is done: parameters, metrics, tags, files; see `l2i.run.tracker`."""

from __future__ import annotations

import json
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from l2i.run.address import Store, as_text, kept_tag, known_tags, local_path, mask
from l2i.run.artifacts import fetch_artifact, list_artifacts
from l2i.run.events import send_event
from l2i.run.outbox import UNSENT, Outbox
from l2i.run.runs import mount_namespace
from l2i.run.store import connect, store_errors
from l2i.storage import FileLock, is_output, mark_output
from l2i.storage.patience import patience_s

# Often enough for a run of three minutes, seldom enough to cost nothing.
_SYSTEM_INTERVAL_S = 5.0
STOPPED_WAIT_S = 5.0
"""How long a run that was stopped or failed waits for its store, before it leaves the rest to
`l2i sync`: who stops a container kills it after ten."""


class Tracker:
    """A run that is being written; made by `open_run`.

    Attributes
    ----------
    run_id, experiment_id, name : str
    resumed : bool
        Whether an earlier process began this run.
    folder : Path
        The run's own local folder, for checkpoints; the same one after a resume.
    """

    def __init__(
        self,
        store: Store,
        run: Any,
        *,
        folder: Path,
        lock: FileLock,
        resumed: bool,
        stopped_wait_s: float,
    ) -> None:
        self._store = store
        self._lock = lock
        self._artifact_uri: str = run.info.artifact_uri
        remote = store.database is None or local_path(self._artifact_uri) is None
        self._outbox = Outbox(store, run.info.run_id) if remote else None
        self._stopped_wait_s = stopped_wait_s
        self._monitor: Any = None
        self._params: dict[str, str] = dict(run.data.params)
        self._tags: dict[str, str] = known_tags(run.data.tags)
        self._last: dict[str, tuple[int, float]] = {}
        self.run_id: str = run.info.run_id
        self.experiment_id: str = run.info.experiment_id
        self.name: str = run.info.run_name
        self.resumed = resumed
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not is_output(store.root):
            mark_output(store.root)
        if resumed:
            with store_errors(store, "read"):
                for key in run.data.metrics:
                    if not key.startswith("system/"):
                        history = connect(store).get_metric_history(self.run_id, key)
                        last = max(history, key=lambda m: m.step)
                        self._last[key] = (last.step, last.value)
        for event in self._outbox.unsent() if self._outbox is not None else ():
            if event["kind"] == "metrics":
                self._last.update({key: (step, value) for key, value, _, step in event["data"]})

    def _put(self, kind: str, data: Any, files: Path | None = None) -> None:
        if self._outbox is not None:
            self._outbox.add(kind, data, files)
            return
        send_event(self._store, self.run_id, self._artifact_uri, kind, data, files or Path())

    def params(self, values: Mapping[str, Any]) -> None:
        """Write parameters once.

        MLflow keeps the first value of a parameter for ever. Where a resumed run has another
        one (of a setting that does not change the science, such as the device), the first stays
        and the change is noted in the tag ``l2i.changed_params``.
        """
        texts = {key: as_text(value) for key, value in values.items()}
        new = {key: text for key, text in texts.items() if key not in self._params}
        changed = [
            f"{key}: {self._params[key]} -> {text}"
            for key, text in texts.items()
            if self._params.get(key, text) != text
        ]
        if new:
            self._put("params", new)
        self._params.update(new)
        if changed:
            self.tags({"l2i.changed_params": "; ".join(changed)})

    def metrics(self, stage: str, step: int, values: Mapping[str, float | None]) -> None:
        """Write the figures of one step of a stage, on disk when this returns.

        Parameters
        ----------
        stage : str
            They are called ``<stage>/<name>``.
        step : int
            The epoch, from 1. A step that the store already has is left as it is.
        values : mapping of str to float
            None is left out; infinite and NaN are kept, since they are worth seeing.
        """
        full = {f"{stage}/{name}": value for name, value in values.items()}
        new = {
            key: float(value)
            for key, value in full.items()
            if value is not None and (key not in self._last or step > self._last[key][0])
        }
        self._write(new, step)

    def final(self, values: Mapping[str, float | None]) -> None:
        """Write final figures under their own names, ``test/accuracy`` say, without a step."""
        for key, value in values.items():
            if value is None:
                continue
            number, (step, known) = float(value), self._last.get(key, (-1, None))
            same = known is not None and math.isnan(known) and math.isnan(number)
            if known != number and not same:
                # The store shows the value of the highest step, so the newer one goes after it.
                self._write({key: number}, step + 1)

    def _write(self, values: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        if values:
            self._put("metrics", [[key, value, now, step] for key, value in values.items()])
            # MLflow shows figures in the order in which they came first: the machine's come last.
            self._watch()
        self._last.update({key: (step, value) for key, value in values.items()})

    def tags(self, values: Mapping[str, Any]) -> None:
        """Write tags; a later value replaces an earlier one."""
        texts = {key: as_text(value) for key, value in values.items()}
        if texts:
            self._put("tags", {kept_tag(k): text for k, text in texts.items()})
        self._tags.update(texts)

    def input(self, name: str, digest: str, source: str) -> None:
        """Say which data set this run is about.

        Parameters
        ----------
        name, digest : str
            MLflow shows the first of these, and at most 36 characters of the digest.
        source : str
            Where the data come from, for people.
        """
        data = {
            "name": name,
            "digest": digest[:36],
            "source_type": "external",
            "source": json.dumps({"uri": mask(source)}),
        }
        self._put("inputs", data)

    def register(self, name: str, path: str) -> None:
        """Make the model in the folder `path` of the artifacts a version of the registered model
        `name`, which is made where there is none."""
        self._put("register", {"name": name, "path": path})

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Keep a copy of one file, or of all that a local folder holds, under the run's artifacts,
        in `folder` there."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(path)  # A bug of the caller's, not the store's fault.
        self._put("files", folder, path)

    @property
    def is_remote(self) -> bool:
        """Whether what the run writes leaves this machine."""
        return self._outbox is not None

    def is_sending(self, folder: str) -> bool:
        """Whether artifacts for `folder` are still on their way."""
        return self._outbox is not None and self._outbox.holds(folder)

    def remove_artifacts(self, folder: str) -> None:
        """Remove a folder of the run's artifacts, where the store lets us."""
        self._put("remove", folder)

    def listed(self, folder: str) -> list[str]:
        """Names of the artifacts in a folder of the run's, as the store has them."""
        paths = list_artifacts(self._store, self.run_id, self._artifact_uri, folder)
        return [path.rpartition("/")[2] for path in paths]

    def fetch(self, path: str, target: Path) -> Path:
        """Bring one artifact of the run's into a folder of this machine."""
        return fetch_artifact(self._store, self.run_id, self._artifact_uri, path, target)

    def begin(self, tags: Mapping[str, Any], on_away: Callable[[str], None] | None) -> None:
        """Say whose it is, and send what it writes from now on; called by `open_run`."""
        if self._outbox is not None:
            self._outbox.describe(
                {"run_id": self.run_id, "name": self.name, "artifact_uri": self._artifact_uri}
            )
            self._outbox.start(on_away)
        count = int(self._tags.get("l2i.resumed", "0")) + 1 if self.resumed else 0
        self.tags(
            {
                **tags,
                "l2i.host": platform.node(),
                "l2i.mounts": mount_namespace(),
                "l2i.lock": str(self._lock.path),
                **({"l2i.resumed": str(count)} if self.resumed else {}),
            }
        )
        if self._last:
            self._watch()

    def _watch(self) -> None:
        """Measure the machine from now on, unless that is done or not wanted."""
        wanted = os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() != "false"
        if self._monitor is not None or not wanted:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.run_id,
            sampling_interval=_SYSTEM_INTERVAL_S,
            resume_logging=self.resumed,
            tracking_uri=self._store.uri,
        )
        self._monitor.start()

    def end(self, status: str, reason: str = "") -> None:
        """Close it, and wait for what is not sent; called by `open_run`."""
        if self._monitor is not None:
            # A store that hangs must not keep the process from ending.
            stopper = threading.Thread(target=self._monitor.finish, daemon=True)
            stopper.start()
            stopper.join(timeout=15)
            self._monitor = None
        try:
            if reason:
                self.tags({"l2i.error": reason})
            elif status == "FINISHED" and "l2i.error" in self._tags:
                self._put("untag", "l2i.error")
            self._put("end", {"status": status, "time": time.time_ns() // 1_000_000})
            if self._outbox is not None:
                done = status == "FINISHED"
                why = self._outbox.close(patience_s() if done else self._stopped_wait_s)
                if why and done:
                    UNSENT.append(
                        f"Run {self.name} ({self.run_id[:8]}) is done, and not all of it could be "
                        f"sent: {why.rstrip('.')}. It is kept in {self._outbox.folder}; "
                        "'l2i sync' sends it."
                    )
        finally:
            if status == "FINISHED":
                with suppress(OSError):
                    self._lock.path.unlink()
            self._lock.release()
