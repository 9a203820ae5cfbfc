"""`l2i.dsp.spectrogram`: the same numbers as librosa, and a way back that loses nothing."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from l2i.dsp import spectrogram as sp
from l2i.dsp.spectrogram import SpectrogramSettings

PUBLISHED = SpectrogramSettings(44100)
SMALL = SpectrogramSettings(8000, n_fft=256, hop_length=64)
FORMS = [
    PUBLISHED,
    SpectrogramSettings(16000, n_fft=512, hop_length=160, n_mels=64),
    SpectrogramSettings(22050, n_fft=1000, hop_length=250, n_mels=128),
    SMALL,
    # All of it below 1 kHz, where the mel scale is linear.
    SpectrogramSettings(1600, n_fft=256, hop_length=64, n_mels=64),
]


def _clips(settings: SpectrogramSettings, seconds: float = 0.6) -> Tensor:
    """A decaying tone, noise, a click, and a soft tone that begins late: float32 ``[4, S]``."""
    rng = np.random.default_rng(0)
    n = round(seconds * settings.sample_rate)
    t = np.arange(n) / settings.sample_rate
    click = np.zeros(n)
    click[n // 3] = 1.0
    clips = [
        np.exp(-4 * t) * np.sin(2 * np.pi * 440 * t),
        0.3 * rng.standard_normal(n),
        click,
        0.01 * np.sin(2 * np.pi * 1000 * t) * (t > 0.3),
    ]
    return torch.from_numpy(np.stack(clips)).float()


def _resynthesised(
    spectrum: Tensor, logs: Tensor, settings: SpectrogramSettings, n_samples: int
) -> Tensor:
    """The waveform of log magnitudes and the phase of a spectrum."""
    direction = sp.phase(spectrum, sp.magnitude(spectrum))
    return sp.synthesise(direction, logs.expm1(), settings, n_samples)


def _librosa_stft(x: Tensor, settings: SpectrogramSettings) -> np.ndarray:
    return librosa.stft(
        x.numpy(),
        n_fft=settings.n_fft,
        hop_length=settings.hop_length,
        window="hann",
        center=True,
        pad_mode="constant",
    )


def _librosa_log_mel(x: Tensor, settings: SpectrogramSettings) -> np.ndarray:
    """As published: mel of the magnitude, ``power_to_db``, frames first; ``[T, M]`` of one clip."""
    mel = librosa.feature.melspectrogram(
        S=np.abs(_librosa_stft(x, settings)), sr=settings.sample_rate, n_mels=settings.n_mels
    )
    return librosa.power_to_db(mel, ref=1.0, amin=1e-10, top_db=80.0).T


# --- parity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_stft_is_librosas(settings: SpectrogramSettings) -> None:
    """Hann, centred, zero-padded: every bin within 1e-4."""
    x = _clips(settings)
    ours = sp.stft(x, settings)
    assert ours.shape == (4, settings.n_bins, settings.n_frames(x.shape[1]))
    np.testing.assert_allclose(ours.numpy(), _librosa_stft(x, settings), atol=1e-4)


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_log_magnitude_is_librosas(settings: SpectrogramSettings) -> None:
    """log(1 + |X|) within 1e-4."""
    x = _clips(settings)
    theirs = np.log1p(np.abs(_librosa_stft(x, settings)))
    ours = sp.log_magnitude(sp.stft(x, settings)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_mel_filters_are_librosas(settings: SpectrogramSettings) -> None:
    """Slaney's scale and norm, as librosa's default, [F, M]."""
    theirs = librosa.filters.mel(
        sr=settings.sample_rate, n_fft=settings.n_fft, n_mels=settings.n_mels
    )
    ours = sp.mel_filters(settings).numpy()
    assert ours.shape == (settings.n_bins, settings.n_mels)
    assert np.array_equal(ours.T, theirs), "published figures depend on their digits"


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_log_mel_is_librosas(settings: SpectrogramSettings) -> None:
    """The classifier's input within 1e-4 dB of librosa's, clip by clip."""
    x = _clips(settings)
    ours = sp.log_mel(sp.stft(x, settings), settings)
    assert ours.shape == (4, 1, settings.n_frames(x.shape[1]), settings.n_mels)
    for i in range(4):
        theirs = _librosa_log_mel(x[i], settings)
        np.testing.assert_allclose(ours[i, 0].numpy(), theirs, atol=1e-4, rtol=0)


def test_log_mel_of_real_sound_is_librosas(esc10_dir: Path) -> None:
    """On recordings too, with the published settings."""
    from l2i.dsp.audio import read_audio

    for path in sorted((esc10_dir / "audio").iterdir())[::133]:
        x = torch.from_numpy(read_audio(path, 44100, 44100))
        spectrum = sp.stft(x[None], PUBLISHED)
        theirs = _librosa_log_mel(x, PUBLISHED)
        ours = sp.log_mel(spectrum, PUBLISHED)[0, 0].numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
        np.testing.assert_allclose(
            sp.log_magnitude(spectrum)[0].numpy(),
            np.log1p(np.abs(_librosa_stft(x, PUBLISHED))),
            atol=1e-4,
            rtol=0,
        )


def test_the_published_shapes() -> None:
    """Five seconds at 44.1 kHz are 513 × 431, ten are 513 × 862."""
    assert PUBLISHED.n_bins == 513
    assert PUBLISHED.n_frames(5 * 44100) == 431
    assert PUBLISHED.n_frames(10 * 44100) == 862
    assert sp.stft(torch.zeros(1, 5 * 44100), PUBLISHED).shape == (1, 513, 431)


def test_log_mel_is_of_the_magnitude_not_of_its_square() -> None:
    """A clip ten times as loud is 10 dB up, where a power spectrogram would be 20 dB up."""
    x = _clips(SMALL)[1:2]
    soft, loud = (sp.log_mel(sp.stft(g * x, SMALL), SMALL) for g in (1.0, 10.0))
    np.testing.assert_allclose((loud - soft).numpy(), 10.0, atol=1e-4)


@pytest.mark.parametrize("settings", FORMS, ids=str)
def test_bands_are_the_whole_filters_matrix(settings: SpectrogramSettings) -> None:
    """Taken apart or not, the same sums; also with bands that no bin is in."""
    size = torch.rand(2, settings.n_bins, 9, generator=torch.Generator().manual_seed(0))
    want = size.transpose(1, 2) @ sp.mel_filters(settings)
    torch.testing.assert_close(sp.mel_bands(size, settings), want, atol=1e-6, rtol=1e-5)


def test_log_mel_takes_a_magnitude_as_well() -> None:
    """Complex or already its modulus: the same."""
    spectrum = sp.stft(_clips(SMALL), SMALL)
    assert torch.equal(sp.log_mel(spectrum, SMALL), sp.log_mel(sp.magnitude(spectrum), SMALL))


# --- edges ------------------------------------------------------------------------------------


def test_silence_has_finite_features() -> None:
    """Silence is zero in log(1 + |X|), and -100 dB everywhere in the log-mel."""
    spectrum = sp.stft(torch.zeros(2, 4000), SMALL)
    assert torch.equal(sp.log_magnitude(spectrum), torch.zeros(2, SMALL.n_bins, 63))
    np.testing.assert_allclose(sp.log_mel(spectrum, SMALL).numpy(), -100.0, atol=1e-4)


def test_what_is_80_db_down_cannot_be_heard() -> None:
    """By the loudest bin of a frame and of the clip itself, whatever its neighbours' level; complex
    or not. In silence nothing is audible."""
    db = torch.tensor([[0.0, -79.9, -80.1, -300.0], [-90.0, -90.0, -171.0, -20.0]])
    size = 10 ** (db / 20)
    size = torch.stack([size / 3, size, torch.zeros_like(size)], dim=1)
    want = [[True, True, False, False], [True, True, False, True]]
    spectrum = torch.polar(size, torch.ones_like(size))
    assert sp.audible_frames(size).tolist() == want
    assert torch.equal(sp.audible_frames(spectrum), sp.audible_frames(size))
    assert not sp.audible_frames(torch.zeros(2, 5, 4)).any()


def test_silence_comes_back_as_silence() -> None:
    """Bins of no phase stay zero, whatever magnitude is asked of them."""
    spectrum = sp.stft(torch.zeros(1, 4000), SMALL)
    back = _resynthesised(spectrum, torch.ones(1, SMALL.n_bins, 63), SMALL, 4000)
    assert torch.equal(back, torch.zeros(1, 4000))


def test_polarity_changes_no_feature() -> None:
    """-x has the magnitudes of x, and comes back as -x."""
    x = _clips(SMALL)
    plus, minus = sp.stft(x, SMALL), sp.stft(-x, SMALL)
    assert torch.equal(sp.log_magnitude(plus), sp.log_magnitude(minus))
    assert torch.equal(sp.log_mel(plus, SMALL), sp.log_mel(minus, SMALL))
    assert torch.equal(sp.peak_normalise(x), -sp.peak_normalise(-x))


def test_the_floor_of_top_db_is_each_clips_own() -> None:
    """A soft clip's features do not depend on a loud neighbour in its batch."""
    x = _clips(SMALL)
    soft = 1e-6 * x[:1]
    together = sp.log_mel(sp.stft(torch.cat([soft, 1e4 * x[1:2]]), SMALL), SMALL)
    alone = sp.log_mel(sp.stft(soft, SMALL), SMALL)
    torch.testing.assert_close(together[:1], alone)
    # A floor over the batch would have flattened the soft clip.
    assert alone.max() < together[1].max() - 80


