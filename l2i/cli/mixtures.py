"""``l2i overlap``, ``noise`` and ``ground-truth``: explanations of sounds whose parts are known."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, Option, answered

_OF_MIXTURES = (
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
_UNDER_NOISE = (
    *("accuracy", "auprc_macro", "fidelity_top1", "fidelity_auprc_macro"),
    *("faithfulness_probability", "random_probability", "si_sdr", "si_sdr_improvement"),
    *("energy_share", "ff_mean", "ff_share", "fid_in", "kept"),
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
    for figures in _OF_MIXTURES:
        if figures is not _OF_MIXTURES[0]:
            click.echo()
        level = "{:+g}" if wanted.noise_db is None else "noise {:g}"
        lines = [([level.format(c["gain_db"])], c["scores"]) for c in result["conditions"]]
        measuring.show_scores(["dB"], figures, lines, numbers_from=0)
    measuring.kept(result, out)


@click.command(
    cls=Command,
    example=["l2i noise latest", "l2i noise latest --snr-db 0 --colour white --limit 100"],
)
@click.argument("run", metavar="RUN")
@measuring.preset
@options.several(
    "--snr-db",
    "snrs_db",
    type=kinds.FINITE,
    metavar="DB",
    help="Signal-to-noise ratio, dB",
    default="20, 10, 0, -10",
)
@click.option(
    "--colour",
    "colours",
    type=click.Choice(["white", "pink", "brown"]),
    multiple=True,
    help="Colour of the noise; may be given several times.  [default: white and pink]",
)
@options.number("--seed", default=0, least=0, help="Random seed of the noise.")
@measuring.method
@measuring.limit
@options.run_data_dir
@measuring.shared
def noise(run: str, **given: Any) -> None:
    """Measure RUN on its test clips with noise added, over a range of levels.

    RUN is a run id, a run name, or 'latest'.
    """
    from l2i.recipes.measuring.noise import noise as run_noise

    given["snrs_db"] = given["snrs_db"] or (20.0, 10.0, 0.0, -10.0)
    given["colours"] = given["colours"] or ("white", "pink")
    result = run_noise(run, **measuring.arguments(given))
    if answered(result):
        return
    measuring.where(result, f"{result['clips']} clips")
    names = [n for n in result["meaning"] if n in _UNDER_NOISE]
    levels = ("" if c["snr_db"] is None else f"{c['snr_db']:g} dB" for c in result["conditions"])
    lines = [
        ([c["colour"] or "none", level], c["scores"])
        for c, level in zip(result["conditions"], levels, strict=True)
    ]
    measuring.show_scores(["noise", "SNR"], names, lines)
    measuring.kept(result, given["out"])


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
    lines = [([name, f["explained"]], f) for name, f in result["per_class"].items()]
    lines.append((["all", result["explained"]], result["scores"]))
    measuring.show_scores(["class", "n"], names, lines)
    measuring.kept(result, out)
