"""Many trainings from one file: a process each, a parent run above them, one table at the end.

Each child is the run that ``l2i train`` of the same config would make: what is finished is not
done again, by whatever it was begun, and what was stopped goes on. Children that need the same
classifier, which is not trained yet, wait for the first of them, so that it is trained once.

Over 300 lines: a loop over processes, and what is known before it begins.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l2i.config import Config
from l2i.environment import child_environment, cpu_count
from l2i.errors import ConfigError, InputError
from l2i.launch import processes
from l2i.metrics import METRICS
from l2i.recipes.opening.description import DESCRIPTION
from l2i.recipes.opening.material import IDENTITY, prepare
from l2i.recipes.tables.sweep_file import Child, Sweep, facts
from l2i.recipes.tables.sweep_table import describe_table, table_of, write_table
from l2i.recipes.training.train import part_settings
from l2i.run.address import as_text, locate
from l2i.run.family import find_parent
from l2i.run.progress import Progress
from l2i.run.runs import find_run, list_runs
from l2i.run.tracker import Tracker, open_run
from l2i.storage import atomic_write_text, disk_errors
from l2i.training.parts import parts_of


class _SomeFailed(Exception):
    """Ends the parent run as FAILED; what there is was written before."""


@dataclass
class _Work:
    """A child's process."""

    child: Child
    process: subprocess.Popen[bytes]
    out: Path
    log: Path
    show: Callable[[str], None]
    over: ExitStack
    begin: float = field(default_factory=time.monotonic)

    def look(self) -> None:
        """Show how far it is."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 2000))
            lines = file.read().decode(errors="replace").splitlines()
            self.show(next(filter(None, reversed(lines)), ""))


def _record(sweep: Sweep) -> Path:
    return locate().root / "work" / "sweeps" / sweep.signature / "done.json"


def check_parts(wanted: Sweep) -> None:
    """Refuse settings of methods' parts that there are not, before the first training begins.

    Raises
    ------
    ConfigError
        With one sentence per mistake.
    """
    problems: dict[str, None] = {}
    for child in wanted.children:
        try:
            part_settings(child.config, parts_of(child.config.method.name))
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise ConfigError(list(problems))


def _done(sweep: Sweep) -> dict[str, dict[str, Any]]:
    """Children that an earlier process of this sweep saw finish, by their key.

    Only those whose run is still there, finished, and of these very settings and data.
    """
    try:
        record: dict[str, dict[str, Any]] = json.loads(_record(sweep).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    children = [child for child in sweep.children if child.key in record]
    identities: dict[str, str] = {}
    kept = {}
    for child in children:
        run = find_run(record[child.key]["run_id"])
        science = child.config.science()
        if run is None or any(
            run.params.get(k, as_text(v)) != as_text(v) for k, v in science.items()
        ):
            continue
        if IDENTITY in run.tags:
            where = child.config.model_dump_json(include={"dataset", "spectrogram", "run"})
            if where not in identities:
                identities[where] = _identity(child.config)
            if identities[where] not in ("", run.tags[IDENTITY]):
                continue
        kept[child.key] = record[child.key]
    return kept


def _identity(config: Config) -> str:
    """The identity of the data as they are now; empty where they are no longer at hand."""
    try:
        return prepare(config, Progress(quiet=True)).identity
    except InputError:
        return ""


def states(sweep: Sweep) -> list[dict[str, Any]]:
    """What there is to do, without doing it: one dict per child, with ``done``."""
    done = _done(sweep)
    return [
        {**child.place, "overrides": list(child.overrides), "done": child.key in done}
        for child in sweep.children
    ]


def time_of_one(wanted: Sweep) -> tuple[float, str] | None:
    """Seconds that a training like those of a sweep took, and the name of that run.

    It is the newest finished one of the same data set and method that learnt for as many epochs;
    None where there is none. A run that took over stages from another took less.
    """
    first = wanted.children[0].config
    same = ("method.name", "classifier.epochs", "interpreter.epochs", "dataset.duration_s")
    flat = first.flat()
    for run in list_runs(status="finished", kind="train", tags={"dataset": first.dataset.name}):
        like = all(run.params.get(key) == as_text(flat[key]) for key in same)
        if like and run.start is not None and run.end is not None:
            return (run.end - run.start).total_seconds(), run.name
    return None


def sweep(
    wanted: Sweep, progress: Progress, *, jobs: int = 1, extra: Sequence[str] = ()
) -> dict[str, Any]:
    """Train all children, and put their figures into one table.

    Parameters
    ----------
    wanted : Sweep
    progress : Progress
    jobs : int
        Trainings at once; processors are divided among them.
    extra : sequence of str
        Words for every child's ``l2i train``.

    Returns
    -------
    dict
        ``run``; ``children``: one dict each, with ``run_id`` and ``scores``; ``table``: one dict
        per setting, ``figure`` -> ``mean``, ``std`` and ``n``; ``failed``: one dict per child
        that failed, with ``title``, ``why`` and ``log``.

    Raises
    ------
    ConfigError
        See `check_parts`.
    """
    check_parts(wanted)
    above, done = facts(wanted), _done(wanted)
    if len(done) == len(wanted.children):
        before = find_parent(above["experiment"], wanted.signature)
        if before is not None and before.status == "FINISHED":
            progress.say(f"Sweep {before.name} ({before.id[:8]}) is finished: this is its table.")
            children = _in_order(wanted, done)
            return table_of(wanted, before.id, before.name, children) | {"failed": []}
    table: dict[str, Any] = {}
    with suppress(_SomeFailed), open_run(**above, on_away=progress.say) as run:
        progress.say(f"Sweep {run.name} ({run.run_id[:8]}): {len(wanted.children)} trainings.")
        results, failed = _train_all(wanted, done, run, progress, jobs, extra)
        children = _in_order(wanted, results)
        table |= table_of(wanted, run.run_id, run.name, children) | {"failed": failed}
        if children:
            out = run.folder / "artifacts"
            run.final(write_table(wanted, table, out))
            run.artifact(out)
            run.tags({DESCRIPTION: describe_table(wanted, table)})
        if failed:
            raise _SomeFailed
    return table


def _in_order(wanted: Sweep, results: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Children that are done, in the file's order, each with its place in the table."""
    children = [child for child in wanted.children if child.key in results]
    return [{**child.place, **results[child.key]} for child in children]


