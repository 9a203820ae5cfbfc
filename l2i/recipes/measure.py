"""What recipes share: figures of an explainer on labelled clips, and explanations as files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i import plots
from l2i.config import Explanation as ExplanationSettings
from l2i.dsp.audio import write_audio
from l2i.dsp.spectrogram import log_magnitude, peak_normalise, resynthesise, stft
from l2i.explanation import Explainer, random_selection, relevance, select, soft_mask
from l2i.metrics import METRICS, classification, faithfulness, fidelity
from l2i.run.device import epoch_generator
from l2i.run.progress import Progress
from l2i.storage import atomic_write_text
from l2i.types import Clip, Task

__all__ = [
    "Evaluation",
    "evaluate_clips",
    "spread",
    "write_evaluation",
    "write_examples",
    "write_explanation",
]

_BATCH = 16


@dataclass
class Evaluation:
    """Figures of N clips, and what they come from.

    Attributes
    ----------
    scores : dict of str to float
        Names of `l2i.metrics.METRICS`; NaN where a figure is not defined.
    per_class : dict of str to dict
        Figures of each class that has them.
    logits, interpreter_logits : [N, C]
    labels, decisions : bool [N, C]
    pairs : dict of str to array [P]
        One row per clip and class explained: ``clip``, ``class``, ``components``,
        ``fall_probability``, ``fall_logit``, ``random_probability``, ``random_logit`` (means
        over the draws).
    """

    scores: dict[str, float]
    per_class: dict[str, dict[str, float]]
    logits: NDArray[np.float32]
    interpreter_logits: NDArray[np.float32]
    labels: NDArray[np.bool_]
    decisions: NDArray[np.bool_]
    task: Task
    pairs: dict[str, NDArray[Any]] = field(default_factory=dict)


def evaluate_clips(
    explainer: Explainer,
    waveforms: NDArray[np.float32],
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    settings: ExplanationSettings,
    *,
    seed: int,
    progress: Progress,
) -> Evaluation:
    """Classifier, fidelity and faithfulness, the latter through audio.

    Faithfulness is measured per clip and class: for the classifier's class, or for every class
    it detects where it may detect several. Removal audio goes through the inverse STFT and
    through the classifier's whole front-end, its scaling to the peak included.

    Parameters
    ----------
    explainer : Explainer
    waveforms : float32 [M, S]
    rows : int64 [N]
        The clips wanted.
    labels : bool [N, C]
    settings : l2i.config.Explanation
    seed : int
        Of the random baseline.
    progress : Progress
    """
    classifier = explainer.classifier
    generator = epoch_generator(seed, "random removal")
    logits, interpreted, decided = [], [], []
    error = 0.0
    table: dict[str, list[NDArray[Any]]] = {}
    draws: list[NDArray[Any]] = []
    with progress.task("test", total=len(rows), unit="clip") as bar, torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            x = torch.from_numpy(np.asarray(waveforms[some]))
            spectrum = classifier.spectrum(x)
            features = explainer.features(spectrum)
            said = explainer.interpret(features, spectrum.shape[2])
            size = log_magnitude(spectrum)
            residual = size - torch.matmul(explainer.w, said.activations)
            error += float(residual.square().mean()) * len(some)
            decisions = classifier.decisions(features.logits)
            which, classes = decisions.nonzero(as_tuple=True)
            logits.append(features.logits.cpu().numpy())
            interpreted.append(said.logits.float().cpu().numpy())
            decided.append(decisions.cpu().numpy())
            for part in torch.arange(len(which)).split(_BATCH):
                clip, c = which[part.to(which.device)], classes[part.to(which.device)]
                found = _falls(
                    explainer,
                    spectrum,
                    size,
                    features.logits,
                    said.activations,
                    said.pooled,
                    clip,
                    c,
                    settings,
                    generator,
                    x.shape[1],
                )
                draws.append(found.pop("draws"))
                found["clip"] = clip.cpu().numpy() + start
                found["class"] = c.cpu().numpy()
                for name, values in found.items():
                    table.setdefault(name, []).append(values)
            bar.advance(len(some))
    evaluation = Evaluation(
        {},
        {},
        np.concatenate(logits),
        np.concatenate(interpreted),
        labels,
        np.concatenate(decided),
        classifier.task,
        {name: np.concatenate(values) for name, values in table.items()},
    )
    drawn = np.concatenate(draws, axis=1) if draws else np.zeros((2, 0, settings.random_draws))
    evaluation.scores = _scores(evaluation, drawn)
    evaluation.scores["reconstruction"] = error / len(rows)
    evaluation.per_class = _per_class(evaluation, classifier.classes)
    return evaluation


def _falls(
    explainer: Explainer,
    spectrum: Tensor,
    size: Tensor,
    logits: Tensor,
    activations: Tensor,
    pooled: Tensor,
    clip: Tensor,
    classes: Tensor,
    settings: ExplanationSettings,
    generator: torch.Generator,
    n_samples: int,
) -> dict[str, NDArray[Any]]:
    """Fall of the class's probability and logit on removal: of what matters, of random parts."""
    classifier = explainer.classifier
    h, s, x = activations[clip], size[clip], spectrum[clip]
    r = relevance(pooled[clip], explainer.interpreter.theta, classes)
    selected = select(r, settings.faithfulness_threshold)
    before = logits[clip]
    index = classes.cpu().numpy()

    def fall(chosen: Tensor) -> NDArray[Any]:
        mask = soft_mask(explainer.w, h, chosen)
        removal = resynthesise(x, s * (1 - mask), explainer.settings, n_samples)
        after = classifier.logits(removal)
        pairs = [(classifier.probabilities(before), classifier.probabilities(after))]
        pairs.append((before, after))
        return np.stack(
            [faithfulness.fall(a.cpu().numpy(), b.cpu().numpy(), index) for a, b in pairs]
        )

    counts = selected.sum(dim=1)
    own = fall(selected)
    drawn = np.stack(
        [
            fall(random_selection(counts, selected.shape[1], generator, selected.device))
            for _ in range(settings.random_draws)
        ],
        axis=2,
    )  # [2, pairs, draws]
    return {
        "components": counts.cpu().numpy(),
        "fall_probability": own[0],
        "fall_logit": own[1],
        "random_probability": drawn[0].mean(axis=1),
        "random_logit": drawn[1].mean(axis=1),
        "draws": drawn,
    }


