"""``l2i completion``: the script that makes a shell complete l2i's words."""

from __future__ import annotations

import click

from l2i.cli.base import Command

_WHERE = {
    "bash": '~/.bashrc:  eval "$(l2i completion bash)"',
    "zsh": '~/.zshrc:  eval "$(l2i completion zsh)"',
    "fish": "l2i completion fish > ~/.config/fish/completions/l2i.fish",
}


@click.command(cls=Command, example=[f"# {shell}\n  {line}" for shell, line in _WHERE.items()])
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete l2i's commands and options."""
    from click.shell_completion import get_completion_class

    from l2i.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None
    # BashComplete.source asks the bash on PATH for its version; the script itself needs no bash.
    maker = kind(cli, {}, "l2i", "_L2I_COMPLETE")
    click.echo(maker.source_template % maker.source_vars())
