"""What a queue of AWS Batch needs: made, shown, and removed again.

==========================  ======================================================================
``l2i-<queue>-instance``    role and instance profile of the machines: to join their cluster
``l2i-<queue>-execution``   role that starts a container: fetch the image, write logs, read secrets
``l2i-<queue>-job``         role of the task itself: the buckets that it may read and write
``l2i-<queue>-spot``        compute environment: Spot machines, none while there is no job
``l2i-<queue>-ondemand``    compute environment: others, where Spot has none
``<queue>``                 the queue; jobs that can never begin are ended after a while
``l2i-<queue>``             job definition: image, GPU, shared memory, init process, logs, retry
==========================  ======================================================================

All of it is tagged ``l2i = <queue>``, and only what has the tag is changed or removed. None of it
costs anything while no job runs. The log group of Batch's jobs is made where there is none, and
left: it is that of all queues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from l2i.errors import LaunchError
from l2i.launch.aws import aws_errors, client, code_of, region_of
from l2i.launch.aws_batch import LOG_GROUP, container, differences, register
from l2i.launch.job import JobSpec

__all__ = ["Setup", "Step", "policies", "setup", "submitter_policy", "teardown"]

_WAIT_S = 300.0
_AMI = "arn:{partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
_STUCK = (
    ("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", 24 * 3600),
    ("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE", 600),
    ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", 600),
)


@dataclass(frozen=True)
class Setup:
    """What is wanted.

    Attributes
    ----------
    queue : str
    region : str
        Empty: the environment's.
    spec : JobSpec
        Of which image, GPUs, vCPUs, memory, shared memory, attempts, timeout and secrets go into
        the job definition.
    buckets : tuple of str
        That tasks may read and write.
    instance_types : tuple of str
    max_vcpus : int
        Of all machines at once: the limit of what it can cost per hour.
    spot, on_demand : bool
    subnets, security_groups : tuple of str
        Empty: those of the default VPC.
    """

    queue: str
    region: str
    spec: JobSpec
    buckets: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ("g4dn.xlarge", "g5.xlarge", "g6.xlarge")
    max_vcpus: int = 64
    spot: bool = True
    on_demand: bool = True
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()


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


# --- rights -------------------------------------------------------------------------------------


def _allow(actions: list[str], resources: list[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": sorted(actions), "Resource": sorted(resources)}


def policies(wanted: Setup) -> dict[str, dict[str, Any]]:
    """The rights of the two roles that tasks have, as IAM's documents.

    Returns
    -------
    dict
        ``execution`` and ``job``.
    """
    logs = f"arn:aws:logs:*:*:log-group:{LOG_GROUP}:*"
    execution = [
        _allow(["ecr:GetAuthorizationToken"], ["*"]),
        _allow(
            [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetDownloadUrlForLayer",
            ],
            ["arn:aws:ecr:*:*:repository/*"],
        ),
        _allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [logs]),
    ]
    secrets = sorted(set(wanted.spec.secrets.values()))
    if named := [s for s in secrets if ":secretsmanager:" in s]:
        # A secret's ARN may be followed by the key in it.
        arns = [":".join(s.split(":")[:7]) for s in named]
        execution.append(_allow(["secretsmanager:GetSecretValue"], arns))
    if parameters := [s for s in secrets if ":secretsmanager:" not in s]:
        arns = [
            p if p.startswith("arn:") else f"arn:aws:ssm:*:*:parameter/{p.lstrip('/')}"
            for p in parameters
        ]
        execution.append(_allow(["ssm:GetParameters"], arns))
    job = [
        _allow(["s3:ListBucket"], [f"arn:aws:s3:::{b}" for b in wanted.buckets]),
        _allow(
            ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"],
            [f"arn:aws:s3:::{b}/*" for b in wanted.buckets],
        ),
    ]
    document = {"Version": "2012-10-17"}
    found = {"execution": {**document, "Statement": execution}}
    if wanted.buckets:
        found["job"] = {**document, "Statement": job}
    return found


def submitter_policy(queue: str) -> dict[str, dict[str, Any]]:
    """The rights of people: to submit and look on, and to set up.

    Returns
    -------
    dict
        ``submit`` and ``setup``.
    """
    look = [
        "batch:DescribeComputeEnvironments",
        "batch:DescribeJobDefinitions",
        "batch:DescribeJobQueues",
        "batch:DescribeJobs",
        "batch:ListJobs",
    ]
    own = [
        f"arn:aws:batch:*:*:job-queue/{queue}",
        f"arn:aws:batch:*:*:job-definition/l2i-{queue}*",
        "arn:aws:batch:*:*:job/*",
    ]
    roles = [f"arn:aws:iam::*:role/l2i-{queue}-*"]
    submit = [
        _allow(look, ["*"]),
        _allow(
            [
                "batch:RegisterJobDefinition",
                "batch:SubmitJob",
                "batch:TagResource",
                "batch:TerminateJob",
            ],
            own,
        ),
        _allow(["iam:PassRole"], roles),
        _allow(["logs:GetLogEvents"], [f"arn:aws:logs:*:*:log-group:{LOG_GROUP}:*"]),
        _allow(["ecr:DescribeImages"], ["arn:aws:ecr:*:*:repository/*"]),
    ]
    make = [
        _allow(
            [
                "batch:CreateComputeEnvironment",
                "batch:CreateJobQueue",
                "batch:DeleteComputeEnvironment",
                "batch:DeleteJobQueue",
                "batch:DeregisterJobDefinition",
                "batch:UpdateComputeEnvironment",
                "batch:UpdateJobQueue",
            ],
            [
                *own,
                f"arn:aws:batch:*:*:compute-environment/l2i-{queue}-*",
            ],
        ),
        _allow(
            [
                "iam:AddRoleToInstanceProfile",
                "iam:AttachRolePolicy",
                "iam:CreateInstanceProfile",
                "iam:CreateRole",
                "iam:DeleteInstanceProfile",
                "iam:DeleteRole",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
                "iam:GetInstanceProfile",
                "iam:GetRole",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListRolePolicies",
                "iam:PutRolePolicy",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagRole",
            ],
            [*roles, f"arn:aws:iam::*:instance-profile/l2i-{queue}-*"],
        ),
        _allow(["logs:DescribeLogGroups"], ["*"]),
        _allow(["logs:CreateLogGroup"], [f"arn:aws:logs:*:*:log-group:{LOG_GROUP}:*"]),
        _allow(["ec2:DescribeSecurityGroups", "ec2:DescribeSubnets", "ec2:DescribeVpcs"], ["*"]),
    ]
    document = {"Version": "2012-10-17"}
    return {
        "submit": {**document, "Statement": submit},
        "setup": {**document, "Statement": make},
    }


def _trust(service: str) -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": service},
                    "Action": "sts:AssumeRole",
                }
            ],
        }
    )


# --- making -------------------------------------------------------------------------------------


def _if_there(call: Callable[..., Any], **how: Any) -> Any:
    """What IAM answers, or None where there is no such thing."""
    try:
        return call(**how)
    except Exception as error:
        if code_of(error) in ("NoSuchEntity", "NoSuchEntityException"):
            return None
        raise


class _Account:
    """What is there of a queue, and how each part is made, changed and removed."""

    def __init__(self, queue: str, region: str) -> None:
        self.queue = queue
        self.region = region_of(region)
        self.batch = client("batch", self.region)
        self.iam = client("iam", self.region)
        self.tags = {"l2i": queue}
        self.partition = "aws-cn" if self.region.startswith("cn-") else "aws"

    def own(self, kind: str, name: str, tags: Mapping[str, str]) -> None:
        """Refuse to touch what somebody else made."""
        if tags.get("l2i") != self.queue:
            raise LaunchError(
                f"There is a {kind} {name!r} that l2i did not make (it lacks the tag l2i = "
                f"{self.queue}): take another --queue, or remove it by hand."
            )

    def role(self, part: str) -> dict[str, Any] | None:
        name = f"l2i-{self.queue}-{part}"
        with aws_errors(f"show the role {name}"):
            answer = _if_there(self.iam.get_role, RoleName=name)
        if answer is None:
            return None
        found = answer["Role"]
        self.own("role", name, {t["Key"]: t["Value"] for t in found.get("Tags", [])})
        return dict(found)

    def role_policy(self, part: str) -> dict[str, Any] | None:
        name = f"l2i-{self.queue}-{part}"
        with aws_errors(f"show the role {name}"):
            found = _if_there(self.iam.get_role_policy, RoleName=name, PolicyName="l2i")
        if found is None:
            return None
        document = found["PolicyDocument"]
        return dict(json.loads(document) if isinstance(document, str) else document)

    def environment(self, part: str) -> dict[str, Any] | None:
        name = f"l2i-{self.queue}-{part}"
        with aws_errors("show its compute environments"):
            found = self.batch.describe_compute_environments(computeEnvironments=[name])
        each = next((c for c in found["computeEnvironments"] if c["status"] != "DELETED"), None)
        if each is not None:
            self.own("compute environment", name, self._tags(each, "computeEnvironmentArn"))
        return each

    def job_queue(self) -> dict[str, Any] | None:
        with aws_errors("show its queues"):
            found = self.batch.describe_job_queues(jobQueues=[self.queue])["jobQueues"]
        each = next((q for q in found if q.get("status") != "DELETED"), None)
        if each is not None:
            self.own("queue", self.queue, self._tags(each, "jobQueueArn"))
        return each

    def definitions(self) -> list[dict[str, Any]]:
        with aws_errors("show its job definitions"):
            pages = self.batch.get_paginator("describe_job_definitions").paginate(
                jobDefinitionName=f"l2i-{self.queue}", status="ACTIVE"
            )
            found = [d for page in pages for d in page["jobDefinitions"]]
        for each in found:
            name = f"{each['jobDefinitionName']}:{each['revision']}"
            self.own("job definition", name, self._tags(each, "jobDefinitionArn"))
        return found

    def _tags(self, each: Mapping[str, Any], arn: str) -> dict[str, str]:
        if each.get("tags"):
            return dict(each["tags"])
        with aws_errors("show its tags"):
            return dict(self.batch.list_tags_for_resource(resourceArn=each[arn])["tags"])

    def wait(self, what: str, find: Callable[[], dict[str, Any] | None], gone: bool) -> None:
        """Until it is ready, or gone."""
        end = time.monotonic() + _WAIT_S
        while True:
            each = find()
            if each is None if gone else each is not None and each.get("status") == "VALID":
                return
            if each is not None and each.get("status") == "INVALID" and not gone:
                why = str(each.get("statusReason") or "AWS gives no reason").rstrip(".")
                raise LaunchError(f"The {what} is of no use: {why}.")
            if time.monotonic() > end:
                word = "gone" if gone else "ready"
                raise LaunchError(
                    f"The {what} is not {word} after {_WAIT_S:.0f} s: give the same command again."
                )
            time.sleep(1.0)


def _network(account: _Account, wanted: Setup) -> tuple[list[str], list[str]]:
    """Subnets and security groups: those named, or the default VPC's."""
    if wanted.subnets and wanted.security_groups:
        return list(wanted.subnets), list(wanted.security_groups)
    ec2 = client("ec2", account.region)
    with aws_errors("show the default VPC"):
        vpcs = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        if not vpcs:
            raise LaunchError(
                f"{account.region} has no default VPC: name --subnet and --security-group."
            )
        where = [{"Name": "vpc-id", "Values": [vpcs[0]["VpcId"]]}]
        subnets = [s["SubnetId"] for s in ec2.describe_subnets(Filters=where)["Subnets"]]
        named = [*where, {"Name": "group-name", "Values": ["default"]}]
        groups = [
            g["GroupId"] for g in ec2.describe_security_groups(Filters=named)["SecurityGroups"]
        ]
    return list(wanted.subnets) or sorted(subnets), list(wanted.security_groups) or groups


