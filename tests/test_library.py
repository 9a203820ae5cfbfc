"""`import l2i`: explanations of any classifier in Python, and the same from the shell."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import l2i
from l2i.errors import DataError, StoreError, UsageError
from l2i.recording import Recording
from tests.stores import Said
from tests.test_gates import HIGH, LOW, RATE, TwoTones, _energy, _tone

Say = Callable[..., Said]
FAST = {"components": 6, "steps": 12}


@pytest.fixture
def clip() -> np.ndarray:
    """A low tone, then a high one, for a while both."""
    t = np.arange(RATE) / RATE
    noise = 0.003 * np.random.default_rng(0).standard_normal(RATE)
    x = _tone(LOW).numpy() * (t < 0.6) + _tone(HIGH).numpy() * (t > 0.4) + noise
    return x.astype(np.float32)


def _classifier() -> l2i.models.wrapped.Wrapped:
    return l2i.wrap(TwoTones(), RATE, ["low", "high"], "multi-label")


def test_import_is_light() -> None:
    """Neither torch nor MLflow, until something is asked for; the names are there for all that."""
    code = (
        "import sys, l2i; assert not {'torch', 'mlflow', 'numpy', 'click'} & set(sys.modules);"
        "assert {'wrap', 'explain', 'Explained'} <= set(dir(l2i));"
        "l2i.wrap; assert 'torch' in sys.modules and 'mlflow' not in sys.modules;"
        "l2i.explain; assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        _ = l2i.explian


def test_an_explanation(clip: np.ndarray, tmp_path: Path) -> None:
    """Its parts add up; what it says of the classes is what the classifier says of its sounds; what
    is saved is what there is."""
    clf = _classifier()
    e = l2i.explain(clf, clip, target="high", **FAST)
    assert np.abs(e.audio + e.removal - e.input).max() < 1e-6
    np.testing.assert_array_equal(e.input, clip)
    for k, x in enumerate((e.input, e.audio, e.removal)):
        p = clf.probabilities(clf.logits(torch.from_numpy(x[None])))[0]
        assert [q[k] for q in e.probabilities.values()] == pytest.approx(p.tolist(), abs=1e-5)
    assert e.target == "high" and e.method == "gates" and 0 < e.kept < 1
    assert _energy(torch.from_numpy(e.audio), HIGH) > 10 * _energy(torch.from_numpy(e.audio), LOW)
    assert sum(c.share for c in e.components) == pytest.approx(1.0, abs=1e-5)
    assert [c.share for c in e.components] == sorted((c.share for c in e.components), reverse=True)
    assert abs(e.components[0].peak_hz - HIGH) < 2 * e.domain.sample_rate / e.domain.n_fft
    assert e.holds and "the explanation holds" in str(e) and e.warnings == []

    e.save(tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {
        *("original.wav", "explanation.wav", "removal.wav", "explanation.json", "index.html"),
        ".l2i",
    }
    facts = json.loads((tmp_path / "out" / "explanation.json").read_text())
    assert facts["class"] == "high" and facts["probability"]["removal"] == pytest.approx(
        e.probabilities["high"].removal
    )
    sounds = [soundfile.read(tmp_path / "out" / f"{n}.wav")[0] for n in ("explanation", "removal")]
    whole, rate = soundfile.read(tmp_path / "out" / "original.wav")
    assert rate == RATE and np.abs(sum(sounds) - whole).max() < 3 / 2**15
    page = e._repr_html_()
    assert page.count("<audio") == 3 and page.count("<img") == 2


def test_what_is_there_is_left(clip: np.ndarray, tmp_path: Path) -> None:
    """A folder with other things in it is refused; an explanation of ours is renewed."""
    e = l2i.explain(_classifier(), clip, "high", **FAST)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "original.wav").write_text("mine")
    with pytest.raises(StoreError, match="holds other things than an explanation"):
        e.save(tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["original.wav"]
    assert e.save(tmp_path / "out") == e.save(str(tmp_path / "out"))


def test_files_tensors_and_batches(clip: np.ndarray, tmp_path: Path) -> None:
    """A file of another rate, a list of files, a tensor, a batch with targets of its own; without
    one, the class that the classifier finds likeliest."""
    clf = _classifier()
    quiet = (0.2 * clip).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", clip, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", np.repeat(quiet, 2), 2 * RATE)
    one = l2i.explain(clf, tmp_path / "a.wav", target=1, **FAST)
    assert one.target == "high" and one.input.shape == (RATE,)
    two = l2i.explain(clf, [tmp_path / "a.wav", tmp_path / "b.wav"], "low", **FAST)
    assert [e.target for e in two] == ["low", "low"] and two[1].input.shape == (RATE,)
    batch = torch.from_numpy(np.stack([clip, quiet]))
    many = l2i.explain(clf, batch, target=["low", None], **FAST)
    best = int(clf.logits(batch)[1].argmax())
    assert [e.target for e in many] == ["low", clf.classes[best]]
    np.testing.assert_allclose(many[0].mask, two[0].mask, atol=0.02)
    slow = l2i.explain(clf, np.repeat(clip, 2), "low", sample_rate=2 * RATE, **FAST)
    assert slow.input.shape == (RATE,) and slow.sample_rate == RATE


def test_an_explanation_that_does_not_hold(clip: np.ndarray) -> None:
    """A classifier that hears nothing of the sound: removing what was found changes nothing, and
    the explanation says so; silence is said to be silent."""

    class Deaf(TwoTones):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 1e-6 + torch.tensor([1.0, 0.0])

    clf = l2i.wrap(Deaf(), RATE, ["yes", "no"])
    e = l2i.explain(clf, clip, **FAST)
    assert e.target == "yes" and not e.holds
    assert not e.audio.any()
    assert "Nothing speaks for yes: the explanation is silent, and does not hold." in str(e)
    assert e.warnings[0].startswith("Nothing speaks for yes")
    assert e.facts()["warnings"][0]["mark"] == "silent explanation"
    loud = dataclasses.replace(e, audio=e.input)
    assert "Removing it hardly lowers yes, 73.1% to 73.1%: this explanation does not" in str(loud)
    silent = l2i.explain(_classifier(), np.zeros(RATE, np.float32), "low", **FAST)
    assert not silent.audio.any() and "silent: there is nothing to explain" in silent.verdict
    assert silent.components == () and silent.kept == 0


@pytest.mark.parametrize(
    ("sound", "words", "kind", "sentence"),
    [
        (np.zeros((2, 2, 9)), {}, DataError, r"shape \[2, 2, 9\]"),
        (np.zeros(9, np.int16), {}, DataError, "not int16: divide by full scale"),
        (np.zeros(0), {}, DataError, r"shape \[0\]"),
        (np.full(9, np.nan), {}, DataError, "NaN or infinite"),
        (np.zeros(61 * RATE), {}, DataError, "longer than 60 s"),
        ("nowhere.wav", {}, DataError, "There is no sound file nowhere.wav"),
        (np.zeros(RATE), {"target": "lo"}, UsageError, "no class 'lo'; did you mean 'low'"),
        (np.zeros(RATE), {"target": 2}, UsageError, "Class 2 is not one of the 2"),
        (np.zeros((2, RATE)), {"target": ["low"]}, UsageError, "2 clips and 1 target: give one"),
        (np.zeros(RATE), {"stps": 3}, UsageError, "no setting 'stps'"),
        (np.zeros(RATE), {"method": "lime"}, UsageError, "no method 'lime'"),
    ],
)
def test_what_cannot_be_explained(
    sound: object, words: dict[str, object], kind: type[Exception], sentence: str
) -> None:
    """One sentence each."""
    with pytest.raises(kind, match=sentence):
        l2i.explain(_classifier(), sound, **words)


# --- from the shell -----------------------------------------------------------------------------


def test_a_file_of_more_than_a_minute(tmp_path: Path) -> None:
    """Is explained in windows of half a minute (see ``tests/test_recording.py``)."""
    soundfile.write(tmp_path / "a.wav", np.zeros(61 * RATE), RATE)
    e = l2i.explain(_classifier(), tmp_path / "a.wav", "low")
    assert isinstance(e, Recording) and e.windows == 3
    with pytest.raises(DataError, match="longer than 60 s: explain a part of it, or a file, alone"):
        l2i.explain(_classifier(), [tmp_path / "a.wav"] * 2)


USERS = """
import torch
import l2i
from beside import names

