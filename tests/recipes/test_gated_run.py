"""Gates as the third stage of a run: killed and resumed, both columns, pages."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import l2i
from l2i.audit.hearing import Pass
from l2i.dsp.spectrogram import Domain
from l2i.errors import ConfigError, DeviceError, UsageError
from l2i.explanation import Subject
from l2i.models.checkpoint import load_checkpoint
from l2i.recipes.measuring.evaluate import evaluate
from l2i.recipes.opening.opened import open_finished
from l2i.recipes.publishing.examples import _detected
from l2i.recipes.publishing.explain import explain
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from l2i.run.runs import list_runs
from l2i.run.store import connect, locate
from tests.guests import CLASSES, RATE, load, sounds
from tests.recipes.conftest import Finished, made_in, passes_of_classifiers, small_config
from tests.recipes.test_resume import _start, _wait_for_epoch

pytestmark = pytest.mark.usefixtures("undrawn")

QUIET = Progress(quiet=True)
GATED = (
    "method.name=gated-l2i",
    *("parts.gates.warm_epochs=1", "parts.gates.epochs=2", "parts.gates.batch_size=8"),
    *("parts.gates.width=16", "parts.gates.crop_share=1.0", "parts.gates.views=1"),
)


@pytest.fixture(scope="module")
def gated(_made: Callable[[str], Finished], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run whose first three stages are those of the run on `demo`."""
    folder = tmp_path_factory.mktemp("gated")
    stages = "mlruns/work/stages"
    shutil.copytree(_made("demo").folder / stages, folder / stages)
    with made_in(folder):
        return Finished(folder, train(small_config("demo", *GATED), QUIET))


