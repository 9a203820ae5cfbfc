"""``l2i explain``: why did it say that, as sounds and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import options
from l2i.cli.base import Command, emit_json, emit_table
from l2i.errors import DataError


@click.command(
    cls=Command,
    example=[
        "l2i explain latest my.wav",
        "l2i explain first *.flac --class dog --threshold 0.1 --out dogs",
    ],
)
@click.argument("run", metavar="RUN")
@click.argument(
    "audio", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="AUDIO..."
)
@click.option("--class", "class_name", metavar="NAME", help="Explain it, not the likeliest one.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="TAU",
    help="Relevance above which a component is kept.  [default: the run's]",
)
@click.option(
    "--max-components",
    type=click.IntRange(min=0),
    help="At most so many; 0: no limit.  [default: the run's]",
)
@click.option(
    "--start",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Where in each file to begin.  [default: 0]",
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How much of each file.  [default: all of it]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="explanations",
    show_default=True,
    metavar="DIR",
    help="Gets one folder per file, and index.html.",
)
@options.device
@options.precision
@options.quiet
@options.as_json
def explain(
    run: str,
    audio: tuple[Path, ...],
    class_name: str | None,
    threshold: float | None,
    max_components: int | None,
    start: float,
    duration: float | None,
    out: Path,
    device: str | None,
    precision: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Explain AUDIO files with the networks of RUN.

    RUN is a run id, a run name, or 'latest'. Of each file: original.wav, explanation.wav (what
    mattered), removal.wav (the rest), spectrograms.png and explanation.json; of all together
    index.html, a page to listen and compare.
    """
    from l2i.recipes.explain import explain as run_explain
    from l2i.run.progress import Progress

    failed: list[DataError] = []
    found = run_explain(
        run,
        audio,
        Progress(quiet),
        class_name=class_name,
        threshold=threshold,
        max_components=max_components,
        start_s=start,
        duration_s=duration,
        out=out,
        device=device or "auto",
        precision=precision or "float32",
        on_failure=failed.append,
    )
    if as_json:
        emit_json(found)
    elif found:
        _show(found, out)
    if failed:
        # Those that could be were explained: this is said last, where it is seen.
        reasons = "".join(f"\n  - {error}" for error in failed)
        raise DataError(
            f"{len(failed)} of {len(audio)} files could not be explained:{reasons}"
            if len(audio) > 1
            else str(failed[0])
        )


def _show(found: list[dict[str, Any]], out: Path) -> None:
    def share(value: float | None) -> str:
        return "silent" if value is None else f"{value:.1%}"

    rows = [
        [
            Path(item["audio"]).name,
            item["class"],
            share(item["probability"]["original"]),
            share(item["probability"]["explanation"]),
            share(item["probability"]["removal"]),
            len(item["components"]),
        ]
        for item in found
    ]
    emit_table(
        ["file", "class", "original", "explanation", "removal", "components"],
        rows,
        right=range(2, 6),
    )
    click.echo(f"Sounds and pictures are in {out}; to listen, open {out / 'index.html'}.")