class Model(torch.nn.Module):
    def forward(self, x):
        power = torch.fft.rfft(x).abs().square() / x.shape[1] ** 2
        hz = torch.fft.rfftfreq(x.shape[1], 1 / 8000)
        bands = [(power[:, (hz - t).abs() < 150].sum(1) + 1e-8).log() for t in (500, 2000)]
        return torch.stack(bands, 1) + 8

def load():
    return l2i.wrap(Model(), 8000, names, "multi-label")

ready = load()
number = 3
def broken():
    raise RuntimeError("no weights here")
def doubtful():
    import warnings
    warnings.warn("The front-end is an old one.")
    return load()
"""


@pytest.fixture
def users() -> Path:
    """A user's own file of Python, and one beside it."""
    Path("mine").mkdir()
    Path("mine/beside.py").write_text('names = ["low", "high"]\n')
    path = Path("mine/tones.py")
    path.write_text(USERS)
    return path


def test_from_the_shell(users: Path, clip: np.ndarray, say: Say) -> None:
    """One line: every file has its folder and its line, a file that cannot be read stops no other,
    and the page has all; what `l2i.explain` gives is what is written."""
    soundfile.write("a.wav", clip, RATE, subtype="FLOAT")
    Path("b.wav").write_text("no sound")
    spec = ("--classifier", f"{users}:load")
    answer = say("explain", "a.wav", "b.wav", *spec, "--class", "high", "--json")
    assert answer.code == 1 and "1 of 2 files could not be explained" in answer.err
    assert "b.wav" in answer.err and "the explanation holds" in answer.err
    (explanation,) = json.loads(answer.out)
    assert (
        explanation["class"] == "high" and explanation["audio"] == "a.wav" and explanation["holds"]
    )
    own = l2i.explain(_classifier(), "a.wav", "high")
    assert explanation["probability"]["removal"] == pytest.approx(
        own.probabilities["high"].removal, 0.02
    )
    assert {p.name for p in Path("explanations").iterdir()} == {"a", "index.html", ".l2i"}
    shutil.copy("a.wav", "...wav")
    assert say("explain", "...wav", *spec, "--out", "dots", "-q").code == 0
    assert Path("dots/sound/explanation.wav").is_file() and not Path("explanation.wav").exists()
    answer = say("explain", "a.wav", *spec, "--start", "0.5", "--duration", "0.25", "--out", "part")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
    assert json.loads(Path("part/a/explanation.json").read_text())["duration_s"] == 0.25
    for folder in ("x", "y"):
        Path(folder).mkdir()
        shutil.copy("a.wav", folder)
    shown = say("explain", "x", "y", *spec, "--out", "same", "-q").out
    assert "x/a.wav " in shown and "y/a.wav " in shown, "one is told from the other"


