"""`l2i data`: what a person and a program are told about data sets, and what is left behind."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from l2i import config
from l2i.cli.data import _Bytes
from l2i.data import DATASETS, card, open_dataset
from l2i.data.cache import WaveformCache
from l2i.errors import DataError
from tests import miniatures
from tests.stores import Said

Say = Callable[..., Said]


@pytest.fixture
def esc10(tmp_path: Path) -> Path:
    """Fifty clips in ESC-50's layout."""
    return miniatures.esc50(tmp_path / "ESC-10", esc10_only=True)


def _fill_cache(root: Path) -> WaveformCache:
    data = open_dataset(config.Dataset(name="esc10", data_dir=str(root), **miniatures.FORM))
    cache = WaveformCache()
    cache.open(data, data.clips())
    return cache


# --- list and info ----------------------------------------------------------------------------


def test_list_names_every_data_set_in_80_columns(say: Say) -> None:
    """One line each, below a header; none is wider than a terminal."""
    answer = say("data", "list")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].split()[:3] == ["name", "task", "classes"]
    assert [line.split()[0] for line in lines[1:]] == list(DATASETS)
    assert max(map(len, lines)) <= 80


def test_list_says_which_are_at_hand(say: Say, esc10: Path) -> None:
    """The demo always, a user's own where he says, the others where their list lies."""

    def at_hand(*words: str) -> dict[str, str]:
        lines = say("data", "list", *words).out.splitlines()[1:]
        return {line.split()[0]: re.split(r"\s{2,}", line)[-1] for line in lines}

    nowhere = at_hand()
    assert nowhere["demo"] == "built in"
    assert nowhere["folder"] == "yours"
    assert nowhere["esc10"] == nowhere["sust"] == "no"
    assert at_hand("--data-dir", str(esc10.parent))["esc10"] == "yes"


def test_list_as_json_holds_the_cards(say: Say, esc10: Path) -> None:
    """What a program reads is what the cards say."""
    cards = json.loads(say("data", "list", "--data-dir", str(esc10), "--json").out)
    by_name = {entry["name"]: entry for entry in cards}
    assert set(by_name) == set(DATASETS)
    assert by_name["esc10"]["path"] == str(esc10)
    assert by_name["sust"]["path"] is None
    for name, entry in by_name.items():
        assert entry["classes"] == list(card(name).classes)
        assert entry["licence"] == card(name).licence
        assert entry["task"] == card(name).task.value


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_info_shows_the_card(say: Say, name: str) -> None:
    """Licence, citation, classes and label rules, without the data; no line but addresses and
    words that cannot be broken is wider than a terminal."""
    answer = say("data", "info", name)
    assert answer.code == 0
    text = " ".join(answer.out.split())
    c = card(name)
    for part in (c.title, c.licence, c.citation, c.label_rules, *c.classes, *c.splits):
        assert " ".join(part.split()) in text
    for line in answer.out.splitlines():
        assert len(line) <= 80 or len(line.split()) <= 2, line


def test_info_shows_the_size_of_the_cache(say: Say, esc10: Path) -> None:
    """Nothing first; then the bytes of what was decoded, for people and for programs."""
    assert re.search(r"^cache +nothing$", say("data", "info", "esc10").out, re.MULTILINE)
    cache = _fill_cache(esc10)
    cached = json.loads(say("data", "info", "esc10", "--json").out)["cache"]
    assert cached["entries"] == 1
    assert cached["folder"] == str(cache.folder)
    samples = 50 * round(miniatures.DURATION_S * miniatures.SAMPLE_RATE)
    assert samples * 4 <= cached["bytes"] < samples * 4 + 20_000
    line = re.search(r"^cache +(.+)$", say("data", "info", "esc10").out, re.MULTILINE)
    assert line is not None and "in 1 entry" in line[1]


# --- check ------------------------------------------------------------------------------------


def test_check_of_a_whole_data_set(say: Say, esc10: Path) -> None:
    """Says that all is well, and ends with 0."""
    answer = say("data", "check", "esc10", "--data-dir", str(esc10))
    assert answer.code == 0
    assert "50 clips listed" in answer.out
    assert "Missing: none" in answer.out and "Invalid: none" in answer.out
    assert "All clips can be used." in answer.out


