"""``l2i ground-truth``: explanations against the parts that clips were made of."""

from __future__ import annotations

from pathlib import Path

import click

from l2i.cli import measuring, options
from l2i.cli.base import Command, Option, emit_json, emit_table


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
    show_default=True,
    help="Explain the predicted class, or the labels.",
)
@measuring.method
@click.option(
    "--save-sounds",
    "sounds",
    cls=Option,
    old="--sounds",
    type=click.IntRange(0),
    default=4,
    show_default=True,
    metavar="N",
    help="Save the sounds of N clips; 0: none.",
)
@measuring.threshold
@measuring.max_components
@measuring.out
@measuring.keep
@options.device
@options.precision
@options.quiet
@options.as_json
def ground_truth(
    run: str,
    explain: str,
    method: str | None,
    sounds: int,
    threshold: float | None,
    max_components: int | None,
    out: Path | None,
    keep: bool,
    device: str | None,
    precision: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Compare explanations with the parts that RUN's test clips were made of.

    RUN is a run id, a run name, or 'latest', of demo or demo-multilabel. SI-SDR, its improvement
    over the mixture, and what is left of the class and of the others are in dB. ↑: higher is
    better; ↓: lower is better.
    """
    from l2i.recipes.ground_truth import ground_truth as run_ground_truth
    from l2i.run.progress import Progress

    result = run_ground_truth(
        run,
        Progress(quiet),
        method=method or "",
        explain=explain,
        threshold=threshold,
        max_components=max_components,
        device=device or "auto",
        precision=precision or "float32",
        sounds=sounds,
        out=out,
        keep=keep,
    )
    if as_json:
        emit_json(result)
        return
    measuring.where(result, f"{result['explained']} explanations of {result['clips']} clips")
    names = ["si_sdr", "si_sdr_improvement", "energy_share", "class_left", "other_left"]
    head = ["SI-SDR↑", "improved↑", "share↑", "class left↑", "other left↓"]
    rows = [
        [name, str(f["explained"]), *(measuring.figure(f[k]) for k in names)]
        for name, f in result["per_class"].items()
    ]
    rows.append(
        ["all", str(result["explained"]), *(measuring.figure(result["scores"][k]) for k in names)]
    )
    emit_table(["class", "n", *head], rows, right=list(range(1, 7)))
    measuring.kept(result, out)
