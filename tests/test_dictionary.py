"""`l2i.models.dictionary`: sparse NMF that never goes up, against the objective written out,
against the conditions of an optimum, and against scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i.dsp.spectrogram import Domain, stft
from l2i.errors import DataError
from l2i.models.dictionary import (
    band_dictionary,
    encode,
    learn_dictionary,
    random_dictionary,
    unit_columns,
)
from l2i.training import dictionary as training
from tests import reference

seeded = settings(derandomize=True, deadline=None, max_examples=25, database=None)
seeds = st.integers(0, 2**31)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Matrices this small are quicker with one thread, above all where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _frames(bins: int = 20, frames: int = 120, rank: int = 4, seed: int = 0) -> torch.Tensor:
    """Frames [F, N] that a few columns explain, with a little noise."""
    g = _generator(seed)
    w = torch.rand(bins, rank, generator=g).square()
    h = torch.rand(rank, frames, generator=g) * (torch.rand(rank, frames, generator=g) > 0.4)
    return w @ h + 0.02 * torch.rand(bins, frames, generator=g)


def _learn(blocks: list[torch.Tensor], components: int = 4, **how: object):  # type: ignore[no-untyped-def]
    given: dict = {"sparsity": 0.1, "iterations": 30, "generator": _generator(7), **how}
    return learn_dictionary(blocks, components, **given)


# --- the objective ----------------------------------------------------------------------------


@seeded
@given(seeds, st.floats(0.0, 2.0, allow_subnormal=False))
def test_objective_is_the_one_written_down(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sparsity: float
) -> None:
    """D(W, H) agrees with the sum over frames, of what was learnt."""
    s, file = torch.rand(6, 9, generator=_generator(seed)), tmp_path_factory.mktemp("h") / "h.npy"
    w, objective = _learn([s], 3, sparsity=sparsity, iterations=2, scratch=file)
    want = reference.nmf_objective(s.numpy(), w.numpy(), np.load(file).T, sparsity)
    assert objective[-1] * 9 == pytest.approx(want, rel=1e-5)


@seeded
@given(seeds, st.sampled_from([0.0, 0.1, 0.8]), st.integers(1, 6))
def test_objective_never_rises(seed: int, sparsity: float, components: int) -> None:
    """Sweep after sweep D falls, or stays where it is, on any data."""
    s = torch.rand(8, 30, generator=_generator(seed))
    _, learnt = _learn([s], components, sparsity=sparsity, iterations=12)
    assert len(learnt) > 1
    for before, after in pairwise(learnt):
        assert after <= before + 1e-6 * abs(before) + 1e-9


def test_reported_objective_is_the_true_one(tmp_path: Path) -> None:
    """What is reported after the last sweep, from sums over blocks, is D of the dictionary that
    is handed back and of the activations on disk, with W H really formed."""
    s = _frames()
    w, objective = _learn([s[:, :50], s[:, 50:]], scratch=tmp_path / "h.npy", iterations=5)
    h = np.load(tmp_path / "h.npy").T
    want = reference.nmf_objective(s.numpy(), w.numpy(), h, 0.1) / s.shape[1]
    assert objective[-1] == pytest.approx(want, rel=1e-5)


def test_columns_have_unit_length_and_are_not_negative() -> None:
    """W >= 0 and |w_k| = 1, however many components and however sparse."""
    for components, sparsity in ((1, 0.0), (4, 0.1), (10, 0.8)):
        w = _learn([_frames()], components, sparsity=sparsity)[0]
        assert w.shape == (20, components)
        assert w.min() >= 0
        torch.testing.assert_close(w.norm(dim=0), torch.ones(components), atol=1e-5, rtol=0)


def test_unit_columns_keep_directions_and_zeros() -> None:
    """Each column keeps its direction; a dead column stays dead instead of becoming NaN."""
    w = unit_columns(torch.tensor([[3.0, 0.0, 1e-10], [4.0, 0.0, 0.0]]))
    torch.testing.assert_close(w, torch.tensor([[0.6, 0.0, 1.0], [0.8, 0.0, 0.0]]))


def test_a_dictionary_that_made_the_data_is_found() -> None:
    """Frames made of one column each: the learnt columns are those, up to their order."""
    truth = unit_columns(torch.eye(3).repeat_interleave(4, dim=0) + 0.01)
    level = 1 + torch.rand(60, generator=_generator(1))
    s = truth[:, torch.arange(60) % 3] * level
    # Two of the first columns may come from one class, from where there is no way out: hence seeds.
    best = max(
        (_learn([s], 3, sparsity=0.0, generator=_generator(seed)) for seed in range(8)),
        key=lambda learned: -learned[1][-1],
    )
    likeness = best[0].T @ truth
    assert sorted(likeness.argmax(dim=1).tolist()) == [0, 1, 2]
    assert likeness.amax(dim=1).min() > 0.999


def test_more_sparsity_means_less_activation() -> None:
    """The penalty is felt: activations shrink and more of them are zero. Without unit columns it
    would mean nothing."""
    s = _frames()
    w = _learn([s], 6)[0]
    weak, strong = encode(s, w, 0.0), encode(s, w, 0.5)
    assert strong.sum() < 0.9 * weak.sum()
    assert (strong == 0).sum() > (weak == 0).sum()


# --- encoding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_encoding_meets_the_conditions_of_the_optimum(sparsity: float) -> None:
    """For fixed W the problem is convex: at the optimum the gradient is zero where h > 0 and not
    negative where h = 0."""
    s = _frames()
    w = unit_columns(torch.rand(20, 5, generator=_generator(2)))
    h = encode(s, w, sparsity, sweeps=500)
    gradient = w.T @ (w @ h - s) + sparsity
    assert h.min() >= 0
    assert (h > 0).any() and (h == 0).any()
    assert gradient[h > 0].abs().max() < 1e-4
    assert gradient[h == 0].min() > -1e-4


@pytest.mark.parametrize("sparsity", [0.0, 0.3])
def test_encoding_is_scikit_learns(sparsity: float) -> None:
    """With W fixed, activations are those of scikit-learn's coordinate descent.

    Compared is the same convex problem: scikit-learn's penalty alpha_W is multiplied by its
    number of features, hence the division by F; W being fixed, its scale plays no part.
    """
    from sklearn.decomposition import non_negative_factorization

    s = _frames().double()
    w = unit_columns(torch.rand(20, 5, generator=_generator(2))).double()
    want, _, _ = non_negative_factorization(
        s.T.numpy(),
        H=w.T.numpy(),
        n_components=5,
        init="custom",
        update_H=False,
        alpha_W=sparsity / 20,
        alpha_H=0.0,
        l1_ratio=1.0,
        tol=1e-12,
        max_iter=5000,
    )
    got = encode(s, w, sparsity, sweeps=500)
    np.testing.assert_allclose(got.numpy().T, want, atol=1e-4)


def test_a_dead_column_is_never_active() -> None:
    """A column of zeros explains nothing, and its activation stays zero."""
    w = unit_columns(torch.rand(20, 3, generator=_generator(3)))
    w[:, 1] = 0
    h = encode(_frames(), w)
    assert h[1].abs().max() == 0
    assert h.isfinite().all() and h[0].max() > 0


def test_learning_is_as_good_as_scikit_learns() -> None:
    """Without a penalty, D is at most 2 % above scikit-learn's on the same data.

    Compared is the sparsity 0 case, where the unit columns cost nothing, since H can take up any
    scale: both minimise 1/2 |S - W H|^2 over the same set. The problem is not convex; the best
    of three starts each, and sweeps enough for both to have come to rest.
    """
    from sklearn.decomposition import NMF

    s = _frames(rank=6)
    ours = min(
        _learn([s], 5, sparsity=0.0, iterations=400, generator=_generator(seed))[1][-1]
        for seed in range(3)
    )
    theirs = min(
        0.5
        * NMF(5, init="random", random_state=seed, tol=1e-6, max_iter=5000)
        .fit(s.T.double().numpy())
        .reconstruction_err_
        ** 2
        / s.shape[1]
        for seed in range(3)
    )
    assert theirs > 0
    assert ours <= 1.02 * theirs


# --- blocks, fixed columns, memory, stopping --------------------------------------------------


@seeded
@given(st.lists(st.integers(1, 119), max_size=5, unique=True))
def test_blocks_may_be_cut_anywhere(cuts: list[int]) -> None:
    """The dictionary does not depend on where the frames are cut into blocks."""
    s = _frames()
    whole = _learn([s], iterations=5)
    edges = [0, *sorted(cuts), s.shape[1]]
    blocks = [s[:, a:b] for a, b in pairwise(edges)]
    cut = _learn(blocks, iterations=5)
    torch.testing.assert_close(cut[0], whole[0], atol=1e-4, rtol=0)
    assert cut[1] == pytest.approx(whole[1], rel=1e-4)


def test_blocks_wider_than_the_inner_block_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The width of the blocks that a CPU works on inside does not show in the result."""
    s = _frames()
    whole = _learn([s], iterations=3)[0]
    monkeypatch.setattr("l2i.models.dictionary._COLUMNS_AT_ONCE", 7)
    torch.testing.assert_close(_learn([s], iterations=3)[0], whole, atol=1e-5, rtol=0)


