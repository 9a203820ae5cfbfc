"""A fresh run store for a test, copied from one that is made once (making one takes seconds).

A test module that wants it says ``pytest_plugins = ["tests.stores"]``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import l2i
from l2i.run.store import Store, connect, locate


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    database = root / "mlflow.db"
    connect(Store(f"sqlite:///{database}", root, str(root / "artifacts"), False, database))
    return database


@pytest.fixture
def store(_template: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store in ``mlruns/`` under the current folder; no figures of the machine."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    Path("mlruns").mkdir()
    shutil.copy(_template, "mlruns/mlflow.db")
    return locate()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], subprocess.Popen[str]]:
    """Start another Python in the current folder, with this package; it is ended with the test."""
    monkeypatch.setenv("PYTHONPATH", str(Path(l2i.__file__).resolve().parent.parent))
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")

    def start(code: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )

    return start
