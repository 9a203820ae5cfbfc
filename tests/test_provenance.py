"""`l2i.run.provenance`: a run's birth certificate."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import l2i
from l2i.run import provenance
from l2i.run.provenance import cpu_model, tags


def test_tags_say_by_what_and_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version, Python, packages, machine, folder and the command line."""
    monkeypatch.setattr("sys.argv", ["l2i", "train", "--name", "first try"])
    values = tags(torch.device("cpu"))
    assert values["l2i.version"] == l2i.__version__
    assert values["l2i.python"] == platform.python_version()
    assert values["l2i.torch"] == torch.__version__
    assert values["l2i.host"] == platform.node()
    assert values["l2i.cpu"] == cpu_model() != ""
    assert values["l2i.device"] == "cpu"
    assert values["l2i.command"] == "l2i train --name 'first try'"
    assert values["l2i.folder"] == str(Path.cwd())
    assert {"l2i.mlflow", "l2i.numpy", "l2i.librosa", "l2i.torchaudio"} <= values.keys()
    assert all(isinstance(value, str) and value for value in values.values())
    assert "l2i.device" not in tags()
    assert "l2i.image" not in values


def test_passwords_on_the_command_line_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for years by a server that others read."""
    monkeypatch.setattr("sys.argv", ["l2i", "train", "--data-dir", "https://me:hunter2@host/x"])
    assert tags()["l2i.command"] == "l2i train --data-dir https://me:***@host/x"


def test_an_images_digest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment tells it."""
    monkeypatch.setenv("L2I_IMAGE_DIGEST", "sha256:abc")
    assert tags()["l2i.image"] == "sha256:abc"


@pytest.mark.parametrize(
    ("revision", "commit", "dirty"),
    [("abc", "abc", "false"), ("abc-dirty", "abc", "true"), ("unknown", None, None)],
)
def test_an_images_revision_is_kept(
    revision: str,
    commit: str | None,
    dirty: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Where there is no checkout to ask."""
    monkeypatch.setattr(l2i, "__file__", str(tmp_path / "l2i" / "__init__.py"))
    monkeypatch.setenv("L2I_REVISION", revision)
    assert (tags().get("l2i.commit"), tags().get("l2i.dirty")) == (commit, dirty)


def test_the_commit_is_that_of_our_own_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With whether files that git knows differ from it; not of a repository around an installed
    package, nor of the folder where one happens to be."""
    root = tmp_path / "checkout"
    (root / "l2i").mkdir(parents=True)
    source = root / "l2i" / "__init__.py"
    source.write_text("")
    monkeypatch.setattr(l2i, "__file__", str(source))
    assert "l2i.commit" not in tags()

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", str(root), *who, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    values = tags()
    assert re.fullmatch(r"[0-9a-f]{40}", values["l2i.commit"])
    assert values["l2i.commit"] == git("rev-parse", "HEAD") == values["mlflow.source.git.commit"]
    assert values["l2i.dirty"] == "false"
    (root / "notes.txt").write_text("git does not know this")
    assert tags()["l2i.dirty"] == "false"
    source.write_text("changed = True")
    assert tags()["l2i.dirty"] == "true"


def test_a_machine_without_git_still_has_a_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever git does: it is absent, it hangs, it breaks."""
    for error in (
        FileNotFoundError("git"),
        subprocess.TimeoutExpired("git", 10),
        subprocess.CalledProcessError(128, "git"),
    ):

        def broken(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(provenance.subprocess, "run", broken)
        values = tags()
        assert "l2i.commit" not in values and "l2i.dirty" not in values
        assert values["l2i.version"] == l2i.__version__
