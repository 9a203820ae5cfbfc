"""``l2i task``: one training of a job, or one share of an audit, as an engine starts it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from l2i.cli import say_unsent
from l2i.cli.base import Command
from l2i.cli.options import number
from l2i.errors import DataError, L2IError, StoreError, UsageError
from l2i.run.family import find_parent, make_parent, member_tag
from l2i.run.progress import Progress
from l2i.run.signals import signals_as_exit
from l2i.run.store import connect, locate
from l2i.storage import atomic_write_text, disk_errors, s3
from l2i.storage.patience import patiently

# Where engines say which task of an array this is, and which attempt of it.
_INDEX = (
    *("L2I_TASK_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX", "JOB_COMPLETION_INDEX"),
    "SLURM_ARRAY_TASK_ID",
)
_ATTEMPT = ("L2I_TASK_ATTEMPT", "AWS_BATCH_JOB_ATTEMPT")
_NATIVE = ("AWS_BATCH_JOB_ID", "SLURM_JOB_ID", "HOSTNAME")


def _first(names: tuple[str, ...], default: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), default)


@click.command(cls=Command, example=['l2i task --job "$L2I_JOB" --index 0'])
@click.option(
    "--job",
    envvar="L2I_JOB",
    show_envvar=True,
    metavar="WORD",
    required=True,
    help="What 'l2i submit' packed.",
)
@number(
    "--index", least=0, help="Which task, from 0.  [default: as the engine's own variable says]"
)
def task(job: str, index: int | None) -> int:
    """Do one task of a job: what 'l2i submit' lets an engine start.

    It goes on where an earlier attempt stopped, on whatever machine that was. Exit code 0: done;
    75: stopped, and worth another attempt; 70: a bug; 1 and 2: what the job says is wrong.
    """
    from l2i.launch.job import BUG, RUN_AGAIN

    try:
        # As the first process of a container Python would not even hear it.
        with signals_as_exit():
            return _do(job, index)
    except SystemExit as end:
        if not isinstance(end.code, int) or end.code <= 128:
            raise
        click.echo("Stopped; another attempt goes on from the last checkpoint.", err=True)
        return RUN_AGAIN
    except (L2IError, KeyboardInterrupt, click.ClickException):
        raise
    except Exception:
        import traceback

        traceback.print_exc()
        return BUG


def _do(job: str, index: int | None) -> int:
    from l2i.config import resolve, toml_of
    from l2i.launch.job import RUN_AGAIN
    from l2i.launch.spec import decode
    from l2i.recipes.tables.sweep_file import facts, read_sweep

    payload = decode(job)
    place = index if index is not None else int(_first(_INDEX, "0"))
    if place >= len(payload["tasks"]):
        raise UsageError(f"The job has {len(payload['tasks'])} tasks: there is no task {place}.")
    progress = Progress()
    if payload["audit"]:
        return _hear(payload, payload["tasks"][place], progress)
    folder = locate().root / "work" / "tasks" / payload["job"]
    path = folder / str(place) / payload["file"]
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, toml_of(payload["config"]) + "\n")
    options: dict[str, Any] = dict(payload["options"])
    options["run.checkpoint_minutes"] = payload["checkpoint_minutes"]
    wanted = None
    if payload["sweep"]:
        wanted = read_sweep(path, overrides=payload["overrides"], options=options)
        if wanted.signature != payload["sweep"]:
            raise UsageError(
                "This l2i makes other trainings of the file than the one that submitted it: give "
                "--image of the same version."
            )
        child = wanted.children[payload["tasks"][place]]
        config, key, group = child.config, child.key, wanted.signature
        progress.say(f"Task {place} of {payload['job']}: {child.title}.")
    else:
        config = resolve(path, overrides=payload["overrides"], options=options)
        key = group = config.signature()
    for setting, uri in payload["inputs"].items():
        _fetch(uri, options[setting], progress)
    _reach()

    from l2i.recipes.tables.sweep_table import gather
    from l2i.recipes.training.train import train

    marks = _marks(payload["job"], place, group, key)
    parent = payload["parent"]
    if wanted is not None and not parent:
        # Who submitted could not reach the store. Tasks that begin at once may make one each:
        # the first is the table's, and 'l2i jobs reconcile' closes the others.
        parent = make_parent(**facts(wanted))
    done = train(config, progress, parent=parent, owner=f"{group}/{key}", marks=marks)
    word = "was done before" if done.finished_before else "is done"
    progress.say(f"Run {done.name} ({done.run_id}) {word}.")
    if say_unsent():  # In a container nothing of it would be left.
        return RUN_AGAIN
    if wanted is not None:
        finished, total = gather(wanted)
        if find_parent(facts(wanted)["experiment"], wanted.signature) is None:
            progress.say("The run above the sweep was deleted: no table was written.")
        progress.say(f"{finished} of {total} trainings of the sweep are done.")
    return 0


def _hear(payload: dict[str, Any], share: int, progress: Any) -> int:
    """A share of an audit."""
    from l2i.audit import hear_share
    from l2i.launch.job import RUN_AGAIN

    run, shares, options = payload["audit"]["run"], payload["audit"]["shares"], payload["options"]
    progress.say(f"Share {share + 1} of {shares} of the audit of run {run[:8]}.")
    _reach()
    place = payload["tasks"].index(share)
    made = hear_share(
        run,
        progress,
        (share, shares),
        data_dir=options.get("dataset.data_dir"),
        device=options.get("run.device", "auto"),
        marks=_marks(payload["job"], place, payload["sweep"], f"{payload['sweep']}-{share}"),
    )
    progress.say(f"Run {made} has it.")
    return RUN_AGAIN if say_unsent() else 0


def _marks(job: str, place: int, group: str, key: str) -> dict[str, str]:
    """The tags of a task's run: what it is a part of, and who does it."""
    attempt = _first(_ATTEMPT, str(1 + int(os.environ.get("SLURM_RESTART_COUNT", "0"))))
    native = _first(_NATIVE, "")
    marks = {
        member_tag(group): key,
        "l2i.job": job,
        "l2i.job_task": str(place),
        "l2i.engine": os.environ.get("L2I_TASK_ENGINE", ""),
        "l2i.native": native,
        "l2i.attempt": attempt,
        f"l2i.attempt.{attempt}": f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {native}",
    }
    if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
        marks["l2i.region"] = region
    return marks


def _fetch(uri: str, target: str, progress: Any) -> None:
    """An input, once per machine."""
    path = Path(target)
    place = s3.Location.parse(uri)
    above = s3.Location(place.bucket, place.prefix.rpartition("/")[0])
    name = place.prefix.rpartition("/")[2]
    files = [file for file in s3.listing(above) if file.name == name]
    if not files:
        raise DataError(f"There is nothing at {uri}.")
    if s3.fetch(above, path.parent, files):
        progress.say(f"Fetched {uri}.")


def _reach() -> None:
    """Wait for the run store: a task that was scheduled should not end for a moment's absence."""
    patiently(
        lambda: connect(locate()),
        lambda error: isinstance(error, StoreError),
        lambda error: str(error).rstrip("."),
    )
