"""Fixtures of the run store and the command line, which ``tests/conftest.py`` gives to all.

MLflow makes a store's tables once: all of its migrations take seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import l2i
from l2i.cli import main
from l2i.run import store as run_store
from l2i.run.store import Store, connect, locate


@pytest.fixture(scope="session", autouse=True)
def _tables_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A store that this process makes is a copy of the first one's empty tables."""
    tables = tmp_path_factory.mktemp("tables") / "mlflow.db"
    create = run_store._create

    def create_from_copy(store: Store) -> None:
        from mlflow.store.db import utils

        make = utils._initialize_tables

        def initialize(engine: Any) -> None:
            if tables.exists():
                engine.dispose()
                shutil.copy(tables, engine.url.database)
            else:
                make(engine)
                engine.dispose()
                shutil.copy(engine.url.database, tables)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_initialize_tables", initialize)
            create(store)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_store, "_create", create_from_copy)
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template")
    database = root / "mlflow.db"
    connect(Store(f"sqlite:///{database}", root, str(root / "artifacts"), False, database))
    return database


@pytest.fixture
def store(template: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store in ``mlruns/`` under the current folder; no figures of the machine."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    Path("mlruns").mkdir()
    shutil.copy(template, "mlruns/mlflow.db")
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


@dataclass(frozen=True)
class Said:
    """How a command line ended, and what it said."""

    code: Any
    out: str
    err: str


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command line in this process, as the console script would."""

    def run(*words: str) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(words))
        out, err = capsys.readouterr()
        return Said(end.value.code, out, err)

    return run
