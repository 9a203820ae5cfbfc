"""Options that several commands share, worded once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds
from l2i.cli.base import JSON, Option
from l2i.run.progress import Progress
from l2i.types import Classifier

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Parameters of commands, and the settings that they are.
_SETTINGS = {
    "data_dir": "dataset.data_dir",
    "fold": "dataset.fold",
    "classifier": "classifier.spec",
    "classifier_epochs": "classifier.epochs",
    "interpreter_epochs": "interpreter.epochs",
    "method": "method.name",
    "seed": "run.seed",
    "device": "run.device",
    "precision": "run.precision",
    "experiment": "run.experiment",
    "name": "run.name",
}


def number(
    *words: str,
    default: int | None = None,
    least: int = 1,
    most: int | None = None,
    help: str,
    **more: Any,
) -> Decorator:
    """An option that is a whole number, `least` at least."""
    kind = click.IntRange(least, most)
    return click.option(*words, type=kind, default=default, metavar="N", help=help, **more)


def text(*words: str, help: str, metavar: str = "NAME") -> Decorator:
    """An option that is empty where it is not given."""
    return click.option(*words, metavar=metavar, default="", show_default=False, help=help)


def several(*words: str, metavar: str, help: str, default: str = "", **more: Any) -> Decorator:
    """An option that may be given several times, as its help says; and `default`, what holds where
    it is not given."""
    help += f"; may be given several times.{default and f'  [default: {default}]'}"
    return click.option(*words, multiple=True, metavar=metavar, help=help, **more)


def dataset(help: str, **more: Any) -> Decorator:
    """``--dataset``, by its name."""
    return click.option("--dataset", type=kinds.DATASET, metavar="NAME", help=help, **more)


def out_dir(help: str, **more: Any) -> Decorator:
    """``--out``, a folder for results."""
    return click.option("--out", type=kinds.FOLDER, metavar="DIR", help=help, **more)


def memory(default: str | None = None, more: str = "") -> Decorator:
    """``--memory`` of a task; `more` is the end of its help."""
    return click.option(
        "--memory",
        "memory_mib",
        cls=Option,
        old="--memory-mib",
        type=kinds.Quantity(kinds.SIZE_MIB, 256, whole=True),
        default=default,
        metavar="SIZE",
        help=f"Memory per task, like 14GiB; a bare number is MiB.{more}",
    )


data_dir: Decorator = click.option(
    "--data-dir",
    type=kinds.PLACE,
    metavar="DIR",
    help="Folder of the data set, or its parent; an s3:// URL is downloaded to the cache.  "
    "[default: the user's cache]",
)
run_data_dir: Decorator = click.option(
    "--data-dir",
    type=kinds.PLACE,
    metavar="DIR",
    # The variable would win over what the run says of its own data.
    envvar=(),
    help="Folder of the data set, or its parent, if it has moved; or an s3:// URL.  "
    "[default: as in training, or L2I_DATA_DIR]",
)
device: Decorator = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="Device to compute on.  [default: auto]",
)
precision: Decorator = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
    help="Number format of the networks.  [default: float32]",
)
config_file: Decorator = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file with settings that differ.",
)
overrides: Decorator = several(
    "-o", "--override", "overrides", metavar="KEY=VALUE", help="Change one setting"
)
shared_memory: Decorator = click.option(
    "--shared-memory",
    "shared_memory_mib",
    cls=Option,
    old="--shared-memory-mib",
    type=kinds.Quantity(kinds.SIZE_MIB, 64, whole=True),
    default="1GiB",
    metavar="SIZE",
    help="Size of /dev/shm in a task.",
)
region = text("--region", help="AWS region.  [default: the environment's]")
watch: Decorator = click.option(
    "--watch",
    is_flag=True,
    help="Follow until the job ends; Ctrl-C detaches and leaves it running.",
)
experiment: Decorator = click.option(
    "--experiment",
    metavar="NAME",
    help="MLflow experiment to file runs under.  [default: the data set's name]",
)
fold: Decorator = number("--fold", help="Test on this fold.  [default: 1]")
seed: Decorator = number(
    "--seed", least=0, help="Random seed: weights, order, split.  [default: 0]"
)
run_name: Decorator = click.option(
    "--name", metavar="NAME", help="Name of the new run.  [default: data set, fold, signature]"
)
quiet: Decorator = click.option(
    "-q",
    "--quiet",
    "progress",
    is_flag=True,
    callback=lambda _ctx, _param, given: Progress(given),
    help="Print results only, no progress.",
)


def _artifacts(_ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    # `l2i.run.store` reads it there, in this process and in those that a sweep starts.
    if value:
        os.environ["L2I_ARTIFACTS"] = value


artifacts: Decorator = click.option(
    "--artifacts",
    metavar="PLACE",
    expose_value=False,
    is_eager=True,
    callback=_artifacts,
    help="Folder or s3://bucket/prefix for the artifacts of new experiments.  "
    "[default: beside the runs]",
)


def model_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """A name that MLflow's model registry takes, or a usage error."""
    if value is not None and (not value.strip() or set(value) & set("/:")):
        raise click.BadParameter(f"{value!r} is no name for a model: it has no '/' and no ':'.")
    return value


