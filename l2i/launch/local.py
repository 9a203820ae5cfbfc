"""Tasks as processes on this machine, in the current folder: as ``l2i sweep``, and unattended."""

from __future__ import annotations

import sys

from l2i.launch.job import Check, Job
from l2i.launch.runner import KeptHere, Process
from l2i.launch.spec import JobSpec


class Local(KeptHere):
    """This machine; see `l2i.launch.runner.KeptHere`."""

    name = "local"

    def check(self, spec: JobSpec) -> list[Check]:
        """Nothing is needed but this very program."""
        checks = [Check(f"{sys.executable} has l2i.")]
        if spec.gpus:
            checks.append(Check("GPUs are what this machine has; l2i doctor says.", None))
        return checks

    def submit(self, spec: JobSpec) -> Job:
        """Begin the tasks; a job whose keeper is gone goes on."""
        # -P: a random.py in the current folder is not the module of that name.
        l2i = [sys.executable, "-P", "-m", "l2i"]
        process = Process([*l2i, *spec.command], [], [], [])
        last = [*l2i, "jobs", "reconcile", spec.id]  # It closes the run above the tasks.
        return self._begin(spec, [process] * len(spec.tasks), spec.variables(self.name), last)