def test_fixed_columns_take_part_and_do_not_change(tmp_path: Path) -> None:
    """The reported D is that of the fixed columns, as they were given, beside the learnt ones;
    they are not handed back; and what they explain is not learnt again."""
    hum = unit_columns(torch.zeros(20, 1).index_fill_(0, torch.tensor([0, 1]), 1.0))
    s = _frames()
    s[:2] = torch.rand(1, 120, generator=_generator(3))  # Nothing but the hum is heard there.
    w, objective = _learn([s], 4, fixed=3 * hum, scratch=tmp_path / "h.npy", iterations=20)
    assert w.shape == (20, 4)
    h = np.load(tmp_path / "h.npy").T
    assert h.shape == (5, 120)
    both = torch.cat([hum, w], dim=1).numpy()
    want = reference.nmf_objective(s.numpy(), both, h, 0.1) / s.shape[1]
    assert objective[-1] == pytest.approx(want, rel=1e-4)
    alone, _ = _learn([s], 4, iterations=20)
    assert w[:2].sum() < 0.5 * alone[:2].sum()


def test_activations_on_disk_are_those_in_memory(tmp_path: Path) -> None:
    """With a scratch file the dictionary is the same, to the last bit, and the file holds one
    row of activations per frame."""
    s = _frames()
    blocks = [s[:, :33], s[:, 33:]]
    inside = _learn(blocks, iterations=6)
    path = tmp_path / "activations.npy"
    outside = _learn(blocks, iterations=6, scratch=path)
    assert outside[0].equal(inside[0])
    assert outside[1] == inside[1]
    h = np.load(path)
    assert h.shape == (120, 4) and h.min() >= 0 and h.max() > 0


