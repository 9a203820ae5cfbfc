"""``l2i logs``: what a task has said."""

from __future__ import annotations

import click

from l2i.cli.base import Command


@click.command(cls=Command, example=["l2i logs latest 3", "l2i logs latest -f"])
@click.argument("job", metavar="JOB", default="latest")
@click.argument("number", metavar="[TASK]", type=click.IntRange(0), required=False)
@click.option("-f", "--follow", is_flag=True, help="Follow until the task ends.")
def logs(job: str, number: int | None, follow: bool) -> None:
    """Show a task's log, all attempts in order.

    Without TASK: the first that failed, else the first that runs, else the first.
    """
    from l2i.cli.launching import launcher_of, root
    from l2i.errors import UsageError
    from l2i.launch.job import State, find_job

    submitted = find_job(root(), job)
    launcher = launcher_of(submitted)
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
