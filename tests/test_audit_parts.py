"""Cues, groups, proofs and reports of an audit, each where the answer is known on paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import l2i
from l2i.audit import scan as scanning
from l2i.audit.audit import _nearness
from l2i.audit.changes import changes
from l2i.audit.cues import BANDS, SLICES, Cue, Palette, usual_size
from l2i.audit.groups import grouped
from l2i.audit.proof import Bench, Proof, Trial, prove, proved
from l2i.audit.report import lines
from l2i.audit.scan import Rows, scan
from l2i.audit.screening import _part_of, screen
from l2i.audit.settings import Settings
from l2i.audit.traits import Trait, traits_of
from l2i.audit.words import mistakes_of_one_recording, notes_of
from l2i.cli.audit import audit as command
from l2i.dsp.spectrogram import Domain
from l2i.errors import DataError, StoreError
from l2i.explanation import MethodSettings, Subject, make_method
from l2i.models.heard import Heard, hear
from l2i.types import Clip

DOMAIN = Domain(8000, 256, 64)
NOTHING = torch.zeros(DOMAIN.n_bins)


class _Loud(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[1] // 2
        return torch.stack([x[:, :half].square().sum(1), x[:, half:].square().sum(1)], dim=1)


def _subject() -> Subject:
    return Subject(l2i.wrap(_Loud(), 8000, ["first", "second"]), DOMAIN)


def _heard(x: np.ndarray[Any, Any]) -> Heard:
    return hear(_subject().classifier, torch.from_numpy(x.astype(np.float32)), DOMAIN)


def _palette(dictionary: torch.Tensor | None = None) -> Palette:
    return Palette(DOMAIN, dictionary, torch.device("cpu"))


@pytest.mark.parametrize("components", [0, 5])
def test_parts_add_up(components: int) -> None:
    """All components and all stretches of time are each the whole sound; so are the energies of its
    parts."""
    rng = np.random.default_rng(0)
    w = torch.from_numpy(rng.uniform(0.1, 1, (129, components))).float() if components else None
    palette = _palette(w)
    heard = _heard(rng.normal(size=(2, 4000)))
    taken = palette.take_apart(heard)
    whole = heard.waveform / heard.waveform.abs().amax(1, keepdim=True)
    for kind, count in (("component", components), ("time", SLICES)):
        some = [cue for cue in palette.cues if cue.kind == kind]
        assert len(some) == count
        if some:
            total = torch.stack([palette.sound(cue, heard, taken, NOTHING) for cue in some]).sum(0)
            torch.testing.assert_close(total, whole, atol=2e-5, rtol=0)
    power = heard.size.square()
    energies = palette.energies(taken, power)
    assert energies.shape == (2, components or BANDS)
    torch.testing.assert_close(energies.sum(1), power.sum((1, 2)), rtol=1e-4, atol=0)


@pytest.mark.parametrize("hz", [40, 400, 1234, 1500, 3800])
def test_a_tone_is_in_its_band(hz: int) -> None:
    """A band that is tried has all of it, wherever it is; and so has its stretch of time."""
    t = np.arange(4000) / 8000
    x = np.where((t > 0.25) & (t < 0.27), np.sin(2 * np.pi * hz * t), 0.0)
    palette = _palette()
    heard = _heard(x[None])
    taken = palette.take_apart(heard)
    size = heard.size
    whole = float(size.square().sum())
    share = palette.energies(taken, heard.size.square())[0] / whole
    best = palette.parts[int(share.argmax())]
    assert best.low_hz - 100 < hz < best.high_hz + 100
    kept = {
        cue: float((palette.gain(cue, taken, heard.size, NOTHING) * heard.size).square().sum())
        / whole
        for cue in palette.cues
    }
    band = max((cue for cue in kept if cue.kind == "band"), key=lambda cue: kept[cue])
    assert kept[band] > 0.9 and band.low_hz - 60 < hz < band.high_hz + 60
    assert max((c for c in kept if c.kind == "time"), key=lambda c: kept[c]).number == SLICES // 2


def test_a_band_is_left_as_it_usually_is() -> None:
    """Noise with a beep: what is cut out of the beep's band is the beep, and no hole is left; a
    hum that never ends is cut out down to what other clips have."""
    rng = np.random.default_rng(0)
    t = np.arange(8000) / 8000
    noise = 0.05 * rng.normal(size=8000)
    beep = np.where((t > 0.4) & (t < 0.5), np.sin(2 * np.pi * 1500 * t), 0.0)
    hum = np.sin(2 * np.pi * 1500 * t)
    palette, (band, *_) = (
        _palette(),
        [cue for cue in _palette().cues if cue.kind == "band" and cue.low_hz <= 1500 < cue.high_hz],
    )
    # At the noise's own level; what is heard is scaled to its peak.
    other = usual_size(_heard(noise[None])) * float(np.abs(noise).max())
    for cue_sound in (beep, hum):
        heard = _heard((noise + cue_sound)[None])
        peak = float(heard.waveform.abs().max())
        cut = palette.sound(band, heard, palette.take_apart(heard), other / peak)[0].numpy() * peak
        assert np.corrcoef(cut, cue_sound)[0, 1] > 0.97
        left = hear(
            heard.classifier, torch.from_numpy((noise + cue_sound - cut)[None]).float(), DOMAIN
        )
        level = left.size[0, 48].median() * float(left.waveform.abs().max())
        usual = _heard(noise[None])
        before = usual.size[0, 48].median() * float(usual.waveform.abs().max())
        assert 0.4 < float(level / before) < 2.5


@pytest.mark.parametrize(
    ("kind", "amount"),
    [("starts silent", 0.2), ("ends silent", 0.1), ("highs missing", 1000.0), ("off zero", -0.2)],
)
def test_traits_that_are_imposed_are_there(kind: Any, amount: float) -> None:
    """Noise has none; with one imposed it has that one, of about that amount, and no other."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 8000)).astype(np.float32))
    assert traits_of(x, 8000) == []
    (traits,) = traits_of(Trait(kind, amount).impose(x, 8000), 8000)
    assert traits.kind == kind
    assert traits.amount == pytest.approx(amount, rel=0.2)
    before, after = (Trait(kind, amount).measure(y, 8000) for y in (x, traits.impose(x, 8000)))
    assert bool((after > before).all())


