"""``l2i noise``: what noise does to a run's figures."""

from __future__ import annotations

from typing import Any

import click

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, answered, emit_table

_COLUMNS = (
    *("accuracy", "auprc_macro", "fidelity_top1", "fidelity_auprc_macro"),
    *("faithfulness_probability", "random_probability", "si_sdr", "si_sdr_improvement"),
    *("energy_share", "ff_mean", "ff_share", "fid_in", "kept"),
)


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
    names = [n for n in result["meaning"] if n in _COLUMNS]
    rows = [
        [
            c["colour"] or "none",
            "" if c["snr_db"] is None else f"{c['snr_db']:g} dB",
            *(measuring.figure(c["scores"].get(n)) for n in names),
        ]
        for c in result["conditions"]
    ]
    head = ["noise", "SNR", *measuring.heads(names)]
    emit_table(head, rows, right=list(range(1, len(head))))
    measuring.kept(result, given["out"])
