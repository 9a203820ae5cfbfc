"""`l2i.models.general`: an interpreter of maps of any shape."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from l2i.models.general import GeneralInterpreter
from l2i.models.interpreter import Interpreter

K, C = 7, 5
# Channels, rows, frames: few rows, none, more than four, a rate finer than the spectrogram's.
SHAPES = {
    "vgg": ((512, 4, 13), (256, 8, 26), (128, 16, 52)),
    "raw": ((8, 1, 993), (16, 1, 247), (32, 1, 60)),
    "tokens": ((32, 5, 50),),
    "mixed": ((24, 3, 1), (40, 1, 9), (6, 50, 333)),
}
each = pytest.mark.parametrize("name", list(SHAPES))


def _network(name: str, **how: object) -> GeneralInterpreter:
    torch.manual_seed(0)
    shapes = SHAPES[name]
    words = tuple(f"layer{i}=B D F T" for i in range(len(shapes)))
    dims = tuple(s[:2] for s in shapes)
    return GeneralInterpreter(K, C, maps=words, shapes=dims, **how)  # type: ignore[arg-type]


def _maps(name: str, clips: int = 3, times: float = 1.0) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    return tuple(
        torch.rand(clips, d, f, max(1, round(times * t)), generator=g) for d, f, t in SHAPES[name]
    )


@each
@pytest.mark.parametrize("pooling", ["attention", "max"])
def test_what_it_says(name: str, pooling: str) -> None:
    """Activations [B, K, T], never below 0; pooled [B, K]; logits Theta z; of any clip length."""
    network = _network(name, pooling=pooling).eval()
    assert network.theta.shape == (C, K) and len(network.maps) == len(SHAPES[name])
    for times, frames in ((1.0, 215), (0.3, 61), (4.0, 862), (0.02, 1)):
        output = network(_maps(name, times=times), frames)
        assert output.activations.shape == (3, K, frames)
        assert bool((output.activations >= 0).all()) and output.activations.any()
        torch.testing.assert_close(
            output.activations, network.activations(_maps(name, times=times), frames)
        )
        torch.testing.assert_close(output.logits, output.pooled @ network.theta.T)
        most = output.activations.amax(2)
        assert bool((output.pooled <= most + 1e-6).all())
        if pooling == "max":
            torch.testing.assert_close(output.pooled, most)


@each
def test_a_clip_is_alone(name: str) -> None:
    """What lies beside it changes nothing; training and evaluation say the same."""
    network = _network(name)
    maps = _maps(name)
    output = network(maps, 100).activations
    alone = network.eval()(tuple(m[1:2] for m in maps), 100).activations
    torch.testing.assert_close(alone, output[1:2], atol=1e-5, rtol=1e-4)


@each
def test_the_published_interface(name: str) -> None:
    """As the published network's, and what it takes."""
    one, other = _network(name), Interpreter(K, C)
    for word in ("maps", "skip_silence", "theta", "activations", "forward", "pool"):
        assert hasattr(one, word) and hasattr(other, word)
    assert all(isinstance(word, str) for word in one.maps)
    assert {k: v.shape for k, v in one.pool.state_dict().items()} == {
        k: v.shape for k, v in other.pool.state_dict().items()
    }


def test_time_stays_where_it_is() -> None:
    """Maps of different rates lie over one another: what happens at one instant is heard there."""
    network = _network("mixed").eval()
    maps = _maps("mixed")
    frames = 150
    activations = network.activations(maps, frames)
    for index, t in ((1, 1), (1, 7), (2, 80), (2, 250)):
        there = [m.clone() for m in maps]
        there[index][:, ::2, :, t] += 2.0
        change = (
            (network.activations(tuple(there), frames) - activations).detach().abs().sum((0, 1))
        )
        wanted = (t + 0.5) / there[index].shape[3]
        assert (float(change.argmax()) + 0.5) / frames == pytest.approx(wanted, abs=0.05)


def test_a_map_of_one_frame_is_the_same_throughout() -> None:
    """And as many frames that say the same."""
    network = _network("mixed").eval()
    maps = _maps("mixed")
    long = (maps[0].expand(-1, -1, -1, 40), *maps[1:])
    torch.testing.assert_close(network.activations(long, 99), network.activations(maps, 99))


