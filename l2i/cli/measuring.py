"""What the commands share that measure a finished run: options, and how figures are shown."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, options
from l2i.cli.base import Option, emit_table, emit_text
from l2i.errors import ConfigError
from l2i.metrics import CONTROLS, METRICS, OF_THEIR_SIZE, PUBLISHED, PUBLISHED_TITLE, control, short
from l2i.registry import METHODS, nearest

# Units of the metrics that are no share of one.
_UNITS = {"% of clips": "%", "%": "%", "dB": "dB"}


ARROWS = {"higher": "↑", "lower": "↓", "": ""}
"""Which way a figure is better."""


def heads(names: Iterable[str]) -> list[str]:
    """Heads of columns: what figures are called for short, and which way each is better.

    >>> heads(["kept", "random_probability"])
    ['energy kept↓', 'random removal']
    """
    return [f"{short(name)}{ARROWS[METRICS[name].better]}" for name in names]


METHODS_HELP = f"{', '.join(METHODS)}, or one of your own as MODULE:NAME or FILE.py:NAME"

out = options.out_dir("Also write tables, pictures and sounds to DIR.")
keep: options.Decorator = click.option(
    "--keep/--no-keep", default=True, help="Log the result in MLflow as a child of RUN."
)
limit = options.number(
    "--limit", help="Use only N test clips, evenly over the classes (a quick look)."
)


def clips(default: str) -> options.Decorator:
    """Which part of the run's clips is used: as `l2i.recipes.opening.material.PARTS`, which is not
    imported for a help."""
    return click.option(
        "--clips",
        "part",
        type=click.Choice(["test", "train", "all"]),
        default=default,
        help="Clips to use.",
    )


method: options.Decorator = click.option(
    "--method",
    type=kinds.METHOD,
    metavar="NAME",
    help="Explanation method ('l2i benchmark --help' lists them), or one of your own as "
    "MODULE:NAME or FILE.py:NAME.  [default: the run's]",
)
methods = options.several(
    "--method",
    "methods",
    type=kinds.METHOD,
    metavar="NAME",
    help=f"Explanation methods: {METHODS_HELP}",
    default="all that the run allows",
)


def threshold_to(what: str) -> options.Decorator:
    """``--threshold``, and `what` is done to the components above it."""
    return click.option(
        "--threshold",
        type=kinds.FiniteRange(0, 1, max_open=True),
        metavar="TAU",
        help=f"{what} components with a relevance above TAU, 0 to 1.  [default: the run's]",
    )


threshold = threshold_to("Keep")
max_components = options.number(
    "--max-components",
    least=0,
    help="Keep at most N components per explanation; 0: all.  [default: the run's]",
)


def sounds(what: str) -> options.Decorator:
    """How many of `what` are saved as sounds."""
    return options.number(
        "--save-sounds",
        "sounds",
        cls=Option,
        old="--sounds",
        default=4,
        least=0,
        help=f"Save the sounds of N {what}; 0: none.",
    )


def last(command: Callable[..., Any]) -> Callable[..., Any]:
    """What comes after ``--out`` in every command that measures."""
    decorators = (keep, options.device, options.precision, options.quiet, options.as_json)
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that measures: they stand last, in one order."""
    return out(last(command))


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as recipes take them, who call them by the same names."""
    unless_given = {"device": "auto", "precision": "float32", "method": "", "against": ""}
    words: dict[str, Any] = {k: unless_given.get(k) if v is None else v for k, v in given.items()}
    if "data_dir" in words:
        words["data_dir"] = options.resolved(words["data_dir"])
    return words


def _read_preset(ctx: click.Context, _param: click.Parameter, path: Path | None) -> Path | None:
    if path is None:
        return None
    name = ctx.command.name or ""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"There is no file {path}."]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"{path} cannot be read: {error}."]) from None
    table = tree.get(name)
    if not isinstance(table, dict) or len(tree) != 1:
        raise ConfigError([f"{path} is no preset of 'l2i {name}': it has no table [{name}] alone."])
    # Keys are the options as one types them: gain-db, not the name of the variable it fills.
    known = {
        word.removeprefix("--"): p.name
        for p in ctx.command.params
        if isinstance(p, click.Option) and p.name not in ("preset", "help", None)
        for word in p.opts
        if word.startswith("--")
    }
    wrong = []
    for key in table:
        if key not in known:
            like = nearest(key, list(known))
            wrong.append(f"{key!r}" + (f" (did you mean {like!r}?)" if like else ""))
    if wrong:
        raise ConfigError([f"{path}: [{name}] knows no {', '.join(wrong)}."])
    ctx.default_map = {
        **(ctx.default_map or {}),
        **{known[key]: value for key, value in table.items()},
    }
    return path


preset: options.Decorator = click.option(
    "--preset",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_read_preset,
    is_eager=True,
    expose_value=False,
    metavar="FILE",
    help="TOML file with these options, like those in experiments/.",
)


def where(result: Mapping[str, Any], what: str) -> None:
    """A first line, and where to look."""
    name, run_id = result["run"]["name"], result["run"]["id"][:8]
    # A classifier of the user's own has none.
    who = f"Run {name} ({run_id})" if run_id else name
    click.echo(f"{who}, {what}")


def kept(result: Mapping[str, Any], out: Path | None) -> None:
    """Say on standard error where the rest is."""
    if out is not None:
        click.echo(f"Tables, pictures and sounds are in {out}.", err=True)
    if result.get("kept"):
        kept = result["kept"][:8]
        click.echo(f"Kept as run {kept}; 'l2i ui {kept}' shows it.", err=True)


def caution(warnings: Sequence[str]) -> None:
    """Say why figures should not be relied on."""
    for sentence in warnings:
        emit_text(f"Caution: {sentence}")


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A figure with four significant digits and three decimals at most, and its interval.

    >>> figure(0.81234, (0.7, 0.9)), figure(None), figure(12.3456), figure(-1e-9)
    ('0.812 [0.700, 0.900]', '-', '12.35', '0.000')
    """
    if value is None or value != value:
        return "-"
    # As it is rounded: 9.9996 is 10.00.
    shown = f"{value:z.{sum(abs(value) < most for most in (9.9995, 99.995, 999.95))}f}"
    if interval is None:
        return shown
    return f"{shown} [{figure(interval[0])}, {figure(interval[1])}]"


