"""Files for what others run: a job as SkyPilot, Kubernetes and Slurm have it.

Each begins a task again that ends with `RUN_AGAIN`, up to ``attempts`` times in all.
"""

from __future__ import annotations

import shlex
from typing import Any

from l2i.errors import UsageError
from l2i.launch.job import RUN_AGAIN
from l2i.launch.spec import JobSpec


def skypilot(spec: JobSpec) -> str:
    """A SkyPilot managed job: ``sky jobs launch FILE``.

    One task is a task, several are a job group, in parallel, on any of a few small GPUs (edit
    ``accelerators``). Machines are Spot; one that is taken away is replaced. A secret's value is
    asked of the environment of who launches: ``sky jobs launch --secret NAME FILE``.

    Raises
    ------
    UsageError
        There is no image.
    """
    import yaml

    if not spec.image:
        raise UsageError("--on skypilot needs --image NAME@sha256:...")
    resources: dict[str, Any] = {
        "image_id": f"docker:{spec.image}",
        "cpus": f"{spec.vcpus}+",
        "memory": f"{-(-spec.memory_mib // 1024)}+",
        "use_spot": True,
        "job_recovery": {
            "max_restarts_on_errors": spec.attempts - 1,
            "recover_on_exit_codes": [RUN_AGAIN],
        },
    }
    if spec.gpus:
        resources["accelerators"] = dict.fromkeys(("T4", "L4", "A10G"), spec.gpus)
    documents: list[dict[str, Any]] = []
    if len(spec.tasks) > 1:
        documents.append({"name": spec.id, "execution": "parallel"})
    words = " ".join(["l2i", *spec.command])
    for index in range(len(spec.tasks)):
        envs = {**spec.variables("skypilot"), "L2I_TASK_INDEX": str(index)}
        task: dict[str, Any] = {
            "name": f"{spec.id}-{index}" if len(spec.tasks) > 1 else spec.id,
            "resources": resources,
            "envs": envs,
        }
        if spec.secrets:
            task["secrets"] = dict.fromkeys(spec.secrets)
        task["run"] = f"timeout --signal TERM --kill-after 60 {spec.timeout_s} {words}\n"
        documents.append(task)

    class _Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text = yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=100)
    return f"# sky jobs launch FILE\n{text}"


def kubernetes(spec: JobSpec) -> str:
    """A Kubernetes Indexed Job: ``kubectl apply -f FILE``.

    Each index is a task. A pod that was evicted or preempted is tried again and does not count;
    any failure but `RUN_AGAIN` ends its index, and no other. Needs Kubernetes 1.29 or newer, and
    the NVIDIA device plugin for GPUs. A secret's source is ``secret/key`` of the namespace.

    Raises
    ------
    UsageError
        There is no image, or a secret's source is not ``secret/key``.
    """
    import yaml

    if not spec.image:
        raise UsageError("--on kubernetes needs --image NAME@sha256:...")
    name = spec.id.lower().replace("_", "-")[:52].strip("-")
    variables: list[dict[str, Any]] = [
        {"name": key, "value": value} for key, value in spec.variables("kubernetes").items()
    ]
    for key, source in spec.secrets.items():
        secret, slash, field = source.partition("/")
        if not slash:
            raise UsageError(f"--secret {key}={source}: of Kubernetes it must be secret/key.")
        variables.append(
            {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": field}}}
        )
    needs = {"cpu": str(spec.vcpus), "memory": f"{spec.memory_mib}Mi"}
    limits = {"memory": f"{spec.memory_mib}Mi"}
    if spec.gpus:
        limits["nvidia.com/gpu"] = str(spec.gpus)
    box = {
        "name": "task",
        "image": spec.image,
        "args": list(spec.command),
        "env": variables,
        "resources": {"requests": needs, "limits": limits},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    again = {"containerName": "task", "operator": "NotIn", "values": [RUN_AGAIN]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "l2i"}},
        "spec": {
            "completionMode": "Indexed",
            "completions": len(spec.tasks),
            "parallelism": min(spec.parallel or len(spec.tasks), len(spec.tasks)),
            "backoffLimitPerIndex": spec.attempts - 1,
            "maxFailedIndexes": len(spec.tasks),
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    {"action": "FailIndex", "onExitCodes": again},
                ]
            },
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": "l2i"}},
                "spec": {
                    "restartPolicy": "Never",
                    "activeDeadlineSeconds": spec.timeout_s,
                    # What a task that is told to stop has for its last checkpoint.
                    "terminationGracePeriodSeconds": 60,
                    "containers": [box],
                    "volumes": [
                        {
                            "name": "shm",
                            "emptyDir": {
                                "medium": "Memory",
                                "sizeLimit": f"{spec.shared_memory_mib}Mi",
                            },
                        }
                    ],
                },
            },
        },
    }
    return f"# kubectl apply -f FILE\n{yaml.safe_dump(job, sort_keys=False, width=100)}"


def slurm(spec: JobSpec) -> str:
    """A Slurm array script: ``sbatch FILE``.

    Each element of the array is a task. With an image it runs in Apptainer, without one in the
    environment that ``sbatch`` is called in. Slurm tells a task two minutes before its time is
    over; one that ends with `RUN_AGAIN` puts itself into the queue again, as one that was preempted
    is. Values of secrets come from the environment of who submits.
    """
    n = len(spec.tasks)
    minutes = max(1, -(-spec.timeout_s // 60))
    limit = f"%{spec.parallel}" if spec.parallel else ""
    lines = [
        "#!/bin/bash",
        "# sbatch FILE",
        f"#SBATCH --job-name={spec.id}",
        f"#SBATCH --array=0-{n - 1}{limit}",
        f"#SBATCH --cpus-per-task={spec.vcpus}",
        f"#SBATCH --mem={spec.memory_mib}M",
        f"#SBATCH --time={minutes}",
        f"#SBATCH --signal=B:TERM@{min(120, spec.timeout_s // 2)}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={spec.id}-%a.log",
    ]
    if spec.gpus:
        lines.append(f"#SBATCH --gres=gpu:{spec.gpus}")
    lines += ["", "set -u"]
    for key in spec.secrets:
        lines.append(f': "${{{key}:?the secret {key} must be set where sbatch is called}}"')
    for key, value in spec.variables("slurm").items():
        lines.append(f"export {key}={shlex.quote(value)}")
    command = ["l2i", *spec.command]
    if spec.image:
        nvidia = ["--nv"] if spec.gpus else []
        command = ["apptainer", "exec", *nvidia, f"docker://{spec.image}", *command]
    lines += [
        "",
        "# In the background, so that bash hears the signal, and hands it on; one that comes while",
        "# the task is begun, too.",
        'task="" stop=""',
        'trap \'stop=1; [ -z "$task" ] || kill -TERM "$task"\' TERM',
        f"{shlex.join(command)} &",
        "task=$!",
        '[ -z "$stop" ] || kill -TERM "$task"',
        "# A signal ends a wait, and not the task; its code is asked for once it has ended.",
        'wait "$task"',
        'while kill -0 "$task" 2>/dev/null; do wait "$task"; done',
        'wait "$task"',
        "code=$?",
        f'if [ "$code" -eq {RUN_AGAIN} ] && '
        f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {spec.attempts - 1} ]; then',
        '  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
        "fi",
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"