def test_killed_in_the_gates(gated: Finished, bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command goes on, and ends with the same figures and weights, every step once."""
    child = _start(bench, *GATED)
    _wait_for_epoch(bench, "gates", child)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    done = train(small_config("demo", *GATED), QUIET)
    assert done.resumed and done.scores == gated.outcome.scores
    mine, theirs = (
        load_checkpoint(f / "model/artifacts/gates.safetensors", "gates")[0]
        for f in (Finished(bench, done).artifacts, gated.artifacts)
    )
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    for key, first in (("gates/separate", 1), ("gates/fall", 1), ("gates/out", 2)):
        steps = [m.step for m in connect(locate()).get_metric_history(done.run_id, key)]
        assert steps == list(range(first, 4)), key


def test_the_classifier_may_be_listened_to_in_bfloat16(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where gates learn from what it says; what they read of it, and what judges them, is float32.
    A processor that has no bfloat16 is one sentence, before a run is made."""
    heard = passes_of_classifiers(monkeypatch)
    brief = (*GATED, "parts.gates.epochs=1", "parts.gates.width=8", "output.clips=1")
    monkeypatch.setattr("l2i.run.device.cpu_has_bfloat16", lambda: False)
    with pytest.raises(DeviceError, match=r"no bfloat16; take parts\.gates\.precision float32"):
        train(small_config("demo", *brief, "parts.gates.precision=bfloat16"), QUIET)
    assert not heard and not list_runs(), "it is told before anything is heard"
    monkeypatch.setattr("l2i.run.device.cpu_has_bfloat16", lambda: True)
    train(small_config("demo", *brief, "parts.gates.precision=auto"), QUIET)
    assert {(learning, dtype) for _, learning, dtype in heard} == {
        (True, torch.bfloat16),
        (False, torch.float32),
    }


def test_both_columns(gated: Finished, single: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the gates' figures stand those of the published rule, to the last digit the ones of
    the run that has nothing else; the interpreter is the same."""
    own, published = gated.outcome.scores, single.outcome.scores
    for name in ("average_drop", "ff_mean", "fid_in", "kept"):
        assert own[f"published_{name}"] == published[name]
        assert own[name] != published[name]
    for name in ("accuracy", "fidelity_top1", "faithfulness_probability", "reconstruction"):
        assert own[name] == published[name]
    monkeypatch.chdir(gated.folder)
    again = evaluate(gated.outcome.run_id, QUIET, method="l2i", keep=False)["scores"]
    assert {k: v for k, v in again.items() if v is not None} == published
    assert evaluate(gated.outcome.run_id, QUIET, keep=False)["scores"] == own
    document = json.loads((gated.artifacts / "scores.json").read_text())
    for name in ("published_ff_mean", "faithfulness_probability", "random_logit"):
        assert document["meaning"][name]["title"].startswith("Published: "), name
    assert not document["meaning"]["ff_mean"]["title"].startswith("Published")
    # What hangs on tau is the published rule's, and the page says so; without gates there is one.
    for run, there in ((gated, True), (single, False)):
        page = (run.artifacts / "figures.html").read_text()
        assert ("the components that the published rule selects" in page) is there
        assert ("Published: Faithfulness" in page) is there
    head = (gated.artifacts / "clips.csv").read_text().splitlines()[0].split(",")
    assert {"ff_mean", "published_ff_mean", "kept", "interpreter"} <= set(head)


def test_the_page_has_components_and_how_much_of_each_counts(gated: Finished) -> None:
    """Shares of the explanation, the largest first."""
    for item in json.loads((gated.artifacts / "explanations/explanations.json").read_text()):
        assert item["method"] == "gated-l2i"
        shares = [c["relevance"] for c in item["components"]]
        assert shares and shares == sorted(shares, reverse=True) and sum(shares) <= 1 + 1e-6
        assert all(0 <= c["evidence"] <= 1 for c in item["components"])


def test_explained_by_either_rule(
    gated: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run explains files by its gates, by refining them, or by what it learnt them on; the page
    names another method than the run's, and leaves out what was measured of that."""
    monkeypatch.chdir(gated.folder)
    place = gated.artifacts / "explanations"
    clip = next(iter(sorted(place.glob("*/original.wav"))))
    for method, shown in (("", "gated-l2i"), ("refined-gates", "refined-gates"), ("l2i", None)):
        out = tmp_path / (method or "own")
        (explained,) = explain(gated.outcome.run_id, [clip], QUIET, out=out, method=method)
        assert explained.get("method") == shown
        page = (out / "index.html").read_text(encoding="utf-8")
        assert (f"method {method}" in page) == bool(method)
        assert ("Fid-In" in page) == (not method) and "accuracy" in page
    assert len(list_runs()) == 1


def test_many_clips_are_explained_by_gates_as_they_were_learnt(
    gated: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit of a run that refines them for each clip, unless it is asked to."""
    monkeypatch.chdir(gated.folder)
    opened = open_finished(gated.outcome.run_id, QUIET, keep=False)
    refining = replace(opened, config=opened.config.changed(method={"name": "refined-gates"}))
    for asked, method in (("", "gated-l2i"), ("refined-gates", "refined-gates"), ("l2i", "l2i")):
        assert Pass.begin(refining, "test", None, asked).method == method
        assert Pass.begin(opened, "test", None, asked).method == method


def test_every_class_that_is_detected() -> None:
    """Has an explanation of its own, the likeliest first; where none is, the likeliest has."""
    model = load().model  # type: ignore[attr-defined]
    clf = l2i.wrap(model, RATE, CLASSES, "multi-label")
    x = 0.02 * torch.from_numpy(sounds(2)).sum(0)
    subject = Subject(clf, Domain(RATE))
    p = clf.probabilities(clf.logits(x.unsqueeze(0)))[0]
    clf.set_thresholds([float(p.sort().values[1])])
    assert _detected(subject, x) == p.argsort(descending=True).tolist()[:2]
    clf.set_thresholds([1.0])
    assert _detected(subject, x) == [int(p.argmax())]
    assert len(_detected(Subject(load(), Domain(RATE)), x)) == 1


def test_a_setting_that_gates_have_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is answered with the nearest one, as every other setting is."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"'parts.gates.epoch'; did you mean 'parts.gates.epochs'"
    ):
        train(small_config("demo", *GATED, "parts.gates.epoch=3"), QUIET)


def test_a_black_box_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gates are learnt through gradients."""
    monkeypatch.chdir(tmp_path)
    Path("box.py").write_text(
        "import numpy as np, l2i\n"
        "def load():\n"
        "    score = lambda x: np.stack([x.std(1), 1 - x.std(1)], 1)\n"
        "    return l2i.wrap(score, 8000, ['loud', 'quiet'])\n"
    )
    config = small_config("demo", *GATED, "classifier.spec=box.py:load")
    with pytest.raises(
        UsageError, match=r"no gradients, which method 'gated-l2i' needs: say --method l2i"
    ):
        train(config, QUIET)
    assert not Path("mlruns").exists()