def _scores(e: Evaluation, drawn: NDArray[Any]) -> dict[str, float]:
    """All figures; `drawn` [2, P, draws] holds the falls under random removal."""
    scores: dict[str, float] = {}
    if e.task is Task.SINGLE_LABEL:
        scores["accuracy"] = classification.accuracy(e.logits, e.labels)
        ranks = fidelity.rank_of_class(e.logits, e.interpreter_logits)
        for k in (1, 3, 5):
            scores[f"fidelity_top{k}"] = fidelity.topk_fidelity(ranks, k)
    else:
        macro, micro, _ = classification.auprc(_sigmoid(e.logits), e.labels)
        scores |= {"auprc_macro": macro, "auprc_micro": micro}
        scores |= fidelity.agreement(_sigmoid(e.interpreter_logits), e.decisions)
    p = e.pairs
    nothing = np.zeros(0)
    scores |= faithfulness.summary(
        "faithfulness", p.get("fall_probability", nothing), p.get("fall_logit", nothing)
    )
    # The median over clips of each draw, then the mean over draws: one draw is as noisy as the
    # figure it stands beside.
    each = [faithfulness.summary("random", *drawn[:, :, i]) for i in range(drawn.shape[2])]
    scores |= {name: float(np.mean([d[name] for d in each])) for name in each[0]}
    scores["random_probability_std"] = float(np.std([d["random_probability"] for d in each]))
    scores["components"] = float(p["components"].mean()) if p else float("nan")
    return scores


