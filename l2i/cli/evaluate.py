"""``l2i evaluate``: the figures of a run, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import measuring, options
from l2i.cli.base import Command, answered


@click.command(
    cls=Command,
    example=[
        "l2i evaluate latest",
        "l2i evaluate first --data-dir ESC-10 --out figures --json",
    ],
)
@click.argument("run", metavar="RUN")
@measuring.preset
@measuring.method
@options.run_data_dir
@measuring.threshold_to("Remove")
@options.out_dir("Also write scores.json, clips.csv and a confusion matrix to DIR.")
@measuring.last
def evaluate(run: str, out: Path | None, **given: Any) -> None:
    """Measure RUN again on the test clips of its fold.

    RUN is a run id, a run name, or 'latest'. The run itself is left as it is.
    """
    from l2i.recipes.measuring.evaluate import evaluate as run_evaluate

    result = run_evaluate(run, out=out, **measuring.arguments(given))
    if answered(result):
        return
    words = f"{result['clips']} clips" + (
        "" if result["method"] == "l2i" else f", explained by {result['method']}"
    )
    measuring.where(result, words)
    scores = result["scores"]
    measuring.show_figures(scores, result["intervals"], result["meaning"])
    if curve := result.get("faithfulness"):
        beside = any(name.startswith("published_") for name in scores)
        click.echo("\nBy the published rule, over tau:" if beside else "")
        names = ["faithfulness_probability", "random_probability", "random_probability_std"]
        names += ["faithfulness_logit", "random_logit", "components_removed"]
        lines = [([f"{c['threshold']:g}"], c) for c in curve]
        measuring.show_scores(["tau"], names, lines, numbers_from=0)
    measuring.caution(result["warnings"])
    measuring.kept(result, out)