def _resources(account: _Account, wanted: Setup, part: str, profile: str) -> dict[str, Any]:
    subnets, groups = _network(account, wanted)
    kind = "ECS_AL2023_NVIDIA" if wanted.spec.gpus else "ECS_AL2023"
    spot = part == "spot"
    return {
        "type": "SPOT" if spot else "EC2",
        "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED" if spot else "BEST_FIT_PROGRESSIVE",
        "minvCpus": 0,
        "maxvCpus": wanted.max_vcpus,
        "instanceTypes": list(wanted.instance_types),
        "subnets": subnets,
        "securityGroupIds": groups,
        "instanceRole": profile,
        "ec2Configuration": [{"imageType": kind}],
        "tags": {**account.tags, "Name": f"l2i-{account.queue}-{part}"},
    }


class _Plan:
    """Steps that are said, and done where that is wanted."""

    def __init__(self, do: bool, on_step: Callable[[Step], None]) -> None:
        self.do, self._on_step = do, on_step
        self.steps: list[Step] = []

    def step(self, action: str, kind: str, name: str, why: str = "") -> bool:
        """Say it; whether it is to be done."""
        self.steps.append(Step(action, kind, name, why))
        self._on_step(self.steps[-1])
        return self.do and action != "keep"


def setup(wanted: Setup, *, do: bool, on_step: Callable[[Step], None]) -> list[Step]:
    """Make or change what is missing, in the order in which parts need each other.

    Parameters
    ----------
    wanted : Setup
    do : bool
        False: only say.
    on_step : callable
        Given each step before it is done.

    Raises
    ------
    LaunchError
        AWS refuses, or something of the name is not ours.
    """
    account, plan = _Account(wanted.queue, wanted.region), _Plan(do, on_step)
    roles = _setup_roles(account, wanted, plan)
    _setup_logs(account, plan)
    parts = [p for p, on in (("spot", wanted.spot), ("ondemand", wanted.on_demand)) if on]
    for part in parts:
        _setup_environment(account, wanted, part, roles["instance"], plan)
    _setup_queue(account, [f"l2i-{wanted.queue}-{part}" for part in parts], plan)
    _setup_definition(account, wanted, roles, plan)
    return plan.steps


