"""AWS in our words: its clients, its errors as sentences, jobs as AWS Batch has them.

Keys and the region are found as all AWS tools find them; ``AWS_ENDPOINT_URL`` names a server
that stands in for AWS.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from l2i.errors import LaunchError, UsageError
from l2i.launch.job import RUN_AGAIN, State, TaskState, exit_sentence
from l2i.launch.spec import KEYS, OUTPUT_VARIABLES, JobSpec, Task, decode

_KEYS = {
    *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException"),
    *("SignatureDoesNotMatch", "AuthFailure", "IncompleteSignature", "InvalidAccessKeyId"),
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Forbidden"}

LOG_GROUP = "/aws/batch/job"

RETRY: list[dict[str, str]] = [
    {"onStatusReason": "Host EC2*", "action": "RETRY"},
    {"onExitCode": str(RUN_AGAIN), "action": "RETRY"},
    # Without this one Batch would retry all that the others do not name.
    {"onReason": "*", "action": "EXIT"},
]
"""A machine that was taken away, and tasks that were told to stop; a bug is not tried again."""

_STATES = {
    **dict.fromkeys(("SUBMITTED", "PENDING", "RUNNABLE"), State.WAITING),
    "STARTING": State.STARTING,
    "RUNNING": State.RUNNING,
    "SUCCEEDED": State.SUCCEEDED,
    "FAILED": State.FAILED,
}
CANCELLED = "cancelled by l2i"


def region_of(place: str = "") -> str:
    """The region asked for, or else the environment's or the profile's.

    Raises
    ------
    LaunchError
        Neither says.
    """
    import boto3

    with aws_errors("say its region"):
        region = place or boto3.session.Session().region_name or os.environ.get("AWS_REGION", "")
    if not region:
        raise LaunchError("No AWS region is named: set AWS_DEFAULT_REGION, or give --region.")
    return str(region)


def client(service: str, region: str) -> Any:
    """A client of one service; errors of its calls are for `aws_errors`."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": 5}
    )
    try:
        with aws_errors("begin"):
            return boto3.session.Session().client(service, region_name=region, config=config)
    except ValueError as error:
        raise LaunchError(
            f"{error}; mend AWS_ENDPOINT_URL, which begins with http:// or https://."
        ) from error


def listed(service: Any, operation: str, key: str, **how: Any) -> list[dict[str, Any]]:
    """What all pages of an operation have under a key; its errors are for `aws_errors`."""
    return [each for page in service.get_paginator(operation).paginate(**how) for each in page[key]]


