"""A user's own audio, explained by a finished run."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from l2i.errors import CheckpointError, DataError, StoreError, UsageError
from l2i.explanation import check_heeded
from l2i.recipes.publishing.explain import explain
from l2i.run.progress import Progress
from l2i.storage import MARK, is_output
from tests.recipes.conftest import Finished
from tests.stores import Said

QUIET = Progress(quiet=True)


def _tone(path: Path, seconds: float = 1.5, rate: int = 8000, channels: int = 1) -> Path:
    t = np.arange(round(seconds * rate)) / rate
    x = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.01 * np.random.default_rng(0).normal(size=len(t))
    soundfile.write(path, np.stack([x] * channels, axis=1), rate)
    return path


def test_files_of_every_kind(single: Finished, tmp_path: Path) -> None:
    """Another rate, stereo, shorter and longer than the clips: each is explained at its own
    length, and what is said of it lies beside it."""
    sounds = [
        _tone(tmp_path / "a.wav"),
        _tone(tmp_path / "b.flac", 0.3, 22050, 2),
        _tone(tmp_path / "c.ogg", 4.0, 16000),
    ]
    explanations = explain("latest", sounds, QUIET, out=tmp_path / "out")
    for item, path, seconds in zip(explanations, sounds, (1.5, 0.3, 4.0), strict=True):
        folder = tmp_path / "out" / path.stem
        kept = json.loads((folder / "explanation.json").read_text())
        assert kept == item
        for word in ("original", "explanation", "removal"):
            info = soundfile.info(folder / f"{word}.wav")
            assert info.samplerate == 8000
            assert info.frames == pytest.approx(seconds * 8000, abs=2)
        assert (folder / "spectrograms.png").is_file()
    assert [p.name for p in (tmp_path / "out").glob(".*")] == [MARK], "nothing half-made is left"
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    (facts,) = re.findall(r'id="facts">(.*?)</script>', text)
    shown = json.loads(facts)["clips"]
    assert [clip["name"] for clip in shown] == ["a.wav", "b.flac", "c.ogg"]
    assert re.search(r'<li><abbr title="Classifier accuracy[^>]*>accuracy</abbr>', text)
    assert re.search(r"accuracy</abbr> <strong>[01]\.\d{3}</strong>", text)
    for clip, item in zip(shown, explanations, strict=True):
        assert clip["right"] is None
        assert {k: v for k, v in clip.items() if k != "name"} == {
            k: v for k, v in item.items() if k not in ("audio", "folder", "run")
        }
    assert str(tmp_path) not in text, "a page that is passed on tells nothing of this machine"


def test_explanation_and_removal_share_the_input(single: Finished, tmp_path: Path) -> None:
    """In every frame and bin the two magnitudes multiply (1 + |X|) back together: the masks add
    up to one in the log domain."""
    import librosa

    explain("latest", [_tone(tmp_path / "a.wav", 2.0)], QUIET, out=tmp_path)
    size = {}
    for word in ("original", "explanation", "removal"):
        x, _ = soundfile.read(tmp_path / "a" / f"{word}.wav")
        size[word] = np.abs(librosa.stft(x, n_fft=256, hop_length=64))
    both = (1 + size["explanation"]) * (1 + size["removal"]) - 1
    error = np.abs(both - size["original"])[:, 4:-4]
    assert np.median(error) < 0.05 * np.median(size["original"]) + 0.01


def test_silence_is_explained_by_nothing(single: Finished, tmp_path: Path) -> None:
    """No component, silent sounds, no NaN."""
    soundfile.write(tmp_path / "silence.wav", np.zeros(9000), 8000)
    (item,) = explain("latest", [tmp_path / "silence.wav"], QUIET, out=tmp_path / "out")
    assert item["components"] == []
    assert item["probability"]["explanation"] is None
    for word in ("original", "explanation", "removal"):
        x, _ = soundfile.read(tmp_path / "out" / "silence" / f"{word}.wav")
        assert not x.any()


def test_class_threshold_and_number(single: Finished, tmp_path: Path) -> None:
    """A named class is explained; tau and the greatest number of components are the caller's."""
    tone = _tone(tmp_path / "a.wav")
    (item,) = explain("latest", [tone], QUIET, class_names=["rain"], out=tmp_path, threshold=0.0)
    assert item["class"] == "rain"
    relevances = [c["relevance"] for c in item["components"]]
    assert relevances == sorted(relevances, reverse=True)
    assert all(r > 0 for r in relevances)
    (item,) = explain("latest", [tone], QUIET, max_components=1, out=tmp_path)
    assert len(item["components"]) <= 1
    with pytest.raises(UsageError, match="knows no class 'rian'; did you mean 'rain'"):
        explain("latest", [tone], QUIET, class_names=["rian"], out=tmp_path)


