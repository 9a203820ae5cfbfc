"""Resolve what pyproject.toml asks for, with its extra `service`, into the lock files: `make lock`.

``requirements-cuda.lock`` is the whole closure with hashes. ``requirements-cpu.lock`` is the same
without torch, torchaudio and the CUDA libraries that only torch's CUDA build wants: the CPU
build of torch comes from several places with several hashes, so that ``.tools/bootstrap.py``
installs it first, at the version that pyproject.toml pins. ``requirements-docs.lock`` is what `make
docs` installs on top of either.

Versions that still fit are kept; ``make lock UPGRADE=1`` takes the newest.
"""

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_GPU_ONLY = re.compile(r"(torch|torchaudio|triton|cuda-[\w-]+|nvidia-(?!ml-py)[\w-]+)==")
_HEAD = "# Made by `make lock` from pyproject.toml (and its group dev); do not edit.\n"
_HEAD_DOCS = "# Made by `make lock` from the group docs of pyproject.toml; do not edit.\n"
_HEAD_CPU = _HEAD + (
    "# Without torch and torchaudio: install their CPU builds first, at the versions in\n"
    "# pyproject.toml and with --no-deps, as .tools/bootstrap.py does.\n"
)


def entries(text: str) -> list[str]:
    """The requirements of a lock file, each with its hashes."""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace():
            lines[-1] += line
        else:
            lines.append(line)
    return lines


def main() -> None:
    """Write all files."""
    cuda, docs = ROOT / "requirements-cuda.lock", ROOT / "requirements-docs.lock"
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        program = Path(folder) / "bin"
        subprocess.run([program / "pip", "install", "-q", "uv"], check=True)
        command = [program / "uv", "pip", "compile"]
        command += ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
        command += ["--generate-hashes", "--no-annotate", "--no-header", "-q"]
        if os.environ.get("UPGRADE"):
            command.append("--upgrade")
        # uv has certificates of its own; a network with a private authority needs the system's.
        env = {"UV_SYSTEM_CERTS": "1", **os.environ}
        what = ["pyproject.toml", "--extra", "service", "--group", "dev"]
        subprocess.run([*command, "-o", cuda, *what], check=True, cwd=ROOT, env=env)
        what = ["--group", "docs", "-c", cuda]
        subprocess.run([*command, "-o", docs, *what], check=True, cwd=ROOT, env=env)
    every = entries(cuda.read_text(encoding="utf-8"))
    only = [e for e in entries(docs.read_text(encoding="utf-8")) if e not in every]
    docs.write_text(_HEAD_DOCS + "".join(only), encoding="utf-8")
    cuda.write_text(_HEAD + "".join(every), encoding="utf-8")
    cpu = [entry for entry in every if not _GPU_ONLY.match(entry)]
    (ROOT / "requirements-cpu.lock").write_text(_HEAD_CPU + "".join(cpu), encoding="utf-8")
    print(f"{len(every)} packages with CUDA, {len(cpu)} without it.", file=sys.stderr)


if __name__ == "__main__":
    main()
