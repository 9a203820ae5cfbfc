"""Tasks as an array job of AWS Batch.

Batch schedules, queues and retries: of a job definition's revision it takes image, secrets and
shared memory, and of the submission all else. A revision that fits is used again, another one
registered. Retried is a task whose machine was taken away (Spot), or that says so by its exit
code; nothing else is (`RETRY`). A job is found again by its name, so that submitting it twice,
from any machine, is submitting it once.

Over 300 lines: one engine, a class with a method for each verb.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from l2i.errors import LaunchError
from l2i.launch.aws import (
    CANCELLED,
    LOG_GROUP,
    RETRY,
    attempt_states,
    aws_errors,
    client,
    container,
    differences,
    listed,
    rebuilt,
    region_of,
)
from l2i.launch.job import Check, Job, JobState, State, keep_job
from l2i.launch.spec import JobSpec

MAX_TASKS = 10_000
_POLL_S = 3.0
_TAG = "l2i:job"


class AwsBatch:
    """A queue of AWS Batch.

    Parameters
    ----------
    root : Path
        The store's local folder, where jobs are written down.
    place : mapping
        ``queue``; ``region``, by default the environment's; ``definition``: the job definition
        that roles are taken from, by default that of ``l2i batch setup`` for this queue.
    """

    name = "aws-batch"

    def __init__(self, root: Path, place: Mapping[str, str]) -> None:
        self._root = root
        self._queue = place.get("queue", "")
        self._region = region_of(place.get("region", ""))
        self._place = {"queue": self._queue, "region": self._region}
        self._definition = place.get("definition", "") or f"l2i-{self._queue}"
        self._batch = client("batch", self._region)

    # --- before -----------------------------------------------------------------------------

    def _limits(self, spec: JobSpec) -> None:
        """What Batch would refuse, said before it does."""
        if len(spec.tasks) > MAX_TASKS:
            raise LaunchError(
                f"The job has {len(spec.tasks)} tasks, and an array of AWS Batch at most "
                f"{MAX_TASKS}: split the file."
            )

    def _revisions(self) -> list[dict[str, Any]]:
        """All of the job definition that is set up for the queue, the newest first."""
        how = {"jobDefinitionName": self._definition, "status": "ACTIVE"}
        with aws_errors("show its job definitions"):
            every = listed(self._batch, "describe_job_definitions", "jobDefinitions", **how)
        return sorted(every, key=lambda d: -int(d["revision"]))

    def _jobs(self, name: str) -> list[dict[str, Any]]:
        """The queue's jobs of a name, or of all (``*``); not the tasks of arrays."""
        filters = [{"name": "JOB_NAME", "values": [name]}]
        with aws_errors("list its jobs"):
            jobs = listed(
                self._batch, "list_jobs", "jobSummaryList", jobQueue=self._queue, filters=filters
            )
        return [job for job in jobs if ":" not in job["jobId"]]

    def _environments(self, queue: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What Batch says of a queue's compute environments."""
        names = [c["computeEnvironment"] for c in queue["computeEnvironmentOrder"]]
        with aws_errors("show its compute environments"):
            told = self._batch.describe_compute_environments(computeEnvironments=names)
        return list(told["computeEnvironments"])

    def _check_queue(self) -> list[Check]:
        if not self._queue:
            raise LaunchError("--on aws-batch needs --queue NAME; 'l2i batch setup' makes one.")
        with aws_errors("show its queues"):
            queues = self._batch.describe_job_queues(jobQueues=[self._queue])["jobQueues"]
            if not queues:
                every = listed(self._batch, "describe_job_queues", "jobQueues")
                names = sorted(each["jobQueueName"] for each in every)
                there = f"There are: {', '.join(names[:8])}. " if names else "There is none. "
                raise LaunchError(
                    f"AWS Batch in {self._region} has no queue {self._queue!r}. {there}"
                    f"'l2i batch setup --queue {self._queue}' makes it."
                )
        queue = queues[0]
        checks = []
        if queue.get("state") == "DISABLED" or queue.get("status") == "INVALID":
            why = queue.get("statusReason", "") or "it is disabled"
            raise LaunchError(f"The queue {self._queue!r} takes no jobs: {why.rstrip('.')}.")
        checks.append(Check(f"Queue {self._queue} in {self._region} takes jobs."))
        for each in self._environments(queue):
            ok = each.get("status") in ("VALID", "UPDATING") and each.get("state") != "DISABLED"
            word = "is ready" if ok else f"is not ready: {each.get('statusReason') or 'disabled'}"
            checks.append(
                Check(f"Compute environment {each['computeEnvironmentName']} {word}.", ok)
            )
        return checks

    def check(self, spec: JobSpec) -> list[Check]:
        """Limits, queue, compute environments and image."""
        self._limits(spec)
        return [*self._check_queue(), Check(f"Image {self._image(spec, self._revisions())}.")]

    def _image(self, spec: JobSpec, revisions: list[dict[str, Any]]) -> str:
        """The description's, or else the newest revision's; of ECR under its tag, by its digest."""
        image = spec.image or (revisions[0]["containerProperties"]["image"] if revisions else "")
        if not image:
            raise LaunchError(
                f"There is no image: give --image NAME@sha256:..., or set the queue up with one "
                f"('l2i batch setup --queue {self._queue} --image ...')."
            )
        if re.search(r"sha256:[0-9a-f]{64}$", image):
            return image
        match = re.fullmatch(
            r"(?P<account>\d+)\.dkr\.ecr\.(?P<region>[\w-]+)\.amazonaws\.com(?:\.cn)?/"
            r"(?P<name>[^:@]+)(?::(?P<tag>[\w.-]+))?",
            image,
        )
        if match is None:
            raise LaunchError(
                f"The image {image!r} is named by a tag, which may mean another image tomorrow: "
                "give it by its digest, NAME@sha256:... ('docker image inspect' shows it)."
            )
        with aws_errors(f"find the image {image}"):
            images = client("ecr", match["region"]).describe_images(
                registryId=match["account"],
                repositoryName=match["name"],
                imageIds=[{"imageTag": match["tag"] or "latest"}],
            )["imageDetails"]
        name = image.removesuffix(f":{match['tag']}") if match["tag"] else image
        return f"{name}@{images[0]['imageDigest']}"

    # --- the five verbs ---------------------------------------------------------------------

    def submit(self, spec: JobSpec) -> Job:
        """Submit it, unless the queue has it already."""
        self._limits(spec)
        self._check_queue()
        revisions = self._revisions()
        resolved = spec.model_copy(update={"image": self._image(spec, revisions)})
        # Under the name that the description as given has: what a default stands for now is no
        # reason to do it all again.
        own = [job for job in self._jobs(spec.id) if job["jobName"] == spec.id]
        # Batch forgets after a week or more.
        known = max(own, key=lambda j: int(j.get("createdAt", 0)), default=None)
        native = str(known["jobId"]) if known else ""
        if not known:
            definition = self._register(resolved, revisions)
            variables = spec.variables(self.name) | {"L2I_IMAGE_DIGEST": resolved.image}
            how: dict[str, Any] = {
                "jobName": spec.id,
                "jobQueue": self._queue,
                "jobDefinition": definition,
                "containerOverrides": {
                    "command": list(spec.command),
                    "environment": [{"name": k, "value": v} for k, v in variables.items()],
                    "resourceRequirements": container(resolved, {})["resourceRequirements"],
                },
                "retryStrategy": {"attempts": spec.attempts, "evaluateOnExit": RETRY},
                "timeout": {"attemptDurationSeconds": spec.timeout_s},
                "tags": {_TAG: spec.id, "l2i:sweep": spec.sweep or spec.tasks[0].key},
                "propagateTags": True,
            }
            if len(spec.tasks) > 1:
                how["arrayProperties"] = {"size": len(spec.tasks)}
            with aws_errors("take the job"):
                native = str(self._batch.submit_job(**how)["jobId"])
        job = Job(spec.id, self.name, spec, native, self._place, new=not known)
        keep_job(self._root, job)
        return job

    def _register(self, spec: JobSpec, revisions: list[dict[str, Any]]) -> str:
        """A revision of the job definition that fits."""
        base = revisions[0]["containerProperties"] if revisions else {}
        roles = {key: base.get(key, "") for key in ("jobRoleArn", "executionRoleArn")}
        wanted = container(spec, roles)
        keys = ("image", "secrets", "linuxParameters", "jobRoleArn", "executionRoleArn")
        for old in revisions:
            if not differences(old["containerProperties"], wanted, keys):
                return str(old["jobDefinitionArn"])
        with aws_errors("register the job definition"):
            made = self._batch.register_job_definition(
                jobDefinitionName=self._definition,
                type="container",
                containerProperties=wanted,
                retryStrategy={"attempts": spec.attempts, "evaluateOnExit": RETRY},
                timeout={"attemptDurationSeconds": spec.timeout_s},
                propagateTags=True,
                platformCapabilities=["EC2"],
                tags={"l2i": self._queue},
            )
        return str(made["jobDefinitionArn"])

    def _described(self, job: Job) -> list[dict[str, Any]]:
        """What Batch says of each task, in order."""
        n = len(job.spec.tasks)
        ids = [job.native] if n == 1 else [f"{job.native}:{i}" for i in range(n)]
        described = {each["jobId"]: each for each in self._all_described(ids)}
        if n > 1 and len(described) < n:
            # Batch makes the children of an array a while after the array.
            for each in self._all_described([job.native]):
                described = dict.fromkeys(ids, each) | described
        return [described.get(i, {}) for i in ids]

    def _all_described(self, ids: list[str]) -> list[dict[str, Any]]:
        """What Batch says of all these jobs that it knows; it takes a hundred at a time."""
        with aws_errors("show its jobs"):
            every = [ids[start : start + 100] for start in range(0, len(ids), 100)]
            return [job for some in every for job in self._batch.describe_jobs(jobs=some)["jobs"]]

    def status(self, job: Job) -> JobState:
        """As Batch says; why tasks wait, from the queue where the job itself does not say."""
        states = [attempt_states(n, each) for n, each in enumerate(self._described(job))]
        if any(s.state is State.WAITING and not s.why for s in states):
            why = self._why(job)
            states = [
                replace(s, why=why) if s.state is State.WAITING and not s.why else s for s in states
            ]
        return JobState(tuple(states))

    def _why(self, job: Job) -> str:
        """Why nothing of the job begins, as far as its queue knows."""
        with aws_errors("show its queues"):
            queues = self._batch.describe_job_queues(jobQueues=[job.place["queue"]])["jobQueues"]
        if not queues:
            return f"the queue {job.place['queue']} is gone"
        for each in self._environments(queues[0]):
            if each.get("status") == "INVALID" or each.get("state") == "DISABLED":
                why = (each.get("statusReason") or "disabled").rstrip(".")
                return f"compute environment {each['computeEnvironmentName']}: {why}"
        return "no machine is free yet"

    def logs(self, job: Job, index: int, *, follow: bool = False) -> Iterator[str]:
        """From CloudWatch, attempt by attempt."""
        logs = client("logs", job.place["region"])
        tokens: dict[str, str] = {}
        while True:
            described = self._described(job)[index]
            streams = [
                a.get("container", {}).get("logStreamName")
                for a in (described.get("attempts") or [])
            ]
            streams.append(described.get("container", {}).get("logStreamName"))
            for stream in dict.fromkeys(s for s in streams if s):
                yield from self._events(logs, stream, tokens)
            if not follow or attempt_states(index, described).state.over:
                return
            time.sleep(_POLL_S)

    def _events(self, logs: Any, stream: str, tokens: dict[str, str]) -> Iterator[str]:
        while True:
            how = {"nextToken": tokens[stream]} if stream in tokens else {}
            try:
                with aws_errors("show its logs"):
                    page = logs.get_log_events(
                        logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **how
                    )
            except LaunchError as error:
                if "ResourceNotFound" in str(error.__cause__):
                    return  # It has a name, and nothing was said yet.
                raise
            yield from (str(event["message"]) for event in page["events"])
            token = page["nextForwardToken"]
            if token == tokens.get(stream) or not page["events"]:
                tokens[stream] = token
                return
            tokens[stream] = token

    def cancel(self, job: Job) -> None:
        """Terminate it; Batch tries no task again that was terminated."""
        if self.status(job).over:
            return
        with aws_errors("end the job"):
            self._batch.terminate_job(jobId=job.native, reason=CANCELLED)

    # --- from another machine ---------------------------------------------------------------

    def attach(self) -> list[Job]:
        """Write down jobs of the queue that were submitted elsewhere; the newest first.

        Their descriptions are put together from what Batch and the payload say.
        """
        self._check_queue()
        described = self._all_described([job["jobId"] for job in self._jobs("*")])
        return [
            Job(each["jobName"], self.name, spec, each["jobId"], self._place)
            for each in sorted(described, key=lambda j: -int(j.get("createdAt", 0)))
            if (spec := rebuilt(each)) is not None
        ]
