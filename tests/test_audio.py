"""`l2i.dsp.audio`: whatever file comes in, a finite float32 waveform, or a sentence."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from l2i.dsp.audio import (
    SUFFIXES,
    fit_length,
    read_audio,
    read_part,
    resample,
    write_audio,
)
from l2i.errors import DataError, StoreError


def _tone(frequency: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        (".wav", "PCM_16", 2**-15),
        (".wav", "PCM_U8", 2**-7),
        (".wav", "PCM_24", 2**-23),
        (".wav", "FLOAT", 0.0),
        (".wav", "DOUBLE", 0.0),
        (".flac", "PCM_16", 2**-15),
        (".aiff", "PCM_16", 2**-15),
        (".au", "PCM_16", 2**-15),
        (".caf", "PCM_16", 2**-15),
        (".ogg", "VORBIS", 0.05),
        (".mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_every_format_comes_back_as_the_same_waveform(
    tmp_path: Path, suffix: str, subtype: str, error: float
) -> None:
    """Float32 ``[S]`` at full scale ±1, within the format's own rounding."""
    x = _tone(440, 16000)
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, x, 16000, subtype=subtype)
    y = read_audio(path, 16000, n_samples=x.size)
    assert y.dtype == np.float32 and y.shape == x.shape and y.flags.c_contiguous
    middle = slice(2000, 6000)
    np.testing.assert_allclose(y[middle], x[middle], atol=error * 1.01)
    assert suffix in SUFFIXES


def test_channels_are_averaged(tmp_path: Path) -> None:
    """Any number of them; what one has and the other inverts is gone."""
    left, right = _tone(440, 8000), _tone(1000, 8000)
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], 1), 8000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_audio(tmp_path / "two.wav", 8000), (left + right) / 2, atol=1e-7
    )
    soundfile.write(
        tmp_path / "five.wav", np.stack([left, right, -left, -right, left], 1), 8000, "FLOAT"
    )
    np.testing.assert_allclose(read_audio(tmp_path / "five.wav", 8000), left / 5, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_any_rate_is_resampled_to_the_one_asked_for(tmp_path: Path, rate: int) -> None:
    """A tone keeps its pitch, its level and its phase."""
    soundfile.write(tmp_path / "a.wav", _tone(700, rate, 1.0), rate, subtype="FLOAT")
    y = read_audio(tmp_path / "a.wav", 16000, n_samples=16000)
    middle = slice(2000, 14000)
    np.testing.assert_allclose(y[middle], _tone(700, 16000, 1.0)[middle], atol=1e-3)


def test_resampling_down_lets_nothing_fold_back(tmp_path: Path) -> None:
    """A tone above half the new rate is silence afterwards, not another tone."""
    soundfile.write(tmp_path / "a.wav", _tone(6000, 44100, 1.0), 44100, subtype="FLOAT")
    y = read_audio(tmp_path / "a.wav", 8000)
    assert np.abs(y[1000:-1000]).max() < 1e-3


@pytest.mark.parametrize("rate", [4000, 8000, 22050])
@pytest.mark.parametrize("n_samples", [1, 100, 3999, 4000, 4001, 30000])
def test_a_clip_is_cut_or_padded_at_its_end(tmp_path: Path, rate: int, n_samples: int) -> None:
    """Always exactly the length asked for; what is there is what the whole file has there."""
    soundfile.write(tmp_path / "a.wav", _tone(300, 8000, 1.0), 8000, subtype="FLOAT")
    whole = read_audio(tmp_path / "a.wav", rate)
    y = read_audio(tmp_path / "a.wav", rate, n_samples)
    assert y.shape == (n_samples,)
    there = min(n_samples, whole.size)
    np.testing.assert_allclose(y[:there], whole[:there], atol=1e-6)
    assert not y[there:].any()


def test_only_the_wanted_part_of_a_long_file_is_resampled_and_it_is_the_same(
    tmp_path: Path,
) -> None:
    """The last samples asked for hear what follows them, as in the whole recording."""
    rng = np.random.default_rng(0)
    x = (0.1 * rng.standard_normal(44100 * 3)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", x, 44100, subtype="FLOAT")
    whole = read_audio(tmp_path / "a.wav", 16000)
    part = read_audio(tmp_path / "a.wav", 16000, 16000)
    np.testing.assert_allclose(part, whole[:16000], atol=1e-6)


def test_samples_beyond_full_scale_are_kept(tmp_path: Path) -> None:
    """A float file may go beyond ±1: reading clips nothing."""
    x = 3 * _tone(440, 8000)
    soundfile.write(tmp_path / "a.wav", x, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 8000), x)


def test_silence_is_read_as_silence(tmp_path: Path) -> None:
    """It is a clip like any other, resampled or not."""
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    for rate in (8000, 44100):
        y = read_audio(tmp_path / "a.wav", rate)
        assert y.size == rate and not y.any()


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    """A flac file that is called wav is read all the same."""
    x = _tone(440, 8000)
    soundfile.write(tmp_path / "a.wav", x, 8000, format="FLAC")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 8000), x, atol=1e-4)