def _train_all(
    wanted: Sweep,
    done: Mapping[str, dict[str, Any]],
    run: Tracker,
    progress: Progress,
    jobs: int,
    extra: Sequence[str],
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    results = dict(done)
    pending = [child for child in wanted.children if child.key not in results]
    if results:
        progress.say(f"{len(results)} of them are done already.")
    total, failed = len(wanted.children), []
    ready: set[str] = set()  # Classifiers that are trained, or were given up.
    working: list[_Work] = []
    try:
        while pending or working:
            while len(working) < jobs and (child := _next(pending, working, ready)) is not None:
                pending.remove(child)
                number = total - len(pending)
                work = _start(child, wanted, run, progress, f"{number}/{total}", jobs, extra)
                working.append(work)
            time.sleep(0.1)
            for work in working:
                work.look()
            for work in [w for w in working if w.process.poll() is not None]:
                working.remove(work)
                work.over.close()
                ready.add(work.child.config.signature("classifier"))
                result = _result(work)
                if isinstance(result, str):
                    failed.append({"title": work.child.title, "why": result, "log": str(work.log)})
                    progress.say(f"{work.child.title}: failed. {result}")
                    continue
                results[work.child.key] = result
                with disk_errors(_record(wanted)):
                    atomic_write_text(_record(wanted), json.dumps(results, indent=1) + "\n")
                minutes = (time.monotonic() - work.begin) / 60
                figures = ", ".join(
                    f"{METRICS[f].title.lower()} {result['scores'][f]:.3f}"
                    for f in ("accuracy", "auprc_macro", "fidelity_top1", "fidelity_auprc_macro")
                    if isinstance(result["scores"].get(f), float)
                )
                progress.say(f"{work.child.title}: done in {minutes:.1f} min. {figures}.")
    finally:
        for work in working:  # Each child keeps its last epoch.
            work.over.close()
            processes.tell(work.process)
        processes.reap(work.process for work in working)
    return results, failed


def _next(pending: Sequence[Child], working: Sequence[_Work], ready: set[str]) -> Child | None:
    """The first child whose classifier nobody is training just now."""
    busy = {w.child.config.signature("classifier") for w in working} - ready
    return next((c for c in pending if c.config.signature("classifier") not in busy), None)


def _start(
    child: Child,
    wanted: Sweep,
    run: Tracker,
    progress: Progress,
    number: str,
    jobs: int,
    extra: Sequence[str],
) -> _Work:
    folder = _record(wanted).parent
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    log, out = folder / f"{child.key}.log", folder / f"{child.key}.json"
    words = [sys.executable, "-P", "-m", "l2i", "train", "--config", str(wanted.path), "--json"]
    words += ["--parent", run.run_id]
    words += [*extra, *(w for over in child.overrides for w in ("-o", over))]
    if jobs > 1 and not child.config.run.threads:
        words += ["-o", f"run.threads={cpu_count(jobs)}"]
    with out.open("wb") as stdout, log.open("ab") as stderr:
        process = processes.start(words, child_environment(), stdout=stdout, stderr=stderr)
    progress.say(f"{number} {child.title}: begins; its log is {log}.")
    over = ExitStack()
    return _Work(
        child,
        process,
        out,
        log,
        over.enter_context(progress.watch(f"{number} {child.title}")),
        over,
    )


def _result(work: _Work) -> dict[str, Any] | str:
    """What a child found, or why it did not."""
    code = work.process.returncode
    if code in (0, 3):  # 3: done, and not all could be sent yet.
        with suppress(OSError, ValueError, KeyError):
            result = json.loads(work.out.read_text(encoding="utf-8"))
            if result["config"] != work.child.key:
                return f"It trained other settings than it was told ({work.log} has its words.)"
            return {"run_id": result["run_id"], "name": result["name"], "scores": result["scores"]}
    lines = []
    with suppress(OSError):
        lines = work.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("Error: ") if lines else "It said nothing."
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"{last} ({how}; {work.log} has the rest.)"