def _setup_roles(account: _Account, wanted: Setup, plan: _Plan) -> dict[str, str]:
    """The three roles; the ARNs that others need, empty where they are not there yet."""
    found: dict[str, str] = {}
    rights = policies(wanted)
    for part, service, why in (
        ("instance", "ec2.amazonaws.com", "AmazonEC2ContainerServiceforEC2Role"),
        ("execution", "ecs-tasks.amazonaws.com", "fetch images, write logs, read secrets"),
        ("job", "ecs-tasks.amazonaws.com", ", ".join(f"s3://{b}" for b in wanted.buckets)),
    ):
        name = f"l2i-{wanted.queue}-{part}"
        old, policy = account.role(part), rights.get(part)
        found[part] = str(old["Arn"]) if old else ""
        if old is None:
            if plan.step("create", "role", name, why or "no --bucket: it may do nothing"):
                with aws_errors(f"make the role {name}"):
                    found[part] = account.iam.create_role(
                        RoleName=name,
                        AssumeRolePolicyDocument=_trust(service),
                        Description=f"l2i: {part} of the queue {wanted.queue}",
                        Tags=[{"Key": k, "Value": v} for k, v in account.tags.items()],
                    )["Role"]["Arn"]
                    if policy is not None:
                        _put(account, name, policy)
        elif policy is not None and account.role_policy(part) != policy:
            if plan.step("update", "role", name, "its rights"):
                _put(account, name, policy)
        else:
            plan.step("keep", "role", name)
        if part == "instance" and plan.do:
            found[part] = _profile(account, name)
    return found


