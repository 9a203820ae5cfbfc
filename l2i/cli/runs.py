"""``l2i runs``: a table of runs and their main figures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from l2i.cli import measuring, options
from l2i.cli.base import Group, answered, emit_table
from l2i.cli.transfer import export, import_, relocate
from l2i.errors import L2IError, UsageError
from l2i.metrics import METRICS, SHORT, meanings, short
from l2i.registry import did_you_mean, nearest
from l2i.run.address import as_text
from l2i.run.bin import collect_garbage, delete_run, find_garbage
from l2i.run.runs import list_runs, resolve_run, told_here
from l2i.run.search import RunInfo

# What a run is judged by, and the head of its column; shown where any run has it.
_FIGURES = {f"test/{name}": SHORT[name] for name in ("accuracy", "auprc_macro", "fidelity_top1")}


def _as_json(run: RunInfo) -> dict[str, object]:
    names = ("id", "name", "experiment", "status", "start", "end", "artifact_uri")
    facts = {name: getattr(run, name) for name in (*names, "metrics", "params", "tags")}
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in facts.items()}


# A figure's name, bare or with its folder, before a comparison with a number.
_COMPARED = re.compile(r"(?<![\w.`/])(?:metrics\.)?((?:[\w-]+/)*\w+)(?=\s*(?:[<>]=?|!?=)\s*[-.\d])")


def _metric(word: str) -> tuple[str, bool | None]:
    """The MLflow metric that a figure's name stands for, and whether lower is better; None: it is
    no figure of ours."""
    known = {word.casefold(): name for name, word in SHORT.items()}
    known["fidelity"] = "fidelity_top1"  # The one that the list has.
    above, _, last = word.rpartition("/")
    name = known.get(last.casefold(), last)
    lower = METRICS[name].better == "lower" if name in METRICS else None
    return f"{above or 'test'}/{name}", lower


def _query(where: str) -> str:
    """A filter in MLflow's language, of one in which figures may stand as they are called here.

    >>> _query("accuracy > 0.9 AND attributes.end_time > 0")
    'metrics.`test/accuracy` > 0.9 AND attributes.end_time > 0'
    """

    def spelt(match: re.Match[str]) -> str:
        key, lower = _metric(match[1])
        return match[0] if lower is None else f"metrics.`{key}`"

    return _COMPARED.sub(spelt, where)


def _families(listed: list[RunInfo]) -> Iterator[tuple[RunInfo, int]]:
    """Each run, and how far below: under its parent where that is listed, too."""
    children: dict[str, list[RunInfo]] = {run.id: [] for run in listed}
    alone: list[RunInfo] = []
    for run in listed:
        children.get(run.tags.get("mlflow.parentRunId", ""), alone).append(run)

    def down(runs: list[RunInfo], depth: int) -> Iterator[tuple[RunInfo, int]]:
        for run in runs:
            yield run, depth
            yield from down(children[run.id], depth + 1)

    return down(alone, 0)


class _Runs(Group):
    """Words that are no command say which runs are meant; options may stand after them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = self.make_parser(ctx).parse_args(list(args))[1]
        if not words or self.get_command(ctx, words[0]):
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = True
        super().parse_args(ctx, args)
        ctx.params["words"] = (*ctx._protected_args, *ctx.args)
        ctx._protected_args, ctx.args = [], []
        return ctx.args


