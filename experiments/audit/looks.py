"""What plain looks find on the plantings that an audit is tried on.

    python experiments/audit/looks.py planted

Each finished run of the experiment is looked at as a careful person would without an audit: at its
accuracy, at clusters of Grad-CAM heat maps, and at the components that are louder in a class than
in others. A look ranks all classes, each with the place that stands out most in it, and is judged
as the audit is (`l2i.audit.planted`): is the class with the cue among the first three, and is the
cue where the look points? Chance names it in three of C runs, C being the number of classes. An
audit that was kept is taken as it is; a run without one is audited.

Where a look leaves a choice, it is the one that names more of the classes of ``plantings.toml`` and
``plantings_gates.toml``: that is to a plain look's good, and none of the audit's.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from table import finished, planting

from l2i.audit import audit
from l2i.audit.changes import document_of
from l2i.audit.cues import BANDS, SLICES, Cue, Palette
from l2i.audit.planted import judged, planted_place
from l2i.audit.report import where
from l2i.data.planted import Planted
from l2i.dsp.mel import interpolation, mel_places
from l2i.errors import UsageError
from l2i.explanation import MethodSettings, make_method
from l2i.models.dictionary import learn_dictionary
from l2i.models.heard import hear
from l2i.recipes.opening.opened import Opened, open_finished
from l2i.recipes.tables.shortcut import cue_clips
from l2i.run.device import epoch_generator
from l2i.run.progress import Progress

FIRST = 3
"""So many suspects are looked into."""
_BATCH, _FEWEST = 16, 3
# A dictionary that a run lacks: components, clips that it is learnt from, sweeps.
_COMPONENTS, _LEARNT_FROM, _SWEEPS = 64, 100, 10
_CLUSTERS = 8
Suspect = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """What plain looks see of the clips of a run.

    Attributes
    ----------
    classes : tuple of str
    labels : bool [N, C]
    probability : float [N, C]
    test : bool [N]
        Which clips no training has seen.
    heat : float [N, BANDS, SLICES]
        Grad-CAM's heat of the likeliest class, by mel bands and sixteenths of the clip; 1 in all.
    level : float [N, K]
        Each component's share of the clip's energy.
    parts : tuple of Cue
        The components.
    top_hz : float
        Half of the sample rate.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.bool_]
    probability: NDArray[np.floating]
    test: NDArray[np.bool_]
    heat: NDArray[np.floating]
    level: NDArray[np.floating]
    parts: tuple[Cue, ...]
    top_hz: float

    @property
    def taken(self) -> NDArray[np.int64]:
        """The likeliest class of each clip [N]."""
        return self.probability.argmax(axis=1)


def accuracy(seen: Seen) -> list[Suspect]:
    """Classes that are told with more or less ease than the others, by their test clips.

    How odd a class is: how far its accuracy (its recall, with half a clip added to either side) and
    its mean probability are from the median of all classes, in log-odds, either way; both added.
    A class is named, and no place.
    """
    own = [(seen.labels[:, c] & seen.test) for c in range(len(seen.classes))]
    right = np.array([(seen.taken[mine] == c).sum() for c, mine in enumerate(own)])
    wrong = np.array([mine.sum() for mine in own]) - right
    sure = np.array([seen.probability[m, c].mean() if m.any() else 0.5 for c, m in enumerate(own)])
    sure = sure.clip(1e-6, 1 - 1e-6)
    odds = np.stack([np.log((right + 0.5) / (wrong + 0.5)), np.log(sure / (1 - sure))])
    odd = np.abs(odds - np.median(odds, axis=1, keepdims=True)).sum(axis=0)
    return [{"class": seen.classes[c], "where": None} for c in np.argsort(-odd, kind="stable")]


