"""A classifier of another making, from the shell and in runs: what the built-in one has, it has."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from l2i.config import Config, resolve
from l2i.errors import CheckpointError, ConfigError, DataError, UsageError
from l2i.recipes.measuring.components import components
from l2i.recipes.measuring.evaluate import evaluate
from l2i.recipes.measuring.noise import noise
from l2i.recipes.measuring.overlap import Overlap, overlap
from l2i.recipes.publishing.explain import explain
from l2i.recipes.tables.benchmark import benchmark
from l2i.recipes.training.train import train
from l2i.run.artifacts import download
from l2i.run.progress import Progress
from l2i.run.runs import resolve_run
from tests import guests
from tests.recipes.conftest import Finished, made_in

pytestmark = pytest.mark.usefixtures("undrawn")

QUIET = Progress(quiet=True)
METHOD = Path(__file__).parents[2] / "experiments" / "methods" / "mask_decoder.py"
FEW = (
    "method.name=l2i",
    *("dictionary.components=6", "dictionary.iterations=5", "interpreter.epochs=3"),
    *("spectrogram.n_fft=256", "spectrogram.hop_length=128", "output.clips=2", "run.threads=1"),
    *("dataset.duration_s=1.0", "interpreter.batch_size=4"),
)


def _folder(place: Path, n: int = 18, labelled: bool = False) -> Path:
    for i, x in enumerate(guests.sounds(n)):
        path = place / (guests.CLASSES[i % 3].upper() if labelled else ".") / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, x, guests.RATE)
    return place


def _config(folder: Path, spec: str, *more: str) -> Config:
    overrides = (f"dataset.data_dir={folder}", f"classifier.spec={spec}", *FEW, *more)
    return resolve(overrides=["dataset.name=folder", *overrides])


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("guest")
    with made_in(folder):
        shutil.copy(guests.__file__, folder / "tones.py")
        sounds = _folder(folder / "sounds")
        outcome = train(_config(sounds, f"{folder / 'tones.py'}:load"), QUIET)
        # From here on the run has to do with what it keeps.
        (folder / "tones.py").unlink()
    return Finished(folder, outcome)


@pytest.fixture
def guest(_made: Finished, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A run of the guest on a folder without labels, whose file is gone."""
    monkeypatch.chdir(_made.folder)
    return _made


def test_the_run_says_what_was_explained(guest: Finished) -> None:
    """Its name, tags, and the classifier's file, digest and classes among its artifacts; figures
    that need labels are not there."""
    run = resolve_run(guest.outcome.run_id)
    assert run.name.startswith("tones-sounds-") and "fold1" not in run.name
    assert run.tags["l2i.classifier"].endswith("tones.py:load")
    assert run.tags["l2i.method"] == "l2i"
    kept = download(run, "model/artifacts/classifier.json")
    about = json.loads(kept.read_text())
    assert about["classes"] == guests.CLASSES and about["sample_rate"] == guests.RATE
    assert about["digest"] == run.tags["l2i.classifier_digest"]
    assert about["spec"] == "classifier/tones.py:load"
    source = download(run, "model/artifacts/classifier/tones.py")
    assert source.read_bytes() == Path(guests.__file__).read_bytes()
    scores = guest.outcome.scores
    assert {"fidelity_top1", "faithfulness_probability", "ff_mean"} <= set(scores)
    assert "accuracy" not in scores
    assert resolve(download(run, "config.toml")).dataset.sample_rate == guests.RATE


def test_all_commands_take_the_run(guest: Finished, tmp_path: Path) -> None:
    """Measured again with the same figures, compared with methods that learn nothing, with noise,
    mixed, by component, and of a file."""
    again = evaluate("latest", QUIET, out=tmp_path / "e")
    for name, value in again["scores"].items():
        assert value == pytest.approx(guest.outcome.scores[name], abs=1e-6), name
    table = pd.read_csv(tmp_path / "e" / "clips.csv")
    assert len(table) and set(table["class"]) <= set(guests.CLASSES)
    assert not (tmp_path / "e" / "confusion_matrix.png").exists()
    result = benchmark("latest", QUIET, methods=["l2i", "gates", "saliency"], limit=2, keep=False)
    assert list(result["methods"]) == ["l2i", "gates", "saliency"]
    assert result["methods"]["gates"]["scores"]["ff_mean"] > 0.2
    noisy = noise("latest", QUIET, snrs_db=[0.0], colours=["white"], limit=2, keep=False)
    assert [c["snr_db"] for c in noisy["conditions"]] == [None, 0.0]
    by = components("latest", QUIET, sounds=False, keep=False)
    assert len(by["components"]) == 6 and by["clips"] > 0
    # What the classifier says of each clip alone is known without labels, too.
    mixed = overlap("latest", Overlap(mixtures=3, method="full"), QUIET, keep=False)
    assert mixed["conditions"][0]["scores"]["present"] == 1.0
    soundfile.write(tmp_path / "a.wav", guests.sounds(2)[1], guests.RATE)
    (explained,) = explain("latest", [tmp_path / "a.wav"], QUIET, out=tmp_path / "x")
    assert explained["class"] == "high" and explained["probability"]["original"] > 0.9
    heard, _ = soundfile.read(tmp_path / "x" / "a" / "original.wav")
    assert np.abs(heard).max() == pytest.approx(np.abs(guests.sounds(2)[1]).max(), abs=1e-3)


