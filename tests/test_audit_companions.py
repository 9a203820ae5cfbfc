"""Two sounds that together are taken for a third, and tones that are the same in all clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import l2i
from l2i.audit.audit import _near_clips
from l2i.audit.changes import _same
from l2i.audit.companions import prove_companion, screen_companions
from l2i.audit.cues import Companion, Palette, fixed_tone
from l2i.audit.page import suspect_entry
from l2i.audit.planted import at_place
from l2i.audit.proof import Proof, Trial, prove, proved
from l2i.audit.report import suspect_facts
from l2i.audit.scan import Rows
from l2i.audit.screening import _joined, screen
from l2i.audit.settings import Settings
from l2i.audit.traits import Trait
from l2i.dsp.spectrogram import Domain
from l2i.explanation import Subject
from l2i.models.heard import hear

RATE = 8000
DOMAIN = Domain(RATE, 256, 64)
NAMES = ["rain", "siren", "bird", "bark", "both"]
# What each of the first four classes sounds like, Hz.
TONES = (500, 1000, 2000, 3000)


class _Bands(torch.nn.Module):
    """By which tones are in a clip: one of four, or where `together` says so, the fifth."""

    def __init__(self, together: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.together = together

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(x).abs().square()
        power = power / power.sum(1, keepdim=True).clamp_min(1e-20)
        bins = [round(hz * x.shape[1] / RATE) for hz in TONES]
        levels = torch.stack([power[:, b - 2 : b + 3].sum(1) for b in bins], dim=1)
        fifth = 10.0 * self.together(levels > 0.1)
        return torch.cat([5 * levels, fifth.unsqueeze(1)], dim=1)


def _pair(there: torch.Tensor) -> torch.Tensor:
    return (there[:, 0] & there[:, 1]).float()


def _any_two(there: torch.Tensor) -> torch.Tensor:
    return (there.sum(1) >= 2).float()


def _siren(there: torch.Tensor) -> torch.Tensor:
    """The second one in any company."""
    return (there[:, 1] & (there.sum(1) >= 2)).float()


def _clips(per_class: int = 20) -> NDArray[np.float32]:
    """So many clips of each of the four, of different levels."""
    t = np.arange(2000) / RATE
    rng = np.random.default_rng(0)
    tones = [np.sin(2 * np.pi * (hz * t + rng.uniform())) for hz in TONES for _ in range(per_class)]
    return np.stack([rng.uniform(0.1, 1) * x for x in tones]).astype(np.float32)


def _proved(together: Any, classes: int = 4) -> tuple[Trial | None, Proof | None, Subject, Any]:
    x, s = _clips(), Settings()
    subject = Subject(l2i.wrap(_Bands(together), RATE, NAMES), DOMAIN)
    clips = {c: np.arange(20 * c, 20 * (c + 1)) for c in range(classes)}

    def read(numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        return x[numbers]

    trial = screen_companions(subject, 4, clips, read, s)
    if trial is None:
        return None, None, subject, read
    rng = np.random.default_rng(0)
    own = np.arange(3)
    return trial, prove_companion(subject, trial, own, clips, read, s, rng), subject, read


def test_two_sounds_that_are_taken_for_a_third() -> None:
    """Rain and siren together are `both`, and no other two are: that pair is put to proof, all of
    its mixtures become the class, and none with a third in place of either."""
    trial, proof, subject, read = _proved(_pair)
    assert trial is not None and proof is not None and proof.beside is not None
    assert trial.cue == Companion((0, 1)) and trial.insertion > 0.9
    assert proof.insertion.all() and not proof.insertion_control.any()
    # What was tried is not proved.
    assert set(proof.hosts.tolist()) == set(range(6, 20))
    assert set(proof.beside.tolist()) == set(range(26, 40))
    ((_, p, bad),) = proved([proof], Settings())
    assert bad and p < 0.001
    facts = suspect_facts(proof, p, NAMES, [str(n) for n in range(80)], 1.0)
    assert facts["where"] == {"kind": "companion", "sounds": ["rain", "siren"]}
    assert facts["sentence"].startswith("both: siren beside rain. 14 of 14 clips of rain become")
    host, beside = read(proof.hosts[:1])[0], read(proof.beside[:1])[0]
    palette = Palette(DOMAIN, None, torch.device("cpu"))
    entry, _ = suspect_entry(facts, proof, subject, palette, host, host, beside)
    assert entry["says"]["host"].startswith("0 %") or entry["says"]["host"].startswith("1 %")
    assert entry["says"]["mixed"].startswith("100 %")
    assert entry["says"]["removal"] == "not for this one"


@pytest.mark.parametrize("together", [_any_two, _siren])
def test_a_class_that_all_mixtures_fall_into(together: Any) -> None:
    """The control falls into it as well, and it is no suspect."""
    _, proof, *_ = _proved(together)
    assert proof is not None and proof.insertion.all() and proof.insertion_control.all()
    assert not any(bad for *_, bad in proved([proof], Settings()))


def test_nothing_to_mix_with() -> None:
    """No pair does anything; or there is no further class for a control."""
    assert _proved(lambda there: torch.zeros(len(there)))[0] is None
    trial, proof, *_ = _proved(_pair, classes=2)
    assert trial is not None and proof is None
    assert _proved(_pair, classes=1)[0] is None


def test_which_clips_are_mixed() -> None:
    """Those of classes that have enough, none that is of the class too, the nearest class first."""
    classes = np.repeat([0, 1, 2, 3], [12, 12, 12, 3])
    clip = np.concatenate([np.arange(12), np.arange(10, 22), np.arange(22, 37)])
    second = np.concatenate([[2] * 12, [0] * 12, [0] * 15])
    nothing, many = np.zeros(39, np.float32), np.zeros((39, 2), np.float32)
    rows = Rows(clip, classes, second, nothing, nothing, classes, nothing, many, many, many)
    clips = _near_clips(rows, 0, replace(Settings(), tried=4), np.random.default_rng(0))
    assert list(clips) == [2, 1]
    assert sorted(clips[1]) == list(range(12, 22)) and sorted(clips[2]) == list(range(22, 34))


@pytest.mark.parametrize(
    ("hz", "seconds", "expected"),
    [
        ([1000.0] * 4, 1.0, 1000.0),
        ([1000.0] * 4, 0.1, 1000.0),
        ([50.0] * 4, 1.0, 50.0),
        ([1000.0, 1100.0, 1000.0, 900.0], 1.0, None),
        ([0.0] * 4, 1.0, None),
    ],
)
def test_a_tone_that_is_the_same_in_all(
    hz: list[float], seconds: float, expected: float | None
) -> None:
    """However long it is; not where one clip's is another, nor where it is a constant."""
    t = np.arange(RATE) / RATE
    on = (t >= 0.3) & (t < 0.3 + seconds)
    x = np.stack([np.cos(2 * np.pi * f * t) * on * np.hanning(RATE) for f in hz])
    tone = fixed_tone(torch.from_numpy(x).float(), RATE)
    assert tone == (None if expected is None else pytest.approx(expected, rel=0.02))


