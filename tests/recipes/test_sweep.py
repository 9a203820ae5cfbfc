"""Many trainings from one file: what the table says, and what a stop costs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import l2i
from l2i.errors import ConfigError
from l2i.recipes.tables import sweep as sweeping
from l2i.recipes.tables.sweep_file import Child, facts, read_sweep
from l2i.recipes.tables.sweep_table import table_of
from l2i.run.family import close_run, make_parent
from l2i.run.runs import list_runs
from l2i.run.store import connect, locate
from tests.recipes.conftest import SMALL
from tests.stores import Said

SWEEP = """
[sweep]
seeds = [0, 1]
"interpreter.pooling" = ["attention", "max"]
"""


@pytest.fixture(autouse=True)
def _children(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are processes of their own, and find this package."""
    monkeypatch.setenv("PYTHONPATH", str(Path(l2i.__file__).resolve().parent.parent))
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")


def _file(sweep: str = SWEEP, epochs: int = 1) -> Path:
    text = SMALL.format(name="demo").replace("epochs = 3", f"epochs = {epochs}")
    text = text.replace("clips = 2", "clips = 0")
    Path("small.toml").write_text(text + sweep, encoding="utf-8")
    return Path("small.toml")


def _runs() -> list[str]:
    return sorted(run.name for run in list_runs(limit=100) if run.kind == "train")