def test_names_may_have_any_letters(tmp_path: Path) -> None:
    """Spaces, accents and other scripts."""
    path = tmp_path / "ein Ton – 音 é.wav"
    write_audio(path, _tone(440, 8000), 8000)
    assert read_audio(path, 8000).size == 4000


def _header_of(rate: int) -> bytes:
    """A 16-bit wav of ten samples whose header claims this sample rate."""
    size = (56).to_bytes(4, "little")
    speed = rate.to_bytes(4, "little") + (2 * rate % 2**32).to_bytes(4, "little")
    form = (16).to_bytes(4, "little") + b"\x01\x00\x01\x00" + speed + b"\x02\x00\x10\x00"
    samples = (20).to_bytes(4, "little") + bytes(20)
    return b"RIFF" + size + b"WAVEfmt " + form + b"data" + samples


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: it has no bytes"),
        (b"RIFF", "cannot be decoded"),
        (b"not a sound", "cannot be decoded"),
        (bytes(4000), "cannot be decoded"),
        (_header_of(8000)[:30], "cannot be decoded"),
        (_header_of(10), "claims a sample rate of 10 Hz"),
        (_header_of(2_000_000_000), "claims a sample rate of 2000000000 Hz"),
    ],
    ids=["empty", "cut", "text", "zeros", "no data", "10 Hz", "2 GHz"],
)
def test_a_damaged_file_is_a_sentence_with_its_name(
    tmp_path: Path, content: bytes, words: str
) -> None:
    """Never a traceback, never gigabytes."""
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read_audio(path, 8000)
    assert str(path) in str(caught.value)
    assert "object at 0x" not in str(caught.value)


def test_the_hand_made_header_is_read_where_its_rate_makes_sense(tmp_path: Path) -> None:
    """What the damaged ones were refused for is the rate alone."""
    (tmp_path / "a.wav").write_bytes(_header_of(8000))
    assert read_audio(tmp_path / "a.wav", 8000).size == 10


def _is_read_or_refused(path: Path) -> None:
    try:
        y = read_audio(path, 8000, 100)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert y.shape == (100,) and np.isfinite(y).all()


@given(content=st.binary(max_size=200), head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS"]))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_a_waveform_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, head: bytes
) -> None:
    """No other exception comes out of a file, whatever it holds."""
    path = tmp_path_factory.mktemp("any") / "a.wav"
    path.write_bytes(head + content)
    _is_read_or_refused(path)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_wav_with_changed_bytes_is_a_waveform_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bits that flipped in the header or in the samples, or a file that was cut."""
    path = tmp_path_factory.mktemp("flipped") / "a.wav"
    soundfile.write(path, _tone(440, 8000, 0.02), 8000, subtype="FLOAT")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    _is_read_or_refused(path)


def _without_length(flac: Path) -> Path:
    """A FLAC as encoders write it to a pipe: its header has 0 for the number of samples."""
    content = bytearray(flac.read_bytes())
    assert content[:4] == b"fLaC"
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path = flac.with_name("unknown.flac")
    path.write_bytes(content)
    return path


def test_a_file_that_does_not_tell_its_length_is_read_to_its_end(tmp_path: Path) -> None:
    """All of it, and any part, as if it did."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.flac", rng.normal(0, 0.1, (100_000, 3)), 16000)
    path = _without_length(tmp_path / "a.flac")
    for rate in (8000, 16000):
        wanted = read_audio(tmp_path / "a.flac", rate)
        np.testing.assert_array_equal(read_audio(path, rate), wanted)
        np.testing.assert_array_equal(read_audio(path, rate, 500), wanted[:500])
        part = read_part(path, rate, start_s=2.5, duration_s=1)
        np.testing.assert_allclose(part, wanted[5 * rate // 2 :][:rate], atol=1e-6)
    with pytest.raises(DataError, match=r"is 6\.25 s long; nothing begins at 7 s"):
        read_part(path, 8000, start_s=7)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8000, 11025, 48000])
