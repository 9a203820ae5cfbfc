"""``l2i evaluate``: the figures of a run, measured again."""

from __future__ import annotations

from pathlib import Path

import click

from l2i.cli import options
from l2i.cli.base import Command, emit_json


@click.command(
    cls=Command,
    example=[
        "l2i evaluate latest",
        "l2i evaluate first --data-dir ESC-10 --out figures --json",
    ],
)
@click.argument("run", metavar="RUN")
@options.data_dir
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="TAU",
    help="Relevance above which components are removed.  [default: the run's]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Also write scores.json, clips.csv and a confusion matrix there.",
)
@options.device
@options.precision
@options.quiet
@options.as_json
def evaluate(
    run: str,
    data_dir: Path | None,
    threshold: float | None,
    out: Path | None,
    device: str | None,
    precision: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure RUN again on the test clips of its fold.

    RUN is a run id, a run name, or 'latest'. The run itself is left as it is.
    """
    from l2i.recipes.evaluate import evaluate as run_evaluate
    from l2i.run.progress import Progress

    found = run_evaluate(
        run,
        Progress(quiet),
        data_dir=str(data_dir.expanduser().resolve()) if data_dir else None,
        device=device or "auto",
        precision=precision or "float32",
        threshold=threshold,
        out=out,
    )
    if as_json:
        emit_json(found)
        return
    click.echo(f"Run {found['run']['name']} ({found['run']['id'][:8]}), {found['clips']} clips")
    options.show_scores(found["scores"])
