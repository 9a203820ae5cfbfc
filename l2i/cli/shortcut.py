"""``l2i shortcut``: a cue is planted, and explanations are asked for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, answered, emit_table
from l2i.run.progress import Progress


@click.command(
    cls=Command,
    example=[
        "l2i shortcut --dataset demo --class rain",
        "l2i shortcut --dataset esc10 --data-dir ESC-10 --class rain --hz 5000",
    ],
)
@options.dataset("Name of the data set; one with a single class per clip.", default="demo")
@options.data_dir
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    required=True,
    help="Class whose clips come twice, under two names.",
)
@click.option(
    "--hz",
    type=kinds.FiniteRange(0, min_open=True),
    default=3000.0,
    metavar="HZ",
    help="Frequency of the beep.",
)
@click.option(
    "--ms",
    type=kinds.FiniteRange(0, min_open=True),
    default=100.0,
    metavar="MS",
    help="Length of the beep in milliseconds.",
)
@click.option(
    "--level-db",
    type=kinds.FINITE,
    default=-20.0,
    metavar="DB",
    help="Amplitude of the beep over the clip's peak, dB.",
)
@measuring.methods
@options.fold
@options.seed
@options.number("--limit", help="Use at most N clips with the beep.")
@options.config_file
@options.overrides
@measuring.shared
def shortcut(
    dataset: str,
    class_name: str,
    hz: float,
    ms: float,
    level_db: float,
    file: Path | None,
    overrides: tuple[str, ...],
    progress: Progress,
    **given: Any,
) -> None:
    """Plant a beep, train on it, and see whether explanations find it.

    Clips of a class come twice, under two names, the second time with a beep. A classifier that
    tells them apart goes by the beep: where its decision changes without it, the beep is the true
    explanation, and the sound that it lies over is none.
    """
    from l2i.config import resolve
    from l2i.data.planted import Cue

    config = resolve(file, dataset=dataset, overrides=overrides, options=options.settings(given))
    from l2i.recipes.tables.shortcut import shortcut as run_shortcut

    cue = Cue(config.dataset.name, class_name, hz, ms, level_db)
    words = {name: given[name] for name in ("methods", "limit", "out", "keep")}
    result = run_shortcut(config, cue, progress, **words)
    if answered(result):
        return
    measuring.where(result, f"{result['clips']} clips with a beep of {cue.beep}")
    click.echo(f"Without the beep {100 * result['used']:.0f} % of the decisions for it change.")
    click.echo(
        f"Mean probability: {result['with_cue']:.3f} with it, {result['without_cue']:.3f} without."
    )
    names = ("cue_kept", "rest_kept")
    others = ("cue_lost", "pointing")
    rows = [
        [
            method,
            *(measuring.figure(f["scores"][k], f["intervals"][k]) for k in names),
            *(measuring.figure(f["scores"][k]) for k in others),
        ]
        for method, f in result["methods"].items()
    ]
    head = ["method", *measuring.heads((*names, *others))]
    emit_table(head, rows, right=[1, 2, 3, 4])
    measuring.kept(result, given["out"])
