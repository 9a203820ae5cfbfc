"""LMAC-TD in a small size: sounds that add up, losses on paper, and two lessons."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import l2i
from l2i.dsp.spectrogram import Domain, magnitude, stft
from l2i.errors import UsageError
from l2i.explanation import make_method
from l2i.models.heard import hear
from l2i.models.time_domain import TimeDomainMask, turned
from l2i.training.time_domain import TIME_DOMAIN_MASK, TimeDomainSettings, autoencoder_loss, si_snr
from tests.guests import RATE, load, sounds

DOMAIN = Domain(RATE, 256, 128)
SIZES = {
    "filters": 16,
    "kernel": 16,
    "width": 8,
    "blocks": 1,
    "within": 1,
    "along": 1,
    "heads": 2,
    "chunk": 50,
    "alpha": 0.75,
}


def _network(channels: tuple[int, ...] = (6, 4), **changes: float) -> TimeDomainMask:
    torch.manual_seed(0)
    names = [str(i) for i in range(len(channels))]
    return TimeDomainMask(maps=names, channels=channels, **(SIZES | changes))  # type: ignore[arg-type]


def test_how_large_it_is() -> None:
    """As its docstring says."""
    sizes = {"filters": 64, "width": 64, "within": 2, "along": 2, "heads": 4, "chunk": 250}
    network = _network((128, 256, 512), **sizes)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(0.77e6, rel=0.01)


@pytest.mark.parametrize("samples", [37, 1000, 1337])
@pytest.mark.parametrize("shapes", [[(6, 1, 1), (4, 1, 1)], [(6, 8, 53), (4, 4, 13)]])
def test_explanation_and_removal_add_up(samples: int, shapes: list[tuple[int, int, int]]) -> None:
    """To what the autoencoder makes of a clip, whatever the mask; each clip is alone; and every
    weight has a part in one of both."""
    network = _network()
    x = turned(torch.randn(2, samples))
    maps = [torch.randn(2, *shape) for shape in shapes]
    explanation, removal = network(maps, x)
    assert explanation.shape == removal.shape == (2, samples)
    whole = network.decode(network.encode(x), samples)
    torch.testing.assert_close(explanation + removal, whole, atol=1e-5, rtol=1e-4)
    alone, _ = network([m[1:] for m in maps], x[1:])
    torch.testing.assert_close(alone, explanation[1:], atol=1e-4, rtol=0)
    explanation.square().sum().backward()
    for name, weight in network.named_parameters():
        frozen = name in ("encoder.weight", "decoder.weight")
        assert (weight.grad is None) == frozen, name
        assert frozen or bool(weight.grad.any()), name


def test_alpha() -> None:
    """At 0 the maps say nothing, at 1 they alone are asked."""
    x = turned(torch.randn(1, 500))
    one, other = ([torch.randn(1, 6, 4, 9), torch.randn(1, 4, 2, 5)] for _ in range(2))
    masks = {}
    for alpha in (0.0, 1.0):
        network = _network(alpha=alpha)
        encoded = network.encode(x)
        masks[alpha] = [network.mask(m, encoded) for m in (one, other)]
        louder = network.mask(one, 2 * encoded)
        assert torch.equal(louder, masks[alpha][0]) == (alpha == 1)
    assert torch.equal(*masks[0.0]) and not torch.equal(*masks[1.0])


def test_the_ratio_by_hand() -> None:
    """A tenth of the level in what is orthogonal is 20 dB, whatever the scale."""
    wanted = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    made = 3 * torch.tensor([[1.0, 0.1], [0.2, 2.0]])
    torch.testing.assert_close(si_snr(made, wanted), torch.tensor([20.0, 20.0]))


@pytest.fixture(scope="module")
def clf() -> l2i.Classifier:
    """A network on raw samples."""
    return load()


def test_the_loss_on_paper(clf: l2i.Classifier) -> None:
    """An explanation that is the clip, upside down or not, costs the clip's own probability, that
    of silence, and its spectrogram."""
    x = torch.from_numpy(sounds(2))
    s = TimeDomainSettings(convinces=3, leaves=2, size=5)

    class Whole(torch.nn.Module):
        def forward(self, maps: object, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.zeros_like(x)

    for sign in (1.0, -1.0):
        heard = hear(clf, sign * x, DOMAIN, ["2=B D T"])
        own = heard.logits.argmax(1, keepdim=True)
        log_p, silent = (
            clf.probabilities(logits).log().gather(1, own).mean()
            for logits in (heard.logits, clf.logits(torch.zeros(2, RATE)))
        )
        size = magnitude(stft(turned(x), DOMAIN)).log1p().mean()
        loss = TIME_DOMAIN_MASK.loss(Whole(), heard, s)
        assert float(loss) == pytest.approx(float(-3 * log_p + 2 * silent + 5 * size), abs=1e-3)


def test_the_autoencoder_learns_first(clf: l2i.Classifier) -> None:
    """Its loss falls, in epochs of its own; then it is frozen, and masks are learnt, which are
    shares of the spectrogram."""
    few = {
        **(SIZES | {"epochs": 2, "autoencoder_epochs": 4, "batch_size": 8}),
        "learning_rate": 1e-2,
        "n_fft": 256,
        "hop_length": 128,
    }
    longer, shorter = (
        l2i.fit(clf, sounds(16), "lmac-td", **(few | {"epochs": epochs})) for epochs in (2, 1)
    )
    history = longer.history["time-domain-mask"]
    assert len(history) == 6 and history[3]["loss"] < history[0]["loss"] - 3
    networks = [x.subject.parts["time-domain-mask"] for x in (longer, shorter)]
    for name in ("encoder", "decoder"):
        assert torch.equal(*(getattr(n, name).weight for n in networks))
    heard = hear(clf, torch.from_numpy(sounds(3)), longer.subject.domain, networks[0].maps)
    assert float(autoencoder_loss(networks[0], heard)) < history[0]["loss"] - 3
    way = make_method("lmac-td", longer.subject, longer.settings)
    mask = way(heard, heard.logits.argmax(1), [0, 1, 2])
    assert mask.shape == heard.size.shape and 0 < float(mask.mean()) < 1


def test_what_cannot_be(clf: l2i.Classifier) -> None:
    """One sentence each, before anything is learnt."""
    with pytest.raises(UsageError, match="width = 9 must be a multiple of the 4 heads"):
        l2i.fit(clf, sounds(12), "lmac-td", width=9)
    box = l2i.wrap(lambda x: clf.logits(torch.from_numpy(x)).numpy(), RATE, list(clf.classes))
    with pytest.raises(UsageError, match="no gradients, which method 'lmac-td' needs"):
        l2i.fit(box, sounds(12), "lmac-td")
