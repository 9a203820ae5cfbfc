"""``l2i batch``: the queue of AWS Batch that jobs need, made and removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from l2i.cli import options
from l2i.cli.base import Group, answered, emit_json, wants_json

if TYPE_CHECKING:
    from l2i.launch.aws_setup import Step


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
_yes = click.option(
    "--yes", is_flag=True, help="Apply the changes; without it they are only shown."
)
_bucket = options.several(
    "--bucket", "buckets", metavar="NAME", help="Bucket that tasks may read and write"
)
_secret = options.several(
    "--secret",
    "secrets",
    metavar="NAME=ARN",
    help="Set a variable in tasks from this secret",
    callback=options.pairs,
)


@batch.command(
    short_help="Show what a queue lacks, and create it.",
    example=[
        "l2i batch setup --queue gpu-spot --image $IMAGE --bucket team --yes",
        "l2i batch setup --queue cpu --gpus 0 --instance-type c7i.xlarge --no-spot",
    ],
)
@_queue
@options.region
@options.text("--image", help="Container image of tasks, by its digest.")
@_bucket
@_secret
@click.option(
    "--instance-type",
    "instance_types",
    multiple=True,
    metavar="NAME",
    default=("g4dn.xlarge", "g5.xlarge", "g6.xlarge"),
    help="Type of machine; may be given several times.",
)
@options.number(
    "--max-vcpus",
    default=64,
    help="Processors of all machines together; this bounds the cost of an hour.",
)
@options.number("--gpus", default=1, least=0, help="GPUs per task.")
@options.number("--vcpus", default=4, help="Processors per task.")
@options.memory("14000MiB")
@options.shared_memory
@click.option("--spot/--no-spot", default=True, help="Use Spot machines.")
@click.option(
    "--on-demand/--no-on-demand", default=True, help="Use on-demand machines if Spot has none."
)
@options.several(
    "--subnet", "subnets", metavar="ID", help="Subnet of the machines", default="all of the VPC"
)
@options.several(
    "--security-group",
    "groups",
    metavar="ID",
    help="Security group of the machines",
    default="that of the default VPC",
)
@_yes
@options.as_json
def setup(yes: bool, **given: Any) -> None:
    """Show what a queue needs and lacks; with --yes, create it.

    It is one stack of CloudFormation: three roles, compute environments with and without Spot, the
    queue, a job definition. The stack costs nothing while no job runs. Run again with other
    options, the command changes what differs. 'l2i batch teardown' deletes the stack.
    """
    from l2i.launch.aws_setup import Setup, policies
    from l2i.launch.aws_setup import setup as set_up

    wanted = Setup(**given)
    if not (wanted.spot or wanted.on_demand):
        raise click.UsageError("A queue needs --spot, --on-demand, or both.")
    _show(set_up(wanted, do=yes), yes, policies(wanted.buckets, wanted.secrets.values()))


@batch.command(
    short_help="Remove what 'setup' created.", example="l2i batch teardown --queue gpu-spot --yes"
)
@_queue
@options.region
@_yes
@options.as_json
def teardown(queue: str, region: str, yes: bool) -> None:
    """Show what 'l2i batch setup' created for a queue; with --yes, remove that and nothing else."""
    from l2i.launch.aws_setup import teardown as tear_down

    _show(tear_down(queue, region, do=yes), yes)


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
    from l2i.launch.aws_setup import policies, submitter_policy

    emit_json({**policies(buckets, secrets.values()), **submitter_policy(queue)})


def _show(steps: Iterator[Step], yes: bool, rights: Any = None) -> None:
    """Print each step, then what became of them."""
    seen = []
    for step in steps:
        seen.append(step)
        if not wants_json():
            click.echo(f"{step.action:<7} {step.kind} {step.name}{step.why and ': '}{step.why}")
    n = sum(step.action != "keep" for step in seen)
    if answered({"done": yes, "steps": [asdict(s) for s in seen]}):
        return
    if rights and not yes:
        click.echo("\nRights of the tasks and of what starts them:")
        emit_json(rights)
    if not n:
        click.echo("There is nothing to do.")
    else:
        click.echo("Done." if yes else f"{n} steps; nothing is done yet: --yes does it.")