def _per_class(e: Evaluation, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    precision: dict[int, float] = {}
    agreed: dict[int, float] = {}
    if e.task is Task.MULTI_LABEL:
        _, _, precision = classification.auprc(_sigmoid(e.logits), e.labels)
        _, _, agreed = classification.auprc(_sigmoid(e.interpreter_logits), e.decisions)
    else:
        ranks = fidelity.rank_of_class(e.logits, e.interpreter_logits)
    for c, name in enumerate(classes):
        figures: dict[str, float] = {"clips": int(e.labels[:, c].sum())}
        if e.task is Task.SINGLE_LABEL:
            if figures["clips"]:
                mine = e.labels[:, c]
                figures["accuracy"] = classification.accuracy(e.logits[mine], e.labels[mine])
            said = e.decisions[:, c]
            if said.any():
                figures["fidelity_top1"] = fidelity.topk_fidelity(ranks[said], 1)
        if c in precision:
            figures["auprc"] = precision[c]
        if c in agreed:
            figures["fidelity_auprc"] = agreed[c]
        if e.pairs and (mine := e.pairs["class"] == c).any():
            figures["faithfulness_probability"] = float(
                np.median(e.pairs["fall_probability"][mine])
            )
            figures["components"] = float(e.pairs["components"][mine].mean())
        found[name] = figures
    return found


def _sigmoid(x: NDArray[np.floating]) -> NDArray[np.floating]:
    from scipy.special import expit

    y: NDArray[np.floating] = expit(x)
    return y


def _softmax(x: NDArray[np.floating]) -> NDArray[np.floating]:
    from scipy.special import softmax

    y: NDArray[np.floating] = softmax(x, axis=1)
    return y


def document(e: Evaluation) -> dict[str, Any]:
    """The figures as JSON has them, each with what it means."""

    def plain(values: dict[str, float]) -> dict[str, float | None]:
        return {k: v if np.isfinite(v) else None for k, v in values.items()}

    return {
        "clips": len(e.logits),
        "task": str(e.task),
        "scores": plain(e.scores),
        "per_class": {name: plain(figures) for name, figures in e.per_class.items()},
        "meaning": {name: asdict(METRICS[name]) for name in e.scores},
    }


def write_evaluation(
    e: Evaluation, clips: Sequence[Clip], classes: Sequence[str], folder: Path
) -> None:
    """Write ``scores.json``, ``clips.csv`` and ``confusion_matrix.png``.

    Parameters
    ----------
    e : Evaluation
    clips : sequence of Clip
        Those of `e`, in its order.
    classes : sequence of str
    folder : Path
        Is there.
    """
    import json

    import pandas as pd

    text = json.dumps(document(e), indent=2, ensure_ascii=False)
    atomic_write_text(folder / "scores.json", text + "\n")
    single = e.task is Task.SINGLE_LABEL
    p = _softmax(e.logits) if single else _sigmoid(e.logits)
    g = _softmax(e.interpreter_logits) if single else _sigmoid(e.interpreter_logits)
    at: dict[int, list[int]] = {}
    for pair, clip in enumerate(e.pairs.get("clip", ())):
        at.setdefault(int(clip), []).append(pair)
    lines: list[dict[str, Any]] = []
    for index, clip in enumerate(clips):
        line: dict[str, Any] = {
            "clip": clip.id,
            "labels": ";".join(classes[c] for c in clip.labels),
        }
        if single:
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
                    "interpreter_probability": g[index, c],
                    **{k: v[pair] for k, v in e.pairs.items() if k not in ("clip", "class")},
                }
            lines.append(line | more)
    order = ["clip", "labels", "class", "probability"]
    frame = pd.DataFrame(lines)
    # Where no class was detected in any clip, the columns of pairs are absent.
    frame = frame.reindex(columns=[*order, *(c for c in frame.columns if c not in order)])
    atomic_write_text(folder / "clips.csv", frame.to_csv(index=False, float_format="%.6g"))
    picture = folder / "confusion_matrix.png"
    if single:
        counts = classification.confusion(
            e.logits.argmax(axis=1), e.labels.argmax(axis=1), len(classes)
        )
        plots.confusion_matrix(counts, classes, picture)
    else:
        plots.decision_counts(e.decisions, e.labels, classes, picture)


def spread(clips: Sequence[Clip], n: int) -> list[int]:
    """Indices of at most `n` clips that cover as many classes as can be, in order.

    >>> spread([Clip("a", (0,)), Clip("b", (0,)), Clip("c", (1,))], 2)
    [0, 2]
    """
    queues: dict[tuple[int, ...], list[int]] = {}
    for index, clip in enumerate(clips):
        queues.setdefault(clip.labels[:1], []).append(index)
    chosen: list[int] = []
    while len(chosen) < min(n, len(clips)):
        for queue in queues.values():
            if queue and len(chosen) < n:
                chosen.append(queue.pop(0))
    return sorted(chosen)