def test_several_classes(single: Finished, say: Callable[..., Said], tmp_path: Path) -> None:
    """Every file is explained for each class that is asked for, once: in folders, on the page and
    in what is printed; each as if it were asked for alone. Another name is refused."""
    sounds = [_tone(tmp_path / "a.wav"), _tone(tmp_path / "b.flac", 0.5)]
    asked = [word for name in ("siren", "rain", "siren") for word in ("--class", name)]
    words = ("explain", "latest", *map(str, sounds), *asked)
    answer = say(*words, "--out", str(tmp_path / "out"), "--json")
    assert answer.code == 0, answer.err
    explanations = json.loads(answer.out)
    assert [(Path(item["folder"]).name, item["class"]) for item in explanations] == [
        ("a-siren", "siren"),
        ("a-rain", "rain"),
        ("b-siren", "siren"),
        ("b-rain", "rain"),
    ]
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    shown = json.loads(re.findall(r'id="facts">(.*?)</script>', text)[0])["clips"]
    assert [(clip["name"], clip["class"]) for clip in shown] == [
        (name, which) for name in ("a.wav", "b.flac") for which in ("siren", "rain")
    ]
    (alone,) = explain("latest", sounds[:1], QUIET, class_names=["rain"], out=tmp_path / "one")
    assert Path(alone["folder"]).name == "a"
    own = ("folder",)
    assert {k: v for k, v in explanations[1].items() if k not in own} == {
        k: v for k, v in alone.items() if k not in own
    }
    answer = say(*words, "--class", "rian", "--out", str(tmp_path / "no"))
    assert answer.code == 2 and "did you mean 'rain'" in answer.err
    assert not (tmp_path / "no").exists()


