"""What a queue of AWS Batch needs, as documents: a template of CloudFormation, policies of IAM."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from l2i.launch.aws import LOG_GROUP, RETRY, container
from l2i.launch.spec import JobSpec, Task

_JOIN = "arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
_MACHINES = {
    "spot": {"Type": "SPOT", "AllocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED"},
    "ondemand": {"Type": "EC2", "AllocationStrategy": "BEST_FIT_PROGRESSIVE"},
}
_STUCK = {
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY": 24 * 3600,
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE": 600,
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT": 600,
}


@dataclass(frozen=True)
class Setup:
    """What is wanted.

    Attributes
    ----------
    queue, region, image : str
        An empty region is the environment's; without an image there is no job definition.
    buckets : tuple of str
        That tasks may read and write.
    secrets : dict
        Variables of a task, each with the ARN or name of its secret.
    instance_types : tuple of str
    max_vcpus : int
        The sum over all machines: the limit of what it can cost per hour.
    gpus, vcpus, memory_mib, shared_memory_mib : int
        Per task.
    spot, on_demand : bool
        Which machines, at least one of them.
    subnets, groups : tuple of str
        Subnets and security groups of the machines; empty: those of the default VPC.
    """

    queue: str
    region: str
    image: str
    buckets: tuple[str, ...]
    secrets: dict[str, str]
    instance_types: tuple[str, ...]
    max_vcpus: int
    gpus: int
    vcpus: int
    memory_mib: int
    shared_memory_mib: int
    spot: bool
    on_demand: bool
    subnets: tuple[str, ...]
    groups: tuple[str, ...]


def _allow(service: str, actions: str, *resources: str) -> dict[str, Any]:
    words = [f"{service}:{action}" for action in actions.split()]
    return {"Effect": "Allow", "Action": words, "Resource": sorted(resources)}


def _document(*statements: dict[str, Any]) -> dict[str, Any]:
    """A policy of the statements that name a resource."""
    return {"Version": "2012-10-17", "Statement": [s for s in statements if s["Resource"]]}


def policies(buckets: Collection[str], secrets: Collection[str]) -> dict[str, dict[str, Any]]:
    """The rights of the two roles that tasks have, as IAM's documents.

    Parameters
    ----------
    buckets : collection of str
    secrets : collection of str
        ARNs in Secrets Manager; ARNs or names in the Parameter Store.

    Returns
    -------
    dict
        ``execution``, and with a bucket ``job``.
    """
    # A secret's ARN may be followed by the key in it.
    named = {":".join(s.split(":")[:7]) for s in secrets if ":secretsmanager:" in s}
    parameters = {
        s if s.startswith("arn:") else f"arn:aws:ssm:*:*:parameter/{s.lstrip('/')}"
        for s in secrets
        if ":secretsmanager:" not in s
    }
    pull = "BatchCheckLayerAvailability BatchGetImage GetDownloadUrlForLayer"
    logs = f"arn:aws:logs:*:*:log-group:{LOG_GROUP}:*"
    objects = "AbortMultipartUpload DeleteObject GetObject PutObject"
    execution = _document(
        _allow("ecr", "GetAuthorizationToken", "*"),
        _allow("ecr", pull, "arn:aws:ecr:*:*:repository/*"),
        _allow("logs", "CreateLogGroup CreateLogStream PutLogEvents", logs),
        _allow("secretsmanager", "GetSecretValue", *named),
        _allow("ssm", "GetParameters", *parameters),
    )
    job = _document(
        _allow("s3", "ListBucket", *(f"arn:aws:s3:::{b}" for b in buckets)),
        _allow("s3", objects, *(f"arn:aws:s3:::{b}/*" for b in buckets)),
    )
    return {"execution": execution, **({"job": job} if buckets else {})}


def submitter_policy(queue: str) -> dict[str, dict[str, Any]]:
    """The rights of people: to submit and look on, and to set up.

    CloudFormation makes the parts of the stack with the rights of its caller.

    Returns
    -------
    dict
        ``submit``, and ``setup``, which is needed besides.
    """
    definitions = f"arn:aws:batch:*:*:job-definition/l2i-{queue}*"
    own = [f"arn:aws:batch:*:*:job-queue/{queue}", definitions]
    environments = f"arn:aws:batch:*:*:compute-environment/l2i-{queue}-*"
    roles = f"arn:aws:iam::*:role/l2i-{queue}-*"
    logs = f"arn:aws:logs:*:*:log-group:{LOG_GROUP}:*"
    describe = (
        "DescribeComputeEnvironments DescribeJobDefinitions DescribeJobQueues DescribeJobs ListJobs"
    )
    submit = "RegisterJobDefinition SubmitJob TagResource TerminateJob"
    stack = """CreateChangeSet DeleteChangeSet DeleteStack DescribeChangeSet DescribeStackEvents
        DescribeStacks ExecuteChangeSet GetTemplate TagResource"""
    make = """CreateComputeEnvironment CreateJobQueue DeleteComputeEnvironment DeleteJobQueue
        DeregisterJobDefinition TagResource UntagResource UpdateComputeEnvironment UpdateJobQueue"""
    identity = """AddRoleToInstanceProfile AttachRolePolicy CreateInstanceProfile CreateRole
        DeleteInstanceProfile DeleteRole DeleteRolePolicy DetachRolePolicy GetInstanceProfile
        GetRole GetRolePolicy ListAttachedRolePolicies ListRolePolicies PutRolePolicy
        RemoveRoleFromInstanceProfile TagRole UntagRole UpdateAssumeRolePolicy UpdateRole
        UpdateRoleDescription"""
    batch = "arn:aws:iam::*:role/aws-service-role/batch.amazonaws.com/*"
    stacks = f"arn:aws:cloudformation:*:*:stack/{stack_name(queue)}/*"
    return {
        "submit": _document(
            _allow("batch", describe, "*"),
            _allow("batch", submit, *own, "arn:aws:batch:*:*:job/*"),
            _allow("iam", "PassRole", roles),
            _allow("logs", "GetLogEvents", logs),
            _allow("ecr", "DescribeImages", "arn:aws:ecr:*:*:repository/*"),
        ),
        "setup": _document(
            _allow("cloudformation", stack, stacks),
            _allow("batch", make, *own, environments),
            _allow("iam", identity, roles, f"arn:aws:iam::*:instance-profile/l2i-{queue}-*"),
            # Batch's own role, which an account has once Batch was used in it.
            _allow("iam", "CreateServiceLinkedRole", batch),
            _allow("logs", "DescribeLogGroups", "*"),
            _allow("logs", "CreateLogGroup", logs),
            _allow("ec2", "DescribeSecurityGroups DescribeSubnets DescribeVpcs", "*"),
        ),
    }


def stack_name(queue: str) -> str:
    """What the stack of a queue is called."""
    return f"l2i-{queue}".replace("_", "-")  # It may have no underscore.


def _capital(value: Any) -> Any:
    """Batch's keys as CloudFormation spells them, save those of a log driver's options."""
    if isinstance(value, Mapping):
        return {
            key[0].upper() + key[1:]: each if key == "options" else _capital(each)
            for key, each in value.items()
        }
    return [_capital(each) for each in value] if isinstance(value, list) else value


def template(wanted: Setup, subnets: list[str], groups: list[str]) -> dict[str, Any]:
    """CloudFormation's template of a queue.

    Parameters
    ----------
    wanted : Setup
    subnets, groups : list of str
        Subnets and security groups of the machines.

    Returns
    -------
    dict
        A resource's metadata say under ``l2i`` what it is for.
    """
    prefix, rights = f"l2i-{wanted.queue}", policies(wanted.buckets, wanted.secrets.values())

    def part(kind: str, name: str, why: str, **properties: Any) -> dict[str, Any]:
        properties[kind.partition("::")[2] + "Name"] = name
        return {"Type": f"AWS::{kind}", "Properties": properties, "Metadata": {"l2i": why}}

    def role(which: str, service: str, why: str, **properties: Any) -> dict[str, Any]:
        who = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}}
        properties["AssumeRolePolicyDocument"] = {
            "Version": "2012-10-17",
            "Statement": [{**who, "Action": "sts:AssumeRole"}],
        }
        if which in rights:
            properties["Policies"] = [{"PolicyName": "l2i", "PolicyDocument": rights[which]}]
        return part("IAM::Role", f"{prefix}-{which}", why, **properties)

    def environment(which: str) -> dict[str, Any]:
        machines = {
            **_MACHINES[which],
            "MinvCpus": 0,
            "MaxvCpus": wanted.max_vcpus,
            "InstanceTypes": list(wanted.instance_types),
            "Subnets": subnets,
            "SecurityGroupIds": groups,
            "InstanceRole": {"Fn::GetAtt": ["InstanceProfile", "Arn"]},
            "Ec2Configuration": [{"ImageType": "ECS_AL2023" + "_NVIDIA" * bool(wanted.gpus)}],
            "Tags": {"l2i": wanted.queue, "Name": f"{prefix}-{which}"},
        }
        limits = f"0 to {wanted.max_vcpus} vCPUs of {', '.join(wanted.instance_types)}"
        # It has a name, which a new one in its place could not have.
        how = {"Type": "MANAGED", "ReplaceComputeEnvironment": False, "ComputeResources": machines}
        return part("Batch::ComputeEnvironment", f"{prefix}-{which}", limits, **how)

    environments = [
        name for name, on in zip(_MACHINES, (wanted.spot, wanted.on_demand), strict=True) if on
    ]
    buckets = ", ".join(f"s3://{b}" for b in wanted.buckets) or "no --bucket: it may do nothing"
    policy = _JOIN.rpartition("/")[2]
    resources = {
        "InstanceRole": role("instance", "ec2", policy, ManagedPolicyArns=[{"Fn::Sub": _JOIN}]),
        "ExecutionRole": role("execution", "ecs-tasks", "fetch images, write logs, read secrets"),
        "JobRole": role("job", "ecs-tasks", buckets),
        "InstanceProfile": part(
            "IAM::InstanceProfile", f"{prefix}-instance", "", Roles=[{"Ref": "InstanceRole"}]
        ),
        **{f"{which.title()}Environment": environment(which) for which in environments},
        "Queue": part(
            "Batch::JobQueue",
            wanted.queue,
            ", then ".join(f"{prefix}-{which}" for which in environments),
            Priority=1,
            ComputeEnvironmentOrder=[
                {"Order": n, "ComputeEnvironment": {"Ref": f"{which.title()}Environment"}}
                for n, which in enumerate(environments, start=1)
            ],
            JobStateTimeLimitActions=[
                {"Reason": why, "State": "RUNNABLE", "MaxTimeSeconds": limit, "Action": "CANCEL"}
                for why, limit in _STUCK.items()
            ],
        ),
    }
    if wanted.image:
        keys = ("image", "gpus", "vcpus", "memory_mib", "shared_memory_mib", "secrets")
        task = Task(index=0, key="", title="")
        given = {key: getattr(wanted, key) for key in keys}
        spec = JobSpec.make(name="l2i", file="-", config={}, tasks=(task,), **given)
        box = _capital(container(spec, {}))
        box["JobRoleArn"] = {"Fn::GetAtt": ["JobRole", "Arn"]}
        box["ExecutionRoleArn"] = {"Fn::GetAtt": ["ExecutionRole", "Arn"]}
        resources["JobDefinition"] = part(
            "Batch::JobDefinition",
            prefix,
            spec.image,
            Type="container",
            ContainerProperties=box,
            RetryStrategy={"Attempts": spec.attempts, "EvaluateOnExit": _capital(RETRY)},
            Timeout={"AttemptDurationSeconds": spec.timeout_s},
            PropagateTags=True,
            PlatformCapabilities=["EC2"],
        )
    return {"Description": f"l2i: the queue {wanted.queue}", "Resources": resources}
