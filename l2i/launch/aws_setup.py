"""What a queue of AWS Batch needs: one stack of CloudFormation, shown, made, and removed again.

==========================  ======================================================================
``l2i-<queue>-instance``    role and instance profile of the machines: to join their cluster
``l2i-<queue>-execution``   role that starts a container: fetch the image, write logs, read secrets
``l2i-<queue>-job``         role of the task itself: the buckets that it may read and write
``l2i-<queue>-spot``        compute environment: Spot machines, none while there is no job
``l2i-<queue>-ondemand``    compute environment: others, where Spot has none
``<queue>``                 the queue; jobs that can never begin are ended after a while
``l2i-<queue>``             job definition: image, GPU, shared memory, init process, logs, retry
==========================  ======================================================================

The stack ``l2i-<queue>`` has the tag ``l2i = <queue>``, which its parts inherit; a stack without it
is left alone. None of it costs anything while no job runs. Outside the stack are the log group of
Batch's jobs, which all queues share (it is made where there is none, and stays), and the revisions
of the job definition that `l2i submit` registers, which `teardown` removes too.

Over 300 lines: one stack, from its template to its end.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from l2i.errors import LaunchError
from l2i.launch.aws import LOG_GROUP, aws_errors, client, listed, region_of
from l2i.launch.aws_template import Setup, policies, stack_name, submitter_policy, template

__all__ = ["Setup", "Step", "policies", "setup", "submitter_policy", "teardown", "template"]

_ACTIONS = {"Add": "create", "Modify": "update", "Remove": "remove"}


@dataclass(frozen=True)
class Step:
    """One thing that is made, changed, removed, or right as it is.

    Attributes
    ----------
    action : {'create', 'update', 'keep', 'remove'}
    kind, name : str
    why : str
    """

    action: str
    kind: str
    name: str
    why: str = ""


def _network(region: str, wanted: Setup) -> tuple[list[str], list[str]]:
    """Subnets and security groups: those named, or the default VPC's."""
    if wanted.subnets and wanted.groups:
        return list(wanted.subnets), list(wanted.groups)
    ec2 = client("ec2", region)
    with aws_errors("show the default VPC"):
        vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not vpcs:
            raise LaunchError(f"{region} has no default VPC: name --subnet and --security-group.")
        where = [{"Name": "vpc-id", "Values": [vpcs[0]["VpcId"]]}]
        subnets = ec2.describe_subnets(Filters=where)["Subnets"]
        where.append({"Name": "group-name", "Values": ["default"]})
        groups = ec2.describe_security_groups(Filters=where)["SecurityGroups"]
    return (
        list(wanted.subnets) or sorted(each["SubnetId"] for each in subnets),
        list(wanted.groups) or [each["GroupId"] for each in groups],
    )


# --- the stack ----------------------------------------------------------------------------------


