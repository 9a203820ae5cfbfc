"""``l2i jobs``: what was submitted, how far it is, and doing again what failed."""

from __future__ import annotations

from typing import Any

import click

from l2i.cli import options
from l2i.cli.base import Group, emit_json, emit_table


@click.group(
    cls=Group,
    invoke_without_command=True,
    example=["l2i jobs", "l2i jobs show latest --watch", "l2i jobs --queue gpu-spot"],
)
@click.option(
    "--queue", metavar="NAME", default="", help="Also find the jobs of this queue of AWS Batch."
)
@options.region
@options.number("--limit", default=10, help="Show at most N jobs, the newest first.")
@options.as_json
@click.pass_context
def jobs(ctx: click.Context, queue: str, region: str, limit: int, as_json: bool) -> None:
    """List jobs that were submitted from this folder, the newest first.

    'l2i jobs show JOB' has a line per task. JOB is an id, the beginning of one, or latest.
    """
    if ctx.invoked_subcommand is not None:
        return
    from l2i.cli.launching import launcher_of, root
    from l2i.errors import LaunchError
    from l2i.launch.job import keep_job, list_jobs

    if queue:
        from l2i.launch.aws_batch import AwsBatch

        here = {job.native for job in list_jobs(root())}
        for job in AwsBatch(root(), {"queue": queue, "region": region}).attach():
            if job.native not in here:
                keep_job(root(), job)
    rows: list[list[str]] = []
    listed: list[dict[str, Any]] = []
    for job in list_jobs(root())[:limit]:
        try:
            state = launcher_of(job).status(job)
            word = ", ".join(f"{n} {s}" for s, n in state.count().items())
            counts: dict[str, int] | None = {str(s): n for s, n in state.count().items()}
        except LaunchError as error:
            word, counts = f"not known: {error}", None
        rows.append([job.id, job.engine, job.submitted[:16].replace("T", " "), word])
        listed.append(
            {"job": job.id, "engine": job.engine, "submitted": job.submitted, "tasks": counts}
        )
    if as_json:
        emit_json(listed)
    elif not rows:
        click.echo("No job was submitted from here; 'l2i submit FILE --on local' does.")
    else:
        emit_table(["job", "engine", "submitted (UTC)", "tasks"], rows)


@jobs.command(
    short_help="Show the tasks of a job and their states.",
    example=["l2i jobs show latest", "l2i jobs show latest --watch"],
)
@click.argument("job", metavar="JOB", default="latest")
@options.watch
@options.quiet
@options.as_json
def show(job: str, watch: bool, quiet: bool, as_json: bool) -> int:
    """Show a job: each task's state, attempt, run, and why it waits or failed.

    Exit code 1 means that the job ended and not all of it succeeded.
    """
    from l2i.cli.launching import launcher_of, root, show_state, state_document, task_runs
    from l2i.cli.launching import watch as look_on
    from l2i.launch.job import State, find_job

    submitted = find_job(root(), job)
    launcher = launcher_of(submitted)
    if watch and (code := look_on(launcher, submitted, quiet or as_json)) == 130:
        return code
    state = launcher.status(submitted)
    runs = task_runs(submitted)
    if as_json:
        emit_json(state_document(submitted, state, runs))
    else:
        show_state(submitted, state, runs)
    return 1 if state.over and state.state is not State.SUCCEEDED else 0


@jobs.command(short_help="Retry the failed tasks of a job.", example="l2i jobs retry latest")
@click.argument("job", metavar="JOB")
@options.as_json
def retry(job: str, as_json: bool) -> int:
    """Submit the failed and cancelled tasks of a job as a job of their own.

    They resume from their last checkpoints.
    """
    from l2i.cli.launching import launcher_of, root
    from l2i.errors import LaunchError
    from l2i.launch.job import find_job

    old = find_job(root(), job)
    launcher = launcher_of(old)
    state = launcher.status(old)
    if not state.over:
        raise LaunchError(f"Job {old.id} is not over: 'l2i jobs show {old.id}' says how far it is.")
    if not state.failed:
        raise LaunchError(f"No task of job {old.id} failed: there is nothing to do again.")
    new = launcher.submit(old.spec.only(state.failed))
    if as_json:
        emit_json({"job": new.id, "native": new.native, "new": new.new})
    else:
        n = len(state.failed)
        word = "Submitted" if new.new else "It was submitted before; nothing is new:"
        click.echo(f"{word} job {new.id}: {n} task{'s' * (n > 1)} of {old.id} again.")
    return 0


@jobs.command(short_help="Close runs whose job is gone.", example="l2i jobs reconcile")
@options.as_json
def reconcile(as_json: bool) -> int:
    """Close runs that say RUNNING though their job is over or gone.

    The engine is asked about each such run; if it cannot be, the run is left alone, and named.
    """
    from l2i.cli.reconcile import reconcile_runs

    changed = reconcile_runs()
    if as_json:
        emit_json(changed)
    elif not changed:
        click.echo("No run of a job says RUNNING.")
    else:
        rows = [[each["run_id"][:8], each["name"], each["verdict"]] for each in changed]
        emit_table(["run", "name", "what it is"], rows)
    return 0