@click.group(
    cls=_Runs,
    invoke_without_command=True,
    subcommand_metavar="[WORD]... | COMMAND [ARGS]...",
    example=[
        "l2i runs",
        "l2i runs esc10 gated-l2i --sort accuracy",
        "l2i runs --experiment esc10 --tag fold=1 --status finished",
        "l2i runs export latest kept",
    ],
)
@click.option("--experiment", metavar="NAME", help="Only runs of this MLflow experiment.")
@options.number("--limit", default=20, help="Show at most N runs.")
@click.option(
    "--sort",
    metavar="FIGURE",
    help="Best first by this figure, like accuracy, FF, kept or benchmark/l2i/ff_mean; runs that "
    "lack it come last.  [default: the newest first]",
)
@click.option(
    "--status",
    type=click.Choice(["running", "finished", "failed", "killed", "unsent"]),
    help="Only runs in this state.",
)
@click.option(
    "--kind",
    metavar="KIND",
    help="Only runs of this kind: train, import, sweep, evaluate, overlap and so on, or all.  "
    "[default: the first three]",
)
@options.several(
    "--tag",
    "tags",
    metavar="KEY=VALUE",
    callback=options.pairs,
    help="Only runs with this tag, like dataset=esc10",
)
@options.text(
    "--where",
    metavar="QUERY",
    help='MLflow filter, like "accuracy > 0.9"; other names with a slash in back-ticks: '
    '"metrics.`classifier/loss` < 0.1".',
)
@options.details_as_json
@click.pass_context
def runs(
    ctx: click.Context, /, sort: str | None, where: str, words: tuple[str, ...] = (), **given: Any
) -> None:
    """List runs, the newest first, and their main figures; show, move and delete them.

    With WORDs only runs that have all of them in their name, experiment, data set or method.
    RUN in other commands is an id of this list, a name, or 'latest'.
    """
    if ctx.invoked_subcommand is not None:
        return

    key, lower = _metric(sort) if sort else ("", None)
    # A metric of the user's own is not known here: the highest is the first.
    listed = list_runs(**given, words=words, where=_query(where), best=key, lower=bool(lower))
    if sort and listed and not any(key in run.metrics for run in listed):
        # Those that have it would come first.
        names = {name.removeprefix("test/") for run in listed for name in run.metrics}
        hint = did_you_mean(sort, sorted(names))
        raise UsageError(
            f"No run of this list has a figure {sort!r}{hint} 'l2i runs show RUN' shows those of "
            "one."
        )
    if answered([_as_json(run) for run in listed]):
        return
    if not listed:
        if where or words or any(given[name] for name in ("experiment", "status", "kind", "tags")):
            from l2i.cli import COMMANDS

            near = nearest(words[0], runs.list_commands(ctx)) if words else None
            command = f"runs {near}" if near else words[0] if words else ""
            if near or command in COMMANDS:
                raise UsageError(f"No run fits '{' '.join(words)}'. Did you mean 'l2i {command}'?")
            more = "; 'l2i runs --help' lists the commands below it" if words else ""
            click.echo(f"No run fits{more}.", err=True)
        else:
            click.echo("There are no runs yet; 'l2i train --dataset demo' makes one.", err=True)
        return
    heads = _FIGURES
    if key not in ("", *_FIGURES):
        name = key.rpartition("/")[2]
        heads = {**_FIGURES, key: short(name) if name in METRICS else name}
    # A column more, of 80 characters: the name needs them more than the time of day.
    clock = "%m-%d" if heads is not _FIGURES else "%m-%d %H:%M"
    figures = {key: word for key, word in heads.items() if any(key in r.metrics for r in listed)}
    rows = []
    # What was sorted by a figure stays so.
    for run, below in [(run, 0) for run in listed] if key else _families(listed):
        started = run.start.astimezone().strftime(clock) if run.start else ""
        values = [f"{run.metrics[key]:.3f}" if key in run.metrics else "" for key in figures]
        name = "  " * (below - 1) + f"└ {run.name}" if below else run.name
        rows.append([run.id[:8], name, run.experiment, run.status.lower(), started, *values])
    head = ["id", "name", "experiment", "status", "started", *figures.values()]
    emit_table(head, rows, right=range(5, len(head)))


def _unusual(params: dict[str, str]) -> dict[str, str]:
    """The settings that are not as the data set's preset has them; all of a run that is about
    another one, whose parameters are no settings."""
    from l2i.config import resolve

    spec = params.get("classifier.spec") or None
    try:
        usual = resolve(dataset=params["dataset.name"], options={"classifier.spec": spec}).flat()
    except (KeyError, L2IError):  # It may be a run of another version.
        return params
    texts = {key: as_text(value) for key, value in usual.items()} | {"dataset.name": ""}
    return {key: text for key, text in params.items() if texts.get(key) != text}


