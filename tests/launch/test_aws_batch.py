"""AWS Batch through its API: submitting, states, logs, retries, cancelling, set-up, refusals."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3
import pytest
from botocore.stub import ANY, Stubber
from cfnlint.api import ManualArgs, lint
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from l2i.errors import LaunchError, UsageError
from l2i.launch import aws_setup
from l2i.launch.aws import RETRY
from l2i.launch.aws_batch import AwsBatch
from l2i.launch.job import State, list_jobs
from l2i.launch.spec import JobSpec, Task
from tests.launch.conftest import IMAGE, REGION, Batch, point_at_batch
from tests.stores import Said


@pytest.fixture
def queue(aws: Batch, say: Callable[..., Said]) -> str:
    """A queue, set up by the command."""
    answer = say(
        "batch", "setup", "--queue", "gpu-spot", "--image", IMAGE, "--bucket", "team", "--yes"
    )
    assert answer.code == 0, answer.err
    return "gpu-spot"


def _submit(say: Callable[..., Said], path: Path, script: Any, *words: str) -> dict[str, Any]:
    answer = say(
        *("submit", str(path), "--on", "aws-batch", "--queue", "gpu-spot", "--json"),
        *("--env", f"SCRIPT={json.dumps(script)}", *words),
    )
    assert answer.code == 0, answer.err
    job: dict[str, Any] = json.loads(answer.out)
    return job


def _over(say: Callable[..., Said], job: str = "latest") -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        answer = say("jobs", "show", job, "--json")
        described: dict[str, Any] = json.loads(answer.out)
        if all(t["state"] in ("succeeded", "failed", "cancelled") for t in described["tasks"]):
            return described
        assert time.monotonic() < end, described
        time.sleep(0.2)


def _in_state(say: Callable[..., Said], task: int, state: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while True:
        described: dict[str, Any] = json.loads(say("jobs", "show", "--json").out)
        if described["tasks"][task]["state"] == state:
            return described
        assert time.monotonic() < end, described
        time.sleep(0.1)


def test_an_array_runs_and_only_lost_machines_are_retried(
    queue: str, sweep_file: Path, say: Callable[..., Said]
) -> None:
    """One of four tasks succeeds, one loses its machine and succeeds, one asks to be run again
    and does, one has a bug, and is not tried again; its log is shown."""
    script = [
        ["say all is well; exit 0"],
        ["say first; kill", "say second; exit 0"],
        ["exit 75", "exit 75", "exit 0"],
        ["say ZeroDivisionError: planted; exit 70", "exit 0"],
    ]
    job = _submit(say, sweep_file, script)
    assert job["new"] and job["gpu_hours"] == 4 * 3 * 6
    ended = _over(say)
    seen = [(t["state"], t["attempt"], t["exit_code"]) for t in ended["tasks"]]
    assert seen == [
        *(("succeeded", 1, 0), ("succeeded", 2, 0), ("succeeded", 3, 0)),
        ("failed", 1, 70),
    ]
    assert "a bug (exit code 70)" in ended["tasks"][3]["why"]
    assert say("jobs", "show").code == 1
    answer = say("logs", "latest")
    assert answer.out == "ZeroDivisionError: planted\n" and "Task 3" in answer.err
    # All attempts, in order.
    assert say("logs", "latest", "1").out == "first\nsecond\n"
    assert say("logs", "latest", "0", "-f").out == "all is well\n"


def test_submitted_twice_is_one_job(
    queue: str, sweep_file: Path, say: Callable[..., Said], tmp_path: Path, monkeypatch: Any
) -> None:
    """From this machine or another, while it runs and when it is over."""
    script = [["exit 0"]]
    first = _submit(say, sweep_file, script)
    assert _submit(say, sweep_file, script) == first | {"new": False}
    _over(say)
    text = sweep_file.read_text()
    monkeypatch.chdir(tmp_path)
    Path(sweep_file.name).write_text(text)
    assert _submit(say, sweep_file, script) == first | {"new": False}
    batch = boto3.client("batch")
    jobs = batch.list_jobs(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": ["four*"]}])
    assert len([j for j in jobs["jobSummaryList"] if ":" not in j["jobId"]]) == 1
    # And one definition, of which one revision serves all.
    definitions = batch.describe_job_definitions(jobDefinitionName="l2i-gpu-spot")["jobDefinitions"]
    assert len(definitions) == 1
    # From there, too, the job is found by its queue.
    answer = say("jobs", "--queue", queue, "--json")
    assert [j["job"] for j in json.loads(answer.out)] == [first["job"]]
    assert json.loads(say("jobs", "show", "--json").out)["native"] == first["native"]


def test_an_array_whose_tasks_are_not_made_yet(
    queue: str, sweep_file: Path, say: Callable[..., Said]
) -> None:
    """Batch makes them a while after the array: they wait, as it does, and are not lost; of an
    array that is gone altogether they are."""
    _submit(say, sweep_file, [["exit 0"]])
    (job,) = list_jobs(Path("mlruns"))
    engine = AwsBatch(Path("mlruns"), job.place)
    real = engine._batch.describe_jobs

    def describe_jobs(jobs: list[str]) -> dict[str, Any]:
        described = [
            each for each in real(jobs=jobs)["jobs"] if not each["jobId"].endswith((":2", ":3"))
        ]
        above = [each | {"status": "PENDING"} for each in described if ":" not in each["jobId"]]
        return {"jobs": above or described}

    engine._batch.describe_jobs = describe_jobs
    states = [task.state for task in engine.status(job).tasks]
    assert states[2:] == [State.WAITING] * 2 and not engine.status(job).over
    engine._batch.describe_jobs = lambda jobs: {"jobs": []}
    state = engine.status(job)
    assert state.state is State.FAILED and "knows it no more" in state.tasks[0].why


def test_what_is_asked_of_batch(queue: str, sweep_file: Path, say: Callable[..., Said]) -> None:
    """Image by digest, GPU, shared memory, init process, logs, secrets by name, retry, timeout,
    tags; no value of a secret anywhere."""
    arn = f"arn:aws:secretsmanager:{REGION}:1:secret:mlflow"
    _submit(
        say,
        sweep_file,
        [["exit 0"]],
        "--secret",
        f"MLFLOW_TRACKING_PASSWORD={arn}",
        "--shared-memory-mib",
        "2048",
        "--memory-mib",
        "15000",
    )
    batch = boto3.client("batch")
    definitions = batch.describe_job_definitions(jobDefinitionName="l2i-gpu-spot", status="ACTIVE")
    newest = max(definitions["jobDefinitions"], key=lambda d: d["revision"])
    assert newest["revision"] == 2  # Secrets and shared memory differ from the set-up's.
    box = newest["containerProperties"]
    assert box["image"] == IMAGE
    needs = {r["type"]: r["value"] for r in box["resourceRequirements"]}
    assert needs == {"VCPU": "4", "MEMORY": "15000", "GPU": "1"}
    assert box["linuxParameters"] == {"initProcessEnabled": True, "sharedMemorySize": 2048}
    assert box["logConfiguration"]["logDriver"] == "awslogs"
    assert box["secrets"] == [{"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": arn}]
    assert box["jobRoleArn"].endswith("role/l2i-gpu-spot-job")
    rules = newest["retryStrategy"]["evaluateOnExit"]
    assert [r | {"action": r["action"].upper()} for r in rules] == RETRY
    assert newest["retryStrategy"]["attempts"] == 3
    assert RETRY[0] == {"onStatusReason": "Host EC2*", "action": "RETRY"}
    assert RETRY[-1] == {"onReason": "*", "action": "EXIT"} and len(RETRY) <= 5
    job = batch.describe_jobs(jobs=[json.loads(say("jobs", "show", "--json").out)["native"]])[
        "jobs"
    ][0]
    assert job["arrayProperties"]["size"] == 4
    assert job["timeout"] == {"attemptDurationSeconds": 21600}
    assert job["tags"]["l2i:job"].startswith("four-")


def test_cancel_and_retry(queue: str, sweep_file: Path, say: Callable[..., Said]) -> None:
    """Cancelled, tasks that run and tasks that wait end as cancelled; a retry is a job of these;
    cancelling what is over is no error."""
    _submit(say, sweep_file, [["exit 0"], ["hang"], ["hang"], ["hang"]])
    running = _in_state(say, 2, "running")
    assert running["tasks"][3]["state"] == "waiting"  # There are two machines.
    assert running["tasks"][3]["why"] == "no machine is free yet"
    answer = say("jobs", "retry", "latest")
    assert answer.code == 1 and "is not over" in answer.err
    assert say("cancel", "latest").code == 0
    ended = _over(say)
    assert [t["state"] for t in ended["tasks"]] == ["succeeded", *["cancelled"] * 3]
    answer = say("cancel", "latest")
    assert answer.code == 0 and "was over already" in answer.out
    answer = say("jobs", "retry", ended["job"], "--json")
    again = json.loads(answer.out)
    assert answer.code == 0 and again["new"] and again["job"] != ended["job"]
    assert len(json.loads(say("jobs", "show", again["job"], "--json").out)["tasks"]) == 3
    assert json.loads(say("jobs", "retry", ended["job"], "--json").out)["new"] is False
    say("cancel", again["job"])


def test_one_training_is_no_array(queue: str, say: Callable[..., Said]) -> None:
    """A file without a table [sweep] is a job of one task."""
    Path("one.toml").write_text('extends = "demo"\n')
    _submit(say, Path("one.toml"), ["say only one; exit 0"])
    ended = _over(say)
    assert [t["state"] for t in ended["tasks"]] == ["succeeded"]
    assert say("logs").out == "only one\n"
    answer = say("logs", "latest", "1")
    assert answer.code == 2 and "there is no task 1" in answer.err


def test_an_image_that_cannot_be_pulled(
    queue: str, sweep_file: Path, say: Callable[..., Said]
) -> None:
    """Is a task that failed, with Batch's reason, and not tried again."""
    _submit(say, sweep_file, [["pull"]])
    for task in _over(say)["tasks"]:
        assert task["state"] == "failed" and task["attempt"] == 1
        assert "CannotPullContainerError" in task["why"]


