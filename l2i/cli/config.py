"""``l2i config``: show what a run would do, check a file."""

from __future__ import annotations

from pathlib import Path

import click

from l2i.cli import options
from l2i.cli.base import Group


@click.group(
    cls=Group,
    example=["l2i config show --dataset esc10", "l2i config check experiments/mine.toml"],
)
def config() -> None:
    """Show the settings a run would have, or check a file of them."""


@config.command(
    example=[
        "l2i config show --dataset esc10 --section interpreter",
        "l2i config show -o interpreter.epochs=10 > mine.toml",
    ]
)
@click.option(
    "--dataset", type=options.DATASET, metavar="NAME", help="Name of the data set.  [default: demo]"
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file with settings that differ.",
)
@click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting; may be given several times.",
)
@click.option("--section", metavar="NAME", help="Only this section, 'interpreter' say.")
def show(
    dataset: str | None, file: Path | None, overrides: tuple[str, ...], section: str | None
) -> None:
    """Print every setting as TOML that --config reads back.

    The first lines say what it is; unset settings are left out.
    """
    from l2i.config import resolve
    from l2i.errors import UsageError
    from l2i.registry import nearest

    settings = resolve(file, dataset=dataset, overrides=overrides)
    if section is None:
        click.echo(f"# signature {settings.signature()}")
        click.echo(settings.to_toml(), nl=False)
        return
    # A section with its sub-sections: from its own head to the next that is not below it.
    blocks = settings.to_toml().split("\n\n")
    kept = [b.strip() for b in blocks if b.strip().startswith((f"[{section}]", f"[{section}."))]
    if not kept:
        names = [block.strip().splitlines()[0].strip("[]") for block in blocks]
        like = nearest(section, names)
        hint = f"; did you mean {like!r}?" if like else "."
        raise UsageError(f"There is no section {section!r}{hint} There are: {', '.join(names)}.")
    click.echo("\n\n".join(kept))


@config.command(example="l2i config check experiments/*.toml")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
def check(files: tuple[Path, ...]) -> None:
    """Check files of settings; every mistake in every one is named."""
    from l2i.config import resolve
    from l2i.errors import ConfigError

    problems: list[str] = []
    for file in files:
        try:
            settings = resolve(file)
        except ConfigError as error:
            # All name the file already, but for what is wrong with one that it extends.
            named = (str(file), str(file.resolve()))
            problems += [
                p if any(name in p for name in named) else f"{file}: {p}" for p in error.problems
            ]
        else:
            click.echo(f"{file}: fine; data set {settings.dataset.name}, {settings.signature()}")
    if problems:
        raise ConfigError(problems)
