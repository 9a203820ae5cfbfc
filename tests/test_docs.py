"""README, docs and presets say what is true: commands exist, files read, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
import yaml

import l2i
from l2i.cli import cli
from l2i.config import preset_names, resolve
from l2i.data import DATASETS
from l2i.metrics import METRICS, PUBLISHED
from l2i.registry import nearest
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DOCS = sorted((REPOSITORY / "docs").rglob("*.md"))
# The README first: its first two commands are the set-up.
TEXT = "\n".join([README, *(path.read_text(encoding="utf-8") for path in DOCS)])
COMMANDS = list(dict.fromkeys(re.findall(r"^ *\$ (.+)$", TEXT, flags=re.MULTILINE)))
PRESETS = REPOSITORY / "l2i" / "presets"
EXPERIMENTS = REPOSITORY / "experiments"
PAGES = [*sorted(REPOSITORY.glob("*.md")), *DOCS, *sorted(EXPERIMENTS.rglob("*.md"))]


def parse(words: list[str]) -> None:
    """Let click read a command line without running it."""
    command: click.Command = cli
    context = click.Context(cli, info_name="l2i")
    while isinstance(command, click.Group):
        names = command.list_commands(context)
        if command.invoke_without_command and (not words or words[0] not in names):
            assert not words or nearest(words[0], names) is None, "a command that is mistyped"
            command.parse_args(context, list(words))
            return
        name, subcommand, words = command.resolve_command(context, words)
        assert subcommand is not None and name is not None
        command = subcommand
        context = click.Context(command, info_name=name, parent=context)
    command.parse_args(context, list(words))


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.startswith("l2i ")])
def test_commands_are_understood(line: str) -> None:
    """Every ``l2i`` command of README and docs is one that click accepts."""
    parse(shlex.split(line)[1:])


@pytest.mark.parametrize("line", [c for c in COMMANDS if re.match("docker (compose .*)?run ", c)])
def test_commands_in_containers_are_understood(line: str) -> None:
    """What an image is given is a command, too; so is what the service `l2i` is given."""
    words = re.split(r" l2i(?::cpu|:cuda)? ", line)[1]
    parse(shlex.split(words))


@pytest.mark.parametrize("page", ["README.md", "docs/classifiers.md"])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there, with a model, its names and a sound."""
    import numpy as np
    import soundfile
    import torch

    text = (REPOSITORY / page).read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(import l2i\n.*?)^```", text, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write("dog.wav", noise, 16000)

    class Loud(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            level = x.square().mean(1, keepdim=True)
            return torch.cat([1000 * level - 2, torch.zeros_like(level)], 1)

    model = Loud()
    names: dict[str, object] = {"model": model, "names": ["Dog", "Cat"]}
    exec(code, names)
    assert (tmp_path / "out" / "index.html").is_file()
    assert names["e"].target == "Dog"  # type: ignore[attr-defined]


def test_readme_shows_commands() -> None:
    """The README's two commands are the two that set everything up."""
    assert COMMANDS[:2] == ["make demo", "make test"]
    assert len([c for c in COMMANDS if c.startswith("l2i ")]) >= 5


def test_papers_agree_on_version_and_licence() -> None:
    """What is cited is what is installed, under the licence that lies beside it."""
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == l2i.__version__
    assert citation["license"] == project["license"] == "Apache-2.0"
    licence = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence and "Version 2.0" in licence
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"({l2i.__version__})" in changes or f"## {l2i.__version__}" in changes


def test_readme_is_an_overview() -> None:
    """One reads it at one sitting, and it leads to every page of the docs."""
    assert len(README.splitlines()) <= 180
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README))
    written = {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "docs").glob("*.md")}
    assert linked | {"docs/index.md"} == written


def test_every_page_is_in_the_contents() -> None:
    """The index leads to all of them, in its text and in the menu that it makes."""
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    names = {p.relative_to(REPOSITORY / "docs").with_suffix("").as_posix() for p in DOCS}
    assert set(re.findall(r"\]\(([\w/-]+)\.md\)", index)) == names - {"index"}
    assert set(re.findall(r"^([\w-]+(?:/[\w-]+)?)$", index, re.M)) == names - {"index"}


def test_the_python_reference_has_every_module() -> None:
    """All modules of the folders that it covers, and none that is gone."""
    pages = "".join(p.read_text(encoding="utf-8") for p in DOCS if p.parent.name == "reference")
    listed = set(re.findall(r"^\.\. automodule:: ([\w.]+)$", pages, re.M))
    for folder in ("data", "dsp", "explanation", "metrics", "models", "training"):
        there = {
            ".".join(p.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            for p in (REPOSITORY / "l2i" / folder).glob("*.py")
        }
        assert {m for m in listed if m.startswith(f"l2i.{folder}")} == there


def test_verbs_are_in_the_makefile() -> None:
    """Every ``make verb`` that README and docs name is a target with a line of help."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:`|^\$ )make ([a-z-]+)\b", TEXT, re.M))
    assert named and named <= targets


def test_every_data_set_is_listed() -> None:
    """The table of data sets is the registry."""
    text = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.M)) == set(DATASETS)


def test_every_figure_is_in_the_glossary() -> None:
    """By its title, its name, its unit and which way is better; none that is gone."""
    text = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    arrows, listed = {"higher": " ↑", "lower": " ↓", "": ""}, set()
    for line in re.findall(r"^\| (<a id=.*) \|$", text, re.M):
        figures, formula, units, good = line.replace("\\|", "¦").split(" | ")
        assert formula and good.endswith(".")
        shown = set()
        for name, title, code in re.findall(r'<a id="(\w+)"></a>(.*?) `(\w+)`', figures):
            metric = METRICS[name]
            assert (name, title) == (code, metric.title)
            shown.add(metric.unit + arrows[metric.better])
            listed.add(name)
        assert shown == set(units.split("<br>")), name
    assert listed == {name for name in METRICS if not name.startswith(PUBLISHED)}


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_data_set_has_a_preset(name: str) -> None:
    """A preset that resolves, is of its data set, and begins with the command that runs it."""
    assert name in preset_names()
    assert resolve(dataset=name).dataset.name == name
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert re.search(rf"^#     l2i train --dataset {name}\b", text, re.M)


def test_nothing_of_this_machine_is_named() -> None:
    """The project's texts hold no absolute path of somebody's machine."""
    for path in [*PAGES, *PRESETS.glob("*.toml"), *EXPERIMENTS.rglob("*.toml")]:
        assert not re.search(r"/(home|Users|work|root)/", path.read_text(encoding="utf-8")), path


def test_no_sentence_begins_with_of() -> None:
    """Neither in a page or a preset, nor in what the code says of itself."""
    begins = re.compile(r'(^\s*|[.:;] +|"""|# )Of ', re.M)
    assert begins.search("All is there. Of these, one is new.")
    for path in [*PAGES, *PRESETS.glob("*.toml"), *(REPOSITORY / "l2i").rglob("*.py")]:
        assert not begins.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """To a file of the project, and to a heading of it where one is named."""
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if heading:
            text = target.read_text(encoding="utf-8").lower()
            titles = re.findall(r"^##+ (.+)$", text, re.M)
            anchors = {re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles}
            assert heading in anchors, link