def test_a_part_is_a_part_of_the_whole(tmp_path: Path, suffix: str, rate: int) -> None:
    """The same samples, wherever it begins and ends, at rates that divide one another or not."""
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, rng.normal(0, 0.1, (140_000, 2)), 44100)
    whole = read_audio(path, rate)
    np.testing.assert_array_equal(read_part(path, rate), whole)
    for start, duration in ((0.0, 0.5), (0.1, 1.0), (1.2345, 0.7), (2.9, None), (3.0, 9.0)):
        part = read_part(path, rate, start_s=start, duration_s=duration)
        wanted = whole[round(start * rate) :]
        wanted = wanted if duration is None else wanted[: round(duration * rate)]
        np.testing.assert_allclose(part, wanted, atol=1e-6)


def test_of_a_long_file_no_more_is_read_than_asked(tmp_path: Path) -> None:
    """Memory does not grow with it: half a second of a minute takes less than two seconds would."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros((60 * 48000, 2), np.int16), 48000)
    read_part(path, 48000, start_s=1, duration_s=0.5)  # What is imported does not count.
    tracemalloc.start()
    try:
        assert len(read_part(path, 48000, start_s=30, duration_s=0.5)) == 24000
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2 * 48000 * 2 * 4


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Waiting for somebody to write into it would be for ever."""
    os.mkfifo(tmp_path / "a.wav")
    for path in (tmp_path / "a.wav", Path("/dev/zero")):
        with pytest.raises(DataError, match=f"{path} is a pipe or a device, not a sound file"):
            read_audio(path, 8000)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    """A whole header and nothing after it."""
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 8000)
    with pytest.raises(DataError, match=r"a\.wav has no samples: its length is zero"):
        read_audio(tmp_path / "a.wav", 8000)


def test_a_file_too_short_for_its_new_rate_is_refused(tmp_path: Path) -> None:
    """One sample at 48 kHz is less than one at 1 kHz: said, not padded into silence."""
    soundfile.write(tmp_path / "a.wav", np.ones(1) * 0.5, 48000)
    with pytest.raises(DataError, match="too short"):
        read_audio(tmp_path / "a.wav", 1000, 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    """In one channel of several too; with as many as cancel each other."""
    x = np.stack([_tone(440, 8000)] * 2, 1)
    x[100, 1] = value
    soundfile.write(tmp_path / "a.wav", x, 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav has samples that are NaN or infinite"):
        read_audio(tmp_path / "a.wav", 8000)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A missing file and a folder are told apart from a damaged file."""
    with pytest.raises(DataError, match=r"There is no sound file .*a\.wav"):
        read_audio(tmp_path / "a.wav", 8000)
    with pytest.raises(DataError, match="is a folder, not a sound file"):
        read_audio(tmp_path, 8000)


def test_a_file_one_may_not_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's word for it."""
    path = tmp_path / "a.wav"
    write_audio(path, _tone(440, 8000), 8000)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(DataError, match=r"a\.wav cannot be read: Permission denied"):
        read_audio(path, 8000)


# --- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "kind", "subtype"),
    [
        (".wav", "WAV", "PCM_16"),
        (".flac", "FLAC", "PCM_16"),
        (".ogg", "OGG", "VORBIS"),
        (".mp3", "MP3", "MPEG_LAYER_III"),
        (".WAV", "WAV", "PCM_16"),
    ],
)
def test_the_suffix_chooses_the_format(
    tmp_path: Path, suffix: str, kind: str, subtype: str
) -> None:
    """And the sound is read back as it was."""
    x = _tone(440, 16000)
    path = tmp_path / "new" / f"a{suffix}"
    write_audio(path, x, 16000)
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate, info.channels) == (kind, subtype, 16000, 1)
    np.testing.assert_allclose(read_audio(path, 16000, x.size)[2000:6000], x[2000:6000], atol=0.05)


@given(
    x=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=300),
    rate=st.sampled_from([8000, 44100]),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, x: list[float], rate: int
) -> None:
    """Exactly as float, and within half a step of 16 bits by default."""
    folder = tmp_path_factory.mktemp("back")
    wave = np.array(x, np.float32)
    write_audio(folder / "a.wav", wave, rate)
    np.testing.assert_allclose(read_audio(folder / "a.wav", rate), wave, atol=2**-15)
    write_audio(folder / "b.wav", wave, rate, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(folder / "b.wav", rate), wave)


