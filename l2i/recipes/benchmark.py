"""All explanation methods on the same clips, under the same figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from l2i.explanation import METHODS, MethodSettings, Subject, make_method, part_names
from l2i.metrics import METRICS
from l2i.recipes.examples import spread
from l2i.recipes.judging import mask_scores
from l2i.recipes.opened import Opened, open_finished, write_found
from l2i.recipes.truth import (
    TRUTH_SCORES,
    clip_scenes,
    judge_scenes,
    said,
    table_of,
    truth_scores,
)
from l2i.run.progress import Progress
from l2i.types import Clip

__all__ = ["benchmark"]


def benchmark(
    word: str,
    progress: Progress,
    *,
    methods: Sequence[str] = (),
    limit: int | None = None,
    data_dir: str | None = None,
    threshold: float | None = None,
    max_components: int | None = None,
    device: str = "auto",
    precision: str = "float32",
    out: Path | None = None,
    keep: bool = True,
) -> dict[str, Any]:
    """Judge explanation methods on the test clips of a finished run.

    Each explains what the classifier says. Where the data set knows the parts of its clips, the
    explanations are held against them as well.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    methods : sequence of str
        Of `l2i.explanation.METHODS`; none: all that this run and its classifier have what they
        need for.
    limit : int, optional
        At most so many test clips, spread over the classes.
    data_dir : str, optional
        Where the data lie now.
    threshold, max_components : float, int, optional
        L2I's, instead of the run's own.
    device, precision : str
    out : Path, optional
        A folder for ``benchmark.json``, ``benchmark.csv`` and ``pairs.csv``.
    keep : bool
        Whether a run is made of it, under the one that is measured.

    Returns
    -------
    dict
        ``methods``: name -> ``scores``, ``intervals``, ``seconds_per_clip``; ``metrics``: their
        names in order; ``meaning``; ``clips``; ``run``; ``kept``, the id of the run made.
    """
    for name in methods:
        METHODS[name]  # A name that is not known is told before anything is done.
    opened = open_finished(
        word, progress, data_dir=data_dir, device=device, precision=precision, keep=keep, out=out
    )
    settings = _settings(opened, threshold, max_components)
    own = opened.config.method.name
    fitting = [] if methods else fitting_methods(opened.subject, progress)
    chosen = list(dict.fromkeys(methods or ([own] if own not in METHODS else []) + fitting))
    for name in chosen:
        make_method(name, opened.subject, settings)  # One that cannot be is told before the others.
    clips: tuple[Clip, ...] = opened.material.split.test
    if limit is not None:
        clips = tuple(clips[i] for i in spread(clips, limit))
    known = bool(opened.material.dataset.parts(clips[0]))
    names = [*mask_scores(settings.metrics), *(TRUTH_SCORES if known else ())]
    found: dict[str, Any] = {}
    tables = []
    for name in chosen:
        begin = time.perf_counter()
        with progress.task(name, total=len(clips), unit="clip") as bar:
            rows = judge_scenes(
                opened.subject,
                name,
                settings,
                clip_scenes(opened.material, clips, opened.classes),
                said,
                on_scene=bar.advance,
            )
        seconds = (time.perf_counter() - begin) / len(clips)
        scores, intervals = truth_scores(rows, settings.seed, settings.metrics)
        # One of one's own by its name alone, unless two are called so.
        short = name.rpartition(":")[2]
        name = name if short in found else short
        found[name] = {
            "scores": {k: _plain(scores[k]) for k in names},
            "intervals": {k: list(v) for k, v in intervals.items() if k in names},
            "seconds_per_clip": round(seconds, 4),
        }
        dropped = () if known else (*TRUTH_SCORES, "present")
        columns = {k: v for k, v in rows.items() if k not in dropped}
        tables.append({"method": np.full(len(rows["scene"]), name), **columns})
    document = {
        "run": {"id": opened.run.id, "name": opened.run.name},
        "clips": len(clips),
        "threshold": settings.threshold,
        "max_components": settings.max_components,
        "metrics": names,
        "meaning": {name: asdict(METRICS[name]) for name in names},
        "methods": found,
    }

    def write(folder: Path) -> None:
        import pandas as pd

        from l2i.storage import atomic_write_text

        frame = pd.DataFrame([{"method": m, **f["scores"]} for m, f in found.items()])
        atomic_write_text(folder / "benchmark.csv", frame.to_csv(index=False, float_format="%.6g"))
        table_of(
            {k: np.concatenate([t[k] for t in tables]) for k in tables[0]}, folder / "pairs.csv"
        )

    kept = write_found(
        opened,
        "benchmark",
        {"methods": chosen, "clips": len(clips), **asdict(settings)},
        {f"{m}/{k}": v for m, f in found.items() for k, v in f["scores"].items() if v is not None},
        document,
        write,
        out=out,
        keep=keep,
    )
    return document | {"kept": kept}


def fitting_methods(subject: Subject, progress: Progress) -> list[str]:
    """Built-in and installed methods for which there is all that they need; the others are said."""
    chosen: list[str] = []
    left: list[str] = []
    for name in METHODS:
        kind = METHODS[name]
        learnt = all(part in subject.parts for part in part_names(kind))
        gradients = subject.classifier.differentiable or not getattr(kind, "needs_gradients", False)
        (chosen if learnt and gradients else left).append(name)
    if left:
        progress.say(f"Left out, for want of what they need: {', '.join(left)}.")
    return chosen


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _settings(
    opened: Opened, threshold: float | None, max_components: int | None
) -> MethodSettings:
    own = opened.config.explanation
    return MethodSettings(
        own.threshold if threshold is None else threshold,
        own.max_components if max_components is None else max_components,
        opened.config.run.seed,
        tuple(own.metrics),
    )
