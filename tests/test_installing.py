"""What `pip install .` brings is enough for the library, and the extras name all the rest."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import l2i
from l2i.errors import MissingPackage
from tests.conftest import REPOSITORY

PACKAGE = Path(l2i.__file__).parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What is imported by another name than the one that pip knows, and what comes with another.
_IMPORTED_AS = {
    "nvidia-ml-py": "pynvml",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
# The pages of runs are served within the app of MLflow's own server, which is of starlette.
_COMES_WITH = {
    "alembic": "mlflow",
    "botocore": "boto3",
    "sqlalchemy": "mlflow",
    "starlette": "mlflow",
}
# Nothing here imports them: MLflow does, one by its URL, one for GPUs, and users' classifiers do.
_NEVER_IMPORTED = {"librosa", "psycopg", "pymysql", "pynvml"}


def _imported_names(requirements: list[str]) -> set[str]:
    names = {re.match(r"[\w-]+", line)[0] for line in requirements}  # type: ignore[index]
    return {_IMPORTED_AS.get(name, name) for name in names}


CORE = _imported_names(PROJECT["dependencies"])
EXTRAS = {
    name: _imported_names(requirements) - CORE
    for name, requirements in PROJECT["optional-dependencies"].items()
}
REST = set().union(*EXTRAS.values()) | _COMES_WITH.keys()


def _third_party() -> dict[str, set[str]]:
    """Top-level module to the parts of the package that import it, wherever in a file that is."""
    imports: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("import_module")
                and isinstance(node.args[0], ast.Constant)
            ):
                names = [str(node.args[0].value)]
            for name in names:
                top = name.partition(".")[0]
                if top != "l2i" and top not in sys.stdlib_module_names:
                    imports.setdefault(top, set()).add(part)
    return imports


def test_every_package_that_is_imported_is_asked_for() -> None:
    """By the project itself or by an extra; and none is asked for that nothing imports."""
    imported = {_COMES_WITH.get(name, name) for name in _third_party()}
    assert len(imported) > 20
    assert imported == (CORE | set().union(*EXTRAS.values())) - _NEVER_IMPORTED


def test_what_everybody_installs_is_what_the_library_imports() -> None:
    """Each of them outside of what runs, stores, jobs and commands are made of."""
    imported = _third_party()
    elsewhere = {"cli", "run", "launch", "storage", "__main__"}
    assert {name for name in CORE if not imported[name] - elsewhere} == set()


def test_exact_versions_are_those_of_the_service() -> None:
    """A library that pins its dependencies cannot stand beside another."""
    assert not [line for line in PROJECT["dependencies"] if "==" in line]
    pinned = {line.partition("==")[0] for line in PROJECT["optional-dependencies"]["service"]}
    assert {"mlflow", "torch", "torchaudio", "librosa"} <= pinned


# --- without the rest ---------------------------------------------------------------------------

_HIDE = """
import sys

HIDDEN = set(sys.argv[1].split(","))


class Hider:
    # Around each finder, and not before them all: torch asks whether some of them are there.
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)


sys.meta_path[:] = [Hider(finder) for finder in sys.meta_path]
"""

_LIBRARY = """
import importlib.util
import json
import warnings
from pathlib import Path

assert not [name for name in HIDDEN if importlib.util.find_spec(name)]
import l2i
assert "torch" not in sys.modules
import numpy as np
import soundfile
import torch
from torch import nn
from l2i.errors import DataError, MissingPackage

guests = importlib.util.spec_from_file_location("guests", sys.argv[2])
module = importlib.util.module_from_spec(guests)
guests.loader.exec_module(module)
clf, x = module.load(), module.sounds(8)
Path("sounds").mkdir()
for i, clip in enumerate(x):
    soundfile.write(f"sounds/{i}.wav", clip, module.RATE)

e = l2i.explain(clf, "sounds/0.wav", target="low")
assert np.allclose(e.audio + e.removal, e.input, atol=1e-5)
e.save("out")
assert json.loads(Path("out/explanation.json").read_text())["class"] == "low"
assert len(list(Path("out").glob("*.wav"))) >= 2 and Path("out/index.html").is_file()
assert "<img" in e._repr_html_()

fitted = l2i.fit(clf, "sounds", components=4, epochs=2)
loaded = l2i.load(fitted.save("low.l2i"), clf)
first, second = (one.explain(x[0], "low") for one in (fitted, loaded))
assert np.array_equal(first.audio, second.audio)

figures = l2i.evaluate(loaded, x[:4]).set_index("figure")["value"]
assert 0 <= figures["fidelity_top1"] <= 1 and np.isfinite(figures["average_drop"])
several = l2i.wrap(clf.model, module.RATE, module.CLASSES, task="multi-label")
figures = l2i.evaluate(l2i.fit(several, x, components=4, epochs=1), x[:4]).set_index("figure")
assert "fidelity_auprc_macro" in figures.index

# A method that lacks its package is told before another learns.
judged = l2i.trained.judged
fit, judged.fit = judged.fit, None
try:
    l2i.benchmark(clf, x, ["l2i", "saliency"])
except MissingPackage as error:
    assert str(error).startswith("Method 'saliency' needs captum"), error
else:
    raise AssertionError("saliency without captum")
