"""All explanation methods on the same clips, under the same figures.

Over 300 lines: one recipe, whose arguments are those of the command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from l2i.data.split import spread
from l2i.errors import UsageError
from l2i.explanation import METHODS, MethodSettings, fitting_methods, make_method, usual_methods
from l2i.metrics import meanings
from l2i.metrics.statistics import finite
from l2i.recipes.measuring.evaluator import open_evaluator
from l2i.recipes.measuring.figures import write_table
from l2i.recipes.measuring.judging import mask_scores, mean_scores
from l2i.recipes.measuring.probed import all_probes, finished
from l2i.recipes.measuring.probes import Probe
from l2i.recipes.measuring.protocols import PROTOCOLS, Protocol, open_protocol
from l2i.recipes.measuring.reexplained import Absent
from l2i.recipes.measuring.truth import TRUTH_SCORES, judge_scenes, predicted, truth_scores
from l2i.recipes.opening.opened import Opened, Where, open_finished, write_found
from l2i.recipes.tables.paired import corrected, difference, write_differences
from l2i.recipes.training import retrained
from l2i.registry import did_you_mean
from l2i.run.progress import Progress
from l2i.storage import write_csv
from l2i.types import Clip, Task


def benchmark(
    word: str,
    progress: Progress,
    *,
    methods: Sequence[str] = (),
    protocols: Sequence[str] = ("clean",),
    everything: bool = False,
    evaluator: str = "",
    against: str = "",
    repeats: int = 10,
    shuffled_labels: bool = False,
    roar: bool = False,
    epochs: int = 20,
    limit: int | None = None,
    threshold: float | None = None,
    max_components: int | None = None,
    **where: Unpack[Where],
) -> dict[str, Any]:
    """Judge explanation methods on the test clips of a finished run.

    Each explains what the classifier says. Where the parts of what is heard are known, the
    explanations are held against them as well. Intervals are over recordings.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    methods : sequence of str
        Names in `l2i.explanation.METHODS`; none: all whose needs this run and its classifier
        meet.
    protocols : sequence of str
        Names in `l2i.recipes.measuring.protocols.PROTOCOLS`.
    everything : bool
        All figures; about a hundred more sounds for each clip, and some thirty more explanations
        for each of `repeats` clips, on the first protocol.
    evaluator : str
        Another run of the same classes, whose classifier hears the sounds, too; or
        `l2i.recipes.measuring.evaluator.TUNED`: the run's own, fine-tuned on random masks.
    against : str
        A method that all others are compared with, clip by clip; judged, too, where it is not among
        `methods`.
    repeats : int
        On how many clips it is measured what takes further explanations.
    shuffled_labels : bool
        Whether the classifier, and then the run's parts, are trained on labels at random, and masks
        compared with theirs; see `l2i.recipes.training.retrained.DataRandomised`.
    roar : bool
        Whether classifiers are trained on clips without what each method points at: three for each,
        on clips as they are, whatever the protocols; see `l2i.recipes.training.retrained.roar`.
    epochs : int
        Epochs of the classifiers trained for either, at most.
    limit : int, optional
        At most so many test clips, spread over the classes; or so many mixtures.
    threshold, max_components : float, int, optional
        L2I's, instead of the run's own.
    **where
        `out` has ``benchmark.json``, ``benchmark.csv`` and ``pairs.csv``.

    Returns
    -------
    dict
        ``protocols``: name -> method -> ``scores``, ``intervals``, ``seconds_per_clip`` (of
        hearing and explaining); ``methods``: those of the first protocol; ``metrics``: their names
        in order; ``meaning``; ``clips``; ``run``; ``evaluator``; ``against`` and ``differences``:
        one dict per protocol, method and figure, with ``protocol``, ``method``, what
        `l2i.recipes.tables.paired.difference` gives, and ``p_holm``, corrected for the number of
        figures; ``kept``, the id of the run made.

    Raises
    ------
    UsageError
        There is no such run, method or protocol; the evaluator is the run itself, has no class in
        common with it, or hears another sample rate; the classifier cannot be trained again;
        `against` is the only method.
    """
    for name in (*methods, *filter(None, [against])):
        METHODS[name]  # A name that is not known is told before anything is done.
    for name in protocols:
        if name not in PROTOCOLS:
            hint = did_you_mean(name, PROTOCOLS)
            raise UsageError(
                f"There is no protocol {name!r}{hint} There are: {', '.join(PROTOCOLS)}."
            )
    opened = open_finished(word, progress, **where)
    if shuffled_labels or roar:
        retrained.can_be_retrained(opened, roar)
    judge = open_evaluator(opened, evaluator, progress, **where) if evaluator else None
    chosen = chosen_methods(methods, opened, progress)
    if against:
        chosen = list(dict.fromkeys([*chosen, against]))
        if len(chosen) < 2:
            raise UsageError(
                f"There is no method to compare with {against!r}: name another one, too (--method)."
            )
    settings = opened.told(chosen, threshold, max_components)
    for name in chosen:
        make_method(name, opened.subject, settings)  # One that cannot be is told before the others.
    clips: tuple[Clip, ...] = opened.material.split.test
    if limit is not None:
        clips = tuple(clips[i] for i in spread(clips, limit))
    forgetful = retrained.relearnt(opened, chosen, epochs, progress) if shuffled_labels else None
    by_protocol: dict[str, dict[str, Any]] = {}
    tables: list[dict[str, NDArray[Any]]] = []
    differences: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    opened_protocols = {
        word_: open_protocol(opened, word_, clips, settings.seed, progress)
        for word_ in dict.fromkeys(protocols)
    }
    for name in chosen:
        unknown = [p for p, protocol in opened_protocols.items() if not protocol.known]
        if unknown and getattr(METHODS[name], "knows_parts", False):
            raise UsageError(
                f"Method {name!r} needs the known parts of a mixture, and protocol {unknown[0]!r} "
                "has none here: say --protocol mix0 or mix12."
            )
    for word_, protocol in opened_protocols.items():
        by_protocol[word_] = {}
        pairs: dict[str, dict[str, NDArray[Any]]] = {}
        for name in chosen:
            probes: list[Probe] = [judge] if judge is not None else []
            if everything or opened.subject.classifier.task is Task.MULTI_LABEL:
                probes.append(Absent(settings.seed))
            if forgetful is not None:
                probes.append(retrained.DataRandomised(name, forgetful, settings))
            if everything:
                again = protocol.some(repeats, clips) if len(by_protocol) == 1 else frozenset()
                probes += all_probes(opened.subject, name, settings, again)
            # One of one's own by its name alone, unless two are called so.
            short = name.rpartition(":")[2]
            called = name if short in by_protocol[word_] else short
            shown = f"{called}, {word_}" if len(protocols) > 1 else called
            result, rows = _judged(opened, protocol, name, settings, probes, progress, shown)
            by_protocol[word_][called] = result
            pairs[called] = {k: v for k, v in rows.items() if k in ("scene", *result["scores"])}
            if name == against:
                base = called
            names |= dict.fromkeys(result["scores"])
            dropped = () if protocol.known else (*TRUTH_SCORES, "present")
            columns = {k: v for k, v in rows.items() if k not in dropped}
            n = len(rows.get("scene", ()))
            tables.append({"method": np.full(n, called), "protocol": np.full(n, word_), **columns})
        if against and all("scene" in rows for rows in pairs.values()):
            differences += [{"protocol": word_, **line} for line in _against(pairs, base, protocol)]
    if roar:
        each = next(iter(by_protocol.values()))
        figures = _roar(opened, chosen, settings, clips, epochs, progress)
        for result, (scores, intervals) in zip(each.values(), figures, strict=True):
            result["scores"] |= scores
            result["intervals"] |= intervals
            names |= dict.fromkeys(scores)
    document = {
        "evaluator": evaluator or None,
        "against": against or None,
        "differences": differences,
        "clips": len(clips),
        "threshold": settings.threshold,
        "max_components": settings.max_components,
        "metrics": list(names),
        "meaning": meanings(names),
        "methods": next(iter(by_protocol.values())),
        "protocols": by_protocol,
    }

    def write(folder: Path) -> None:
        lines = [
            {"method": m, "protocol": p, **f["scores"]}
            for p, each in by_protocol.items()
            for m, f in each.items()
        ]
        write_csv(folder / "benchmark.csv", lines)
        write_table(folder / "pairs.csv", *tables)
        if differences:
            write_differences(differences, folder / "differences.csv")

    return write_found(
        opened,
        "benchmark",
        {
            "methods": chosen,
            "clips": len(clips),
            **asdict(settings),
            **({"protocols": list(by_protocol)} if list(by_protocol) != ["clean"] else {}),
            **({"all": True, "repeats": repeats} if everything else {}),
            **({"evaluator": evaluator} if evaluator else {}),
            **({"against": against} if against else {}),
            **({"shuffled_labels": True} if shuffled_labels else {}),
            **({"roar": True} if roar else {}),
            **({"epochs": epochs} if shuffled_labels or roar else {}),
        },
        {
            f"{m}/{k}" if p == "clean" else f"{p}/{m}/{k}": v
            for p, each in by_protocol.items()
            for m, f in each.items()
            for k, v in f["scores"].items()
            if v is not None
        },
        document,
        write,
    )


def _judged(
    opened: Opened,
    protocol: Protocol,
    method: str,
    settings: MethodSettings,
    probes: Sequence[Probe],
    progress: Progress,
    shown: str,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The figures of one method, and their rows."""
    seconds: list[float] = []
    with progress.task(shown, total=protocol.count, unit="clip") as bar:
        rows = judge_scenes(
            opened.subject,
            method,
            settings,
            protocol.scenes(),
            predicted,
            probes=probes,
            on_scene=bar.advance,
            on_seconds=seconds.append,
        )
    groups = protocol.groups(rows.get("scene", ()))
    rows, probed = finished(rows, probes, groups)
    scores, intervals = truth_scores(rows, settings.seed, settings.metrics, groups)
    names = [*mask_scores(settings.metrics), *(TRUTH_SCORES if protocol.known else ())]
    more = mean_scores(rows, probed, settings.seed, groups)
    scores, intervals = scores | more[0], intervals | more[1]
    names += probed
    return {
        "scores": finite({name: scores[name] for name in names}),
        "intervals": {k: list(intervals[k]) for k in names if k in intervals},
        "seconds_per_clip": round(sum(seconds) / protocol.count, 4),
    }, rows


