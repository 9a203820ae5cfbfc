"""Where a result comes from, as tags of its run: its birth certificate."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import l2i
from l2i.run.store import mask

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "torchaudio", "mlflow", "numpy", "librosa")


def _git(*words: str) -> str | None:
    """What git says in our own checkout; None where l2i was installed or git is absent."""
    root = Path(l2i.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _revision() -> tuple[str, str]:
    """The commit, empty where it is not known; and whether more was changed than it says."""
    if commit := _git("rev-parse", "HEAD"):
        changes = _git("status", "--porcelain", "--untracked-files=no")
        return commit, "unknown" if changes is None else str(bool(changes)).lower()
    commit, _, dirty = os.environ.get("L2I_REVISION", "").strip().partition("-")
    return ("", "") if commit == "unknown" else (commit, str(bool(dirty)).lower())


def cpu_model() -> str:
    """The processor's name, as it calls itself."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"^model name[ \t]*:(.*)$", text, re.MULTILINE):
            return match[1].strip()
    return platform.processor() or platform.machine()


def tags(device: torch.device | None = None) -> dict[str, str]:
    """Tags that say by what, on what (a device by its name, if it has one) and how a run was made.

    Returns
    -------
    dict of str to str
        Without passwords: those of addresses and of options that are called so are masked.
        ``l2i.commit`` and ``l2i.dirty`` are there only where l2i runs from its own checkout or
        in an image (which has them in ``L2I_REVISION``), ``l2i.image`` only in an image: its
        digest, from ``L2I_IMAGE_DIGEST``.
    """
    values = {
        "l2i.version": l2i.__version__,
        "l2i.python": platform.python_version(),
        "l2i.host": platform.node(),
        "l2i.platform": platform.platform(),
        "l2i.cpu": cpu_model(),
        "l2i.command": mask(shlex.join(["l2i", *sys.argv[1:]])),
        "l2i.folder": str(Path.cwd()),
    }
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            values[f"l2i.{package}"] = metadata.version(package)
    if device is not None:
        values["l2i.device"] = device.type
        if device.type == "cuda":
            import torch

            values["l2i.device"] = torch.cuda.get_device_name(device)
    commit, dirty = _revision()
    if commit:
        values["l2i.commit"] = commit
        values["l2i.dirty"] = dirty
        values["mlflow.source.git.commit"] = commit  # Where MLflow's pages look for it.
    image = os.environ.get("L2I_IMAGE_DIGEST", "")
    if image:
        values["l2i.image"] = image
    return values
