"""What keeps processes on this machine: attempts, limits, ends, and its own end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import l2i
from l2i.errors import LaunchError
from l2i.launch.job import JobState, State
from l2i.launch.runner import Local, Process, begin, cancel, is_alive, job_state, log_lines
from l2i.launch.spec import JobSpec, Task


def _python(code: str) -> Process:
    return Process([sys.executable, "-c", code], [], [], [])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Begin a job of Python programs in a folder."""
    made: list[Path] = []

    def start(*codes: str, parallel: int = 0, timeout_s: int = 60, attempts: int = 3) -> Path:
        folder = tmp_path / "job"
        begin(
            folder,
            [_python(code) for code in codes],
            attempts=attempts,
            timeout_s=timeout_s,
            parallel=parallel,
            environment={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        made.append(folder)
        return folder

    yield start  # type: ignore[misc]
    for folder in made:
        cancel(folder)


def _until(folder: Path, true: Callable[[JobState], bool]) -> JobState:
    end = time.monotonic() + 60
    while not true(state := job_state(folder)):
        assert time.monotonic() < end, state
        time.sleep(0.05)
    return state


def _over(folder: Path) -> JobState:
    return _until(folder, lambda s: s.over and not is_alive(folder))


def test_ends_and_attempts(run: Callable[..., Path]) -> None:
    """Exit code 75 and a kill are tried again, up to the limit; anything else is not."""
    attempt = "import os, sys; n = int(os.environ['L2I_TASK_ATTEMPT']); "
    folder = run(
        "print('fine')",
        attempt + "print('attempt', n); sys.exit(75 if n < 3 else 0)",
        attempt + "n == 1 and os.kill(os.getpid(), 9)",
        "import sys; sys.exit(70)",
        "import sys; sys.exit(75)",
    )
    job = _over(folder)
    seen = [(t.state, t.attempt, t.exit_code) for t in job.tasks]
    assert seen == [
        (State.SUCCEEDED, 1, 0),
        (State.SUCCEEDED, 3, 0),
        (State.SUCCEEDED, 2, 0),
        (State.FAILED, 1, 70),
        (State.FAILED, 3, 75),
    ]
    assert job.tasks[3].why == "a bug (exit code 70)"
    assert job.state is State.FAILED and job.failed == [3, 4]
    lines = list(log_lines(folder, 1, wait=False))
    assert [x for x in lines if not x.startswith("---")] == [f"attempt {n}" for n in (1, 2, 3)]


def test_one_at_a_time(run: Callable[..., Path], tmp_path: Path) -> None:
    """No more at once than asked for."""
    code = (
        "import os, pathlib, time; p = pathlib.Path('busy'); assert not p.exists(); p.touch(); "
        "time.sleep(0.2); p.unlink()"
    )
    job = _over(run(code, code, code, parallel=1))
    assert [t.state for t in job.tasks] == [State.SUCCEEDED] * 3


def test_too_long(run: Callable[..., Path]) -> None:
    """An attempt that takes longer is told to stop, and is not tried again."""
    job = _over(run("import time; time.sleep(60)", timeout_s=1))
    assert job.tasks[0].state is State.FAILED
    assert "longer than timeout_s = 1" in job.tasks[0].why


def test_cancelled(run: Callable[..., Path]) -> None:
    """What runs is told by SIGTERM, what waits is not begun; cancelling again is no error."""
    folder = run("import time; time.sleep(60)", "print()", parallel=1)
    _until(folder, lambda s: s.tasks[0].state is State.RUNNING)
    assert job_state(folder).tasks[1].why == "1 at a time"
    cancel(folder)
    state = job_state(folder)
    assert [t.state for t in state.tasks] == [State.CANCELLED] * 2
    assert state.tasks[1].attempt == 0 and state.state is State.CANCELLED
    cancel(folder)


def test_begun_twice_is_once(run: Callable[..., Path]) -> None:
    """While it runs, and when it is over."""
    code = "import os; open('begun', 'a').write('x'); import time; time.sleep(0.5)"
    first = run(code)
    assert run(code) == first
    _over(first)
    run(code)
    assert not is_alive(first) and Path("begun").read_text() == "x"


def test_modules_of_the_current_folder_stay_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the keeper nor a local task runs a file there that is called as a module is; what
    PYTHONPATH names is found."""
    monkeypatch.chdir(tmp_path)
    for name in ("random", "json", "click"):
        Path(f"{name}.py").write_text("open('run', 'w'); raise SystemExit(9)\n")
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("open('own/found', 'a').write('x')\n")
    repository = Path(l2i.__file__).resolve().parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{own}{os.pathsep}{repository}")
    spec = JobSpec(
        name="version",
        command=("--version",),
        file="a.toml",
        config={},
        tasks=(Task(index=0, key="a", title="a"),),
    )
    engine = Local(tmp_path / "mlruns", {})
    job = engine.submit(spec)
    outcome = _over(tmp_path / "mlruns" / "work" / "jobs" / spec.id)
    assert [(t.state, t.exit_code) for t in outcome.tasks] == [(State.SUCCEEDED, 0)]
    assert f"l2i, version {l2i.__version__}" in list(engine.logs(job, 0))
    assert not Path("run").exists() and Path("own/found").read_text() == "xx"


def test_its_keeper_is_killed(run: Callable[..., Path]) -> None:
    """Its tasks end with it; the state says so; begun again, it goes on with what is not over."""
    code = "import os, time; n = int(os.environ['L2I_TASK_ATTEMPT']); n == 1 and time.sleep(60)"
    folder = run("print()", code, parallel=1)
    _until(folder, lambda s: s.tasks[1].state is State.RUNNING)
    pid = json.loads((folder / "tasks" / "1.json").read_text())["pid"]
    os.kill(int((folder / "lock").read_text()), signal.SIGKILL)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "zombie" not in _status(pid):
        assert time.monotonic() < end, "the task goes on without its keeper"
        time.sleep(0.05)
    state = job_state(folder)
    assert [t.state for t in state.tasks] == [State.SUCCEEDED, State.WAITING]
    assert "keeper is gone" in state.tasks[1].why
    run("print()", code, parallel=1)
    state = _over(folder)
    assert [(t.state, t.attempt) for t in state.tasks] == [
        (State.SUCCEEDED, 1),
        (State.SUCCEEDED, 2),
    ]


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "zombie"


def test_what_cannot_be_started(tmp_path: Path) -> None:
    """A program that is not there fails its task, with the reason; a folder without a job."""
    folder = tmp_path / "job"
    absent = Process(["/nowhere/l2i"], [], [], [])
    begin(folder, [absent], attempts=3, timeout_s=60, parallel=1, environment={})
    job = _over(folder)
    assert job.tasks[0].state is State.FAILED
    assert job.tasks[0].why == "/nowhere/l2i cannot be started: No such file or directory"
    with pytest.raises(LaunchError, match="There is no job in"):
        job_state(tmp_path)


@pytest.mark.parametrize(
    ("parallel", "told", "wanted"), [(2, "", "4"), (3, "", "2"), (1, "", None), (2, "7", "7")]
)
def test_tasks_share_the_cores(
    parallel: int, told: str, wanted: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of several at a time has its part of them, unless the user says how many threads."""
    monkeypatch.setattr("l2i.launch.runner.cpu_count", lambda n: 8 // n)
    monkeypatch.delenv("OMP_NUM_THREADS")
    seen: list[str | None] = []

    def begun(*_: object, environment: dict[str, str], **__: object) -> int:
        seen.append(environment.get("OMP_NUM_THREADS"))
        return 0

    monkeypatch.setattr("l2i.launch.runner.begin", begun)
    tasks = tuple(Task(index=i, key=str(i), title=str(i)) for i in range(3))
    spec = JobSpec(
        name="version",
        file="a.toml",
        config={},
        tasks=tasks,
        parallel=parallel,
        environment={"OMP_NUM_THREADS": told} if told else {},
    )
    Local(tmp_path / "mlruns", {}).submit(spec)
    assert seen == [wanted]
