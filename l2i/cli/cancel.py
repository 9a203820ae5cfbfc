"""``l2i cancel``: end a job."""

from __future__ import annotations

import click

from l2i.cli.base import Command


@click.command(cls=Command, example="l2i cancel latest")
@click.argument("job", metavar="JOB")
def cancel(job: str) -> None:
    """Cancel a job's unfinished tasks; they keep their last checkpoints.

    'l2i jobs retry JOB' resumes them. A job that is over is left as it is.
    """
    from l2i.cli.launching import launcher_of, root
    from l2i.launch.job import find_job

    submitted = find_job(root(), job)
    launcher = launcher_of(submitted)
    over = launcher.status(submitted).over
    launcher.cancel(submitted)
    click.echo(f"Job {submitted.id} {'was over already' if over else 'is cancelled'}.")