def _setup_logs(account: _Account, plan: _Plan) -> None:
    """The log group of all of Batch's jobs, without which no container begins; it is not ours."""
    logs = client("logs", account.region)
    with aws_errors("show its log groups"):
        found = logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]
    if any(group["logGroupName"] == LOG_GROUP for group in found):
        return
    if plan.step("create", "log group", LOG_GROUP, "of all jobs of Batch; it stays"):
        with aws_errors(f"make the log group {LOG_GROUP}"):
            logs.create_log_group(logGroupName=LOG_GROUP)


def _put(account: _Account, name: str, policy: Mapping[str, Any]) -> None:
    with aws_errors(f"give the role {name} its rights"):
        account.iam.put_role_policy(
            RoleName=name, PolicyName="l2i", PolicyDocument=json.dumps(policy)
        )


def _profile(account: _Account, name: str) -> str:
    """The instance profile of the machines' role, with the rights that joining a cluster takes."""
    iam = account.iam
    with aws_errors(f"make the instance profile {name}"):
        iam.attach_role_policy(RoleName=name, PolicyArn=_AMI.format(partition=account.partition))
        answer = _if_there(iam.get_instance_profile, InstanceProfileName=name)
        if answer is None:
            answer = iam.create_instance_profile(
                InstanceProfileName=name,
                Tags=[{"Key": k, "Value": v} for k, v in account.tags.items()],
            )
        found = answer["InstanceProfile"]
        if not found.get("Roles"):
            iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return str(found["Arn"])