def _against(
    pairs: dict[str, dict[str, NDArray[Any]]], base: str, protocol: Protocol
) -> list[dict[str, Any]]:
    """How every method's figures differ from those of `base`, clip by clip; of several classes in
    one clip, the mean counts."""
    import pandas as pd

    each = {name: pd.DataFrame(rows).groupby("scene").mean() for name, rows in pairs.items()}
    first = each.pop(base)
    groups = protocol.groups(list(first.index))
    differences: list[dict[str, Any]] = []
    for name, second in each.items():
        lines = [
            difference(k, first[k].to_numpy(np.float64), second[k].to_numpy(np.float64), groups)
            for k in first
            if k in second
        ]
        differences += [{"method": name, **line} for line in corrected(lines)]
    return differences


def _roar(
    opened: Opened,
    methods: Sequence[str],
    settings: MethodSettings,
    clips: Sequence[Clip],
    epochs: int,
    progress: Progress,
) -> list[tuple[dict[str, float | None], dict[str, list[float]]]]:
    """Scores and intervals of each method, beside those of the control."""
    right = retrained.roar(opened, methods, settings, clips, epochs, progress)
    groups = np.array([clip.group or clip.id for clip in clips], dtype=str)
    random = {
        name.replace("roar_", "roar_control_"): values
        for name, values in right[retrained.CONTROL].items()
        if name != "roar_at_0"
    }
    accuracies = []
    for name in methods:
        columns = right[name] | random
        scores, intervals = mean_scores(columns, list(columns), settings.seed, groups)
        accuracies.append((finite(scores), {k: list(v) for k, v in intervals.items()}))
    return accuracies


def chosen_methods(methods: Sequence[str], opened: Opened, progress: Progress) -> list[str]:
    """Those that are named; else the run's own, and the usual ones that have what they need."""
    if methods:
        return list(dict.fromkeys(methods))
    subject, own = opened.subject, opened.config.method.name
    fitting = fitting_methods(subject.classifier, subject.parts)
    if left := [name for name in usual_methods() if name not in fitting]:
        progress.say(f"Left out, for want of what they need: {', '.join(left)}.")
    return fitting if own in fitting else [own, *fitting]
