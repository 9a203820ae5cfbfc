"""``l2i classifiers``: which classifiers there are, and whether one is understood."""

from __future__ import annotations

import time
from typing import Any

import click

from l2i.cli import options
from l2i.cli.base import Group, emit_json, emit_table

_TRIAL_S = 5.0


@click.group(cls=Group, example="l2i classifiers check yamnet.py:load")
def classifiers() -> None:
    """Classifiers of any kind, for 'l2i explain --classifier'."""


@classifiers.command("list", example="l2i classifiers list")
@options.as_json
def list_(as_json: bool) -> None:
    """Classifiers that installed packages offer."""
    from l2i.models.spec import installed_classifiers

    found = installed_classifiers()
    if as_json:
        emit_json(found)
    elif found:
        emit_table(["name", "where"], sorted(found.items()))
    else:
        click.echo(
            "No installed package offers one (entry points 'l2i.classifiers'). Name your own as "
            "FILE.py:NAME, or a checkpoint as hf:FOLDER."
        )


@classifiers.command(example="l2i classifiers check yamnet.py:load")
@click.argument("spec", metavar="SPEC")
@options.as_json
def check(spec: str, as_json: bool) -> None:
    """Load a classifier, let it hear noise, and say what it is.

    SPEC is FILE.py:NAME, MODULE:NAME, hf:FOLDER, run:RUN, or an installed classifier. NAME is what
    l2i.wrap gave, or a function that returns it. FOLDER is a checkpoint of transformers, RUN a
    finished run, whose classifier is meant.
    """
    import torch

    clf = options.load_classifier(spec)
    noise = 0.1 * torch.randn(1, round(_TRIAL_S * clf.sample_rate))
    begin = time.monotonic()
    with torch.no_grad():
        scores = clf.logits(noise.to(clf.device))
    took = time.monotonic() - begin
    found: dict[str, Any] = {
        "sample_rate": clf.sample_rate,
        "task": str(clf.task),
        "classes": list(clf.classes),
        "differentiable": clf.differentiable,
        "device": str(clf.device),
        "seconds_per_5_s_clip": took,
        "scores": list(scores.shape[1:]),
    }
    if as_json:
        emit_json(found)
        return
    names = ", ".join(clf.classes[:5]) + (", ..." if len(clf.classes) > 5 else "")
    way = "gates (by gradients)" if clf.differentiable else "shapley (forward passes alone)"
    for key, text in (
        ("sample rate", f"{clf.sample_rate} Hz"),
        ("task", str(clf.task)),
        ("classes", f"{len(clf.classes)}: {names}"),
        ("gradients", "yes" if clf.differentiable else "no: a black box"),
        ("explained by", way),
        ("device", str(clf.device)),
        ("a 5 s clip", f"{1000 * took:.0f} ms"),
    ):
        click.echo(f"{key:<14}{text}")