def test_several_classes_from_the_shell(users: Path, clip: np.ndarray, say: Say) -> None:
    """Each of them, once, of every file that can be read: in the table, and in folders."""
    soundfile.write("a.wav", clip, RATE, subtype="FLOAT")
    Path("b.wav").write_text("no sound")
    words = ("explain", "a.wav", "b.wav", "--classifier", f"{users}:load")
    asked = ("--class", "high", "--class", "low", "--class", "high")
    answer = say(*words, *asked, "--json")
    assert answer.code == 1 and "1 of 2 files could not be explained" in answer.err
    assert answer.err.count("cannot be decoded") == 1
    explanations = json.loads(answer.out)
    assert [(f["name"], f["class"], f["audio"]) for f in explanations] == [
        ("a-high", "high", "a.wav"),
        ("a-low", "low", "a.wav"),
    ]
    for f in explanations:
        kept = json.loads(Path("explanations", f["name"], "explanation.json").read_text())
        assert kept == {k: v for k, v in f.items() if k != "audio"}
    answer = say(*words, "--class", "high", "--class", "lwo")
    assert answer.code == 2 and "did you mean 'low'" in answer.err


def test_check(users: Path, say: Say) -> None:
    """What a classifier is, before anything is explained."""
    answer = say("classifiers", "check", f"{users}:ready")
    assert answer.code == 0 and answer.err == ""
    for word in ("8000 Hz", "multi-label", "2: low, high", "gates (by gradients)"):
        assert word in answer.out
    tree = json.loads(say("classifiers", "check", f"{users}:load", "--json").out)
    assert tree["classes"] == ["low", "high"] and tree["differentiable"] is True
    assert "No installed package offers one" in say("classifiers", "list").out
    answer = say("classifiers", "check", f"{users}:doubtful")
    assert answer.code == 0 and answer.err == "Note: The front-end is an old one.\n"