@contextmanager
def aws_errors(doing: str) -> Iterator[None]:
    """Turn what boto3 raises into one sentence, without keys.

    Parameters
    ----------
    doing : str
        As in "AWS did not <doing>".
    """
    from botocore import exceptions as e

    try:
        yield
    except e.ClientError as error:
        told = error.response.get("Error", {})
        code, message = str(told.get("Code", "")), str(told.get("Message", "")).strip().rstrip(".")
        # Servers that stand in for AWS may put the word into the message alone.
        if code in _KEYS or any(f"<Code>{word}<" in message for word in _KEYS):
            text = (
                "AWS refuses the keys: mend AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE."
            )
        elif code in _EXPIRED:
            text = "The AWS keys have expired: renew them (aws sso login, say)."
        elif code in _DENIED:
            action = re.search(r"perform: ([\w:-]+)", message)
            right = action[1] if action else error.operation_name
            text = (
                f"These AWS keys may not do {right}: 'l2i batch policy' prints what is needed, for "
                "who administers the account."
            )
        else:
            text = f"AWS did not {doing}: {message or code}."
        raise LaunchError(text) from error
    except (e.NoCredentialsError, e.PartialCredentialsError) as error:
        raise LaunchError(
            "There are no AWS keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE."
        ) from error
    except e.ProfileNotFound as error:
        raise LaunchError(f"{error}: mend AWS_PROFILE.") from error
    except (e.ConfigParseError, e.ConfigNotFound, e.InvalidConfigError) as error:
        raise LaunchError(f"{error}: mend this file of AWS's settings.") from error
    except (e.InvalidRegionError, e.NoRegionError) as error:
        raise LaunchError(f"{str(error).rstrip('.')}: mend AWS_DEFAULT_REGION.") from error
    except e.ParamValidationError as error:
        raise LaunchError(f"AWS would not {doing}: {' '.join(str(error).split())}.") from error
    except (e.BotoCoreError, e.HTTPClientError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise LaunchError(f"AWS could not be reached to {doing} ({first}).") from error


# --- jobs ---------------------------------------------------------------------------------------


def container(spec: JobSpec, roles: Mapping[str, str]) -> dict[str, Any]:
    """A job definition's ``containerProperties`` for a description.

    Parameters
    ----------
    spec : JobSpec
    roles : mapping
        ``jobRoleArn`` and ``executionRoleArn``, where there are.
    """
    needs = [
        {"type": "VCPU", "value": str(spec.vcpus)},
        {"type": "MEMORY", "value": str(spec.memory_mib)},
    ]
    if spec.gpus:
        needs.append({"type": "GPU", "value": str(spec.gpus)})
    return {
        "image": spec.image,
        "command": list(spec.command),
        "resourceRequirements": needs,
        "environment": [],
        "secrets": [{"name": k, "valueFrom": v} for k, v in sorted(spec.secrets.items())],
        "linuxParameters": {"initProcessEnabled": True, "sharedMemorySize": spec.shared_memory_mib},
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": LOG_GROUP}},
        **{key: arn for key, arn in roles.items() if arn},
    }


def differences(
    has: Mapping[str, Any], wanted: Mapping[str, Any], keys: Iterable[str]
) -> list[str]:
    """Those keys of a container's properties in which what there is does not do for what is wanted.

    Batch adds keys of its own, empty ones among them, and may change the order of a list.

    >>> wanted = {"linuxParameters": {"sharedMemorySize": 64}, "secrets": []}
    >>> has = {"linuxParameters": {"sharedMemorySize": 64, "devices": []}}
    >>> differences(has, wanted, wanted), differences({}, wanted, wanted)
    ([], ['linuxParameters'])
    """

    def fits(there: Any, asked: Any) -> bool:
        if isinstance(asked, Mapping):
            return all(fits((there or {}).get(k), v) for k, v in asked.items())
        if isinstance(asked, list):
            mine, theirs = (
                sorted(json.dumps(each, sort_keys=True) for each in x) for x in (asked, there or [])
            )
            return mine == theirs
        return bool(there == asked)

    return [
        k for k in keys if not (fits(has.get(k), wanted[k]) if wanted.get(k) else not has.get(k))
    ]


def attempt_states(index: int, described: Mapping[str, Any]) -> TaskState:
    """What `describe_jobs` says of one task."""
    if not described:
        return TaskState(index, State.FAILED, why="AWS Batch knows it no more")
    state = _STATES[described["status"]]
    attempts = list(described.get("attempts") or [])
    last = attempts[-1] if attempts else {}
    box = {**last.get("container", {}), **(described.get("container") or {})}
    code = box.get("exitCode", last.get("container", {}).get("exitCode"))
    number = len(attempts)
    if state is State.RUNNING and (not attempts or attempts[-1].get("stoppedAt")):
        number += 1  # An attempt is listed when it is over.
    reasons = (
        *(described.get("statusReason"), box.get("reason"), last.get("statusReason")),
        last.get("container", {}).get("reason"),
    )
    messages = [str(r).strip().rstrip(".") for r in reasons if r]
    why = ""
    if state is State.WAITING:
        why = messages[0] if messages else ""
    elif state is State.FAILED:
        if any(CANCELLED in m for m in messages):
            state = State.CANCELLED
        # The general word ("Essential container in task exited") says least.
        told = [m for m in dict.fromkeys(messages) if not m.startswith("Essential container")]
        words = [exit_sentence(int(code))] if code is not None else []
        why = "; ".join(words + told) or "no reason given"
    return TaskState(
        index,
        state,
        attempt=number,
        why=why,
        exit_code=None if code is None else int(code),
        log=str(box.get("logStreamName") or ""),
    )


def rebuilt(described: Mapping[str, Any]) -> JobSpec | None:
    """As much of a description as its payload tells; None: it is none of ours."""
    box = described.get("container") or {}
    variables = {e["name"]: e["value"] for e in box.get("environment", [])}
    try:
        payload = decode(variables.get("L2I_JOB", ""))
    except UsageError:
        return None
    named = {key: variables.get(name, "") for key, name in OUTPUT_VARIABLES.items()}
    ours = (*OUTPUT_VARIABLES.values(), "AWS_DEFAULT_REGION")
    environment = {
        k: v
        for k, v in variables.items()
        if k not in ours and not k.startswith(("L2I_", "AWS_BATCH_"))
    }
    needs = {r["type"]: r["value"] for r in box.get("resourceRequirements", [])}
    sizes = {
        "gpus": needs.get("GPU"),
        "vcpus": needs.get("VCPU"),
        "memory_mib": needs.get("MEMORY"),
        "shared_memory_mib": (box.get("linuxParameters") or {}).get("sharedMemorySize"),
        "timeout_s": (described.get("timeout") or {}).get("attemptDurationSeconds"),
        "attempts": (described.get("retryStrategy") or {}).get("attempts"),
    }
    return JobSpec.make(
        **{key: payload[key] for key in KEYS},
        **{key: int(size) for key, size in sizes.items() if size},
        image=box.get("image", "") or variables.get("L2I_IMAGE_DIGEST", ""),
        tasks=tuple(Task(index=i, key="", title=f"task {i}") for i in payload["tasks"]),
        outputs={k: v for k, v in named.items() if v},
        environment=environment,
        secrets={s["name"]: s["valueFrom"] for s in box.get("secrets") or []},
    )
