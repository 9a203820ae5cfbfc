"""`l2i.explanation` against its slow twins and against a toy whose answers are known on paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i.dsp.spectrogram import (
    SpectrogramSettings,
    audible_frames,
    log_magnitude,
    peak_normalise,
    stft,
)
from l2i.explanation import (
    Explainer,
    MethodSettings,
    Subject,
    random_ranks,
    relevance,
    select,
    soft_mask,
    split_audio,
)
from l2i.explanation.listen_to_interpret import ListenToInterpret
from l2i.models.classifier import FrozenClassifier
from l2i.models.dictionary import unit_columns
from l2i.models.interpreter import Interpreter
from l2i.models.vgg import VGG
from l2i.types import Task
from tests import reference
from tests.toys import BANDS, INTERIOR, SAMPLES, SETTINGS, tone, tone_explainer

seeded = settings(derandomize=True, deadline=None, max_examples=60, database=None)
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**31)
# Zero, or a size whose products do not underflow.
numbers = st.one_of(st.just(0.0), st.floats(1e-6, 1e3), st.floats(-1e3, -1e-6))


def _non_negative(g: torch.Generator, *shape: int) -> torch.Tensor:
    """Uniform in [0, 1] with about a third of exact zeros."""
    values = torch.rand(*shape, generator=g, dtype=torch.float64)
    return values * (torch.rand(*shape, generator=g) > 0.33)


# --- relevance --------------------------------------------------------------------------------


@seeded
@given(st.data(), sizes, sizes, sizes)
def test_relevance_is_the_papers_formula(data: st.DataObject, b: int, k: int, c: int) -> None:
    """Relevance agrees with the paper's formula, clip after clip, zeros included."""
    rows = st.lists(numbers, min_size=k, max_size=k)
    z = [[abs(v) for v in data.draw(rows)] for _ in range(b)]
    theta = [data.draw(rows) for _ in range(c)]
    classes = [data.draw(st.integers(0, c - 1)) for _ in range(b)]
    got = relevance(
        torch.tensor(z, dtype=torch.float64),
        torch.tensor(theta, dtype=torch.float64),
        torch.tensor(classes),
    )
    for i in range(b):
        assert got[i].tolist() == pytest.approx(reference.relevance(z[i], theta, classes[i]))
        largest = got[i].abs().max().item()
        assert largest == pytest.approx(1.0) or largest == 0.0


def test_all_negative_contributions_select_nothing() -> None:
    """Where all contributions are negative, relevances are negative too and nothing is selected.

    Divided by the greatest value instead of the greatest absolute one, they would be positive,
    the least important first, and everything would be selected.
    """
    theta = torch.tensor([[-1.0, -2.0, -4.0]])
    r = relevance(torch.ones(1, 3), theta, torch.tensor([0]))
    assert r.tolist() == [[-0.25, -0.5, -1.0]]
    assert not select(r, 0.0).any()


def test_all_zero_contributions_have_no_relevance() -> None:
    """Where every contribution is zero, relevances are zero (not NaN) and nothing is selected."""
    for z, theta in ((torch.zeros(2, 3), torch.ones(1, 3)), (torch.ones(2, 3), torch.zeros(1, 3))):
        r = relevance(z, theta, torch.tensor([0, 0]))
        assert r.tolist() == [[0.0] * 3] * 2
        assert not select(r, 0.0).any()


def test_relevance_does_not_depend_on_the_scale_of_z() -> None:
    """Twice the activations, the same relevance."""
    g = torch.Generator().manual_seed(0)
    z, theta = torch.rand(4, 5, generator=g), torch.randn(3, 5, generator=g)
    classes = torch.tensor([0, 1, 2, 1])
    torch.testing.assert_close(relevance(2 * z, theta, classes), relevance(z, theta, classes))


# --- selection --------------------------------------------------------------------------------


@seeded
@given(
    st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=8, unique=True),
    st.floats(0, 0.95, allow_subnormal=False),
    st.integers(0, 9),
)
def test_selection_is_the_papers(r: list[float], threshold: float, most: int) -> None:
    """What exceeds tau is selected; where there may be only so many, the most relevant."""
    got = select(torch.tensor([r], dtype=torch.float64), threshold, most)[0]
    assert set(got.nonzero().flatten().tolist()) == reference.select(r, threshold, most)


