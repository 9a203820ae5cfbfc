"""The picture in ``l2i/__init__.py`` is true: a module imports from lower ranks or from its own
folder. And what should be light is light."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import l2i
import l2i.recipes

PACKAGE = Path(l2i.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def _ranks() -> dict[str, int]:
    """Folder or module to rank, read from the picture itself."""
    ranks: dict[str, int] = {}
    for line in (l2i.__doc__ or "").splitlines():
        if match := re.match(r"^   ( \d|\d\d)  (\w+(?:  ?\w+)*?)(?:   |$)", line):
            ranks.update(dict.fromkeys(match[2].split(), int(match[1])))
    return ranks


RANKS = _ranks()


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Every module that a file imports, the line, and whether only a type checker does."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        typing, above = False, node
        while hasattr(above, "parent"):
            above = above.parent
            typing |= isinstance(above, ast.If) and "TYPE_CHECKING" in ast.dump(above.test)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            assert node.module is not None
            names = [node.module]
            if node.module == "l2i":
                names = [f"l2i.{alias.name}" for alias in node.names]
        for name in names:
            yield name, node.lineno, typing


def _top(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def test_the_picture_names_every_module() -> None:
    """Each folder and module of the package has a rank, and each rank has a module."""
    there = {
        p.stem if p.is_file() else p.name
        for p in PACKAGE.iterdir()
        if (p.suffix == ".py" or (p / "__init__.py").exists()) and not p.name.startswith("__")
    }
    assert there == set(RANKS)
    assert sorted(set(RANKS.values())) == list(range(11))


@pytest.mark.parametrize("path", SOURCES, ids=_module)
def test_a_module_imports_from_lower_ranks_or_its_own_folder(path: Path) -> None:
    """Never from a neighbour of its rank, never from above, wherever in the file the import is.

    ``__main__`` stands above all; the package itself holds its version, and names of what it
    offers, which are imported when they are asked for.
    """
    own = _top(_module(path))
    if own == "__main__":
        return
    wrong = []
    for name, line, typing in _imports(path):
        if name.split(".")[0] != "l2i" or _top(name) in ("", own, "__version__"):
            continue
        if own == "" and typing:
            continue
        assert _top(name) in RANKS, f"{name} has no rank"
        if own == "" or RANKS[_top(name)] >= RANKS[own]:
            wrong.append(f"line {line}: {name}")
    assert not wrong, f"{_module(path)} (rank {RANKS.get(own, 'of the package')}): {wrong}"


def test_the_line_is_really_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails on a module that imports from above, inside a function or not."""
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path / "l2i")
    bad = tmp_path / "l2i" / "models" / "bad.py"
    bad.parent.mkdir(parents=True)
    for text in (
        "from l2i.recipes.training import train",
        "def f():\n    import l2i.data.base",
        "from l2i import run",
    ):
        bad.write_text(text, encoding="utf-8")
        with pytest.raises(AssertionError, match=r"l2i\.models\.bad"):
            test_a_module_imports_from_lower_ranks_or_its_own_folder(bad)
    bad.write_text("from l2i.models import vgg\nfrom l2i import __version__", encoding="utf-8")
    test_a_module_imports_from_lower_ranks_or_its_own_folder(bad)


ROOMS = re.findall(r"^``(\w+)``", l2i.recipes.__doc__ or "", re.MULTILINE)


def test_every_recipe_is_in_a_room_that_names_it() -> None:
    """Rooms of the table, and no others; each says what is in it."""
    folder = PACKAGE / "recipes"
    assert [room for room in ROOMS if (folder / room / "__init__.py").exists()] == ROOMS
    assert {p.parent.name for p in folder.glob("*/*.py")} == set(ROOMS)
    assert [p.name for p in folder.glob("*.py")] == ["__init__.py"]
    for room in ROOMS:
        told = (folder / room / "__init__.py").read_text(encoding="utf-8")
        names = {p.stem for p in (folder / room).glob("*.py")} - {"__init__"}
        assert {name for name in names if f"``{name}``" not in told} == set()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_those_above_it(room: str) -> None:
    """As the table of `l2i.recipes` has them."""
    below = ROOMS[ROOMS.index(room) + 1 :]
    wrong = [
        f"{_module(path)}, line {line}: {name}"
        for path in (PACKAGE / "recipes" / room).glob("*.py")
        for name, line, _ in _imports(path)
        if name.startswith("l2i.recipes.") and name.split(".")[2] in below
    ]
    assert wrong == []


