"""``l2i explain``: why did it say that, as sounds and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from l2i.cli import kinds, measuring, options
from l2i.cli.base import Command, answered, emit_table, emit_text
from l2i.errors import DataError
from l2i.run.progress import Progress


@click.command(
    cls=Command,
    example=[
        "l2i explain latest my.wav",
        "l2i explain first recordings --class dog --out dogs",
        "l2i explain my.wav --classifier yamnet.py:load --class Dog --class Bark",
    ],
)
@click.argument("words", nargs=-1, required=True, metavar="[RUN] AUDIO...")
@click.option(
    "--classifier",
    metavar="SPEC",
    help="In place of RUN, any classifier: FILE.py:NAME, MODULE:NAME, hf:FOLDER (a checkpoint of "
    "transformers), MODEL.ts (with MODEL.json), run:RUN (a run's own), or an installed one.",
)
@click.option(
    "--method",
    type=kinds.METHOD,
    metavar="NAME",
    help="With --classifier: gates (by gradients) or shapley (of a black box). With RUN: whatever "
    "'l2i benchmark' compares.  [default: what can be; the run's]",
)
@options.several(
    "--class", "class_names", metavar="NAME", help="Explain this class, not the likeliest one"
)
@measuring.threshold
@measuring.max_components
@click.option(
    "--start",
    "start_s",
    type=kinds.FiniteRange(min=0),
    default=0.0,
    show_default=False,
    metavar="SECONDS",
    help="Begin so far into each file.  [default: 0]",
)
@click.option(
    "--duration",
    "duration_s",
    type=kinds.POSITIVE,
    metavar="SECONDS",
    help="Explain so much of each file.  [default: all of it]",
)
@click.option(
    "--window",
    "window_s",
    type=kinds.POSITIVE,
    metavar="SECONDS",
    help="Explain what is longer in windows of so much.  [default: see above]",
)
@options.out_dir("Write one folder per file, and index.html, to DIR.", default="explanations")
@options.device
@options.precision
@options.quiet
@options.as_json
def explain(
    words: tuple[str, ...], classifier: str | None, out: Path, progress: Progress, **given: Any
) -> None:
    """Explain AUDIO files with the networks of RUN, or for any --classifier.

    RUN is a run id, a run name or how it begins, or 'latest'. AUDIO is a sound file, or a folder,
    of which all sound files are taken, at any depth. With --classifier there is no RUN, and
    nothing needs to be trained: 'l2i classifiers check' says whether it is understood. Each file
    gets original.wav, explanation.wav (what mattered), removal.wav (the rest) and
    explanation.json; all of them share index.html, a page to listen and compare. Long files are
    explained in windows, which windows.csv lists: with RUN, those of more than 300 s, in windows
    as long as the clips that it was trained on; with --classifier, those of more than a minute,
    in windows of 30 s.
    """
    failed: list[DataError] = []
    if classifier is not None:
        context = click.get_current_context()
        for name in ("threshold", "max_components", "device", "precision"):
            # L2I_DEVICE is for all commands, and says nothing of this one.
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                word = f"--{name.replace('_', '-')}"
                raise click.UsageError(f"{word} is about a RUN's networks, not --classifier.")
        if not Path(words[0]).exists() and not Path(words[0]).suffix:
            raise click.UsageError(
                f"With --classifier there is no RUN, and {words[0]!r} is no file: give only AUDIO."
            )
        audio = _files(words)
        results = _explain_any(classifier, audio, out, progress, failed, given)
    else:
        run, *rest = words
        if not rest and not (Path(run).suffix or Path(run).exists()):
            raise click.UsageError(f"Give AUDIO files, too, such as 'l2i explain {run} my.wav'.")
        if not rest or (Path(run).suffix and Path(run).is_file()):
            raise click.UsageError(
                f"Give a RUN and AUDIO files, such as 'l2i explain latest {run}', or a "
                "--classifier."
            )
        audio = _files(rest)
        from l2i.recipes.publishing.explain import explain as run_explain

        given["method"] = options.file_word(given["method"])
        asked = measuring.arguments(given)
        results = run_explain(run, audio, progress, out=out, on_failure=failed.append, **asked)
    if not answered(results) and results:
        _show(results, out)
    if failed:
        # Those that could be were explained: this is said last, where it is seen.
        reasons = "".join(f"\n  - {error}" for error in failed)
        several = f"{len(failed)} of {len(audio)} files could not be explained:{reasons}"
        raise DataError(several if len(audio) > 1 else str(failed[0]))


def _files(words: Sequence[str]) -> list[Path]:
    """The files that words name; of a folder its sound files, but for those that l2i wrote."""
    from l2i.data.folder import sounds_in

    for word in words:
        if not word:
            raise click.UsageError("AUDIO is empty; the current folder is '.'.")
        if word == "-" and not Path(word).exists():
            raise click.UsageError("'-' is no file; what comes through a pipe is /dev/stdin.")
        if "://" in word:
            raise click.UsageError(f"{word} is an address, not a file: download it first.")
    files: list[Path] = []
    for path in map(Path, words):
        inside = sounds_in(path) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"The folder {path} has no sound file.")
        files += inside
    return files


def _explain_any(
    spec: str,
    audio: list[Path],
    out: Path,
    progress: Progress,
    failed: list[DataError],
    given: dict[str, Any],
) -> list[dict[str, Any]]:
    from l2i.explained import Explained, write_explained
    from l2i.library import ExplainedRecording, explain_file, targets_of
    from l2i.recipes.publishing.explain import folder_names

    clf = options.load_classifier(spec)
    asked = list(dict.fromkeys(given["class_names"]))
    classes = targets_of(clf, asked, len(asked)) or [None]
    places = folder_names(audio, asked)
    path_of = {name: path for names, path in zip(places, audio, strict=True) for name in names}
    part = {key: given[key] for key in ("start_s", "duration_s", "window_s")}
    method = given["method"] or "auto"
    with progress.task("explanations", total=len(audio), unit="file") as bar:

        def explained() -> Iterator[tuple[str, Explained | ExplainedRecording]]:
            for names, path in zip(places, audio, strict=True):

                def done(n: int, path: Path = path) -> None:
                    if n % 10 == 0:
                        progress.say(f"{path}: {n} windows are explained.")

                try:
                    for name, c in zip(names, classes, strict=True):
                        e = explain_file(clf, path, c, method=method, on_clip=done, **part)
                        progress.say(f"{path}: {e.verdict}" if isinstance(e, Explained) else str(e))
                        yield name, e
                except DataError as error:
                    text = f"{path}: {error}".replace(f"{path}: {path}", str(path))
                    failed.append(DataError(text))
                bar.advance(1)

        results = write_explained(explained(), out, list(path_of))
    return [{"audio": str(path_of[facts["name"]]), **facts} for facts in results]


def _show(results: list[dict[str, Any]], out: Path) -> None:
    def share(value: float | None) -> str:
        return "silent" if value is None else f"{value:.1%}"

    from l2i.recipes.publishing.explain import told_names

    names = told_names(Path(item["audio"]) for item in results)
    rows = [
        [
            names[Path(item["audio"])],
            item["class"],
            share(item["probability"]["original"]),
            share(item["probability"]["explanation"]),
            share(item["probability"]["removal"]),
            len(item["components"]) or "-",
            "yes" if item["holds"] else "no",
        ]
        for item in results
    ]
    emit_table(
        ["file", "class", "original", "explanation", "removal", "components", "holds"],
        rows,
        right=range(2, 6),
    )
    for item in results:
        for doubt in item["warnings"]:
            emit_text(f"{names[Path(item['audio'])]}: {doubt['text']}")
    click.echo(f"Sounds and pictures are in {out}; to listen, open {out / 'index.html'}.")
    if any(out.glob("*/page.js")):
        click.echo(
            "They are too many for one page: it loads those of a clip when you choose it, so keep "
            f"{out} as a whole."
        )
