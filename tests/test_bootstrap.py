"""`.tools/bootstrap.py`: what it decides, in places that this machine is not.

The set-up itself is tried by every clean clone; here pip and Python are stood in for by fakes, so
that each way through it is walked.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / ".tools" / "bootstrap.py"


class Machine:
    """A checkout whose pip writes down what it was asked; `has` says what it can install."""

    def __init__(self, module: ModuleType, root: Path) -> None:
        self.module, self.root, self.venv = module, root, root / ".venv"
        self.asked: list[tuple[str, ...]] = []
        self.sentences: list[str] = []
        self.has: Callable[[tuple[str, ...]], bool] = lambda words: True
        self.broken: dict[str, str] = {}  # Modules that cannot be imported, and why.
        self.made = 0

    def pip(self, *words: str, **_: object) -> int:
        self.asked.append(words)
        return 0 if self.has(words) else 1

    def call(self, command: list[str], **_: object) -> int:
        """Stands in for `python -m venv`."""
        assert command[1:3] == ["-m", "venv"]
        self.made += 1
        python = self.venv / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
        return 0

    def installed(self) -> str:
        return " ".join(" ".join(words) for words in self.asked)

    def set_up(self) -> bool:
        self.asked.clear()
        self.sentences.clear()
        return bool(self.module.set_up())


@pytest.fixture
def bootstrap() -> ModuleType:
    """The script as a module of its own."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def machine(bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Linux without a GPU, a fresh checkout, a pip that has everything."""
    for name in ("pyproject.toml", "requirements-cpu.lock", "requirements-cuda.lock"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    monkeypatch.delenv("L2I_TORCH", raising=False)
    it = Machine(bootstrap, tmp_path)
    for name, value in {
        "ROOT": str(tmp_path),
        "VENV": str(it.venv),
        "STAMP": str(it.venv / "l2i-stamp"),
        "UNFINISHED": str(it.venv / "l2i-unfinished"),
        "pip": it.pip,
        "say": it.sentences.append,
        "has_nvidia": lambda: False,
        "reachable": lambda url, timeout_s=5: True,
        "compile_packages": lambda: it.asked.append(("compile",)),
        "_try_import": lambda module: it.broken.get(module),
    }.items():
        monkeypatch.setattr(bootstrap, name, value)
    monkeypatch.setattr(bootstrap.subprocess, "call", it.call)
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    return it


# --- which torch ------------------------------------------------------------------------------


def test_pins_are_those_of_the_project(bootstrap: ModuleType) -> None:
    """One version of torch and torchaudio, in pyproject.toml and in both lock files."""
    pins = bootstrap.pins()
    assert pins == {"torch": "2.13.0", "torchaudio": "2.11.0"}
    cuda = (REPOSITORY / "requirements-cuda.lock").read_text()
    for name, version in pins.items():
        assert re.search(rf"^{name}=={re.escape(version)}\b", cuda, re.MULTILINE)


@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_every_locked_package_has_a_hash(flavour: str) -> None:
    """pip is asked to require them."""
    text = (REPOSITORY / f"requirements-{flavour}.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 50
    for line in lines:
        assert re.match(r"[A-Za-z0-9_.\-\[\]]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line), line


@pytest.mark.parametrize(
    ("word", "nvidia", "expected"),
    [
        ("", False, "cpu"),
        ("", True, "cuda"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        (" CUDA ", False, "cuda"),
    ],
)
def test_the_flavour_is_what_was_said_or_what_the_machine_has(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, word: str, nvidia: bool, expected: str
) -> None:
    """L2I_TORCH decides; without it, the driver."""
    monkeypatch.setenv("L2I_TORCH", word)
    monkeypatch.setattr(machine.module, "has_nvidia", lambda: nvidia)
    assert machine.module.choose_flavour() == expected


def test_another_flavour_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the three words there are."""
    monkeypatch.setenv("L2I_TORCH", "rocm")
    with pytest.raises(machine.module.SetupError, match="rocm is none of cpu, cuda, auto"):
        machine.set_up()
    assert not machine.venv.exists()


def test_the_cpu_build_at_hand_is_taken(machine: Machine) -> None:
    """From pip's own sources, and never an unpinned or a CUDA build."""
    assert machine.set_up()
    assert "torch==2.13.0+cpu" in machine.installed()
    assert machine.module.CPU_INDEX not in machine.installed()
    assert any("pip's configured sources" in line for line in machine.sentences)


def test_without_one_at_hand_pytorchs_index_is_asked(machine: Machine) -> None:
    """And torchaudio comes from there too."""
    index = machine.module.CPU_INDEX
    machine.has = lambda words: "torch==2.13.0+cpu" not in words or index in words
    assert machine.set_up()
    asked = [words for words in machine.asked if index in words]
    assert any("torch==2.13.0+cpu" in words for words in asked)
    assert any("torchaudio==2.11.0+cpu" in words for words in asked)
    assert any(index in line for line in machine.sentences)


def test_without_either_it_stops_before_a_download_of_gigabytes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says what to do."""
    machine.has = lambda words: "torch==2.13.0+cpu" not in words
    monkeypatch.setattr(machine.module, "reachable", lambda url, timeout_s=5: False)
    with pytest.raises(machine.module.SetupError, match=r"PIP_FIND_LINKS.*L2I_TORCH=cuda"):
        machine.set_up()
    assert not any("torch==2.13.0" in words for words in machine.asked)


def test_without_a_cpu_build_of_torchaudio_pypis_is_taken(machine: Machine) -> None:
    """It is mended afterwards if it does not load."""
    machine.has = lambda words: "torchaudio==2.11.0+cpu" not in words
    assert machine.set_up()
    assert any("torchaudio==2.11.0" in words for words in machine.asked)


def test_the_cuda_build_comes_from_the_lock_file(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its hashes; the size is said beforehand."""
    monkeypatch.setenv("L2I_TORCH", "cuda")
    assert machine.set_up()
    lock = next(words for words in machine.asked if "--require-hashes" in words)
    assert lock[-1] == str(machine.root / "requirements-cuda.lock")
    assert "+cpu" not in machine.installed()
    assert any("GB" in line for line in machine.sentences)


# --- torchaudio's libraries -------------------------------------------------------------------


@pytest.fixture
def libraries(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """site-packages with a torchaudio that has compiled libraries."""
    folder = machine.root / "site-packages" / "torchaudio" / "lib"
    folder.mkdir(parents=True)
    for name in ("libtorchaudio.abi3.so", "_torchaudio.abi3.so", "notes.txt"):
        (folder / name).write_text("")
    monkeypatch.setattr(
        machine.module.subprocess,
        "check_output",
        lambda *_, **__: f"{machine.root / 'site-packages'}\n",
    )

    def try_import(module: str) -> str | None:
        broken = module == "torchaudio" and any(folder.glob("*.so"))
        return "OSError: libcudart.so.13" if broken else machine.broken.get(module)

    monkeypatch.setattr(machine.module, "_try_import", try_import)
    return folder


def test_libraries_that_do_not_load_are_taken_away(machine: Machine, libraries: Path) -> None:
    """Only they, and it is said."""
    assert machine.set_up()
    assert sorted(path.name for path in libraries.iterdir()) == ["notes.txt"]
    assert any("removed them from .venv" in line for line in machine.sentences)


def test_libraries_that_load_stay(
    machine: Machine, libraries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a CUDA build of torch."""
    monkeypatch.setattr(machine.module, "_try_import", lambda module: None)
    assert machine.set_up()
    assert len(list(libraries.glob("*.so"))) == 2
    assert not any("removed" in line for line in machine.sentences)


def test_another_fault_of_torchaudio_is_told(machine: Machine, libraries: Path) -> None:
    """Not hidden, and nothing counts as set up."""
    machine.broken["torchaudio"] = "ImportError: no module named x"
    with pytest.raises(machine.module.SetupError, match="no module named x"):
        machine.set_up()
    assert not os.path.exists(machine.module.STAMP)


# --- bytecode ---------------------------------------------------------------------------------


def test_bytecode_is_made_once_all_is_installed(machine: Machine) -> None:
    """And before anything is imported."""
    seen: list[tuple[str, ...]] = []
    machine.module._try_import = lambda module: seen.extend(machine.asked)  # Gives back None.
    assert machine.set_up()
    assert machine.asked[-1] == ("compile",)
    assert machine.asked[-2][-2:] == ("-e", ".")
    assert seen[: len(machine.asked)] == machine.asked


def test_pip_leaves_bytecode_to_the_set_up(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install` has the option; other verbs do not know the option."""
    asked: list[list[str]] = []
    monkeypatch.setattr(bootstrap.subprocess, "call", lambda words, **_: asked.append(words) or 0)
    assert bootstrap.pip("install", "-q", "click") == bootstrap.pip("list") == 0
    assert asked[0][-4:] == ["install", "--no-compile", "-q", "click"]
    assert asked[1][-1] == "list" and "--no-compile" not in asked[1]


def test_every_package_is_compiled(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever Python was told of bytecode; a file that is no Python stops nothing. Their own tests
    are not, and nothing is where pip is told so."""
    texts = {"a/b/good.py": "x = 1\n", "other.py": "y = 2\n", "bad.py": "def (\n"}
    texts["a/tests/long.py"] = "z = 3\n"
    site = tmp_path / "tests" / "site-packages"  # Wherever the checkout lies.
    for name, text in texts.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(bootstrap, "venv_python", lambda: sys.executable)
    monkeypatch.setattr(bootstrap, "site_packages", lambda: str(site))
    monkeypatch.setenv("PIP_NO_COMPILE", "1")
    bootstrap.compile_packages()
    assert not list(tmp_path.rglob("*.pyc"))
    monkeypatch.delenv("PIP_NO_COMPILE")
    bootstrap.compile_packages()
    assert {p.name.split(".")[0] for p in tmp_path.rglob("*.pyc")} == {"good", "other"}


# --- again, interrupted, moved ----------------------------------------------------------------


def test_the_second_time_nothing_is_done(machine: Machine) -> None:
    """No pip, no word."""
    assert machine.set_up() is True
    assert machine.set_up() is False
    assert machine.asked == [] and machine.sentences == []
    assert machine.made == 1


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements-cpu.lock"])
def test_other_versions_are_installed_into_what_is_there(machine: Machine, name: str) -> None:
    """A changed lock file needs pip, but no new environment."""
    machine.set_up()
    with open(machine.root / name, "a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert machine.set_up() is True
    assert machine.made == 1


def test_another_flavour_makes_the_environment_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two builds of torch do not share one."""
    machine.set_up()
    monkeypatch.setenv("L2I_TORCH", "cuda")
    assert machine.set_up() is True
    assert machine.made == 2


def test_an_interrupted_set_up_starts_again(machine: Machine) -> None:
    """What is half installed is not built upon."""
    machine.has = lambda words: "--require-hashes" not in words
    with pytest.raises(machine.module.SetupError, match="goes on once the cause is mended"):
        machine.set_up()
    assert os.path.exists(machine.module.UNFINISHED)
    machine.has = lambda words: True
    assert machine.set_up() is True
    assert machine.made == 2
    assert not os.path.exists(machine.module.UNFINISHED)


def test_an_environment_without_its_python_is_made_again(machine: Machine) -> None:
    """The system's Python went away under it."""
    machine.set_up()
    (machine.venv / "bin" / "python").unlink()
    assert machine.set_up() is True
    assert machine.made == 2


def test_a_moved_checkout_is_set_up_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment points to where it was made."""
    before = machine.module.stamp_text("cpu")
    monkeypatch.setattr(machine.module, "VENV", str(machine.root / "elsewhere" / ".venv"))
    assert machine.module.stamp_text("cpu") != before


def test_variables_that_lead_pip_astray_are_left_out(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PIP_USER and PYTHONPATH of the user's do not reach the set-up; PIP_FIND_LINKS does."""
    for name in ("PIP_USER", "PIP_TARGET", "PYTHONPATH", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "x")
    environment = bootstrap._environment()
    assert "PIP_FIND_LINKS" in environment
    assert not {"PIP_USER", "PIP_TARGET", "PYTHONPATH"} & set(environment)


# --- the script -------------------------------------------------------------------------------


def test_a_set_up_that_cannot_be_done_ends_with_1(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, no traceback."""
    monkeypatch.setenv("L2I_TORCH", "rocm")
    assert machine.module.main() == 1
    assert machine.sentences == ["L2I_TORCH=rocm is none of cpu, cuda, auto."]


def test_an_old_python_without_a_newer_one_says_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it is, and which is needed."""
    monkeypatch.setattr(machine.module, "newer_python", lambda: None)
    monkeypatch.setattr(machine.module.sys, "version_info", (3, 8))
    assert machine.module.main() == 1
    assert "needs Python 3.11 or newer" in machine.sentences[0]


def test_an_old_python_can_read_the_script() -> None:
    """Syntax of Python 3.6: it is there to say that it is too old."""
    import ast

    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))


def test_only_the_standard_library_is_needed() -> None:
    """The script starts without a single package."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(SCRIPT)!r})"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_makefile_lists_its_verbs() -> None:
    """`make help` prints one line for each, and needs no set-up."""
    done = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    verbs = re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE)
    assert {"setup", "demo", "test", "check", "bench", "ui", "help"} <= set(verbs)
    assert max(map(len, done.stdout.splitlines())) <= 100