def write_explanation(
    explainer: Explainer,
    waveform: Tensor,
    folder: Path,
    settings: ExplanationSettings,
    *,
    title: str,
    explained: int | None = None,
    n_samples: int | None = None,
) -> dict[str, Any]:
    """Explain one clip: three sounds, a picture, and what is known of them.

    Parameters
    ----------
    explainer : Explainer
    waveform : Tensor [S]
    folder : Path
        Made; ``original.wav``, ``explanation.wav``, ``removal.wav``, ``spectrograms.png``. The
        sounds have one common gain, by which the original's peak is full scale or less.
    settings : l2i.config.Explanation
    title : str
        Of the picture.
    explained : int, optional
        The class; without it the one that the classifier finds most probable.
    n_samples : int, optional
        Length of the sounds, where the clip was padded.

    Returns
    -------
    dict
        ``class``, ``probability`` (of the clip, of the explanation alone, of the removal),
        ``components`` and ``classifier``, the most probable classes.
    """
    classifier = explainer.classifier
    x = waveform.unsqueeze(0)
    e, features, said = explainer.explain(
        x,
        None if explained is None else [explained],
        threshold=settings.threshold,
        max_components=settings.max_components,
    )
    c = int(e.classes[0])
    p = classifier.probabilities(features.logits)[0]
    g = classifier.probabilities(said.logits)[0]
    original = peak_normalise(x.to(e.audio.device))
    sounds = {"original": original, "explanation": e.audio, "removal": e.removal}
    again = {
        name: float(classifier.probabilities(classifier.logits(sound))[0, c])
        if bool(sound.any())
        else None
        for name, sound in sounds.items()
        if name != "original"
    }
    # One gain for all three, so that their levels can be compared by ear.
    loudest = max(float(sound.abs().max()) for sound in sounds.values())
    gain = 1.0 / loudest if loudest > 1.0 else 1.0
    folder.mkdir(parents=True, exist_ok=True)
    for name, sound in sounds.items():
        samples = (sound[0] * gain).cpu().numpy()[:n_samples]
        write_audio(folder / f"{name}.wav", samples, explainer.settings.sample_rate)
    frames = explainer.settings.n_frames(n_samples or x.shape[1])
    chosen = e.selected[0].nonzero()[:, 0].tolist()
    components = sorted(((k, float(e.relevance[0, k])) for k in chosen), key=lambda kr: -kr[1])
    # Not rescaled to the peak again: the three pictures share one scale, as the sounds do.
    spectra = [
        stft(sound, explainer.settings)[0].abs().cpu().numpy()[:, :frames]
        for sound in sounds.values()
    ]
    name = classifier.classes[c]

    def said_of(word: str, value: float | None) -> str:
        return f"{word}: {'silent' if value is None else f'{value:.0%} {name}'}"

    heading = title if explained is None else f"{title}, explained as {name}"
    plots.explanation(
        spectra,
        [
            said_of("original", float(p[c])),
            said_of("explanation", again["explanation"]),
            said_of("removal", again["removal"]),
        ],
        components,
        explainer.settings,
        heading,
        folder / "spectrograms.png",
    )
    best = p.topk(min(3, len(p))).indices.tolist()
    return {
        "class": name,
        "probability": {"original": float(p[c]), **again},
        "interpreter_probability": float(g[c]),
        "components": [{"component": k, "relevance": r} for k, r in components],
        "classifier": {classifier.classes[k]: float(p[k]) for k in best},
    }


def write_examples(
    explainer: Explainer,
    waveforms: NDArray[np.float32],
    rows: NDArray[np.int64],
    clips: Sequence[Clip],
    settings: ExplanationSettings,
    n: int,
    folder: Path,
    on_clip: Callable[[], None],
) -> None:
    """Explanations of at most `n` clips, spread over the classes; ``explanations.json`` lists
    them.

    Parameters
    ----------
    explainer : Explainer
    waveforms : float32 [M, S]
    rows : int64 [N]
    clips : sequence of Clip
    settings : l2i.config.Explanation
    n : int
    folder : Path
        Made, with one folder per clip.
    on_clip : callable
        Called after each clip.
    """
    import json

    if not n:
        return
    classes = explainer.classifier.classes
    listed = []
    for number, index in enumerate(spread(clips, n), start=1):
        clip = clips[index]
        x = torch.from_numpy(np.array(waveforms[rows[index]]))
        word = re.sub(r"[^\w.-]+", "_", Path(clip.id).stem)[-60:]
        place = f"{number:02d}-{word}"
        labels = [classes[c] for c in clip.labels]
        title = f"{clip.id} ({', '.join(labels) or 'no class'})"
        found = write_explanation(explainer, x, folder / place, settings, title=title)
        listed.append({"clip": clip.id, "labels": labels, "folder": place, **found})
        on_clip()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(listed, indent=2, ensure_ascii=False)
    atomic_write_text(folder / "explanations.json", text + "\n")
