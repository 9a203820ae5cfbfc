"""A Slurm array script: ``sbatch FILE``.

Each element of the array is a task. With an image it runs in Apptainer, without one in the
environment that ``sbatch`` is called in. Slurm tells a task two minutes before its time is over;
a task that ends with `RUN_AGAIN` puts itself into the queue again, up to ``attempts`` times, as one
that was preempted is. Values of secrets come from the environment of who submits.
"""

from __future__ import annotations

import shlex

from l2i.launch.job import RUN_AGAIN, JobSpec

__all__ = ["write"]

_WARNING_S = 120


def write(spec: JobSpec) -> str:
    """The script."""
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
        f"#SBATCH --signal=B:TERM@{min(_WARNING_S, spec.timeout_s // 2)}",
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