def test_rows_are_averaged_or_interpolated() -> None:
    """The order of rows matters, and one of a map's many rows is heard."""
    network = _network("mixed").eval()
    assert network.rows == 4 and _network("raw").rows == 1 and _network("vgg").rows == 4
    maps = _maps("mixed")
    activations = network.activations(maps, 50).detach()
    turned = network.activations((*maps[:2], maps[2].flip(2)), 50).detach()
    assert float((activations - turned).abs().max()) > 1e-4
    one = maps[2].clone()
    one[:, :, 31] += 1.0
    heard = network.activations((*maps[:2], one), 50).detach()
    assert float((heard - activations).abs().max()) > 1e-5


@each
def test_it_learns(name: str) -> None:
    """Every weight has a gradient; and it can be taught what a few clips are, whatever the scale
    of the maps."""
    target = torch.tensor([0, 3, 1])
    maps = _maps(name)
    for m in maps:
        for i in range(3):
            m[i, i::3] += 1.0  # Other channels in every clip.
    for scale in (1e-3, 1e3):
        network = _network(name, width=32)
        given = tuple(scale * m for m in maps)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        losses = []
        for _ in range(40):
            loss = F.cross_entropy(network(given, 60).logits, target)
            optimizer.zero_grad()
            loss.backward()
            losses.append(float(loss.detach()))
            assert all(p.grad is not None and p.grad.any() for p in network.parameters())
            optimizer.step()
        assert losses[-1] < 0.5 * losses[0]


def test_its_state_is_all_there_is() -> None:
    """What was trained says the same when its state is loaded elsewhere."""
    network = _network("vgg")
    network(_maps("vgg"), 50)
    other = _network("vgg")
    for p in other.parameters():
        p.data.normal_()
    other.load_state_dict(copy.deepcopy(network.state_dict()))
    torch.testing.assert_close(
        other.eval()(_maps("vgg"), 50).logits, network.eval()(_maps("vgg"), 50).logits
    )


def test_silence_is_skipped() -> None:
    """Frames without a sound have no activations; where it is must be told."""
    network = _network("tokens", skip_silence=True)
    audible = torch.ones(3, 60, dtype=torch.bool)
    audible[1, 10:20] = False
    output = network(_maps("tokens"), 60, audible).activations
    assert not output[1, :, 10:20].any() and output[1, :, 20:].any() and output[0, :, 10:20].any()
    with pytest.raises(ValueError, match="must be told"):
        network(_maps("tokens"), 60)


def test_memory_layouts_and_precisions() -> None:
    """Maps whose channels lie last, or that are a view, are the same; under autocast it runs."""
    network = _network("vgg").eval()
    maps = _maps("vgg")
    activations = network.activations(maps, 100)
    last = tuple(m.contiguous(memory_format=torch.channels_last) for m in maps)
    torch.testing.assert_close(network.activations(last, 100), activations, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(maps, 100)
    torch.testing.assert_close(half.activations.float(), activations, atol=0.05, rtol=0.1)


def test_other_maps() -> None:
    """Not those it was made for."""
    network = _network("tokens")
    with pytest.raises(ValueError, match="layer0=B D F T has 16 channels of 5 rows, not 32 of 5"):
        network(_maps("tokens")[0][:, :16].unsqueeze(0).unbind(0), 50)
    with pytest.raises(ValueError):
        network((*_maps("tokens"), *_maps("tokens")), 50)
    with pytest.raises(ValueError, match="2 maps and 1 shapes"):
        GeneralInterpreter(K, C, maps=("a", "b"), shapes=((3, 1),))


def test_maps_whose_channels_are_last_in_memory() -> None:
    """As they are kept of a classifier: the same answer, and a gradient (that of a group
    normalisation of such maps ended the process)."""
    torch.manual_seed(0)
    shapes = ((64, 4), (128, 2))
    psi = GeneralInterpreter(6, 3, maps=("a=B D F T", "b=B D F T"), shapes=shapes)
    maps = tuple(
        torch.rand(4, f, t, d).permute(0, 3, 1, 2)
        for (d, f), t in zip(shapes, (40, 20), strict=True)
    )
    output = psi(maps, 60)
    (output.activations.mean() + output.logits.square().mean()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in psi.parameters())
    again = psi(tuple(m.contiguous() for m in maps), 60)
    torch.testing.assert_close(output.logits, again.logits)