def show_scores(
    head: Sequence[str],
    names: Sequence[str],
    lines: Iterable[tuple[Sequence[object], Mapping[str, float | None]]],
    numbers_from: int = 1,
) -> None:
    """A table of figures side by side: a line has words of its own, and its scores."""
    rows = [[*words, *(figure(scores.get(name)) for name in names)] for words, scores in lines]
    whole = [*head, *heads(names)]
    emit_table(whole, rows, right=range(numbers_from, len(whole)))


def show_differences(lines: Sequence[Mapping[str, Any]], meaning: Mapping[str, Any]) -> None:
    """A table of paired differences: their means, 95 % intervals, and corrected p values."""
    rows = [
        [
            meaning[line["figure"]]["title"],
            figure(line["difference"], line["interval"]),
            ("<0.001" if line["p_holm"] < 0.001 else f"{line['p_holm']:.3f}")
            + ("*" if line["p_holm"] < 0.05 else " "),
        ]
        for line in lines
    ]
    emit_table(["figure", "mean difference [95 %]", "p "], rows, right=[1, 2])


def _beside(name: str, scores: Mapping[str, float | None]) -> str:
    """What a figure is nothing without: its random control, or how much is kept."""
    if words := control(name, scores):
        return words
    prefix = PUBLISHED if name.startswith(PUBLISHED) else ""
    kept = scores.get(f"{prefix}kept") if name.removeprefix(prefix) in OF_THEIR_SIZE else None
    return "" if kept is None or kept != kept else f"kept {kept:.2f}"


def explain_stars(lines: Sequence[Mapping[str, Any]]) -> None:
    """Say what the star of `show_differences` means, where there is one."""
    if any(line["p_holm"] < 0.05 for line in lines):
        click.echo("\n* unlikely to be chance (p < 0.05, Holm)")


def show_figures(
    scores: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float]],
    meaning: Mapping[str, Any],
) -> None:
    """A table of figures: value and which way is better, what it is to be read beside, and the
    95 % interval. Those of the published rule, where another explains, are a table of their own.
    """
    theirs = [name for name in scores if meaning[name]["title"].startswith(PUBLISHED_TITLE)]
    _table([name for name in scores if name not in theirs], scores, intervals, meaning)
    if theirs:
        click.echo("\nBy the published rule")
        _table(theirs, scores, intervals, meaning)


def _table(
    names: Sequence[str],
    scores: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float]],
    meaning: Mapping[str, Any],
) -> None:
    rows = []
    controls = {CONTROLS[name] for name in names if name in CONTROLS}
    for name in names:
        if name in controls:
            continue
        metric, value = meaning[name], scores[name]
        ends = intervals.get(name)
        shown = "not defined" if value is None or value != value else figure(value)
        unit = _UNITS.get(metric["unit"], "")
        arrow = ARROWS[metric["better"]] or " "
        rows.append(
            [
                metric["title"].removeprefix(PUBLISHED_TITLE),
                f"{shown} {unit:<2} {arrow}",
                _beside(name, scores),
                f"{figure(ends[0])} to {figure(ends[1])}" if ends else "",
            ]
        )
    emit_table(["figure", "value", "beside", "95 % interval"], rows, right=[1])