def test_a_component_must_exceed_tau() -> None:
    """A relevance equal to tau is not enough."""
    assert select(torch.tensor([[0.5, 0.25]]), 0.25).tolist() == [[True, False]]


def test_at_most_so_many_even_where_relevances_are_equal() -> None:
    """With ties, still no more than `max_components` are selected, and not fewer."""
    r = torch.ones(2, 6)
    assert select(r, 0.2, max_components=2).sum(dim=1).tolist() == [2, 2]


# --- the random baseline ----------------------------------------------------------------------


def test_random_ranks_are_orders_of_the_components() -> None:
    """Each draw ranks each component once: the first n of one are n components."""
    ranks = random_ranks([3, 5], 0, draws=4, components=7)
    assert ranks.shape == (2, 4, 7)
    assert torch.equal(ranks.sort(dim=2).values, torch.arange(7).expand(2, 4, 7))
    for n in (0, 3, 7):
        assert ((ranks < n).sum(dim=2) == n).all()


def test_random_ranks_draw_every_set_equally_often() -> None:
    """Each of the six pairs out of four components is drawn about one time in six."""
    n = 6000
    drawn = random_ranks(range(n // 2), 1, draws=2, components=4).flatten(0, 1) < 2
    pairs, counts = torch.unique(drawn, dim=0, return_counts=True)
    assert len(pairs) == 6
    # Five standard deviations of a binomial of n draws.
    assert (counts - n / 6).abs().max().item() < 5 * (n * 1 / 6 * 5 / 6) ** 0.5


def test_random_ranks_hang_on_key_and_seed_alone() -> None:
    """A clip's draws are its own, in whatever company; another seed gives others."""
    together = random_ranks([1, 2, 3], 0, draws=2, components=20)
    assert torch.equal(random_ranks([3, 1], 0, 2, 20), together[[2, 0]])
    assert not torch.equal(random_ranks([1, 2, 3], 1, 2, 20), together)
    assert not torch.equal(together[0], together[1])


# --- mask -------------------------------------------------------------------------------------


@seeded
@given(seeds, sizes, sizes, sizes, sizes)
def test_mask_is_the_papers_formula(seed: int, b: int, f: int, k: int, t: int) -> None:
    """The mask agrees with the formula bin after bin, 0/0 included, and lies in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    w, h = _non_negative(g, f, k), _non_negative(g, b, k, t)
    selected = torch.rand(b, k, generator=g) > 0.5
    got = soft_mask(w, h, selected)
    assert torch.equal(soft_mask(w, h, selected, w @ h), got)
    assert got.min() >= 0 and got.max() <= 1
    for i in range(b):
        chosen = set(selected[i].nonzero().flatten().tolist())
        np.testing.assert_allclose(
            got[i].numpy(), reference.mask(w.numpy(), h[i].numpy(), chosen), atol=1e-12
        )


def test_bins_that_nothing_explains_belong_to_no_explanation() -> None:
    """0/0: where no component is active the mask is 0, even if all components are selected."""
    w = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    h = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    got = soft_mask(w, h, torch.tensor([[True, True]]))
    assert got.tolist() == [[[1.0, 0.0], [0.0, 0.0]]]


def test_masks_of_a_selection_and_of_the_rest_add_up_to_one() -> None:
    """Selected and not selected share every bin that anything explains."""
    g = torch.Generator().manual_seed(2)
    w, h = torch.rand(9, 5, generator=g), torch.rand(2, 5, 7, generator=g)
    selected = torch.tensor([[True, False, True, False, False], [False] * 5])
    both = soft_mask(w, h, selected) + soft_mask(w, h, ~selected)
    torch.testing.assert_close(both, torch.ones_like(both))


# --- explanation and removal ------------------------------------------------------------------


def _spectrum(seed: int, clips: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(clips, SAMPLES, generator=torch.Generator().manual_seed(seed))
    x = peak_normalise(x)
    return x, stft(x, SETTINGS)


def test_explanation_audio_is_the_papers() -> None:
    """Explanation and removal are inverse transforms of expm1(M S) and expm1((1 - M) S)."""
    x, spectrum = _spectrum(3)
    mask = torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(4))
    audio, removal = split_audio(spectrum, mask, SETTINGS, SAMPLES)
    window = torch.hann_window(SETTINGS.n_fft, dtype=torch.float64)
    for i in range(len(x)):
        X, M = spectrum[i].numpy().astype(complex), mask[i].numpy().astype(float)
        for got, m in ((audio[i], M), (removal[i], 1 - M)):
            Y = torch.from_numpy(reference.explanation_spectrum(X, m))
            want = torch.istft(
                Y, SETTINGS.n_fft, SETTINGS.hop_length, window=window, length=SAMPLES
            )
            torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-4)


def test_a_full_mask_gives_the_input_back_and_an_empty_one_silence() -> None:
    """M = 1 is the input, its removal silence; M = 0 the other way round."""
    x, spectrum = _spectrum(5)
    ones = torch.ones(spectrum.shape)
    audio, removal = split_audio(spectrum, ones, SETTINGS, SAMPLES)
    torch.testing.assert_close(audio, x, atol=1e-5, rtol=0)
    assert removal.abs().max() == 0
    audio, removal = split_audio(spectrum, 0 * ones, SETTINGS, SAMPLES)
    torch.testing.assert_close(removal, x, atol=1e-5, rtol=0)
    assert audio.abs().max() == 0


def test_explanation_and_removal_add_up_in_the_log_domain_only() -> None:
    """log(1 + .) of both magnitudes sums to S; the magnitudes themselves fall short of |X|."""
    _, spectrum = _spectrum(6, 1)
    X = spectrum[0].numpy().astype(complex)
    M = np.full(X.shape, 0.5)
    part = np.abs(reference.explanation_spectrum(X, M))
    np.testing.assert_allclose(2 * np.log1p(part), np.log1p(np.abs(X)), atol=1e-12)
    assert (2 * part < np.abs(X)).all()


# --- the whole way, on a toy whose answers are known ------------------------------------------


def test_the_tone_is_its_own_explanation() -> None:
    """In two tones of equal level, each class is explained by its own tone, with relevance 1;
    the other tone has relevance -1/2, as its weight is, and is what is left."""
    a, b = tone(2), tone(7)
    x = (a + b).unsqueeze(0)
    peak = x.abs().max()
    for band, mine, other in ((2, a, b), (7, b, a)):
        explanation, _, interpretation = tone_explainer().explain(x, [band])
        assert explanation.classes.tolist() == [band]
        assert explanation.selected[0].nonzero().flatten().tolist() == [band]
        assert explanation.relevance[0, band].item() == 1.0
        # The ends of the clip, where a window sees a tone begin, are not quite the same for both.
        assert explanation.relevance[0, 9 - band].item() == pytest.approx(-0.5, abs=0.01)
        assert interpretation.activations.min() >= 0
        torch.testing.assert_close(
            explanation.audio[0, INTERIOR], mine[INTERIOR] / peak, atol=2e-5, rtol=0
        )
        torch.testing.assert_close(
            explanation.removal[0, INTERIOR], other[INTERIOR] / peak, atol=2e-5, rtol=0
        )


def test_without_a_class_the_classifiers_own_is_explained() -> None:
    """The likeliest class is explained, clip by clip."""
    x = torch.stack([tone(3) + 0.1 * tone(8), 0.1 * tone(3) + tone(8)])
    explanation, features, _ = tone_explainer().explain(x)
    assert explanation.classes.tolist() == [3, 8]
    assert features.logits.argmax(dim=1).tolist() == [3, 8]


def test_removing_the_explanation_makes_the_classifier_miss_it() -> None:
    """Faithfulness on paper: with its tone removed, the class's logit falls to that of a band
    without any tone, and the explanation alone keeps it."""
    explainer = tone_explainer()
    x = (tone(4) + 0.5 * tone(9)).unsqueeze(0)
    explanation, features, _ = explainer.explain(x)
    before = features.logits[0]
    after = explainer.classifier.logits(explanation.removal)[0]
    alone = explainer.classifier.logits(explanation.audio)[0]
    assert explanation.classes.item() == 4
    # What is left in the band comes from the ends of the clip, where no tone is whole.
    assert after[4] < 0.1 * before[4]
    assert after.argmax().item() == 9
    assert alone.argmax().item() == 4
    # The explanation's own peak is normalised anew before it is heard, so it is not below.
    assert alone[4] >= 0.99 * before[4]


def test_a_clip_with_only_negative_contributions_is_explained_by_nothing() -> None:
    """The explanation is silent and the removal is the whole clip."""
    x = tone(5).unsqueeze(0)
    explanation, _, _ = tone_explainer(-torch.ones(BANDS, BANDS)).explain(x, [5])
    assert not explanation.selected.any()
    assert explanation.relevance.max() < 0
    assert explanation.audio.abs().max() == 0
    torch.testing.assert_close(explanation.removal, peak_normalise(x), atol=1e-5, rtol=0)


def test_threshold_and_number_of_components_are_obeyed() -> None:
    """Three tones that speak for a class: tau and `max_components` decide which are kept."""
    theta = torch.zeros(BANDS, BANDS)
    theta[0, 1], theta[0, 4], theta[0, 7] = 1.0, 0.5, 0.2
    explainer = tone_explainer(theta)
    x = (tone(1) + tone(4) + tone(7)).unsqueeze(0)

    def kept(**how: float) -> list[int]:
        explanation, _, _ = explainer.explain(x, [0], **how)  # type: ignore[arg-type]
        return explanation.selected[0].nonzero().flatten().tolist()

    assert kept(threshold=0.1) == [1, 4, 7]
    assert kept(threshold=0.3) == [1, 4]
    assert kept(threshold=0.1, max_components=1) == [1]
    assert kept(threshold=0.1, max_components=2) == [1, 4]


def test_gain_does_not_matter() -> None:
    """A clip a thousand times softer or ten times louder has the same explanation."""
    x = (tone(2) + 0.3 * tone(6)).unsqueeze(0)
    want, _, _ = tone_explainer().explain(x)
    for gain in (1e-3, 10.0):
        got, _, _ = tone_explainer().explain(gain * x)
        torch.testing.assert_close(got.relevance, want.relevance, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.mask, want.mask, atol=1e-4, rtol=0)
        torch.testing.assert_close(got.audio, want.audio, atol=1e-4, rtol=0)


def test_polarity_does_not_matter() -> None:
    """A clip turned upside down has the same mask, and its explanation is turned upside down.

    The clip has no positive sample at all at its largest, so that a positive peak would give
    another gain.
    """
    x = (tone(2) + 0.3 * tone(6)).unsqueeze(0)
    x = torch.where(x > 0, 0.5 * x, x)
    want, _, _ = tone_explainer().explain(x)
    got, _, _ = tone_explainer().explain(-x)
    torch.testing.assert_close(got.relevance, want.relevance)
    torch.testing.assert_close(got.mask, want.mask)
    torch.testing.assert_close(got.audio, -want.audio)


# --- and on the real networks, with random weights --------------------------------------------

REAL = SpectrogramSettings(sample_rate=8000, n_fft=256, hop_length=64, n_mels=128)
REAL_SAMPLES = 64 * 160


@pytest.fixture(scope="module")
def real() -> Explainer:
    """The real classifier and interpreter, small head, seeded random weights and biases."""
    torch.manual_seed(0)
    network = VGG(4, head=8)
    interpreter = Interpreter(6, 4)
    for module in (network, interpreter):
        for name, p in module.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(p, std=0.1)
    w = unit_columns(torch.rand(REAL.n_bins, 6))
    classifier = FrozenClassifier(network, REAL, list("abcd"), Task.SINGLE_LABEL)
    return Explainer(classifier, w, interpreter.eval().requires_grad_(False), REAL.domain)


def test_silence_is_explained_by_nothing(real: Explainer) -> None:
    """A clip of zeros has a class (the networks have biases) but no relevance, an empty mask and
    silent audio, and there is no NaN anywhere; its neighbour in the batch is not harmed."""
    noise = torch.randn(1, REAL_SAMPLES, generator=torch.Generator().manual_seed(1))
    x = torch.cat([torch.zeros(1, REAL_SAMPLES), noise])
    explanation, features, interpretation = real.explain(x, threshold=0.0)
    for value in (
        explanation.relevance,
        explanation.mask,
        explanation.audio,
        explanation.removal,
        features.logits,
    ):
        assert value.isfinite().all()
    assert interpretation.activations[0].max() > 0, (
        "the biases should make the networks say something"
    )
    assert not explanation.selected[0].any()
    assert explanation.mask[0].abs().max() == 0
    assert explanation.audio[0].abs().max() == 0 and explanation.removal[0].abs().max() == 0
    assert explanation.relevance[1].abs().max() == 1
    assert explanation.removal[1].abs().max() > 0


def test_where_there_is_nothing_to_hear_nothing_is_explained(real: Explainer) -> None:
    """A network that skips silence: of half a clip of zeros, no activation and an empty mask there,
    whatever the biases say."""
    interpreter = Interpreter(6, 4, skip_silence=True)
    interpreter.load_state_dict(real.interpreter.state_dict())
    skips = replace(real, interpreter=interpreter.eval().requires_grad_(False))
    x = torch.randn(2, REAL_SAMPLES, generator=torch.Generator().manual_seed(4))
    x[0, REAL_SAMPLES // 2 :] = 0
    explanation, _, interpretation = skips.explain(x, [0, 0], threshold=0.0)
    edge = REAL.n_fft // REAL.hop_length
    silent = slice(80 + edge, None)
    _, _, before = real.explain(x, [0, 0], threshold=0.0)
    assert before.activations[0, :, silent].max() > 0, "the biases should say something there"
    assert (
        not interpretation.activations[0, :, silent].any()
        and not explanation.mask[0, :, silent].any()
    )
    assert interpretation.activations[0, :, : 80 - edge].max() > 0
    heard = audible_frames(skips.classifier.spectrum(x))
    assert not heard[0, silent].any() and heard[1].all()
    torch.testing.assert_close(
        interpretation.activations[0][:, heard[0]], before.activations[0][:, heard[0]]
    )
    # Its neighbour sounds throughout, and is explained as ever.
    torch.testing.assert_close(interpretation.pooled[1], before.pooled[1])
    # And the method as one of several reads the same frames.
    parts = {"dictionary": skips.w, "interpreter": skips.interpreter}
    subject = Subject(skips.classifier, skips.domain, parts)
    method = ListenToInterpret(subject, MethodSettings(threshold=0.0))
    mask = method(skips.hear(x), torch.tensor([0, 0]), [0, 1])
    torch.testing.assert_close(mask, explanation.mask)


def test_a_clip_does_not_depend_on_its_batch(real: Explainer) -> None:
    """Alone or beside others, loud or silent, a clip has the same explanation."""
    x = torch.randn(3, REAL_SAMPLES, generator=torch.Generator().manual_seed(2))
    x[0] *= 100
    x[2] = 0
    together, _, _ = real.explain(x, [0, 1, 2], threshold=0.0)
    for i in range(3):
        alone, _, _ = real.explain(x[i : i + 1], [i], threshold=0.0)
        torch.testing.assert_close(alone.relevance[0], together.relevance[i], atol=1e-4, rtol=0)
        assert alone.selected[0].tolist() == together.selected[i].tolist()
        torch.testing.assert_close(alone.audio[0], together.audio[i], atol=1e-4, rtol=0)


def test_all_components_selected_explain_all_that_is_explained(real: Explainer) -> None:
    """Mask in [0, 1]; and with all components selected it is 1 wherever anything is active."""
    x = torch.randn(1, REAL_SAMPLES, generator=torch.Generator().manual_seed(3))
    explanation, _, interpretation = real.explain(x, [0])
    assert explanation.mask.min() >= 0 and explanation.mask.max() <= 1
    whole = soft_mask(real.w, interpretation.activations, torch.ones(1, 6, dtype=torch.bool))
    active = torch.matmul(real.w, interpretation.activations) > 0
    assert active.any()
    assert bool((whole[active] == 1).all())
    spectrum = real.classifier.spectrum(x)
    assert log_magnitude(spectrum).shape == explanation.mask.shape
