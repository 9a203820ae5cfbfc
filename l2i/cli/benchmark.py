"""``l2i benchmark``: all explanation methods, one table."""

from __future__ import annotations

from pathlib import Path

import click

from l2i.cli import measuring, options
from l2i.cli.base import Command, emit_json, emit_table


@click.command(
    cls=Command,
    example=[
        "l2i benchmark latest",
        "l2i benchmark latest --method l2i --method occlusion --limit 20",
    ],
)
@click.argument("run", metavar="RUN")
@click.option(
    "--method",
    "methods",
    type=measuring.METHOD,
    multiple=True,
    metavar="NAME",
    help=f"{measuring.METHODS_HELP}; may be given several times.  [default: all that can be]",
)
@measuring.preset
@measuring.limit
@options.run_data_dir
@measuring.threshold
@measuring.max_components
@measuring.out
@measuring.keep
@options.device
@options.precision
@options.quiet
@options.as_json
def benchmark(
    run: str,
    methods: tuple[str, ...],
    limit: int | None,
    data_dir: Path | str | None,
    threshold: float | None,
    max_components: int | None,
    out: Path | None,
    keep: bool,
    device: str | None,
    precision: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Judge explanation methods on RUN's test clips, under the same figures.

    RUN is a run id, a run name, or 'latest'. Each method explains what the classifier says, by
    audio that the classifier hears again.
    """
    from l2i.recipes.benchmark import benchmark as run_benchmark
    from l2i.run.progress import Progress

    found = run_benchmark(
        run,
        Progress(quiet),
        methods=methods,
        limit=limit,
        data_dir=options.resolved(data_dir),
        threshold=threshold,
        max_components=max_components,
        device=device or "auto",
        precision=precision or "float32",
        out=out,
        keep=keep,
    )
    if as_json:
        emit_json(found)
        return
    measuring.where(found, f"{found['clips']} clips")
    short = {
        "average_increase": "AI",
        "average_increase_margin": "AI+",
        "average_drop": "AD",
        "ff_mean": "FF",
        "ff_share": "FF/y",
        "fid_in": "Fid-In",
        "kept": "kept",
        "si_sdr_improvement": "SI-SDRi",
    }
    names = [n for n in short if n in found["metrics"]]
    arrows = {"higher": "↑", "lower": "↓", "": ""}
    head = [f"{short[n]}{arrows[found['meaning'][n]['better']]}" for n in names]
    rows = [
        [m, *(measuring.figure(f["scores"][n]) for n in names), f"{f['seconds_per_clip']:.2f}"]
        for m, f in found["methods"].items()
    ]
    emit_table(["method", *head, "s/clip"], rows, right=list(range(1, len(head) + 2)))
    measuring.kept(found, out)
