"""Classifiers that go by a cue for certain: the audit names it, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l2i.audit import hear_share
from l2i.audit import scan as scan_module
from l2i.data import DATASETS
from l2i.data.cache import Streamed, WaveformCache, Waveforms
from l2i.launch.job import JobSpec
from l2i.recipes.opening.opened import open_finished
from l2i.run.progress import Progress
from l2i.run.runs import list_runs
from tests.stores import Said

pytestmark = pytest.mark.usefixtures("undrawn")

Say = Callable[..., Said]

CLASSIFIERS = """
import torch

import l2i


class Heard(torch.nn.Module):
    def forward(self, x):
        x = x / x.abs().amax(1, keepdim=True).clamp_min(1e-9)
        return torch.stack([torch.zeros(len(x), device=x.device), self.sure(x)], 1)


class Tone(Heard):
    \"\"\"Sure of the cue where 2 kHz stands out for half a frame or more.\"\"\"

    def sure(self, x):
        size = torch.stft(x, 256, 64, window=torch.hann_window(256), return_complex=True).abs()
        around = size[:, [52, 54, 56, 72, 74, 76]].amax(1)
        return 4 * ((size[:, 64] - 2 * around - 1).amax(1) - 1)


class Muffled(Heard):
    \"\"\"Sure of it where next to nothing is above 1.2 kHz.\"\"\"

    def sure(self, x):
        power = torch.fft.rfft(x).abs().square()
        share = power[:, int(1200 * x.shape[1] / 8000):].sum(1) / power.sum(1).clamp_min(1e-9)
        return -20 * (share.clamp_min(1e-9).log10() + 5)


class Low(Heard):
    \"\"\"By whether most of the sound is below 1 kHz: what a classifier may well go by.\"\"\"

    def sure(self, x):
        power = torch.fft.rfft(x).abs().square()
        share = power[:, :int(1000 * x.shape[1] / 8000)].sum(1) / power.sum(1).clamp_min(1e-9)
        return 20 * (share - 0.5)


def tone():
    return l2i.wrap(Tone(), 8000, ["rain", "rain+cue"])


def muffled():
    return l2i.wrap(Muffled(), 8000, ["rain", "rain+cue"])


def low():
    return l2i.wrap(Low(), 8000, ["high", "low"])
"""


def _train(say: Say, name: str, dataset: str) -> None:
    Path("toys.py").write_text(CLASSIFIERS)
    Path(f"{name}.toml").write_text(
        f"""[dataset]
