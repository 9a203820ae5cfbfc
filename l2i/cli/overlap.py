"""``l2i overlap``: explanations of mixtures, held against what was mixed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, Option, answered, emit_table

_TABLES = (
    (
        *("present", "si_sdr", "si_sdr_improvement", "sir", "sar"),
        *("energy_share", "class_left", "other_left"),
    ),
    (
        *("average_increase", "average_increase_margin", "average_drop", "average_gain"),
        *("ff_mean", "ff_share", "fid_in", "kept"),
    ),
    ("mean_mask", "sparseness", "complexity"),
)


@click.command(
    cls=Command,
    example=[
        "l2i overlap latest --mixtures 100 --gain-db 0 --gain-db -12",
        "l2i overlap latest --pair 1-17092-A-27.wav 1-30226-A-0.wav --out heard",
    ],
)
@click.argument("run", metavar="RUN")
@measuring.preset
@options.number(
    "--mixtures", default=100, help="Draw N pairs of test clips that have no class in common."
)
@options.several(
    "--pair",
    "pairs",
    nargs=2,
    metavar="ID ID",
    help="Two clips by their ids, instead of random pairs",
)
@options.several(
    "--gain-db",
    "gains_db",
    type=kinds.FINITE,
    metavar="DB",
    help="Level of the second clip over the first, dB",
    default="0",
)
@click.option(
    "--level",
    type=click.Choice(["peak", "energy"]),
    default="peak",
    help="Scale both clips to one peak or to one energy first.",
)
@click.option(
    "--snr-db",
    "noise_db",
    cls=Option,
    old="--noise-db",
    type=kinds.FINITE,
    metavar="DB",
    help="Add white noise instead of a second clip, at this signal-to-noise ratio, dB.",
)
@options.number("--fold", help="Take the first clips from this fold.  [default: the run's]")
@options.number("--second-fold", help="Take the second clips from this fold.")
@click.option(
    "--class",
    "explain",
    default="predicted",
    metavar="NAME",
    help="Class to explain: predicted, first, second, or its name.",
)
@measuring.method
@options.number("--seed", default=0, least=0, help="Random seed for drawing pairs.")
@measuring.sounds("mixtures per level")
@options.run_data_dir
@measuring.threshold
@measuring.max_components
@measuring.shared
def overlap(run: str, out: Path | None, **given: Any) -> None:
    """Mix pairs of clips, explain the mixtures, and compare with the known parts.

    RUN is a run id, a run name, or 'latest'. The parts are known, so that the explanation of a
    class can be held against that class's part: SI-SDR, its improvement over the mixture, SIR and
    SAR, and what is left of either part, all in dB; and the share of energy from the right one.
    ↑: higher is better; ↓: lower is better.
    """
    from l2i.recipes.measuring.overlap import Overlap
    from l2i.recipes.measuring.overlap import overlap as run_overlap

    words = measuring.arguments(given)
    words["gains_db"] = words["gains_db"] or (0.0,)
    wanted = Overlap(**{field.name: words.pop(field.name) for field in fields(Overlap)})
    result = run_overlap(run, wanted, out=out, **words)
    if answered(result):
        return
    measuring.where(result, f"{result['mixtures']} mixtures")
    for figures in _TABLES:
        if figures is not _TABLES[0]:
            click.echo()
        rows = [
            [
                f"{c['gain_db']:+g}" if wanted.noise_db is None else f"noise {c['gain_db']:g}",
                *(measuring.figure(c["scores"][k]) for k in figures),
            ]
            for c in result["conditions"]
        ]
        emit_table(["dB", *measuring.heads(figures)], rows, right=list(range(len(figures) + 1)))
    measuring.kept(result, out)
