"""What every command has: environment variables, examples, tables, JSON.

Width is 80 columns, help and tables alike: it fits every terminal, README and log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

__all__ = ["Command", "Group", "emit_json", "emit_table"]

WIDTH = 80


def _name_variables(params: Sequence[click.Parameter]) -> None:
    """Give every option the variable ``L2I_<NAME>``, and show it in the help."""
    for param in params:
        if not isinstance(param, click.Option) or param.envvar is not None:
            continue
        longest = max(param.opts, key=len).lstrip("-")
        param.envvar = f"L2I_{longest.replace('-', '_').upper()}"
        param.show_envvar = True


def _examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Command(click.Command):
    """A command whose options have environment variables and whose help has examples.

    Parameters
    ----------
    example : str or sequence of str
        Whole command lines, as one would type them.

    Examples
    --------
    ::

        @click.command(cls=Command, example="l2i runs --limit 3")
        @click.option("--limit", default=20, show_default=True, help="At most so many.")
        def runs(limit: int) -> None: ...
    """

    def __init__(self, *args: Any, example: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = (example,) if isinstance(example, str) else tuple(example)
        _name_variables(self.params)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples come last, where the eye is when the help has scrolled by."""
        super().format_epilog(ctx, formatter)
        _examples(formatter, self.examples)


class Group(click.Group):
    """A group of such commands; see `Command` for `example`."""

    command_class = Command

    def __init__(self, *args: Any, example: str | Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = (example,) if isinstance(example, str) else tuple(example)
        _name_variables(self.params)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples come last."""
        super().format_epilog(ctx, formatter)
        _examples(formatter, self.examples)


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

    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, default=str))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def emit_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[int] = ()
) -> None:
    """Print a table of at most 80 columns.

    A wider one has its columns closer together; of one that is still too wide the widest are cut.

    Parameters
    ----------
    head : sequence of str
    rows : sequence of sequences
        Cells; None is an empty one.
    right : sequence of int
        Columns, from 0, that are set to the right: numbers.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    table = [list(head), *cells]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    gap = 2 if sum(widths) + 2 * (len(head) - 1) <= WIDTH else 1
    room = WIDTH - gap * (len(head) - 1)
    while sum(widths) > room and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    for number, row in enumerate(table):
        parts = [
            _cut(cell, width).rjust(width) if i in right else _cut(cell, width).ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = (gap * " ").join(parts).rstrip()
        click.echo(click.style(line, bold=True) if number == 0 else line)