@pytest.mark.slow
def test_the_table_is_the_childrens(
    bench: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mean and standard deviation over seeds, a row per setting, of the children's own figures;
    the children lie under the parent, and do what the file says, whatever 'l2i train' would be
    told by variables; the same command again trains nothing, but a record of other trainings
    counts for none. A file of the current folder that is called as a module is stays out of it.

    Two at once: children that share a classifier which nobody has trained yet train it once, the
    first alone, then the other."""
    (bench / "random.py").write_text("raise SystemExit('random.py of the current folder')\n")
    path = _file()
    for name, value in (("SEED", "7"), ("EPOCHS", "2"), ("NAME", "mine"), ("AGAIN", "1")):
        monkeypatch.setenv(f"L2I_TRAIN_{name}", value)
    stages = Path("mlruns/work/stages")
    there = set(stages.glob("classifier-*"))
    answer = say("sweep", str(path), "--jobs", "2", "--json")
    assert answer.code == 0, answer.err
    events = [line for line in answer.err.splitlines() if re.search("begins;|done in .* min", line)]
    begin = ["begins" in line for line in events]
    assert begin[:2] == [True, True], events
    for seed in (0, 1):
        own = [b for line, b in zip(events, begin, strict=True) if f"seed {seed}" in line]
        assert own == [True, False, True, False], events
    assert len({*stages.glob("classifier-*")} - there) == 2
    sweep = json.loads(answer.out)
    assert sweep["failed"] == [] and len(sweep["children"]) == 4
    assert sweep["settings"] == ["pooling=attention", "pooling=max"]
    client = connect(locate())
    for row in sweep["table"]:
        own = [c for c in sweep["children"] if c["setting"] == row["setting"]]
        assert {c["seed"] for c in own} == {0, 1}
        for name, figure in row["figures"].items():
            x = [client.get_run(c["run_id"]).data.metrics[f"test/{name}"] for c in own]
            assert figure["mean"] == pytest.approx(np.mean(x), abs=1e-9)
            assert figure["std"] == pytest.approx(np.std(x, ddof=1), abs=1e-9)
            assert figure["n"] == 2
    for child in sweep["children"]:
        run = client.get_run(child["run_id"])
        assert run.data.tags["mlflow.parentRunId"] == sweep["run"]["id"]
        assert run.data.params["interpreter.pooling"] == child["setting"].partition("=")[2]
        assert run.data.params["run.seed"] == str(child["seed"])
    parent = client.get_run(sweep["run"]["id"])
    assert parent.info.status == "FINISHED" and parent.data.tags["l2i.kind"] == "sweep"
    wanted = sweep["table"][0]["figures"]["accuracy"]["mean"]
    assert parent.data.metrics["pooling_attention/accuracy/mean"] == pytest.approx(wanted)
    (bench / "kept").mkdir()
    folder = Path(client.download_artifacts(sweep["run"]["id"], "", str(bench / "kept")))
    names = {"sweep.csv", "sweep.txt", "sweep.json", "sweep.png", "sweep.toml", "children.csv"}
    assert {p.name for p in folder.iterdir()} == names
    assert len(pd.read_csv(folder / "children.csv")) == 4
    assert Image.open(folder / "sweep.png").size[0] > 300

    before = _runs()
    again = json.loads(say("sweep", str(path), "--json", "-q").out)
    assert again["table"] == sweep["table"] and _runs() == before
    answer = say("sweep", str(path), "--dry-run")
    assert answer.code == 0 and "0 of 4 trainings to do." in answer.out
    answer = say("sweep", str(path), "-q")
    assert max(map(len, answer.out.splitlines())) <= 80 and " ± " in answer.out

    (record,) = Path("mlruns/work/sweeps").rglob("done.json")
    done = json.loads(record.read_text())
    right = done[read_sweep(path).children[0].key]
    record.write_text(json.dumps(dict.fromkeys(done, right)))
    assert "3 of 4 trainings to do." in say("sweep", str(path), "--dry-run").out


def _begin(path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "l2i", "sweep", str(path), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _trainings() -> list[int]:
    """Processes that train in this folder."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            here = os.readlink(entry / "cwd") == str(Path.cwd())
        except OSError:
            continue
        if here and b"train" in words and b"l2i" in words:
            pids.append(int(entry.name))
    return pids


@pytest.mark.slow
def test_stopped_and_begun_again(bench: Path, say: Callable[..., Said]) -> None:
    """Killed, and then interrupted, while the second child trains: its process ends with it, the
    first is not trained again, no run is made twice, none stays RUNNING."""
    path = _file('[sweep]\n"interpreter.learning_rate" = [1e-3, 2e-3]\n', epochs=3)
    for how in (signal.SIGKILL, signal.SIGINT):
        process = _begin(path)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("2/2"):
                break
        while not _trainings():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(how)
        process.wait()
        end = time.monotonic() + 30
        while _trainings():
            assert time.monotonic() < end, "a training goes on without its sweep"
            time.sleep(0.05)
    answer = say("sweep", str(path), "--json")
    assert answer.code == 0 and "1 of them are done already" in answer.err
    assert len(json.loads(answer.out)["children"]) == 2
    runs = list_runs(limit=100)
    assert [run.status for run in runs] == ["FINISHED"] * 3
    assert len(_runs()) == 2


@pytest.mark.slow
def test_one_that_fails_stops_no_other(bench: Path, say: Callable[..., Said]) -> None:
    """The rest is trained, the table made of it; exit code 1, what failed and why; mended, only
    that one is trained."""
    path = _file('[sweep]\n"dictionary.components" = [16, 4000]\n"dictionary.iterations" = [2]\n')
    text = path.read_text()
    path.write_text(text.replace('"dictionary.iterations" = [2]', '"dictionary.method" = ["none"]'))
    answer = say("sweep", str(path), "-q")
    assert answer.code == 1
    assert re.search(r"components=4000.* failed: .*cannot make 4000 bands", answer.err)
    assert "components=16" in answer.out and "n = 1" in answer.out
    (parent,) = [run for run in list_runs() if run.kind == "sweep"]
    assert parent.status == "FAILED"
    plan = say("sweep", str(path), "--dry-run").out
    assert "1 of 2 trainings to do." in plan
    assert re.search(r"About \S+ .*: run \S+ took ", plan)


def test_the_first_alone_then_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time, of three that share a classifier which nobody has trained: one trains it, and
    the others are trained side by side."""
    events: list[str] = []

    class Ended:
        begin = 0.0

        def __init__(self, child: Child, *_: object) -> None:
            events.append("begins")
            self.child, self.process, self.over = child, self, ExitStack()

        def look(self) -> None:
            pass

        def poll(self) -> int:
            return 0

    def told(sentence: str) -> None:
        events.extend(re.findall("done", sentence))

    monkeypatch.setattr(sweeping, "_start", Ended)
    monkeypatch.setattr(sweeping, "_result", lambda _: {"scores": {}})
    path = _file('[sweep]\n"interpreter.learning_rate" = [1e-3, 2e-3, 3e-3]\n')
    progress: Any = SimpleNamespace(say=told)
    results, failed = sweeping._train_all(read_sweep(path), {}, SimpleNamespace(), progress, 2, [])
    assert len(results) == 3 and failed == []
    assert events == ["begins", "done", "begins", "begins", "done", "done"]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ["has no table [sweep]"]),
        ("[sweep]\n", ["varies nothing"]),
        ("[sweep]\nfolds = []\n", ["must be a list of values"]),
        ("[sweep]\nseeds = 3\n", ["must be a list of values"]),
        ("[sweep]\nseeds = [1, 1]\n", ["has a value twice"]),
        ("[sweep]\nfold = [1]\n", ["There is no setting 'fold'"]),
        ('[sweep]\n"interpreter.poling" = ["max"]\n', ["did you mean 'interpreter.pooling'"]),
        ('[sweep]\nseeds = [0]\nmetrics = ["acuracy"]\n', ["did you mean 'accuracy'"]),
        ("[[sweep.settings]]\nx = 1\n", ["needs a name"]),
        (
            '[sweep]\nmetrics = ["nothing"]\nseeds = 1\n[[sweep.settings]]\ny = 1\n',
            ["'nothing'", "list of values", "needs a name"],
        ),
        (
            '[[sweep.settings]]\nname = "a"\n[[sweep.settings]]\nname = "b"\n',
            ["are the same training"],
        ),
    ],
)
def test_what_a_file_may_say(text: str, sentences: list[str], say: Callable[..., Said]) -> None:
    """Every mistake at once, with the nearest word; nothing is begun."""
    Path("s.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_sweep(Path("s.toml"))
    for sentence in sentences:
        assert sentence in str(error.value)
    answer = say("sweep", "s.toml", "--dry-run")
    assert answer.code == 2 and "Traceback" not in answer.err


@pytest.mark.parametrize("words", [("--dry-run",), ("-q",)])
def test_settings_of_parts_that_there_are_not(
    words: tuple[str, ...], say: Callable[..., Said]
) -> None:
    """Told before the first training, which would take hours, and of all settings at once."""
    Path("s.toml").write_text(
        'extends = "demo"\n[sweep]\n'
        '[[sweep.settings]]\nname = "right"\n"parts.gates.epochs" = 1\n'
        '[[sweep.settings]]\nname = "misspelt"\n"parts.gates.epocks" = 1\n'
        '[[sweep.settings]]\nname = "of another"\n"parts.mask-decoder.epochs" = 1\n'
    )
    answer = say("sweep", "s.toml", *words)
    assert answer.code == 2 and "Traceback" not in answer.err
    assert "did you mean 'parts.gates.epochs'" in answer.err
    assert "no part 'mask-decoder' of method 'gated-l2i'" in answer.err
    assert not Path("mlruns").exists() or list_runs("demo") == []


def test_the_product() -> None:
    """Settings times folds times seeds, in the file's order; what moves together moves together."""
    Path("s.toml").write_text(
        'extends = "esc10"\n[sweep]\nfolds = [1, 2]\nseeds = [0, 5]\n'
        'interpreter.maps = [["512"], ["512", "256"]]\n'
        '[[sweep.settings]]\nname = "own"\n'
        '[[sweep.settings]]\nname = "long"\ninterpreter.epochs = 99\nclassifier.epochs = 7\n'
    )
    sweep = read_sweep(Path("s.toml"), overrides=["interpreter.batch_size=4"])
    assert len(sweep.children) == 2 * 2 * 2 * 2
    assert sweep.settings == (
        *("own, maps=512", "own, maps=512+256", "long, maps=512", "long, maps=512+256"),
    )
    last = sweep.children[-1].config
    assert (last.interpreter.epochs, last.classifier.epochs) == (99, 7)
    assert last.interpreter.maps == ["512", "256"] and last.interpreter.batch_size == 4
    assert (sweep.children[-1].fold, sweep.children[-1].seed) == (2, 5)
    assert sweep.children[0].config.interpreter.epochs == 50


def test_a_table_has_its_runs_name() -> None:
    """And not that of the last figure."""
    Path("s.toml").write_text('extends = "demo"\n[sweep]\nseeds = [0, 1]\n')
    wanted = read_sweep(Path("s.toml"))
    children = [{**child.place, "scores": {"accuracy": 0.5}} for child in wanted.children]
    table = table_of(wanted, "abc", "seeds", children)
    assert table["run"] == {"id": "abc", "name": "seeds"}
    assert table["table"][0]["figures"]["accuracy"] == {"mean": 0.5, "std": 0.0, "n": 2}


def test_a_finished_sweep_makes_no_second_run(
    tmp_path: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its table is shown, as a finished training's figures are."""
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text('extends = "demo"\n[sweep]\nseeds = [0, 1]\n')
    wanted = read_sweep(Path("s.toml"))
    done = {c.key: {"run_id": "abc", "name": "x", "scores": {}} for c in wanted.children}
    monkeypatch.setattr("l2i.recipes.tables.sweep._done", lambda _: done)
    parent = make_parent(**facts(wanted))
    close_run(parent, "FINISHED")
    answer = json.loads(say("sweep", "s.toml", "--json").out)
    assert answer["run"]["id"] == parent and len(answer["children"]) == 2
    assert [run.id for run in list_runs()] == [parent]


def test_rows_are_called_by_words_that_tell() -> None:
    """A 'name' says nothing by itself, nor does what two settings of a sweep are called."""
    Path("s.toml").write_text(
        'extends = "demo"\n[sweep]\nmethod.name = ["l2i", "lmac"]\ninterpreter.epochs = [1, 2]\n'
    )
    named = read_sweep(Path("s.toml")).settings
    assert named[0] == "method=l2i, epochs=1" and len(set(named)) == 4
    Path("s.toml").write_text(
        'extends = "demo"\n[sweep]\nclassifier.epochs = [1]\ninterpreter.epochs = [1, 2]\n'
    )
    assert read_sweep(Path("s.toml")).settings[1] == "classifier.epochs=1, interpreter.epochs=2"