def test_check_of_one_clip_per_class(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can be read, and nothing can be learnt from them; the folder is named whole."""
    root = miniatures.folder_tree(tmp_path / "sounds", 1)
    monkeypatch.chdir(root)
    answer = say("data", "check", "folder", "--data-dir", ".")
    assert answer.code == 0 and f"listed in {root}." in answer.out
    assert "no test clip: a class of two clips or more gives one" in answer.err
    assert "All clips can be used; there is no split to train on." in answer.out


def test_check_tells_missing_from_invalid(say: Say, esc10: Path) -> None:
    """A file that is gone is missing; noise, emptiness and NaN are invalid, each with its why."""
    gone, noise, empty, nan = sorted((esc10 / "audio").iterdir())[:4]
    gone.unlink()
    noise.write_bytes(b"this is not sound" * 100)
    empty.write_bytes(b"")
    soundfile.write(nan, np.full(2000, np.nan, np.float32), 8000, subtype="FLOAT")
    answer = say("data", "check", "esc10", "--data-dir", str(esc10))
    assert answer.code == 1
    assert "Missing: 1" in answer.out and "Invalid: 3" in answer.out
    missing, invalid = answer.out.split("Invalid:")
    assert gone.name in missing and gone.name not in invalid
    for path, why in ((noise, "decoded"), (empty, "no bytes"), (nan, "NaN")):
        line = next(line for line in invalid.splitlines() if path.name in line)
        assert why in line
    assert "All clips" not in answer.out

    tree = json.loads(say("data", "check", "esc10", "--data-dir", str(esc10), "--json").out)
    assert tree["ok"] is False
    assert [Path(file).name for file in tree["missing"]] == [gone.name]
    assert {Path(entry["file"]).name for entry in tree["invalid"]} == {
        noise.name,
        empty.name,
        nan.name,
    }


def test_check_without_decoding_only_looks_whether_files_are_there(say: Say, esc10: Path) -> None:
    """What is broken inside is not seen; what is gone is."""
    first, second = sorted((esc10 / "audio").iterdir())[:2]
    first.write_bytes(b"this is not sound")
    words = ("data", "check", "esc10", "--data-dir", str(esc10), "--no-decode")
    answer = say(*words)
    assert answer.code == 0 and "All clips are there." in answer.out
    second.unlink()
    answer = say(*words)
    assert answer.code == 1 and "Missing: 1" in answer.out


def test_check_shows_twenty_lines_and_json_all(say: Say, esc10: Path) -> None:
    """A data set that is mostly missing does not flood the terminal."""
    for path in sorted((esc10 / "audio").iterdir())[:30]:
        path.unlink()
    answer = say("data", "check", "esc10", "--data-dir", str(esc10), "--no-decode")
    assert "Missing: 30" in answer.out and "and 10 more; --json lists them all" in answer.out
    words = ("data", "check", "esc10", "--data-dir", str(esc10), "--no-decode", "--json")
    assert len(json.loads(say(*words).out)["missing"]) == 30


def test_check_of_what_is_not_there_names_the_places_and_the_command(
    say: Say, tmp_path: Path
) -> None:
    """One sentence: where it looked, and how to have it."""
    answer = say("data", "check", "esc10", "--data-dir", str(tmp_path / "nowhere"))
    assert answer.code == 1
    assert "nowhere" in answer.err and "l2i data fetch esc10" in answer.err
    assert "Traceback" not in answer.err and answer.out == ""


def test_check_of_the_demo(say: Say) -> None:
    """The built-in sounds need no folder, and are whole."""
    answer = say("data", "check", "demo", "--no-decode", "--json")
    tree = json.loads(answer.out)
    assert answer.code == 0
    assert tree["ok"] is True and tree["path"] is None and tree["clips"] == 320


# --- clean ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code"), [("", 130), ("\n", 1), ("n\n", 1)])
def test_clean_asks_first(
    say: Say, esc10: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """Without a yes nothing is removed; with --yes the cache is, and the data set is not."""
    cache = _fill_cache(esc10)
    before = sorted((esc10 / "audio").iterdir())
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    shown = say("data", "clean", "esc10")
    assert shown.code == code and "50 clips at 8000 Hz" in shown.out
    assert len(cache.entries("esc10")) == 1
    shown = say("data", "clean", "esc10", "--yes")
    assert shown.code == 0 and re.search(r"^Removed \d", shown.out, re.MULTILINE)
    assert cache.entries() == []
    assert sorted((esc10 / "audio").iterdir()) == before
    assert "Nothing to remove" in say("data", "clean", "--yes").out


def test_clean_of_one_data_set_leaves_the_others(say: Say, esc10: Path) -> None:
    """A name that has nothing there removes nothing; one that is not known is told."""
    cache = _fill_cache(esc10)
    assert "Nothing to remove" in say("data", "clean", "esc50", "--yes").out
    assert len(cache.entries()) == 1
    answer = say("data", "clean", "esc11", "--yes")
    assert answer.code == 2 and "esc10" in answer.err
    assert len(cache.entries()) == 1


# --- fetch ------------------------------------------------------------------------------------


def test_fetch_of_what_needs_none(say: Say) -> None:
    """The built-in sounds and a user's own folder are not fetched; that is said."""
    for name in ("demo", "folder"):
        answer = say("data", "fetch", name)
        assert answer.code != 0 and name in answer.err and "Traceback" not in answer.err


def test_fetch_prints_the_folder_and_hands_on_its_words(
    say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The one line on standard output is the folder: a script can take it."""

    def fetch(
        name: str, data_dir: object, progress: object, on_step: Callable[[str], None]
    ) -> Path:
        assert (name, data_dir) == ("esc10", tmp_path)
        on_step("Unpacking.")
        return tmp_path / "ESC-10"

    monkeypatch.setattr("l2i.data.fetch.fetch", fetch)
    answer = say("data", "fetch", "esc10", "--data-dir", str(tmp_path))
    assert answer.code == 0 and answer.out == f"{tmp_path / 'ESC-10'}\n"
    assert "Unpacking." in answer.err
    quiet = say("data", "fetch", "esc10", "--data-dir", str(tmp_path), "--quiet")
    assert quiet.out == answer.out and quiet.err == ""


def test_fetch_that_fails_is_one_sentence(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data error ends with 1."""

    def fetch(*_: object, **__: object) -> Path:
        raise DataError("https://example.org does not answer.")

    monkeypatch.setattr("l2i.data.fetch.fetch", fetch)
    answer = say("data", "fetch", "esc10")
    assert answer.code == 1 and answer.out == ""
    assert "does not answer" in answer.err and "Traceback" not in answer.err


def test_bars_of_a_download() -> None:
    """One task per file, in megabytes; what lay there before does not count for the rate."""
    tasks: list[tuple[str, float | None, float]] = []
    seen: list[float] = []

    class Task:
        def __init__(self, done: float) -> None:
            self.done = done

        def __enter__(self) -> Task:
            return self

        def __exit__(self, *_: object) -> None:
            seen.append(self.done)

        def advance(self, n: float) -> None:
            self.done += n

    class Progress:
        def task(self, name: str, total: float | None, unit: str, done: float) -> Task:
            assert unit == "MB"
            tasks.append((name, total, done))
            return Task(done)

    show = _Bytes(Progress())
    for done in (2_000_000, 3_000_000, 5_000_000):
        show("a.zip", done, 5_000_000)
    show("b.zip", 100_000, None)
    show.close()
    show.close()
    assert tasks == [("a.zip", 5.0, 2.0), ("b.zip", None, 0.1)]
    assert seen == pytest.approx([5.0, 0.1])


def test_a_folder_in_place_of_a_name(say: Say) -> None:
    """Is told how a folder of one's own is named; one that is called as a data set is, is no
    trouble."""
    Path("birds").mkdir()
    for words in (("train", "--dataset", "birds"), ("data", "info", "birds")):
        answer = say(*words)
        assert answer.code == 2 and "name 'folder', and give --data-dir birds." in answer.err
    Path("demo").mkdir()
    assert say("data", "info", "demo").code == 0
