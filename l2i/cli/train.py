"""``l2i train`` and ``import``: runs with networks, learnt on a data set or published ones."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, Option, answered
from l2i.metrics import METRICS, meanings
from l2i.run.progress import Progress
from l2i.run.store import locate


@click.command(
    cls=Command,
    example=[
        "l2i train --dataset demo",
        "l2i train --dataset esc10 --data-dir ESC-10 --fold 1 --name first",
        "l2i train --dataset sust --config mine.toml -o interpreter.epochs=10",
        "l2i train --classifier yamnet.py:load --data-dir sounds",
    ],
)
@options.dataset(
    "Name of the data set ('l2i data list'); with --data-dir alone: folder.  [default: demo]"
)
@options.data_dir
@click.option(
    "--classifier",
    metavar="SPEC",
    help="Explain this classifier (see 'l2i classifiers check --help') and train none.",
)
@click.option(
    "--method",
    type=kinds.METHOD,
    metavar="NAME",
    help="Explanation method to train.  [default: the data set's]",
)
@options.fold
@options.seed
@options.device
@options.precision
@options.number("--classifier-epochs", help="Epochs of the classifier.  [default: the data set's]")
@options.number(
    "--interpreter-epochs",
    "interpreter_epochs",
    cls=Option,
    old="--epochs",
    help="Epochs of the interpreter.  [default: the data set's]",
)
@options.config_file
@options.overrides
@options.experiment
@options.run_name
@click.option(
    "--again",
    is_flag=True,
    help="Train again even if this run is finished; finished stages are reused.",
)
@click.option(
    "--from-scratch",
    is_flag=True,
    help="Train again even if this run is finished, all stages anew.",
)
@click.option(
    "--register",
    metavar="NAME",
    callback=options.model_name,
    help="Also register the run's model in MLflow under NAME.",
)
@options.artifacts
@click.option("--parent", hidden=True, default="", help="The id of a run to lie under.")
@options.quiet
@options.as_json
def train(
    dataset: str | None,
    file: Path | None,
    overrides: tuple[str, ...],
    again: bool,
    from_scratch: bool,
    register: str | None,
    parent: str,
    progress: Progress,
    **given: Any,
) -> None:
    """Train, measure and explain: one MLflow run.

    A classifier is trained (or loaded), a dictionary learnt, an interpreter trained; the test
    fold is measured, and a dozen of its clips explained with sounds and pictures. Stopped at
    any moment, the same command goes on; finished, it shows the figures again.

    A classifier of your own (--classifier) is left as it is. Its classes need not be the data
    set's, and a folder of sounds without labels will do.
    """
    from l2i.config import resolve

    config = resolve(file, dataset=dataset, overrides=overrides, options=options.settings(given))
    # Not before the words are known to be right: torch takes seconds to import.
    from l2i.recipes.training.train import train as run_train

    done = run_train(
        config,
        progress,
        again=again,
        from_scratch=from_scratch,
        parent=parent,
        register_as=register or "",
    )
    if done.finished_before:
        progress.say("This very run is finished already; --again makes a new one.")
        if (name := given["name"]) and name != done.name:
            click.echo(f"It keeps its name, {done.name}; none is called {name}.", err=True)
    document = {
        "run_id": done.run_id,
        "name": done.name,
        "experiment": done.experiment,
        "config": config.signature(),
        "resumed": done.resumed,
        "found": done.finished_before,
        "scores": done.scores,
        "warnings": done.warnings,
    }
    if answered(document):
        return
    click.echo(f"Run {done.name} ({done.run_id[:8]}) of experiment {done.experiment}")
    scores = {name: done.scores[name] for name in METRICS if name in done.scores}
    measuring.show_figures(scores, done.intervals, meanings(scores))
    measuring.caution(done.warnings)
    progress.say("'l2i listen' plays what it explained; 'l2i ui' shows all runs.")
    if register:
        progress.say("Its model is registered. To serve it:")
        # MLflow looks elsewhere by itself; an address that is set already may have a password.
        if "MLFLOW_TRACKING_URI" not in os.environ:
            progress.say(f"  export MLFLOW_TRACKING_URI={shlex.quote(locate().uri)}")
        model = shlex.quote(f"models:/{register}/latest")
        progress.say(f"  mlflow models serve -m {model} --env-manager local --port 5001")


@click.command(
    "import",
    cls=Command,
    example=[
        "l2i import try10_AttExpv2.pt --dataset esc50 --fold 1",
        "l2i import classifier_fold1.pt --dataset esc50 --out weights",
        "l2i import initW_LMS_K100_sp0.8_Fold3_n1.npy --out weights",
    ],
)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@options.dataset("Name of the data set that the networks were trained on.")
@options.data_dir
@options.fold
@options.overrides
@options.experiment
@options.run_name
@options.out_dir("Write checkpoints of the files' contents to DIR, and make no run.")
@options.artifacts
@options.quiet
@options.as_json
def import_(
    files: tuple[Path, ...],
    dataset: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
    progress: Progress,
    **given: Any,
) -> None:
    """Make a run of FILES that the authors of the method publish.

    A whole model (.pt) becomes a finished run, for 'l2i evaluate' and 'l2i explain'. A classifier
    (.pt) or a dictionary (.npy) alone becomes, with --out, a checkpoint for 'l2i train':
    classifier.weights, dictionary.weights. AudioSet weights (.pkl) are checked;
    classifier.audioset_weights takes them as they are. Nothing in the files is run.
    """
    from l2i.config import resolve

    config = resolve(dataset=dataset, overrides=overrides, options=options.settings(given))
    named = dataset is not None or any(
        word.partition("=")[0].strip() == "dataset.name" for word in overrides
    )
    # Not before the words are known to be right: torch takes seconds to import.
    from l2i.recipes.publishing.import_run import import_files

    done = import_files(files, config if named else None, progress, out=out)
    if answered(done):
        return
    for file in done["files"]:
        click.echo(f"{file['file']}: {file['kind']}")
        known = f"known:\n  {file['known']}" if file["known"] else "not among the published files"
        click.echo(f"  git blob {file['git_blob']}, {known}")
    words = {
        "components": "K = {} components",
        "classes": "{} classes",
        "head": "classifier's head {} wide",
        "attention_width": "attention {} wide",
    }
    if sizes := [text.format(done[key]) for key, text in words.items() if key in done]:
        click.echo(", ".join(sizes))
    for kind, path in done["checkpoints"].items():
        click.echo(f"Wrote {path}")
        if kind != "interpreter":
            click.echo(f"-o {kind}.weights={path} takes it.")
    for path, file in zip(files, done["files"], strict=True):
        if "trunk" in file["parts"]:
            click.echo(f"-o classifier.audioset_weights={path} takes it as it is.")
    if done["run_id"]:
        if done["found"]:
            progress.say("These very files are a finished run already.")
        click.echo(f"Run {done['name']} ({done['run_id'][:8]}) of experiment {done['experiment']}")
        progress.say("'l2i evaluate latest' measures it; 'l2i explain latest FILE' explains.")