class _Stack:
    """The stack of a queue: its parts, what would change in it, and the change itself."""

    def __init__(self, queue: str, region: str) -> None:
        self.queue, self.region, self.id = queue, region_of(region), stack_name(queue)
        self.cloud, self.batch = (client(s, self.region) for s in ("cloudformation", "batch"))
        # By it the events of an operation are told from those of others.
        self.token = f"l2i-{uuid.uuid4().hex}"
        self.change_set = ""
        there = self._describe()
        # A stack of which there is nothing but a plan has that state.
        self.state = there.get("StackStatus", "REVIEW_IN_PROGRESS")
        self.made = self.state != "REVIEW_IN_PROGRESS"
        with aws_errors("show its queues"):
            queues = self.batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
        self.has_queue = any(each.get("status") != "DELETED" for each in queues)
        if self.made and {"Key": "l2i", "Value": queue} not in there.get("Tags", []):
            raise LaunchError(
                f"There is a stack {self.id!r} that l2i did not make (it lacks the tag l2i = "
                f"{queue}): take another --queue, or remove it by hand."
            )
        if self.has_queue and not self.made:
            raise LaunchError(
                f"The queue {queue!r} is no part of a stack {self.id!r}: take another --queue, or "
                "remove it by hand, or, if an earlier version of l2i made it, with that version's "
                "'l2i batch teardown'."
            )

    def _describe(self) -> dict[str, Any]:
        try:
            with aws_errors("show its stacks"):
                return dict(self.cloud.describe_stacks(StackName=self.id)["Stacks"][0])
        except LaunchError as error:
            if "does not exist" in str(error.__cause__):
                return {}
            raise

    def resources(self) -> dict[str, Any]:
        """The resources of its template as it is; empty: there is no stack."""
        if not self.made:
            return {}
        with aws_errors(f"show the stack {self.id}"):
            return dict(self.cloud.get_template(StackName=self.id)["TemplateBody"]["Resources"])

    def revisions(self) -> list[str]:
        """The ARNs of the revisions of its job definition that are in use."""
        with aws_errors("show its job definitions"):
            how = {"jobDefinitionName": f"l2i-{self.queue}", "status": "ACTIVE"}
            definitions = listed(self.batch, "describe_job_definitions", "jobDefinitions", **how)
        return [
            d["jobDefinitionArn"] for d in definitions if d.get("tags", {}).get("l2i") == self.queue
        ]

    def nothing_runs(self) -> None:
        """Refuse while a job is not over."""
        states = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
        for state in states if self.has_queue else ():
            with aws_errors("list its jobs"):
                jobs = self.batch.list_jobs(jobQueue=self.queue, jobStatus=state)["jobSummaryList"]
            if jobs:
                raise LaunchError(
                    f"The queue {self.queue!r} has a job that is not over ({jobs[0]['jobName']}, "
                    f"{state}): 'l2i cancel' it first."
                )

    def _wait(self, waiter: str, **which: str) -> None:
        """Until it is over, well or not: its state says so afterwards."""
        from botocore.exceptions import WaiterError

        with suppress(WaiterError):
            every = {"Delay": 5, "MaxAttempts": 360}
            self.cloud.get_waiter(waiter).wait(**which, WaiterConfig=every)

    def plan(self, new: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """What a template would change, by logical name; nothing is done until `apply`."""
        if self.state == "ROLLBACK_COMPLETE" or self.state.endswith("_FAILED"):
            raise LaunchError(
                f"The stack {self.id} is {self.state}, and cannot be changed: remove it with "
                f"'l2i batch teardown --queue {self.queue} --yes', and set it up again."
            )
        with aws_errors("plan the changes"):
            made = self.cloud.create_change_set(
                StackName=self.id,
                ChangeSetName=self.token,
                ChangeSetType="UPDATE" if self.made else "CREATE",
                TemplateBody=json.dumps(new),
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Tags=[{"Key": "l2i", "Value": self.queue}],
                **({} if self.made else {"OnStackFailure": "DELETE"}),
            )
            self.change_set, self.id = made["Id"], made["StackId"]
            self._wait("change_set_create_complete", ChangeSetName=self.change_set)
            plan = self.cloud.describe_change_set(ChangeSetName=self.change_set)
        why = plan.get("StatusReason", "")
        if "didn't contain changes" in why or "No updates are to be performed" in why:
            return {}
        if plan["Status"] != "CREATE_COMPLETE":
            raise LaunchError(f"AWS did not plan the changes: {why.rstrip('.') or plan['Status']}.")
        changes = [each["ResourceChange"] for each in plan["Changes"]]
        return {each["LogicalResourceId"]: each for each in changes}

    def apply(self) -> None:
        """Do what was planned, and wait for it."""
        with aws_errors(f"change the stack {self.id}"):
            self.cloud.execute_change_set(
                ChangeSetName=self.change_set, ClientRequestToken=self.token
            )
        self.change_set = ""  # CloudFormation deletes what it has executed.
        self._end("UPDATE" if self.made else "CREATE")

    def forget(self) -> None:
        """Delete a plan that was not executed, and the stack that there is for it alone."""
        if self.change_set:
            with aws_errors("delete the plan"):
                self.cloud.delete_change_set(ChangeSetName=self.change_set)
                if not self.made:
                    self.cloud.delete_stack(StackName=self.id)

    def delete(self) -> None:
        """Delete the stack with all its parts, and wait for it."""
        with aws_errors(f"remove the stack {self.id}"):
            self.cloud.delete_stack(StackName=self.id, ClientRequestToken=self.token)
        self._end("DELETE")

    def _end(self, what: str) -> None:
        """Wait for an operation; where it fails, tell what failed first, and why."""
        with aws_errors(f"show the stack {self.id}"):
            self._wait(f"stack_{what.lower()}_complete", StackName=self.id)
            state = self._describe().get("StackStatus", "DELETE_COMPLETE")
            if state == f"{what}_COMPLETE":
                return
            events = listed(self.cloud, "describe_stack_events", "StackEvents", StackName=self.id)
        own = [event for event in events if event.get("ClientRequestToken") == self.token]
        why = "none of its parts failed so far"
        # The newest comes first, and what failed after another part was only cancelled.
        if failed := [e for e in own if e["ResourceStatus"].endswith("_FAILED")]:
            kind, name = _kind(failed[-1]["ResourceType"]), failed[-1]["LogicalResourceId"]
            reason = failed[-1].get("ResourceStatusReason", "no reason given").rstrip(".")
            why = f"the {kind} {name} failed ({reason})"
        raise LaunchError(
            f"AWS could not {what.lower()} the stack {stack_name(self.queue)}, which is {state} "
            f"now: {why}. Mend that, and give the same command again."
        )


# --- the commands -------------------------------------------------------------------------------


def _kind(resource_type: str) -> str:
    """What a type of resource is called, as in "job definition".

    >>> _kind("AWS::Batch::JobDefinition"), _kind("AWS::Batch::JobQueue")
    ('job definition', 'queue')
    """
    words = re.findall("[A-Z][a-z]+", resource_type.rpartition("::")[2])
    return " ".join(words).lower().replace("job queue", "queue")


def _step(part: Mapping[str, Any], change: Mapping[str, Any]) -> Step:
    """What happens to a resource of the template."""
    action = _ACTIONS.get(change.get("Action", ""), "keep")
    name = part["Properties"][part["Type"].rpartition("::")[2] + "Name"]
    details = [each.get("Target", {}).get("Name", "") for each in change.get("Details", [])]
    why = {"create": part["Metadata"]["l2i"], "update": ", ".join(sorted({*details} - {""}))}
    return Step(action, _kind(part["Type"]), name, why.get(action, ""))


def setup(wanted: Setup, *, do: bool) -> Iterator[Step]:
    """Make the stack, or change in it what differs.

    Parameters
    ----------
    wanted : Setup
        Without an image the job definition stays as it is.
    do : bool
        False: only say.

    Yields
    ------
    Step
        All of them, before any is done.

    Raises
    ------
    LaunchError
        AWS refuses, a part cannot be made, or something of the name is not ours.
    """
    stack = _Stack(wanted.queue, wanted.region)
    new, old = template(wanted, *_network(stack.region, wanted)), stack.resources()
    parts = new["Resources"]
    if not wanted.image and "JobDefinition" in old:
        parts["JobDefinition"] = old["JobDefinition"]
    logs = client("logs", stack.region)
    with aws_errors("show its log groups"):
        groups = logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]
    steps = []
    if LOG_GROUP not in [group["logGroupName"] for group in groups]:
        steps.append(Step("create", "log group", LOG_GROUP, "of all jobs of Batch; it stays"))
    no_logs = bool(steps)
    try:
        changes = stack.plan(new)
        steps += [_step(p, changes.get(key, {})) for key, p in {**parts, **old, **parts}.items()]
        if "JobDefinition" not in parts:
            why = "no --image: 'l2i submit --image' makes one"
            steps.append(Step("keep", "job definition", f"l2i-{wanted.queue}", why))
        yield from steps
        if do and no_logs:
            with aws_errors(f"make the log group {LOG_GROUP}"):
                logs.create_log_group(logGroupName=LOG_GROUP)
        if do and changes:
            stack.apply()
    finally:
        stack.forget()


def teardown(queue: str, region: str, *, do: bool) -> Iterator[Step]:
    """Remove what `setup` made and what `l2i submit` registered for it, and nothing else.

    Parameters
    ----------
    queue, region : str
    do : bool
        False: only say.

    Yields
    ------
    Step
        All of them, before any is done.

    Raises
    ------
    LaunchError
        AWS refuses, something of the name is not ours, or a job is not over.
    """
    stack = _Stack(queue, region)
    stack.nothing_runs()
    gone = {"Action": "Remove"}
    steps = [_step(part, gone) for part in reversed(stack.resources().values())]
    definition = Step("remove", "job definition", f"l2i-{queue}")
    if definition not in steps and stack.revisions():
        steps.insert(0, definition)
    yield from steps
    if do and stack.made:
        stack.delete()
    for arn in stack.revisions() if do else ():
        with aws_errors(f"remove the job definition {arn.rpartition('/')[2]}"):
            stack.batch.deregister_job_definition(jobDefinition=arn)
