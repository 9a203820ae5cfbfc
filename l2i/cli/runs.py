"""``l2i runs``: a table of runs and their main figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from l2i.cli.base import Command, emit_json, emit_table

if TYPE_CHECKING:
    from l2i.run.runs import RunInfo

# What a run is judged by, and the head of its column; shown where any run has it.
_FIGURES = {
    "test/accuracy": "accuracy",
    "test/auprc_macro": "AUPRC",
    "test/fidelity_top1": "fidelity",
}


def _as_json(run: RunInfo) -> dict[str, object]:
    return {
        "id": run.id,
        "name": run.name,
        "experiment": run.experiment,
        "status": run.status,
        "start": run.start.isoformat() if run.start else None,
        "end": run.end.isoformat() if run.end else None,
        "artifact_uri": run.artifact_uri,
        "metrics": run.metrics,
        "params": run.params,
        "tags": run.tags,
    }


@click.command(cls=Command, example=["l2i runs", "l2i runs --experiment esc10 --json"])
@click.option("--experiment", metavar="NAME", help="Only those of this MLflow experiment.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="At most so many, the newest first.",
)
@click.option("--json", "as_json", is_flag=True, help="All that is known of them, as JSON.")
def runs(experiment: str | None, limit: int, as_json: bool) -> None:
    """List runs, the newest first, and their main figures.

    RUN in other commands is an id of this list, a name, or 'latest'.
    """
    from l2i.run.runs import list_runs

    found = list_runs(experiment, limit)
    if as_json:
        emit_json([_as_json(run) for run in found])
        return
    if not found:
        click.echo("There are no runs yet; 'l2i train --dataset demo' makes one.", err=True)
        return
    figures = {key: word for key, word in _FIGURES.items() if any(key in r.metrics for r in found)}
    rows = []
    for run in found:
        started = run.start.astimezone().strftime("%m-%d %H:%M") if run.start else ""
        values = [f"{run.metrics[key]:.3f}" if key in run.metrics else "" for key in figures]
        rows.append([run.id[:8], run.name, run.experiment, run.status.lower(), started, *values])
    head = ["id", "name", "experiment", "status", "started", *figures.values()]
    emit_table(head, rows, right=range(5, len(head)))