REFUSALS = [
    (("--queue", "gpu-sopt"), "no queue 'gpu-sopt'. There are: gpu-spot."),
    ((), "needs --queue NAME"),
    (("--queue", "gpu-spot", "--image", "l2i:latest"), "is named by a tag"),
    (("--queue", "gpu-spot", "--data-dir", "ESC-10"), "put it into a bucket"),
    (("--queue", "gpu-spot", "--max-gpu-hours", "10"), "At most 72 GPU hours"),
    (("--queue", "gpu-spot", "--attempts", "11"), "11 is not in the range"),
    (("--queue", "gpu-spot", "--timeout-s", "5"), "5 is not in the range"),
    (("--queue", "gpu-spot", "--env", "API_TOKEN=abc"), "looks like a secret"),
    (("--queue", "gpu-spot", "--region", "moon-1"), "AWS"),
]


def test_refusals(queue: str, sweep_file: Path, say: Callable[..., Said]) -> None:
    """One clear sentence, nothing submitted. (One test, since a queue takes seconds to set up.)"""
    for words, sentence in REFUSALS:
        answer = say("submit", str(sweep_file), "--on", "aws-batch", *words)
        assert answer.code in (1, 2) and sentence in answer.err, words
        assert "Traceback" not in answer.err, words
        assert "abc" not in answer.err.replace("--env", ""), words
        assert json.loads(say("jobs", "--json").out) == [], words