def _setup_environment(
    account: _Account, wanted: Setup, part: str, profile: str, plan: _Plan
) -> None:
    name, kind = f"l2i-{wanted.queue}-{part}", "compute environment"

    def find() -> dict[str, Any] | None:
        return account.environment(part)

    old = find()
    if old is None:
        limits = f"0 to {wanted.max_vcpus} vCPUs of {', '.join(wanted.instance_types)}"
        if plan.step("create", kind, name, limits):
            _create_environment(account, name, _resources(account, wanted, part, profile))
            account.wait(f"{kind} {name}", find, False)
        return
    has = old["computeResources"]
    changes: dict[str, Any] = {}
    if has.get("maxvCpus") != wanted.max_vcpus:
        changes["maxvCpus"] = wanted.max_vcpus
    if sorted(has.get("instanceTypes", [])) != sorted(wanted.instance_types):
        changes["instanceTypes"] = list(wanted.instance_types)
    why = ", ".join([*changes, *(["state"] if old.get("state") == "DISABLED" else [])])
    if plan.step("update" if why else "keep", kind, name, why):
        how = {"computeResources": changes} if changes else {}
        with aws_errors(f"change the compute environment {name}"):
            account.batch.update_compute_environment(
                computeEnvironment=name, state="ENABLED", **how
            )
        account.wait(f"{kind} {name}", find, False)


def _create_environment(account: _Account, name: str, resources: Mapping[str, Any]) -> None:
    # A new role takes a while to be known everywhere.
    end = time.monotonic() + 60
    while True:
        try:
            with aws_errors(f"make the compute environment {name}"):
                account.batch.create_compute_environment(
                    computeEnvironmentName=name,
                    type="MANAGED",
                    state="ENABLED",
                    computeResources=dict(resources),
                    tags=account.tags,
                )
            return
        except LaunchError as error:
            if "instance profile" not in str(error).lower() or time.monotonic() > end:
                raise
            time.sleep(5)


def _setup_queue(account: _Account, environments: list[str], plan: _Plan) -> None:
    old = account.job_queue()
    limits = [
        {"reason": reason, "state": "RUNNABLE", "maxTimeSeconds": seconds, "action": "CANCEL"}
        for reason, seconds in _STUCK
    ]

    def order() -> list[dict[str, Any]]:
        found = [
            account.environment(name.removeprefix(f"l2i-{account.queue}-")) for name in environments
        ]
        arns = [each["computeEnvironmentArn"] for each in found if each is not None]
        return [{"order": n, "computeEnvironment": arn} for n, arn in enumerate(arns, start=1)]

    if old is None:
        if plan.step("create", "queue", account.queue, ", then ".join(environments)):
            with aws_errors(f"make the queue {account.queue}"):
                account.batch.create_job_queue(
                    jobQueueName=account.queue,
                    state="ENABLED",
                    priority=1,
                    computeEnvironmentOrder=order(),
                    jobStateTimeLimitActions=limits,
                    tags=account.tags,
                )
            account.wait(f"queue {account.queue}", account.job_queue, False)
        return
    ordered = sorted(old["computeEnvironmentOrder"], key=lambda c: int(c["order"]))
    has = [str(c["computeEnvironment"]).rpartition("/")[2] for c in ordered]
    why = ", ".join(
        (["compute environments"] if has != environments else [])
        + (["state"] if old.get("state") == "DISABLED" else [])
    )
    if plan.step("update" if why else "keep", "queue", account.queue, why):
        with aws_errors(f"change the queue {account.queue}"):
            account.batch.update_job_queue(
                jobQueue=account.queue,
                state="ENABLED",
                priority=1,
                computeEnvironmentOrder=order(),
                jobStateTimeLimitActions=limits,
            )
        account.wait(f"queue {account.queue}", account.job_queue, False)


