"""Take out of an installed environment what an image does not need: ``python docker/trim.py VENV``.

Run in the build stage of both images, by any Python, on the virtual environment VENV:

1. distributions that l2i does not need to run: those that only developers want (they are in the
   same lock files), and pip;
2. what distributions bring along for their own developers: tests, headers, static libraries,
   source maps;
3. symbols that only a debugger reads, where ``strip`` is at hand.

Then it compiles the modules that l2i really imports. pip was told to write no bytecode: all of it
would be 0.4 GB, and none would cost every start of a container several seconds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

# Folders that are dropped wherever they are, below the top of a distribution.
_FOLDERS = {"test", "tests", "include", "includes", "sample_data", "cmake"}
_SUFFIXES = {".a", ".c", ".cpp", ".cuh", ".cxx", ".h", ".hpp", ".map", ".pxd", ".pxi", ".pyx"}
# Looks like a test and is not: numpy.testing imports it.
_KEEP = ("numpy/_core/tests/_natype.py", "numpy/_core/tests/__init__.py")
_ONLY_TO_BUILD = (
    "torch/bin/protoc*",
    "torch/bin/test_*",
    "torch/share",
    "torch/**/*.pyi",
    "pyarrow/src",
    # Remote procedure calls and query plans of Arrow, which nothing here speaks.
    "pyarrow/*flight*",
    "pyarrow/*substrait*",
)
# What l2i imports from others, directly or when it is first used.
_WARM = """
import boto3, captum.attr, click, librosa.filters, matplotlib.pyplot, mlflow, numpy.testing, pandas
import pynvml, rich.progress, scipy.signal, scipy.stats, sklearn.decomposition, sklearn.metrics
import soundfile, soxr, torch, torchaudio, safetensors.torch
import matplotlib.backends.backend_agg, matplotlib.backends.backend_svg
import mlflow.artifacts, mlflow.cli, mlflow.server, mlflow.server.fastapi_app, mlflow.pyfunc
import mlflow.store.tracking.sqlalchemy_store, mlflow.system_metrics.system_metrics_monitor
boto3.client("s3", region_name="us-east-1")
boto3.client("batch", region_name="us-east-1")
boto3.client("logs", region_name="us-east-1")
layer = torch.nn.Linear(1, 1)
torch.optim.AdamW(layer.parameters()).step()
matplotlib.pyplot.figure().savefig("/dev/null", format="png")
"""


def canonical(name: str) -> str:
    """A distribution's name as all tools compare it.

    >>> canonical("ruamel.yaml_clib")
    'ruamel-yaml-clib'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(
    installed: dict[str, Distribution], root: str, extras: frozenset[str] = frozenset()
) -> set[str]:
    """Names of the distributions that `root` needs with `extras`, itself among them.

    Markers are not read: a requirement that is not for this platform is not installed either.
    Those of extras count only where the extra is asked for.
    """
    libraries: set[str] = set()
    asked = [(root, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while asked:
        name, with_ = asked.pop()
        if (name, with_) in seen or name not in installed:
            continue
        seen.add((name, with_))
        libraries.add(name)
        for line in installed[name].requires or ():
            head, _, marker = line.partition(";")
            wanted = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
            if wanted and canonical(wanted[1]) not in with_:
                continue
            match = re.match(r"\s*([\w.-]+)\s*(?:\[([^]]*)\])?", head)
            assert match is not None, line
            names = (
                canonical(word.strip()) for word in (match[2] or "").split(",") if word.strip()
            )
            asked.append((canonical(match[1]), frozenset(names)))
    return libraries


def remove(distribution: Distribution, site: Path) -> None:
    """Delete the files of a distribution, and folders that are empty then."""
    folders = set()
    for file in distribution.files or ():
        path = Path(str(distribution.locate_file(file)))
        path.unlink(missing_ok=True)
        folders.update(parent for parent in path.parents if site in parent.parents)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def baggage(site: Path) -> Iterator[Path]:
    """Folders and files that are of no use to run."""
    for path in sorted(site.rglob("*")):
        depth = len(path.relative_to(site).parts)
        if (path.is_dir() and path.name in _FOLDERS and depth > 1) or path.suffix in _SUFFIXES:
            yield path
    for pattern in _ONLY_TO_BUILD:
        yield from sorted(site.glob(pattern))


def strip(site: Path) -> None:
    """Take debuggers' symbols out of shared libraries.

    Not out of ``*.libs``: those were given other names by the tool that makes wheels, and strip
    spoils what it wrote.
    """
    program = shutil.which("strip")
    if program is None:
        print("There is no strip; the libraries keep their symbols.")
        return
    for path in sorted(site.rglob("*.so*")):
        own = not any(parent.name.endswith(".libs") for parent in path.parents)
        if own and "nvidia" not in path.parts and path.is_file() and not path.is_symlink():
            # A file that is no library after all stays as it is.
            subprocess.run([program, "--strip-unneeded", str(path)], stderr=subprocess.DEVNULL)


def size_mib(folder: Path) -> float:
    """What a folder takes up on disk."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 2**20


def main() -> None:
    """Trim the environment that the command line names, and say what it brought."""
    environment = Path(sys.argv[1]).resolve()
    (site,) = environment.glob("lib/python3.*/site-packages")
    before = size_mib(site)
    installed = {canonical(d.name): d for d in distributions(path=[str(site)])}
    wanted = needed(installed, "l2i", frozenset({"service"}))
    for name in sorted(set(installed) - wanted):
        remove(installed[name], site)
    kept = {site / word: (site / word).read_bytes() for word in _KEEP if (site / word).exists()}
    for path in baggage(site):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    strip(site)
    subprocess.run([environment / "bin" / "python", "-c", _WARM], check=True, cwd="/")
    print(
        f"Kept {len(wanted)} of {len(installed)} distributions; {before:.0f} -> "
        f"{size_mib(site):.0f} MiB."
    )


if __name__ == "__main__":
    main()