def test_a_cue_is_as_quiet_as_it_is_in_the_whole_or_beside_the_loudest_moment() -> None:
    """A hum of a tenth of a bark's amplitude is 20 dB below it, though the bark is a hundredth of
    the clip and both have the same energy; a click of 50 ms that is as loud as a sound of ten times
    that is 10 dB below it."""
    t = np.arange(40000) / 8000
    bark = np.where(t < 0.05, np.sin(2 * np.pi * 1500 * t), 0.0)
    long = np.where(t < 0.5, np.sin(2 * np.pi * 1500 * t), 0.0)
    hum = 0.1 * np.sin(2 * np.pi * 500 * t)
    click = np.where((t >= 2) & (t < 2.05), np.sin(2 * np.pi * 500 * t), 0.0)
    bands = [cue for cue in _palette().cues if cue.kind == "band"]
    low = min(bands, key=lambda cue: abs(cue.low_hz + cue.high_hz - 1000))
    for loud, cue, db in ((bark, hum, -20), (long, click, -10)):
        x = np.stack([loud + cue] * 2).astype(np.float32)
        bench = Bench(_subject(), _palette(), 0, x, x, np.zeros(DOMAIN.n_bins, np.float32))
        _, level = bench.cue(low)
        assert level.tolist() == pytest.approx([db] * 2, abs=1.0)


class _OffZero(torch.nn.Module):
    """The second class is off zero; what begins at its peak is of the first whatever else it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        peak = x.abs().amax(dim=1)
        sure = 20 * (x.mean(dim=1) / peak - 0.1) - 100 * (x[:, 0].abs() >= peak)
        return torch.stack([torch.zeros_like(sure), sure], dim=1)


@pytest.mark.parametrize(("others", "tried"), [(0, True), (1, True), (2, False)])
def test_a_trait_is_tried_though_one_other_clip_has_it(others: int, tried: bool) -> None:
    """Six clips of the class are off zero, and so are some of six others, which the classifier
    knows by something else."""
    rng = np.random.default_rng(0)
    own, hosts = (rng.uniform(-0.5, 0.5, (6, 4000)).astype(np.float32) for _ in range(2))
    own += 0.3
    hosts[:others] += 0.4
    hosts[:others, 0] = 1.0
    subject = Subject(l2i.wrap(_OffZero(), 8000, ["plain", "off"]), DOMAIN)
    trials = screen(subject, _palette(), 1, own, hosts, Settings())
    kinds = [trial.cue.kind for trial in trials if isinstance(trial.cue, Trait)]
    assert kinds == (["off zero"] if tried else [])


class _Beep(torch.nn.Module):
    """The second class has a tone of 1 kHz, of which this classifier is never sure."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        power = torch.fft.rfft(x).abs().square()
        sure = 0.1 * torch.tanh(1000 * (power[:, 495:506].sum(1) / power.sum(1) - 0.01))
        return torch.stack([torch.zeros_like(sure), sure], dim=1)


