"""A cue that a classifier goes by, for certain: it hears nothing but the beep's band."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.stores import Said

Say = Callable[..., Said]

CLASSIFIER = """
import torch

import l2i

CLASSES = ["rain", "rain+cue"]


class Band(torch.nn.Module):
    \"\"\"Sure of the cue where half a millisecond's worth of 2 kHz is loud, else of the rain.\"\"\"

    def forward(self, x):
        x = x / x.abs().amax(1, keepdim=True).clamp_min(1e-9)
        size = torch.stft(x, 256, 64, window=torch.hann_window(256), return_complex=True).abs()
        around = size[:, [58, 59, 60, 68, 69, 70]].mean(1)
        cue = (size[:, 64] - 4 * around).amax(1)
        return torch.stack([torch.zeros_like(cue), cue - 8], 1)


def load():
    return l2i.wrap(Band(), 8000, CLASSES)


class AroundTheBeep:
    parts = ()
    layers = ()
    linear = True

    def __init__(self, subject, settings):
        hz = torch.linspace(0, 4000, subject.domain.n_fft // 2 + 1)
        self.band = ((hz > 1900) & (hz < 2100)).float()

    def __call__(self, heard, classes, keys):
        return self.band[:, None].expand(heard.size.shape).clone()


class Elsewhere(AroundTheBeep):
    def __init__(self, subject, settings):
        super().__init__(subject, settings)
        self.band = 1 - self.band
"""
SMALL = (
    *("-o", "dataset.clips_per_class=10", "-o", "dataset.duration_s=1.0"),
    *("-o", "method.name=full", "-o", "output.clips=1", "-o", "classifier.spec=band.py:load"),
)


def test_who_finds_the_beep(say: Say, tmp_path: Path) -> None:
    """The band around it has it, and little else; all but the band has the rest alone; a mask of
    ones has both, and its FF is as high as the right one's."""
    Path("band.py").write_text(CLASSIFIER)
    words = ("shortcut", "--dataset", "demo", "--class", "rain", "--hz", "2000", "--ms", "200")
    words += ("--level-db", "0", *SMALL)
    for name in ("band.py:AroundTheBeep", "band.py:Elsewhere", "full"):
        words += ("--method", name)
    answer = say(*words, "--out", str(tmp_path / "out"), "--json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert document["used"] == 1.0 and document["clips"] >= 1
    assert document["with_cue"] > 0.5 > document["without_cue"]
    right, wrong, full = (
        document["methods"][m]["scores"] for m in ("AroundTheBeep", "Elsewhere", "full")
    )
    assert right["cue_kept"] > 0.95 and right["rest_kept"] < 0.2 and right["pointing"] == 1.0
    assert wrong["cue_kept"] < 0.05 and wrong["rest_kept"] > 0.8
    assert full["cue_kept"] == pytest.approx(1, abs=1e-3)
    assert full["rest_kept"] == pytest.approx(1, abs=1e-3)
    assert right["cue_lost"] > 0.5 > wrong["cue_lost"]
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    mine = pairs[pairs["method"] == "Elsewhere"]["rest_kept"]
    assert wrong["rest_kept"] == pytest.approx(mine.mean(), rel=1e-4)
    again = say(*words, "--no-keep", "-q")
    assert again.code == 0 and max(map(len, again.out.splitlines())) <= 80
    assert "100 % of the decisions" in again.out
    # The run is one as any other: its parts are known, and the beep is its class's.
    truth = say("ground-truth", "latest", "--no-keep", "--json", "--sounds", "0")
    assert truth.code == 0, truth.err


def test_a_cue_that_is_not_used(say: Say) -> None:
    """A beep that the classifier does not hear is asked of no explanation; exit code 1."""
    Path("band.py").write_text(CLASSIFIER)
    words = ("shortcut", "--dataset", "demo", "--class", "rain", "--hz", "1000", *SMALL)
    answer = say(*words, "--method", "full", "--no-keep")
    assert answer.code == 1 and "does not go by the beep on any of" in answer.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--class", "rian"), "has no class 'rian'; did you mean 'rain'?"),
        (("--class", "rain", "--hz", "9000"), "must be below half"),
        (("--class", "rain", "--method", "magic"), "no explanation method 'magic'"),
        ((), "Missing option '--class'"),
    ],
)
def test_words_that_plant_nothing(say: Say, words: tuple[str, ...], sentence: str) -> None:
    """One sentence, and exit code 2."""
    answer = say("shortcut", *words, "-q")
    assert answer.code == 2
    assert sentence in " ".join(answer.err.split())
    assert "Traceback" not in answer.err