def test_few_modules_know_mlflow() -> None:
    """`store` and four others, as ``l2i/run/__init__.py`` says, keep runs; one recipe
    makes a model of MLflow's kind, and one serves its pages."""
    who = {_module(p) for p in SOURCES for name, _, _ in _imports(p) if _of(name, "mlflow")}
    names = ("store", "search", "bin", "events", "writing")
    keep = {f"l2i.run.{name}" for name in names}
    assert who == keep | {"l2i.recipes.publishing.served", "l2i.recipes.publishing.site"}


def _of(name: str, package: str) -> bool:
    return name.split(".")[0] == package


def test_types_config_and_registry_need_neither_torch_nor_mlflow() -> None:
    """What every command reads before it does anything imports neither, wherever in the file,
    except for a type checker's eyes."""
    heavy = [
        f"{_module(path)}:{line} {name}"
        for path in SOURCES
        if _top(_module(path)) in ("types", "errors", "registry", "config", "storage", "launch")
        for name, line, typing in _imports(path)
        if not typing and (_of(name, "torch") or _of(name, "mlflow"))
    ]
    assert heavy == []


_LIGHT = """
import contextlib, io, json, sys
from l2i.cli import COMMANDS, main

lines = [["--help"], ["--version"], ["config", "show"], ["config", "show", "--dataset", "sust"],
         ["data", "list"], ["data", "info", "esc10"], ["completion", "bash"], ["trian"], ["jobs"],
         ["batch", "policy", "--queue", "q"], ["jobs", "retry", "--help"],
         *[[name, "--help"] for name in COMMANDS]]
rows = []
for line in lines:
    code = 0
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(line)
        except SystemExit as end:
            code = end.code
    heavy = {"torch", "torchaudio", "mlflow", "librosa", "matplotlib", "sklearn", "pandas",
             "scipy", "rich", "boto3"}
    rows.append([line, code, sorted(heavy & set(sys.modules))])
print(json.dumps(rows))
"""


def test_light_commands_are_light() -> None:
    """Help of every command, `config show`, `data list` and a typing error load neither torch nor
    mlflow nor anything else that takes a second."""
    done = subprocess.run(
        [sys.executable, "-c", _LIGHT],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [heavy for _, _, heavy in document if heavy] == []
    codes = {" ".join(line): code for line, code, _ in document}
    assert codes.pop("trian") == 2
    assert set(codes.values()) == {0}, codes
    assert len(codes) > 10


def test_no_module_is_longer_than_one_can_hold_in_mind() -> None:
    """Four hundred lines; what is longer has a second noun in it."""
    lines = {_module(p): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert len(lines) > 200
    assert {name: n for name, n in lines.items() if n > 400} == {}


def test_a_long_module_says_why() -> None:
    """More than three hundred lines have a reason, and what has got shorter does not give one."""
    wrong = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        reason = "\nOver 300 lines: " in (ast.get_docstring(ast.parse(text)) or "")
        if reason != (len(text.splitlines()) > 300):
            wrong.append(_module(path))
    assert wrong == []


def test_variables_are_called_by_what_they_hold() -> None:
    """Anything may be what was *found*, or what somebody *said*."""
    root = PACKAGE.parent
    folders = ("l2i", "tests", "experiments", "docker", ".tools")
    paths = [p for name in folders for p in (root / name).rglob("*.py")]
    vague = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Name) and node.id in ("found", "said"))
        or (isinstance(node, ast.arg) and node.arg in ("found", "said"))
    ]
    assert len(paths) > 400
    assert vague == []
