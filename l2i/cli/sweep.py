"""``l2i sweep``: many trainings from one file, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import options
from l2i.cli.base import Command, Option, answered, emit_table
from l2i.run.progress import Progress, duration


@click.command(
    cls=Command,
    example=[
        "l2i sweep experiments/demo/seeds.toml",
        "l2i sweep experiments/esc10/five_folds.toml --data-dir ESC-10 --parallel 2",
        "l2i sweep experiments/ablations/dictionary.toml --dry-run",
    ],
)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@options.number(
    "--parallel", "jobs", cls=Option, old="--jobs", default=1, help="Train N at the same time."
)
@click.option("--dry-run", is_flag=True, help="Only show what would be trained.")
@options.data_dir
@options.device
@options.overrides
@options.experiment
@options.artifacts
@options.quiet
@options.as_json
def sweep(
    file: Path,
    jobs: int,
    dry_run: bool,
    overrides: tuple[str, ...],
    progress: Progress,
    **given: Any,
) -> int:
    """Train everything that the table [sweep] of FILE varies, and print one table.

    Each combination is a run under one parent run. Finished runs are not trained again, and the
    same command resumes after an interruption. The table has mean and standard deviation over
    folds and seeds, a row per setting.
    """
    from l2i.recipes.tables.sweep_file import read_sweep

    given["data_dir"] = options.resolved(given["data_dir"])
    wanted = read_sweep(file, overrides=overrides, options=options.settings(given))
    if dry_run:
        return _plan(wanted, jobs)
    from l2i.recipes.tables.sweep import sweep as run_sweep

    extra = [word for over in overrides for word in ("-o", over)]
    for name, value in given.items():
        extra += [f"--{name.replace('_', '-')}", value] if value else []
    result = run_sweep(wanted, progress, jobs=jobs, extra=extra)
    if not answered(result):
        _show(result)
    for failure in result["failed"]:
        click.echo(f"{failure['title']} failed: {failure['why']}", err=True)
    return 1 if result["failed"] else 0


def _plan(wanted: Any, jobs: int) -> int:
    from l2i.recipes.tables.sweep import check_parts, states, time_of_one

    check_parts(wanted)
    children = states(wanted)
    if answered(children):
        return 0
    rows = [
        [str(i), c["setting"], str(c["fold"]), str(c["seed"]), "done" if c["done"] else "to do"]
        for i, c in enumerate(children, start=1)
    ]
    emit_table(["", "setting", "fold", "seed", "state"], rows, right=[0, 2, 3])
    left = sum(not c["done"] for c in children)
    click.echo(f"\n{left} of {len(children)} trainings to do.")
    if left and (known := time_of_one(wanted)):
        seconds, name = known
        whole = duration(seconds * -(-left // jobs))
        click.echo(f"About {whole}: run {name} took {duration(seconds)}.")
    return 0


def _show(result: dict[str, Any]) -> None:
    from l2i.recipes.tables.sweep_table import plus_minus

    click.echo(f"Sweep {result['run']['name']} ({result['run']['id'][:8]})")
    n = [f["n"] for row in result["table"] for f in row["figures"].values()]
    if not n:
        return
    counts = f"{min(n)}" if min(n) == max(n) else f"{min(n)} to {max(n)}"
    click.echo(f"Mean ± standard deviation over folds and seeds, n = {counts}\n")
    rows = list(result["table"])
    names = list(result["meaning"])
    # Figures in rows; settings in columns, as many as fit beside each other uncut.
    room = 80 - max(len(result["meaning"][name]) for name in names)
    each = 2 + max(13, *(len(row["setting"]) for row in rows))
    step = max(1, room // each)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        lines = [
            [result["meaning"][name], *(plus_minus(row["figures"].get(name)) for row in some)]
            for name in names
        ]
        head = ["figure", *(row["setting"] for row in some)]
        emit_table(head, lines, right=list(range(1, len(head))))
        if start + step < len(rows):
            click.echo()
