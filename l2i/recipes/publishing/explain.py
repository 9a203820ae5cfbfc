"""Explain a user's own audio with a finished run.

Over 300 lines: one recipe, whose arguments are those of the command.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from l2i.dsp.audio import read_part
from l2i.errors import DataError, StoreError
from l2i.explained import Explained, explain_by
from l2i.explanation import METHODS, MethodSettings, check_heeded, make_method, part_names
from l2i.metrics import OF_NETWORKS
from l2i.models.classifier import FrozenClassifier
from l2i.models.heard import hear
from l2i.pages import Media, MediaList, refuse_foreign, write_listening_page
from l2i.recipes.opening.bundle import (
    MAX_SECONDS,
    clip_seconds,
    explainer_of,
    explanation_settings,
    open_bundle,
    shortest_input,
)
from l2i.recipes.opening.description import main_figures
from l2i.recipes.publishing.examples import write_by, write_explanation
from l2i.recording import Recording
from l2i.registry import class_index
from l2i.run.device import pick_device, set_threads
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run
from l2i.run.search import RunInfo
from l2i.storage import disk_errors, make_output, mark_output, refuse_other_run, write_json

_T = TypeVar("_T")
# What its explanation.json holds, what of that the page has, and the page's sounds and pictures.
_Written = tuple[dict[str, Any], dict[str, Any], Media]

_MARK, _PAGE = "explanation.json", "index.html"


def explain(
    word: str,
    audio: Sequence[Path],
    progress: Progress,
    *,
    class_names: Sequence[str] = (),
    method: str = "",
    threshold: float | None = None,
    max_components: int | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    window_s: float | None = None,
    out: Path,
    device: str = "auto",
    precision: str = "float32",
    on_failure: Callable[[DataError], None] | None = None,
) -> list[dict[str, Any]]:
    """Write explanation and removal audio, and a picture, of each file; and ``index.html``, the
    page to listen to them.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    audio : sequence of Path
        Anything soundfile reads, from a pipe too; shorter than the model's clips: padded with
        silence at the end; longer: explained as a whole, up to
        `l2i.recipes.opening.bundle.MAX_SECONDS`, and beyond in windows (see `l2i.recording`).
    progress : Progress
    class_names : sequence of str
        The classes to explain, each of every file; one that comes twice counts once. None: the one
        that the classifier finds most probable.
    method : str
        A name in `l2i.explanation.METHODS`; empty: the run's own.
    threshold : float, optional
        tau, instead of the run's own.
    max_components : int, optional
        Instead of the run's own; 0: no limit.
    start_s, duration_s : float
        The part of each file that is explained.
    window_s : float, optional
        What is longer is explained in windows of so many seconds; by default what is longer than
        `l2i.recipes.opening.bundle.MAX_SECONDS`, in windows as long as the run's clips.
    out : Path
        Gets the page, and one folder per file, named after it; of several classes one per file
        and class, named after both. What an earlier call made of the same run is replaced;
        anything else of that name is left alone, and an error.
    device, precision : str
    on_failure : callable, optional
        Told why a file is not explained; the others are. By default that is an error.

    Returns
    -------
    list of dict
        What each ``explanation.json`` holds, file by file, in the order of the classes. Where no
        file was explained nothing is written.

    Raises
    ------
    UsageError
        There is no such run or class.
    DataError
        A file is absent, cannot be decoded, or is empty.
    """
    run = resolve_run(word)
    # One that is there is explained, whatever the others are.
    if not any(path.exists() for path in audio):
        raise DataError(f"There is no sound file {audio[0]}.")
    set_threads(0)
    place, dtype, sentences = pick_device(device, precision)
    for sentence in sentences:
        progress.say(sentence)
    progress.say(f"Run {run.name} ({run.id[:8]}) of experiment {run.experiment}.")
    config, subject = open_bundle(run, place, dtype)
    clf = subject.classifier
    who = f"Run {run.name}"
    wanted: list[int | None] = [
        class_index(clf.classes, name, who) for name in dict.fromkeys(class_names)
    ]
    wanted = wanted or [None]
    settings = explanation_settings(config, threshold, max_components)

    name = method or config.method.name
    check_heeded([name], threshold=threshold, max_components=max_components)
    told = MethodSettings(settings.threshold, settings.max_components, config.run.seed)
    way = make_method(name, subject, told)
    other = name != config.method.name
    explainer = explainer_of(subject) if name == "l2i" else None

    sample_rate = clf.sample_rate
    shortest = shortest_input(config, clf)
    places, names = _places(audio, class_names, out), told_names(audio)
    page = out / _PAGE
    refuse_foreign(page)
    _refuse_other_run(out, run)

    listed: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    media = MediaList(beside=out)

    longest = window_s or MAX_SECONDS

    def explained(x: NDArray[np.float32], target: str) -> Explained:
        padded = np.pad(x, (0, max(0, shortest - len(x))))
        heard = hear(clf, torch.from_numpy(padded)[None], subject.domain, way.layers)
        c = clf.classes.index(target)
        return explain_by(way, heard, c, method=name, length=len(x), warn=settings.warn)

    def write(
        path: Path, file: Path, sound: NDArray[np.float32] | None, own: int | None, target: Path
    ) -> _Written:
        if sound is None:
            long = Recording.of(
                clf,
                file,
                own,
                explained,
                hop=subject.domain.hop_length,
                start_s=start_s,
                duration_s=duration_s,
                window_s=window_s or clip_seconds(config),
                least=shortest,
            )
            progress.say(str(long).replace(str(file), str(path)))
            return long.write(target, names[path])
        x = torch.from_numpy(np.pad(sound, (0, max(0, shortest - len(sound)))))
        n = len(sound)
        if explainer is None:
            about, media = write_by(
                way, name, subject, x, target, explained=own, n_samples=n, warn=settings.warn
            )
        else:
            about, media = write_explanation(
                explainer, x, target, settings, title=names[path], explained=own, n_samples=n
            )
        return about, {**about, "name": names[path]}, media

    def work(path: Path, folders: Sequence[Path]) -> list[_Written]:
        with _file(path) as file:
            # Somewhat more than is explained at once tells that there is more.
            most_s = longest + 1 if duration_s is None else min(duration_s, longest + 1)
            sound = read_part(file, sample_rate, start_s=start_s, duration_s=most_s)
            short = sound if len(sound) <= longest * sample_rate else None
            with disk_errors(out):
                make_output(out, run.id, run.name)
                facts = {"audio": str(path), "run": run.id, "start_s": start_s}
                return [
                    _write(folder, partial(write, path, file, short, own), facts, run)
                    for own, folder in zip(wanted, folders, strict=True)
                ]

    # A classifier of another making is asked by one thread alone: nobody knows what it keeps. And
    # methods that are no L2I hook into its modules.
    alike = "interpreter" in part_names(METHODS[name])
    at_once = 2 if alike and isinstance(clf, FrozenClassifier) else 1
    with (
        progress.task("explanations", total=len(audio), unit="file") as bar,
        _side_by_side(work, audio, places, at_once=at_once) as results,
    ):
        for result in results:
            try:
                done = result()
            except DataError as error:
                if on_failure is None:
                    raise
                on_failure(error)
            else:
                for about, shown, sounds in done:
                    listed.append(about)
                    seen.append(shown)
                    with disk_errors(out):
                        media.append(sounds, Path(about["folder"]).name)
            bar.advance(1)
    if not listed:
        return []
    with disk_errors(out):
        write_listening_page(
            page,
            seen,
            media,
            title=f"Explained by {run.name}" + (f", method {name}" if other else ""),
            # The run's figures of explanations are of its own method.
            summary=main_figures(
                {k: v for k, v in run.scores.items() if k in OF_NETWORKS} if other else run.scores
            ),
        )
    return listed


@contextmanager
def _side_by_side(
    work: Callable[..., _T], *words: Sequence[Any], at_once: int
) -> Iterator[Iterator[Callable[[], _T]]]:
    """Some calls of `work` at a time, each with its share of the processors: most of an explanation
    is writing sounds and pictures, of which each takes but one. What waits to be asked for, in
    the order of the words, is never more than that."""
    threads = set_threads(0)
    n = min(at_once, threads) if len(words[0]) > 1 else 1
    waiting: deque[Future[_T]] = deque()

    def results() -> Iterator[Callable[[], _T]]:
        for some in zip(*words, strict=True):
            if len(waiting) == n:
                yield waiting.popleft().result
            waiting.append(pool.submit(work, *some))
        while waiting:
            yield waiting.popleft().result

    with ThreadPoolExecutor(n, initializer=set_threads, initargs=(threads // n,)) as pool:
        try:
            yield results()
        finally:
            for future in waiting:
                future.cancel()
    set_threads(0)  # What the others set is for all.


@contextmanager
def _file(path: Path) -> Iterator[Path]:
    """The file itself, or one of all that comes through a pipe: decoders go back and forth."""
    if not path.is_fifo():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "sound"
        with disk_errors(folder), open(path, "rb") as source, open(held, "wb") as target:
            shutil.copyfileobj(source, target)
        try:
            yield held
        except DataError as error:
            raise DataError(str(error).replace(str(held), str(path))) from None


def folder_names(audio: Sequence[Path], class_names: Sequence[str] = ()) -> list[list[str]]:
    """The folders' names of each file, whatever the file is called: one, or of several classes one
    for each. Where two would be the same they get numbers.

    >>> folder_names([Path("a/dog.wav"), Path("b/dog.wav")])
    [['dog'], ['dog-2']]
    >>> folder_names([Path("dog.wav")], ["Dog", "Rail transport"])
    [['dog-Dog', 'dog-Rail_transport']]
    """
    taken = {_PAGE}
    classes = list(dict.fromkeys(class_names))
    ends = ["-" + re.sub(r"[^\w.-]+", "_", name) for name in classes] if len(classes) > 1 else [""]

    def free(stem: str) -> str:
        name, number = stem, 1
        while name.casefold() in taken:  # Some disks do not tell "A" from "a".
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        return name

    # The stem of "...wav" is "..", which is no name of a folder.
    stems = [path.stem if path.stem.strip(".") else "sound" for path in audio]
    return [[free(stem + end) for end in ends] for stem in stems]


def told_names(audio: Iterable[Path]) -> dict[Path, str]:
    """What each file is called for people: its name, or as much of its path as tells it apart.

    >>> list(told_names([Path("a/x/s.wav"), Path("a/y/s.wav"), Path("a/x/t.wav")]).values())
    ['t.wav', 'x/s.wav', 'y/s.wav']
    """
    names: dict[Path, str] = {}
    left, depth = list(dict.fromkeys(audio)), 0
    while left:
        depth += 1
        count = Counter(path.parts[-depth:] for path in left)
        for path in left:
            if count[tail := path.parts[-depth:]] == 1 or depth >= len(path.parts):
                names[path] = str(Path(*tail))
        left = [path for path in left if path not in names]
    return names


def _places(audio: Sequence[Path], class_names: Sequence[str], out: Path) -> list[list[Path]]:
    """The folders of each file within `out`."""
    places = [[out / name for name in names] for names in folder_names(audio, class_names)]
    for folder in chain.from_iterable(places):
        if folder.exists() and not (folder / _MARK).is_file():
            raise StoreError(
                f"{folder} is there already and no explanation of ours; give another --out."
            )
    return places


def _refuse_other_run(out: Path, run: RunInfo) -> None:
    """Refuse a folder with another run's explanations, be it marked or of the user's own."""
    refuse_other_run(out, run.id)
    for path in sorted(out.glob(f"*/{_MARK}")):
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))["run"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if owner != run.id:
            raise StoreError(
                f"{path.parent} is an explanation by another run, {str(owner)[:8]}: choose another "
                "--out, or remove that folder first."
            )


def _write(
    folder: Path, write: Callable[[Path], _Written], more: dict[str, Any], run: RunInfo
) -> _Written:
    """Make the files in a folder beside, and put it in place when it is whole."""
    # Not by tempfile, whose folders only their owner may read: the user's umask decides.
    new = folder.with_name(f".{folder.name[:40]}-{secrets.token_hex(4)}.tmp")
    new.mkdir()
    try:
        mark_output(new, run.id, run.name)
        about, shown, media = write(new)
        entry = {**more, **about, "folder": str(folder)}
        write_json(new / _MARK, entry)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    # Where the files lie on this machine is nobody's business who is given the page.
    return entry, {"start_s": more["start_s"], **shown}, media
