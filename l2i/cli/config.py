"""``l2i config``: show what a run would do, check a file."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import click

from l2i.cli import options
from l2i.cli.base import Group
from l2i.errors import ConfigError, UsageError
from l2i.registry import did_you_mean, nearest

_dataset = options.dataset("Name of the data set.  [default: demo]")


@click.group(
    cls=Group, example=["l2i config show --dataset esc10", "l2i config check experiments/mine.toml"]
)
def config() -> None:
    """Show and explain the settings a run would have, or check a file of them."""


@config.command(
    example=[
        "l2i config show --dataset esc10 --section interpreter",
        "l2i config show -o interpreter.epochs=10 > mine.toml",
    ]
)
@_dataset
@options.config_file
@options.overrides
@click.option("--section", metavar="NAME", help="Show only this section, like interpreter.")
def show(
    dataset: str | None, file: Path | None, overrides: tuple[str, ...], section: str | None
) -> None:
    """Print every setting as TOML that --config reads back.

    What each means, and what it may be, stands over it. Unset settings are left out; 'l2i config
    explain KEY' explains them, too.
    """
    from l2i.config import resolve

    settings = resolve(file, dataset=dataset, overrides=overrides)
    if section is None:
        click.echo(f"# signature {settings.signature()}")
        click.echo(settings.to_toml(explain=True), nl=False)
        return
    # A section with its sub-sections: from its own head to the next that is not below it.
    blocks = settings.to_toml(explain=True).split("\n\n")
    kept = [b.strip() for b in blocks if b.strip().startswith((f"[{section}]", f"[{section}."))]
    if not kept:
        names = [block.strip().splitlines()[0].strip("[]") for block in blocks]
        hint = did_you_mean(section, names)
        raise UsageError(f"There is no section {section!r}{hint} There are: {', '.join(names)}.")
    click.echo("\n\n".join(kept))


@config.command(
    example=["l2i config explain interpreter.views", "l2i config explain explanation.warn"]
)
@click.argument("key", metavar="KEY")
@_dataset
def explain(key: str, dataset: str | None) -> None:
    """Explain a setting, or all of a section.

    KEY is what -o sets: what it means, may be, and is. Parts of a method have settings, too,
    'parts.gates' say.
    """
    from l2i.config import Config, meanings, resolve

    settings = resolve(dataset=dataset)
    known = meanings(Config)
    del known["parts"]
    if key.split(".")[0] == "parts":
        from l2i.training.parts import parts_of

        for part in parts_of(settings.method.name):
            if part.name not in type(settings).model_fields:
                known |= meanings(part.settings, f"parts.{part.name}.")
    chosen = [name for name in known if name == key or name.startswith(f"{key}.")]
    if not chosen:
        like = nearest(key, [*known, *{name.rpartition(".")[0] for name in known}])
        own = [name for name in known if name.rpartition(".")[2] == key]
        hint = f"; did you mean {like or own[0]!r}?" if like or own else "."
        raise UsageError(f"There is no setting {key!r}{hint} 'l2i config show' lists them.")
    now = settings.flat()
    for name in chosen:
        meaning = known[name]
        click.echo(f"{name} = {now.get(name, meaning.default)!r}")
        for line in wrap(str(meaning), 76):
            click.echo(f"    {line}")
        if name in now and now[name] != meaning.default:
            click.echo(
                f"    The preset of {settings.dataset.name} sets it; else {meaning.default!r}."
            )


@config.command(example="l2i config check experiments/*.toml")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
def check(files: tuple[Path, ...]) -> None:
    """Check files of settings; every mistake in every one is named."""
    from l2i.config import resolve

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
