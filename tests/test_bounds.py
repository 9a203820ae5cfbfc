"""Oracles, class blocks and loud components: bands of tones whose masks are known on paper."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import l2i
from l2i.errors import DataError, UsageError
from l2i.explanation import MethodSettings, make_method
from l2i.models.heard import Heard, hear
from l2i.recipes.measuring.truth import Part, Scene, judge_scenes
from l2i.run.progress import Progress
from l2i.training.class_dictionary import CLASS_DICTIONARY, ClassBlocks
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage
from tests.guests import load, sounds
from tests.toys import SAMPLES, SETTINGS, ToneClassifier, band_dictionary, tone, tone_subject

TOLD = MethodSettings()


def _heard(loud: float = 1.0, soft: float = 0.5) -> Heard:
    return hear(
        tone_subject().classifier, (loud * tone(2) + soft * tone(5))[None], SETTINGS.domain, ()
    )


def _scene(soft: float = 0.5) -> Scene:
    parts = (Part(tone(2).numpy(), frozenset({2})), Part(tone(5, soft).numpy(), frozenset({5})))
    return Scene("two", 0, parts)


@pytest.mark.parametrize("name", ["oracle-ratio", "oracle-nmf"])
def test_an_oracle_takes_tones_apart(name: str) -> None:
    """Each of two tones, and nothing of the other but what the clip's ends leak; a class that no
    part carries is explained by nothing."""
    rows = judge_scenes(tone_subject(), name, TOLD, [_scene()], lambda *_: [2, 5, 7])
    assert rows["si_sdr_improvement"][0] > 20 and rows["si_sdr_improvement"][1] > 20
    assert rows["class_left"][:2] == pytest.approx([0, 0], abs=0.2)
    assert (rows["other_left"][:2] < -25).all()
    assert rows["present"].tolist() == [True, True, False] and rows["kept"][2] == 0


@pytest.mark.parametrize(("name", "wanted"), [("oracle-ratio", 0.75), ("oracle-nmf", None)])
def test_an_oracle_of_one_bin(name: str, wanted: float | None) -> None:
    """Where both parts sound in one band, three to one: the share of magnitudes is 3/4, that of
    activations what the logarithm makes of them."""
    a, b = 0.75 * tone(4)[None], 0.25 * tone(4)[None]
    heard = hear(tone_subject().classifier, a + b, SETTINGS.domain, ())
    heard = replace(heard, parts=(a, b))
    mask = make_method(name, tone_subject(), TOLD)(heard, torch.tensor([4]), [0])
    centre, frame = 3 * 4 + 1, 50
    size = float(heard.size[0, centre, frame])
    if wanted is None:
        band = heard.size[0, 12:15, frame].tolist()
        a_, b_ = (sum(math.log1p(share * x) for x in band) for share in (0.75, 0.25))
        wanted = a_ / (a_ + b_)
    assert size > 1 and float(mask[0, centre, frame]) == pytest.approx(wanted, abs=1e-3)


def test_rows_stay_with_their_parts() -> None:
    """Clips that are taken in another order, or copied, keep what is known of each."""
    x = torch.stack([tone(2), tone(5)])
    heard = hear(tone_subject().classifier, x, SETTINGS.domain, ())
    heard = replace(heard, parts=(x, 0 * x)).take([1, 0]).copied()
    assert heard.parts is not None and torch.equal(heard.parts[0], x[[1, 0]])


@pytest.mark.parametrize("name", ["oracle-ratio", "oracle-nmf"])
def test_an_oracle_without_parts(name: str) -> None:
    """One sentence: of a clip alone, and of a scene that is one part."""
    way = make_method(name, tone_subject(), TOLD)
    with pytest.raises(UsageError, match="needs the known parts of a mixture"):
        way(_heard(), torch.tensor([2]), [0])
    scene = Scene("one", 0, (Part(tone(2).numpy(), frozenset({2})),))
    with pytest.raises(UsageError, match=r"l2i benchmark --protocol mix0"):
        judge_scenes(tone_subject(), name, TOLD, [scene], lambda *_: [2])


def test_the_class_has_its_own_block() -> None:
    """Bands 2 and 5 are blocks of classes 0 and 1: each class has its tone wholly, a class without
    a block nothing."""
    subject = tone_subject()
    owners = torch.full((11,), -1)
    owners[2], owners[5] = 0, 1
    parts = {**subject.parts, "class-dictionary": ClassBlocks(band_dictionary(), owners)}
    way = make_method("nmf-classes", replace(subject, parts=parts), TOLD)
    masks = way(_heard().take([0, 0, 0]), torch.tensor([0, 1, 3]), [0, 0, 0])
    for row, band in ((0, 2), (1, 5)):
        own = masks[row, 3 * band : 3 * band + 3]
        torch.testing.assert_close(own, torch.ones_like(own))
        rest = masks[row].sum() - own.sum()
        assert float(rest) == pytest.approx(0, abs=1e-4)
    assert not masks[2].any()


def test_blocks_of_other_names() -> None:
    """Classes are matched by their names, however they are written; of none that the classifier
    has, one sentence."""
    w = band_dictionary()[:, :3]
    context: Any = SimpleNamespace(
        classifier=SimpleNamespace(classes=("rain", "Crying baby")),
        domain=SETTINGS.domain,
        device=torch.device("cpu"),
    )
    s = SETTINGS
    told = {
        "names": ["crying_baby", "dog"],
        "classes": [0, 0, 1],
        "spectrogram": {
            "sample_rate": s.sample_rate,
            "n_fft": s.n_fft,
            "hop_length": s.hop_length,
        },
    }
    blocks = CLASS_DICTIONARY.load({"W": w}, told, Path("x"), context)
    assert blocks.owners.tolist() == [1, 1, -1] and torch.equal(blocks.w, w)
    context.classifier.classes = ("rain",)
    with pytest.raises(UsageError, match=r"none of the classes of x \(crying_baby, dog\)"):
        CLASS_DICTIONARY.load({"W": w}, told, Path("x"), context)


def test_blocks_need_labels() -> None:
    """Sounds without labels are refused before anything is learnt."""
    with pytest.raises(UsageError, match="have no labels"):
        l2i.fit(load(), sounds(12), "nmf-classes")


def test_blocks_of_too_few_frames(tmp_path: Path) -> None:
    """What is to be lowered is the block's own setting, of clips too short and of silent ones."""
    silence = np.zeros((2, SAMPLES), np.float32)
    clips = Sounds(silence, np.arange(2), np.arange(0), ("a", "b"), ((0,), (1,)))
    told = CLASS_DICTIONARY.settings(each=1000)
    with pytest.raises(DataError, match=r"only 101 frames; set parts\.class-dict.*each low"):
        CLASS_DICTIONARY.check(told, clips, SETTINGS.domain)
    cpu, quiet = torch.device("cpu"), Progress(quiet=True)
    clf: Any = ToneClassifier()
    context = Context(clf, SETTINGS.domain, clips, 0, cpu, torch.float32, quiet)
    with pytest.raises(DataError, match=r"not silent; set parts\.class-dictionary\.each lower"):
        CLASS_DICTIONARY.fit(CLASS_DICTIONARY.settings(), context, Stage("x", tmp_path))


@pytest.mark.parametrize("soft", [0.25, 0.5, 0.9])
def test_loud_components_have_half_of_the_energy(soft: float) -> None:
    """Half of the energy to rounding; the louder tone's component is opened, the softer one's is
    not, since the first has more than half."""
    heard = _heard(1.0, soft)
    way = make_method("loudest-components", tone_subject(), TOLD)
    mask = way(heard, torch.tensor([0]), [0])
    energy = heard.size.square()
    assert float((mask.square() * energy).sum() / energy.sum()) == pytest.approx(0.5, abs=1e-3)
    assert float(mask[0, 7, 50]) > 0.7 and float(mask[0, 16].amax()) == 0
    open_ = np.sqrt(0.5 * (1 + soft**2))
    assert float(mask[0, 7, 50]) == pytest.approx(open_, abs=0.02)