def test_power_to_db_keeps_80_db_of_each_clip() -> None:
    """At most 80 dB below the clip's own maximum, and never below -100 dB."""
    db = sp.power_to_db(torch.tensor([[1.0, 1e-3, 1e-9, 0.0], [1e-4, 1e-9, 1e-30, 0.0]]))
    expected = torch.tensor([[0.0, -30.0, -80.0, -80.0], [-40.0, -90.0, -100.0, -100.0]])
    torch.testing.assert_close(db, expected)


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4), (3, 1, 2, 4)])
def test_power_to_db_takes_any_number_of_axes(shape: tuple[int, ...]) -> None:
    """The first axis is the batch, the rest is the clip: as clip by clip in librosa."""
    power = 10 ** (12 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 11)
    ours = sp.power_to_db(power)
    for i in range(3):
        theirs = librosa.power_to_db(power[i].numpy(), ref=1.0, amin=1e-10, top_db=80.0)
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=1e-4)


def test_a_batch_is_its_clips() -> None:
    """Each clip's features are what they are alone."""
    # An odd number: a CPU takes a few at a time, and one is left.
    x = torch.cat([_clips(SMALL), _clips(SMALL)[:1].flip(1)])
    spectrum = sp.stft(x, SMALL)
    whole = sp.log_mel(spectrum, SMALL)
    heard = _resynthesised(spectrum, sp.log_magnitude(spectrum), SMALL, x.shape[1])
    for i in range(5):
        alone = sp.stft(x[i : i + 1], SMALL)
        torch.testing.assert_close(whole[i : i + 1], sp.log_mel(alone, SMALL), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(heard[i], x[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("seconds", [0.0, 2.0, 2.048, 4.1])
def test_clips_of_many_frames_are_transformed_as_a_whole(seconds: float) -> None:
    """There and back as torch's own, where a CPU takes several turns: nothing between two of them
    is lost or counted twice, and clips of hardly a sample have a frame too."""
    n = round(seconds * SMALL.sample_rate) + 1
    x = torch.randn(3, n, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(256, dtype=torch.float64)
    form = {"center": True, "pad_mode": "constant", "return_complex": True}
    want = torch.stft(x.double(), 256, 64, window=window, **form).to(torch.complex64)
    got = sp.stft(x, SMALL)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)
    assert got.transpose(1, 2).is_contiguous()
    back = _resynthesised(got, sp.log_magnitude(got), SMALL, n)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=0)


def test_blocks_are_every_frame_once() -> None:
    """Every clip's, clip after clip, in order."""
    seen = torch.zeros(3, 600, dtype=torch.int64)
    turns = list(sp.blocks(torch.empty(3, 5, 600)))
    for turn, (clips, frames) in enumerate(turns):
        seen[clips, frames] += 1 + turn
    assert len(turns) == 9 and seen.min() == 1
    assert torch.equal(seen.flatten(), seen.flatten().sort().values)
    assert not list(sp.blocks(torch.empty(0, 5, 600)))


def test_the_magnitude_is_the_absolute_value() -> None:
    """For loud and soft bins, a real one and none at all; a magnitude is its own."""
    x = torch.tensor([3 + 4j, -2e4 + 1j, 1e-12 - 1e-12j, 0, -5e-9j, 7])
    torch.testing.assert_close(sp.magnitude(x), x.abs(), atol=0, rtol=1e-6)
    assert torch.equal(sp.magnitude(x.abs()), x.abs())
    assert sp.magnitude(torch.tensor([1e-25 + 0j])) == 0


def test_a_gradient_goes_through_silence() -> None:
    """Where the input is zero the magnitude's gradient is zero, and no NaN spoils the rest."""
    x = _clips(SMALL, 2.4)[3:].clone()  # Its beginning is silent; of more than one block.
    x.requires_grad_()
    sp.log_magnitude(sp.stft(x, SMALL)).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().max() > 0


def test_a_batch_of_no_clips_is_none() -> None:
    """An empty batch has an empty spectrogram."""
    assert sp.stft(torch.zeros(0, 800), SMALL).shape == (0, SMALL.n_bins, SMALL.n_frames(800))


def test_features_leave_their_input_as_it_was() -> None:
    """Nothing is computed in place on what the caller still holds."""
    x = _clips(SMALL)
    before = x.clone()
    spectrum = sp.stft(x, SMALL)
    kept = spectrum.clone()
    logs = sp.log_magnitude(spectrum)
    logs_kept = logs.clone()
    sp.log_mel(spectrum, SMALL)
    _resynthesised(spectrum, logs, SMALL, x.shape[1])
    sp.peak_normalise(x)
    size = sp.magnitude(spectrum)
    size_kept = size.clone()
    sp.log_mel(size, SMALL)
    assert torch.equal(x, before) and torch.equal(spectrum, kept)
    assert torch.equal(logs, logs_kept) and torch.equal(size, size_kept)


# --- peak normalisation -----------------------------------------------------------------------


def test_peak_normalise_is_by_the_absolute_peak_of_each_clip() -> None:
    """Each clip's largest absolute sample becomes 1; one without positive samples too."""
    x = torch.tensor([[0.1, -0.5, 0.2], [-0.2, -0.1, 0.0], [0.0, 0.0, 0.0], [4.0, 2.0, -1.0]])
    expected = [[0.2, -1.0, 0.4], [-1.0, -0.5, 0.0], [0.0, 0.0, 0.0], [1.0, 0.5, -0.25]]
    torch.testing.assert_close(sp.peak_normalise(x), torch.tensor(expected))


@given(
    x=st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=20),
    gain=st.floats(0.0625, 16, width=32),
)
@settings(deadline=None)
def test_peak_normalise_forgets_the_level_only(x: list[float], gain: float) -> None:
    """For any clip: the peak is 1 (or all is silent), and the level it came at does not matter."""
    clip = torch.tensor([x])
    out = sp.peak_normalise(clip)
    assert torch.isfinite(out).all()
    if clip.abs().max() > 1e-30:
        assert float(out.abs().max()) == pytest.approx(1.0, abs=1e-6)
        torch.testing.assert_close(sp.peak_normalise(gain * clip), out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("level", [1e-38, 1e-40, 1e-45])
def test_peak_normalise_of_next_to_nothing_is_finite(level: float) -> None:
    """Even a peak with no float32 inverse gives no infinity and no NaN."""
    out = sp.peak_normalise(torch.tensor([[level, -level, 0.0]]))
    assert torch.isfinite(out).all() and float(out.abs().max()) <= 1.0


# --- the way back -----------------------------------------------------------------------------


@pytest.mark.parametrize("settings", FORMS, ids=str)
@pytest.mark.parametrize("odd", [0, 1, 37])
def test_a_full_mask_gives_the_input_back(settings: SpectrogramSettings, odd: int) -> None:
    """The magnitudes as they were, the phase of the input: the very waveform, at any length."""
    x = _clips(settings)
    x = x[:, : x.shape[1] - odd]
    spectrum = sp.stft(x, settings)
    back = _resynthesised(spectrum, sp.log_magnitude(spectrum), settings, x.shape[1])
    assert back.shape == x.shape
    np.testing.assert_allclose(back.numpy(), x.numpy(), atol=2e-5)


def test_an_empty_mask_gives_silence() -> None:
    """Log magnitude zero leaves nothing."""
    x = _clips(SMALL)
    spectrum = sp.stft(x, SMALL)
    back = _resynthesised(spectrum, torch.zeros(spectrum.shape), SMALL, x.shape[1])
    assert torch.equal(back, torch.zeros(x.shape))


def test_resynthesis_is_librosas() -> None:
    """expm1 of the magnitudes with the input's phase, through librosa's istft: within 1e-4."""
    x = _clips(SMALL)
    spectrum = sp.stft(x, SMALL)
    mask = torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(1))
    wanted = mask * sp.log_magnitude(spectrum)
    ours = _resynthesised(spectrum, wanted, SMALL, x.shape[1])
    X = spectrum.numpy()
    theirs = librosa.istft(
        np.expm1(wanted.numpy()) * np.exp(1j * np.angle(X)),
        n_fft=SMALL.n_fft,
        hop_length=SMALL.hop_length,
        window="hann",
        center=True,
        length=x.shape[1],
    )
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)


