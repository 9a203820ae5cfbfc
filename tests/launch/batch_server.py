"""moto's server, with what AWS Batch does and moto does not.

An index, an attempt and a role's keys in the environment, secrets, exit codes, logs while a task
runs, retries as ``evaluateOnExit`` says, children of an array that end with it, a limited number
of machines, images that cannot be pulled. A container that is killed from outside counts as a
machine that was taken away.

Run as ``python -m tests.launch.batch_server PORT``. With ``BATCH_SCRIPTED=1`` there are no
containers: what a task does is in its variable ``SCRIPT``, a list of words, one per attempt, or one
such list per index of the array: ``exit 3``, ``kill``, ``pull``, ``hang``, each after lines that it
says (``say hello; exit 0``).
"""

from __future__ import annotations

import copy
import fnmatch
import json
import os
import sys
import threading
import time
from datetime import datetime
from typing import Any

import moto.batch.models as models
import moto.iam.models as iam
from moto.batch.models import Job as MotoJob

SCRIPTED = os.environ.get("BATCH_SCRIPTED") == "1"
SECRETS: dict[str, str] = json.loads(os.environ.get("BATCH_SECRETS", "{}"))
ROLE: dict[str, str] = json.loads(os.environ.get("BATCH_ROLE", "{}"))
MACHINES = threading.Semaphore(int(os.environ.get("BATCH_MACHINES", "4")))
GROUP = "/aws/batch/job"


def _now() -> int:
    return int(1000 * time.time())


class Job(MotoJob):
    """A job as Batch does it."""

    __module__ = "moto.batch.models"  # By which moto knows whose instances these are.

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._state = "SUBMITTED"
        if kwargs.get("container_overrides"):
            # moto lets children share it, and appends to it.
            kwargs["container_overrides"] = copy.deepcopy(kwargs["container_overrides"])
        super().__init__(*args, **kwargs)
        self.code: int | None = None
        self.reason = ""

    @property
    def status(self) -> str:
        children = self._child_jobs
        if children:
            states = {child.status for child in children}
            if states <= {"SUCCEEDED", "FAILED"}:
                return "FAILED" if "FAILED" in states else "SUCCEEDED"
            return "PENDING"
        return self._state

    @status.setter
    def status(self, value: str) -> None:
        self._state = value

    @property
    def index(self) -> int | None:
        return self.array_properties.get("index")

    def describe(self) -> dict[str, Any]:
        result = super().describe()
        result["status"] = self.status
        box = result.get("container", {})
        box["environment"] = [e for e in self._environment() if not e.get("secret")]
        box["image"] = self.job_definition.container_properties["image"]
        if self.code is not None:
            box["exitCode"] = self.code
        if self.reason:
            box["reason"] = self.reason
        if self.job_stopped_reason is None:
            result.pop("statusReason", None)
        return result

    def terminate(self, reason: str) -> None:
        for child in self._child_jobs or []:
            child.terminate(reason)
        if self.status in ("SUCCEEDED", "FAILED"):
            return
        self.stop = True
        self.job_stopped_reason = reason

    def _environment(self) -> list[dict[str, Any]]:
        own = {
            e["name"]: e["value"]
            for e in self.job_definition.container_properties.get("environment", [])
        }
        own |= {e["name"]: e["value"] for e in self.container_overrides.get("environment", [])}
        own["AWS_BATCH_JOB_ID"] = self.job_id
        own["AWS_BATCH_JOB_ATTEMPT"] = str(len(self.attempts) + 1)
        own["AWS_DEFAULT_REGION"] = self.backend.region_name
        if self.index is not None:
            own["AWS_BATCH_JOB_ARRAY_INDEX"] = str(self.index)
        return [{"name": k, "value": v} for k, v in own.items()]

    def _variables(self) -> dict[str, str]:
        variables = {e["name"]: e["value"] for e in self._environment()} | ROLE
        for each in self.job_definition.container_properties.get("secrets", []):
            variables[each["name"]] = SECRETS[each["valueFrom"]]
        return variables

    def say(self, line: str) -> None:
        event = {"timestamp": _now(), "message": line}
        self._log_backend.put_log_events(GROUP, self.log_stream_name, [event])

    def run(self) -> None:
        self.status = "RUNNABLE"
        while not MACHINES.acquire(timeout=0.2):
            if self.stop:
                self._over("FAILED")
                return
        try:
            if self.stop:
                self._over("FAILED")
                return
            number = 1
            while not self._attempt(number):
                number += 1
        except Exception as error:  # It must not hang as RUNNING for ever.
            self.reason = f"{type(error).__name__}: {error}"
            self.job_stopped_reason = "the test's server failed"
            self._over("FAILED")
        finally:
            MACHINES.release()

    def _attempt(self, number: int) -> bool:
        """Whether the job is over for good."""
        self.status = "STARTING"
        self.job_started_at = datetime.now()
        begun = _now()
        self.code, self.reason, self.job_stopped_reason = None, "", None
        self.log_stream_name = (
            f"{self.job_definition.name}/default/{self.job_id.replace(':', '-')}-{number}"
        )
        self._log_backend.ensure_log_group(GROUP)
        self._log_backend.ensure_log_stream(GROUP, self.log_stream_name)
        work = self._scripted if SCRIPTED else self._contained
        status_reason = work(number)
        box = {"logStreamName": self.log_stream_name, "reason": self.reason}
        if self.code is not None:
            box["exitCode"] = self.code  # type: ignore[assignment]
        self.attempts.append(
            {
                "container": box,
                "startedAt": begun,
                "stoppedAt": _now(),
                "statusReason": status_reason,
            }
        )
        if self.stop:
            self._over("FAILED")
            return True
        self.job_stopped_reason = status_reason
        retry = self.job_definition.retry_strategy or {}
        over = self.code == 0 or number >= int(retry.get("attempts", 1)) or not self._again(retry)
        if over:
            self._over("SUCCEEDED" if self.code == 0 else "FAILED")
        else:
            self.status = "RUNNABLE"
        return over

    def _over(self, state: str) -> None:
        self.job_stopped = True
        self.job_stopped_at = datetime.now()
        self.exit_code = self.code
        self.status = state

    def _again(self, retry: dict[str, Any]) -> bool:
        reasons = {
            "onStatusReason": self.job_stopped_reason or "",
            "onReason": self.reason or "",
            "onExitCode": "" if self.code is None else str(self.code),
        }
        for rule in retry.get("evaluateOnExit", []):
            if all(
                fnmatch.fnmatchcase(reasons[key].lower(), pattern.lower())
                for key, pattern in rule.items()
                if key != "action"
            ):
                return bool(rule["action"].upper() == "RETRY")
        return True

    def _scripted(self, number: int) -> str:
        script = json.loads(self._variables().get("SCRIPT", '["exit 0"]'))
        mine = script[(self.index or 0) % len(script)] if isinstance(script[0], list) else script
        words = mine[min(number, len(mine)) - 1]
        self.status = "RUNNING"
        for step in words.split("; "):
            verb, _, rest = step.partition(" ")
            if verb == "say":
                self.say(rest)
            elif verb == "hang":
                while not self.stop:
                    time.sleep(0.05)
                self.code = 143
            elif verb == "pull":
                self.reason = "CannotPullContainerError: Error response from daemon: no such image"
                return "Task failed to start"
            elif verb == "kill":
                self.code = 137
                return "Host EC2 (instance i-0123456789abcdef0) terminated."
            else:
                self.code = int(rest)
        return "Essential container in task exited"

    def _contained(self, number: int) -> str:
        import docker

        client = docker.from_env()
        properties = self.job_definition.container_properties
        linux = properties.get("linuxParameters", {})
        needs = {
            r["type"]: r["value"]
            for r in self.container_overrides.get("resourceRequirements")
            or properties["resourceRequirements"]
        }
        try:
            box = client.containers.run(
                properties["image"],
                self.container_overrides.get("command") or properties.get("command"),
                name=f"batch-{self.job_id.replace(':', '-')}-{number}",
                environment=self._variables(),
                network_mode="host",
                init=bool(linux.get("initProcessEnabled")),
                shm_size=f"{linux.get('sharedMemorySize', 64)}m",
                mem_limit=f"{needs['MEMORY']}m",
                labels={"job": self.job_id},
                detach=True,
            )
        except docker.errors.DockerException as error:
            self.reason = f"CannotPullContainerError: {str(error).splitlines()[0]}"
            return "Task failed to start"
        self.status = "RUNNING"

        def tell() -> None:
            for line in box.logs(stream=True, follow=True):
                if text := line.decode(errors="replace").rstrip("\r\n"):
                    self.say(text)

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        asked = False
        while True:
            box.reload()
            if box.status == "exited":
                break
            if self.stop and not asked:
                asked = True
                threading.Thread(target=lambda: box.stop(timeout=30), daemon=True).start()
            time.sleep(0.2)
        self.code = int(box.wait()["StatusCode"])
        teller.join(timeout=10)
        box.remove(force=True)
        if self.code == 137:
            return "Host EC2 (instance i-0123456789abcdef0) terminated."
        return "Essential container in task exited"


