"""Runs in a PostgreSQL database: a real server, where this machine has one."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2i.run.outbox import UNSENT, outboxes
from l2i.run.runs import list_runs, resolve_run
from l2i.run.store import connect, locate
from l2i.run.tracker import open_run
from tests.servers import free_port


def _programs() -> Path | None:
    places = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if program := shutil.which("initdb"):
        places.append(Path(program).resolve())
    return max(places).parent if places else None


class Postgres:
    """A server over a folder of its own; not as root, which it refuses."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.port, self._data, self._programs = free_port(), folder / "data", programs
        self._user = None
        if os.geteuid() == 0:
            self._user = "postgres"
            owner = pwd.getpwnam(self._user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            for parent in folder.parents:  # pytest's folders are closed to others.
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        self._process: subprocess.Popen[bytes] | None = None
        words = ["initdb", "-D", str(self._data), "-U", "me", "-A", "trust", "-E", "UTF8"]
        subprocess.run([str(programs / words[0]), *words[1:]], check=True, **self._how())

    def _how(self) -> dict[str, object]:
        return {"user": self._user, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *(str(self._programs / "postgres"), "-D", str(self._data)),
                *("-p", str(self.port), "-k", str(self._data), "-h", "127.0.0.1"),
                *("-c", "fsync=off"),
            ],
            **self._how(),
        )
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        end = time.monotonic() + 60
        while subprocess.run(ready, **self._how()).returncode:
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it on the spot, as far as a database may be: at once, without waiting for anyone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)
            self._process = None


@pytest.fixture
def postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postgres]:
    """An empty server, which the environment names."""
    programs = _programs()
    if programs is None:
        pytest.skip("this machine has no PostgreSQL (Debian's package postgresql)")
    folder = tmp_path / "postgres"
    folder.mkdir()
    server = Postgres(folder, programs)
    try:
        server.start()
        address = f"postgresql://me:secret@127.0.0.1:{server.port}/postgres"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        monkeypatch.setattr("l2i.run.store._clients", {})
        yield server
    finally:
        server.kill()


def test_a_run_in_a_database_that_goes_away(postgres: Postgres, tmp_path: Path) -> None:
    """Made, written, the server killed amid it and back: every step is there once, and the
    artifact where the store says."""
    sentences: list[str] = []
    note = tmp_path / "note.txt"
    note.write_text("x")
    with open_run(experiment="demo", name="first", signature="a", on_away=sentences.append) as run:
        run.params({"run.seed": 0})
        run.metrics("interpreter", 1, {"loss": 1.0})
        postgres.kill()
        for step in (2, 3, 4):
            run.metrics("interpreter", step, {"loss": 1 / step})
        run.artifact(note, "notes")
        while not sentences:
            time.sleep(0.05)
        postgres.start()
    assert not UNSENT and not outboxes(locate())
    assert len(sentences) == 1 and "secret" not in sentences[0]
    (listed,) = list_runs()
    assert listed.status == "FINISHED" and listed.params == {"run.seed": "0"}
    history = connect(locate()).get_metric_history(listed.id, "interpreter/loss")
    assert [(m.step, m.value) for m in history] == [(n, 1 / n) for n in (1, 2, 3, 4)]
    assert (Path(listed.artifact_uri.removeprefix("file://")) / "notes" / "note.txt").is_file()
    assert resolve_run("first").id == listed.id
