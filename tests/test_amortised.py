"""Amortised Shapley: games whose values are known on paper, and a network that learns them.

The toy adds up what it hears of four tones: each tone's value is its own contribution, whatever
else sounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l2i
from l2i.dsp.spectrogram import magnitude, stft
from l2i.errors import CheckpointError, UsageError
from l2i.explanation import MethodSettings, Subject, make_method
from l2i.explanation.learnt import AmortisedShapley
from l2i.models.answers import Answers
from l2i.models.gated import Taken, take_apart
from l2i.models.heard import Heard, hear
from l2i.models.players import Players, coalitions, grouped, players_of
from l2i.run.progress import Progress
from l2i.training.parts import Context, Sounds
from l2i.training.shapley import (
    SHAPLEY_VALUES,
    ShapleyPart,
    ShapleySettings,
    _Played,
    coalition_loss,
)
from l2i.training.stage import Stage
from l2i.types import Features, Task
from tests.guests import load, sounds
from tests.toys import SAMPLES, SETTINGS, band_dictionary, tone

DOMAIN = SETTINGS.domain
TONES = (1, 3, 5, 7)
# What a class's log-odds have of each tone's loudness.
SAYS = torch.tensor([[0.30, -0.15, 0.0, 0.10], [-0.05, 0.25, 0.15, 0.0], [0.1, 0.1, -0.2, 0.2]])
W = band_dictionary()[:, list(TONES)]


class Tones(Answers):
    """A classifier that hears levels, and several classes at once; no tone changes what another
    says. Its hidden map is the magnitude of each tone [B, 4, 1, T]."""

    task, classes = Task.MULTI_LABEL, ("a", "b", "c")
    sample_rate, device, dtype = SETTINGS.sample_rate, torch.device("cpu"), torch.float32
    differentiable = True
    thresholds = torch.full((3,), 0.5)

    def chosen_layers(self) -> tuple[str, ...]:
        return ("loudness",)

    def features(self, waveform: Tensor, layers: Sequence[str] = ()) -> Features:
        bands = magnitude(stft(waveform, DOMAIN)).unflatten(1, (11, 3)).sum(2)
        map_ = bands[:, list(TONES)].unsqueeze(2)
        return Features(self.logits_above(map_)[0], (map_,) if layers else ())

    def logits(self, waveform: Tensor) -> Tensor:
        return self.features(waveform).logits

    def logits_above(self, map_: Tensor, *names: str) -> tuple[Tensor, list[Tensor]]:
        return map_.mean(dim=(2, 3)) @ SAYS.T, []


@pytest.fixture
def clf() -> Any:
    """The toy."""
    return Tones()


def _clips(n: int, seed: int = 0) -> np.ndarray:
    """Sums of the tones at random levels [n, S], of the same power, faded in and out."""
    draw = np.random.default_rng(seed)
    levels = draw.uniform(0, 1, (n, 4))
    levels /= np.linalg.norm(levels, axis=1, keepdims=True)
    fade = np.minimum(1, np.hanning(SAMPLES) * 4)
    return (levels @ np.stack([tone(k).numpy() for k in TONES]) * fade).astype(np.float32)


def _context(clf: Any, n: int = 12) -> Context:
    rows = np.arange(n)
    clips = Sounds(_clips(n), rows[: n - 3], rows[n - 3 :])
    cpu = torch.device("cpu")
    return Context(
        clf, DOMAIN, clips, 0, cpu, torch.float32, Progress(quiet=True), {"dictionary": W}
    )


def _train(context: Context, folder: Path, **words: Any) -> Any:
    folder.mkdir(exist_ok=True)
    stage = Stage("shapley-values", folder)
    if not stage.result.exists():
        SHAPLEY_VALUES.fit(ShapleySettings(**words), context, stage)
    return SHAPLEY_VALUES.load(*stage.load(), stage.result, context)


def _on_paper(heard: Heard, classes: Tensor) -> Tensor:
    """Each tone's own contribution [B, 4]."""
    return SAYS[classes] * heard.features.maps[-1].mean(dim=(2, 3))