def heat_clusters(seen: Seen) -> list[Suspect]:
    """Clusters of a class's heat maps, the furthest from the rest of the class first.

    SpRAy (Lapuschkin et al. 2019, Nature Communications 10:1096): heat maps of a class's clips are
    made coarse and clustered, spectrally, by the graph of the log N nearest neighbours; the largest
    gap between eigenvalues of its Laplacian says how many clusters there are. They are ranked by
    Fisher's discriminant against the rest of the class, as Anders et al. 2022 have it (*Finding and
    removing Clever Hans*, Information Fusion 77, arXiv 1912.11425), its covariance shrunk (Ledoit,
    Wolf 2004). A class that is one cluster has no rest, and comes last; heat is then told against
    all clips. Place: the fewest bands and sixteenths that hold half of the heat beyond the class's
    mean.
    """
    # Square roots of shares, as in `l2i.audit.groups`: no hot spot drowns the rest.
    x = np.sqrt(seen.heat.reshape(len(seen.heat), -1))
    ranked: list[tuple[float, Suspect]] = []
    for c, name in enumerate(seen.classes):
        own = np.flatnonzero(seen.taken == c)
        if len(own) < _FEWEST:
            continue
        members = _clusters(x[own])
        usual = seen.heat[own].mean(axis=0) if members.any() else seen.heat.mean(axis=0)
        apart = [_fisher(x[own[members == k]], x[own[members != k]]) for k in np.unique(members)]
        # Two clusters are as far from each other: the smaller one is the odd one.
        far = np.flatnonzero(np.isclose(apart, max(apart)))
        most = int(far[np.bincount(members)[far].argmin()])
        beyond = np.maximum(seen.heat[own[members == most]].mean(axis=0) - usual, 0)
        ranked.append((apart[most], {"class": name, "where": _place(beyond, seen.top_hz)}))
    return [suspect for _, suspect in sorted(ranked, key=lambda item: -item[0])]


def loudest(seen: Seen) -> list[Suspect]:
    """Components that are louder in a class than in other classes, relative to the clip.

    Ranked by the difference of their mean shares of the energy, in standard deviations (Cohen's
    d); each class has its first. Place: the component's band.
    """
    ranked: list[tuple[float, Suspect]] = []
    for c, name in enumerate(seen.classes):
        own, others = seen.level[seen.taken == c], seen.level[seen.taken != c]
        if min(len(own), len(others)) < _FEWEST:
            continue
        spread = np.sqrt((own.var(axis=0) + others.var(axis=0)) / 2)
        apart = (own.mean(axis=0) - others.mean(axis=0)) / np.maximum(spread, 1e-6)
        most = int(apart.argmax())
        ranked.append((float(apart[most]), {"class": name, "where": where(seen.parts[most])}))
    return [suspect for _, suspect in sorted(ranked, key=lambda item: -item[0])]


LOOKS: dict[str, Callable[[Seen], list[Suspect]]] = {
    "accuracy": accuracy,
    "Grad-CAM clusters": heat_clusters,
    "loudest components": loudest,
}


