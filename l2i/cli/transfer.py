"""``l2i runs export``, ``import`` and ``relocate``, and ``l2i sync``: runs in another place."""

from __future__ import annotations

from pathlib import Path

import click

from l2i.cli import kinds, options
from l2i.cli.base import Command, answered, emit_table
from l2i.run import outbox, transfer
from l2i.run.runs import resolve_run
from l2i.run.store import locate


@click.command(
    "export",
    cls=Command,
    short_help="Copy runs whole to another place.",
    example=[
        "l2i runs export latest kept",
        "l2i runs export latest first.zip",
        "l2i runs export latest s3://bucket/kept",
    ],
)
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.argument("target", metavar="PLACE", type=kinds.PLACE)
def export(names: tuple[str, ...], target: Path | str) -> None:
    """Copy runs whole to PLACE: a folder, a .zip file or an s3:// address.

    Parameters, every step of every metric, tags and artifacts; 'l2i runs import' makes runs of
    them elsewhere.
    """
    infos = [resolve_run(name) for name in names]
    if isinstance(target, Path) and target.suffix.lower() == ".zip" and not target.is_dir():
        transfer.export_archive(infos, target)
        click.echo(target)
        return
    for info in infos:
        click.echo(transfer.export_run(info, target))


@click.command(
    "import",
    cls=Command,
    short_help="Import exported runs.",
    example=[
        "l2i runs import kept",
        "l2i runs import first.zip",
        "l2i runs import s3://bucket/kept --experiment gathered",
    ],
)
@click.argument("source", metavar="PLACE", type=kinds.PLACE)
@click.option(
    "--experiment",
    metavar="NAME",
    help="MLflow experiment to file runs under.  [default: each run's own]",
)
def import_(source: Path | str, experiment: str | None) -> None:
    """Import all runs that were exported to PLACE: a folder, a .zip file or an s3:// address.

    What was imported before is found, and not made again.
    """
    imported = transfer.import_runs(source, experiment=experiment)
    rows = [[run[:8], name, "imported" if new else "there already"] for run, name, new in imported]
    emit_table(["id", "name", "state"], rows)


@click.command(
    cls=Command, short_help="Repair a store that was moved.", example="l2i runs relocate"
)
def relocate() -> None:
    """Repair a store whose folder was moved or copied: MLflow keeps absolute paths.

    Run it where 'mlruns' lies now, when no run is being written.
    """
    moved = transfer.relocate()
    for name, old, new in moved:
        click.echo(f"{name}: {old} -> {new}")
    if not moved:
        click.echo("Nothing was moved: all is where the store says.")


@click.command(cls=Command, example=["l2i sync", "l2i sync --patience 10m"])
@click.option(
    "--patience",
    type=kinds.DURATION_S,
    default="5m",
    metavar="TIME",
    help="Wait this long for a store that is away; a bare number is seconds.",
)
@options.as_json
def sync(patience: float) -> int:
    """Upload what runs wrote while their store was away.

    A tracking server or an object store that does not answer stops no run: what the run writes is
    kept in mlruns/work/outbox, and sent by this command, in order and once. Exit code 3: not all
    could be sent yet.
    """
    outcomes = outbox.sync(locate(), patience)
    lines = [
        {"run": box.run_id, "name": box.name, "left": box.pending, "why": why}
        for box, why in outcomes
    ]
    if not answered(lines):
        rows = [[box.run_id[:8], box.name, why or "sent"] for box, why in outcomes]
        emit_table(["run", "name", "state"], rows, none="Everything is sent.")
    return 3 if any(why for _, why in outcomes) else 0
