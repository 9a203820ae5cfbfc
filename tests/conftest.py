"""What every test has: a home of its own, no network, a run store in its own folder."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

# Small matrices: several threads would only wait for one another, and rounding would depend on
# how many there are. Before torch is imported, and for child processes too.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that: those of
# tests that press it must hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from l2i.metrics import METRICS
from tests.servers import s3  # noqa: F401  (fixture)
from tests.stores import _tables_made_once, child, say, store, template  # noqa: F401  (fixtures)

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, by its reason: what there is not on this machine is not tried."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count:4} {reason}")


def forget_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's variables, and those that MLflow sets by itself and leaves set."""
    for name in list(os.environ):
        if name.startswith(("L2I_", "MLFLOW_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's: neither caches, nor runs, nor variables; the same width for all."""
    home = tmp_path_factory.mktemp("home")
    forget_variables(monkeypatch)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("COLUMNS", "80")
    work = home / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture(autouse=True)
def _own_metrics() -> Iterator[None]:
    """A metric that a test brings along is none of the next test's."""
    known = set(METRICS)
    yield
    for name in METRICS.keys() - known:
        del METRICS[name]


@pytest.fixture(scope="session")
def esc10_dir() -> Path:
    """The 400 real clips of ESC-10, where they lie beside the project."""
    path = REPOSITORY.parent / "shared" / "datasets" / "ESC-10"
    if not path.is_dir():
        pytest.skip(f"ESC-10 is not there ({path}): tests on real clips are left out")
    return path
