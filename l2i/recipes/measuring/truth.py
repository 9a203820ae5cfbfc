"""Explanations against the truth: scenes whose parts are known, and what a mask keeps of each.

Over 300 lines: one judgement, in steps that have no use of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.dsp.spectrogram import linear_gain, magnitude, peak_normalise, phase, stft, synthesise
from l2i.explanation import MethodSettings, Subject, make_method
from l2i.metrics.localisation import frame_auc, frame_f1, pointing, time_iou
from l2i.metrics.own import own_metrics
from l2i.metrics.separation import energy_share, level_db, sar, si_sdr, sir
from l2i.models.heard import Heard, hear
from l2i.recipes.measuring.judging import judge_masks, mask_scores, mean_scores
from l2i.recipes.measuring.measure import Evaluation, finish_evaluation
from l2i.recipes.measuring.probed import finished
from l2i.recipes.measuring.probes import Case, Probe, columns_of
from l2i.recipes.measuring.reexplained import Absent
from l2i.recipes.opening.material import Material
from l2i.run.progress import Progress
from l2i.types import Clip, Task

_BATCH = 8

_MEDIANS = (
    *("si_sdr", "si_sdr_improvement", "sir", "sar"),
    *("energy_share", "class_left", "other_left"),
)
TRUTH_SCORES = (*_MEDIANS, "time_iou", "frame_f1", "frame_auc", "pointing")
"""Columns of `judge_scenes` whose medians over pairs are scores of the same name; of the last four,
which are shares, the means."""


@dataclass(frozen=True)
class Part:
    """One sound of a scene, and the classes that it carries (none: background)."""

    sound: NDArray[np.float32]
    classes: frozenset[int]


@dataclass(frozen=True)
class Scene:
    """What is heard is the sum of its parts [S].

    Attributes
    ----------
    id : str
    key : int
        Not negative; seeds what is random of this scene.
    parts : tuple of Part
    """

    id: str
    key: int
    parts: tuple[Part, ...]

    def sound(self) -> NDArray[np.float32]:
        """The sum of the parts, [S]."""
        return np.sum([p.sound for p in self.parts], axis=0, dtype=np.float32)

    def split(self, c: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """What carries class `c`, and the rest: [S], [S]; None where nothing carries it."""
        right = [p.sound for p in self.parts if c in p.classes]
        if not right:
            return None
        other = [p.sound for p in self.parts if c not in p.classes]
        zero = np.zeros_like(right[0])
        return np.sum(right, axis=0, dtype=np.float32), np.sum([zero, *other], axis=0)


def judge_scenes(
    subject: Subject,
    method: str,
    settings: MethodSettings,
    scenes: Iterable[Scene],
    wanted: Callable[[Scene, NDArray[np.bool_]], Sequence[int]],
    *,
    probes: Sequence[Probe] = (),
    on_scene: Callable[[int], None] = lambda n: None,
    on_seconds: Callable[[float], None] = lambda seconds: None,
    on_logits: Callable[[NDArray[np.float32]], None] = lambda logits: None,
    keep_sounds: Callable[[Scene, int, Mapping[str, Tensor]], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """Explain classes of scenes, and hold the explanations against the parts.

    A mask multiplies each bin of the spectrogram by a real gain, expm1(M S) / expm1(S), or by M
    where it is linear; the same gain on the parts' spectrograms gives what the explanation keeps of
    each, exactly.

    Parameters
    ----------
    subject : Subject
    method : str
        A name in `l2i.explanation.METHODS`.
    settings : MethodSettings
    scenes : iterable of Scene
    wanted : callable
        Scene and the classifier's decisions [C] -> the classes to explain.
    probes : sequence of Probe
        More columns.
    on_scene : callable
        Called with the number of scenes done since the last call.
    on_seconds : callable
        Called with the time that hearing and explaining took, without what judges it.
    on_logits : callable
        Called with the classifier's logits [b, C] of each batch.
    keep_sounds : callable, optional
        Given scene, class and sounds [S] by name: ``mixture``, ``explanation``, ``class_part``,
        ``other_part``.

    Returns
    -------
    dict of str to array [P]
        One row per scene and class explained: ``scene`` (its id), ``class``, ``present``
        (whether a part carries the class), the columns of `judge_masks`, of probes, and of
        `TRUTH_SCORES`; the latter NaN where no part carries the class.
    """
    classifier = subject.classifier
    explain = make_method(method, subject, settings)
    own = own_metrics(settings.metrics)
    rows: dict[str, list[Any]] = {}
    stream = iter(scenes)
    while batch := list(islice(stream, _BATCH)):
        sounds = torch.from_numpy(np.stack([scene.sound() for scene in batch]))
        begin = time.perf_counter()
        with torch.inference_mode():
            heard = hear(classifier, sounds, subject.domain, explain.layers)
            decisions = classifier.decisions(heard.logits).cpu().numpy()
        on_seconds(time.perf_counter() - begin)
        on_logits(heard.logits.cpu().numpy())
        pairs = [(i, c) for i, scene in enumerate(batch) for c in wanted(scene, decisions[i])]
        for start in range(0, len(pairs), _BATCH):
            some = pairs[start : start + _BATCH]
            at = [i for i, _ in some]
            classes = torch.tensor([c for _, c in some], device=heard.size.device)
            part = heard.take(at)
            keys = [batch[i].key for i in at]
            split = [batch[i].split(c) for i, c in some]
            sounds_of = _scaled(split, part)
            # A clip whose parts nobody knows is one part.
            if all(len(batch[i].parts) > 1 for i in at):
                part = replace(part, parts=sounds_of)
            begin = time.perf_counter()
            mask = explain(part, classes, keys)
            on_seconds(time.perf_counter() - begin)
            ids = tuple(batch[i].id for i in at)
            case = Case(part, classes, mask, explain, tuple(keys), ids)
            with torch.inference_mode():
                columns: dict[str, Any] = judge_masks(
                    part, classes, mask, linear=explain.linear, metrics=own
                )
                known = np.array([s is not None for s in split])
                truth, kept = _against(part, mask, explain.linear, sounds_of, known)
            columns |= truth | columns_of(probes, case)
            columns["scene"] = list(ids)
            columns["class"] = [classifier.classes[c] for _, c in some]
            columns["present"] = known
            for name, values in columns.items():
                rows.setdefault(name, []).extend(list(values))
            if keep_sounds is not None:
                for n, (i, c) in enumerate(some):
                    if split[n] is not None:
                        keep_sounds(batch[i], c, {name: x[n] for name, x in kept.items()})
        on_scene(len(batch))
    return {name: np.array(values) for name, values in rows.items()}


def _scaled(
    split: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]] | None], heard: Heard
) -> tuple[Tensor, Tensor]:
    """What carries the class of each clip, and the rest [P, S], of the clips scaled to their peak;
    where nothing carries it, all is the rest."""
    sounds = heard.waveform
    right = np.zeros(sounds.shape, np.float32)
    other = sounds.cpu().numpy().copy()
    for row, parts in enumerate(split):
        if parts is not None:
            right[row], other[row] = parts
    peak = sounds.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(sounds.dtype).tiny)
    a, b = (torch.from_numpy(x).to(sounds.device) / peak for x in (right, other))
    return a, b


def _against(
    heard: Heard, mask: Tensor, linear: bool, parts: tuple[Tensor, Tensor], known: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[Any]], dict[str, Tensor]]:
    """The columns of `TRUTH_SCORES`, and the sounds they come from; `known` [P] says of which
    clips a part carries the class."""
    n_samples, (right, other) = heard.n_samples, parts
    mixture = peak_normalise(heard.waveform)
    size = heard.size
    gain = linear_gain(mask, size, linear=linear)

    def kept_of(part: Tensor) -> tuple[Tensor, Tensor]:
        x = stft(part, heard.domain)
        own = magnitude(x)
        return synthesise(phase(x, own), gain * own, heard.domain, n_samples), own

    (of_right, frames), (of_other, _) = kept_of(right), kept_of(other)
    explanation = of_right + of_other
    columns = {
        "si_sdr": si_sdr(explanation, right),
        "si_sdr_improvement": si_sdr(explanation, right) - si_sdr(mixture, right),
        "sir": sir(of_right, of_other, right),
        "sar": sar(of_right, right),
        "energy_share": energy_share(of_right, of_other),
        "class_left": level_db(of_right, right),
        "other_left": level_db(of_other, other),
        "time_iou": time_iou(gain * size, frames),
        "frame_f1": frame_f1(gain * size, frames),
        "frame_auc": frame_auc(gain * size, frames),
        "pointing": pointing(gain * size, frames),
    }
    truth = {
        name: np.where(known, values.double().cpu().numpy(), np.nan)
        for name, values in columns.items()
    }
    kept = {
        "mixture": mixture,
        "explanation": explanation,
        "class_part": right,
        "other_part": other,
    }
    return truth, kept


def truth_scores(
    rows: Mapping[str, NDArray[Any]],
    seed: int,
    metrics: Sequence[str] = (),
    groups: NDArray[Any] | None = None,
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Medians of `TRUTH_SCORES`, means of the columns of `judge_masks`; with 95 % intervals, over
    pairs or, where `groups` says of what recording each pair is, over recordings.

    What is not defined (NaN) is left out; minus infinity, the SI-SDR of an explanation that has
    nothing of the right part, is not. ``present`` is the share of pairs with a right part.
    """
    scores, intervals = mean_scores(rows, TRUTH_SCORES, seed, groups, medians=_MEDIANS)
    means = mean_scores(rows, mask_scores(metrics), seed, groups)
    present = np.asarray(rows.get("present", np.zeros(0)), np.float64)
    scores["present"] = float(present.mean()) if len(present) else float("nan")
    return scores | means[0], intervals | means[1]