def test_what_is_a_tone_beside_others() -> None:
    """Mains hum has several, of which the strongest is told; noise has none, nor has noise with a
    tone that is weaker."""
    t = np.arange(RATE) / RATE
    hum = sum(0.5**k * np.sin(2 * np.pi * (k + 1) * 50 * t) for k in range(3))
    noise = np.random.default_rng(0).normal(size=(4, RATE))

    def tone(x: NDArray[np.floating]) -> float | None:
        return fixed_tone(torch.from_numpy(np.broadcast_to(x, (4, RATE)).copy()), RATE)

    assert tone(hum) == pytest.approx(50)
    assert tone(hum + 0.01 * noise) == pytest.approx(50)
    assert tone(noise) is None and tone(noise + hum) is None


def test_neighbours_are_one_cue() -> None:
    """Bands in a row that each do something are joined, those apart are not; all of a sound that is
    in them is cut out."""
    palette = Palette(DOMAIN, None, torch.device("cpu"))
    wide = [cue for cue in palette.cues if cue.kind == "band"]
    one, two = _joined(palette, [wide[k] for k in (3, 4, 5, 9, 12, 13)])
    assert (one.number, one.bands, two.number, two.bands) == (3, 4, 12, 3)
    assert one.low_hz == pytest.approx(wide[3].low_hz, abs=40)
    assert one.high_hz == pytest.approx(wide[5].high_hz, abs=40)
    t = np.arange(8000) / RATE
    beep = (t > 0.4) & (t < 0.5)
    hz = np.linspace(one.low_hz + 40, one.high_hz - 40, 4)
    x = sum(np.sin(2 * np.pi * f * t) for f in hz) * beep
    clf = l2i.wrap(_Tone(), RATE, ["plain", "beep"])
    heard = hear(clf, torch.from_numpy(np.float32([x])), DOMAIN)
    nothing = torch.zeros(DOMAIN.n_bins)
    shares = []
    for cue in (one, wide[4]):
        sound = palette.sound(cue, heard, palette.take_apart(heard), nothing)[0].numpy()
        shares.append(np.square(sound).sum() / np.square(x / np.abs(x).max()).sum())
    assert shares[0] == pytest.approx(1, abs=0.02) and shares[1] < 0.9