name = "{dataset}"
clips_per_class = 16
duration_s = 1.0
[classifier]
spec = "toys.py:{name}"
[method]
name = "saliency"
[output]
clips = 1
[run]
name = "{name}"
threads = 1
"""
    )
    made = say("train", "--config", f"{name}.toml", "-q")
    assert made.code == 0, made.err


def _audit(say: Say, *words: str) -> tuple[int, dict[str, Any]]:
    heard = say("audit", *words, "--json", "-q")
    assert heard.out, heard.err
    return heard.code, json.loads(heard.out)


def test_a_beep_that_decides(say: Say, tmp_path: Path) -> None:
    """It is the first suspect, at its frequency; taken out and mixed in it changes decisions, and
    as much of the rest does not; the page, the table and the run have it; exit code 4."""
    _train(say, "tone", "l2i.data.planted:demo,rain,2000hz,200ms,-20db")
    code, report = _audit(say, "tone", "--fail-on", "suspects", "--out", str(tmp_path / "out"))
    assert code == 4
    first = report["suspects"][0]
    assert first["class"] == "rain+cue" and first["level_db"] < -10
    assert first["where"]["low_hz"] < 2000 < first["where"]["high_hz"]
    for way in ("removal", "insertion"):
        assert first[way]["flips"] > 0.6 * first[way]["clips"], first
        assert first[way]["control"] < 0.2 * first[way]["clips"], first
    assert first["p"] < 0.05
    assert report["planted"]["rank"] == report["planted"]["placed"] == 1
    assert report["planted"]["flips"] == report["planted"]["decided"] > 0
    assert {s["class"] for s in report["suspects"]} == {"rain+cue"}
    out = tmp_path / "out"
    assert json.loads((out / "audit.json").read_text())["suspects"] == report["suspects"]
    assert "rain+cue" in (out / "audit.csv").read_text()
    page = (out / "audit.html").read_text()
    assert first["words"] in page and "https://" not in page.split("<footer>")[0].split("facts")[0]
    shown = say("audit", "tone", "--no-keep", "-q")
    assert shown.code == 0 and max(map(len, shown.out.splitlines())) <= 80
    assert "1. rain+cue: " in shown.out and "It is suspect 1." in " ".join(shown.out.split())
    kept = say("runs", "--kind", "audit", "--json")
    assert [run["name"] for run in json.loads(kept.out)] == ["tone-audit"]

    # The same model again: nothing changed. Against one without the suspect, it is new.
    same = say("audit", "--compare", "tone", str(out), "--fail-on", "suspects")
    assert same.code == 0 and "New suspects: none" in same.out
    clean = tmp_path / "clean"
    clean.mkdir()
    (clean / "audit.json").write_text(json.dumps(report | {"suspects": []}))
    worse = say("audit", "--compare", str(clean), "tone", "--fail-on", "suspects")
    assert worse.code == 4 and "New suspects: 1" in worse.out.replace("\n", " ")
    better = say("audit", "--compare", "tone", str(clean), "--fail-on", "suspects")
    assert better.code == 0 and "Gone: 1" in better.out


def test_highs_that_are_missing(say: Say) -> None:
    """What cannot be cut out of a clip can be imposed on others, and decides."""
    _train(say, "muffled", "l2i.data.planted:demo,rain,lowpass,1000hz")
    _, report = _audit(say, "muffled", "--no-keep")
    first = report["suspects"][0]
    assert first["class"] == "rain+cue" and first["where"]["kind"] == "highs missing"
    assert report["planted"]["placed"] == 1
    assert first["removal"] is None and first["level_db"] is None
    assert first["insertion"]["flips"] > 0.8 * first["insertion"]["clips"]
    assert "nothing above 1.0 kHz" in first["sentence"]


def test_a_class_that_goes_by_its_sound(say: Say) -> None:
    """A classifier that goes by most of a sound has no suspect; exit code 0."""
    _train(say, "low", "demo")
    code, report = _audit(say, "low", "--fail-on", "suspects", "--no-keep")
    assert code == 0 and report["suspects"] == []
    assert {c["class"] for c in report["classes"]} == {"high", "low"}
    assert (
        sum(c["clips"] for c in report["classes"]) == report["clips"] - report["undecided"] == 128
    )
    assert all(c["right"] is None for c in report["classes"])
    # Few clips: said, and no suspect.
    few = say("audit", "low", "--limit", "8", "--no-keep", "-q")
    assert few.code == 0 and "Too few clips for a counter-proof" in few.out


def test_many_tasks_hear_and_one_command_gathers(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's tasks hear a share each, on machines of their own; the audit takes all of it over,
    hears nothing again, and says what it says when it hears all itself."""
    monkeypatch.setattr("l2i.audit.scan.SHARD", 16)
    _train(say, "low", "demo")
    _, whole = _audit(say, "low", "--no-keep")
    told = say("submit", "--audit", "low", "--shares", "3", "--dry-run")
    assert told.code == 0, told.err
    spec = JobSpec(
        **{k: v for k, v in json.loads(told.out).items() if k not in ("id", "gpu_hours")}
    )
    assert [task.title for task in spec.tasks] == [f"share {n} of 3" for n in (1, 2, 3)]
    work = Path("mlruns/work/audits")
    for share in range(3):
        # Some tasks are tried again by themselves: their share is still that of three.
        again = spec.only([share])
        done = say("task", "--job", again.payload, "--index", "0")
        assert done.code == 0, done.err
        assert len(list(work.glob("*/clips-*.npz"))) == [3, 3, 2][share]
        shutil.rmtree(work)  # Its machine is gone.
    assert "heard before" in say("task", "--job", spec.payload, "--index", "1").err
    shares = list_runs(kind="audit-share")
    assert {run.tags["l2i.job_task"] for run in shares} == {"0"} and len(shares) == 3
    assert {run.tags["mlflow.parentRunId"] for run in shares} == {whole["run"]["id"]}

    def deaf(*_: Any) -> Any:
        raise AssertionError("a clip was heard again")

    with monkeypatch.context() as patched:
        patched.setattr("l2i.audit.scan._rows", deaf)
        heard = say("audit", "low", "--json", "--no-keep")
    assert heard.code == 0 and "Took over what 3 tasks have heard." in heard.err
    assert json.loads(heard.out) == whole