@pytest.mark.parametrize("hop", [256, 128, 64, 100])
@pytest.mark.parametrize("n_samples", [4096, 4195, 4351])
def test_the_inverse_transform_is_torchs(hop: int, n_samples: int) -> None:
    """For a spectrum that no waveform has, too, at two, four or eight frames to a sample, or where
    a frame is no whole number of hops; up to the last sample."""
    form = SpectrogramSettings(16000, n_fft=512, hop_length=hop)
    g = torch.Generator().manual_seed(0)
    shape = (2, form.n_bins, form.n_frames(n_samples))
    phase = torch.polar(torch.ones(shape), 6.3 * torch.rand(shape, generator=g))
    size = torch.rand(shape, generator=g)
    got = sp.synthesise(phase, size, form, n_samples)
    want = torch.istft(
        phase * size, 512, hop, window=torch.hann_window(512), center=True, length=n_samples
    )
    assert got.shape == (2, n_samples)
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_mask_and_removal_add_up_in_the_log_domain_only() -> None:
    """M S and (1 - M) S sum to S, but their waveforms do not sum to the clip: expm1 is convex."""
    x = _clips(SMALL)[1:2]
    spectrum = sp.stft(x, SMALL)
    logs = sp.log_magnitude(spectrum)
    parts = [_resynthesised(spectrum, 0.5 * logs, SMALL, x.shape[1]) for _ in range(2)]
    assert float((parts[0] + parts[1] - x).abs().max()) > 0.01
    assert float((parts[0] + parts[1]).square().sum()) < float(x.square().sum())


