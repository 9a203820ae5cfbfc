"""Files for what others run, each held against that system's own schema or checker."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.conftest import IMAGE
from tests.stores import Said


@pytest.fixture
def write(
    sweep_file: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Write a file for a system."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")

    def run(system: str, *words: str, image: str = IMAGE) -> Path:
        path = Path(f"job.{system}")
        given = [*(("--image", image) if image else ()), *words]
        answer = say("submit", str(sweep_file), "--on", system, "--write", str(path), *given)
        assert answer.code == 0, answer.err
        assert say("submit", str(sweep_file), "--on", system, *given).out == path.read_text()
        return path

    return run


SECRET = ("--secret", "MLFLOW_TRACKING_PASSWORD=mlflow/password")


def test_kubernetes(write: Callable[..., Path]) -> None:
    """A Job that Kubernetes' own schema takes, strictly; what stands for what."""
    checker = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not here.")
    (job,) = yaml.safe_load_all(write("kubernetes", *SECRET, "--parallel", "2").read_text())
    checker.validate(job, "1.29", strict=True)
    with pytest.raises(checker.ValidationError):
        checker.validate(job | {"spec": job["spec"] | {"completion": 4}}, "1.29", strict=True)


def test_kubernetes_says_what_the_description_says(
    write: Callable[..., Path], sweep_file: Path, say: Callable[..., Said]
) -> None:
    """Tasks, attempts, limits, GPU, shared memory, secrets by name; the code for "again"."""
    (job,) = yaml.safe_load_all(write("kubernetes", *SECRET, "--parallel", "2").read_text())
    wanted = job["spec"]
    assert (wanted["completionMode"], wanted["completions"]) == ("Indexed", 4)
    assert (wanted["parallelism"], wanted["backoffLimitPerIndex"]) == (2, 2)
    rules = wanted["podFailurePolicy"]["rules"]
    assert rules[0]["action"] == "Ignore" and rules[1]["onExitCodes"]["values"] == [75]
    pod = wanted["template"]["spec"]
    assert pod["activeDeadlineSeconds"] == 21600 and pod["restartPolicy"] == "Never"
    (box,) = pod["containers"]
    assert box["image"] == IMAGE and box["args"] == ["task"]
    assert box["resources"]["limits"] == {"memory": "14000Mi", "nvidia.com/gpu": "1"}
    assert pod["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1024Mi"}
    source = {"secretKeyRef": {"name": "mlflow", "key": "password"}}
    assert {"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": source} in box["env"]
    answer = say(
        "submit", str(sweep_file), "--on", "kubernetes", "--image", IMAGE, "--secret", "A=b"
    )
    assert answer.code == 2 and "must be secret/key" in answer.err
    answer = say("submit", str(sweep_file), "--on", "kubernetes")
    assert answer.code == 2 and "needs --image" in answer.err


def test_skypilot(write: Callable[..., Path]) -> None:
    """What SkyPilot's own schemas and loader take: a job group of four."""
    schemas = pytest.importorskip("sky.utils.schemas", reason="SkyPilot is not installed here.")
    import jsonschema
    from sky.utils import dag_utils

    path = write("skypilot", *SECRET)
    head, *tasks = yaml.safe_load_all(path.read_text())
    check = jsonschema.Draft202012Validator
    for task in tasks:
        check(schemas.get_task_schema()).validate(task)
        check(schemas.get_resources_schema()).validate(task["resources"])
    group = dag_utils.load_job_group_from_yaml(str(path))
    assert len(group.tasks) == 4 and group.name == head["name"]


def test_skypilot_says_what_the_description_says(write: Callable[..., Path]) -> None:
    """A header and four tasks, each with its index; a secret without its value."""
    head, *tasks = yaml.safe_load_all(write("skypilot", *SECRET).read_text())
    assert head["execution"] == "parallel" and len(tasks) == 4
    assert [t["envs"]["L2I_TASK_INDEX"] for t in tasks] == ["0", "1", "2", "3"]
    for task in tasks:
        assert task["secrets"] == {"MLFLOW_TRACKING_PASSWORD": None}
        assert task["resources"]["image_id"] == f"docker:{IMAGE}"
        assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
        assert task["resources"]["use_spot"] and task["run"].endswith("l2i task\n")


