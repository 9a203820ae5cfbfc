"""Every file of ``experiments/`` can be run as its head says."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from l2i.config import resolve
from l2i.errors import ConfigError
from l2i.recipes.tables.sweep_file import read_sweep
from tests.conftest import REPOSITORY
from tests.test_docs import parse

FOLDER = REPOSITORY / "experiments"
FILES = sorted(FOLDER.rglob("*.toml"))


def _head(path: Path) -> dict[str, str]:
    """What the first lines say, by their first words."""
    by_name: dict[str, str] = {}
    key = "What"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if match := re.match(r"# (Command|Expected|Cost): +(.*)", line):
            key = match[1]
            by_name[key] = match[2]
        elif line.strip("# "):
            by_name[key] = f"{by_name.get(key, '')} {line.strip('# ')}".strip()
    return by_name


each = pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(FOLDER).as_posix())


@each
def test_the_head_says_what_is_needed(path: Path) -> None:
    """What it is, a command that names this very file, what to expect and from whom, the cost."""
    head = _head(path)
    assert set(head) == {"What", "Command", "Expected", "Cost"}
    assert path.relative_to(REPOSITORY).as_posix() in head["Command"]
    assert re.search(r"published|measured", head["Expected"])
    assert "not measured" in head["Cost"] or re.search(r"\d+ minutes?|\d+ hours?", head["Cost"])


@each
def test_the_command_is_understood(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Click accepts it, the preset's options included."""
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(_head(path)["Command"])
    assert words[0] == "l2i"
    parse(words[1:])


@each
def test_the_content_is_valid(path: Path) -> None:
    """A sweep's every child is a valid config; a preset is of one command."""
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    if "sweep" in tree:
        sweep = read_sweep(path)
        assert len(sweep.children) >= 2
        name = resolve(path).dataset.name
        assert name.startswith(path.parent.name) or path.parent.name in ("ablations", "audit")
    else:
        assert len(tree) == 1


def test_plain_takes_back_all_that_the_preset_adds() -> None:
    """Whatever esc10's preset says of classifier and interpreter, batch and weight decay apart, the
    plain sweep says too: it inherits nothing that its figures were not measured with."""
    preset = tomllib.loads((REPOSITORY / "l2i/presets/esc10.toml").read_text(encoding="utf-8"))
    plain = tomllib.loads((FOLDER / "esc10/five_folds_plain.toml").read_text(encoding="utf-8"))
    for mine, theirs in (
        (plain["interpreter"], preset["interpreter"]),
        (plain["classifier"], preset["classifier"]),
        (plain["classifier"]["augmentation"], preset["classifier"]["augmentation"]),
    ):
        assert set(theirs) - {"batch_size", "weight_decay"} <= set(mine)


def test_a_wrong_preset_is_told() -> None:
    """The tests above can fail: a preset's mistake is one of the command's."""
    with pytest.raises(ConfigError, match="no table"):
        parse(["noise", "latest", "--preset", str(FOLDER / "esc10" / "overlap.toml")])


def test_the_table_lists_every_file_once() -> None:
    """And links to what is there."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"^\| \[`(.+?)`\]\((.+?)\)", text, re.M)
    there = [*FILES, *FOLDER.rglob("*.py"), *FOLDER.rglob("*.ipynb")]
    assert sorted(a for a, _ in links) == sorted(p.relative_to(FOLDER).as_posix() for p in there)
    assert all(a == b for a, b in links)


def test_all_that_was_asked_for_is_there() -> None:
    """The data sets, the ablations, overlap, noise and contamination."""
    names = {p.relative_to(FOLDER).as_posix() for p in FILES}
    for data in ("esc50", "esc10"):
        for what in ("five_folds", "overlap", "noise", "contamination"):
            assert f"{data}/{what}.toml" in names
    for what in ("components", "head", "hidden_layers", "losses", "dictionary"):
        assert f"ablations/{what}.toml" in names
    assert any(n.startswith("sust/") for n in names) and any(n.startswith("demo/") for n in names)