def _stacks_of_batch() -> None:
    """What moto's CloudFormation lacks of Batch: its own role where none is named, and deletion."""
    make = models.ComputeEnvironment.create_from_cloudformation_json

    def with_role(name: str, resource: Any, account: str, region: str, **more: Any) -> Any:
        any_role, *_ = models.batch_backends[account][region].iam_backend.get_roles()
        resource["Properties"]["ServiceRole"] = any_role.arn
        return make(name, resource, account, region, **more)

    def deleted_by(verb: str) -> Any:
        def delete(name: str, _: Any, account: str, region: str) -> None:
            getattr(models.batch_backends[account][region], verb)(name)

        return staticmethod(delete)

    models.ComputeEnvironment.create_from_cloudformation_json = staticmethod(with_role)
    for model, verb in (
        (models.ComputeEnvironment, "delete_compute_environment"),
        (models.JobQueue, "delete_job_queue"),
        (models.JobDefinition, "deregister_job_definition"),
    ):
        model.delete_from_cloudformation_json = deleted_by(verb)


def _few_policies() -> None:
    """Only the policy that machines have: an account that is emptied reads all of AWS's anew, which
    takes more than a second."""
    known = json.loads(iam.aws_managed_policies_data)
    name = "AmazonEC2ContainerServiceforEC2Role"
    iam.aws_managed_policies_data = json.dumps({name: known[name]})


def main() -> None:
    models.Job = Job  # type: ignore[misc]
    _few_policies()
    _stacks_of_batch()
    from moto.server import main as serve

    serve(["-H", "127.0.0.1", "-p", sys.argv[1]])


if __name__ == "__main__":
    main()
