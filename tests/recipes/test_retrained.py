"""Figures that take further trainings, on the small run: one epoch is enough to see what is fed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from l2i.dsp.spectrogram import magnitude
from l2i.errors import UsageError
from l2i.explanation import MethodSettings
from l2i.recipes.opening.opened import Opened, open_finished
from l2i.recipes.training import retrained
from l2i.recipes.training.retrained import CONTROL, ROAR, DataRandomised, can_be_retrained
from l2i.run.progress import Progress
from tests.recipes.conftest import Finished
from tests.stores import Said
from tests.test_probes import _case, _weighted

QUIET = Progress(quiet=True)
TOLD = MethodSettings()
Say = Callable[..., Said]


@pytest.fixture
def opened(single: Finished) -> Opened:
    """The small run."""
    return open_finished("latest", QUIET)


def test_labels_are_shuffled_and_none_is_lost(opened: Opened) -> None:
    """The same clips, as many of each class, and other labels for most."""
    clips = opened.material.split.train
    shuffled = retrained._shuffled(clips, np.random.default_rng(0))
    assert [c.id for c in shuffled] == [c.id for c in clips]
    assert Counter(c.labels for c in shuffled) == Counter(c.labels for c in clips)
    same = sum(a.labels == b.labels for a, b in zip(clips, shuffled, strict=True))
    assert same < len(clips) / 2


def test_what_is_removed_is_the_top_of_the_energy(opened: Opened) -> None:
    """By the loudest bins that have half of the energy: what is left of a clip has the rest of the
    energy, and the less of its loudest bin, the more is removed."""
    material = opened.material
    clips = [material.split.test[2], material.split.train[5]]
    loudest: dict[str, list[float]] = {clip.id: [] for clip in clips}
    with retrained._without(opened, "loudest", TOLD, clips, QUIET) as treated:
        for share, changed in zip(ROAR, treated, strict=True):
            for clip in clips:
                rows = changed.rows([clip]), material.rows([clip])
                x, whole = (
                    torch.from_numpy(np.asarray(m.waves.array[row]))
                    for m, row in zip((changed, material), rows, strict=True)
                )
                left, size = (
                    magnitude(
                        torch.stft(y, 256, 64, window=torch.hann_window(256), return_complex=True)
                    )
                    for y in (x, whole)
                )
                ratio = float(left.square().sum() / size.square().sum())
                # Bins overlap: a sound that is made of some of them has less than they have, never
                # more.
                assert 1 - share - 0.15 < ratio < 1 - share + 0.01
                loudest[clip.id].append(float(left.max() / size.max()))
    for levels in loudest.values():
        assert levels == sorted(levels, reverse=True) and levels[-1] < levels[0] - 0.2
    assert not np.shares_memory(treated[0].waves.array, material.waves.array)


def test_what_is_only_softer_is_not_missed(single: Finished, say: Say) -> None:
    """A mask of ones takes the same share of every bin, and the classifier scales what it hears:
    trained on that, it has the same answers as on whole clips. The control has figures of its own,
    the cost is said before it begins."""
    words = ("benchmark", "latest", "--method", "full", "--method", "loudest", "--limit", "8")
    answer = say(*words, "--roar", "--epochs", "1", "--no-keep", "--json")
    document = json.loads(answer.out)["methods"]
    assert "ROAR: the classifier is trained 10 times, for 1 epochs on" in answer.err
    full, loudest = (document[name]["scores"] for name in ("full", "loudest"))
    places = [f"at_{round(100 * share)}" for share in ROAR]
    assert [full[f"roar_{p}"] for p in places] == [full["roar_at_0"]] * 3
    for p in places:
        assert 0 <= loudest[f"roar_{p}"] <= 1
        assert loudest[f"roar_control_{p}"] == full[f"roar_control_{p}"]
    low, high = document["loudest"]["intervals"]["roar_at_50"]
    assert low <= loudest["roar_at_50"] <= high
    plain = json.loads(say(*words, "--no-keep", "--json").out)["methods"]["full"]["scores"]
    assert plain == {k: v for k, v in full.items() if not k.startswith("roar")}


def test_the_table_has_the_control_once(single: Finished, say: Say) -> None:
    """A line for each method, one for what was removed at random; labels beside the figures."""
    answer = say(
        *("benchmark", "latest", "--method", CONTROL, "--limit", "2", "--roar", "--epochs", "1"),
        *("--shuffled-labels", "--no-keep", "-q"),
    )
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Accuracy of classifiers"))
    assert lines[at + 1].split() == ["method", "0", "%", "10", "%", "30", "%", "50", "%"]
    own, control = (line for line in lines[at + 2 :] if line.startswith((CONTROL, "at random")))
    assert own.split()[-3:] == control.split()[-3:]
    assert any("labels" in line for line in lines[:at])


def test_masks_for_labels_at_random(opened: Opened, single: Finished, say: Say) -> None:
    """A mask of ones is the same for any classifier, and is found out; L2I's parts are learnt again
    for the other classifier, and the run's own are as they were."""
    before = {k: v.clone() for k, v in opened.subject.parts["interpreter"].state_dict().items()}
    words = ("benchmark", "latest", "--method", "l2i", "--method", "full", "--limit", "6")
    answer = say(*words, "--shuffled-labels", "--epochs", "1", "--no-keep", "--json")
    document: Any = json.loads(answer.out)["methods"]
    assert "then dictionary, interpreter as in the run." in answer.err
    assert document["full"]["scores"]["data_randomised"] == 1.0
    assert document["l2i"]["scores"]["data_randomised"] < 1.0
    other = retrained.relearnt(opened, ["l2i"], 1, QUIET).parts["interpreter"].state_dict()
    own = opened.subject.parts["interpreter"].state_dict()
    assert all(torch.equal(v, before[k]) for k, v in own.items())
    assert not all(torch.equal(v, other[k]) for k, v in own.items())


