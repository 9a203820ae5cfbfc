"""Methods that learn, in Python: no store, no run, no label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import l2i
from l2i.errors import CheckpointError, DataError, UsageError
from l2i.explained import Explained
from l2i.explanation import fitting_methods
from l2i.metrics import METRICS
from l2i.models.wrapped import Wrapped
from l2i.trained import Fitted
from tests.guests import RATE, SAMPLES, load, sounds

FEW = {"components": 6, "epochs": 3, "iterations": 5, "n_fft": 256, "hop_length": 128}


@pytest.fixture(scope="module")
def clf() -> Wrapped:
    """The classifier."""
    loaded = load()
    assert isinstance(loaded, Wrapped)
    return loaded


@pytest.fixture(scope="module")
def fitted(clf: Wrapped) -> Fitted:
    """L2I, a few epochs."""
    return l2i.fit(clf, sounds(), "l2i", **FEW)


def test_fit_leaves_all_as_it_was(clf: Wrapped, tmp_path: Path, monkeypatch) -> None:
    """Nothing is written, torch's generator is where it was, the classifier is the same; and the
    same seed learns the same."""
    monkeypatch.chdir(tmp_path)
    before = {k: v.clone() for k, v in clf.model.state_dict().items()}  # type: ignore[union-attr]
    state = torch.get_rng_state()
    first, again = (l2i.fit(clf, sounds(), "l2i", **FEW) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in clf.model.state_dict().items())  # type: ignore[union-attr]
    assert list(tmp_path.iterdir()) == []
    assert first.history == again.history
    assert len(first.history["interpreter"]) == 3 and len(first.history["dictionary"]) > 1
    other = l2i.fit(clf, sounds(), "l2i", **FEW, seed=1)
    assert other.history != first.history


def test_what_is_explained(fitted: Fitted, clf: Wrapped) -> None:
    """Sounds at the clip's level, a mask in [0, 1], the classifier's own probabilities."""
    x = sounds()[1]
    e = fitted.explain(x)
    assert isinstance(e, Explained) and e.target == "high" and e.method == "l2i"
    assert e.input.shape == e.audio.shape == e.removal.shape == x.shape
    np.testing.assert_array_equal(e.input, x)
    assert e.mask.min() >= 0 and e.mask.max() <= 1 + 1e-6
    p = torch.from_numpy(np.stack([x, e.audio, e.removal]))
    probabilities = clf.probabilities(clf.logits(p))[:, 1].tolist()
    np.testing.assert_allclose(e.probabilities["high"], probabilities, atol=1e-3)
    assert all(0 < c.share <= 1 and -1 <= c.relevance <= 1 for c in e.components)
    # Half as loud: another clip for this classifier, and half as loud an explanation of its mask.
    assert np.abs(e.audio).max() <= np.abs(x).max() * 1.05


def test_several_sounds_and_targets(fitted: Fitted, tmp_path: Path) -> None:
    """Files or arrays, a class for each; a short sound is explained as it is."""
    x = sounds(3)
    explained = fitted.explain(x, ["low", None, "hiss"])
    assert [e.target for e in explained] == ["low", "high", "hiss"]
    soundfile.write(tmp_path / "short.wav", x[0][:2000], RATE)
    e = fitted.explain(tmp_path / "short.wav", "low")
    assert len(e.input) == len(e.audio) == 2000
    e.save(tmp_path / "out")
    assert (tmp_path / "out" / "index.html").is_file()


def test_saved_and_loaded(fitted: Fitted, clf: Wrapped, tmp_path: Path) -> None:
    """The same explanation, by one file; for another classifier it is refused."""
    path = fitted.save(tmp_path / "x.l2i")
    again = l2i.load(path, clf)
    x = sounds()[2]
    np.testing.assert_array_equal(again.explain(x).audio, fitted.explain(x).audio)
    assert again.history == fitted.history and again.settings == fitted.settings
    other = l2i.wrap(clf.model, RATE, ["a", "b", "c"])
    with pytest.raises(CheckpointError, match="other names"):
        l2i.load(path, other)
    with pytest.raises(CheckpointError, match="There is no explainer checkpoint"):
        l2i.load(tmp_path / "none.l2i", clf)
    (tmp_path / "broken.l2i").write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        l2i.load(tmp_path / "broken.l2i", clf)


def test_another_classifier_with_the_same_names(
    fitted: Fitted, clf: Wrapped, tmp_path: Path
) -> None:
    """Other weights, or another task: the file is not for it."""
    path = fitted.save(tmp_path / "low.l2i")
    other = load()
    assert isinstance(other, Wrapped) and isinstance(other.model, torch.nn.Sequential)
    assert l2i.load(path, other).method == "l2i"
    with torch.no_grad():
        other.model[-1].weight.copy_(other.model[-1].weight.flip(0))
    with pytest.raises(CheckpointError, match="the same classes and other weights"):
        l2i.load(path, other)
    several = l2i.wrap(clf.model, RATE, clf.classes, task="multi-label")
    with pytest.raises(CheckpointError, match="a single-label classifier; this one is multi"):
        l2i.load(path, several)


def test_a_folder_of_files_without_labels(clf: Wrapped, tmp_path: Path) -> None:
    """At any depth, of any length and rate; clips get the length of the longest."""
    x = sounds(6)
    for i, clip in enumerate(x):
        place = tmp_path / ("deep/er" if i % 2 else ".")
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{i}.wav", clip[: SAMPLES - 500 * i], RATE)
    by_folder = l2i.fit(clf, tmp_path, "l2i", **FEW)
    files = sorted(tmp_path.rglob("*.wav"), key=lambda p: (len(p.parts), p.name))
    by_list = l2i.fit(clf, files, "l2i", **FEW)
    assert by_folder.history == by_list.history


def test_figures(fitted: Fitted) -> None:
    """A row per figure, with its interval and direction; by hand, one of them."""
    x = sounds(9)[3:]
    frame = l2i.evaluate(fitted, x)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["figure", "title", "value", "low", "high", "unit", "better"]
    row = frame.set_index("figure").loc["ff_mean"]
    falls = []
    for clip in x:
        e = fitted.explain(clip)
        p = e.probabilities[e.target]
        falls.append(p.input - p.removal)
    assert row["value"] == pytest.approx(np.mean(falls), abs=2e-3)
    assert row["low"] <= row["value"] <= row["high"] and row["better"] == "higher"
    assert "accuracy" not in set(frame["figure"]), "nobody knows the labels"


def test_methods_on_one_table(clf: Wrapped, fitted: Fitted) -> None:
    """Those that learn learn first, from other clips than all are judged on."""
    frame = l2i.benchmark(clf, sounds(), ["l2i", "saliency", "full"], **FEW)
    assert list(frame.index) == ["l2i", "saliency", "full"]
    assert frame.loc["full", "average_drop"] == pytest.approx(0, abs=0.1)
    assert (frame["seconds_per_clip"] > 0).all()
    mine = l2i.benchmark(fitted, sounds(3), ["l2i", "full"])
    assert mine.loc["full", "ff_mean"] > 0.1


def test_all_figures_in_python(clf: Wrapped, fitted: Fitted) -> None:
    """The columns of the command's table. A mask of ones is known on paper: a quarter of the energy
    is the clip at half its amplitude, which leaves the other half; it is the same for any class,
    noise and weights; and an evaluator that is the classifier itself agrees with it."""
    x = sounds(6)[3:]
    few = {"n_fft": 256, "hop_length": 128}
    frame = l2i.benchmark(clf, x, ["full"], all=True, evaluator=clf, repeats=2, **few)
    full = frame.loc["full"]
    p = [clf.probabilities(clf.logits(torch.from_numpy(scale * x))).numpy() for scale in (1, 0.5)]
    falls = [a[c] - b[c] for a, b, c in zip(*p, p[0].argmax(1), strict=True)]
    assert full["ff_at_25"] == pytest.approx(np.mean(falls), abs=1e-3) and np.mean(falls) > 0.01
    assert full["randomised"] == full["stability_10"] == 1.0
    assert full[["contrast_next", "max_sensitivity"]].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert full["agreed"] == 1.0 and full["transfer"] == pytest.approx(1.0, abs=1e-3)
    # Those of the command, but what only the built-in classifier has.
    more = {n for n in METRICS if n.startswith(("ff_at", "fid_in_at", "stability", "randomised"))}
    more -= {n for n in METRICS if n.startswith("randomised_gates")}
    more |= {"insertion", "deletion", "infidelity", "encoded", "other_ff", "absent_closed"}
    assert more <= set(frame.columns) <= {*METRICS, "seconds_per_clip"}
    assert "insertion" not in l2i.benchmark(clf, x, ["full"], **few).columns
    for one in (fitted, l2i.fit(clf, [], "full", **few)):
        own = l2i.evaluate(one, x, all=True, repeats=1).set_index("figure")["value"]
        assert more - {"other_ff"} <= set(own.index)
        plain = l2i.evaluate(one, x).set_index("figure")["value"]
        pd.testing.assert_series_equal(own[plain.index], plain)
    assert own["ff_at_25"] == pytest.approx(full["ff_at_25"])


def test_wrong_words_of_all_figures(clf: Wrapped) -> None:
    """One sentence each."""
    with pytest.raises(UsageError, match="repeats = 0 must be 1 or more"):
        l2i.benchmark(clf, sounds(1), ["full"], all=True, repeats=0)
    with pytest.raises(UsageError, match="no class in common"):
        other = l2i.wrap(clf.model, RATE, ["a", "b", "c"])
        l2i.benchmark(clf, sounds(1), ["full"], evaluator=other)


def test_a_black_box_is_judged_by_what_it_has(clf: Wrapped) -> None:
    """By default those methods alone that need neither gradients nor hidden layers."""

    def hear(x: np.ndarray) -> np.ndarray:
        logits: np.ndarray = clf.logits(torch.from_numpy(x)).numpy()
        return logits

    frame = l2i.benchmark(l2i.wrap(hear, RATE), sounds(1))
    assert {"shapley", "full"} <= set(frame.index)
    assert not {"l2i", "random", "gates", "gradcam", "saliency"} & set(frame.index)
    # What is learnt counts, where it is said what is there; and layers that are named.
    assert "l2i" in fitting_methods(clf) and "l2i" not in fitting_methods(clf, ())
    assert "l2i" in fitting_methods(clf, ("dictionary", "interpreter"))
    box = l2i.wrap(hear, RATE)
    assert "l2i" in fitting_methods(box, layers_named=True)
    assert not {"gates", "gated-l2i"} & set(fitting_methods(box, layers_named=True))
    # What has learnt nothing has nothing for L2I.
    assert "l2i" not in l2i.benchmark(l2i.fit(clf, [], "full"), sounds(1)).index
    (one,) = l2i.benchmark(clf, sounds(2), "full").index
    assert one == "full"


def test_settings_of_a_benchmark(clf: Wrapped, fitted: Fitted) -> None:
    """None is passed by; and too few sounds are counted as they were given."""
    fine, coarse = (
        l2i.benchmark(clf, sounds(1), ["full"], n_fft=n, hop_length=n // 2) for n in (256, 1024)
    )
    assert fine.complexity.iloc[0] != coarse.complexity.iloc[0]
    with pytest.raises(UsageError, match="has no setting 'epoch'"):
        l2i.benchmark(clf, sounds(1), ["full"], epoch=3)
    with pytest.raises(UsageError, match="fitted already takes no setting 'epochs'"):
        l2i.benchmark(fitted, sounds(1), ["full"], epochs=3)
    with pytest.raises(DataError, match="There are 4 sounds, of which 1 is to judge by"):
        l2i.benchmark(clf, sounds(4), ["l2i"], **FEW)


def test_a_method_that_learns_nothing_is_fitted_at_once(clf: Wrapped) -> None:
    """No sound is needed."""
    x = l2i.fit(clf, [], "saliency")
    assert x.history == {} and x.explain(sounds(1)[0]).method == "saliency"


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"method": "l2j"}, "There is no explanation method 'l2j'; did you mean 'l2i'"),
        ({"componets": 3}, "has no setting 'componets'; did you mean 'components'"),
        ({"epochs": -1}, "epochs = -1"),
        ({"layers": ["conv"]}, "conv"),
        ({"method": "os:path"}, "os:path is no explanation method"),
        ({"duration_s": 0}, "duration_s 0 must be above 0"),
        ({"sample_rate": 0}, "sample_rate 0 must be above 0"),
        ({"sample_rate": "8000"}, "sample_rate '8000' must be above 0 Hz, and a finite number"),
        ({"validation_share": 1.5}, "validation_share = 1.5"),
        ({"seed": -1}, "seed = -1"),
        ({"n_fft": 256, "hop_length": 200}, "leaves gaps: .* at most 128"),
        ({"n_fft": 256}, "hop_length 512 leaves gaps"),
        ({"n_fft": 0}, "n_fft = 0"),
        ({"n_fft": "wide"}, "n_fft = 'wide'"),
        ({"threshold": 2}, "threshold = 2"),
        ({"max_components": -1}, "max_components = -1"),
    ],
)
def test_wrong_words(clf: Wrapped, how: dict, sentence: str) -> None:
    """One sentence each."""
    with pytest.raises(UsageError, match=sentence):
        l2i.fit(
            clf,
            sounds(4),
            **{"method": "l2i", "iterations": 2, "components": 4, "epochs": 1, **how},
        )


def test_what_is_no_classifier_and_no_sounds(clf: Wrapped, fitted: Fitted, tmp_path: Path) -> None:
    """A module that is not wrapped, by any way in; a number for sounds."""
    path = fitted.save(tmp_path / "x.l2i")
    ways: list[Callable[[Any], object]] = [
        lambda model: l2i.explain(model, sounds(1)[0]),
        lambda model: l2i.fit(model, sounds(4), "l2i"),
        lambda model: l2i.load(path, model),
        lambda model: l2i.benchmark(model, sounds(4)),
    ]
    for way in ways:
        with pytest.raises(UsageError, match=r"what l2i\.wrap.* gives, not Sequential: wrap it"):
            way(clf.model)
    for wrong in (5, None):
        with pytest.raises(UsageError, match="Sounds are a folder, a list of files, or samples"):
            l2i.fit(clf, wrong, "l2i", **FEW)  # type: ignore[arg-type]


def test_too_fewsounds(clf: Wrapped) -> None:
    """Three are too few to learn from and to choose by."""
    with pytest.raises(DataError, match="There are 3 sounds, and at least 4"):
        l2i.fit(clf, sounds(3), "l2i", **FEW)


def test_a_black_box_has_no_layers() -> None:
    """The method that reads them says so, and what to take instead."""

    def hear(x: np.ndarray) -> np.ndarray:
        loud = np.sqrt((x**2).mean(1))
        return np.stack([loud, 0.1 - loud], 1)

    clf = l2i.wrap(hear, RATE)
    with pytest.raises(UsageError, match="shapley"):
        l2i.fit(clf, sounds(), "l2i", **FEW)
    with pytest.raises(UsageError, match="gradients"):
        l2i.benchmark(clf, sounds(4), ["saliency"])
    frame = l2i.benchmark(clf, sounds(4), ["occlusion", "shapley"])
    assert list(frame.index) == ["occlusion", "shapley"]


def test_wrong_kinds(clf: Wrapped, fitted: Fitted) -> None:
    """One sentence each: a classifier where what has learnt is meant, what counts nothing, and what
    names nothing."""
    with pytest.raises(UsageError, match=r"l2i\.fit.*, not Wrapped; l2i\.benchmark"):
        l2i.evaluate(clf, sounds(1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"repeats = 1\.5 .* whole number"):
        l2i.evaluate(fitted, sounds(1), all=True, repeats=1.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="explanation method None is to be a string"):
        l2i.fit(clf, sounds(4), None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"seed = \d+: .* less than"):
        l2i.fit(clf, sounds(4), "l2i", seed=2**63)


def test_lists_of_several_clips_are_all_learnt_from(clf: Wrapped) -> None:
    """None is dropped."""
    x = sounds(6)
    lists, whole = (l2i.fit(clf, s, "l2i", **FEW) for s in ([x[:2], x[2:]], x))
    assert lists.history == whole.history


def test_what_is_saved_lies_on_this_machine(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address makes no folder of its name, and a folder is no file."""
    monkeypatch.chdir(tmp_path)
    explained = fitted.explain(sounds()[0])
    for save in (fitted.save, explained.save):
        for place in ("s3://bucket/x", Path("s3://bucket/x"), "https://host/x"):
            with pytest.raises(UsageError, match="an address"):
                save(place)
    with pytest.raises(UsageError, match="a folder"):
        fitted.save(".")
    assert not list(tmp_path.iterdir())


def test_a_setting_goes_to_the_methods_that_have_it(clf: Wrapped) -> None:
    """One that only one of several has is no mistake; one that none has is."""
    few = {"epochs": 1, "components": 4, "iterations": 2, "piece_s": 0.2, "n_fft": 256}
    both = l2i.benchmark(clf, sounds(8), ["l2i", "vibi"], hop_length=128, **few)
    assert list(both.index) == ["l2i", "vibi"]
    for word, meant in (("piece", "piece_s"), ("componets", "components")):
        with pytest.raises(UsageError, match=f"has no setting '{word}'; did you mean '{meant}'"):
            l2i.benchmark(clf, sounds(8), ["l2i", "vibi"], **{word: 1})