def clip_scenes(
    material: Material, clips: Sequence[Clip], classes: Sequence[str]
) -> Iterator[Scene]:
    """Each clip as a scene: of its parts where the data set knows them, else of one part.

    What a part carries is said by the classifier's `classes`, as far as it has the data set's.
    """
    names, carried = material.card.classes, material.carried(classes)
    for clip, row in zip(clips, material.rows(clips), strict=True):
        known = material.dataset.parts(clip)
        parts = tuple(
            Part(sound, carried([names.index(name)] if name in names else []))
            for name, sound in known.items()
        )
        whole = Part(np.asarray(material.waves.array[row]), carried(clip.labels))
        yield Scene(clip.id, int(row), parts or (whole,))


def predicted(scene: Scene, decisions: NDArray[np.bool_]) -> list[int]:
    """What the classifier says, for `judge_scenes`."""
    return [int(c) for c in decisions.nonzero()[0]]


def evaluate_method(
    subject: Subject,
    method: str,
    settings: MethodSettings,
    scenes: Sequence[Scene],
    labels: NDArray[np.bool_] | None,
    *,
    progress: Progress,
    probes: Sequence[Probe] = (),
    on_rows: Callable[[dict[str, NDArray[Any]]], None] = lambda rows: None,
) -> Evaluation:
    """The figures that any method has, of what the classifier says of some scenes.

    Parameters
    ----------
    subject : Subject
    method : str
        A name in `l2i.explanation.METHODS`.
    settings : MethodSettings
    scenes : sequence of Scene
    labels : bool [N, C] or None
    progress : Progress
    probes : sequence of Probe
        More figures; each scene counts as a recording of its own.
    on_rows : callable
        Called with what `judge_scenes` gave.
    """
    heard: list[NDArray[np.float32]] = []
    decided: list[NDArray[np.bool_]] = []

    def asked(scene: Scene, decisions: NDArray[np.bool_]) -> list[int]:
        decided.append(decisions)
        return predicted(scene, decisions)

    # Where one class is said, all others are absent, and nobody asks for them.
    if subject.classifier.task is Task.MULTI_LABEL:
        probes = [Absent(settings.seed), *probes]
    with progress.task(method, total=len(scenes), unit="clip") as bar:
        rows = judge_scenes(
            subject,
            method,
            settings,
            scenes,
            asked,
            probes=probes,
            on_scene=bar.advance,
            on_logits=heard.append,
        )
    on_rows(rows)
    rows, more = finished(rows, probes, rows.get("scene", np.zeros(0, str)))
    at = {scene.id: number for number, scene in enumerate(scenes)}
    classes = {name: c for c, name in enumerate(subject.classifier.classes)}
    dropped = (*TRUTH_SCORES, "present", "scene", "class")
    pairs = {k: v for k, v in rows.items() if k not in dropped}
    if "scene" in rows:
        pairs["clip"] = np.array([at[name] for name in rows["scene"]])
        pairs["class"] = np.array([classes[name] for name in rows["class"]])
    logits = np.concatenate(heard)
    return finish_evaluation(
        Evaluation({}, {}, logits, None, labels, np.stack(decided), subject.classifier.task, pairs),
        subject.classifier.classes,
        (*mask_scores(settings.metrics), *more),
        settings.seed,
    )