def _clusters(x: NDArray[np.floating]) -> NDArray[np.int64]:
    """The cluster of each of some heat maps [N, D]; all are one where they are few, or alike."""
    from scipy.sparse.csgraph import laplacian
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import kneighbors_graph

    n = len(x)
    if n < 4 * _FEWEST or np.ptp(x, axis=0).max() < 1e-6:
        return np.zeros(n, np.int64)
    graph = kneighbors_graph(x, round(np.log(n)) + 1).toarray()
    affinity = np.maximum(graph, graph.T)
    values = np.linalg.eigvalsh(laplacian(affinity, normed=True))
    count = int(np.diff(values[: min(_CLUSTERS, n // 4) + 1]).argmax()) + 1
    if count == 1:
        return np.zeros(n, np.int64)
    with warnings.catch_warnings():
        # Parts of the graph that nothing connects are clusters; that is no fault.
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        spectral = SpectralClustering(count, affinity="precomputed", random_state=0)
        return spectral.fit_predict(affinity)


def _fisher(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Between-class over within-class scatter along Fisher's direction; 0 for too few of either."""
    from sklearn.covariance import ledoit_wolf

    if min(len(a), len(b)) < _FEWEST:
        return 0.0
    within = np.concatenate([a - a.mean(axis=0), b - b.mean(axis=0)])
    between = a.mean(axis=0) - b.mean(axis=0)
    covariance, _ = ledoit_wolf(within, assume_centered=True)
    covariance += 1e-9 * np.eye(len(covariance))
    return float(between @ np.linalg.solve(covariance, between))


def _place(heat: NDArray[np.floating], top_hz: float) -> dict[str, Any]:
    """The fewest bands and the fewest sixteenths that hold half of some heat [BANDS, SLICES]."""
    (low, high), (start, end) = _fewest(heat.sum(axis=1)), _fewest(heat.sum(axis=0))

    def hz(edge: float) -> float:
        share = min(max(edge / (BANDS - 1), 0.0), 1.0)
        return float(700 * np.expm1(share * np.log1p(top_hz / 700)))

    band = {"kind": "band", "low_hz": hz(low - 0.5), "high_hz": hz(high - 0.5)}
    return band | {"start": start / SLICES, "end": end / SLICES}


def _fewest(heat: NDArray[np.floating]) -> tuple[int, int]:
    """The shortest stretch, from and to, that holds half of the whole; all where there is none."""
    n, sums = len(heat), np.concatenate([[0.0], np.cumsum(heat)])
    if sums[-1] <= 0:
        return 0, n
    stretches = [(a, b) for a in range(n) for b in range(a + 1, n + 1)]
    enough = [(a, b) for a, b in stretches if 2 * (sums[b] - sums[a]) >= sums[-1]]
    return min(enough, key=lambda s: (s[1] - s[0], sums[s[0]] - sums[s[1]]))


def look(opened: Opened) -> Seen:
    """All clips of a run, heard once."""
    material, subject = opened.material, opened.subject
    clips = material.clips("all")
    labels = material.labels(clips, opened.classes)
    if labels is None:
        raise UsageError(f"The data of run {opened.run.name} have no labels to look at.")
    way = make_method("gradcam", subject, MethodSettings())
    dictionary = subject.parts.get("dictionary")
    palette = Palette(
        material.domain, _learnt(opened) if dictionary is None else dictionary, opened.device
    )
    places = mel_places(material.domain.n_bins, material.domain.sample_rate) * (BANDS - 1)
    bands = interpolation(places, BANDS).to(opened.device)
    bands /= bands.sum(dim=0)
    rows = material.rows(clips)
    columns: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, len(clips), _BATCH):
        x = torch.from_numpy(np.array(material.waves.array[rows[start : start + _BATCH]]))
        heard = hear(subject.classifier, x, material.domain, way.layers)
        p = subject.classifier.probabilities(heard.logits)
        mask = way(heard, p.argmax(dim=1), range(start, start + len(x)))
        heat = torch.einsum("fk,bft->bkt", bands, mask)
        heat = torch.nn.functional.adaptive_avg_pool1d(heat, SLICES)
        level = palette.energies(palette.take_apart(heard), heard.size.square())
        columns.append((p, heat, level))
    p, heat, level = (torch.cat(c).cpu().numpy() for c in zip(*columns, strict=True))
    tested = {clip.id for clip in material.split.test}
    return Seen(
        opened.classes,
        labels,
        p,
        np.array([clip.id in tested for clip in clips]),
        heat / np.maximum(heat.sum(axis=(1, 2), keepdims=True), 1e-12),
        level / np.maximum(level.sum(axis=1, keepdims=True), 1e-12),
        palette.parts,
        material.domain.sample_rate / 2,
    )


def _learnt(opened: Opened) -> torch.Tensor:
    """A dictionary [F, K] of some of a run's training clips, where the run has none."""
    material, classifier = opened.material, opened.subject.classifier
    rows = material.rows(material.split.train)
    some = rows[np.linspace(0, len(rows) - 1, min(_LEARNT_FROM, len(rows))).astype(int)]
    sounds = (torch.from_numpy(np.array(material.waves.array[[row]])) for row in some)
    return learn_dictionary(
        [hear(classifier, x, material.domain).size[0].log1p() for x in sounds],
        _COMPONENTS,
        sparsity=opened.config.dictionary.sparsity,
        iterations=_SWEEPS,
        generator=epoch_generator(0, "dictionary", ""),
    ).w


def cell(suspects: Sequence[Suspect], label: str, place: dict[str, Any] | None) -> str:
    """What a look finds of a cue: at which place among its suspects the class is, and whether the
    suspect that names it is at the cue's place."""
    verdict = judged(suspects, label, place)
    if verdict["rank"] is None:
        return "none"
    if suspects[verdict["rank"] - 1]["where"] is None or place is None:
        return f"{verdict['rank']}, no place"
    return f"{verdict['rank']}, {'right' if verdict['placed'] else 'wrong'} place"


def main(experiment: str) -> None:
    """Print a line for each run."""
    print(f"| planted | used | {' | '.join(LOOKS)} | audit |")
    print("|---|---|" + "---|" * (len(LOOKS) + 1))
    for run in finished(experiment):
        opened = open_finished(run.id, Progress(quiet=True), stream=True, keep=False)
        seen = look(opened)
        lists = [of(seen) for of in LOOKS.values()]
        try:
            document = document_of(run.id)
        except UsageError:  # It was never audited.
            document = audit(run.id, Progress(), keep=False)
        lists.append(document["suspects"])
        data = opened.material.dataset
        if isinstance(data, Planted):
            clips = cue_clips(data, opened.material.split.test)
            place = planted_place(data, clips) if clips else None
            cells = [cell(suspects, data.cue.label, place) for suspects in lists]
        else:
            cells = [", ".join(s["class"] for s in some[:FIRST]) or "none" for some in lists]
        print(f"| {' | '.join((*planting(run, document), *cells))} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["planted"])