def test_limits_of_batch(queue: str) -> None:
    """More tasks than an array takes are refused before AWS is asked; more words than a task can
    be told, by what packs them."""
    tasks = [Task(index=i, key=f"{i:012x}", title=str(i)) for i in range(10_001)]
    outputs = {"tracking": "http://mlflow.example:5000"}
    spec = JobSpec.make(name="many", file="many.toml", config={}, tasks=tasks, outputs=outputs)
    with pytest.raises(LaunchError, match="at most 10000: split the file"):
        AwsBatch(Path("mlruns"), {"queue": queue}).submit(spec)
    long = {"x": [sha256(str(i).encode()).hexdigest() for i in range(200)]}
    spec = JobSpec.make(
        name="long", file="long.toml", config=long, tasks=tasks[:2], outputs=outputs
    )
    with pytest.raises(UsageError, match="split it into several files"):
        AwsBatch(Path("mlruns"), {"queue": queue, "definition": "l2i-gpu-spot"}).submit(spec)


def test_wrong_keys(
    monkeypatch: pytest.MonkeyPatch, sweep_file: Path, say: Callable[..., Said]
) -> None:
    """AWS that refuses the keys, and no keys at all."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    server = Batch(INITIAL_NO_AUTH_ACTION_COUNT="0")
    words = ("submit", str(sweep_file), "--on", "aws-batch", "--queue", "gpu-spot")
    try:
        server.start()
        point_at_batch(server, monkeypatch)
        answer = say(*words)
        assert answer.code == 1 and "AWS refuses the keys" in answer.err
        assert "SECRETTEST" not in answer.err
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        answer = say(*words)
        assert answer.code == 1 and "There are no AWS keys" in answer.err
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        answer = say(*words)
        assert answer.code == 1 and "No AWS region is named" in answer.err
    finally:
        server.kill()


def test_aws_that_is_away(
    monkeypatch: pytest.MonkeyPatch, sweep_file: Path, say: Callable[..., Said]
) -> None:
    """A sentence, and an exit code 1."""
    server = Batch()
    point_at_batch(server, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    answer = say("submit", str(sweep_file), "--on", "aws-batch", "--queue", "gpu-spot")
    assert answer.code == 1 and "AWS could not be reached" in answer.err


# --- set-up -------------------------------------------------------------------------------------


WORDS = ("batch", "setup", "--queue", "gpu-spot", "--image", IMAGE, "--bucket", "team")
DOWN = ("batch", "teardown", "--queue", "gpu-spot")


def _there() -> dict[str, list[str]]:
    batch, iam = boto3.client("batch"), boto3.client("iam")
    definitions = batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"]
    environments = batch.describe_compute_environments()["computeEnvironments"]
    profiles = iam.list_instance_profiles()["InstanceProfiles"]
    stacks = boto3.client("cloudformation").describe_stacks()["Stacks"]
    return {
        "stacks": [f"{each['StackName']} {each['StackStatus']}" for each in stacks],
        "queues": [q["jobQueueName"] for q in batch.describe_job_queues()["jobQueues"]],
        "environments": sorted(each["computeEnvironmentName"] for each in environments),
        "definitions": [d["jobDefinitionName"] for d in definitions],
        "roles": sorted(role["RoleName"] for role in iam.list_roles()["Roles"]),
        "profiles": [each["InstanceProfileName"] for each in profiles],
    }


def _foreign_queue(name: str, tags: dict[str, str]) -> None:
    batch = boto3.client("batch")
    role = boto3.client("iam").create_role(RoleName="own", AssumeRolePolicyDocument="{}")["Role"]
    batch.create_compute_environment(
        computeEnvironmentName="own", type="UNMANAGED", serviceRole=role["Arn"]
    )
    order = [{"order": 1, "computeEnvironment": "own"}]
    batch.create_job_queue(
        jobQueueName=name, state="ENABLED", priority=1, computeEnvironmentOrder=order, tags=tags
    )


def test_setup_shows_makes_changes_and_removes(aws: Batch, say: Callable[..., Said]) -> None:
    """Without --yes nothing is done; with it all that is missing; again nothing; a change is an
    update; teardown removes exactly that.

    moto cannot show that parts have the stack's tag, that a role or a part of Batch changes where
    it is (its plan is a comparison of templates), or what an operation that fails leaves behind.
    """
    _foreign_queue("others", {})
    before = _there()
    answer = say(*WORDS)
    assert answer.code == 0 and "9 steps; nothing is done yet" in answer.out
    assert '"s3:PutObject"' in answer.out and "arn:aws:s3:::team/*" in answer.out
    assert _there() == before
    assert say(*WORDS, "--yes").code == 0
    made = _there()
    assert made == {
        "stacks": ["l2i-gpu-spot CREATE_COMPLETE"],
        "queues": ["others", "gpu-spot"],
        "environments": ["l2i-gpu-spot-ondemand", "l2i-gpu-spot-spot", "own"],
        "definitions": ["l2i-gpu-spot"],
        "roles": ["l2i-gpu-spot-execution", "l2i-gpu-spot-instance", "l2i-gpu-spot-job", "own"],
        "profiles": ["l2i-gpu-spot-instance"],
    }
    groups = boto3.client("logs").describe_log_groups()["logGroups"]
    assert [g["logGroupName"] for g in groups] == ["/aws/batch/job"]
    batch = boto3.client("batch")
    spot = batch.describe_compute_environments(computeEnvironments=["l2i-gpu-spot-spot"])
    resources = spot["computeEnvironments"][0]["computeResources"]
    assert resources["type"] == "SPOT" and resources["minvCpus"] == 0
    assert resources["allocationStrategy"] == "SPOT_PRICE_CAPACITY_OPTIMIZED"
    assert resources["ec2Configuration"] == [{"imageType": "ECS_AL2023_NVIDIA"}]
    answer = say(*WORDS, "--yes")
    assert "There is nothing to do." in answer.out and _there() == made
    answer = say(*WORDS, "--no-spot")
    assert "remove  compute environment l2i-gpu-spot-spot\n" in answer.out
    assert "update  queue gpu-spot\n" in answer.out and "2 steps" in answer.out and _there() == made
    # Without an image the definition stays.
    answer = say(*WORDS[:4], "--bucket", "team", "--bucket", "other", "--yes")
    assert "update  role l2i-gpu-spot-job\nkeep" in answer.out and answer.out.endswith("Done.\n")
    assert "keep    job definition l2i-gpu-spot\n" in answer.out
    stack = boto3.client("cloudformation").get_template(StackName="l2i-gpu-spot")
    assert "arn:aws:s3:::other/*" in json.dumps(stack["TemplateBody"])
    # A revision of `l2i submit`, and one of somebody else's.
    box = batch.describe_job_definitions()["jobDefinitions"][0]["containerProperties"]
    for tags in ({"l2i": "gpu-spot"}, {}):
        batch.register_job_definition(
            jobDefinitionName="l2i-gpu-spot", type="container", containerProperties=box, tags=tags
        )
    assert "8 steps; nothing is done yet" in say(*DOWN).out and _there()["roles"] == made["roles"]
    assert say(*DOWN, "--yes").code == 0
    assert _there() == before | {"definitions": ["l2i-gpu-spot"]}
    assert "There is nothing to do." in say(*DOWN).out


def test_setup_leaves_alone_what_is_not_ours(aws: Batch, say: Callable[..., Said]) -> None:
    """Neither a queue without a stack, as earlier versions made it, nor somebody else's stack."""
    _foreign_queue("gpu-spot", {"l2i": "gpu-spot"})
    before = _there()
    for words in (WORDS, DOWN):
        answer = say(*words, "--yes")
        assert answer.code == 1 and "The queue 'gpu-spot' is no part of a stack" in answer.err
        assert "that version's 'l2i batch teardown'" in answer.err
    assert _there() == before
    topic = {"Resources": {"T": {"Type": "AWS::SNS::Topic"}}}
    boto3.client("cloudformation").create_stack(
        StackName="l2i-gpu-spot", TemplateBody=json.dumps(topic)
    )
    for words in (WORDS, DOWN):
        answer = say(*words, "--yes")
        assert answer.code == 1 and "There is a stack 'l2i-gpu-spot' that l2i did not" in answer.err