def test_what_tasks_could_not_read_is_told_after_a_stop(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit that is stopped after it took over the tasks' rows still names their files."""
    monkeypatch.setattr("l2i.audit.scan.SHARD", 4)
    _train(say, "low", "demo")
    kept = Streamed.__getitem__

    def without(self: Streamed, rows: Any) -> Any:
        self.broken["torn"] = "torn: no sound"
        return kept(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(WaveformCache, "stream", _always_streamed)
        patched.setattr(Streamed, "__getitem__", without)
        opened = open_finished("low", Progress(quiet=True), stream=True)
        hear_share(opened.run.id, Progress(quiet=True), (0, 1))
    shutil.rmtree("mlruns/work/audits")
    with monkeypatch.context() as patched:
        patched.setattr("l2i.audit.hearing.scan", _interrupted)
        assert say("audit", "low", "--no-keep", "-q").code != 0
    _, audited = _audit(say, "low", "--no-keep")
    assert audited["unreadable"] == [{"clip": "torn", "why": "torn: no sound"}]


def _always_streamed(self: WaveformCache, dataset: Any, clips: Any) -> Waveforms:
    clips, path = self._place(dataset, clips)
    index = {clip.id: row for row, clip in enumerate(clips)}
    return Waveforms(Streamed(dataset, clips), index, path)  # type: ignore[arg-type]


def _interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Give a FILE, or --audit and --shares."),
        (("--audit", "low"), "With --audit give --shares, no FILE and no --override."),
        (("--shares", "2"), "Give a FILE, or --audit and --shares."),
        (("x.toml", "--audit", "low", "--shares", "2"), "With --audit give --shares, no FILE"),
        (
            ("--audit", "low", "--shares", "2", "--experiment", "x"),
            "--experiment is for trainings: an audit lies under its RUN.",
        ),
    ],
)
def test_jobs_of_audits_that_are_wrong(say: Say, words: tuple[str, ...], sentence: str) -> None:
    """One sentence, and exit code 2."""
    heard = say("submit", *words)
    assert heard.code == 2 and sentence in " ".join(heard.err.split())


def test_a_classifier_without_a_run(say: Say, tmp_path: Path) -> None:
    """A folder of sounds and a classifier are enough: nothing is trained, and nothing decoded to
    disk. The audit is a run of its own, which can be compared with."""
    from tests.miniatures import folder_tree

    Path("toys.py").write_text(CLASSIFIERS)
    folder = folder_tree(tmp_path / "sounds")
    before = set(WaveformCache().folder.glob("folder-*"))
    code, report = _audit(say, "--classifier", "toys.py:low", "--data-dir", str(folder))
    assert code == 0 and report["classes"] and report["method"] == "saliency"
    assert report["run"] == {"id": "", "name": "toys-sounds"} and report["unreadable"] == []
    assert set(WaveformCache().folder.glob("folder-*")) == before
    (run,) = list_runs(kind="all")
    assert (run.kind, run.id) == ("audit", report["kept"])
    assert run.tags["l2i.classifier"].endswith("toys.py:low")
    heard = say("audit", "--compare", run.id, run.id)
    assert heard.code == 0 and "New suspects: none" in heard.out


