"""Noise over a range of levels: what becomes of the classifier, the interpreter, the explanation.

The parts are known: the clip as it was carries its classes, and the noise is all the rest.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from l2i.data.split import spread
from l2i.dsp.mixing import Colour, add_noise
from l2i.explanation import METHODS
from l2i.metrics import METRICS, meanings
from l2i.metrics.own import own_metrics
from l2i.metrics.statistics import finite
from l2i.recipes.measuring.measure import evaluate_clips
from l2i.recipes.measuring.truth import (
    Part,
    Scene,
    evaluate_method,
    judge_scenes,
    predicted,
    truth_scores,
)
from l2i.recipes.opening.opened import Opened, Where, open_finished, write_found
from l2i.run.progress import Progress
from l2i.storage import write_csv
from l2i.types import Clip

SCORES = (
    *("accuracy", "auprc_macro", "fidelity_top1", "fidelity_auprc_macro"),
    *("faithfulness_probability", "random_probability", "si_sdr", "si_sdr_improvement"),
    "energy_share",
)
"""What is shown of each condition, as far as the task has it."""


def noise(
    word: str,
    progress: Progress,
    *,
    snrs_db: Sequence[float] = (20.0, 10.0, 0.0, -10.0),
    colours: Sequence[Colour] = ("white", "pink"),
    method: str = "",
    limit: int | None = None,
    seed: int = 0,
    **where: Unpack[Where],
) -> dict[str, Any]:
    """Measure a finished run on its test clips with noise.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    snrs_db : sequence of float
        Level of the clip over that of the noise; the published setting is 0 dB of white noise.
    colours : sequence of {'white', 'pink', 'brown'}
    method : str
        A name in `l2i.explanation.METHODS`; empty: the run's own.
    limit : int, optional
        At most so many test clips, spread over the classes.
    seed : int
        Seed of the noise. A clip has the same noise at every level.
    **where
        `out` has ``noise.json``, ``noise.csv`` and ``noise.png``.

    Returns
    -------
    dict
        ``conditions``: one per colour and level, with ``colour``, ``snr_db`` (None: no noise),
        ``scores`` and ``intervals``; ``meaning``; ``clips``; ``run``; ``kept``.
    """
    if method:
        METHODS[method]  # A name that is not known is told before anything is done.
    opened = open_finished(word, progress, **where)
    material, config = opened.material, opened.config
    clips: Sequence[Clip] = material.split.test
    if limit is not None:
        clips = [clips[i] for i in spread(clips, limit)]
    method = method or config.method.name
    labels = material.labels(clips, opened.classes)
    settings = config.explanation.model_copy(update={"thresholds": []})
    told = opened.told()
    conditions: list[dict[str, Any]] = []
    # Without noise first, to compare with.
    each: list[tuple[Colour | None, float | None]] = [(None, None)]
    each += [(colour, snr) for colour in dict.fromkeys(colours) for snr in dict.fromkeys(snrs_db)]
    for colour, snr in each:
        name = "no noise" if colour is None else f"{colour} {snr:g} dB"
        scenes = list(_scenes(opened, clips, colour, snr, seed))
        progress.say(f"{name}:")
        judged: list[dict[str, NDArray[Any]]] = []
        if method == "l2i":
            evaluation = evaluate_clips(
                opened.explainer(),
                np.stack([scene.sound() for scene in scenes]),
                np.arange(len(clips)),
                labels,
                settings,
                seed=config.run.seed,
                progress=progress,
            )
        else:
            subject = opened.subject
            evaluation = evaluate_method(
                subject, method, told, scenes, labels, progress=progress, on_rows=judged.append
            )
        scores, intervals = dict(evaluation.scores), dict(evaluation.intervals)
        if colour is not None:
            if not judged:
                with progress.task("explanations", total=len(clips), unit="clip") as bar:
                    judged.append(
                        judge_scenes(
                            opened.subject, method, told, scenes, predicted, on_scene=bar.advance
                        )
                    )
            truth = truth_scores(judged[0], seed, settings.metrics)
            scores, intervals = truth[0] | scores, truth[1] | intervals
        conditions.append(
            {
                "colour": colour,
                "snr_db": snr,
                "scores": finite(scores),
                "intervals": {k: list(v) for k, v in intervals.items()},
            }
        )
    # What any mask has stands in for what only L2I's components have.
    own = [m.name for m in own_metrics(settings.metrics)]
    masks = () if method == "l2i" else ("ff_mean", "ff_share", "fid_in")
    wanted = (*SCORES, *masks, "kept", *own)
    shown = [k for k in wanted if any(k in c["scores"] for c in conditions)]
    document = {
        "clips": len(clips),
        "seed": seed,
        "conditions": conditions,
        "meaning": meanings(shown),
    }

    def write(folder: Path) -> None:
        from l2i import plots

        lines = [
            {"colour": c["colour"] or "none", "snr_db": c["snr_db"], **c["scores"]}
            for c in conditions
        ]
        write_csv(folder / "noise.csv", lines)
        plots.conditions(conditions, {k: METRICS[k].title for k in shown}, folder / "noise.png")

    return write_found(
        opened,
        "noise",
        {
            **({"method": method} if method != "l2i" else {}),
            "snrs_db": list(snrs_db),
            "colours": list(colours),
            "clips": len(clips),
            "seed": seed,
        },
        {
            f"{k}/{word}": v
            for c in conditions
            for word in [f"{c['colour']}_{c['snr_db']:g}_dB" if c["colour"] else "clean"]
            for k, v in c["scores"].items()
            if k in shown and v is not None
        },
        document,
        write,
    )


def _scenes(
    opened: Opened, clips: Sequence[Clip], colour: Colour | None, snr: float | None, seed: int
) -> Iterator[Scene]:
    rows = opened.material.rows(clips)
    carried = opened.material.carried(opened.classes)
    for clip, row in zip(clips, rows, strict=True):
        x = np.asarray(opened.material.waves.array[row])
        own = Part(x, carried(clip.labels))
        scene = Scene(clip.id, int(row), (own,))
        if colour is not None and snr is not None:
            rng = np.random.default_rng([seed, zlib.crc32(clip.id.encode())])
            rest = add_noise(x, snr, colour, rng) - x
            scene = replace(scene, parts=(own, Part(rest, frozenset())))
        yield scene
