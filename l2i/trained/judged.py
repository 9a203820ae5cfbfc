"""What explanations are worth: of one method, and of several on the same sounds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from l2i import config
from l2i.errors import DataError, MissingPackage, UsageError
from l2i.explanation import fitting_methods, lacking_packages, part_names
from l2i.library import check_classifier
from l2i.metrics import METRICS
from l2i.recipes.measuring.measure import Evaluation, beside, evaluate_clips
from l2i.recipes.measuring.probed import all_probes
from l2i.recipes.measuring.probes import Evaluator, Probe
from l2i.recipes.measuring.reexplained import Absent
from l2i.recipes.measuring.truth import Part as ScenePart
from l2i.recipes.measuring.truth import Scene, evaluate_method
from l2i.recipes.opening.bundle import explainer_of
from l2i.registry import METHODS
from l2i.run.progress import Progress
from l2i.trained.fitted import FEWEST, Clips, Fitted, fit, gathered, known_settings
from l2i.types import Classifier, Task

if TYPE_CHECKING:
    import pandas as pd

_TEST_SHARE = 0.2


def evaluate(
    fitted: Fitted,
    sounds: Clips,
    *,
    sample_rate: int | None = None,
    duration_s: float | None = None,
    all: bool = False,
    evaluator: Classifier | None = None,
    repeats: int = 10,
    progress: bool = False,
) -> pd.DataFrame:
    """What a method's explanations are worth, on sounds that it should not have learnt from.

    Parameters
    ----------
    fitted : Fitted
    sounds : folder, list of files, array or tensor
        As for `fit`.
    sample_rate, duration_s : optional
        As for `fit`.
    all : bool
        All figures: at stated sizes, insertion and deletion, under noise, with shuffled weights,
        and more. It takes about a hundred more sounds for each clip.
    evaluator : Classifier, optional
        One that was not in the loop, with the same classes: what it makes of the explanations.
    repeats : int
        With `all`: how many clips are explained again and again, some thirty times each.
    progress : bool
        Say on standard error how far it is.

    Returns
    -------
    pandas.DataFrame
        One row per figure: ``figure`` (a name of `l2i.metrics.METRICS`), ``title``, ``value``,
        ``low`` and ``high`` (95 % interval over clips), ``unit``, ``better``.
    """
    import pandas as pd

    if not isinstance(fitted, Fitted):
        raise UsageError(
            f"What is evaluated is what l2i.fit(...) or l2i.load(...) gives, not "
            f"{type(fitted).__name__}; l2i.benchmark(...) takes a classifier."
        )
    x = gathered(fitted.classifier, sounds, sample_rate, duration_s)
    probes = _probes(fitted, len(x), all, evaluator, repeats)
    e = _measured(fitted, x, Progress(not progress), probes)
    rows = [
        (name, m.title, value, *e.intervals.get(name, (np.nan, np.nan)), m.unit, m.better)
        for name, value in e.scores.items()
        for m in [METRICS[name]]
    ]
    return pd.DataFrame(rows, columns=["figure", "title", "value", "low", "high", "unit", "better"])


def _probes(
    fitted: Fitted, count: int, everything: bool, evaluator: Classifier | None, repeats: int
) -> list[Probe]:
    """What is asked of `count` clips beyond the usual figures."""
    if not (isinstance(repeats, SupportsIndex) and repeats >= 1):
        raise UsageError(f"repeats = {repeats!r} must be 1 or more, and a whole number.")
    probes: list[Probe] = []
    if evaluator is not None:
        check_classifier(evaluator)
        probes.append(Evaluator(evaluator, fitted.classifier))
    if everything:
        some = np.linspace(0, count - 1, min(repeats, count)).round().astype(int)
        again = frozenset(map(str, some.tolist()))
        if fitted.classifier.task is not Task.MULTI_LABEL:  # Else it is asked anyway.
            probes.append(Absent(fitted.settings.seed))
        probes += all_probes(fitted.subject, fitted.method, fitted.settings, again)
    return probes


def _measured(
    fitted: Fitted, x: NDArray[np.float32], progress: Progress, probes: Sequence[Probe]
) -> Evaluation:
    told, own = fitted.settings, None
    settings = config.Explanation(threshold=told.threshold, max_components=told.max_components)
    if "interpreter" in part_names(METHODS[fitted.method]):
        own = evaluate_clips(
            explainer_of(fitted.subject),
            x,
            np.arange(len(x)),
            None,
            settings,
            seed=told.seed,
            progress=progress,
        )
    if own is not None and fitted.method == "l2i" and not probes:
        return own
    evaluation = _by_method(fitted, x, progress, probes)
    if own is not None and fitted.method == "l2i":
        evaluation.scores = evaluation.scores | own.scores
        evaluation.intervals = evaluation.intervals | own.intervals
    elif own is not None:
        evaluation = beside(evaluation, own)
    return evaluation


def _by_method(
    fitted: Fitted, x: NDArray[np.float32], progress: Progress, probes: Sequence[Probe]
) -> Evaluation:
    scenes = [Scene(str(i), i, (ScenePart(clip, frozenset()),)) for i, clip in enumerate(x)]
    told = (fitted.subject, fitted.method, fitted.settings)
    return evaluate_method(*told, scenes, None, progress=progress, probes=probes)


def benchmark(
    classifier: Classifier | Fitted,
    sounds: Clips,
    methods: Sequence[str] = (),
    *,
    sample_rate: int | None = None,
    duration_s: float | None = None,
    all: bool = False,
    evaluator: Classifier | None = None,
    repeats: int = 10,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> pd.DataFrame:
    """Explanation methods on the same sounds, under the same figures.

    A method that learns is fitted to four fifths of the sounds first, and all are judged on the
    last fifth. What is fitted already is not fitted again: then all sounds are judged, and those
    that it learnt from should not be among them.

    Parameters
    ----------
    classifier : Classifier or Fitted
    sounds : folder, list of files, array or tensor
        As for `fit`.
    methods : sequence of str
        Names in `l2i.registry.METHODS`; by default the usual ones that this classifier has what
        they need for (see `l2i.explanation.usual_methods`). Where a package is not installed that
        some of those need (Captum), they are left out with a warning.
    all, evaluator, repeats
        As for `evaluate`.
    sample_rate, duration_s, seed, progress
        As for `fit`.
    **settings
        As for `fit`; each goes to those methods that have it.

    Returns
    -------
    pandas.DataFrame
        A row per method, a column per figure, and ``seconds_per_clip``.
    """
    import pandas as pd

    fitted = classifier if isinstance(classifier, Fitted) else None
    clf = classifier.classifier if isinstance(classifier, Fitted) else classifier
    check_classifier(clf)
    if isinstance(methods, str):
        methods = [methods]
    chosen = list(dict.fromkeys(methods or ())) or fitting_methods(
        clf, None if fitted is None else fitted.subject.parts, layers_named="layers" in settings
    )
    # What is not known, or not there, is told before anything is learnt.
    lacking = {name: lacks for name in chosen if (lacks := lacking_packages(METHODS[name]))}
    for name, (package, *_) in lacking.items():
        if methods:
            raise MissingPackage(f"Method {name!r}", package)
    if lacking:
        packages = sorted({package for lacks in lacking.values() for package in lacks})
        warnings.warn(
            f"Left out, since they need {' and '.join(packages)}, which is not installed: "
            f"{', '.join(lacking)}. 'pip install {' '.join(packages)}' brings them back.",
            stacklevel=2,
        )
        chosen = [name for name in chosen if name not in lacking]
    learning = [name for name in chosen if part_names(METHODS[name])]
    own: dict[str, dict[str, Any]] = {}
    if fitted is None:
        known = known_settings(learning or chosen[:1], settings)
        own = {m: {k: v for k, v in settings.items() if k in names} for m, names in known.items()}
    x = gathered(clf, sounds, sample_rate, duration_s)
    test = x
    if fitted is None and learning:
        order = np.random.default_rng(seed).permutation(len(x))
        n = max(1, round(_TEST_SHARE * len(x)))
        test, rest = x[np.sort(order[:n])], x[np.sort(order[n:])]
        if len(rest) < FEWEST:
            raise DataError(
                f"There {'is 1 sound' if len(x) == 1 else f'are {len(x)} sounds'}, of which {n} "
                f"is to judge by, and at least {FEWEST} more are needed to learn."
            )
        have = fit(clf, rest, learning[0], seed=seed, progress=progress, **own[learning[0]])
    elif fitted is None:
        have = fit(clf, [], chosen[0], seed=seed, **settings)  # It learns nothing, but is told.
    elif settings:
        raise UsageError(f"What is fitted already takes no setting {next(iter(settings))!r} more.")
    else:
        have = fitted
    rows = {}
    for name in chosen:
        needs = part_names(METHODS[name])
        subject = have.subject
        if any(part not in subject.parts for part in needs):
            if fitted is not None:
                raise UsageError(f"Method {name!r} must learn its {' and its '.join(needs)} first.")
            subject = fit(clf, rest, name, seed=seed, progress=progress, **own[name]).subject
        begin = time.perf_counter()
        one = Fitted(name, subject, have.settings)
        probes = _probes(one, len(test), all, evaluator, repeats)
        rows[name] = dict(_by_method(one, test, Progress(not progress), probes).scores)
        rows[name]["seconds_per_clip"] = (time.perf_counter() - begin) / len(test)
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "method"
    return frame