def test_a_part_of_a_file(single: Finished, tmp_path: Path) -> None:
    """--start and --duration choose; what begins past the end is refused."""
    long = _tone(tmp_path / "long.wav", 310)
    with pytest.raises(DataError, match="nothing begins at 320 s"):
        explain("latest", [long], QUIET, start_s=320, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    explain("latest", [long], QUIET, start_s=3, duration_s=2, out=tmp_path / "out")
    assert soundfile.info(tmp_path / "out" / "long" / "original.wav").frames == 16000


@pytest.mark.parametrize("method", ["l2i", "gates"])
def test_a_long_recording(
    method: str, single: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is longer than is explained at once is explained in windows as long as the run's clips,
    or of another length, by the run's method or another one: each as a clip of its own; no more
    than a window is read at a time; and the sounds have no seams."""
    from l2i import recording
    from l2i.recipes.publishing import explain as recipe

    monkeypatch.setattr(recipe, "MAX_SECONDS", 3.0)
    asked: list[float] = []
    read = recording.read_part

    def counted(*words: object, **part: float) -> np.ndarray:
        asked.append(part["duration_s"])
        return read(*words, **part)

    monkeypatch.setattr(recording, "read_part", counted)
    path = _tone(tmp_path / "long.wav", 4.0)
    (item,) = explain("latest", [path], QUIET, method=method, out=tmp_path / "out")
    assert max(asked) < 1.2
    assert item["window_s"] == pytest.approx(1.1, abs=0.01) and item["windows"] == 4
    folder = Path(item["folder"])
    assert json.loads((folder / "explanation.json").read_text()) == item
    x, audio, removal = (soundfile.read(folder / f"{n}.wav", dtype="float32")[0] for n in _SOUNDS)
    np.testing.assert_allclose(x, soundfile.read(path, dtype="float32")[0], atol=1e-6)
    lines = (folder / "windows.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[-1].split(",")[1] == "4"
    part = tmp_path / "part.wav"
    window, overlap = round(item["window_s"] * 8000), round(item["overlap_s"] * 8000)
    soundfile.write(part, x[:window], 8000, subtype="FLOAT")
    words = {"method": method, "class_names": [item["class"]]}
    explain("latest", [part], QUIET, **words, out=tmp_path / "one")
    alone, _ = soundfile.read(tmp_path / "one" / "part" / "explanation.wav", dtype="float32")
    head = window - overlap
    one, two = audio[:head], alone[:head]
    assert np.abs(one).max() > 0
    # Sounds of a clip have one gain; those of a recording are as loud as they are.
    gain = float(one @ two / (one @ one))
    assert np.abs(gain * one - two).max() < 1e-3
    if method == "gates":
        assert np.abs(audio + removal - x).max() < 1e-6
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    (clip,) = json.loads(re.findall(r'id="facts">(.*?)</script>', text)[0])["clips"]
    assert "long.wav: the most telling of its 4 windows, " in clip["name"]
    assert str(tmp_path) not in text
    (item,) = explain("latest", [path], QUIET, method=method, window_s=2, out=tmp_path / "two")
    assert item["window_s"] == pytest.approx(2, abs=0.01) and item["windows"] == 3


def test_files_do_not_disturb_each_other(single: Finished, tmp_path: Path) -> None:
    """Several are explained at a time: what is said, heard and seen of each is what it would be
    alone, and comes in their order."""
    draw = np.random.default_rng(0)
    sounds = []
    for number in range(5):
        sounds.append(tmp_path / f"{number}.wav")
        level = 0.3 * draw.random()
        soundfile.write(
            sounds[-1], level * draw.normal(size=4000 + 1000 * number).cumsum() / 50, 8000
        )
    together = explain("latest", sounds, QUIET, out=tmp_path / "all")
    assert [item["audio"] for item in together] == [str(path) for path in sounds]
    for item, path in zip(together, sounds, strict=True):
        (alone,) = explain("latest", [path], QUIET, out=tmp_path / "one" / path.stem)
        for key in ("class", "duration_s", "decided", "interpreter_decided"):
            assert item[key] == alone[key]
        for key in ("probability", "classifier"):
            assert item[key] == pytest.approx(alone[key], abs=1e-5)
        both = [Path(facts["folder"]) for facts in (item, alone)]
        one, two = (soundfile.read(folder / "explanation.wav")[0] for folder in both)
        np.testing.assert_allclose(one, two, atol=1e-4)
        pictures = [np.asarray(Image.open(folder / "spectrograms.png")) for folder in both]
        assert (pictures[0] != pictures[1]).mean() < 0.01


def test_bad_files_do_not_stop_the_others(
    single: Finished, say: Callable[..., Said], tmp_path: Path
) -> None:
    """Files that are absent, corrupt, empty or NaN are named at the end, with exit code 1; the
    others are explained, and on the page. Where all are bad nothing is written."""
    good = [str(_tone(tmp_path / "good.wav")), str(_tone(tmp_path / "too.flac"))]
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF nothing of the kind")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "nan.wav", np.full(9000, np.nan), 8000, subtype="FLOAT")
    bad = [str(tmp_path / f"{name}.wav") for name in ("absent", "corrupt", "empty", "nan")]
    out = tmp_path / "out"
    for words, number in ((bad, "4 of 4 files"), (bad[:1], "There is no sound file")):
        answer = say("explain", "latest", *words, "--out", str(out), "--quiet")
        assert answer.code == 1 and number in answer.err and answer.out == ""
        assert not out.exists()
    early = say("explain", "latest", bad[0], "--out", str(out))
    assert early.err == f"Error: There is no sound file {bad[0]}.\n", "before networks are opened"
    words = (good[0], *bad, good[1])
    answer = say("explain", "latest", *words, "--out", str(out), "--json", "--quiet")
    assert answer.code == 1 and "Traceback" not in answer.err
    assert "4 of 6 files could not be explained" in answer.err
    lines = [line for line in answer.err.splitlines() if line.startswith("  - ")]
    for line, path in zip(lines, bad, strict=True):
        assert path in line
    assert [item["audio"] for item in json.loads(answer.out)] == good
    assert {p.name for p in out.iterdir()} == {MARK, "good", "too", "index.html"}
    (facts,) = re.findall(r'id="facts">(.*?)</script>', (out / "index.html").read_text("utf-8"))
    assert [clip["name"] for clip in json.loads(facts)["clips"]] == ["good.wav", "too.flac"]


def test_a_runs_classifier_is_one_of_any(
    single: Finished, tmp_path: Path, say: Callable[..., Said]
) -> None:
    """`run:RUN` is the classifier of a run, explained without its interpreter: it says the same of
    the clip, and both parts of it add up."""
    path = _tone(tmp_path / "a.wav")
    words = ("--classifier", f"run:{single.outcome.name}", "--out", str(tmp_path / "any"), "--json")
    answer = say("explain", str(path), *words)
    assert answer.code == 0, answer.err
    (explanation,) = json.loads(answer.out)
    (own,) = explain("latest", [path], QUIET, out=tmp_path / "own")
    assert explanation["class"] == own["class"] and explanation["method"] == "gates"
    assert explanation["probability"]["original"] == pytest.approx(
        own["probability"]["original"], 1e-3
    )
    sounds = {n: soundfile.read(tmp_path / "any" / "a" / f"{n}.wav")[0] for n in _SOUNDS}
    left = sounds["original"] - sounds["explanation"] - sounds["removal"]
    assert np.abs(left).max() < 3 / 2**15
    answer = say("classifiers", "check", f"run:{single.outcome.name}")
    assert answer.code == 0 and re.search(r"\* +\d+ +B D F T +\d+ +\d+ +\d+", answer.out)


_SOUNDS = ("original", "explanation", "removal")


def test_what_comes_through_a_pipe(single: Finished, tmp_path: Path) -> None:
    """It is explained as the file it is of; what is no sound is said of the pipe."""
    tone = _tone(tmp_path / "tone.flac")
    (wanted,) = explain("latest", [tone], QUIET, out=tmp_path / "file")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for content in (tone.read_bytes(), b"no sound"):
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        if content == b"no sound":
            with pytest.raises(DataError, match=f"{pipe} cannot be decoded"):
                explain("latest", [pipe], QUIET, out=tmp_path / "out")
        else:
            (explanation,) = explain("latest", [pipe], QUIET, out=tmp_path / "out")
            own = ("audio", "folder")
            assert {k: explanation[k] for k in explanation if k not in own} == {
                k: wanted[k] for k in wanted if k not in own
            }
        writer.join()


def test_folders_are_replaced_only_if_ours(single: Finished, tmp_path: Path) -> None:
    """A second explanation takes the place of the first; a folder of the user's is left alone;
    two files of one name get a folder each."""
    tone = _tone(tmp_path / "a.wav")
    (tmp_path / "sub").mkdir()
    other = _tone(tmp_path / "sub" / "a.wav")
    for _ in range(2):
        explain("latest", [tone, other], QUIET, out=tmp_path / "out")
        names = sorted(p.name for p in (tmp_path / "out").iterdir())
        assert names == [MARK, "a", "a-2", "index.html"]
    mine = tmp_path / "mine" / "a"
    mine.mkdir(parents=True)
    (mine / "diary.txt").write_text("dear")
    with pytest.raises(StoreError, match="no explanation of ours"):
        explain("latest", [tone], QUIET, out=tmp_path / "mine")
    assert (mine / "diary.txt").read_text() == "dear"
    page = tmp_path / "home" / "index.html"
    page.parent.mkdir()
    page.write_text("my home page")
    with pytest.raises(StoreError, match="no page of ours"):
        explain("latest", [tone], QUIET, out=page.parent)
    assert page.read_text() == "my home page"
    assert list(page.parent.iterdir()) == [page]


def test_another_runs_explanations_are_left(single: Finished, tmp_path: Path) -> None:
    """Neither in a folder that was made for them, nor in one of the user's own; the sentence says
    what to do."""
    tone = _tone(tmp_path / "a.wav")
    for out in (tmp_path / "out", tmp_path):
        explain("latest", [tone], QUIET, out=out)
    assert is_output(tmp_path / "out")
    assert not is_output(tmp_path)
    assert is_output(tmp_path / "a")
    for path in (*tmp_path.rglob(MARK), *tmp_path.rglob("explanation.json")):
        text = path.read_text(encoding="utf-8")
        assert single.outcome.run_id in text
        path.write_text(text.replace(single.outcome.run_id, "0123456789ab"), encoding="utf-8")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for out in (tmp_path / "out", tmp_path):
        with pytest.raises(StoreError, match=r"01234567.*: choose another --out, or remove that"):
            explain("latest", [tone], QUIET, out=out)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_permissions_are_the_users(single: Finished, tmp_path: Path) -> None:
    """Under umask 077 nobody else reads what is explained, under 022 everybody."""
    tone = _tone(tmp_path / "a.wav")
    for umask, mode in ((0o077, 0o700), (0o022, 0o755)):
        before = os.umask(umask)
        try:
            explain("latest", [tone], QUIET, out=tmp_path / str(umask))
        finally:
            os.umask(before)
        for path in (tmp_path / str(umask), *(tmp_path / str(umask)).rglob("*")):
            wanted = mode if path.is_dir() else mode & 0o666
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_files_may_be_called_anything(single: Finished, tmp_path: Path) -> None:
    """Dots, spaces, dollars, markup, emoji, another's number, the page's own name: every file has
    a folder of its own within the one asked for. A name that is no UTF-8 is refused."""
    names = ["...wav", "index.html.wav", "a.wav", "a-2.wav", "A.wav", " b .wav", "Ü 🐕 <b>&'.wav"]
    names += ["$5 and $6_.wav", "'; rm -rf ~ #.wav"]
    tone = _tone(tmp_path / "tone.wav")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    sounds = [tmp_path / "in" / name for name in (*names, "sub/a.wav")]
    for path in sounds:
        shutil.copy(tone, path)
    explanations = explain("latest", sounds, QUIET, out=tmp_path / "here" / "out")
    folders = [Path(item["folder"]) for item in explanations]
    assert {f.parent for f in folders} == {tmp_path / "here" / "out"}
    assert len({f.name.casefold() for f in folders}) == len(sounds)
    assert all((f / "explanation.wav").is_file() for f in folders)
    assert [p.name for p in (tmp_path / "here").iterdir()] == ["out"]
    assert (tmp_path / "here" / "out" / "index.html").is_file()
    if sys.platform == "linux":
        odd = tmp_path / os.fsdecode(b"\xff.wav")
        shutil.copy(tone, odd)
        with pytest.raises(DataError, match=r"udcff\.wav' has a name that is no UTF-8"):
            explain("latest", [odd], QUIET, out=tmp_path / "no")


def test_networks_of_different_runs_do_not_mix(single: Finished, tmp_path: Path) -> None:
    """A dictionary of other settings beside the classifier is refused, with the difference."""
    import torch

    from l2i.config import Config
    from l2i.models.checkpoint import load_checkpoint, save_checkpoint
    from l2i.recipes.opening.bundle import build_subject

    shutil.copytree(single.artifacts / "model" / "artifacts", tmp_path / "model")
    path = tmp_path / "model" / "dictionary.safetensors"
    tensors, document = load_checkpoint(path, "dictionary")
    document["spectrogram"]["hop_length"] = 32
    save_checkpoint(path, "dictionary", tensors, document)
    with pytest.raises(CheckpointError, match="hop_length 32 against 64"):
        build_subject(tmp_path / "model", Config(), torch.device("cpu"), torch.float32)


def test_by_another_method_than_the_runs(single: Finished, tmp_path: Path) -> None:
    """The same clip by gates: its parts add up. A name that is none is told."""
    from l2i.errors import UnknownName

    sound = next(iter(single.artifacts.glob("explanations/*/original.wav")))
    (explanation,) = explain("latest", [sound], QUIET, method="gates", out=tmp_path / "x")
    assert (
        explanation["method"] == "gates" and explanation["class"] and 0 <= explanation["kept"] <= 1
    )
    parts = [
        soundfile.read(tmp_path / "x" / "original" / f"{name}.wav")[0]
        for name in ("original", "explanation", "removal")
    ]
    np.testing.assert_allclose(parts[1] + parts[2], parts[0], atol=2e-4)
    assert (tmp_path / "x" / "index.html").is_file()
    with pytest.raises(UnknownName, match="did you mean 'gates'"):
        explain("latest", [sound], QUIET, method="gate", out=tmp_path / "y")


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "latest", "a.wav", "--method", "saliency", "--threshold", "0.1"),
        ("ground-truth", "latest", "--method", "full", "--threshold", "0.1"),
        ("ground-truth", "latest", "--method", "flint", "--max-components", "1"),
        ("overlap", "latest", "--method", "full", "--threshold", "0.1"),
        ("evaluate", "latest", "--method", "full", "--threshold", "0.1"),
        ("benchmark", "latest", "--method=full", "--method=saliency", "--threshold=0.1"),
    ],
)
def test_a_setting_that_no_method_heeds(
    words: tuple[str, ...], single: Finished, say: Callable[..., Said], tmp_path: Path
) -> None:
    """It is refused, and not ignored."""
    tone = str(_tone(tmp_path / "a.wav"))
    answer = say(*(tone if word == "a.wav" else word for word in words))
    assert answer.code == 2 and "does nothing with --" in answer.err and "l2i" in answer.err


def test_settings_that_a_method_heeds() -> None:
    """One of several is enough; a method of somebody else's is believed to."""
    check_heeded(["full", "l2i"], threshold=0.1, max_components=None)
    check_heeded(["tests.recipes.test_explain:Method"], threshold=0.1)
    check_heeded(["full"], threshold=None)


class Method:
    """One of somebody else's."""

    parts = ()
