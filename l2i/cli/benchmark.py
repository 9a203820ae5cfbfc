"""``l2i benchmark`` and ``compare``: methods, or runs, side by side, with paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, answered, emit_table
from l2i.run.progress import Progress

_COLUMNS = (
    *("average_increase", "average_increase_margin", "average_drop", "ff_mean", "ff_share"),
    *("fid_in", "kept", "absent_kept", "si_sdr_improvement", "transfer", "data_randomised"),
)


@click.command(
    cls=Command,
    example=[
        "l2i benchmark latest",
        "l2i benchmark latest --method l2i --method occlusion --limit 20",
        "l2i benchmark latest --method l2i --all --evaluator other-seed",
        "l2i benchmark latest --protocol clean --protocol mix0 --protocol mix12",
        "l2i benchmark latest --method l2i --method gradcam --against full",
        "l2i benchmark latest --method l2i --method gradcam --roar --epochs 10",
    ],
)
@click.argument("run", metavar="RUN")
@measuring.methods
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(["clean", "mix0", "mix12", "noise6"]),
    multiple=True,
    default=["clean"],
    show_default="clean",
    help="Sounds to explain: clips as they are; two clips, the second as loud or 12 dB below; "
    "white noise 6 dB below. May be given several times.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Compute all metrics, with intervals over recordings: at stated sizes, under noise, with "
    "shuffled weights, and more. This takes long.",
)
@options.text(
    "--evaluator",
    metavar="RUN",
    help="Let the classifier of another run, with another seed for example, judge the sounds as "
    "well; or random-masks: the run's own, fine-tuned on random masks.",
)
@click.option(
    "--against",
    type=kinds.METHOD,
    metavar="NAME",
    help="Compare the others with this method, clip by clip, with a test of each metric.",
)
@options.number("--repeats", default=10, help="With --all: explain N clips repeatedly.")
@click.option(
    "--shuffled-labels",
    is_flag=True,
    help="Compare masks with those for a classifier that learnt labels at random; it is trained, "
    "and so is what RUN's method learns. Takes as long as RUN.",
)
@click.option(
    "--roar",
    is_flag=True,
    help="Train classifiers on clips without the top 10, 30 and 50 % of the energy: three for each "
    "method, and four more.",
)
@options.number(
    "--epochs",
    default=20,
    help="With --shuffled-labels and --roar: train each classifier for at most N epochs.",
)
@measuring.preset
@measuring.limit
@options.run_data_dir
@measuring.threshold
@measuring.max_components
@measuring.shared
def benchmark(run: str, out: Path | None, **given: Any) -> None:
    """Judge explanation methods on RUN's test clips, under the same figures.

    RUN is a run id, a run name, or 'latest'. Each method explains what the classifier says, by
    audio that the classifier hears again. AI+ counts what is more certain by more than 0.001, FF/y
    is FF over the clip's probability, and 'energy kept' is the explanation's share of the energy:
    who keeps all passes AI, FF and Fid-In. Where a clip may have several classes, 'absent kept' is
    the share that is kept for a class of a probability below 0.02.

    With --against, differences are means over clips, with 95 % bootstrap intervals over recordings;
    p is of McNemar's exact test for shares and of Wilcoxon's signed-rank test for all else,
    corrected by Holm's method for the number of figures.

    With --shuffled-labels, 'labels' is the rank correlation of masks with those for a
    classifier that learnt labels at random. With --roar a table has the accuracy of classifiers
    that never heard what a method points at: below that of parts at random, the method points at
    what is needed.
    """
    from l2i.recipes.measuring.protocols import PROTOCOLS
    from l2i.recipes.tables.benchmark import benchmark as run_benchmark

    result = run_benchmark(run, out=out, **measuring.arguments(given))
    if answered(result):
        return
    measuring.where(result, f"{result['clips']} clips")
    for name, by_method in result["protocols"].items():
        if list(result["protocols"]) != ["clean"]:
            click.echo(f"\n{name}: {PROTOCOLS[name]}")
        _table(by_method)
        _roar_table(by_method)
        for method in by_method:
            lines = [
                line
                for line in result["differences"]
                if (line["protocol"], line["method"]) == (name, method)
            ]
            if lines:
                clips = max(line["clips"] for line in lines)
                click.echo(f"\n{method} less {given['against']}, over {clips} clips")
                measuring.show_differences(lines, result["meaning"])
        if given["everything"]:
            for method, figures in by_method.items():
                click.echo(f"\n{method}, {PROTOCOLS[name]}")
                scores, intervals = figures["scores"], figures["intervals"]
                measuring.show_figures(scores, intervals, result["meaning"])
    measuring.explain_stars(result["differences"])
    measuring.kept(result, out)


def _table(methods: Mapping[str, Any]) -> None:
    """A row per method."""
    there = {name for f in methods.values() for name in f["scores"]}
    names = [name for name in _COLUMNS if name in there]
    head = measuring.heads(names)
    rows = [
        [m, *(measuring.figure(f["scores"][n]) for n in names), f"{f['seconds_per_clip']:.2f}"]
        for m, f in methods.items()
    ]
    emit_table(["method", *head, "s/clip"], rows, right=list(range(1, len(head) + 2)))


def _roar_table(roar: Mapping[str, Any]) -> None:
    """Accuracy after ROAR, a row per method and one for the control; nothing where it was not
    asked for."""
    scores = [f["scores"] for f in roar.values()]
    if not scores or "roar_at_0" not in scores[0]:
        return
    places = ("at_10", "at_30", "at_50")
    rows = [[m, *(f["scores"][f"roar_{p}"] for p in places)] for m, f in roar.items()]
    rows.append(["at random", *(scores[0][f"roar_control_{p}"] for p in places)])
    click.echo("\nAccuracy of classifiers retrained without the top of the energy")
    emit_table(
        ["method", "0 %", "10 %", "30 %", "50 %"],
        [[m, *map(measuring.figure, (scores[0]["roar_at_0"], *values))] for m, *values in rows],
        right=[1, 2, 3, 4],
    )


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
