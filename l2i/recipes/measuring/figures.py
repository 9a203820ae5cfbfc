"""What is measured as files: figures as JSON, a line per clip or pair, pictures, a page, sounds."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import Tensor

from l2i import plots
from l2i.dsp.audio import write_audio
from l2i.metrics import CONTROLS, classification, meanings
from l2i.metrics.labels import doubted_labels
from l2i.metrics.statistics import finite
from l2i.pages import write_figures_page
from l2i.recipes.measuring.measure import Evaluation
from l2i.recipes.measuring.truth import Scene
from l2i.recipes.opening.material import Material
from l2i.storage import write_csv, write_json
from l2i.types import Task


def document(e: Evaluation) -> dict[str, Any]:
    """The figures as JSON has them, each with what it means."""
    return {
        "clips": len(e.logits),
        "task": str(e.task),
        "scores": finite(e.scores),
        "per_class": {name: finite(figures) for name, figures in e.per_class.items()},
        "intervals": {name: list(ends) for name, ends in e.intervals.items()},
        "faithfulness": [finite(line) for line in e.curve],
        "warnings": e.warnings,
        "weak_classes": e.weak_classes,
        "meaning": meanings(e.scores),
        "controls": {k: c for k, c in CONTROLS.items() if k in e.scores and c in e.scores},
    }


def write_evaluation(
    e: Evaluation,
    material: Material,
    classes: Sequence[str],
    folder: Path,
    *,
    title: str,
    histories: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    kept: Mapping[str, int] | None = None,
    heard: Sequence[int] = (),
) -> None:
    """Write ``scores.json``, ``clips.csv``, ``labels.csv`` (the labels that the classifier doubts
    most), ``confusion_matrix.png`` and ``figures.html``.

    Parameters
    ----------
    e : Evaluation
    material : Material
        Whose test clips are those of `e`.
    classes : sequence of str
        The classifier's.
    folder : Path
        Is there.
    title : str
        The page's.
    histories : mapping of str to sequence of mappings, optional
        Stage to its epochs' figures: curves on the page.
    kept : mapping of str to int, optional
        Stage to the epoch whose weights were kept, from 1.
    heard : sequence of int
        Clips that ``explanations/index.html`` has, in the same folder.
    """
    clips = material.split.test
    labels = material.label_names(clips)
    known = document(e)
    write_json(folder / "scores.json", known)
    single = e.task is Task.SINGLE_LABEL
    to_probabilities = partial(softmax, axis=1) if single else expit
    p = to_probabilities(e.logits)
    g = None if e.interpreter_logits is None else to_probabilities(e.interpreter_logits)
    at: dict[int, list[int]] = {}
    for pair, clip in enumerate(e.pairs.get("clip", ())):
        at.setdefault(int(clip), []).append(pair)
    lines: list[dict[str, Any]] = []
    for index, clip in enumerate(clips):
        line: dict[str, Any] = {"clip": clip.id, "labels": labels[index]}
        if e.interpreter_logits is not None and (single or e.labels is None):
            c = int(e.logits[index].argmax())
            own = e.interpreter_logits[index]
            line["interpreter"] = classes[int(own.argmax())]
            line["rank"] = int((own >= own[c]).sum())
        for pair in at.get(index, [-1]):
            more: dict[str, Any] = {}
            if pair >= 0:  # Else nothing was detected in this clip; it has its line all the same.
                c = int(e.pairs["class"][pair])
                more = {
                    "class": classes[c],
                    "probability": p[index, c],
                    **({} if g is None else {"interpreter_probability": g[index, c]}),
                    **{k: v[pair] for k, v in e.pairs.items() if k not in ("clip", "class")},
                }
            lines.append(line | more)
    order = ["clip", "labels", "class", "probability"]
    frame = pd.DataFrame(lines)
    # Where no class was detected in any clip, the columns of pairs are absent.
    frame = frame.reindex(columns=[*order, *(c for c in frame.columns if c not in order)])
    write_csv(folder / "clips.csv", frame)
    there: Counter[tuple[int, int]] = Counter()
    counts = doubted = None
    answers: tuple[str, ...] = ()
    if e.labels is not None:
        doubted = doubted_labels(
            p, e.decisions, e.labels, e.task, [clip.id for clip in clips], classes
        )
        write_csv(folder / "labels.csv", doubted)
        if single:
            counts = classification.confusion(
                e.logits.argmax(axis=1), e.labels.argmax(axis=1), len(classes)
            )
            there.update((int(e.labels[i].argmax()), int(e.logits[i].argmax())) for i in heard)
        else:
            answers = ("found", "missed", "false alarm", "rightly not named")
            pairs = [(e.decisions, e.labels), (~e.decisions, e.labels)]
            pairs += [(e.decisions, ~e.labels), (~e.decisions, ~e.labels)]
            counts = np.stack([(decided & true).sum(axis=0) for decided, true in pairs], axis=1)
            for column, (decided, true) in enumerate(pairs):
                for c, n in enumerate((decided & true)[list(heard)].sum(axis=0)):
                    there[c, column] = int(n)
        plots.confusion_matrix(counts, classes, answers or classes, folder / "confusion_matrix.png")
    write_figures_page(
        folder / "figures.html",
        known,
        title=title,
        classes=classes,
        counts=counts,
        answers=answers,
        histories=histories,
        kept=kept,
        doubted=None if doubted is None else doubted.to_dict("records"),
        heard=there,
        listen=bool(heard),
    )


def write_table(path: Path, *tables: Mapping[str, NDArray[Any]]) -> None:
    """Write some rows as csv, names first; a column that some tables have not is NaN there."""
    names = dict.fromkeys(name for table in tables for name in table)
    sizes = [len(next(iter(table.values()), ())) for table in tables]
    joined = {
        name: np.concatenate(
            [t.get(name, np.full(n, np.nan)) for t, n in zip(tables, sizes, strict=True)]
        )
        for name in names
    }
    frame = pd.DataFrame(joined)
    first = [name for name in ("scene", "clip", "class", "present") if name in frame]
    write_csv(path, frame[[*first, *(name for name in frame if name not in first)]])


@contextmanager
def sounds_aside() -> Iterator[tuple[Path, Callable[[Path], bool]]]:
    """A folder for sounds until it is known where they go, and a function that copies them to the
    folder ``sounds`` within another; whether there are any."""
    with tempfile.TemporaryDirectory() as work:
        # Not this folder itself, whose permissions a copy would have.
        held = Path(work) / "sounds"
        held.mkdir()

        def put(folder: Path) -> bool:
            if not any(held.iterdir()):
                return False
            shutil.copytree(held, folder / "sounds", dirs_exist_ok=True)
            return True

        yield held, put


def sound_writer(
    folder: Path, classes: Sequence[str], sample_rate: int, most: int
) -> Callable[[Scene, int, Mapping[str, Tensor]], None]:
    """A function that writes the sounds of the first `most` pairs, one folder for each.

    All sounds of a pair have one gain, so that their levels can be compared by ear.
    """
    places: Iterator[int] = iter(range(1, most + 1))

    def write(scene: Scene, c: int, sounds: Mapping[str, Tensor]) -> None:
        number = next(places, None)
        if number is None:
            return
        word = re.sub(r"[^\w.-]+", "_", f"{scene.id}-{classes[c]}")[-80:]
        loudest = max(float(x.abs().max()) for x in sounds.values())
        gain = 1 / loudest if loudest > 1 else 1.0
        place = folder / f"{number:02d}-{word}"
        place.mkdir(parents=True, exist_ok=True)
        for name, x in sounds.items():
            write_audio(place / f"{name}.wav", (gain * x).cpu().numpy(), sample_rate)

    return write