def test_the_model_is_loaded_elsewhere(guest: Finished, tmp_path: Path) -> None:
    """By MLflow, from a folder of its own, without the run; it says what it needs."""
    import mlflow

    model = tmp_path / "model"
    shutil.copytree(guest.artifacts / "model", model)
    needs = (model / "requirements.txt").read_text()
    assert "torch==" in needs and "l2i" not in needs
    loaded = mlflow.pyfunc.load_model(str(model))
    x = guests.sounds(1)[0].tolist()
    (row,) = loaded.predict(
        pd.DataFrame([{"samples": x, "sample_rate": guests.RATE}]), params={"explain": True}
    )
    assert row["class"] == "low" and set(row["probabilities"]) == set(guests.CLASSES)
    assert row["explanation"][:4] == b"fLaC"


def test_labels_are_matched_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose classes the classifier has, however they are written: accuracy is told, and
    mixtures are held against their parts. Another classifier in the file is another run."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(guests.__file__, "tones.py")
    sounds = _folder(tmp_path / "sounds", labelled=True)
    config = _config(sounds, f"{tmp_path / 'tones.py'}:load")
    done = train(config, QUIET)
    assert done.scores["accuracy"] == 1.0
    mixed = overlap("latest", Overlap(mixtures=4, method="full"), QUIET, keep=False)
    (condition,) = mixed["conditions"]
    assert condition["scores"]["present"] == 1.0
    assert condition["scores"]["si_sdr_improvement"] == pytest.approx(0, abs=0.2)
    assert train(config, QUIET).finished_before
    text = Path("tones.py").read_text()
    Path("tones.py").write_text(text.replace("torch.eye(3, 4) * 40", "torch.eye(3, 4) * 30"))
    other = train(config, QUIET)
    assert not other.finished_before and other.run_id != done.run_id


def test_a_method_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file with a part that learns: trained, resumed by its stage, measured like any other, and
    its settings are a table of the config."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(guests.__file__, "tones.py")
    shutil.copy(METHOD, "mine.py")
    sounds = _folder(tmp_path / "sounds", labelled=True)
    spec = f"{tmp_path / 'tones.py'}:load"
    own = f"method.name={tmp_path / 'mine.py'}:MaskDecoder"
    config = _config(sounds, spec, own, "parts.decoder.epochs=2")
    done = train(config, QUIET)
    assert set(done.scores) >= {"accuracy", "ff_mean", "fid_in", "average_drop"}
    assert "fidelity_top1" not in done.scores
    assert train(config, QUIET).finished_before
    again = evaluate("latest", QUIET)
    assert again["scores"]["ff_mean"] == pytest.approx(done.scores["ff_mean"], abs=1e-6)
    # Where things lie on this machine is in nothing that is passed on.
    left = download(resolve_run(done.run_id), "explanations")
    page = (left / "index.html").read_text(encoding="utf-8")
    assert "MaskDecoder" in page and str(tmp_path) not in page
    model = download(resolve_run(done.run_id), "model")
    assert str(tmp_path) not in (model / "artifacts" / "config.toml").read_text(encoding="utf-8")
    table = benchmark("latest", QUIET, methods=[config.method.name, "full"], keep=False)
    assert list(table["methods"]) == ["MaskDecoder", "full"]
    for figures in (
        noise("latest", QUIET, snrs_db=[0.0], colours=["white"], limit=2, keep=False),
        overlap("latest", Overlap(mixtures=2), QUIET, keep=False),
    ):
        assert figures["conditions"]
    with pytest.raises(UsageError, match="no dictionary and no interpreter"):
        components("latest", QUIET, keep=False)
    with pytest.raises(UsageError, match="must learn its dictionary and its interpreter first"):
        evaluate("latest", QUIET, method="l2i")
    wrong = _config(sounds, spec, own, "parts.decoder.epohcs=2", "parts.decodr.epochs=3")
    with pytest.raises(ConfigError) as caught:
        train(wrong, QUIET)
    assert "did you mean 'decoder'?" in str(caught.value)