def test_blocks_are_read_once_per_sweep_and_not_kept() -> None:
    """Blocks may be computed when asked for: each sweep asks once for each."""

    class Counting(list):
        asked = 0

        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            type(self).asked += 1
            return super().__getitem__(index)

    s = _frames()
    blocks = Counting([s[:, :40], s[:, 40:80], s[:, 80:]])
    _learn(blocks, iterations=4)
    # Three per sweep, and at most three more to draw the first columns.
    assert 12 < Counting.asked <= 15


def test_more_components_than_frames_are_refused() -> None:
    """The message says how many frames there are and what to set."""
    with pytest.raises(DataError, match=r"wants 9 components .* only 6 frames"):
        _learn([_frames(frames=6)], 9)


def test_silent_frames_do_not_count_and_do_not_start_a_column() -> None:
    """Frames of zeros are passed over; where too few others are left, that is refused."""
    s = _frames(frames=100)
    s[:, 5:] = 0
    w = _learn([s], 5, iterations=3)[0]
    assert w.isfinite().all()
    torch.testing.assert_close(w.norm(dim=0), torch.ones(5), atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="only 5 frames that are not silent"):
        _learn([s], 6)


def test_the_same_generator_draws_the_same_dictionary() -> None:
    """Seed and data decide; another seed starts from other frames."""
    s = _frames()
    a, b = _learn([s], iterations=2), _learn([s], iterations=2)
    c = _learn([s], iterations=2, generator=_generator(8))
    assert a[0].equal(b[0])
    assert not a[0].equal(c[0])


