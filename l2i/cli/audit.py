"""``l2i audit`` and ``shortcut``: what a model goes by, before it ships; and a planted cue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, answered, emit_table
from l2i.run.progress import Progress

SUSPECT = 4
"""The exit code of ``--fail-on suspects`` where there are any."""


@click.command(
    cls=Command,
    example=[
        "l2i audit latest --out audit",
        "l2i audit latest --class dog --class rain --limit 500",
        "l2i audit latest --fail-on suspects",
        "l2i audit --compare old-run new-run",
    ],
)
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option(
    "--classifier",
    metavar="SPEC",
    help="Audit a classifier of your own instead of a RUN, on the clips in --data-dir "
    "('l2i classifiers --help' says what SPEC may be).",
)
@options.dataset(
    "With --classifier, the data set in --data-dir ('l2i data list').  [default: a folder of your "
    "own]",
    # The variable is for trainings; of a RUN it would be wrong.
    envvar=(),
)
@options.run_data_dir
@options.several("--class", "classes", metavar="NAME", help="Audit this class only")
@measuring.clips("all")
@options.number("--limit", help="Use only N clips, evenly over the classes (a quick look).")
@measuring.method
@click.option(
    "--quiet-db",
    type=kinds.FiniteRange(max=0),
    default=-10.0,
    metavar="DB",
    help="Suspect a part only if it is softer than this against the clip, in energy or in its "
    "loudest moment, or is one tone in all clips.",
)
@click.option(
    "--false-alarms",
    type=kinds.FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    metavar="SHARE",
    help="Chance of a suspect in an audit where nothing is at fault.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["suspects"]),
    help=f"End with exit code {SUSPECT} if there are any; with --compare, if there are new ones.",
)
@click.option(
    "--compare", "beside", is_flag=True, help="Show what changed between the audits of two RUNs."
)
@measuring.shared
def audit(
    runs: tuple[str, ...],
    classifier: str | None,
    dataset: str | None,
    quiet_db: float,
    false_alarms: float,
    fail_on: str | None,
    beside: bool,
    out: Path | None,
    progress: Progress,
    **given: Any,
) -> None:
    """Find what a model goes by, and what it should not.

    RUN is a run id, a run name, or 'latest'. All clips are explained, and each class's explanations
    are put into groups. A suspect decides for a class without being its sound: a quiet part, a tone
    that is the same in all clips, a trait such as a missing top end, or another class's sound in
    company. Taken out of the class's clips, or put into clips of other classes, it changes
    decisions, and as much of something else does not. With --out there is a page, audit.html, to
    listen to all of it.
    """
    if beside:
        if out is not None:
            raise click.UsageError("--compare writes no files: leave --out, or say --json.")
        _compare(runs, fail_on)
        return
    if classifier is not None and (runs or given["data_dir"] is None):
        raise click.UsageError("With --classifier give --data-dir, and no RUN.")
    if dataset is not None and classifier is None:
        raise click.UsageError("--dataset goes with --classifier: a RUN knows its data.")
    if classifier is None and len(runs) != 1:
        raise click.UsageError("Give one RUN, or a --classifier, or --compare and two RUNs.")
    from l2i.audit import audit as run_audit
    from l2i.audit.settings import Settings

    report = run_audit(
        runs[0] if runs else "",
        progress,
        classifier=options.classifier_spec(classifier) or "",
        dataset=dataset or "",
        settings=Settings(quiet_db=quiet_db, false_alarms=false_alarms),
        out=out,
        **measuring.arguments(given),
    )
    if not answered({k: v for k, v in report.items() if k != "lines"}):
        _show(report, out)
    _end(fail_on, len(report["suspects"]))


def _show(report: dict[str, Any], out: Path | None) -> None:
    from l2i.audit.words import hertz

    undecided = f", {report['undecided']} of them silent or none of its classes"
    measuring.where(report, f"{report['clips']} clips{undecided if report['undecided'] else ''}")
    for line in report["lines"]:
        click.echo(click.wrap_text(line, width=80, subsequent_indent="   "))
    if "planted" in report:
        planted = report["planted"]
        rank = "is no suspect" if planted["placed"] is None else f"is suspect {planted['placed']}"
        if planted["rank"] is not None and planted["placed"] is None:
            rank += f"; suspect {planted['rank']} is another part of its class"
        words = (
            f"Planted: {planted['cue']} in {planted['class']}; {planted['flips']} of "
            f"{planted['decided']} decisions change without it. It {rank}."
        )
        click.echo(click.wrap_text(words, width=80, subsequent_indent="   "))
    click.echo()
    shown = sorted(report["classes"], key=lambda c: (c["right"] is None, c["right"], -c["clips"]))
    rows = [
        [
            c["class"],
            str(c["clips"]),
            measuring.figure(c["right"]),
            measuring.figure(c["alone_same"]),
            measuring.figure(c["kept"]),
            str(len(c["groups"])),
            ", ".join(hertz(p["peak_hz"]) for p in c["components"][:3]),
        ]
        for c in shown[:12]
    ]
    head = ["class", "clips", "right", "alone", "kept", "groups", "loudest evidence"]
    emit_table(head, rows, right=[1, 2, 3, 4, 5])
    if len(shown) > 12:
        click.echo(f"and {len(shown) - 12} more classes: see audit.csv.")
    if out is not None:
        click.echo(f"To listen, open {out / 'audit.html'}.", err=True)
    measuring.kept(report, None)


def _compare(runs: tuple[str, ...], fail_on: str | None) -> None:
    if len(runs) != 2:
        raise click.UsageError("Give two RUNs with --compare, the older one first.")
    from l2i.audit import changes

    report = changes(*runs)
    if not answered(report):
        click.echo(f"{report['runs'][1]} against {report['runs'][0]}")
        for title, key in (("New suspects", "new"), ("Gone", "gone"), ("Still there", "stayed")):
            click.echo(f"{title}: {len(report[key]) or 'none'}")
            for s in report[key]:
                click.echo(f"  {s['sentence']}")
        for moved in report["moved"]:
            click.echo(
                f"{moved['class']}: {100 * moved['share']:.0f} % of its evidence is at other "
                "frequencies."
            )
        if report["missing"]:
            click.echo(f"Only one of them has: {', '.join(report['missing'])}.")
    _end(fail_on, len(report["new"]))


def _end(fail_on: str | None, suspects: int) -> None:
    if fail_on and suspects:
        sys.exit(SUSPECT)


@click.command(
    cls=Command,
    example=[
        "l2i shortcut --dataset demo --class rain",
        "l2i shortcut --dataset esc10 --data-dir ESC-10 --class rain --hz 5000",
    ],
)
@options.dataset("Name of the data set; one with a single class per clip.", default="demo")
@options.data_dir
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    required=True,
    help="Class whose clips come twice, under two names.",
)
@click.option(
    "--hz", type=kinds.POSITIVE, default=3000.0, metavar="HZ", help="Frequency of the beep."
)
@click.option(
    "--ms",
    type=kinds.POSITIVE,
    default=100.0,
    metavar="MS",
    help="Length of the beep in milliseconds.",
)
@click.option(
    "--level-db",
    type=kinds.FINITE,
    default=-20.0,
    metavar="DB",
    help="Amplitude of the beep over the clip's peak, dB.",
)
@measuring.methods
@options.fold
@options.seed
@options.number("--limit", help="Use at most N clips with the beep.")
@options.config_file
@options.overrides
@measuring.shared
def shortcut(
    dataset: str,
    class_name: str,
    hz: float,
    ms: float,
    level_db: float,
    file: Path | None,
    overrides: tuple[str, ...],
    progress: Progress,
    **given: Any,
) -> None:
    """Plant a beep, train on it, and see whether explanations find it.

    Clips of a class come twice, under two names, the second time with a beep. A classifier that
    tells them apart goes by the beep: where its decision changes without it, the beep is the true
    explanation, and the sound that it lies over is none.
    """
    from l2i.config import resolve
    from l2i.data.planted import Cue

    config = resolve(file, dataset=dataset, overrides=overrides, options=options.settings(given))
    from l2i.recipes.tables.shortcut import shortcut as run_shortcut

    cue = Cue(config.dataset.name, class_name, hz, ms, level_db)
    words = {name: given[name] for name in ("methods", "limit", "out", "keep")}
    result = run_shortcut(config, cue, progress, **words)
    if answered(result):
        return
    measuring.where(result, f"{result['clips']} clips with a beep of {cue.beep}")
    click.echo(f"Without the beep {100 * result['used']:.0f} % of the decisions for it change.")
    click.echo(
        f"Mean probability: {result['with_cue']:.3f} with it, {result['without_cue']:.3f} without."
    )
    names = ("cue_kept", "rest_kept")
    others = ("cue_lost", "pointing")
    rows = [
        [
            method,
            *(measuring.figure(f["scores"][k], f["intervals"][k]) for k in names),
            *(measuring.figure(f["scores"][k]) for k in others),
        ]
        for method, f in result["methods"].items()
    ]
    emit_table(["method", *measuring.heads((*names, *others))], rows, right=[1, 2, 3, 4])
    measuring.kept(result, given["out"])
