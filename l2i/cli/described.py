"""The description of a job, from the words of ``l2i submit``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from l2i.cli import options
from l2i.data import refuse_folder
from l2i.run.runs import resolve_run
from l2i.run.store import locate

# Settings that name a file of weights; at s3:// it is an input of every task.
_FILES = ("classifier.audioset_weights", "classifier.weights", "dictionary.weights")


def describe(file: Path, on: str, image: str, given: dict[str, Any]) -> tuple[Any, Any]:
    """The description of a job, from the words; and the sweep, where FILE is one."""
    from l2i.config import read_toml, resolve
    from l2i.launch.spec import JobSpec, Task
    from l2i.recipes.tables.sweep_file import read_sweep

    here, laid = _place(on, given)
    tree = read_toml(file)
    overrides = list(given["overrides"])
    first = resolve(file, overrides=overrides, options=laid)
    if first.dataset.name == "folder":
        # Said by the folder alone here; where a task runs the same path may be the usual one.
        laid["dataset.name"] = "folder"
    inputs: dict[str, str] = {}
    for key in _FILES:
        value = str(first.flat()[key])
        if value.startswith("s3://"):
            inputs[key] = value
            laid[key] = f"mlruns/work/inputs/{value.rpartition('/')[2]}"
        elif value and not here:
            raise click.UsageError(
                f"{key} = {value!r} is on this machine, which tasks on {on} do not see: put it "
                f"into a bucket, and give -o {key}=s3://..."
            )
        elif value and on == "docker":
            # It is mounted where it is here.
            laid[key] = str(Path(value).expanduser().resolve())
    wanted = None
    if "sweep" in tree:
        wanted = read_sweep(file, overrides=overrides, options=laid)
        sweep = wanted.signature
        tasks = [Task(index=i, key=c.key, title=c.title) for i, c in enumerate(wanted.children)]
    else:
        config = resolve(file, overrides=overrides, options=laid)
        refuse_folder(config.dataset.name, config.dataset.data_dir)
        sweep = ""
        tasks = [Task(index=0, key=config.signature(), title=file.stem)]
    spec = JobSpec.make(
        name=re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-_") or "job",
        file=file.name,
        config=tree,
        overrides=tuple(overrides),
        options=laid,
        sweep=sweep,
        tasks=tuple(tasks),
        inputs=inputs,
        checkpoint_minutes=given["checkpoint_minutes"],
        **_needs(on, image, given, here),
    )
    return spec, wanted


def describe_audit(word: str, shares: int, on: str, image: str, given: dict[str, Any]) -> Any:
    """The description of the job that hears the clips of an audit."""
    from l2i.launch.spec import JobSpec, Task

    here, laid = _place(on, given)
    run = resolve_run(word)
    group = f"audit-{run.id[:12]}-{shares}"
    tasks = tuple(
        Task(index=i, key=f"{group}-{i}", title=f"share {i + 1} of {shares}") for i in range(shares)
    )
    return JobSpec.make(
        name=group,
        file=group,
        config={},
        options=laid,
        sweep=group,
        audit={"run": run.id, "shares": shares},
        tasks=tasks,
        **_needs(on, image, given, here),
    )


def _place(on: str, given: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether tasks are on this machine, and the settings that options have for them."""
    from l2i.launch import ENGINES, EXPORTS

    here = on not in EXPORTS and getattr(ENGINES[on], "here", False)
    laid = {key: value for key, value in options.settings(given).items() if value}
    data_dir = laid.get("dataset.data_dir")
    if not here and data_dir and not data_dir.startswith("s3://"):
        raise click.UsageError(
            f"--data-dir {data_dir} is on this machine, which tasks on {on} do not see: put it "
            "into a bucket, and give its s3:// address."
        )
    return here, laid


def _needs(on: str, image: str, given: dict[str, Any], here: bool) -> dict[str, Any]:
    """Where a job's tasks write, and what each needs."""
    store = locate()
    outputs = {"tracking": store.uri}
    if store.artifacts_chosen and store.artifacts:
        outputs["artifacts"] = store.artifacts
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("MLFLOW_S3_ENDPOINT_URL")
    if endpoint:
        outputs["endpoint"] = endpoint
    if not here and store.database is not None:
        raise click.UsageError(
            f"Tasks on {on} cannot write to {store.shown}: set MLFLOW_TRACKING_URI to a tracking "
            "server or a database that they reach."
        )
    gpus = given["gpus"] if given["gpus"] is not None else 0 if here else 1
    return {
        "image": image,
        "outputs": outputs,
        "gpus": gpus,
        "vcpus": given["vcpus"] or (4 if gpus else 2),
        "memory_mib": given["memory_mib"] or (14_000 if gpus else 4096),
        **{key: given[key] for key in ("shared_memory_mib", "timeout_s", "attempts", "parallel")},
        "environment": _environment(given["environment"]),
        "secrets": {
            name: source or name
            for name, _, source in (word.partition("=") for word in given["secrets"])
        },
    }


def _environment(words: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            raise click.UsageError(f"--env {name}: there is no such variable here.")
        variables[name] = value if equals else os.environ[name]
    return variables
