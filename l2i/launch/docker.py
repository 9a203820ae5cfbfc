"""Tasks as containers of an image, on this machine's Docker engine.

A folder that a task needs (the local store, a data set) is mounted at the very path that it has
outside, since MLflow keeps absolute paths. Where the store or the S3-compatible server is at
``localhost``, containers share the machine's network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from l2i.errors import LaunchError
from l2i.launch.job import Check, Job, known_job
from l2i.launch.processes import GRACE_S
from l2i.launch.runner import KeptHere, Process, threads_of
from l2i.launch.spec import JobSpec

_LOCAL = ("localhost", "127.0.0.1", "::1")


def _docker(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("docker") is None:
        raise LaunchError("There is no docker on PATH: install Docker, or take --on local.")
    return subprocess.run(["docker", *words], capture_output=True, text=True)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".?") if lines else "it said nothing"


def resolve_image(image: str, *, pull: bool = True) -> str:
    """An image by its digest, as the engine here knows it.

    Parameters
    ----------
    image : str
        By name and tag, name and digest, or id.
    pull : bool
        Fetch it where it is not here.

    Returns
    -------
    str
        ``name@sha256:...`` of an image that came from a registry; ``sha256:...``, its id, of one
        that was built here.

    Raises
    ------
    LaunchError
        There is no such image, or no engine.
    """
    form = "{{.Id}} {{range .RepoDigests}}{{.}} {{end}}"
    done = _docker("image", "inspect", "--format", form, image)
    if done.returncode and re.search(r"(?i)cannot connect|is the docker daemon", done.stderr):
        raise LaunchError(f"No Docker engine answers: {_last(done.stderr)}.")
    if done.returncode and pull:
        pulled = _docker("pull", image)
        if pulled.returncode:
            raise LaunchError(
                f"The image {image!r} is not here, and cannot be pulled: {_last(pulled.stderr)}."
            )
        done = _docker("image", "inspect", "--format", form, image)
    if done.returncode:
        raise LaunchError(f"The image {image!r} is not here: build it, or mend its name.")
    own, *digests = done.stdout.split()
    return digests[0] if digests else own


class Docker(KeptHere):
    """This machine's Docker engine; see `l2i.launch.runner.KeptHere`."""

    name = "docker"

    def check(self, spec: JobSpec) -> list[Check]:
        """Whether the engine answers and has the image, and whether secrets are set."""
        if not spec.image:
            raise LaunchError("--on docker needs --image NAME.")
        checks = [Check(f"Image {resolve_image(spec.image, pull=False)} is here.")]
        for name, source in spec.secrets.items():
            if source not in os.environ:
                raise LaunchError(
                    f"The secret {name} comes from the variable {source}, which is not set here."
                )
        if spec.gpus:
            ok = "nvidia" in _docker("info", "--format", "{{json .Runtimes}}").stdout or None
            checks.append(Check("The NVIDIA runtime is there." if ok else "GPUs: not known.", ok))
        return checks

    def words(self, spec: JobSpec, index: int) -> list[str]:
        """The ``docker run`` of one task, without values of secrets."""
        name = f"l2i-{spec.id}-{index}"
        words = ["docker", "run", "--init", "--name", name, "--stop-timeout", f"{GRACE_S:.0f}"]
        words += ["--shm-size", f"{spec.shared_memory_mib}m", "--memory", f"{spec.memory_mib}m"]
        words += ["--cpus", str(min(spec.vcpus, os.cpu_count() or 1))]
        if spec.gpus:
            words += ["--gpus", str(spec.gpus)]
        variables = threads_of(spec, spec.vcpus) | spec.variables(self.name)
        uris = (variables.get("MLFLOW_TRACKING_URI", ""), variables.get("AWS_ENDPOINT_URL_S3", ""))
        if any(urlsplit(uri).hostname in _LOCAL for uri in uris):
            words += ["--network", "host"]
        mounts = _mounts(spec)
        if any(writable for _, writable in mounts):
            # What it writes there must be this user's.
            words += ["--user", f"{os.getuid()}:{os.getgid()}"]
        for folder, writable in mounts:
            words += ["--volume", f"{folder}:{folder}{'' if writable else ':ro'}"]
        for key, value in variables.items():
            words += ["--env", f"{key}={value}"]
        for key in spec.secrets:
            words += ["--env", key]  # Its value is this process's, and in no command line.
        words += ["--env", f"L2I_TASK_INDEX={index}", "--env", "L2I_TASK_ATTEMPT={attempt}"]
        return [*words, spec.image, *spec.command]

    def submit(self, spec: JobSpec) -> Job:
        """Begin the containers; a job whose keeper is gone goes on."""
        if known_job(self._root, spec.id) is None:
            self.check(spec)
        processes = []
        for index in range(len(spec.tasks)):
            name = f"l2i-{spec.id}-{index}"
            processes.append(
                Process(
                    self.words(spec, index),
                    ["docker", "stop", "--time", f"{GRACE_S:.0f}", name],
                    ["docker", "inspect", "--format", "{{.State.OOMKilled}}", name],
                    ["docker", "rm", "--force", name],
                )
            )
        secrets = {name: os.environ[source] for name, source in spec.secrets.items()}
        return self._begin(spec, processes, secrets)


def _mounts(spec: JobSpec) -> list[tuple[str, bool]]:
    """Folders of this machine that a task needs, and whether it writes there."""
    folders: dict[str, bool] = {}
    tracking = spec.outputs.get("tracking", "")
    if tracking.startswith("sqlite"):
        folders[str(Path(unquote(tracking.partition(":///")[2])).parent)] = True
    artifacts = spec.outputs.get("artifacts", "")
    if artifacts.startswith("/"):
        folders[artifacts] = True
    for key, value in spec.options.items():
        if value.startswith("/") and key.startswith(
            ("dataset.data_dir", "classifier.", "dictionary.")
        ):
            folders.setdefault(value if Path(value).is_dir() else str(Path(value).parent), False)
    return list(folders.items())
