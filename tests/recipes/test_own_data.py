"""Data of one's own through a whole run: what a run is made of, and data that are not its own."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from l2i.recipes.opening import material as opening_material
from l2i.run.artifacts import download
from l2i.run.runs import list_runs, resolve_run
from l2i.run.store import connect, locate
from tests import miniatures
from tests.recipes.conftest import SMALL
from tests.stores import Said

pytestmark = pytest.mark.usefixtures("undrawn")

Say = Callable[..., Said]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """One epoch of each; nothing to listen to."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    text = SMALL.format(name="folder").replace("epochs = 3", "epochs = 1")
    text = text.replace("clips = 2", "clips = 0").replace("clips_per_class = 6\n", "")
    Path("small.toml").write_text(text, encoding="utf-8")
    return ("--config", "small.toml", "-o", "explanation.random_draws=1")


def _train(say: Say, *words: str) -> tuple[dict[str, Any], str]:
    answer = say("train", *words, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out), answer.err


def _relabel(root: Path, changes: dict[int, str]) -> None:
    """Give rows of ``meta.csv``, from 0, other labels."""
    with open(root / "meta.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, label in changes.items():
        rows[row]["label"] = label
    miniatures.write_csv(root / "meta.csv", list(rows[0]), [list(r.values()) for r in rows])


def _stages() -> set[str]:
    return {path.name for path in Path("mlruns/work/stages").iterdir()}


def _labels(root: Path) -> list[tuple[str, str]]:
    with open(root / "meta.csv", newline="") as file:
        return [(row["label"], row["fold"]) for row in csv.DictReader(file)]


def test_labels_are_of_a_runs_identity(settings: tuple[str, ...], tmp_path: Path, say: Say) -> None:
    """A mended label of a training clip makes another run with stages of its own, one of a test
    clip another run with the same stages; how many differ, and from which run, is said. The same
    data again are the run that there is; merged classes train anew."""
    root = miniatures.folder_csv(tmp_path / "sounds")
    words = (*settings, "--data-dir", str(root))
    first, _ = _train(say, *words)
    stages = _stages()
    trained, err = _train(say, *words, "--name", "mine", "--quiet")
    assert trained["found"] and trained["run_id"] == first["run_id"]
    assert "none is called mine" in err
    labels = _labels(root)
    tested = next(i for i, (_, fold) in enumerate(labels) if fold == "1")
    learnt = next(i for i, (_, fold) in enumerate(labels) if fold != "1")
    other = next(label for label, _ in labels if label != labels[tested][0])
    predicted = pd.read_csv(download(resolve_run(first["run_id"]), "clips.csv"))["class"][0]
    mended = predicted if predicted != labels[tested][0] else other

    _relabel(root, {tested: mended})
    second, err = _train(say, *words)
    assert not second["found"] and second["run_id"] != first["run_id"]
    assert f"those of run {first['name']} ({first['run_id'][:8]}): 1 label differs." in err
    assert _stages() == stages
    assert second["scores"]["accuracy"] != first["scores"]["accuracy"]

    _relabel(root, {tested: labels[tested][0], learnt: other})
    third, err = _train(say, *words)
    assert not third["found"] and "1 label differs" not in err and "2 labels differ" in err
    assert len(_stages()) == 2 * len(stages)
    _relabel(root, {learnt: labels[learnt][0]})
    assert _train(say, *words)[0]["run_id"] == first["run_id"]

    bell = {i: "bell" for i, (label, _) in enumerate(labels) if label == "bark"}
    _relabel(root, bell)
    merged, err = _train(say, *words)
    assert not merged["found"] and "labels differ" in err
    assert say("evaluate", first["run_id"], "--data-dir", str(root), "-q").code == 1


def test_a_runs_classes_are_matched_by_name(
    settings: tuple[str, ...], tmp_path: Path, say: Say
) -> None:
    """Data whose classes are in another order give the run's own figures; with a class that is
    called otherwise, more, or fewer, whatever measures the run says which. A run of a version that
    wrote no list opens as it did."""
    root = miniatures.folder_csv(tmp_path / "sounds")
    run, _ = _train(say, *settings, "--data-dir", str(root))
    names = sorted({label for label, _ in _labels(root)})
    assert len(names) == 3

    def measured(folder: Path, command: str = "evaluate") -> Said:
        return say(command, "latest", "--data-dir", str(folder), "--json", "-q")

    renamed = shutil.copytree(root, tmp_path / "renamed")
    _relabel(renamed, {i: "zebra" for i, (n, _) in enumerate(_labels(root)) if n == names[1]})
    more = shutil.copytree(root, tmp_path / "more")
    _relabel(more, {0: "aardvark"})
    fewer = shutil.copytree(root, tmp_path / "fewer")
    _relabel(fewer, {i: names[0] for i, (n, _) in enumerate(_labels(root)) if n == names[1]})
    for folder, sentence in (
        (renamed, f"missing: {names[1]!r}; new: 'zebra'"),
        (more, "new: 'aardvark'"),
        (fewer, f"missing: {names[1]!r}"),
    ):
        figures = measured(folder)
        assert figures.code == 1 and sentence in figures.err and run["name"] in figures.err
    for command in ("benchmark", "noise", "overlap", "components"):
        figures = measured(renamed, command)
        assert figures.code == 1 and "new: 'zebra'" in figures.err, command

    client = connect(locate())
    wanted = json.loads(measured(root).out)["scores"]
    for tag in ("l2i.data_identity", "l2i.config"):
        client.delete_tag(run["run_id"], tag)
    next(Path("mlruns/artifacts").rglob("data.csv")).unlink()
    assert json.loads(measured(root).out)["scores"] == wanted


def test_what_l2i_and_systems_leave_is_no_class(
    settings: tuple[str, ...], tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder of one's own data: runs, and what unpacking left, are no classes, now or the
    next time, and that is said; the classes are named with their counts."""
    root = miniatures.folder_tree(tmp_path / "sounds", 4)
    shutil.copy("small.toml", tmp_path)
    monkeypatch.chdir(root)
    shutil.copytree(root / "rain", root / "__MACOSX" / "rain")
    settings = ("--config", str(tmp_path / "small.toml"), *settings[2:])
    first, err = _train(say, *settings, "--data-dir", ".", "-o", "output.clips=2")
    assert list(root.glob("mlruns/artifacts/**/*.wav"))
    assert "3 classes, clips of each: bark 4, bell 4, rain 4." in err
    assert not _train(say, *settings, "--data-dir", ".", "--seed", "1")[0]["found"]
    again, _ = _train(say, *settings, "--data-dir", ".")
    assert again["run_id"] == first["run_id"]
    answer = say("data", "check", "folder", "--data-dir", ".")
    text = " ".join(answer.out.split())
    assert answer.code == 0 and "12 clips listed" in text
    assert "3, clips of each: bark 4, bell 4, rain 4" in text
    assert "'mlruns' is no class: l2i wrote it" in text
    assert "'__MACOSX' is no class: a system left it" in text
    assert "bark 4, bell 4, rain 4" in " ".join(
        say("data", "info", "folder", "--data-dir", ".").out.split()
    )


def test_a_folder_that_nobody_would_read_is_refused(
    settings: tuple[str, ...], tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder alone means `folder`; named for the built-in sounds, when they are trained on or
    measured, it is refused; the variable for all data sets is passed by."""
    root = miniatures.folder_tree(tmp_path / "sounds", 4)
    Path("seeds.toml").write_text('extends = "demo"\n[sweep]\nseeds = [0, 1]\n')
    Path("one.toml").write_text('extends = "demo"\n')
    answer = say("train", "--data-dir", str(tmp_path / "nowhere"))
    assert answer.code == 1 and "There is no folder" in answer.err and "nowhere" in answer.err
    for words in (
        ("train", "--dataset", "demo"),
        ("data", "check", "demo"),
        ("data", "info", "demo"),
        ("sweep", "seeds.toml"),
        ("sweep", "seeds.toml", "--dry-run"),
        ("submit", "seeds.toml", "--on", "local"),
        ("submit", "one.toml", "--dry-run"),
    ):
        answer = say(*words, "--data-dir", str(root))
        assert answer.code == 2 and "'demo' is built in and takes no folder" in answer.err
    shown = say("config", "show", "-o", f"dataset.data_dir={root}").out
    assert 'name = "folder"' in shown
    monkeypatch.setenv("L2I_DATA_DIR", str(root))
    assert say("data", "check", "demo", "--no-decode").code == 0
    assert list_runs() == []
    words = ("--dataset", "demo", "-o", "dataset.clips_per_class=0", "--json")
    answer = say("train", *words)
    assert answer.code == 2 and "takes no folder" not in answer.err


def test_data_without_a_clip_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are another folder's, and no list of what is new and gone."""
    kept = tmp_path / "data.csv"
    kept.write_text("clip,side,labels,group\na.wav,train,bell,a.wav\n")
    monkeypatch.setattr(opening_material, "download", lambda *_: kept)
    run = SimpleNamespace(tags={opening_material.IDENTITY: "then"})
    row = {"clip": "b.wav", "side": "train", "labels": "bell", "group": "b.wav"}
    material = SimpleNamespace(identity="now", digest="now", listing=lambda: [row])
    told = opening_material.data_differences(material, run)  # type: ignore[arg-type]
    assert told == "no clip is the same, so that it is another folder"
