"""``l2i evaluate`` and ``components``: a run measured again, and what it learnt as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import measuring, options
from l2i.cli.base import Command, answered, emit_table


@click.command(
    cls=Command,
    example=["l2i evaluate latest", "l2i evaluate first --data-dir ESC-10 --out figures --json"],
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


@click.command(
    cls=Command,
    example=["l2i components latest --out components", "l2i components latest --clips all --json"],
)
@click.argument("run", metavar="RUN")
@measuring.preset
@measuring.clips("test")
@options.number("--top", default=5, help="Name N components per class, and N clips per component.")
@click.option(
    "--sounds/--no-sounds", default=True, show_default=False, help="Save a sound of each component."
)
@options.run_data_dir
@measuring.shared
def components(run: str, sounds: bool, out: Path | None, **given: Any) -> None:
    """Show which components speak for which class, and how they sound.

    RUN is a run id, a run name, or 'latest'. With --out there is a page, index.html, to listen to
    the components of each class.
    """
    from l2i.recipes.measuring.components import components as run_components

    result = run_components(run, sounds=sounds, out=out, **measuring.arguments(given))
    if answered(result):
        return
    measuring.where(result, f"{result['clips']} clips, {len(result['components'])} components")
    rows = [
        [name, ", ".join(f"{b['component']} ({b['relevance']:.2f})" for b in best) or "none"]
        for name, best in result["classes"].items()
    ]
    emit_table(["class", "components that speak for it (mean relevance)"], rows)
    if out is not None and sounds:
        click.echo(f"To listen, open {out / 'index.html'}.", err=True)
    measuring.kept(result, out)
