"""``l2i ground-truth``: explanations against the parts that clips were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import measuring
from l2i.cli.base import Command, answered, emit_table


@click.command(
    "ground-truth",
    cls=Command,
    example=["l2i ground-truth latest", "l2i ground-truth latest --explain labels --out heard"],
)
@click.argument("run", metavar="RUN")
@measuring.preset
@click.option(
    "--explain",
    type=click.Choice(["predicted", "labels"]),
    default="predicted",
    help="Explain the predicted class, or the labels.",
)
@measuring.method
@measuring.sounds("clips")
@measuring.threshold
@measuring.max_components
@measuring.shared
def ground_truth(run: str, out: Path | None, **given: Any) -> None:
    """Compare explanations with the parts that RUN's test clips were made of.

    RUN is a run id, a run name, or 'latest', of demo or demo-multilabel. SI-SDR, its improvement
    over the mixture, and what is left of the class and of the others are in dB. ↑: higher is
    better; ↓: lower is better.
    """
    from l2i.recipes.measuring.ground_truth import ground_truth as run_ground_truth

    result = run_ground_truth(run, out=out, **measuring.arguments(given))
    if answered(result):
        return
    measuring.where(result, f"{result['explained']} explanations of {result['clips']} clips")
    names = ["si_sdr", "si_sdr_improvement", "energy_share", "class_left", "other_left"]
    rows = [
        [name, str(f["explained"]), *(measuring.figure(f[k]) for k in names)]
        for name, f in result["per_class"].items()
    ]
    rows.append(
        ["all", str(result["explained"]), *(measuring.figure(result["scores"][k]) for k in names)]
    )
    emit_table(["class", "n", *measuring.heads(names)], rows, right=list(range(1, 7)))
    measuring.kept(result, out)