@pytest.mark.parametrize(("excess", "tried"), [(0.25, True), (1.1, False)])
def test_what_changes_decisions_is_tried_however_little_probability(
    excess: float, tried: bool
) -> None:
    """A twentieth of the probability is all that the tone is worth, and every decision."""
    rng = np.random.default_rng(0)
    own, hosts = (0.1 * rng.standard_normal((6, 4000)).astype(np.float32) for _ in range(2))
    own += 0.03 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000).astype(np.float32)
    subject = Subject(l2i.wrap(_Beep(), 8000, ["plain", "beep"]), DOMAIN)
    trials = screen(subject, _palette(), 1, own, hosts, Settings(excess=excess))
    assert bool(trials) is tried
    for trial in trials[:1]:
        assert isinstance(trial.cue, Cue) and trial.cue.low_hz < 1000 < trial.cue.high_hz
        assert trial.effect < Settings().worth and trial.flips == 1.0


def test_a_band_within_another_is_no_cue_of_its_own() -> None:
    """Four neighbours that are one cue are not three more suspects."""
    palette = _palette()
    wide, narrow = palette.neighbours(10, 4), palette.neighbours(12, 2)
    assert _part_of(narrow, wide) and _part_of(wide, wide) and not _part_of(wide, narrow)
    assert not _part_of(palette.neighbours(13, 2), wide)
    stretch = next(cue for cue in palette.cues if cue.kind == "time")
    assert not _part_of(stretch, wide) and not _part_of(narrow, stretch)


def test_groups_are_those_there_are() -> None:
    """Two kinds of explanations, in whatever order; an even cloud is one; so are few, or none."""
    rng = np.random.default_rng(0)
    a = rng.dirichlet([50, 1, 1, 1], 30)
    b = rng.dirichlet([1, 1, 1, 50], 12)
    order = rng.permutation(42)
    parts = grouped(np.concatenate([a, b])[order])
    assert parts.count == 2 and parts.stability > 0.9 and parts.silhouette > 0.5
    assert (parts.members == (order >= 30)).all()
    assert grouped(rng.dirichlet([5, 5, 5, 5, 5, 5], 200)).count == 1
    assert grouped(a[:5]).count == 1
    assert grouped(np.zeros((0, 4))).count == 0
    assert np.isnan(grouped(a[:5]).stability)


def _proof(removal: int, control: int, n: int = 24, p: float = 0.001) -> Proof:
    flags = [np.arange(n) < k for k in (removal, control, 0, 0)]
    cue = _palette().cues[0]
    numbers = np.arange(n)
    return Proof(Trial(0, cue, -20.0, 0.5, 0.0, NOTHING.numpy()), numbers, numbers, *flags, p=p)


def test_what_is_a_suspect() -> None:
    """What changes more decisions than its control, by chance hardly ever, and by a quarter; p is
    corrected for how many were proved."""
    judged = proved([_proof(24, 1), _proof(5, 4), _proof(10, 9)], Settings())
    assert [bad for _, _, bad in judged] == [True, False, False]
    assert judged[0][0].excess == pytest.approx(23 / 24)
    assert judged[0][1] == pytest.approx(0.003)
    assert not any(bad for *_, bad in proved([_proof(24, 1, p=0.02)] * 3, Settings()))
    assert proved([], Settings()) == []