def test_coalitions_of_the_kernel() -> None:
    """With four players the sizes 1, 2, 3 have 4/11, 3/11, 4/11 of the draws; then complements."""
    sets = coalitions(4, 1500, np.random.default_rng(0))
    assert np.array_equal(sets[:1500] + sets[1500:], np.ones((1500, 4)))
    size, count = np.unique(sets[:1500].sum(1), return_counts=True)
    assert size.tolist() == [1, 2, 3]
    np.testing.assert_allclose(count / 1500, [4 / 11, 3 / 11, 4 / 11], atol=0.05)
    np.testing.assert_allclose(sets[:1500].mean(0), 0.5, atol=0.05)


def test_what_goes_together_is_one_object() -> None:
    """Components of one spectrum and one course are an object; one of another course is not, nor
    one of another spectrum; what is silent goes with none of them."""
    w = torch.eye(3)[:, [0, 0, 0, 1, 2]]
    early, late = torch.tensor([1.0, 2.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 3.0])
    h = torch.stack([early, 3 * early, late, early, torch.zeros(4)])
    groups = grouped(w, h, 4).tolist()
    assert groups[0] == groups[1] and len(set(groups)) == 4
    assert grouped(w, h, 9).tolist() == [0, 1, 2, 3, 4]


def test_players_by_hand() -> None:
    """Two objects in two halves: gates open where a chosen player is; a missing share goes to
    those who sound."""
    players = Players(torch.tensor([[0, 1, 1]]), torch.tensor([[True, True, False, True]]), 2)
    gates = players.gates(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), 4)
    assert gates.tolist() == [[[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]]
    parts = torch.tensor([[[1.0, 2.0], [5.0, 3.0], [7.0, 4.0]]])
    assert players.values(parts, torch.tensor([16.0])).tolist() == [[3, 4, 0, 9]]


def test_who_sounds() -> None:
    """A component that is silent in the second half plays in the first alone."""
    h = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]])
    w = torch.eye(2)
    players = players_of(Taken(w, h, w @ h), 2, 2)
    assert players.there.tolist() == [[True, False, True, True]]


def test_the_loss_on_paper(clf: Any, tmp_path: Path) -> None:
    """The values on paper cost nothing; one that is 1 too much, and another 1 too little, cost 1
    for each coalition that has one of both and not the other."""
    heard = hear(clf, torch.from_numpy(_clips(3, 5)), DOMAIN, ["loudness"])
    players = players_of(take_apart(heard, W), 4, 1)
    players = replace(players, there=torch.ones_like(players.there))
    sets = torch.from_numpy(coalitions(4, 8, np.random.default_rng(0))).expand(3, -1, -1)
    classes = torch.tensor([0, 1, 2])
    paper = _on_paper(heard, classes)
    logits = torch.einsum("bnj,cj,bj->bnc", sets, SAYS, heard.features.maps[-1].mean((2, 3)))
    silence = torch.zeros(1, 3)

    class Says(nn.Module):
        maps = ("loudness",)

        def forward(self, maps: object, gradient: object) -> Tensor:
            return (paper + self.wrong).unsqueeze(2)

    network = Says()
    for wrong in (torch.zeros(4), torch.tensor([1.0, -1.0, 0.0, 0.0])):
        network.wrong = wrong
        loss = coalition_loss(network, heard, classes, silence, _Played(players, sets, logits))
        split = (sets[0, :, 0] != sets[0, :, 1]).float().mean()
        assert float(loss) == pytest.approx(float(split * wrong.any()), abs=1e-3)


def test_values_are_learnt(clf: Any, tmp_path: Path) -> None:
    """For clips that it has not heard, and any class: each tone's own contribution, to a fifth of
    what they are, where even shares are as far away as they are large; and they add up exactly."""
    words = {"epochs": 20, "learning_rate": 3e-3, "batch_size": 8, "width": 64}
    words |= {"mixed": 0.0, "views": 1, "coalitions": 6}
    network = _train(_context(clf, 60), tmp_path / "s", **words)
    subject = Subject(clf, DOMAIN, {"dictionary": W, "shapley-values": network})
    way: Any = make_method("amortised-shapley", subject, MethodSettings())
    heard = hear(clf, torch.from_numpy(_clips(30, 1)), DOMAIN, way.layers)
    for c in range(3):
        classes = torch.full((30,), c)
        values = way.relevances_of(heard, classes, range(30))
        paper = _on_paper(heard, classes)
        total = way.worth(heard.logits, classes)
        size, even = paper.abs().mean(), total.unsqueeze(1) / 4
        assert float((values - paper).abs().mean()) < 0.2 * float(size)
        assert float((even - paper).abs().mean()) > 0.9 * float(size)
        torch.testing.assert_close(values.sum(1), total, atol=1e-4, rtol=0)


