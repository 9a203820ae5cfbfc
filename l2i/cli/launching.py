"""What the commands about jobs share: where jobs are kept, their tables, watching one; and runs
that say RUNNING, held against the engines that should be doing them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from l2i.cli.base import emit_table
from l2i.errors import L2IError, LaunchError, StoreError
from l2i.run.family import close_run, members
from l2i.run.runs import running
from l2i.run.search import RunInfo
from l2i.run.store import locate

if TYPE_CHECKING:
    from l2i.launch.job import Job, JobState, Launcher

_POLL_S = 2.0
# A parent run is made with its job, which may wait in a queue that cannot be asked from here.
_QUEUED_S = 86_400.0


def root() -> Path:
    """The store's local folder, which also keeps jobs."""
    return locate().root


def launcher_of(job: Job) -> Launcher:
    """The engine of a job, where the job is."""
    from l2i.launch import ENGINES

    return ENGINES[job.engine](root(), job.place)


def job_of(word: str) -> tuple[Job, Launcher]:
    """The job that a word names, and its engine."""
    from l2i.launch.job import find_job

    job = find_job(root(), word)
    return job, launcher_of(job)


def task_runs(job: Job) -> list[RunInfo | None]:
    """The run of each task of a job, where there is one, and the store can be read from here."""
    keys = job.spec.sweep or job.spec.tasks[0].key
    try:
        runs = members(keys) if keys else {}
    except StoreError as error:
        click.echo(f"Which runs these are is not known: {error}", err=True)
        runs = {}
    # A job that was found on its queue has only its places.
    places = {
        run.tags.get("l2i.job_task", ""): run
        for run in runs.values()
        if run.tags.get("l2i.job") == job.id
    }
    return [runs.get(t.key) or places.get(str(n)) for n, t in enumerate(job.spec.tasks)]


def link_of(run: RunInfo) -> str:
    """The address of a run's page; empty where no server shows it."""
    store = locate()
    if not store.is_server:
        return ""
    return f"{store.shown.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.id}"


def state_document(job: Job, state: JobState, runs: list[RunInfo | None]) -> dict[str, Any]:
    """All that is known of a job, for programs."""
    return {
        "job": job.id,
        "engine": job.engine,
        "native": job.native,
        "place": job.place,
        "submitted": job.submitted,
        "state": str(state.state),
        "tasks": [
            {
                "task": task.index,
                "title": job.spec.tasks[task.index].title,
                **{key: value for key, value in vars(task).items() if key != "index"},
                "run_id": run.id if run else None,
                "run_status": run.status if run else None,
                "link": (link_of(run) or None) if run else None,
            }
            for task, run in zip(state.tasks, runs, strict=True)
        ],
    }


def counts(state: JobState) -> str:
    """How many tasks are in each state, in words."""
    return ", ".join(f"{n} {word}" for word, n in state.count().items())


def show_state(job: Job, state: JobState, runs: list[RunInfo | None]) -> None:
    """The table of a job's tasks."""
    where = ", ".join(f"{k} {v}" for k, v in job.place.items() if v)
    click.echo(f"Job {job.id} on {job.engine}{f' ({where})' if where else ''}: {counts(state)}")
    rows = []
    for task, run in zip(state.tasks, runs, strict=True):
        title = job.spec.tasks[task.index].title
        attempt = str(task.attempt or "")
        rows.append([str(task.index), title, task.state, attempt, run.id[:8] if run else ""])
    emit_table(["task", "training", "state", "attempt", "run"], rows, right=[0, 3])
    # A reason is a sentence, which a column would cut.
    reasons: dict[str, list[str]] = {}
    for task in state.tasks:
        if task.why:
            reasons.setdefault(f"{task.state}: {task.why}", []).append(str(task.index))
    for reason, tasks in reasons.items():
        click.echo(f"task {', '.join(tasks)} {reason}")
    links = [(n, link_of(run)) for n, run in enumerate(runs) if run is not None]
    for index, link in links[:20]:
        if link:
            click.echo(f"task {index} {link}")
    if state.failed and state.over:
        click.echo(f"'l2i logs {job.id} {state.failed[0]}' has what task {state.failed[0]} said.")
        click.echo(f"'l2i jobs retry {job.id}' does what failed again.")


def watch(launcher: Launcher, job: Job, quiet: bool = False) -> int:
    """Say each change until the job is over; Ctrl-C goes away, and leaves it alone.

    Returns
    -------
    int
        0: all tasks succeeded; 1: not all did; 130: Ctrl-C.
    """
    last: dict[int, tuple[str, int, str]] = {}
    try:
        while True:
            state = launcher.status(job)
            for task in state.tasks:
                now = (str(task.state), task.attempt, task.why)
                if last.get(task.index) != now and not quiet:
                    title = job.spec.tasks[task.index].title
                    attempt = f", attempt {task.attempt}" if task.attempt > 1 else ""
                    why = f" ({task.why})" if task.why else ""
                    click.echo(f"task {task.index} {title}: {task.state}{attempt}{why}", err=True)
                last[task.index] = now
            if state.over:
                return 0 if str(state.state) == "succeeded" else 1
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        click.echo(
            f"Not watching any more; the job goes on. 'l2i jobs show {job.id} --watch' looks on, "
            f"'l2i cancel {job.id}' ends it.",
            err=True,
        )
        return 130


