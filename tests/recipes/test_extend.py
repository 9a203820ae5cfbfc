"""`docs/extend.md`: each of its files as it stands, used by the commands below it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import REPOSITORY
from tests.stores import Said

PAGE = (REPOSITORY / "docs" / "extend.md").read_text(encoding="utf-8")
# What the published settings would take minutes for.
_QUICK = " ".join(
    f"-o {setting}"
    for setting in (
        *("classifier.epochs=1", "interpreter.epochs=1", "dictionary.iterations=2"),
        *("dictionary.components=8", "spectrogram.n_fft=256", "spectrogram.hop_length=64"),
        *("classifier.head=16", "output.clips=1"),
    )
)


def section(title: str) -> list[str]:
    """Write the file of a section down; the commands of the section."""
    (text,) = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    ((name, code),) = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", text, re.M | re.S)
    Path(name).write_text(code, encoding="utf-8")
    lines = re.findall(r"^\$ l2i (.+)$", text, re.M)
    assert lines
    return lines


def run(say: Callable[..., Said], lines: list[str]) -> list[Said]:
    """All commands, none of which may fail."""
    answers = []
    for line in lines:
        answers.append(say(*shlex.split(line.replace("--dataset demo", "--config small.toml"))))
        assert answers[-1].code == 0, (line, answers[-1].err)
    return answers


@pytest.mark.slow
def test_a_metric(copied: Path, say: Callable[..., Said]) -> None:
    """It stands among the figures of the training, and of what measures the run again."""
    for output in run(say, section("A metric")):
        (line,) = [x for x in output.out.splitlines() if "Level of the explanation" in x]
        assert " dB" in line


def test_a_method(copied: Path, say: Callable[..., Said]) -> None:
    """It is a row of the table, and keeps less than the whole input."""
    benchmark, evaluate = section("A method")
    output, _ = run(say, [f"{benchmark} --json", evaluate])
    document = json.loads(output.out)["methods"]
    kept = {name: figures["scores"]["kept"] for name, figures in document.items()}
    assert 0 < kept["Loudest"] < kept["full"] == pytest.approx(1)


def test_a_classifier(say: Callable[..., Said]) -> None:
    """A low tone, then a high one, for a while both: what makes it say *high* is the high one."""
    t = np.arange(8000) / 8000
    low, high = (np.sin(2 * np.pi * hz * t) for hz in (400, 2000))
    noise = 0.003 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write("my.wav", 0.3 * low * (t < 0.6) + 0.4 * high * (t > 0.4) + noise, 8000)
    check, _ = run(say, section("A classifier"))
    assert "low, high" in " ".join(check.out.split())
    (path,) = Path("high").rglob("explanation.wav")
    x = soundfile.read(path)[0]
    assert abs(x @ high) > 3 * abs(x @ low)


@pytest.mark.slow
def test_a_data_set(say: Callable[..., Said]) -> None:
    """Its clips are checked and trained on; the card's classes are the run's."""
    draw, t = np.random.default_rng(0), np.arange(16000) / 8000
    Path("beeps").mkdir()
    table = ["file,class,fold"]
    for name, hz in (("low", 400), ("high", 2000)):
        for number in range(12):
            x = np.sin(2 * np.pi * hz * t) + 0.1 * draw.standard_normal(16000)
            table.append(f"{name}-{number}.wav,{name},{1 + number % 3}")
            soundfile.write(f"beeps/{name}-{number}.wav", 0.3 * x, 8000)
    Path("beeps/clips.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
    lines = section("A data set")
    check, train = run(say, [lines[0], f"{lines[1]} {_QUICK}"])
    assert "24" in check.out
    assert "Classifier accuracy" in train.out


def test_an_engine(say: Callable[..., Said]) -> None:
    """Submitted twice it is one job, whose tasks wait with their commands; cancelled, they are."""
    shutil.copytree(REPOSITORY / "experiments" / "demo", "experiments/demo")
    submit, *rest = section("An engine")
    assert "3 tasks on" in run(say, [submit])[0].out
    assert "nothing is new" in run(say, [submit])[0].out
    show, logs, _ = run(say, rest)
    assert "3 waiting" in show.out and "Task 0 is on the shelf." in logs.out
    files = sorted(Path("mlruns/work/shelf").rglob("*.json"))
    tasks = [json.loads(file.read_text()) for file in files]
    assert [task["state"] for task in tasks] == ["cancelled"] * 3
    assert tasks[1]["command"][:2] == ["l2i", "task"] and tasks[1]["env"]["L2I_TASK_INDEX"] == "1"