LAYERS = """
import l2i
import torch
from torch import nn


def load():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.Tanh()) for _ in range(9)]
    first = nn.Conv1d(1, 4, 80, 80)
    end = [nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)]
    return l2i.wrap(nn.Sequential(nn.Unflatten(1, (1, -1)), first, *blocks, *end), 8000)


def script():
    return l2i.wrap(torch.jit.script(load().model), 8000)
"""


def test_check_shows_hidden_layers(say: Say) -> None:
    """Their axes and sizes, those that are chosen marked, a dozen of many; or why there is none."""
    Path("deep.py").write_text(LAYERS)
    answer = say("classifiers", "check", "deep.py:load")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
    _, _, table = answer.out.partition("Hidden layers; those marked *")
    head, *lines = table.splitlines()[1:]
    assert head.split() == ["layer", "axes", "D", "F", "T"]
    # A convolution, then nine blocks of two: 28 in all. The blocks at a third and
    # two thirds of the way are read, and the last one.
    assert lines[-1] == "... and 16 more (--json has all)" and len(lines) == 13
    marked = [line.split() for line in lines if line.startswith("*")]
    assert marked == [["*", n, "B", "D", "T", "4", "1", "100"] for n in ("4", "7", "10")]
    tree = json.loads(say("classifiers", "check", "deep.py:load", "--json").out)
    assert len(tree["layers"]) == 28 and "no_layers" not in tree
    first = {"name": "1", "axes": "B D T", "kind": "Conv1d", "chosen": False}
    assert tree["layers"][0] == first | {"channels": 4, "rows": 1, "frames": 100}
    answer = say("classifiers", "check", "deep.py:script")
    assert answer.code == 0 and "The hidden layers of TorchScript cannot be read" in answer.out


@pytest.mark.parametrize(
    ("spec", "code", "sentence"),
    [
        ("tones", 2, "no classifier 'tones'"),
        ("mine/tones.py:laod", 2, "no 'laod'; did you mean 'load'?"),
        (
            "mine/tones.py:number",
            2,
            "is of type int, and no classifier: let it return what l2i.wrap",
        ),
        ("mine/tones.py:broken", 1, "cannot be loaded: RuntimeError: no weights here."),
        ("mine/other.py:load", 1, "There is no file"),
        ("nothing.here:load", 2, "no module 'nothing.here'"),
        (":load", 2, "names no classifier"),
    ],
)
def test_a_word_that_names_no_classifier(
    users: Path, spec: str, code: int, sentence: str, say: Say
) -> None:
    """One sentence, and nothing written."""
    soundfile.write("a.wav", np.zeros(RATE), RATE)
    for words in (("classifiers", "check", spec), ("explain", "a.wav", "--classifier", spec)):
        answer = say(*words)
        assert answer.code == code and sentence in answer.err and "Traceback" not in answer.err
    assert not Path("explanations").exists()