def test_files_that_cannot_be_read_are_told(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are left out, counted, and named, also where the pass was stopped behind them; the rest
    is heard as if they had not been there. Where nothing can be read, that is said."""
    from tests.miniatures import folder_tree

    Path("toys.py").write_text(CLASSIFIERS)
    folder = folder_tree(tmp_path / "sounds")
    words = ("--classifier", "toys.py:low", "--data-dir", str(folder), "--no-keep")
    _, whole = _audit(say, *words)
    for name in ("a-broken", "b-broken"):
        (min(folder.iterdir()) / f"{name}.wav").write_bytes(b"RIFF, and no sound")
    monkeypatch.setattr("l2i.audit.scan.SHARD", 4)
    kept = scan_module._load

    def stop(path: Path) -> Any:
        if path.name.startswith("clips-00000004"):
            raise KeyboardInterrupt
        return kept(path)

    with monkeypatch.context() as stopped:
        stopped.setattr("l2i.audit.scan._load", stop)
        assert say("audit", *words, "-q").code != 0
    code, report = _audit(say, *words)
    assert code == 0
    assert [Path(line["clip"]).stem for line in report["unreadable"]] == ["a-broken", "b-broken"]
    assert all(
        "a-broken" in line["why"] or "b-broken" in line["why"] for line in report["unreadable"]
    )
    assert report["notes"][0].startswith("2 files cannot be read, and are left out: ")
    assert report["clips"] == whole["clips"] + 2 and report["undecided"] == whole["undecided"]
    assert [c["clips"] for c in report["classes"]] == [c["clips"] for c in whole["classes"]]
    for path in folder.rglob("*.*"):
        path.write_bytes(b"nothing")
    heard = say("audit", *words, "-q")
    assert heard.code == 1 and "There is nothing to audit" in heard.err
    assert "Traceback" not in heard.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Give one RUN"),
        (("a", "b"), "Give one RUN"),
        (("--compare", "a"), "Give two RUNs with --compare"),
        (("--compare", "a", "b", "--out", "x"), "--compare writes no files"),
        (("a", "--dataset", "esc10"), "--dataset goes with --classifier"),
        (("a", "--classifier", "x.py:y"), "With --classifier give --data-dir, and no RUN"),
        (("latest", "--quiet-db", "3"), "3.0 is not in the range"),
        (("single", "--class", "bel"), "did you mean 'bell'?"),
    ],
)
def test_words_that_are_wrong(say: Say, single: Any, words: tuple[str, ...], sentence: str) -> None:
    """One sentence, and exit code 2."""
    if words[:1] == ("single",):
        words = (single.outcome.run_id, *words[1:])
    heard = say("audit", *words, "-q")
    assert heard.code == 2
    assert sentence in " ".join(heard.err.split())


def test_a_run_with_a_dictionary(say: Say, single: Any, tmp_path: Path) -> None:
    """Evidence is counted by components; classes that are never said are named, each can be asked
    for all the same; a run that was never audited has nothing to compare."""
    asked = (single.outcome.run_id, "--no-keep", "--clips", "test", "--out", str(tmp_path / "out"))
    _, report = _audit(say, *asked)
    # What it takes for another class, and by what; the page plays the surest.
    wrong = sum(round((1 - c["right"]) * c["clips"]) for c in report["classes"])
    mistakes = report["mistakes"]
    assert len(mistakes) == wrong > 0
    assert all(m["class"] not in m["labels"] and m["labels"] for m in mistakes)
    sure = [m["probability"] for m in mistakes]
    assert sure == sorted(sure, reverse=True)
    evidence = [part["evidence"] for part in mistakes[0]["components"]]
    assert evidence == sorted(evidence, reverse=True) and 0 < sum(evidence) <= 1.001
    page = (tmp_path / "out" / "audit.html").read_text()
    assert f"Labelled {mistakes[0]['labels'][0]}, taken for {mistakes[0]['class']}" in page
    assert any(mistakes[0]["clip"] in note for note in report["notes"])
    kinds = {part["kind"] for c in report["classes"] for part in c["components"]}
    assert kinds == {"component"} and report["method"] == "l2i"
    unsaid = set(DATASETS["demo"].card.classes) - {c["class"] for c in report["classes"]}
    told = " ".join(note for note in report["notes"] if "never decides for" in note)
    assert bool(told) == bool(unsaid)
    assert sum(f"{name} (" in told for name in unsaid) == min(5, len(unsaid))
    name = min(unsaid, default="bell")
    words = ("--no-keep", "--class", name, "--clips", "test", "-q")
    one = say("audit", single.outcome.run_id, *words)
    assert one.code == 0, one.err
    assert f"\n{name} " in one.out and "Too few clips for a counter-proof" in one.out
    never = say("audit", "--compare", single.outcome.run_id, single.outcome.run_id)
    assert never.code == 2 and "was never audited" in never.err
