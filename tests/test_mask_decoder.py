"""L-MAC's decoder: for maps of any shape, and trained through classifiers of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import l2i
from l2i.dsp.spectrogram import Domain
from l2i.errors import CheckpointError, UsageError
from l2i.models.checkpoint import load_checkpoint, save_checkpoint
from l2i.models.heard import hear
from l2i.models.mask_decoder import MaskDecoder
from l2i.trained import Fitted
from l2i.training.mask_decoder import AUDIO_MASK_DECODER, MASK_DECODER, MaskDecoderSettings
from l2i.training.masks import _mixed
from tests.guests import RATE, load, sounds

FEW = {"epochs": 10, "learning_rate": 3e-3, "batch_size": 4, "n_fft": 256, "hop_length": 128}


@pytest.mark.parametrize(
    "shapes",
    [
        [(8, 1, 1)],
        [(128, 16, 53), (256, 8, 26), (512, 4, 13)],
        [(16, 1, 500), (8, 1, 124)],
        [(3, 200, 40), (24, 5, 300)],  # More rows than a mask's mel bands, more frames than it has.
    ],
)
def test_maps_of_any_shape(shapes: list[tuple[int, int, int]]) -> None:
    """A mask in [0, 1] of the frames asked for; every weight has a part in it; and the scale of a
    map says nothing."""
    torch.manual_seed(0)
    names = [str(i) for i in range(len(shapes))]
    network = MaskDecoder(
        maps=names, channels=[d for d, _, _ in shapes], n_bins=129, sample_rate=8000, width=16
    )
    maps = [torch.randn(2, *shape) for shape in shapes]
    mask = network(maps, 67)
    assert mask.shape == (2, 129, 67) and bool((mask > 0).all()) and bool((mask < 1).all())
    mask.sum().backward()
    assert all(bool(p.grad is not None and p.grad.any()) for p in network.parameters())
    torch.testing.assert_close(network([7 * m for m in maps], 67), mask)
    alone = network([m[1:] for m in maps], 67)
    torch.testing.assert_close(alone, mask[1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("part", [MASK_DECODER, AUDIO_MASK_DECODER])
def test_the_loss_on_paper(part, clf: l2i.Classifier) -> None:
    """A mask of ones costs the clip's own probability, that of silence, and all of the size."""
    heard = hear(clf, torch.from_numpy(sounds(2)), Domain(RATE, 256, 128), ["2=B D T"])
    s = MaskDecoderSettings(convinces=3, leaves=2, size=5)

    class Ones(torch.nn.Module):
        def forward(self, maps: object, frames: int) -> torch.Tensor:
            return torch.ones(2, 129, frames)

    own = heard.logits.argmax(1, keepdim=True)
    log_p, silent = (
        clf.probabilities(logits).log().gather(1, own).mean()
        for logits in (heard.logits, clf.logits(torch.zeros(2, RATE)))
    )
    loss = part.loss(Ones(), heard, s)
    assert float(loss) == pytest.approx(float(-3 * log_p + 2 * silent + 5), abs=1e-3)
    bounded = part.loss(Ones(), heard, s.model_copy(update={"leaves_by": "log-rest"}))
    rest = -(1 - silent.exp() + 1e-4).log()
    assert float(bounded) == pytest.approx(float(-3 * log_p + 2 * rest + 5), abs=1e-3)


@pytest.mark.parametrize("part", [MASK_DECODER, AUDIO_MASK_DECODER])
def test_the_loss_of_the_fine_tuning_on_paper(part, clf: l2i.Classifier) -> None:
    """A mask of one half is away from the loud bins by ln 2, whatever they are: that replaces the
    size where the masked mixture is like the part, and the classifier says its class."""
    heard = hear(clf, torch.from_numpy(sounds(2)), Domain(RATE, 256, 128), ["2=B D T"])
    s = MaskDecoderSettings(convinces=0, leaves=0, size=5, guidance=3)
    assert heard.level is not None

    class Half(torch.nn.Module):
        def forward(self, maps: object, frames: int) -> torch.Tensor:
            return torch.full((2, 129, frames), 0.5)

    x, own = heard.waveform / heard.level, heard.logits.argmax(1)
    guided, size = 3 * 0.693147, 5 * 0.5
    # The tone of the other clip is in other bins.
    for part_of, classes, wanted in (
        (x, own, guided),
        (x.flip(0), own, size),
        (x, (own + 1) % 3, size),
        (torch.stack([x[0], x[0]]), own, (guided + size) / 2),
    ):
        loss = part.guided(Half(), heard, part_of, classes, s)
        assert float(loss) == pytest.approx(wanted, abs=1e-4)


