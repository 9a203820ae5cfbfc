"""``l2i batch``: the queue of AWS Batch that jobs need, made and removed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from l2i.cli import options
from l2i.cli.base import Group, Option, emit_json

if TYPE_CHECKING:
    from l2i.launch.aws_setup import Step

_TYPES = ("g4dn.xlarge", "g5.xlarge", "g6.xlarge")


@click.group(
    cls=Group,
    example=[
        "l2i batch setup --queue gpu-spot --image $IMAGE --bucket team",
        "l2i batch policy --queue gpu-spot",
        "l2i batch teardown --queue gpu-spot --yes",
    ],
)
def batch() -> None:
    """Set up AWS Batch, show the rights that are needed, remove all of it again."""


_queue = click.option("--queue", metavar="NAME", required=True, help="Name of the queue.")
_region = click.option(
    "--region", metavar="NAME", default="", help="AWS region.  [default: the environment's]"
)
_yes = click.option(
    "--yes", is_flag=True, help="Apply the changes; without it they are only shown."
)
_bucket = click.option(
    "--bucket",
    "buckets",
    multiple=True,
    metavar="NAME",
    help="Bucket that tasks may read and write; may be given several times.",
)
_secret = click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=ARN",
    callback=options.pairs,
    help="Set a variable in tasks from this secret; may be given several times.",
)


@batch.command(
    short_help="Show what a queue lacks, and create it.",
    example=[
        "l2i batch setup --queue gpu-spot --image $IMAGE --bucket team --yes",
        "l2i batch setup --queue cpu --gpus 0 --instance-type c7i.xlarge --no-spot",
    ],
)
@_queue
@_region
@click.option(
    "--image", metavar="NAME", default="", help="Container image of tasks, by its digest."
)
@_bucket
@_secret
@click.option(
    "--instance-type",
    "instance_types",
    multiple=True,
    metavar="NAME",
    default=_TYPES,
    show_default=True,
    help="Type of machine; may be given several times.",
)
@click.option(
    "--max-vcpus",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="N",
    help="Processors of all machines together; this bounds the cost of an hour.",
)
@click.option(
    "--gpus",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="GPUs per task.",
)
@click.option(
    "--vcpus",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    metavar="N",
    help="Processors per task.",
)
@click.option(
    "--memory",
    "memory_mib",
    cls=Option,
    old="--memory-mib",
    type=options.memory_mib(256),
    default="14000MiB",
    show_default=True,
    metavar="SIZE",
    help="Memory per task, like 14GiB; a bare number is MiB.",
)
@options.shared_memory
@click.option("--spot/--no-spot", default=True, show_default=True, help="Use Spot machines.")
@click.option(
    "--on-demand/--no-on-demand",
    default=True,
    show_default=True,
    help="Use on-demand machines if Spot has none.",
)
@click.option(
    "--subnet",
    "subnets",
    multiple=True,
    metavar="ID",
    help="Subnet of the machines; may be given several times.  [default: all of the VPC]",
)
@click.option(
    "--security-group",
    "groups",
    multiple=True,
    metavar="ID",
    help="Security group of the machines; may be given several times.  [default: that of the "
    "default VPC]",
)
@_yes
@options.as_json
def setup(
    queue: str,
    region: str,
    image: str,
    buckets: tuple[str, ...],
    secrets: dict[str, str],
    instance_types: tuple[str, ...],
    max_vcpus: int,
    gpus: int,
    vcpus: int,
    memory_mib: int,
    shared_memory_mib: int,
    spot: bool,
    on_demand: bool,
    subnets: tuple[str, ...],
    groups: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    """Show what a queue needs and lacks; with --yes, create it.

    Three roles, compute environments with and without Spot, the queue, a job definition. All of
    it is tagged, costs nothing while no job runs, and goes away by 'l2i batch teardown'. Again,
    it changes what differs.
    """
    from l2i.launch.aws_setup import Setup, policies
    from l2i.launch.aws_setup import setup as set_up

    if not (spot or on_demand):
        raise click.UsageError("A queue needs --spot, --on-demand, or both.")
    wanted = Setup(
        queue,
        region,
        _spec(image, secrets, gpus, vcpus, memory_mib, shared_memory_mib),
        buckets=buckets,
        instance_types=instance_types,
        max_vcpus=max_vcpus,
        spot=spot,
        on_demand=on_demand,
        subnets=subnets,
        security_groups=groups,
    )
    steps = set_up(wanted, do=yes, on_step=lambda s: None if as_json else _say(s))
    if as_json:
        emit_json({"done": yes, "steps": [asdict(s) for s in steps]})
        return
    if not yes:
        click.echo("\nRights of the tasks and of what starts them:")
        emit_json(policies(wanted))
    _end(steps, yes)


@batch.command(
    short_help="Remove what 'setup' created.", example="l2i batch teardown --queue gpu-spot --yes"
)
@_queue
@_region
@_yes
@options.as_json
def teardown(queue: str, region: str, yes: bool, as_json: bool) -> None:
    """Show what 'l2i batch setup' created for a queue; with --yes, remove that and nothing else."""
    from l2i.launch.aws_setup import teardown as tear_down

    steps = tear_down(queue, region, do=yes, on_step=lambda s: None if as_json else _say(s))
    if as_json:
        emit_json({"done": yes, "steps": [asdict(s) for s in steps]})
        return
    _end(steps, yes)


@batch.command(
    short_help="Print the rights that are needed.",
    example="l2i batch policy --queue gpu-spot --bucket team",
)
@_queue
@_bucket
@_secret
def policy(queue: str, buckets: tuple[str, ...], secrets: dict[str, str]) -> None:
    """Print the rights that tasks and people need, as IAM documents.

    'submit' is for those who submit and watch; 'setup' adds what setting up needs.
    """
    from l2i.launch.aws_setup import Setup, policies, submitter_policy

    wanted = Setup(queue, "-", _spec("", secrets, 1, 4, 14_000, 1024), buckets=buckets)
    emit_json({**policies(wanted), **submitter_policy(queue)})


def _spec(
    image: str, secrets: dict[str, str], gpus: int, vcpus: int, memory: int, shared: int
) -> Any:
    from l2i.launch.job import JobSpec, Task

    return JobSpec.make(
        name="l2i",
        image=image,
        file="-",
        config={},
        tasks=(Task(index=0, key="", title=""),),
        gpus=gpus,
        vcpus=vcpus,
        memory_mib=memory,
        shared_memory_mib=shared,
        secrets=secrets,
    )


def _say(step: Step) -> None:
    why = f": {step.why}" if step.why else ""
    click.echo(f"{step.action:<7} {step.kind} {step.name}{why}")


def _end(steps: list[Step], yes: bool) -> None:
    n = sum(step.action != "keep" for step in steps)
    if not n:
        click.echo("There is nothing to do.")
    elif yes:
        click.echo("Done.")
    else:
        click.echo(f"{n} steps; nothing is done yet: --yes does it.")