def test_beyond_full_scale_it_is_scaled_not_clipped(tmp_path: Path) -> None:
    """The shape stays: neither a wrapped sample nor a flat top."""
    x = 4 * _tone(440, 8000)
    write_audio(tmp_path / "a.wav", x, 8000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 8000), x / np.abs(x).max(), atol=1e-4)
    write_audio(tmp_path / "b.wav", x, 8000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "b.wav", 8000), x)


def test_full_scale_itself_is_left_as_it_is(tmp_path: Path) -> None:
    """±1 is not turned down."""
    x = np.array([1.0, -1.0, 0.5, 0.0], np.float32)
    write_audio(tmp_path / "a.wav", x, 8000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 8000), x, atol=2**-15)


@pytest.mark.parametrize(
    "x",
    [np.zeros(0), np.zeros((2, 3)), np.array(0.5), np.array([0, np.nan]), np.array([np.inf, 0])],
    ids=["empty", "two-dimensional", "a number", "NaN", "infinity"],
)
def test_what_is_no_waveform_is_not_written(tmp_path: Path, x: np.ndarray) -> None:
    """A bug of the caller: no file is left, and one that was there stays."""
    path = tmp_path / "a.wav"
    write_audio(path, _tone(440, 8000), 8000)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="waveform"):
        write_audio(path, x, 8000)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("name", ["a.txt", "a", "a.aiff"])
def test_a_suffix_that_is_not_known_is_refused(tmp_path: Path, name: str) -> None:
    """With those that are."""
    with pytest.raises(ValueError, match=r"none of \.wav, \.flac, \.ogg, \.mp3"):
        write_audio(tmp_path / name, _tone(440, 8000), 8000)


def test_a_coding_the_format_has_not_is_refused(tmp_path: Path) -> None:
    """FLOAT is for wav."""
    with pytest.raises(ValueError, match=r"a\.flac cannot be written"):
        write_audio(tmp_path / "a.flac", _tone(440, 8000), 8000, subtype="FLOAT")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    """A file where a folder is to be, say; nothing is left behind."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"a\.wav cannot be written"):
        write_audio(tmp_path / "file" / "a.wav", _tone(440, 8000), 8000)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_that_fills_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the whole new sound or the whole old one."""
    path = tmp_path / "a.wav"
    write_audio(path, _tone(440, 8000), 8000)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write_audio(path, _tone(880, 8000), 8000)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_minutes_of_sound_can_be_written_as_vorbis(tmp_path: Path) -> None:
    """The encoder is fed in blocks, and the length is kept."""
    x = 0.1 * np.sin(np.arange(3 * 60 * 8000) / 9).astype(np.float32)
    write_audio(tmp_path / "a.ogg", x, 8000)
    assert soundfile.info(tmp_path / "a.ogg").frames == x.size


# --- small parts ------------------------------------------------------------------------------


@given(n_in=st.integers(1, 5000), rates=st.tuples(*[st.sampled_from([8000, 11025, 44100])] * 2))
@settings(max_examples=40, deadline=None)
def test_resampled_length_is_the_ratio(n_in: int, rates: tuple[int, int]) -> None:
    """ceil(S r), or one less; of the same rate, the very array."""
    x = np.ones(n_in, np.float32)
    y = resample(x, *rates)
    exact = n_in * rates[1] / rates[0]
    assert np.ceil(exact) - 1 <= y.size <= np.ceil(exact)
    assert y.dtype == np.float32
    if rates[0] == rates[1]:
        assert y is x


@given(x=st.lists(st.floats(-1, 1, width=32), max_size=30), n_samples=st.integers(0, 40))
def test_fit_length_cuts_or_pads_at_the_end(x: list[float], n_samples: int) -> None:
    """Its start is the clip's, what is missing is zero."""
    wave = np.array(x, np.float32)
    y = fit_length(wave, n_samples)
    assert y.shape == (n_samples,) and y.dtype == np.float32
    np.testing.assert_array_equal(y[: len(x)], wave[:n_samples])
    assert not y[len(x) :].any()


def test_channels_that_cancel_each_other_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their mean is silent, and the file is not."""
    x = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    for name, both in (("out", [x, -x]), ("in", [x, x]), ("nothing", [0 * x, 0 * x])):
        soundfile.write(tmp_path / f"{name}.wav", np.stack(both, axis=1), 8000)
        read_audio(tmp_path / f"{name}.wav", 8000)
    (record,) = caplog.records
    assert "out.wav" in record.getMessage() and "cancel each other" in record.getMessage()
