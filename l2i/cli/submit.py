"""``l2i submit``: a sweep's trainings, or the clips of an audit, as one job on an engine.

Over 300 lines: one command of thirty options, and the description that they make.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, launching, options
from l2i.cli.base import Command, Option, answered, emit_json
from l2i.data import refuse_folder
from l2i.errors import StoreError, UsageError
from l2i.registry import did_you_mean
from l2i.run.family import make_parent
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run
from l2i.run.store import locate
from l2i.storage import atomic_write_text, disk_errors

_ON = ["local", "docker", "aws-batch", "skypilot", "kubernetes", "slurm"]
# Settings that name a file of weights; at s3:// it is an input of every task.
_FILES = ("classifier.audioset_weights", "classifier.weights", "dictionary.weights")


class _Engine(click.Choice[str]):
    """One of these, or an engine of somebody else's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from l2i.launch import ENGINES

        if ":" in value or (value not in _ON and value in ENGINES):
            return options.file_word(value)
        if value not in _ON:
            hint = did_you_mean(value, _ON)
            self.fail(
                f"there is no engine {value!r}{hint} There are: {', '.join(_ON)}; or MODULE:NAME, "
                "or FILE.py:NAME.",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


@click.command(
    cls=Command,
    example=[
        "l2i submit experiments/demo/seeds.toml --on local",
        "l2i submit experiments/esc50/five_folds.toml --on aws-batch --queue gpu-spot",
        "l2i submit experiments/demo/seeds.toml --on docker --image l2i:cpu --dry-run",
        "l2i submit experiments/demo/seeds.toml --on slurm --write seeds.sbatch",
        "l2i submit --audit latest --shares 8 --on aws-batch --queue gpu-spot",
    ],
)
@click.argument(
    "file", metavar="[FILE]", type=click.Path(path_type=Path, dir_okay=False), required=False
)
@options.text(
    "--audit",
    "audited",
    metavar="RUN",
    help="Explain all clips for the audit of RUN, in place of a FILE; each task has a share.",
)
@options.number("--shares", most=10_000, help="Divide the clips of an audit among N tasks.")
@click.option(
    "--on",
    type=_Engine(_ON),
    default="local",
    help="Engine; the last three write a file for another scheduler (--write). One of your own is "
    "MODULE:NAME or FILE.py:NAME.",
)
@options.text("--queue", help="Queue of AWS Batch.")
@options.region
@options.text("--image", help="Container image; for AWS by its digest.  [default: the queue's]")
@options.number("--gpus", least=0, help="GPUs per task.  [default: 1 on AWS]")
@options.number("--vcpus", help="Processors per task.  [default: 4 with a GPU, else 2]")
@options.memory(more="  [default: 14000MiB, or 4GiB without a GPU]")
@options.shared_memory
@click.option(
    "--timeout",
    "timeout_s",
    cls=Option,
    old="--timeout-s",
    type=kinds.Quantity(kinds.TIME, 60, whole=True),
    default="6h",
    metavar="TIME",
    help="Stop each attempt after this time; a bare number is seconds.",
)
@options.number(
    "--attempts", default=3, most=10, help="Try a task up to N times if its machine is lost."
)
@options.number(
    "--parallel",
    default=0,
    least=0,
    show_default=False,
    help="Train N at the same time.  [default: 1 on this machine; else the engine's choice]",
)
@click.option(
    "--checkpoint",
    "checkpoint_minutes",
    cls=Option,
    old="--checkpoint-minutes",
    type=kinds.MINUTES,
    default="5m",
    metavar="TIME",
    help="Upload the last checkpoint this often; a bare number is minutes, 0: never.",
)
@click.option(
    "--env",
    "environment",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set an environment variable in every task; without VALUE: as it is here.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME[=SOURCE]",
    help="Set a variable from a secret: an ARN on AWS, secret/key on Kubernetes, elsewhere the "
    "local variable that holds it.",
)
@click.option(
    "--max-gpu-hours",
    type=kinds.FiniteRange(min=0),
    metavar="N",
    help="Refuse a job that could take more than N GPU hours.",
)
@options.data_dir
@options.device
@options.overrides
@options.experiment
@click.option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File to write for another scheduler.  [default: stdout]",
)
@click.option(
    "--dry-run", is_flag=True, help="Check and print the job's description; submit nothing."
)
@options.watch
@options.quiet
@options.as_json
def submit(
    file: Path | None,
    audited: str,
    shares: int | None,
    on: str,
    queue: str,
    region: str,
    image: str,
    write: Path | None,
    dry_run: bool,
    watch: bool,
    progress: Progress,
    max_gpu_hours: float | None,
    **given: Any,
) -> int:
    """Submit everything that FILE varies as one job; each training is a task.

    With --audit a task is a share of the clips of RUN's audit instead; 'l2i audit RUN' gathers what
    they heard, and ends it.

    Tasks write to the MLflow store that MLFLOW_TRACKING_URI names, and survive the loss of their
    machine. Submission is idempotent: the same again submits nothing. FILE without a table
    [sweep] is one task.
    """
    from l2i.launch import ENGINES, EXPORTS

    if on == "docker" and image:
        from l2i.launch.docker import resolve_image

        image = resolve_image(image)
    if audited:
        if file is not None or shares is None or given["overrides"]:
            raise click.UsageError("With --audit give --shares, no FILE and no --override.")
        if given["experiment"]:
            raise click.UsageError("--experiment is for trainings: an audit lies under its RUN.")
        spec, wanted = _describe_audit(audited, shares, on, image, given), None
    elif file is None or shares is not None:
        raise click.UsageError("Give a FILE, or --audit and --shares.")
    else:
        spec, wanted = _describe(file, on, image, given)
    if max_gpu_hours is not None and spec.gpu_hours > max_gpu_hours:
        raise UsageError(
            f"{_cost(spec)} That is more than --max-gpu-hours {max_gpu_hours:g}: lower --timeout "
            "or --attempts, or split the file."
        )
    if on in EXPORTS:
        text = EXPORTS[on](spec)
        if not dry_run and (parent := _parent(spec, wanted)):
            text = EXPORTS[on](spec.model_copy(update={"parent": parent}))
        if write is None:
            click.echo(text, nl=False)
        else:
            with disk_errors(write):
                atomic_write_text(write, text)
            if not progress.quiet:
                click.echo(f"Wrote {write}.", err=True)
        return 0
    if write is not None:
        raise click.UsageError(f"--write is for files that others run, not for --on {on}.")
    from l2i.launch.job import known_job

    launcher = ENGINES[on](launching.root(), {"queue": queue, "region": region})
    if dry_run:
        for check in launcher.check(spec):
            click.echo(
                f"{ {True: 'yes', False: 'no', None: '?'}[check.ok]:>3}  {check.sentence}", err=True
            )
        emit_json({"id": spec.id, "gpu_hours": spec.gpu_hours, **spec.model_dump(mode="json")})
        return 0
    if known_job(launching.root(), spec.id) is None:
        launcher.check(spec)  # What is refused makes no run.
    job = launcher.submit(spec.model_copy(update={"parent": _parent(spec, wanted)}))
    made = {"job": job.id, "native": job.native, "new": job.new, "gpu_hours": spec.gpu_hours}
    if not answered(made):
        n = len(spec.tasks)
        word = "Submitted" if job.new else "It was submitted before; nothing is new:"
        click.echo(f"{word} job {job.id}: {n} task{'s' * (n > 1)} on {on}.")
        if not progress.quiet:
            click.echo(_cost(spec))
            click.echo(f"'l2i jobs show {job.id} --watch' looks on; 'l2i cancel {job.id}' ends it.")
    return launching.watch(launcher, job, progress.quiet) if watch else 0


def _cost(spec: Any) -> str:
    product = f"{len(spec.tasks)} x {spec.attempts} attempts x {spec.timeout_s / 3600:g} h"
    if spec.gpus:
        return f"At most {spec.gpu_hours:g} GPU hours ({product} x {spec.gpus} GPU)."
    return f"At most {spec.bound_hours:g} hours ({product}), no GPU."


def _parent(spec: Any, wanted: Any) -> str:
    """The id of the run above a sweep's tasks, which is made now; empty where there is none."""
    if wanted is None:
        return ""
    from l2i.launch.job import known_job
    from l2i.recipes.tables.sweep_file import facts

    known = known_job(launching.root(), spec.id)
    try:
        return (known.spec.parent if known else "") or make_parent(**facts(wanted))
    except StoreError as error:
        click.echo(f"{error} The tasks will make the parent run.", err=True)
        return ""


def _describe(file: Path, on: str, image: str, given: dict[str, Any]) -> tuple[Any, Any]:
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


def _describe_audit(word: str, shares: int, on: str, image: str, given: dict[str, Any]) -> Any:
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