class _Silent(torch.nn.Module):
    """One class where a clip's end is silent, else one of two by its sign, whatever its end is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        end = x[:, -200:].abs().amax(1)
        sign = x[:, :100].sum(1)
        return torch.stack([10 * (0.01 - end), sign.sign() - 1, -sign.sign() - 1], dim=1)


def test_what_a_trait_is_held_against() -> None:
    """Silence at the end, imposed on others, makes them the class; that the others were of one
    other class before is no control."""
    clf = l2i.wrap(_Silent(), 8000, ["silent", "up", "down"])
    subject = Subject(clf, DOMAIN)
    x = np.random.default_rng(0).uniform(0.1, 1, size=(40, 2000)).astype(np.float32)
    x[:20, -300:] = 0
    trait = Trait("ends silent", 0.15)
    trial = Trial(0, trait, 0.0, 0.0, 0.9, NOTHING.numpy())
    (proof,) = prove(subject, _palette(), [trial], np.arange(20), np.arange(20, 40), lambda n: x[n])
    assert proof.insertion.all() and not proof.insertion_control.any()
    assert not len(proof.removal) and proof.excess == 1.0
    ((_, p, bad),) = proved([proof], Settings())
    assert bad and p < 0.001


def test_mistakes_of_one_recording() -> None:
    """Four of five mistakes in a recording of five clips among a hundred is no chance; mistakes
    that are spread are."""
    recordings = [f"r{i // 5}" for i in range(100)]
    wrong = np.zeros(100, bool)
    wrong[[10, 11, 12, 13, 60]] = True
    mistakes = mistakes_of_one_recording(wrong, recordings)
    assert mistakes is not None
    assert (mistakes["recording"], mistakes["mistakes"], mistakes["all"]) == ("r2", 4, 5)
    wrong[:] = False
    wrong[::20] = True
    assert mistakes_of_one_recording(wrong, recordings) is None


@pytest.mark.parametrize("same", [4, 6])
def test_a_method_that_fails_is_named_not_the_classes(same: int) -> None:
    """Where fewer than half of the explanations are taken for their class, one sentence says that
    of the method; else each class whose explanations are another's has its own."""
    n = 10
    nothing, whole = np.zeros(n, np.float32), np.zeros(n, np.int64)
    alone_as = np.array([0] * same + [1] * (n - same))
    many = np.zeros((n, 2), np.float32)
    rows = Rows(
        *(np.arange(n), whole, whole + 1, nothing, nothing, alone_as, nothing, many, many),
        np.zeros((n, 16), np.float32),
    )
    facts = {"class": "dog", "alone_other": {"class": "cat", "share": 0.6}, "groups": [{}]}
    document = {"classes": [facts | {"components": []}], "mistakes": [], "method": "saliency"}
    (note,) = notes_of(document, ["dog", "cat"], rows, None, [Clip(str(i), ()) for i in range(n)])
    if same < 5:
        assert note.startswith("Heard alone, 40 % of the explanations") and "saliency" in note
    else:
        assert note.startswith("60 % of the explanations of dog are taken for cat")


def test_the_nearest_class_has_this_one_for_its_second_guess() -> None:
    """Three clips of four of class 0 have class 1 for their second guess; all of class 2 have class
    0, and none of class 1."""
    classes, second = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([1, 1, 1, 2, 2, 2, 0, 0])
    nothing = np.zeros(len(classes), np.float32)
    many = np.zeros((len(classes), 2), np.float32)
    rows = Rows(np.arange(8), classes, second, nothing, nothing, classes, nothing, many, many, many)
    assert [int(_nearness(rows, c).argmax()) for c in range(3)] == [2, 2, 0]


