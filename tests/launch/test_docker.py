"""What a container is started with, and the engine that is not there; no engine is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l2i.errors import LaunchError
from l2i.launch.docker import Docker, resolve_image
from l2i.launch.spec import JobSpec
from tests.launch.conftest import IMAGE
from tests.launch.test_job import spec
from tests.stores import Said


def _words(one: JobSpec) -> list[str]:
    return Docker(Path("mlruns"), {}).words(one, 2)


def _after(words: list[str], option: str) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word == option]


def test_what_a_container_is_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits, index, attempt, the image's entry point; of a secret its name alone."""
    monkeypatch.setenv("SOURCE", "hunter2")
    one = spec(
        image=IMAGE,
        gpus=1,
        memory_mib=2048,
        shared_memory_mib=512,
        outputs={"tracking": "http://mlflow.example:5000"},
        secrets={"TOKEN": "SOURCE"},
    )
    words = _words(one)
    assert words[:3] == ["docker", "run", "--init"] and words[-2:] == [IMAGE, "task"]
    assert _after(words, "--shm-size") == ["512m"] and _after(words, "--memory") == ["2048m"]
    assert _after(words, "--gpus") == ["1"] and "--network" not in words
    variables = _after(words, "--env")
    assert "TOKEN" in variables and "hunter2" not in " ".join(words)
    assert {"L2I_TASK_INDEX=2", "L2I_TASK_ATTEMPT={attempt}"} <= set(variables)
    assert "--volume" not in words and "--user" not in words


@pytest.mark.parametrize(
    ("vcpus", "told", "wanted"), [(16, "", ["4"]), (2, "", ["2"]), (16, "7", ["7"])]
)
def test_containers_share_the_cores(
    vcpus: int, told: str, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time have half of eight cores each, or what a container may use if that is less,
    unless the user says how many threads."""
    monkeypatch.setattr("l2i.launch.runner.cpu_count", lambda n: 8 // n)
    more = {"OMP_NUM_THREADS": told} if told else {}
    words = _words(spec(image=IMAGE, parallel=2, vcpus=vcpus, environment=more))
    threads = [v for v in _after(words, "--env") if v.startswith("OMP_NUM_THREADS=")]
    assert [v.partition("=")[2] for v in threads] == wanted


@pytest.mark.parametrize(
    ("values", "mounts", "network"),
    [
        (
            {"outputs": {"tracking": "sqlite:////home/me/mlruns/mlflow.db"}},
            ["/home/me/mlruns:/home/me/mlruns"],
            [],
        ),
        (
            {
                "outputs": {"tracking": "http://localhost:5000"},
                "options": {"dataset.data_dir": "/data/ESC-10"},
            },
            ["/data:/data:ro"],
            ["host"],
        ),
        (
            {
                "outputs": {"tracking": "http://x", "endpoint": "http://127.0.0.1:9000"},
                "options": {"classifier.weights": "/w/c.safetensors"},
            },
            ["/w:/w:ro"],
            ["host"],
        ),
    ],
)
def test_what_it_needs_of_this_machine(
    values: dict[str, Any], mounts: list[str], network: list[str]
) -> None:
    """The store's folder at its own path and with this user's rights, data and weights to read,
    the machine's network where a server is at localhost."""
    words = _words(spec(image=IMAGE, **values))
    assert _after(words, "--volume") == mounts and _after(words, "--network") == network
    own = f"{os.getuid()}:{os.getgid()}"
    writable = any(not mount.endswith(":ro") for mount in mounts)
    assert _after(words, "--user") == ([own] if writable else [])


def test_no_engine(
    sweep_file: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No client, and a client without an engine: a sentence each; nothing is begun."""
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = say("submit", str(sweep_file), "--on", "docker", "--image", "l2i:cpu")
    assert answer.code == 1 and "There is no docker on PATH" in answer.err
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon at x.' >&2\nexit 1\n")
    client.chmod(0o755)
    with pytest.raises(LaunchError, match="No Docker engine answers: Cannot connect"):
        resolve_image("l2i:cpu")
    client.write_text(
        "#!/bin/sh\ncase $1 in image) exit 1;; *) echo 'denied: no such image' >&2; exit 1;; esac\n"
    )
    answer = say("submit", str(sweep_file), "--on", "docker", "--image", "l2i:cpu")
    assert answer.code == 1
    assert "'l2i:cpu' is not here, and cannot be pulled: denied: no such image." in answer.err
    assert not Path("mlruns/work/jobs").exists()
