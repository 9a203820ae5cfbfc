"""What every command has: environment variables, examples, tables, JSON.

Width is 80 columns, help and tables alike: it fits every terminal, README and log.

Over 300 lines: one look of all that is read and printed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from itertools import zip_longest
from textwrap import wrap
from typing import Any

import click

from l2i.environment import SHARED, VARIABLES
from l2i.errors import UsageError
from l2i.registry import nearest

# What a command keeps of its call: whether its answer is to be JSON, and where that goes.
JSON, _RESULTS = "l2i.json", "l2i.results"

WIDTH = 80
# Columns of words, where a table has no room, and then all columns.
_NARROW, _NARROWEST = 7, 4

_CONFIRMS = frozenset({"yes"})
# Kubernetes sets such variables for every service of a namespace, one called l2i say.
_OF_A_SERVICE = re.compile(r"L2I_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP)\w*)?)")


class Option(click.Option):
    """An option that still answers to the names it had before, which no help shows.

    Parameters
    ----------
    old : str or sequence of str
        Whole words, ``--memory-mib``.
    """

    def __init__(self, *args: Any, old: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.old = (old,) if isinstance(old, str) else tuple(old)
        self.opts = [*self.opts, *self.old]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Without the old names."""
        every = self.opts
        self.opts = [word for word in every if word not in self.old]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = every


def name_variables(command: click.Command, path: Sequence[str]) -> None:
    """Give the options of a command, and of those below it, their variables.

    What every command shares has a short name, ``L2I_DEVICE`` say (`l2i.environment.SHARED`); all
    else is ``L2I_<COMMAND>_<OPTION>``, so that no variable means two things. An option that
    answers a question has none, since nobody asked yet; nor has one that may be given several
    times, since no character parts its values for certain.
    """
    for param in command.params:
        if not isinstance(param, click.Option) or param.envvar is not None:
            continue
        old = param.old if isinstance(param, Option) else ()
        word = max((opt for opt in param.opts if opt not in old), key=len).lstrip("-")
        if param.hidden or param.multiple or word in _CONFIRMS or word == "help":
            continue
        shared = _variable(word)
        own = [_variable(*path, name.lstrip("-")) for name in (word, *old)]
        param.envvar = shared if shared in SHARED else own if old else own[0]
        param.show_envvar = True  # In messages; of a help it is the last line.
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            name_variables(below, (*path, name))


def _variable(*words: str) -> str:
    return "_".join(("L2I", *words)).replace("-", "_").upper()