def test_a_band_that_is_masked_out_is_gone() -> None:
    """Two tones, the bins of one set to zero: the other is left as it was."""
    t = torch.arange(8000) / 8000
    low, high = (torch.sin(2 * torch.pi * f * t)[None] for f in (500.0, 2000.0))
    spectrum = sp.stft(low + high, SMALL)
    logs = sp.log_magnitude(spectrum)
    logs[:, 40:] = 0.0  # Bins are 31.25 Hz apart: from 1250 Hz.
    back = _resynthesised(spectrum, logs, SMALL, 8000)
    inside = slice(500, 7500)  # Away from the ends, where a tone that sets in has a wide spectrum.
    np.testing.assert_allclose(back[0, inside].numpy(), low[0, inside].numpy(), atol=2e-3)


def test_resynthesis_hands_gradients_to_the_magnitudes() -> None:
    """A loss on the waveform reaches the mask, and no gradient is NaN, in silence neither."""
    x = torch.cat([_clips(SMALL)[:1], torch.zeros(1, 4800)])
    spectrum = sp.stft(x, SMALL)
    logs = sp.log_magnitude(spectrum).requires_grad_()
    _resynthesised(spectrum, logs, SMALL, 4800).square().sum().backward()
    assert logs.grad is not None and torch.isfinite(logs.grad).all()
    assert float(logs.grad[0].abs().max()) > 0
    assert float(logs.grad[1].abs().max()) == 0