def _in_bash(path: Path, l2i: str, **environment: str) -> subprocess.Popen[str]:
    """The script, as Slurm would begin it, with stand-ins for l2i and scontrol."""
    bin_ = Path("bin")
    bin_.mkdir(exist_ok=True)
    for name, body in (("l2i", l2i), ("scontrol", 'echo "scontrol $*"')):
        (bin_ / name).write_text(f"#!/bin/bash\n{body}\n")
        (bin_ / name).chmod(0o755)
    return subprocess.Popen(
        ["bash", str(path)],
        env={
            **os.environ,
            "PATH": f"{bin_.resolve()}:{os.environ['PATH']}",
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": "3",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_slurm_script(write: Callable[..., Path]) -> None:
    """Its exit code is the task's; 75 puts it into the queue again, as often as there are
    attempts; a signal to the script reaches the task; a secret that is not set is named."""
    path = write("slurm", image="")
    done = _in_bash(path, 'echo "$1 $SLURM_ARRAY_TASK_ID ${#L2I_JOB}"; exit 0')
    out = done.communicate()[0].split()
    assert done.returncode == 0 and out[:2] == ["task", "3"] and int(out[2]) > 100
    done = _in_bash(path, "exit 70")
    assert done.communicate()[0] == "" and done.returncode == 70
    done = _in_bash(path, "exit 75")
    assert done.communicate()[0] == "scontrol requeue 7_3\n" and done.returncode == 75
    done = _in_bash(path, "exit 75", SLURM_RESTART_COUNT="2")
    assert done.communicate()[0] == "" and done.returncode == 75
    # What sleeps on must not hold the pipe that is read to its end.
    trap = "trap 'sleep 0.3; echo saved; exit 75' TERM; echo on; sleep 60 > /dev/null 2>&1 & wait"
    done = _in_bash(path, trap)
    assert done.stdout is not None and done.stdout.readline() == "on\n"
    done.terminate()
    assert done.communicate()[0] == "saved\nscontrol requeue 7_3\n" and done.returncode == 75

    path = write("slurm", "--secret", "HIDDEN", "--parallel", "2", "--gpus", "2")
    done = _in_bash(path, "exit 0")
    assert "the secret HIDDEN must be set" in done.communicate()[0] and done.returncode != 0
    text = path.read_text()
    assert f"apptainer exec --nv docker://{IMAGE} l2i task" in text
    assert "#SBATCH --array=0-3%2\n" in text and "#SBATCH --gres=gpu:2\n" in text


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm of this machine: a controller, a node, and what they know each other by."""
    names = ("munged", "slurmctld", "slurmd", "sbatch")
    if not all(shutil.which(n, path=f"{os.environ['PATH']}:/usr/sbin") for n in names):
        pytest.skip("Slurm is not here (Debian: slurmctld slurmd slurm-client munge).")
    if os.getuid():
        pytest.skip("A Slurm of this machine takes root.")
    host, processes = os.uname().nodename, []
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    (tmp_path / "key").write_bytes(os.urandom(1024))
    (tmp_path / "key").chmod(0o400)
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        f"ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser=root\nSlurmdUser=root\n"
        f"AuthInfo=socket={tmp_path}/munge\nStateSaveLocation={tmp_path}/state\n"
        f"SlurmdSpoolDir={tmp_path}/spool\nSlurmctldPidFile={tmp_path}/c.pid\n"
        f"SlurmdPidFile={tmp_path}/d.pid\nSlurmctldLogFile={tmp_path}/c.log\n"
        f"SlurmdLogFile={tmp_path}/d.log\nSlurmctldPort=16817\nSlurmdPort=16818\n"
        "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSelectType=select/cons_tres\n"
        "SelectTypeParameters=CR_Core\nReturnToService=2\n"
        f"NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=1024\n"
        "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(conf))
    # Its folder may lie below one that all may write to.
    words: list[list[Any]] = [
        ["munged", "--force", "--foreground", f"--key-file={tmp_path}/key"],
        ["slurmctld", "-D", "-i", "-f", conf],
        ["slurmd", "-D", "-f", conf],
    ]
    words[0] += [f"--{k}={tmp_path}/munge{v}" for k, v in (("socket", ""), ("pid-file", ".pid"))]
    words[0] += [f"--log-file={tmp_path}/munge.log", f"--seed-file={tmp_path}/seed"]
    try:
        for line in words:
            program = shutil.which(line[0], path=f"{os.environ['PATH']}:/usr/sbin")
            quiet = subprocess.DEVNULL
            processes.append(subprocess.Popen([program, *line[1:]], stdout=quiet, stderr=quiet))
            time.sleep(1)
        end = time.monotonic() + 30
        while "idle" not in subprocess.run(["sinfo"], capture_output=True, text=True).stdout:
            if time.monotonic() > end:
                pytest.skip("Slurm does not start on this machine.")
            time.sleep(0.5)
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=20)


def test_slurm_takes_it(write: Callable[..., Path], slurm: None) -> None:
    """``sbatch --test-only`` of a real controller says when it would begin; a script that is
    wrong it refuses."""
    words = ("--gpus", "0", "--vcpus", "1", "--memory-mib", "512")
    path = write("slurm", *words, image="")
    done = subprocess.run(["sbatch", "--test-only", path], capture_output=True, text=True)
    assert done.returncode == 0 and "to start at" in done.stderr, done.stderr
    bad = Path("bad")
    bad.write_text(path.read_text().replace("--array=0-3", "--array=0-q"))
    done = subprocess.run(["sbatch", "--test-only", bad], capture_output=True, text=True)
    assert done.returncode != 0 and "Invalid job array" in done.stderr
