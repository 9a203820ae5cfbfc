"""``l2i sync``: send what could not be sent when it was written."""

from __future__ import annotations

import click

from l2i.cli import kinds, options
from l2i.cli.base import Command, answered, emit_table


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
    from l2i.run.outbox import sync as send_pending
    from l2i.run.store import locate

    outcomes = send_pending(locate(), patience)
    lines = [
        {"run": box.run_id, "name": box.name, "left": box.pending, "why": why}
        for box, why in outcomes
    ]
    if not answered(lines):
        rows = [[box.run_id[:8], box.name, why or "sent"] for box, why in outcomes]
        emit_table(["run", "name", "state"], rows, none="Everything is sent.")
    return 3 if any(why for _, why in outcomes) else 0
