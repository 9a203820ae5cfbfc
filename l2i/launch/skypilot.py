"""A SkyPilot managed job: ``sky jobs launch FILE``.

One task is a task, several are a job group, in parallel, on any of a few small GPUs (edit
``accelerators``). Machines are Spot; one that is taken away is replaced, and a task that ends with
`RUN_AGAIN` is begun again. A secret's value is asked of the environment of who launches:
``sky jobs launch --secret NAME FILE``.
"""

from __future__ import annotations

from typing import Any

from l2i.errors import UsageError
from l2i.launch.job import RUN_AGAIN, JobSpec

__all__ = ["write"]


def write(spec: JobSpec) -> str:
    """The task, or the group of them, as YAML.

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