METRIC = """
import numpy as np


class Loudness:
    name, title, unit, better = "loudness", "Level of the explanation", "dB", ""

    def __call__(self, judged):
        assert judged.mask.shape == judged.magnitude.shape
        return 10 * np.log10((judged.explanation**2).mean(1) + 1e-12)


class Taken:
    name, title, unit, better = "fid_in", "x", "", ""

    def __call__(self, judged):
        return judged.classes


class Short:
    name = "short"
"""


def test_a_metric_of_ones_own(
    guest: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mean stands beside the others, of L2I and of any method; one that is none is told."""
    (tmp_path / "mine.py").write_text(METRIC)
    run = resolve_run(guest.outcome.run_id)
    base = resolve(download(run, "config.toml"))
    # The guest's own store stays as it is: others ask for its latest run.
    monkeypatch.chdir(tmp_path)
    config = base.model_copy(
        update={
            "explanation": base.explanation.model_copy(
                update={"metrics": [f"{tmp_path / 'mine.py'}:Loudness"]}
            )
        }
    )
    assert config.signature() != base.signature()
    done = train(config.model_copy(update={"classifier": _again(guest, config)}), QUIET)
    assert not done.finished_before and -120 <= done.scores["loudness"] < 0
    table = benchmark("latest", QUIET, methods=["full"], keep=False)
    assert "loudness" in table["metrics"]
    full = table["methods"]["full"]["scores"]["loudness"]
    assert full >= done.scores["loudness"] and table["meaning"]["loudness"]["unit"] == "dB"
    # Where its file is no more, the run has one.
    (tmp_path / "mine.py").rename(tmp_path / "gone.py")
    again = evaluate("latest", QUIET)
    assert again["scores"]["loudness"] == pytest.approx(done.scores["loudness"], abs=1e-4)
    model = download(resolve_run(done.run_id), "model")
    assert str(tmp_path) not in (model / "artifacts" / "config.toml").read_text(encoding="utf-8")
    (tmp_path / "gone.py").rename(tmp_path / "mine.py")
    for name, sentence in (("Taken", "is called 'fid_in'"), ("Short", "it lacks title")):
        wrong = config.explanation.model_copy(
            update={"metrics": [f"{tmp_path / 'mine.py'}:{name}"]}
        )
        with pytest.raises(UsageError, match=sentence):
            train(config.model_copy(update={"explanation": wrong}), QUIET)


def _again(guest: Finished, config: Config) -> object:
    """The section of the classifier, with a file that is there."""
    shutil.copy(guests.__file__, guest.folder / "again.py")
    spec = f"{guest.folder / 'again.py'}:load"
    return config.classifier.model_copy(update={"spec": spec})


def test_what_is_wrong_with_a_classifier(
    guest: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence each: a file that is not there, a rate of one's own, a classifier that became
    another one."""
    sounds = guest.folder / "sounds"
    with pytest.raises(DataError, match="There is no file"):
        train(_config(sounds, "nowhere.py:load"), QUIET)
    spec = f"{guests.__file__}:load"
    with pytest.raises(UsageError, match="the classifier hears 8000 Hz"):
        train(_config(sounds, spec, "dataset.sample_rate=16000"), QUIET)
    kept = tmp_path / "model"
    shutil.copytree(guest.artifacts / "model" / "artifacts", kept)
    file = kept / "classifier" / "tones.py"
    file.write_text(file.read_text().replace('"hiss"', '"noise"'))
    from l2i.recipes.opening.bundle import build_subject

    config = resolve(kept / "config.toml")
    with pytest.raises(CheckpointError, match="another classifier than this run was made with"):
        build_subject(kept, config, torch.device("cpu"), torch.float32)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it kept of the classifier lies there already."""
    import l2i.recipes.training.train as recipe

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    config = _config(_folder(tmp_path / "sounds"), f"{guests.__file__}:load")
    with monkeypatch.context() as patch:
        patch.setattr(recipe, "keep_method", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, QUIET)
    assert train(config, QUIET).resumed


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("import voices", r"imports 'voices', which lies beside .* KEEP = \['voices.py'\]"),
        ("open(__file__.replace('lost.py', 'w.txt')).close()", "What is kept of .* KEEP = "),
    ],
)
def test_what_is_not_kept_is_told_at_once(tmp_path: Path, line: str, sentence: str) -> None:
    """A run that could not be opened later is not made; with KEEP it can be."""
    from l2i.models.spec import keep_classifier, open_classifier, reopen_classifier

    (tmp_path / "voices.py").write_text("")
    (tmp_path / "w.txt").write_text("")
    file = tmp_path / "lost.py"
    code = f"from tests.guests import load\n{line}\n"
    file.write_text(code)
    with pytest.raises(DataError, match=sentence):
        keep_classifier(open_classifier(f"{file}:load"), tmp_path / "first")
    file.write_text(f"{code}KEEP = ['voices.py', 'w.txt']\n")
    keep_classifier(open_classifier(f"{file}:load"), tmp_path / "second")
    sys.modules.pop("voices", None)
    assert reopen_classifier(tmp_path / "second").classifier.sample_rate == guests.RATE


def test_what_a_classifier_prints_is_no_part_of_json(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """At import, when it is made, and when it hears."""
    from l2i.cli import main

    (tmp_path / "loud.py").write_text(
        "from tests import guests\nprint('import')\ndef load():\n    print('load')\n"
        "    clf = guests.load()\n"
        "    clf.model.register_forward_hook(lambda *_: print('heard'))\n    return clf\n"
    )
    with pytest.raises(SystemExit) as caught:
        main(["classifiers", "check", f"{tmp_path / 'loud.py'}:load", "--json"])
    out, err = capfd.readouterr()
    assert caught.value.code in (0, None)
    assert json.loads(out) and {"import", "load", "heard"} <= set(err.split())


def test_by_the_shell(guest: Finished, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """`l2i train --classifier` finds the run that is there, and says so."""
    from l2i.cli import main

    shutil.copy(guests.__file__, guest.folder / "tones.py")
    words = ["--classifier", "tones.py:load", "--data-dir", "sounds"]
    for word in FEW:
        words += ["-o", word]
    with pytest.raises(SystemExit) as caught:
        main(["train", *words, "--json"])
    (guest.folder / "tones.py").unlink()
    assert caught.value.code in (0, None)
    document = json.loads(capfd.readouterr().out)
    assert document["found"] and document["run_id"] == guest.outcome.run_id


def test_torchscript_and_what_is_told_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of TorchScript with a JSON: explained by a method that needs no layers, kept with its
    run, opened again without the file."""
    from l2i.models.spec import load_classifier

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tones.ts"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(guests.load().model).save(str(path))  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="does not say its rate and its classes"):
        load_classifier(str(path))
    about = {"sample_rate": guests.RATE, "classes": guests.CLASSES}
    path.with_suffix(".json").write_text(json.dumps({**about, "window": 1}))
    with pytest.raises(DataError, match="did you mean 'window_s'"):
        load_classifier(str(path))
    path.with_suffix(".json").write_text(json.dumps(about))
    config = _config(_folder(tmp_path / "sounds"), str(path), "method.name=saliency")
    done = train(config, QUIET)
    assert done.name.startswith("tones-") and "ff_mean" in done.scores
    path.unlink()
    assert evaluate("latest", QUIET)["scores"]["ff_mean"] == pytest.approx(done.scores["ff_mean"])
    (tmp_path / "broken.pt").write_bytes(b"no script")
    (tmp_path / "broken.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="no TorchScript file"):
        load_classifier(str(tmp_path / "broken.pt"))


def test_an_attempt_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the run that was begun, from the epoch that was finished."""
    from l2i.training.stage import Stage

    monkeypatch.chdir(tmp_path)
    shutil.copy(guests.__file__, "tones.py")
    config = _config(_folder(tmp_path / "sounds"), f"{tmp_path / 'tones.py'}:load")
    save = Stage.save

    def stopped(self: Stage, *words: Any, **more: Any) -> None:
        save(self, *words, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Stage, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config, QUIET)
    monkeypatch.setattr(Stage, "save", save)
    done = train(config, QUIET)
    assert done.resumed and "fidelity_top1" in done.scores