def test_the_least_set_is_kept(clf: Any) -> None:
    """With values 6, 1, 3 and -2 the first and third are four fifths of what is positive."""

    class Says(nn.Module):
        maps, objects, times = ("loudness",), 4, 1

        def forward(self, maps: object, gradient: object) -> Tensor:
            return torch.tensor([[[6.0], [1.0], [3.0], [-2.0]]])

    subject = Subject(clf, DOMAIN, {"dictionary": W, "shapley-values": Says()})
    way = AmortisedShapley(subject, MethodSettings())
    x = torch.stack([tone(k, 0.2) for k in TONES]).sum(0, keepdim=True)
    heard = hear(clf, x, DOMAIN, ["loudness"])
    # What the network says is all there is.
    way.worth = lambda logits, classes: logits.sum(1).sign() * 8.0  # type: ignore[method-assign]
    assert way.relevances_of(heard, torch.tensor([0]), [0]).tolist() == [[6, 1, 3, -2]]
    mask = way(heard, torch.tensor([0]), [0])
    middle = mask[0, :, mask.shape[2] // 2]
    kept = [float(middle[3 * k + 1]) for k in TONES]
    assert kept == pytest.approx([1, 0, 1, 0], abs=1e-4)


@pytest.mark.parametrize("where", ["coalitions", "epochs"])
def test_killed_and_resumed(
    where: str, clf: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights; what was heard is not heard again; at the end the stage keeps the result
    alone."""
    words = {"epochs": 3, "batch_size": 3, "coalitions": 3, "width": 8, "views": 2, "times": 2}
    context = _context(clf)
    whole = _train(context, tmp_path / "whole", **words).state_dict()
    calls, ended = [0], [True]
    target = (ShapleyPart, "_hear") if where == "coalitions" else (Stage, "save")
    own = getattr(*target)

    def some(self: Any, *args: Any, **named: Any) -> None:
        if calls[0] == 2 and ended.pop():
            raise KeyboardInterrupt
        calls[0] += 1
        own(self, *args, **named)

    ended[:] = [False, True]
    with monkeypatch.context() as patch:
        patch.setattr(*target, some)
        with pytest.raises(KeyboardInterrupt):
            _train(context, tmp_path / "cut", **words)
        begun = len(list((tmp_path / "cut" / "coalitions").iterdir()))
        assert begun == (2 if where == "coalitions" else 7)
        ended[:] = [False] * 9
        trained = _train(context, tmp_path / "cut", **words).state_dict()
    assert calls[0] == (7 if where == "coalitions" else 3)
    assert whole.keys() == trained.keys()
    assert all(torch.equal(trained[k], v) for k, v in whole.items())
    assert [p.name for p in (tmp_path / "cut").iterdir()] == ["shapley-values.safetensors"]


def test_what_cannot_be_learnt(clf: Any, tmp_path: Path) -> None:
    """One sentence each: a black box, one player, another dictionary."""
    box = l2i.wrap(lambda x: clf.logits(torch.from_numpy(x)).numpy(), 6400, clf.classes)
    with pytest.raises(UsageError, match="'shapley-values' needs: take method 'shapley'"):
        _train(replace(_context(clf), classifier=box), tmp_path / "box")
    context = replace(_context(clf), parts={"dictionary": W[:, :1]})
    with pytest.raises(UsageError, match=r"set dictionary\.components to 2"):
        _train(context, tmp_path / "one")
    words = {"epochs": 1, "coalitions": 1, "width": 8, "views": 1}
    _train(_context(clf), tmp_path / "s", **words)
    with pytest.raises(CheckpointError, match="for 4 components, the dictionary has 1"):
        _train(context, tmp_path / "s")


def test_by_fit() -> None:
    """With a dictionary of its own; masks are of the class that is asked for."""
    few = {"epochs": 2, "coalitions": 2, "views": 1, "width": 8, "objects": 3}
    fitted = l2i.fit(
        load(), sounds(12), "amortised-shapley", **few, components=6, n_fft=256, hop_length=128
    )
    assert len(fitted.history["shapley-values"]) == 2
    assert fitted.subject.parts["shapley-values"].objects == 3