def reconcile_runs(job: Job | None = None) -> list[dict[str, Any]]:
    """Close what is gone, of one job or of all; one dict per run that was looked at, with
    ``verdict``."""
    changed = []
    for run in running({"l2i.job": job.id if job else None}):
        alive, why = _alive(run.tags)
        if alive is False:
            close_run(run.id, "KILLED", f"Its job is gone: {why}.")
        word = {True: f"running: {why}", False: f"closed: {why}", None: f"not known: {why}"}[alive]
        changed.append({"run_id": run.id, "name": run.name, "alive": alive, "verdict": word})
    return changed + close_parents(job)


def _alive(tags: dict[str, str]) -> tuple[bool | None, str]:
    """Whether a run's task is going on, as its engine says; None: it cannot be asked."""
    from l2i.launch.job import known_job

    engine, native = tags.get("l2i.engine", ""), tags.get("l2i.native", "")
    job, index = tags.get("l2i.job", ""), int(tags.get("l2i.job_task", "0"))
    try:
        if engine == "aws-batch":
            return _on_batch(native, tags.get("l2i.region", ""))
        if engine in ("local", "docker"):
            return _here(job, index)
        if (known := known_job(root(), job)) is not None:
            state = launcher_of(known).status(known).tasks[index].state
            return not state.over, f"{state} on {engine}"
    except L2IError as error:
        return None, str(error).rstrip(".")
    return None, f"no way to ask {engine or 'its engine'}"


def _on_batch(native: str, region: str) -> tuple[bool | None, str]:
    from l2i.launch.aws import attempt_states, aws_errors, client, region_of

    with aws_errors("show its jobs"):
        jobs = client("batch", region_of(region)).describe_jobs(jobs=[native])["jobs"]
    if not jobs:
        return False, "AWS Batch knows its job no more"
    task = attempt_states(0, jobs[0])
    return not task.state.over, f"{task.state}{f' ({task.why})' if task.why else ''} on AWS Batch"


def _here(job: str, index: int) -> tuple[bool | None, str]:
    from l2i.launch.runner import is_alive, job_state

    folder: Path = root() / "work" / "jobs" / job
    if not (folder / "plan.json").exists():
        raise LaunchError(f"job {job} was not submitted from this folder")
    state = job_state(folder).tasks[index]
    if state.state.over:
        return False, f"{state.state} on this machine"
    return (True, "on this machine") if is_alive(folder) else (False, "its keeper is gone")


def close_parents(job: Job | None = None, *, cancelled: bool = False) -> list[dict[str, Any]]:
    """Close sweeps of which nothing runs any more, and not all is finished: all, or a job's.

    What is `cancelled` ends in a while, whatever its runs say until then.
    """
    parents = []
    own = {"l2i.signature": job.spec.sweep} if job else {}
    for run in running({"l2i.kind": "sweep", **own}):
        if run.tags.get("l2i.lock"):
            continue  # A process holds it: l2i sweep.
        below = members(run.tags["l2i.signature"])
        alive = {"RUNNING", "SCHEDULED"} & {child.status for child in below.values()}
        if alive and not cancelled:
            continue
        wanted = int(run.params.get("sweep.children", "0"))
        done = sum(child.status == "FINISHED" for child in below.values())
        pending = _pending(run.tags["l2i.signature"], job if cancelled else None)
        age_s = time.time() - run.start.timestamp() if run.start else 0.0
        if pending or (pending is None and not below and age_s < _QUEUED_S):
            verdict = "running: its job" if pending else "not known: no task of it has begun"
            known = True if pending else None
            parents.append({"run_id": run.id, "name": run.name, "alive": known, "verdict": verdict})
            continue
        status = "FINISHED" if done >= wanted > 0 else "KILLED" if cancelled else "FAILED"
        close_run(run.id, status, "" if status == "FINISHED" else f"{done} of {wanted} are done.")
        verdict = f"closed: {done} of {wanted} are done, nothing runs"
        parents.append({"run_id": run.id, "name": run.name, "alive": False, "verdict": verdict})
    return parents


def _pending(sweep: str, but: Job | None) -> bool | None:
    """Whether a job that was submitted from here, `but` for one, still has to do with a sweep;
    None: none was."""
    from l2i.launch.job import list_jobs

    jobs = [job for job in list_jobs(root()) if job.spec.sweep == sweep]
    for job in jobs:
        if but is not None and job.id == but.id:
            continue
        try:
            if not launcher_of(job).status(job).over:
                return True
        except LaunchError:
            return True  # Not known is no reason to close it.
    return False if jobs else None