def test_what_never_stops_is_a_cue() -> None:
    """A hum under thuds of the same frequencies: what is cut out is the hum, and where it lies is
    told; where other clips have the same, there is nothing."""
    rng = np.random.default_rng(0)
    t = np.arange(16000) / RATE
    hum = 0.05 * np.sin(2 * np.pi * 250 * t)
    at = rng.uniform(0, 1.8, (6, 5, 1))
    thuds = (np.exp(-30 * (t - at)) * np.sin(2 * np.pi * 240 * (t - at)) * (t > at)).sum(axis=1)
    noise = 0.001 * rng.normal(size=(6, 16000))
    clf = l2i.wrap(_Tone(), RATE, ["plain", "beep"])
    palette = Palette(DOMAIN, None, torch.device("cpu"))
    heard = hear(clf, torch.from_numpy(np.float32(thuds + noise + hum)), DOMAIN)
    taken = palette.take_apart(heard)
    usual = torch.full((DOMAIN.n_bins,), 1e-3)
    cue = palette.steady(heard, taken, usual)
    assert cue.kind == "steady" and 180 < cue.low_hz < cue.high_hz < 320
    sound = palette.sound(cue, heard, taken, usual).numpy()
    peaks = heard.waveform.abs().amax(1).numpy()
    for cut, peak in zip(sound, peaks, strict=True):
        quiet = np.corrcoef(cut, hum)[0, 1]
        assert quiet > 0.7 and 0.5 < np.std(cut) * peak / np.std(hum) < 1.3
    same = palette.gain(cue, taken, heard.size, heard.size.amax(dim=(0, 2)))
    assert float(same.max()) == 0


@pytest.mark.parametrize(("flips", "bad"), [(16, False), (18, True)])
def test_most_mixtures_must_be_taken_for_the_class(flips: int, bad: bool) -> None:
    """A quarter of them, which is enough for a part of a sound, may sound like it by chance."""
    numbers, nothing = np.arange(24), np.zeros(0, bool)
    columns = nothing, nothing, numbers < flips, numbers < 1
    for cue, suspect in ((Companion((0, 1)), bad), (Trait("ends silent", 0.2), True)):
        proof = Proof(Trial(2, cue, 0.0, 0.0, 0.6), numbers, numbers, *columns, p=0.001)
        assert proved([proof], Settings())[0][2] is suspect


class _Tone(torch.nn.Module):
    """The second class where 1 kHz stands out of what is around it, or where 900 Hz does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = torch.stft(x, 256, 64, window=torch.hann_window(256), return_complex=True).abs()
        level = (size[:, 26:36].amax((1, 2)) / size.amax((1, 2))).clamp_min(1e-9)
        return torch.stack([torch.zeros_like(level), 20 * (level - 0.5)], dim=1)


@pytest.mark.parametrize("same", [True, False])
def test_a_loud_tone_is_tried_where_it_is_the_same(same: bool) -> None:
    """A beep is most of the sound. As one tone it is tried, proved, and a suspect; where each clip
    has one of its own it may be the class's sound."""
    rng = np.random.default_rng(0)
    t = np.arange(4000) / RATE
    noise = 0.02 * rng.normal(size=(60, 4000))
    # What else is heard: another frequency in each clip.
    noise += [0.3 * np.sin(2 * np.pi * hz * t) for hz in rng.uniform(2000, 3500, 60)]
    hz = np.full(30, 1000.0) if same else rng.uniform(850, 1080, 30)
    beep = np.where((t > 0.1) & (t < 0.3), np.sin(2 * np.pi * hz[:, None] * t), 0.0)
    x = np.concatenate([noise[:30] + beep, noise[30:]]).astype(np.float32)
    subject = Subject(l2i.wrap(_Tone(), RATE, ["plain", "beep"]), DOMAIN)
    palette = Palette(DOMAIN, None, torch.device("cpu"))
    s = Settings()
    trials = screen(subject, palette, 1, x[:6], x[30:36], s)
    loud = [trial for trial in trials if trial.level_db > s.quiet_db]
    assert bool(loud) is same
    if same:
        assert loud[0].tone_hz == pytest.approx(1000, rel=0.02)
        own, hosts = np.arange(6, 30), np.arange(36, 60)
        proofs = prove(subject, palette, loud[:1], own, hosts, lambda n: x[n])
        ((proof, p, bad),) = proved(proofs, s)
        assert bad
        facts = suspect_facts(proof, p, ["plain", "beep"], [str(n) for n in range(60)], 0.5)
        assert "a tone of 1" in facts["words"] and "the same in all clips" in facts["words"]


def test_companions_are_where_their_sounds_are() -> None:
    """Both classes must be named, in whichever order; a band of one of them is another suspect."""
    place: dict[str, Any] = {"low_hz": 500, "high_hz": 900, "start": 0, "end": 1, "top_hz": 4000}
    place |= {"trait": None, "sounds": {"rain", "siren"}}
    pair = {"kind": "companion", "sounds": ["siren", "rain"]}
    assert at_place(pair, place)
    assert not at_place({**pair, "sounds": ["siren", "bird"]}, place)
    assert not at_place(pair, {**place, "sounds": None})
    band = {"kind": "band", "low_hz": 500, "high_hz": 900, "start": 0, "end": 1}
    one, other = ({"class": "both", "where": w} for w in (pair, band))
    assert _same(one, {"class": "both", "where": {**pair, "sounds": ["rain", "siren"]}})
    assert not _same(one, other) and not _same(other, one)