class TestScan:
    """The pass over all clips."""

    @staticmethod
    def _scan(folder: Path, x: np.ndarray[Any, Any], read: Any = None) -> tuple[Rows, list[int]]:
        subject = _subject()
        way = make_method("full", subject, MethodSettings())
        seen: list[int] = []
        read = read or (lambda some: x[some])
        return scan(subject, way, _palette(), read, len(x), folder, seen.append), seen

    def test_it_goes_on_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stopped in the second of three shards: the first is not heard again, and all rows are as
        if it had not been stopped. Silence has no row."""
        monkeypatch.setattr(scanning, "SHARD", 8)
        x = np.random.default_rng(0).normal(size=(20, 2000)).astype(np.float32)
        x[3] = 0
        whole, seen = self._scan(tmp_path / "a", x)
        assert seen == [8, 8, 4]
        assert whole.clip.tolist() == [n for n in range(20) if n != 3]
        assert np.allclose(whole.evidence.sum(1), 1, atol=1e-4)
        assert np.allclose(whole.when.sum(1), 1, atol=1e-4)
        assert np.allclose(whole.kept, 1, atol=1e-4)

        def stopped(some: slice) -> np.ndarray[Any, Any]:
            if some.start >= 8:
                raise KeyboardInterrupt
            return x[some]

        with pytest.raises(KeyboardInterrupt):
            self._scan(tmp_path / "b", x, stopped)
        heard: list[int] = []

        def rest(some: slice) -> np.ndarray[Any, Any]:
            heard.append(some.start)
            return x[some]

        again, _ = self._scan(tmp_path / "b", x, rest)
        assert min(heard) == 8
        for name, values in vars(whole).items():
            np.testing.assert_array_equal(getattr(again, name), values)

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        """One sentence that names it."""
        x = np.random.default_rng(0).normal(size=(4, 2000)).astype(np.float32)
        self._scan(tmp_path, x)
        (path,) = tmp_path.glob("*.npz")
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(StoreError, match=r"clips-0.*damaged"):
            self._scan(tmp_path, x)


def _document(**more: Any) -> dict[str, Any]:
    suspect = {
        "class": "dog",
        "where": {"kind": "band", "number": 3, "low_hz": 900.0, "high_hz": 1100.0}
        | {"start": 0.0, "end": 1.0},
        "sentence": "dog: the band, 900 Hz to 1.1 kHz.",
    }
    spectrum = [0, 100, 0, 0]
    return {
        "schema": 1,
        "run": {"id": "1", "name": "one"},
        "suspects": [suspect],
        "classes": [{"class": "dog", "spectrum": spectrum}, {"class": "cat", "spectrum": spectrum}],
        "settings": {"false_alarms": 0.05},
        "tested": 4,
        "notes": [],
        **more,
    }


def test_what_changed(tmp_path: Path) -> None:
    """A suspect at another number of a dictionary and the same place is the same; at another place
    it is new, and the old one gone. A class whose evidence is elsewhere moved."""
    old = _document()
    place = {"kind": "component", "number": 7, "low_hz": 950.0, "high_hz": 1400.0}
    same = {**old["suspects"][0], "where": place | {"start": 0.0, "end": 1.0}}
    elsewhere = {**same, "where": {**same["where"], "low_hz": 3000.0, "high_hz": 3100.0}}
    moved = [{"class": "dog", "spectrum": [50, 50, 0, 0]}, {"class": "bird", "spectrum": [1, 0]}]
    documents = {
        "old": old,
        "same": _document(suspects=[same]),
        "new": _document(suspects=[elsewhere], classes=moved),
    }
    for name, document in documents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "audit.json").write_text(json.dumps(document))
    differences = changes(str(tmp_path / "old"), str(tmp_path / "same"))
    assert (differences["new"], differences["gone"], len(differences["stayed"])) == ([], [], 1)
    assert differences["moved"] == []
    differences = changes(str(tmp_path / "old"), str(tmp_path / "new" / "audit.json"))
    assert [len(differences[key]) for key in ("new", "gone", "stayed")] == [1, 1, 0]
    assert differences["moved"] == [{"class": "dog", "share": 0.5}]
    assert differences["missing"] == ["bird", "cat"]
    (tmp_path / "new" / "audit.json").write_text("{}")
    with pytest.raises(DataError, match="is no audit"):
        changes(str(tmp_path / "old"), str(tmp_path / "new"))


def test_an_audit_that_proved_nothing_says_so() -> None:
    """That there is no suspect is no finding then."""
    first, second, *_ = lines(_document(suspects=[], tested=0))
    assert first == "No suspect." and second.startswith("No cue had a counter-proof")


def test_twenty_lines() -> None:
    """However many suspects and notes there are."""
    one = _document()["suspects"][0]
    many = _document(suspects=[one] * 30, notes=[f"Note {n}." for n in range(30)])
    assert len(lines(many)) <= 20
    assert "and 22 more" in " ".join(lines(many)) and "Note 0." in lines(many)
    none = lines(_document(suspects=[]))
    assert none[0].startswith("No suspect") and "5 % of audits" in none[1]


def test_the_command_has_the_defaults_of_the_audit() -> None:
    """They stand in its help, which waits for no import of the audit's."""
    usual = {parameter.name: parameter.default for parameter in command.params}
    for name in ("quiet_db", "false_alarms"):
        assert usual[name] == getattr(Settings(), name)