def test_options_of_the_other_way(
    users: Path, clip: np.ndarray, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is about a run's networks is refused with --classifier; the variable of all commands is
    passed by."""
    answer = say("explain", "a.wav", "--classifier", f"{users}:load", "--threshold", "0.3")
    assert answer.code == 2 and "--threshold is about a RUN's networks" in answer.err
    answer = say("explain", "a.wav", "--classifier", f"{users}:load", "--method", "l2i")
    assert answer.code == 2 and "without training: gates or shapley" in answer.err
    answer = say("explain", "a.wav")
    assert answer.code == 2 and "Give a RUN and AUDIO files" in answer.err
    monkeypatch.setenv("L2I_DEVICE", "cpu")
    soundfile.write("a.wav", clip, RATE)
    answer = say("explain", "a.wav", "b.wav")
    assert answer.code == 2 and "'l2i explain latest a.wav'" in answer.err, "a file is no RUN"
    assert say("explain", "a.wav", "--classifier", f"{users}:load", "-q").code == 0


@pytest.mark.parametrize(
    ("several", "target"),
    [
        ([0, 1], np.int64(1)),
        ([0, 5000], torch.tensor(1)),
        ([0, 5000], np.array([1, 1])),
        ([0, 5000], torch.tensor([1, 1])),
    ],
)
def test_lists_of_samples_and_numbers_of_all_makes(
    clip: np.ndarray, several: list[int], target: Any
) -> None:
    """Clips of one length or of several, and a class's number from numpy and torch."""
    explained = l2i.explain(_classifier(), [clip[n:] for n in several], target, **FAST)
    assert [len(e.audio) for e in explained] == [len(clip) - n for n in several]
    assert {e.target for e in explained} == {"high"}


def test_half_precision_is_heard(clip: np.ndarray) -> None:
    """numpy has no bfloat16."""
    e = l2i.explain(_classifier(), torch.from_numpy(clip).bfloat16(), "high", **FAST)
    assert e.input.dtype == np.float32


@pytest.mark.parametrize(
    ("sound", "words", "kind", "sentence"),
    [
        (np.zeros(RATE), {"target": 1.0}, UsageError, "Class 1.0 is not one of the 2"),
        (np.zeros(9), {"sample_rate": 10**9}, DataError, "shorter than a sample at 8000 Hz"),
        ([np.zeros(9), None], {}, DataError, "not object"),
    ],
)
def test_what_is_no_number_and_no_sound(
    sound: object, words: dict[str, object], kind: type[Exception], sentence: str
) -> None:
    """One sentence each."""
    with pytest.raises(kind, match=sentence):
        l2i.explain(_classifier(), sound, **words)


def test_what_is_shorter_than_the_network_takes_is_explained(clip: np.ndarray) -> None:
    """The network of a run says how many samples it needs: silence follows, and is cut off."""
    clf = _classifier()
    clf.min_samples = RATE  # type: ignore[attr-defined]
    e = l2i.explain(clf, clip[: RATE // 2], "low", **FAST)
    assert len(e.input) == len(e.audio) == len(e.removal) == RATE // 2
    frames = e.domain.n_frames(RATE // 2)
    (best, *_) = e.components
    assert e.mask.shape[1] == len(best.activation) == frames and len(best.audio) == RATE // 2
    padded = l2i.explain(clf, np.pad(clip[: RATE // 2], (0, RATE // 2)), "low", **FAST)
    assert e.probabilities == padded.probabilities
