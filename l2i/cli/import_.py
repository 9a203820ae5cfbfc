"""``l2i import``: a run of the networks that the method's authors publish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from l2i.cli import options
from l2i.cli.base import Command, answered
from l2i.run.progress import Progress


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