judged.fit = fit
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    table = l2i.benchmark(loaded, x[:1])
sentences = [str(w.message) for w in caught if "captum" in str(w.message)]
assert len(sentences) == 1, sentences
assert "saliency, smoothgrad, integrated-gradients, occlusion" in sentences[0], sentences
known = ["gated-l2i", "refined-gates", "l2i", "l2i-linear", "gates", "shapley", "random", "full"]
known += ["gradcam", "wam", "loudest", "random-gates"]
assert list(table.index) == known, table.index
assert np.isfinite(table["average_drop"]).all()

try:
    l2i.from_transformers("checkpoint")
except DataError as error:
    assert "pip install transformers" in str(error)
else:
    raise AssertionError("a checkpoint without transformers")
assert not [name for name in HIDDEN if name in sys.modules]
print("all of it")
"""

_COMMAND = """
import sys

from l2i.__main__ import main

sys.argv = ["l2i", *sys.argv[2:]]
main()
"""

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def without(tmp_path: Path) -> Python:
    """A Python in which some packages cannot be imported."""

    def run(hidden: set[str], code: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", _HIDE + code, ",".join(sorted(hidden)), *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.mark.slow
def test_the_library_needs_none_of_the_extras(without: Python) -> None:
    """Explained, saved, fitted, loaded, evaluated and benchmarked, with all of them out of sight;
    what needs one of them says so."""
    done = without(REST, _LIBRARY, REPOSITORY / "tests" / "guests.py")
    assert done.stdout == "all of it\n", done.stderr


def test_without_click_the_command_says_what_to_install(without: Python) -> None:
    """A sentence, and the exit code of wrong words."""
    done = without(REST, _COMMAND, "runs")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: The command l2i needs click, which is not installed: "
        "'pip install \"l2i[service]\"' brings all that l2i can use.\n"
    )


def test_without_the_rest_a_command_says_what_to_install(without: Python) -> None:
    """Where click is there, as it often is, and MLflow is not."""
    done = without(REST - {"click"}, _COMMAND, "train", "--dataset", "demo")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: This command needs \w+, .*l2i\[service\].*\n", done.stderr)
    help_ = without(REST - {"click"}, _COMMAND, "--help")
    assert help_.returncode == 0 and "Usage: l2i" in help_.stdout


def test_the_console_script_is_the_one_that_says_so() -> None:
    """And not `l2i.cli`, which begins with click."""
    module, _, name = PROJECT["scripts"]["l2i"].partition(":")
    assert module == "l2i.__main__" and callable(getattr(import_module(module), name))
    del sys.modules[module]  # `python -m l2i` warns of one that is imported already.


def test_a_picture_without_matplotlib_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What draws it is asked for."""
    from l2i.plots import drawing

    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)

    class Nowhere:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "matplotlib":
                raise ModuleNotFoundError("No module named 'matplotlib'", name=name)

    monkeypatch.setattr(sys, "meta_path", [Nowhere(), *sys.meta_path])
    with pytest.raises(MissingPackage, match="'pip install matplotlib' will do; 'pip inst"):
        drawing.new_figure(1, 1)


def test_a_terminal_without_rich_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what is no terminal does."""
    import io

    from l2i.run import progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    stream = Terminal()
    with progress.Progress(stream=stream).task("interpreter", total=1, unit="epoch") as task:
        task.advance()
    assert re.fullmatch(r"interpreter: 1/1 epochs?, .*done in .*\n", stream.getvalue())


# --- for real -----------------------------------------------------------------------------------


def _pip(python: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        timeout=1500,
    )


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1800)
def test_pip_install_is_light(tmp_path: Path) -> None:
    """A fresh environment and a clean checkout: nothing of the extras comes, and the library works
    as above. torch is the CPU build: what it brings is not ours to choose."""
    checkout = tmp_path / "checkout"
    for name in subprocess.run(
        ["git", "-C", REPOSITORY, "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if name.startswith("l2i/") or name in ("pyproject.toml", "README.md"):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, checkout / name)
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / "bin" / "python"
    pinned = dict(
        line.split("==") for line in PROJECT["optional-dependencies"]["service"] if "==" in line
    )
    torch = f"torch=={pinned['torch']}+cpu"
    index = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")
    if all(_pip(python, "install", "-q", torch, *more).returncode for more in ((), index)):
        pytest.skip("There is no CPU build of torch at hand.")
    done = _pip(python, "install", "-q", checkout)
    assert done.returncode == 0, done.stderr
    assert _pip(python, "check").returncode == 0

    there = _pip(python, "list", "--format=freeze").stdout.split()
    assert len(there) < 40, there
    done = subprocess.run(
        [python, "-c", _HIDE + _LIBRARY, ",".join(sorted(REST)), REPOSITORY / "tests/guests.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout == "all of it\n", done.stderr
    # Not only hidden: they are not there.
    code = "from importlib.util import find_spec as f; import sys; print(*filter(f, sys.argv[1:]))"
    process = subprocess.run([python, "-c", code, *sorted(REST)], capture_output=True, text=True)
    assert process.returncode == 0 and process.stdout.split() == []
    done = subprocess.run([environment / "bin" / "l2i"], capture_output=True, text=True)
    assert done.returncode == 2 and "'pip install \"l2i[service]\"'" in done.stderr
    assert "Traceback" not in done.stderr