def test_learning_stops_when_the_fall_is_small() -> None:
    """Below the tolerance it stops early; D is told after each sweep."""
    told: list[float] = []
    _, learnt = _learn([_frames()], iterations=200, tolerance=1e-2, on_sweep=told.append)
    assert 2 <= len(learnt) < 200
    assert learnt[-2] - learnt[-1] <= 1e-2 * learnt[-2]
    assert all(a - b > 1e-2 * a for a, b in pairwise(learnt[:-1]))
    assert told == learnt


def test_random_columns_are_unit_and_seeded() -> None:
    """Non-negative, of length one, the same from the same seed, and not from another."""
    one, two, other = (
        random_dictionary(40, 6, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert bool((one >= 0).all())
    torch.testing.assert_close(one.norm(dim=0), torch.ones(6))
    assert torch.equal(one, two) and not torch.equal(one, other)


@pytest.mark.parametrize(("bins", "k"), [(513, 100), (33, 33), (7, 3), (5, 1)])
def test_bands_cover_every_bin_once(bins: int, k: int) -> None:
    """Contiguous, disjoint, as equal as can be, unit columns."""
    w = band_dictionary(bins, k)
    held = w > 0
    assert bool((held.sum(dim=1) == 1).all())
    sizes = held.sum(dim=0)
    assert int(sizes.max() - sizes.min()) <= 1
    torch.testing.assert_close(w.norm(dim=0), torch.ones(k))
    assert bool((held.int().argmax(dim=1).diff() >= 0).all())


def test_more_bands_than_bins() -> None:
    """Refused."""
    with pytest.raises(DataError, match="33 frequency bins cannot make 34 bands"):
        band_dictionary(33, 34)


@pytest.mark.parametrize(("room", "kept"), [(0.0, 0), (1.5, 2), (9.0, 3)])
def test_spectra_are_kept_as_far_as_they_fit(
    room: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty clips are three blocks, of 8, 8 and 4: those that there is room for are transformed
    once, the others in each sweep, and all are the same each time."""
    domain, transforms = Domain(8000, 256, 64), []
    waveforms = np.random.default_rng(0).normal(size=(20, 2000)).astype(np.float32)
    sounds = SimpleNamespace(waveforms=waveforms, n_samples=2000)
    block = 4 * 8 * domain.n_frames(2000) * domain.n_bins
    monkeypatch.setattr(training, "memory_budget", lambda: int(room * block))

    def counted(x: torch.Tensor, d: Domain) -> torch.Tensor:
        transforms.append(len(x))
        return stft(x, d)

    monkeypatch.setattr(training, "stft", counted)
    blocks = training._Blocks(sounds, domain, np.arange(20), torch.device("cpu"))  # type: ignore[arg-type]
    first, second = list(blocks), list(blocks)
    assert [f.shape for f in first] == [
        (domain.n_bins, n * domain.n_frames(2000)) for n in (8, 8, 4)
    ]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(transforms) == 3 + 3 - kept
