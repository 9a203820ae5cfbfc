"""Runs that say RUNNING, held against the engines that should be doing them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2i.cli.launching import root

if TYPE_CHECKING:
    from l2i.launch.job import Job

# A parent run is made with its job, which may wait in a queue that cannot be asked from here.
_QUEUED_S = 86_400.0


def reconcile_runs(job: Job | None = None) -> list[dict[str, Any]]:
    """Close what is gone, of one job or of all; one dict per run that was looked at, with
    ``verdict``."""
    from l2i.run.family import close_run
    from l2i.run.runs import running

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
    from l2i.cli.launching import launcher_of
    from l2i.errors import L2IError
    from l2i.launch.job import list_jobs

    engine, native = tags.get("l2i.engine", ""), tags.get("l2i.native", "")
    job, index = tags.get("l2i.job", ""), int(tags.get("l2i.job_task", "0"))
    try:
        if engine == "aws-batch":
            return _on_batch(native, tags.get("l2i.region", ""))
        if engine in ("local", "docker"):
            return _here(job, index)
        for known in list_jobs(root()):
            if known.id == job:
                state = launcher_of(known).status(known).tasks[index].state
                return not state.over, f"{state} on {engine}"
    except L2IError as error:
        return None, str(error).rstrip(".")
    return None, f"no way to ask {engine or 'its engine'}"


def _on_batch(native: str, region: str) -> tuple[bool | None, str]:
    from l2i.launch.aws import aws_errors, client, region_of
    from l2i.launch.aws_jobs import attempt_states

    with aws_errors("show its jobs"):
        jobs = client("batch", region_of(region)).describe_jobs(jobs=[native])["jobs"]
    if not jobs:
        return False, "AWS Batch knows its job no more"
    task = attempt_states(0, jobs[0])
    words = f"{task.state}{f' ({task.why})' if task.why else ''} on AWS Batch"
    return not task.state.over, words


def _here(job: str, index: int) -> tuple[bool | None, str]:
    from l2i.errors import LaunchError
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
    from l2i.run.family import close_run, members
    from l2i.run.runs import running

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
    from l2i.cli.launching import launcher_of
    from l2i.errors import LaunchError
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