def pairs(_ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` words as a mapping, or a usage error."""
    values = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{word!r} is not {param.metavar}.")
        values[key] = value
    return values


def _as_json(what: str) -> Decorator:
    """``--json``, as `l2i.cli.base.answered` heeds it."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=lambda ctx, _param, given: ctx.meta.update({JSON: ctx if given else None}),
        help=f"Print {what} as JSON.",
    )


as_json, details_as_json = _as_json("results"), _as_json("all details")


def settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `l2i.config.resolve` takes as `options`, of a command's parameters; files and folders by
    their whole path, None where an option is not given."""
    whole = {"data_dir": resolved, "classifier": classifier_spec, "method": file_word}
    return {
        key: whole[word](given[word]) if word in whole else given[word]
        for word, key in _SETTINGS.items()
        if word in given
    }


def load_classifier(spec: str) -> Classifier:
    """The classifier that a word names; ``run:RUN`` is that of a finished run.

    What loading it warns of is said on standard error.
    """
    import warnings

    if spec.startswith("run:"):
        import torch

        from l2i.recipes.opening.bundle import open_bundle
        from l2i.run.runs import resolve_run

        run = resolve_run(spec.removeprefix("run:"))
        return open_bundle(run, torch.device("cpu"), torch.float32)[1].classifier
    from l2i.models import spec as specs

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        classifier = specs.load_classifier(spec)
    for sentence in dict.fromkeys(str(warning.message) for warning in told):
        click.echo(f"Note: {sentence}", err=True)
    return classifier


def classifier_spec(spec: str | None) -> str | None:
    """A classifier's word that means the same whatever the current folder is; None stays None."""
    if spec is None:
        return None
    if spec.startswith("run:"):
        raise click.UsageError(
            "--classifier is for those of another making; of a run's own classifier give its "
            "checkpoint: -o classifier.weights=FILE."
        )
    if spec.startswith("hf:"):
        return f"hf:{Path(spec.removeprefix('hf:')).expanduser().resolve()}"
    if ":" not in spec and Path(spec).suffix in (".ts", ".pt", ".jit"):
        return str(Path(spec).expanduser().resolve())
    return file_word(spec)


def file_word(word: str | None) -> str | None:
    """``FILE.py:NAME`` with the file's whole path; any other word as it stands."""
    file, colon, name = (word or "").rpartition(":")
    if colon and file.endswith(".py"):
        return f"{Path(file).expanduser().resolve()}:{name}"
    return word


def resolved(path: Path | str | None) -> str | None:
    """A folder as one address, whatever the current folder is later; None stays None."""
    if isinstance(path, Path):
        return str(path.expanduser().resolve())
    return path or None
