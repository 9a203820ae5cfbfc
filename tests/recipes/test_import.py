"""`l2i import`: others' files become a run like any other, or a sentence that says why not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from l2i.config import resolve
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.errors import CheckpointError, StoreError
from l2i.models import published
from l2i.models.checkpoint import load_checkpoint, read_settings, save_checkpoint
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from l2i.run.runs import list_runs, resolve_run
from l2i.run.search import RunInfo
from l2i.run.store import Store
from l2i.run.tracker import Tracker
from l2i.storage import MARK
from tests import miniatures, originals
from tests.recipes.conftest import small_config
from tests.stores import Said

Say = Callable[..., Said]
# The shortest clips that the network takes, and few of them.
SHORT = ("-o", "dataset.duration_s=1.6", "-o", "dataset.limit=3", "-o", "explanation.threshold=0.1")
ESC50 = ("--dataset", "esc50", *SHORT)


@pytest.fixture(scope="module")
def model() -> originals.Model:
    return originals.Model(50)


@pytest.fixture(scope="module")
def whole(model: originals.Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A whole model's file for ESC-50's classes."""
    return str(originals.save(model.content(), tmp_path_factory.mktemp("files") / "whole.pt", True))


@pytest.fixture(scope="module")
def esc50(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A miniature of the data set, at another place than the default one."""
    return str(miniatures.esc50(tmp_path_factory.mktemp("data") / "mini"))


@pytest.fixture(autouse=True)
def _store(store: Store) -> None:
    """An empty store of its own for each test."""


def _artifacts(run: RunInfo) -> Path:
    return Path(run.artifact_uri.removeprefix("file://"))


def _fails(answer: Said, *words: str, code: int = 1) -> None:
    assert answer.code == code and answer.out == "", answer
    assert answer.err.startswith("Error: "), answer.err
    for word in words:
        assert word in answer.err
    assert list_runs() == [], "a run was left behind"


# --- a run --------------------------------------------------------------------------------------


def test_a_whole_model_becomes_a_run(whole: str, say: Say) -> None:
    """Without the data set: found by id, name and `latest`, with settings, checkpoints, a picture,
    tags and parameters like those of a run that was trained here."""
    answer = say("import", whole, *ESC50, "--name", "theirs", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["name"] == "theirs" and told["experiment"] == "esc50" and not told["found"]
    sizes = {"components": 6, "classes": 50, "head": 12, "attention_width": 5}
    assert {k: told[k] for k in sizes} == sizes
    (file,) = told["files"]
    data = Path(whole).read_bytes()
    assert file["git_blob"] == published.git_blob_id(data) and file["bytes"] == len(data)
    assert file["kind"] == "whole model" and file["known"] is None

    run = resolve_run("latest")
    assert run.id == told["run_id"] == resolve_run("theirs").id == resolve_run(run.id[:8]).id
    assert run.status == "FINISHED"
    tags = {"kind": "import", "dataset": "esc50", "fold": "1"}
    assert {k: run.tags[f"l2i.{k}"] for k in tags} == tags
    assert file["git_blob"] in run.tags["l2i.files"]
    assert {"l2i.version", "l2i.torch", "l2i.command"} <= set(run.tags)
    config = resolve(_artifacts(run) / "config.toml")
    assert config.dictionary.components == 6 and config.classifier.head == 12
    assert config.interpreter.attention_width == 5 and config.dataset.duration_s == 1.6
    assert run.params["dictionary.components"] == "6"
    there = sorted(p.name for p in _artifacts(run).iterdir())
    kinds = ("classifier", "dictionary", "interpreter")
    assert there == ["config.toml", "dictionary.png", "model", "provenance.json"]
    weights = sorted(p.name for p in (_artifacts(run) / "model" / "artifacts").iterdir())
    assert weights == sorted([*(f"{kind}.safetensors" for kind in kinds), "config.toml"])
    for kind in kinds:
        path = _artifacts(run) / "model" / "artifacts" / f"{kind}.safetensors"
        _, document = load_checkpoint(path, kind)
        assert read_settings(path, document) == SpectrogramSettings(44100, 1024, 512, 128)
        assert document["git_blob"] == file["git_blob"]
    kept = json.loads((_artifacts(run) / "provenance.json").read_text())
    assert kept["files"] == told["files"]
    assert not list(Path("mlruns/work").glob("run-*")), "work was left behind"


def test_evaluate_and_explain_take_it(
    whole: str, esc50: str, model: originals.Model, say: Say, tmp_path: Path
) -> None:
    """Measured on clips that were not there when it was imported; and what the classifier says of
    a sound is what the original says of it."""
    assert say("import", whole, *ESC50).code == 0
    answer = say("evaluate", "latest", "--data-dir", esc50, "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["clips"] == 3 and 0 <= told["scores"]["fidelity_top1"] <= 1
    waveform = originals.clip(1.6)
    soundfile.write(tmp_path / "a.wav", waveform, originals.SAMPLE_RATE, subtype="FLOAT")
    answer = say(
        "explain", "latest", str(tmp_path / "a.wav"), "--out", str(tmp_path / "x"), "--json"
    )
    assert answer.code == 0, answer.err
    (item,) = json.loads(answer.out)
    probabilities = model(waveform)["logits"].softmax(1)[0]
    names = miniatures.card("esc50").classes
    assert item["class"] == names[int(probabilities.argmax())]
    want = float(probabilities.max())
    assert item["probability"]["original"] == pytest.approx(want, rel=1e-3)


def test_twice_is_once(whole: str, say: Say) -> None:
    """The same files with the same options: the finished run, whatever it would be called; other
    options, or other bytes, are another run."""
    first = json.loads(say("import", whole, *ESC50, "--json").out)
    again = say("import", whole, *ESC50, "--name", "other")
    assert again.code == 0 and "a finished run already" in again.err
    assert first["name"] in again.out and len(list_runs()) == 1
    assert json.loads(say("import", whole, *ESC50, "--json").out)["found"] is True
    other = json.loads(say("import", whole, *ESC50, "--fold", "2", "--json").out)
    assert not other["found"] and other["run_id"] != first["run_id"]
    content = torch.load(whole, weights_only=False) | {"last_weights": "others"}
    path = originals.save(content, Path("again.pt"))
    assert json.loads(say("import", str(path), *ESC50, "--json").out)["found"] is False
    assert len(list_runs()) == 3


def test_what_it_prints(whole: str, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind, sizes, git blob and whether it is a published file; if it is one, where it is from."""
    blob = published.git_blob_id(Path(whole).read_bytes())
    answer = say("import", whole, *ESC50)
    lines = answer.out.splitlines()
    assert lines[0] == "whole.pt: whole model"
    assert lines[1] == f"  git blob {blob}, not among the published files"
    assert lines[2] == ("K = 6 components, 50 classes, classifier's head 12 wide, attention 5 wide")
    assert lines[3].startswith("Run esc50-fold1-import-") and len(lines) == 4
    monkeypatch.setattr(published, "KNOWN", {blob: "ESC-50 fold 3 (a/b.pt of somewhere)"})
    again = say("import", whole, *ESC50)
    assert "known:\n  ESC-50 fold 3 (a/b.pt of somewhere)\n" in again.out


def test_a_multi_label_model_has_thresholds(say: Say) -> None:
    """SONYC-UST: the published decision thresholds, unless others are given."""
    content = originals.hollow(originals.Model(8).content())
    path = str(originals.save(content, Path("sust.pt")))
    for name, words, want in (
        ("a", (), [0.6, 0.6, 0.5, 0.6, 0.5, 0.6, 0.6, 0.6]),
        ("b", ("-o", f"classifier.thresholds={[0.25] * 8}"), [0.25] * 8),
    ):
        assert say("import", path, "--dataset", "sust", "--name", name, *words).code == 0
        run = resolve_run(name)
        _, document = load_checkpoint(
            _artifacts(run) / "model" / "artifacts" / "classifier.safetensors", "classifier"
        )
        assert document["thresholds"] == want and document["task"] == "multi-label"
        assert json.loads(run.params["classifier.thresholds"]) == want
        assert run.params["explanation.threshold"] == "0.3"
    answer = say("import", path, "--dataset", "sust", "-o", "classifier.thresholds=[0.5]")
    assert answer.code == 2 and "has 1 values for 8 classes" in answer.err


def test_a_failure_leaves_no_run_behind(
    whole: str, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the store breaks in the middle the run is FAILED, not RUNNING, and `latest` does not
    find it; the same command again finishes it."""

    def broken(*_: Any) -> None:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "artifact", broken)
        answer = say("import", whole, *ESC50)
    assert answer.code == 1 and "The disk is full." in answer.err
    (run,) = list_runs()
    assert run.status == "FAILED"
    with pytest.raises(StoreError, match=r"No run .* is finished"):
        resolve_run("latest")
    assert say("import", whole, *ESC50).code == 0
    assert resolve_run("latest").id == run.id


# --- what does not fit --------------------------------------------------------------------------


def test_the_words_do_not_fit(whole: str, say: Say) -> None:
    """Another data set than the networks', none at all, a fold that it has not, settings that are
    not theirs: a sentence with what to do, and no run."""
    _fails(say("import", whole, "--dataset", "esc10"), "know 50 classes (esc50", "ESC-10 has 10")
    _fails(say("import", whole), "50 classes (esc50 has as many)", "--dataset", code=2)
    _fails(say("import", whole, *ESC50, "--fold", "6"), "ESC-50 has no fold 6", code=2)
    answer = say(
        "import",
        whole,
        *ESC50,
        "-o",
        "spectrogram.hop_length=256",
        "-o",
        "dataset.sample_rate=16000",
    )
    _fails(answer, "sample_rate 44100 against 16000, hop_length 512 against 256", code=2)
    _fails(say("import", whole, "--dataset", "esc5"), "esc5", code=2)
    _fails(say("import", whole, *ESC50, "-o", "dataset.fild=1"), "dataset.fold", code=2)


def test_the_files_do_not_fit(model: originals.Model, say: Say) -> None:
    """Missing tensors, another K, a file that is none: exit code 1, what is wrong and where, and
    no run."""
    content = originals.hollow(model.content())

    def tried(**changes: Any) -> Said:
        path = originals.save({**content, **changes}, Path("file.pt"))
        return say("import", str(path), *ESC50)

    head = {k: v for k, v in content["h_state_dict"].items() if not k.startswith("attention_U")}
    _fails(
        tried(h_state_dict=head),
        "file.pt does not fit",
        "missing: pool.attention_U.0.bias, pool.attention_U.0.weight",
    )
    _fails(tried(W_state_dict={"W": torch.ones(513, 9)}), "W (513, 9) for (513, 6)")
    _fails(say("import", "nothing.pt", *ESC50), "There is no file nothing.pt")
    Path("file.pt").write_text("hello")
    _fails(say("import", "file.pt", *ESC50), "file.pt is neither", "or is damaged")


def test_a_file_that_bites(say: Say) -> None:
    """What it would run is not run."""

    class Harm:
        def __reduce__(self) -> Any:
            return os.mkdir, ("harm",)

    for legacy in (False, True):
        path = originals.save({"f_state_dict": Harm()}, Path("file.pt"), legacy)
        _fails(say("import", str(path), *ESC50), "file.pt holds more than tensors", "mkdir")
    assert not Path("harm").exists()


def test_parts_that_are_not_enough(model: originals.Model, say: Say) -> None:
    """A classifier and a dictionary make no run; what is missing is said, and what would do."""
    content = originals.hollow(model.content())
    originals.save({"f_state_dict": content["f_state_dict"]}, Path("c.pt"))
    np.save("w.npy", content["W_state_dict"]["W"].numpy())
    answer = say("import", "c.pt", "w.npy", *ESC50)
    _fails(answer, "there is no interpreter in c.pt, w.npy", "--out DIR")
    _fails(say("import", "w.npy"), "there is no classifier and no interpreter in w.npy")
    rest = {k: content[k] for k in ("H_state_dict", "h_state_dict")}
    originals.save(rest, Path("rest.pt"))
    assert say("import", "c.pt", "w.npy", "rest.pt", *ESC50).code == 0
    assert resolve_run("latest").status == "FINISHED"


# --- checkpoints --------------------------------------------------------------------------------


@pytest.mark.slow
def test_parts_become_checkpoints_that_train_takes(say: Say, tmp_path: Path) -> None:
    """A classifier and a dictionary of others, and an interpreter of one's own upon them."""
    root = miniatures.folder_csv(tmp_path / "sounds", seconds=1.6)
    model = originals.Model(3)
    originals.save({"f_state_dict": model.f.state_dict()}, Path("c.pt"))
    np.save("w.npy", model.W.W.numpy())
    where = ("--dataset", "folder", "--data-dir", str(root), "-o", "dataset.duration_s=1.6")
    answer = say("import", "c.pt", "w.npy", *where, "--out", "weights")
    assert answer.code == 0, answer.err
    assert "-o classifier.weights=weights/classifier.safetensors takes it.\n" in answer.out
    assert "-o dictionary.weights=weights/dictionary.safetensors takes it.\n" in answer.out
    assert list_runs() == []
    assert sorted(p.name for p in Path("weights").iterdir()) == [
        MARK,
        "classifier.safetensors",
        "dictionary.safetensors",
    ]
    few = ("method.name=l2i", "interpreter.epochs=1", "output.clips=0")
    few += ("explanation.random_draws=1",)
    words = [w for key in few for w in ("-o", key)]
    for kind in ("classifier", "dictionary"):
        words += ["-o", f"{kind}.weights=weights/{kind}.safetensors"]
    answer = say("train", *where, *words)
    assert answer.code == 0, answer.err
    folder = _artifacts(resolve_run("latest")) / "model" / "artifacts"
    w = load_checkpoint(folder / "dictionary.safetensors", "dictionary")[0]["W"]
    torch.testing.assert_close(w, model.W.columns())
    tensors, document = load_checkpoint(folder / "classifier.safetensors", "classifier")
    assert torch.equal(tensors["fc.weight"], model.f.fc.weight)
    assert document["classes"] == ["bark", "bell", "rain"]


def test_checkpoints_are_not_written_over(model: originals.Model, say: Say) -> None:
    """The same again is no trouble; what is something else is left alone, and nothing is written
    beside it."""
    content = originals.hollow(model.content())
    np.save("w.npy", content["W_state_dict"]["W"].numpy())
    out = Path("weights")
    for _ in range(2):
        assert say("import", "w.npy", "--out", "weights").code == 0
    mine = out / "dictionary.safetensors"
    assert load_checkpoint(mine, "dictionary")[0]["W"].shape == (513, 6)
    mine.write_text("mine")
    path = originals.save(content, Path("whole.pt"))
    _fails(say("import", str(path), *ESC50, "--out", "weights"), "is there already")
    assert mine.read_text() == "mine" and {p.name for p in out.iterdir()} == {MARK, mine.name}


def test_audioset_weights_are_checked(model: originals.Model, say: Say) -> None:
    """They need no data set and no converting: the key that takes them is told."""
    state = originals.hollow({f"module.{k}": v for k, v in model.f.netx.state_dict().items()})
    path = str(originals.save(state, Path("a.pkl")))
    answer = say("import", path)
    assert answer.code == 0 and list_runs() == []
    assert answer.out.splitlines()[-1] == "-o classifier.audioset_weights=a.pkl takes it as it is."
    del state["module.layer18.0.bias"]
    originals.save(state, Path("a.pkl"))
    _fails(say("import", path), "missing: layer18.0.bias")


def test_a_learnt_dictionary_is_taken(bench: Path) -> None:
    """`dictionary.weights`: no learning, and the classifier is not trained again for it; made
    under other settings, or absent, it is refused."""
    stages = bench / "mlruns" / "work" / "stages"
    (weights,) = stages.glob("dictionary-*/dictionary.safetensors")
    tensors, document = load_checkpoint(weights, "dictionary")
    assert tensors["W"].shape[1] == 16
    other = bench / "other.safetensors"
    settings = SpectrogramSettings(**document.pop("spectrogram"))
    few = {"W": tensors["W"][:, :9]}
    save_checkpoint(other, "dictionary", few, document, settings)
    over = ("interpreter.epochs=1", "output.clips=0")
    quiet = Progress(quiet=True)
    done = train(small_config("demo", *over, f"dictionary.weights={other}"), quiet)
    assert len(list(stages.glob("classifier-*"))) == 1
    model = _artifacts(resolve_run(done.run_id)) / "model" / "artifacts"
    kept, about = load_checkpoint(model / "dictionary.safetensors", "dictionary")
    assert torch.equal(kept["W"], few["W"]) and about["source"] == "other.safetensors"
    assert load_checkpoint(model / "interpreter.safetensors", "interpreter")[1]["components"] == 9
    with pytest.raises(CheckpointError, match=r"no dictionary weights at nothere"):
        train(small_config("demo", *over, "dictionary.weights=nothere"), quiet)
    save_checkpoint(other, "dictionary", few, document, SpectrogramSettings(8000, 512, 64, 128))
    with pytest.raises(CheckpointError, match="n_fft 512 against 256"):
        train(small_config("demo", *over, f"dictionary.weights={other}"), quiet)