def test_a_method_that_reads_what_was_learnt_is_known_by_it() -> None:
    """The toy's mask is the band that the weights give a class. For a classifier that learnt the
    next class's band it is that one: of eleven bands one against another, -1/10 on paper. For one
    that learnt the same, it is the same."""
    subject = _weighted()
    case = _case("tests.test_probes:_ByWeights", subject)
    for shift, wanted in ((0, 1.0), (1, -0.1)):
        other = _weighted()
        network: Any = other.classifier.network  # type: ignore[attr-defined]
        with torch.no_grad():
            network.weight.copy_(network.weight.roll(shift, 1))
        probe = DataRandomised("tests.test_probes:_ByWeights", other, TOLD)
        columns = probe(case)
        np.testing.assert_allclose(columns["data_randomised"], wanted, atol=1e-6)
        np.testing.assert_allclose(columns["data_randomised_control"], -0.1, atol=1e-6)


def test_a_method_that_learns_nothing_learns_no_part(opened: Opened) -> None:
    """The classifier alone is trained then."""
    other = retrained.relearnt(opened, ["saliency"], 1, QUIET)
    assert other.parts == {} and other.classifier is not opened.subject.classifier
    assert other.classifier.classes == opened.classes


def test_what_cannot_be_trained_again(opened: Opened, multi: Finished, say: Say) -> None:
    """A classifier of the user's own, and ROAR of clips with several classes: one sentence."""
    own = opened.config.classifier.model_copy(update={"spec": "mine.py:load"})
    config = opened.config.model_copy(update={"classifier": own})
    with pytest.raises(UsageError, match="was not trained by l2i"):
        can_be_retrained(replace(opened, config=config), roar=False)
    answer = say("benchmark", "latest", "--method", "full", "--roar", "--no-keep")
    assert answer.code == 2 and "may have several classes" in " ".join(answer.err.split())