def test_the_fine_tuning_follows(clf: l2i.Classifier) -> None:
    """Epochs of its own after the others, one of which is kept; those before are as without it."""
    tuned = l2i.fit(clf, sounds(24), "lmac", **(FEW | {"epochs": 2, "fine_tuning": 3}))
    alone = l2i.fit(clf, sounds(24), "lmac", **(FEW | {"epochs": 2}))
    assert isinstance(tuned, Fitted) and isinstance(alone, Fitted)
    history = tuned.history["mask-decoder"]
    assert len(history) == 5 and history[:2] == alone.history["mask-decoder"]
    lowest = min(range(2, 5), key=lambda n: history[n]["validation_loss"])
    assert _epoch(tuned) == lowest + 1 and _epoch(alone) <= 2


def _epoch(fitted: Fitted) -> int:
    """Which epoch's weights were kept."""
    return int(fitted._files["mask-decoder"][1]["epoch"])


@pytest.fixture(scope="module")
def clf() -> l2i.Classifier:
    """A network on raw samples."""
    return load()


@pytest.fixture(scope="module", params=["lmac", "lmac-audio"])
def fitted(request: pytest.FixtureRequest, clf: l2i.Classifier) -> Fitted:
    """Either, some epochs."""
    learnt = l2i.fit(clf, sounds(24), request.param, **FEW)
    assert isinstance(learnt, Fitted)
    return learnt


def test_what_is_learnt(fitted: Fitted, clf: l2i.Classifier, tmp_path: Path) -> None:
    """The loss falls; a tone is convincing by little of the spectrogram; and a file has it all."""
    (history,) = fitted.history.values()
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    x = sounds(2)
    for clip, e in zip(x, fitted.explain(x), strict=True):
        assert e.method == fitted.method and e.components == ()
        p = e.probabilities[e.target]
        assert p.explanation > 0.7 and e.mask.mean() < 0.3
        again = l2i.load(fitted.save(tmp_path / "x.l2i"), clf).explain(clip)
        torch.testing.assert_close(torch.from_numpy(again.mask), torch.from_numpy(e.mask))
        # Whatever class is asked for, it is what was decided that is explained.
        other = fitted.explain(clip, "hiss")
        torch.testing.assert_close(torch.from_numpy(other.mask), torch.from_numpy(e.mask))


def test_a_damaged_checkpoint(fitted: Fitted, clf: l2i.Classifier, tmp_path: Path) -> None:
    """What it does not say is said to be lacking."""
    path = fitted.save(tmp_path / "x.l2i")
    tensors, about = load_checkpoint(path, "explainer")
    name = next(iter(about["parts"]))
    del about["parts"][name]["width"]
    about = {k: v for k, v in about.items() if k not in ("format", "kind", "spectrogram")}
    save_checkpoint(path, "explainer", tensors, about, fitted.subject.domain)
    with pytest.raises(CheckpointError, match="does not say how large its network is"):
        l2i.load(path, clf)


def test_black_boxes_are_refused(clf: l2i.Classifier) -> None:
    """One sentence, before anything is learnt."""
    box = l2i.wrap(lambda x: clf.logits(torch.from_numpy(x)).numpy(), RATE, list(clf.classes))
    with pytest.raises(UsageError, match="no gradients, which method 'lmac' needs"):
        l2i.fit(box, sounds(12), "lmac", **FEW)


def test_mixtures() -> None:
    """A share of the clips, each with another one at the level that is asked for."""
    x = torch.from_numpy(sounds(8))
    s = MaskDecoderSettings(mixed=0.5, mixed_db=-6.0)
    both = _mixed(x, s, torch.Generator().manual_seed(0))
    changed = (both != x).any(1)
    assert 0 < int(changed.sum()) < 8
    power = (both - x)[changed].square().mean(1) / x[changed].square().mean(1)
    torch.testing.assert_close(10 * power.log10(), torch.full_like(power, 6.0), atol=1e-3, rtol=0)
    assert torch.equal(_mixed(x, MaskDecoderSettings(mixed=0), torch.Generator()), x)
