"""``l2i components``: what a model learnt as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import measuring, options
from l2i.cli.base import Command, answered, emit_table


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