@runs.command(
    short_help="Show all details of one run.",
    example=["l2i runs show latest", "l2i runs show latest --all"],
)
@click.argument("run", metavar="RUN")
@click.option("--all", "whole", is_flag=True, help="Also show the settings that the preset has.")
@options.as_json
def show(run: str, whole: bool) -> None:
    """Show all details of one run: figures, settings that differ from the preset, tags."""
    info = told_here(resolve_run(run))
    if answered(_as_json(info)):
        return
    click.echo(f"Run {info.name} ({info.id}) of experiment {info.experiment}")
    click.echo(f"{info.status.lower()}; artifacts in {info.artifact_uri}\n")
    # A stage's figures may be called as those of test clips are.
    folders = ("test", info.kind)
    ours = {key for key in info.metrics if key.partition("/")[0] in folders}
    ours = {key for key in ours if key.rpartition("/")[2] in METRICS}
    means = meanings(dict.fromkeys(key.rpartition("/")[2] for key in ours))
    figures = []
    for key, value in sorted(info.metrics.items()):
        if not key.startswith("system/"):
            meaning = means[key.rpartition("/")[2]] if key in ours else {}
            arrow = measuring.ARROWS[meaning.get("better", "")]
            figures.append([key, f"{value:.4g}", arrow, meaning.get("short", "")])
    if figures:
        emit_table(["figure", "value", "", "elsewhere"], figures, right=[1])
        click.echo()
    params = info.params if whole else _unusual(info.params)
    emit_table(["parameter", "value"], sorted(params.items()))
    if hidden := len(info.params) - len(params):
        preset = info.params["dataset.name"]
        click.echo(f"{hidden} settings are as the preset of {preset} has them; --all shows them.")
    tags = {k: v for k, v in sorted(info.tags.items()) if not k.startswith("mlflow.")}
    click.echo()
    emit_table(["tag", "value"], list(tags.items()))


@runs.command(short_help="Move a run to MLflow's bin.", example="l2i runs delete 84c0c5 --yes")
@click.argument("run", metavar="RUN")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(run: str, yes: bool) -> None:
    """Move a run, and all runs under it, to MLflow's bin.

    Its files stay where they are until 'l2i runs gc' empties the bin; 'mlflow runs restore' takes
    it out again.
    """
    info = resolve_run(run)
    if not yes and not click.confirm(f"Delete run {info.name} ({info.id[:8]})?", err=True):
        click.echo("Nothing was deleted.", err=True)
        raise SystemExit(1)
    n = delete_run(info)
    click.echo(f"Deleted {info.name} ({info.id[:8]})" + (f" and {n - 1} under it" * (n > 1)))


@runs.command(short_help="Empty the bin, for good.", example="l2i runs gc --stages")
@click.option("--stages", is_flag=True, help="Also remove stages that other trainings could share.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def gc(stages: bool, dry_run: bool, yes: bool) -> None:
    """Remove deleted runs for good, and what they left on this machine.

    Runs whose model is registered are kept. With --stages also the classifiers, dictionaries and
    interpreters that other trainings could share: they would be trained again.
    """
    garbage = find_garbage(stages=stages)
    for run in garbage.kept:
        click.echo(f"{run.name} ({run.id[:8]}) is kept: its model is registered.", err=True)
    for run in garbage.runs:
        click.echo(f"run {run.name} ({run.id[:8]})")
    for path in (*garbage.folders, *garbage.stages):
        click.echo(f"{path}")
    if not (garbage.runs or garbage.folders or garbage.stages):
        click.echo("There is nothing to remove.")
        return
    size = f"{garbage.n_bytes / 2**20:.1f} MiB"
    if dry_run:
        click.echo(f"{size} on this machine could be freed.")
        return
    if not yes and not click.confirm(f"Remove all this ({size}) for good?", err=True):
        click.echo("Nothing was removed.", err=True)
        raise SystemExit(1)
    collect_garbage(garbage)
    click.echo(f"Removed; {size} freed.")


for command in (export, import_, relocate):
    runs.add_command(command)