def variables_of(option: click.Option) -> tuple[str, ...]:
    """The variables of an option, the present one first; none for some."""
    names = option.envvar or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _known_variables(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """The variables of all options of a command and of those below it."""
    for param in command.params:
        if isinstance(param, click.Option):
            yield from variables_of(param)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            if below is not None:
                yield from _known_variables(below, ctx)


def _refuse_unknown_variables(ctx: click.Context) -> None:
    """A variable that no option has is a setting that nobody heeds: say so before anything."""
    unknown = [
        name
        for name in os.environ
        if name.startswith("L2I_") and name not in VARIABLES and not _OF_A_SERVICE.fullmatch(name)
    ]
    if not unknown:
        return
    root = ctx.find_root()
    known = {*VARIABLES, *_known_variables(root.command, root)}
    for name in sorted(set(unknown) - known):
        word = name.removeprefix("L2I_")
        # Where several commands have an option of this name: that of the command asked for now.
        own = sorted(k for k in known if k.endswith(f"_{word}"))
        path = _variable(*ctx.command_path.split()[1:])
        like = next((k for k in own if k.startswith(path)), own[0] if own else None)
        if like is None and (near := nearest(word, sorted(k.removeprefix("L2I_") for k in known))):
            like = f"L2I_{near}"
        hint = f"; did you mean {like}?" if like else "."
        raise UsageError(
            f"There is no variable {name}{hint} 'l2i COMMAND --help' names those of a command; "
            f"'unset {name}' goes on without it."
        )


class _Helped(click.Command):
    """What `Command` and `Group` share: `example`, and a help that ends with it."""

    def __init__(self, *args: Any, example: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = (example,) if isinstance(example, str) else tuple(example)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, but that no hidden option is suggested."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            options = [p for p in self.params if isinstance(p, click.Option) and p.hidden]
            hidden = {word for option in options for word in option.opts}
            like = [word for word in error.possibilities or [] if word not in hidden]
            raise click.NoSuchOption(error.option_name, possibilities=like, ctx=ctx) from None

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Without their variables, which would be half of the help, and which the last line names;
        a group's subcommands come after them."""
        named = [p for p in self.params if isinstance(p, click.Option) and p.show_envvar]
        for option in named:
            option.show_envvar = False
        super().format_options(ctx, formatter)
        for option in named:
            option.show_envvar = True

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples come last, where the eye is when the help has scrolled by, and the variables in
        one line."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        options = [p for p in self.params if isinstance(p, click.Option) and not p.hidden]
        names = [variables_of(option)[0] for option in options if variables_of(option)]
        own = f"{_variable(*ctx.command_path.split()[1:])}_"
        shown = [n if n in SHARED or not n.startswith(own) else f"{own}<OPTION>" for n in names]
        if shown:
            words = ", ".join(dict.fromkeys(sorted(shown, key=len)[::-1]))
            formatter.write_paragraph()
            formatter.write_text(f"Variables: {words}")


class Command(_Helped):
    """A command whose options have environment variables and whose help has examples.

    Parameters
    ----------
    example : str or sequence of str
        Whole command lines, as one would type them.

    Examples
    --------
    ::

        @click.command(cls=Command, example="l2i runs --limit 3")
        @click.option("--limit", default=20, help="Show at most N runs.")
        def runs(limit: int) -> None: ...
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Once the words are read, and help was not asked for."""
        _refuse_unknown_variables(ctx)
        if not wants_json():
            return super().invoke(ctx)
        # What a classifier or a method of somebody else's prints is no part of the JSON.
        ctx.meta[_RESULTS] = sys.stdout
        with redirect_stdout(sys.stderr):
            return super().invoke(ctx)


class Group(_Helped, click.Group):
    """A group of such commands; see `Command` for `example`."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """As a command's; a subcommand does it by itself."""
        if not (ctx._protected_args or ctx.args):
            _refuse_unknown_variables(ctx)
        return super().invoke(ctx)


def wants_json() -> bool:
    """Whether ``--json`` was given, to this command: a group's is none of those below it."""
    ctx = click.get_current_context()
    return ctx.meta.get(JSON) is ctx


def answered(value: Any) -> bool:
    """Print what a command answers as JSON, where that is asked for; whether it is."""
    if wants_json():
        emit_json(value)
    return wants_json()


def emit_json(value: Any) -> None:
    """Print a value as JSON; NaN and infinities, which JSON has not, as null."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        if isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):
            return None
        return item

    text = json.dumps(plain(value), indent=2, ensure_ascii=False, default=str)
    ctx = click.get_current_context(silent=True)
    click.echo(text, file=None if ctx is None else ctx.meta.get(_RESULTS))


def emit_text(text: str, first: str = "", indent: int = 0) -> None:
    """Print sentences no wider than the terminal; long words, addresses say, are left whole."""
    width = max(40, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))
    lines = wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=indent * " ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    click.echo("\n".join(lines))


def _cut(text: str, width: int) -> str:
    """A text without its middle, where it is too long: names differ at their ends."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def _lines(cell: str, width: int) -> list[str]:
    """A cell as lines: words go on below, and only one that is too long is cut."""
    if len(cell) <= width:
        return [cell]
    lines = wrap(cell, width, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
    return [_cut(line, width) for line in lines]


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _folded(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[list[str]]:
    """Heads as lines, each no wider than its longest word or the column below."""
    widths = _widths([[max(title.split() or [""], key=len) for title in head], *cells])
    folded = [wrap(title, width)[::-1] for title, width in zip(head, widths, strict=True)]
    return [list(line) for line in zip_longest(*folded, fillvalue="")][::-1]


def emit_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = (), none: str = ""
) -> None:
    """Print a table of at most 80 columns.

    A wider one has heads of several lines, then columns closer together. In the end the widest
    columns of words are made narrower: what has several words goes on in the line below, and a
    single one loses its middle. Numbers are cut only where nothing else is left.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of sequences
        Cells; None is an empty one.
    right : sequence of int
        Columns, from 0, that are set to the right: numbers.
    none : str
        What is printed in place of a table without rows.
    """
    if none and not rows:
        click.echo(none)
        return
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    heads = [list(head)]
    if sum(_widths([*heads, *cells])) + 2 * (len(head) - 1) > WIDTH:
        heads = _folded(head, cells)
    table = [*heads, *cells]
    widths = _widths(table)
    gap = 2 if sum(widths) + 2 * (len(head) - 1) <= WIDTH else 1
    room = WIDTH - gap * (len(head) - 1)
    words = [i for i in range(len(head)) if i not in right]
    while sum(widths) > room and max(widths) > _NARROWEST:
        some = [i for i in words if widths[i] > _NARROW] or range(len(head))
        widths[max(some, key=widths.__getitem__)] -= 1
    for number, row in enumerate(table):
        lines = [_lines(cell, width) for cell, width in zip(row, widths, strict=True)]
        for below in zip_longest(*lines, fillvalue=""):
            parts = [
                cell.rjust(width) if i in right else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(below, widths, strict=True))
            ]
            line = (gap * " ").join(parts).rstrip()
            click.echo(click.style(line, bold=True) if number < len(heads) else line)
