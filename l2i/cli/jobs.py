"""``l2i jobs``, ``logs`` and ``cancel``: what was submitted, how far it is, what it says."""

from __future__ import annotations

from typing import Any

import click

from l2i.cli import launching, options
from l2i.cli.base import Command, Group, answered, emit_table, wants_json
from l2i.errors import LaunchError, StoreError, UsageError
from l2i.run.progress import Progress


@click.group(
    cls=Group,
    invoke_without_command=True,
    example=["l2i jobs", "l2i jobs show latest --watch", "l2i jobs --queue gpu-spot"],
)
@options.text("--queue", help="Also find the jobs of this queue of AWS Batch.")
@options.region
@options.number("--limit", default=10, help="Show at most N jobs, the newest first.")
@options.as_json
@click.pass_context
def jobs(ctx: click.Context, queue: str, region: str, limit: int) -> None:
    """List jobs that were submitted from this folder, the newest first.

    'l2i jobs show JOB' has a line per task. JOB is an id, the beginning of one, or latest.
    """
    if ctx.invoked_subcommand is not None:
        return
    from l2i.launch.job import keep_job, list_jobs

    root = launching.root()
    if queue:
        from l2i.launch.aws_batch import AwsBatch

        here = {job.native for job in list_jobs(root)}
        for job in AwsBatch(root, {"queue": queue, "region": region}).attach():
            if job.native not in here:
                keep_job(root, job)
    rows: list[list[str]] = []
    listed: list[dict[str, Any]] = []
    for job in list_jobs(root)[:limit]:
        try:
            state = launching.launcher_of(job).status(job)
            word = launching.counts(state)
            counts: dict[str, int] | None = {str(s): n for s, n in state.count().items()}
        except LaunchError as error:
            word, counts = f"not known: {error}", None
        rows.append([job.id, job.engine, job.submitted[:16].replace("T", " "), word])
        listed.append(
            {"job": job.id, "engine": job.engine, "submitted": job.submitted, "tasks": counts}
        )
    if not answered(listed):
        head = ["job", "engine", "submitted (UTC)", "tasks"]
        none = "No job was submitted from here; 'l2i submit FILE --on local' does."
        emit_table(head, rows, none=none)


@jobs.command(
    short_help="Show the tasks of a job and their states.",
    example=["l2i jobs show latest", "l2i jobs show latest --watch"],
)
@click.argument("job", metavar="JOB", default="latest")
@options.watch
@options.quiet
@options.as_json
def show(job: str, watch: bool, progress: Progress) -> int:
    """Show a job: each task's state, attempt, run, and why it waits or failed.

    Exit code 1 means that the job ended and not all of it succeeded.
    """
    from l2i.launch.job import State

    submitted, launcher = launching.job_of(job)
    quiet = progress.quiet or wants_json()
    if watch and (code := launching.watch(launcher, submitted, quiet)) == 130:
        return code
    state = launcher.status(submitted)
    runs = launching.task_runs(submitted)
    if not answered(launching.state_document(submitted, state, runs)):
        launching.show_state(submitted, state, runs)
    return 1 if state.over and state.state is not State.SUCCEEDED else 0


@jobs.command(short_help="Retry the failed tasks of a job.", example="l2i jobs retry latest")
@click.argument("job", metavar="JOB")
@options.as_json
def retry(job: str) -> int:
    """Submit the failed and cancelled tasks of a job as a job of their own.

    They resume from their last checkpoints.
    """
    old, launcher = launching.job_of(job)
    state = launcher.status(old)
    if not state.over:
        raise LaunchError(f"Job {old.id} is not over: 'l2i jobs show {old.id}' says how far it is.")
    if not state.failed:
        raise LaunchError(f"No task of job {old.id} failed: there is nothing to do again.")
    new = launcher.submit(old.spec.only(state.failed))
    if not answered({"job": new.id, "native": new.native, "new": new.new}):
        n = len(state.failed)
        word = "Submitted" if new.new else "It was submitted before; nothing is new:"
        click.echo(f"{word} job {new.id}: {n} task{'s' * (n > 1)} of {old.id} again.")
    return 0


@jobs.command(short_help="Close runs whose job is gone.", example="l2i jobs reconcile")
@click.argument("job", metavar="[JOB]", required=False)
@options.as_json
def reconcile(job: str | None) -> int:
    """Close runs that say RUNNING though their job is over or gone: all, or those of JOB.

    The engine is asked about each such run; if it cannot be, the run is left alone, and named.
    """
    changed = launching.reconcile_runs(launching.job_of(job)[0] if job else None)
    if not answered(changed):
        rows = [[each["run_id"][:8], each["name"], each["verdict"]] for each in changed]
        emit_table(["run", "name", "what it is"], rows, none="No run of a job says RUNNING.")
    return 0


@click.command(cls=Command, example=["l2i logs latest 3", "l2i logs latest -f"])
@click.argument("job", metavar="JOB", default="latest")
@click.argument("number", metavar="[TASK]", type=click.IntRange(0), required=False)
@click.option("-f", "--follow", is_flag=True, help="Follow until the task ends.")
def logs(job: str, number: int | None, follow: bool) -> None:
    """Show a task's log, all attempts in order.

    Without TASK: the first that failed, else the first that runs, else the first.
    """
    from l2i.launch.job import State

    submitted, launcher = launching.job_of(job)
    if number is None:
        states = {task.index: task.state for task in launcher.status(submitted).tasks}
        wanted = [n for s in (State.FAILED, State.RUNNING) for n, own in states.items() if own is s]
        number = wanted[0] if wanted else 0
        click.echo(f"Task {number} of job {submitted.id}:", err=True)
    if number >= len(submitted.spec.tasks):
        raise UsageError(
            f"Job {submitted.id} has {len(submitted.spec.tasks)} tasks, from 0: there is no task "
            f"{number}."
        )
    try:
        for line in launcher.logs(submitted, number, follow=follow):
            click.echo(line)
    except KeyboardInterrupt:
        if not follow:
            raise
        click.echo(
            f"Not looking on any more; the job goes on. 'l2i logs {submitted.id} {number} -f' "
            "does.",
            err=True,
        )
        raise SystemExit(130) from None


@click.command(cls=Command, example="l2i cancel latest")
@click.argument("job", metavar="JOB")
def cancel(job: str) -> None:
    """Cancel a job's unfinished tasks; they keep their last checkpoints.

    'l2i jobs retry JOB' resumes them. A job that is over is left as it is.
    """
    submitted, launcher = launching.job_of(job)
    over = launcher.status(submitted).over
    launcher.cancel(submitted)
    try:
        launching.close_parents(submitted, cancelled=not over)
    except StoreError as error:
        click.echo(f"{error} The run above the tasks stays open: 'l2i jobs reconcile'.", err=True)
    click.echo(f"Job {submitted.id} {'was over already' if over else 'is cancelled'}.")