def _setup_definition(
    account: _Account, wanted: Setup, roles: Mapping[str, str], plan: _Plan
) -> None:
    name = f"l2i-{wanted.queue}"
    if not wanted.spec.image:
        plan.step("keep", "job definition", name, "no --image: 'l2i submit --image' makes one")
        return
    box = container(
        wanted.spec, {"jobRoleArn": roles["job"], "executionRoleArn": roles["execution"]}
    )
    newest = max(account.definitions(), key=lambda d: int(d["revision"]), default=None)
    has = newest["containerProperties"] if newest else {}
    keys = ("image", "secrets", "linuxParameters", "jobRoleArn", "resourceRequirements")
    different = differences(has, box, keys)
    action = "create" if newest is None else "update" if different else "keep"
    why = wanted.spec.image if newest is None else ", ".join(different)
    if plan.step(action, "job definition", name, why):
        with aws_errors(f"register the job definition {name}"):
            register(account.batch, name, wanted.queue, wanted.spec, box)


# --- removing -----------------------------------------------------------------------------------


def teardown(queue: str, region: str, *, do: bool, on_step: Callable[[Step], None]) -> list[Step]:
    """Remove what `setup` made, and nothing else.

    Parameters
    ----------
    queue, region : str
    do : bool
        False: only say.
    on_step : callable
        Given each step before it is done.

    Raises
    ------
    LaunchError
        AWS refuses, something of the name is not ours, or a job is not over.
    """
    account, plan = _Account(queue, region), _Plan(do, on_step)
    batch, prefix = account.batch, f"l2i-{queue}"
    if account.job_queue() is not None:
        _nothing_runs(account)
        if plan.step("remove", "queue", queue):
            with aws_errors(f"remove the queue {queue}"):
                batch.update_job_queue(jobQueue=queue, state="DISABLED")
                account.wait(f"queue {queue}", account.job_queue, False)
                batch.delete_job_queue(jobQueue=queue)
            account.wait(f"queue {queue}", account.job_queue, True)
    for part in ("spot", "ondemand"):
        name = f"{prefix}-{part}"

        def find(part: str = part) -> dict[str, Any] | None:
            return account.environment(part)

        if find() is not None and plan.step("remove", "compute environment", name):
            with aws_errors(f"remove the compute environment {name}"):
                batch.update_compute_environment(computeEnvironment=name, state="DISABLED")
                account.wait(f"compute environment {name}", find, False)
                batch.delete_compute_environment(computeEnvironment=name)
            account.wait(f"compute environment {name}", find, True)
    for each in account.definitions():
        name = f"{each['jobDefinitionName']}:{each['revision']}"
        if plan.step("remove", "job definition", name):
            with aws_errors(f"remove the job definition {name}"):
                batch.deregister_job_definition(jobDefinition=each["jobDefinitionArn"])
    for part in ("instance", "execution", "job"):
        if account.role(part) is not None and plan.step("remove", "role", f"{prefix}-{part}"):
            _remove_role(account, f"{prefix}-{part}")
    return plan.steps


def _nothing_runs(account: _Account) -> None:
    for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"):
        with aws_errors("list its jobs"):
            found = account.batch.list_jobs(jobQueue=account.queue, jobStatus=status)
        if jobs := found["jobSummaryList"]:
            raise LaunchError(
                f"The queue {account.queue!r} has a job that is not over ({jobs[0]['jobName']}, "
                f"{status}): 'l2i cancel' it first."
            )


def _remove_role(account: _Account, name: str) -> None:
    iam = account.iam
    with aws_errors(f"remove the role {name}"):
        _if_there(iam.remove_role_from_instance_profile, InstanceProfileName=name, RoleName=name)
        _if_there(iam.delete_instance_profile, InstanceProfileName=name)
        for each in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=each["PolicyArn"])
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        iam.delete_role(RoleName=name)
