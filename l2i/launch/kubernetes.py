"""A Kubernetes Indexed Job: ``kubectl apply -f FILE``.

Each index is a task. A pod that was evicted or preempted is tried again and does not count; one
that ends with `RUN_AGAIN` is, up to ``attempts``; any other failure ends its index, and no other.
Needs Kubernetes 1.29 or newer, and the NVIDIA device plugin for GPUs. A secret's source is
``secret/key`` of the namespace.
"""

from __future__ import annotations

from typing import Any

from l2i.errors import UsageError
from l2i.launch.job import RUN_AGAIN, JobSpec

__all__ = ["write"]


def write(spec: JobSpec) -> str:
    """The Job as YAML.

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