# --- settings ---------------------------------------------------------------------------------


def test_settings_say_what_differs() -> None:
    """Each field that differs, with both values; nothing where all are equal."""
    other = SpectrogramSettings(22050, n_fft=1024, hop_length=256)
    assert PUBLISHED.differences(other) == [
        "sample_rate 44100 against 22050",
        "hop_length 512 against 256",
    ]
    assert PUBLISHED.differences(SpectrogramSettings(44100, 1024, 512, 128)) == []


@given(n=st.integers(1, 3000), hop=st.integers(1, 128))
@settings(deadline=None, max_examples=40)
def test_n_frames_is_how_many_there_are(n: int, hop: int) -> None:
    """Told from the length alone, as the transform has them."""
    form = SpectrogramSettings(8000, n_fft=256, hop_length=hop)
    assert sp.stft(torch.zeros(1, n), form).shape[-1] == form.n_frames(n)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_features() -> None:
    """Features and resynthesis on a CUDA device are those of the CPU, to 1e-3."""
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    x = _clips(PUBLISHED)
    here, there = sp.stft(x, PUBLISHED), sp.stft(x.cuda(), PUBLISHED)
    torch.testing.assert_close(
        sp.log_mel(there, PUBLISHED).cpu(), sp.log_mel(here, PUBLISHED), atol=1e-3, rtol=0
    )
    logs = sp.log_magnitude(there)
    torch.testing.assert_close(logs.cpu(), sp.log_magnitude(here), atol=1e-4, rtol=0)
    back = _resynthesised(there, logs, PUBLISHED, x.shape[1])
    torch.testing.assert_close(back.cpu(), x, atol=1e-4, rtol=0)
