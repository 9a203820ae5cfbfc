"""``l2i compare``: finished runs side by side, with paired differences."""

from __future__ import annotations

from pathlib import Path

import click

from l2i.cli import measuring, options
from l2i.cli.base import Command, answered, emit_table
from l2i.run.progress import Progress


@click.command(
    cls=Command,
    example=["l2i compare attention-run max-run", "l2i compare 84c0c5 figures --out compared"],
)
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@measuring.out
@options.quiet
@options.as_json
def compare(runs: tuple[str, ...], out: Path | None, progress: Progress) -> None:
    """Set the figures of runs side by side, with paired differences from the first.

    RUN is a run id, a run name, 'latest', or a folder that 'l2i evaluate --out' wrote.
    Differences are over the clips that both were measured on, with 95 % bootstrap intervals; p is
    of McNemar's exact test for shares and of Wilcoxon's signed-rank test for all else, corrected
    by Holm's method for the number of figures. With --out there is a page, too, to listen to the
    same clips as each run explains them, those first where they differ most.
    """
    from l2i.recipes.tables.compare import compare as run_compare

    result = run_compare(runs, out=out, progress=progress)
    if answered(result):
        return
    letters = [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(len(runs))]
    for letter, name in zip(letters, result["runs"], strict=True):
        click.echo(f"{letter}  {name}")
    if result["settings"]:
        click.echo("\nSettings that differ")
        rows = [
            [key, *("-" if v is None else v for v in values)]
            for key, values in result["settings"].items()
        ]
        emit_table(["setting", *letters], rows)
    click.echo()
    meaning = result["meaning"]
    rows = [
        [meaning[f]["title"], *map(measuring.figure, values), meaning[f]["better"]]
        for f, values in result["scores"].items()
    ]
    emit_table(["figure", *letters, "better"], rows, right=list(range(1, len(runs) + 1)))
    for letter, name in zip(letters[1:], result["runs"][1:], strict=True):
        mine = [line for line in result["differences"] if line["run"] == name]
        click.echo(f"\n{letter} less A, over {max(line['clips'] for line in mine)} clips")
        measuring.show_differences(mine, meaning)
    for name, n in result["relabelled"].items():
        click.echo(
            f"\n{n} clips have other labels in {name} than in {result['runs'][0]}: accuracy "
            "differs by the answers, too."
        )
    measuring.explain_stars(result["differences"])
    if out is not None:
        page = out / "index.html"
        to_listen = f"; to listen to both, open {page}" if page.is_file() else ""
        click.echo(f"The tables are in {out}{to_listen}.", err=True)