def _wanted(**changed: Any) -> aws_setup.Setup:
    secret = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:mlflow-ab12:password::"
    what = ("gpu_spot", REGION, IMAGE, ("team",), {"X": secret}, ("g5.xlarge",))
    return replace(aws_setup.Setup(*what, 64, 1, 4, 14_000, 1024, True, True, (), ()), **changed)


def test_a_stack_that_fails(
    aws: Batch, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that AWS refuses is deleted, with its empty stack; of a change that fails the first
    part that failed is named, with its reason. (AWS's answers are made up here.)"""
    cloud, real = boto3.client("cloudformation"), aws_setup.client
    monkeypatch.setattr(aws_setup, "client", lambda s, r: cloud if s[:3] == "clo" else real(s, r))
    monkeypatch.setattr(aws_setup.uuid, "uuid4", lambda: UUID(int=7))
    token, arn = f"l2i-{7:032}", "arn:aws:cloudformation:::stack/l2i-gpu-spot/7"
    common = {"StackName": "l2i-gpu-spot", "StackId": arn}
    plan = {"Id": f"{arn}/plan", "StackId": arn}

    def stack(state: str) -> dict[str, Any]:
        tags = [{"Key": "l2i", "Value": "gpu-spot"}]
        one = {**common, "StackStatus": state, "Tags": tags, "CreationTime": datetime(2026, 1, 1)}
        return {"Stacks": [one]}

    def event(kind: str, name: str, reason: str, by: str = token) -> dict[str, Any]:
        when = {"EventId": name, "Timestamp": datetime(2026, 1, 1), "ClientRequestToken": by}
        what = {"ResourceType": f"AWS::{kind}", "LogicalResourceId": name}
        how = {"ResourceStatus": "UPDATE_FAILED", "ResourceStatusReason": reason}
        return {**common, **when, **what, **how}

    with Stubber(cloud) as stub:
        absent = "Stack with id l2i-gpu-spot does not exist"
        stub.add_client_error("describe_stacks", "ValidationError", absent)
        asked = dict.fromkeys(("ChangeSetName", "TemplateBody", "Capabilities", "Tags"), ANY)
        asked |= {"StackName": "l2i-gpu-spot", "ChangeSetType": "CREATE"}
        stub.add_response("create_change_set", plan, asked | {"OnStackFailure": "DELETE"})
        refused = {"Status": "FAILED", "StatusReason": "The role is there already."}
        stub.add_response("describe_change_set", refused)  # For who waits,
        stub.add_response("describe_change_set", refused)  # and for who reads.
        stub.add_response("delete_change_set", {}, {"ChangeSetName": plan["Id"]})
        stub.add_response("delete_stack", {}, {"StackName": arn})
        answer = say(*WORDS, "--yes")
        sentence = "AWS did not plan the changes: The role is there already.\n"
        assert answer.code == 1 and answer.err.endswith(sentence)
        stub.assert_no_pending_responses()

        old = aws_setup.template(_wanted(queue="gpu-spot"), ["subnet-1"], ["sg-1"])
        target = {"Attribute": "Properties", "Name": "ComputeResources"}
        change = {"Action": "Modify", "LogicalResourceId": "SpotEnvironment"}
        changes = [{"ResourceChange": change | {"Details": [{"Target": target}]}}]
        stub.add_response("describe_stacks", stack("CREATE_COMPLETE"))
        stub.add_response("get_template", {"TemplateBody": json.dumps(old)})
        stub.add_response("create_change_set", plan)
        for _ in range(2):
            planned = {"Status": "CREATE_COMPLETE", "Changes": changes}
            stub.add_response("describe_change_set", planned)
        execute = {"ChangeSetName": plan["Id"], "ClientRequestToken": token}
        stub.add_response("execute_change_set", {}, execute)
        for _ in range(2):
            stub.add_response("describe_stacks", stack("UPDATE_ROLLBACK_COMPLETE"))
        events = [
            event("Batch::JobQueue", "Queue", "Resource update cancelled"),
            event("Batch::ComputeEnvironment", "SpotEnvironment", "No subnet."),
            event("IAM::Role", "JobRole", "Long ago", by="another"),
        ]
        stub.add_response("describe_stack_events", {"StackEvents": events})
        answer = say(*WORDS, "--yes")
        stub.assert_no_pending_responses()

        stub.add_response("describe_stacks", stack("DELETE_FAILED"))
        stub.add_response("get_template", {"TemplateBody": json.dumps(old)})
        assert "is DELETE_FAILED, and cannot be changed: remove it with" in say(*WORDS).err
    assert "update  compute environment l2i-gpu-spot-spot: ComputeResources\n" in answer.out
    assert answer.code == 1 and answer.err.endswith(
        "AWS could not update the stack l2i-gpu-spot, which is UPDATE_ROLLBACK_COMPLETE now: the "
        "compute environment SpotEnvironment failed (No subnet). Mend that, and give the same "
        "command again.\n"
    )


@pytest.mark.parametrize(
    "changed", [{}, {"gpus": 0, "spot": False, "secrets": {}}, {"image": "", "buckets": ()}]
)
def test_the_template_fits_the_schema(changed: dict[str, Any]) -> None:
    """cfn-lint knows the properties of every resource, and objects to one of another name."""
    subnets, groups = ["subnet-0123456789abcdef0"], ["sg-0123456789abcdef0"]
    made = aws_setup.template(_wanted(**changed), subnets, groups)
    config = ManualArgs(regions=[REGION])
    assert lint(json.dumps(made), config=config) == []
    made["Resources"]["Queue"]["Properties"]["Rank"] = 1
    assert [match.rule.id for match in lint(json.dumps(made), config=config)] == ["E3002"]


def test_who_sets_up_has_the_rights_that_cloudformation_needs() -> None:
    """CloudFormation works with the rights of its caller: all that its schema lists for the types
    of the template, save those of properties that the template does not use."""
    unused = re.compile(
        "eks:.*|ec2:describelaunchtemplateversions|batch:setcapacitytags"
        "|iam:(put|delete)rolepermissionsboundary"
    )
    rights = aws_setup.submitter_policy("q").values()
    has = {a.lower() for d in rights for s in d["Statement"] for a in s["Action"]}
    template = aws_setup.template(_wanted(), [], [])
    for kind in {part["Type"] for part in template["Resources"].values()}:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
        for verb in ("create", "read", "update", "delete"):
            needs = {right.lower() for right in handlers[verb]["permissions"]}
            assert not [right for right in needs - has if not unused.fullmatch(right)], (kind, verb)


def test_teardown_refuses_while_a_job_runs(
    queue: str, sweep_file: Path, say: Callable[..., Said]
) -> None:
    """And says which."""
    _submit(say, sweep_file, [["hang"]])
    answer = say("batch", "teardown", "--queue", queue, "--yes")
    assert answer.code == 1 and "has a job that is not over (four-" in answer.err
    say("cancel", "latest")


def test_policy(say: Callable[..., Said]) -> None:
    """Rights are printed without AWS: no star where a resource can be named, secrets by ARN."""
    arn = f"arn:aws:secretsmanager:{REGION}:1:secret:mlflow-ab12:password::"
    answer = say("batch", "policy", "--queue", "q", "--bucket", "team", "--secret", f"X={arn}")
    policy = json.loads(answer.out)
    assert set(policy) == {"execution", "job", "submit", "setup"}
    for statement in policy["job"]["Statement"]:
        assert all(r.startswith("arn:aws:s3:::team") for r in statement["Resource"])
    secrets = [s for s in policy["execution"]["Statement"] if "Secret" in s["Action"][0]]
    assert secrets[0]["Resource"] == [f"arn:aws:secretsmanager:{REGION}:1:secret:mlflow-ab12"]
    for document in policy.values():
        assert not any("*" in action for s in document["Statement"] for action in s["Action"])
