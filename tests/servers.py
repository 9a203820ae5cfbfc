"""Servers that tests start, stop and kill: S3-compatible stores, an MLflow server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

AKID, SECRET = "AKIDTEST", "SECRETTESTSECRET"


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A process that listens at an address; it can be killed, paused and started again."""

    def __init__(self, command: list[str], port: int, env: dict[str, str] | None = None) -> None:
        self.command, self.port, self.env = command, port, env or {}
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            self.command,
            env={**os.environ, **self.env},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + 90
        while True:
            try:
                requests.get(self.url, timeout=5)
                return
            except requests.RequestException:
                assert self._process.poll() is None, f"{self.command[0]} ended"
                assert time.monotonic() < end, f"{self.command[0]} does not answer"
                time.sleep(0.05)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """End it on the spot (SIGKILL), with all its children."""
        if self._process is not None:
            if self._process.poll() is None:
                self._signal(signal.SIGCONT)
                self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def end(self) -> int:
        """End it in its own way (SIGTERM), with what it started; its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(timeout=60)
        self._process = None
        return code

    def pause(self) -> None:
        """It stays there, and answers nothing (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self._signal(signal.SIGCONT)


class S3(Server):
    """A real S3-compatible server, over a folder: bucket ``bucket`` is the folder of that name."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        (folder / "bucket").mkdir(parents=True, exist_ok=True)
        self.folder = folder
        rclone = str(Path(sys.executable).with_name("rclone"))
        super().__init__(
            [
                *(rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}"),
                *("--auth-key", f"{AKID},{SECRET}", "--vfs-cache-mode", "off"),
                str(folder),
            ],
            port,
            {"RCLONE_CONFIG": "/dev/null"},
        )


class Moto(Server):
    """moto's server: in memory, takes any key."""

    def __init__(self) -> None:
        port = free_port()
        moto = str(Path(sys.executable).with_name("moto_server"))
        super().__init__([moto, "-H", "127.0.0.1", "-p", str(port)], port)


class Mlflow(Server):
    """MLflow's tracking server, which keeps the artifacts, too.

    `tables`: an empty database, which it takes a copy of; without, it makes its own, in seconds.
    """

    def __init__(self, folder: Path, tables: Path | None = None) -> None:
        port = free_port()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if tables is not None:
            shutil.copy(tables, folder / "mlflow.db")
        super().__init__(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
                *("--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")),
            ],
            port,
            {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )


def point_at(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name a store, with the right keys."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AKID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A store with an empty bucket ``bucket``, which the environment names."""
    server = S3(tmp_path / "s3")
    try:
        server.start()
        point_at(server, monkeypatch)
        yield server
    finally:
        server.kill()
