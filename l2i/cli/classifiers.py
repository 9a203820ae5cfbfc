"""``l2i classifiers``: which classifiers there are, and whether one is understood."""

from __future__ import annotations

import time
from typing import Any

import click

from l2i.cli import options
from l2i.cli.base import Group, answered, emit_table
from l2i.errors import L2IError
from l2i.registry import CLASSIFIERS

_TRIAL_S = 5.0
# Lines of hidden layers that are shown.
_MOST = 12


@click.group(cls=Group, example="l2i classifiers check yamnet.py:load")
def classifiers() -> None:
    """Check and list classifiers, for 'l2i explain --classifier'."""


@classifiers.command("list", example="l2i classifiers list")
@options.as_json
def list_() -> None:
    """List the classifiers that installed packages offer."""
    places = {name: CLASSIFIERS.where(name) for name in CLASSIFIERS}
    if not answered(places):
        none = (
            "No installed package offers one (entry points 'l2i.classifiers'). Name your own as "
            "FILE.py:NAME, or a checkpoint as hf:FOLDER."
        )
        emit_table(["name", "where"], sorted(places.items()), none=none)


@classifiers.command(example="l2i classifiers check yamnet.py:load")
@click.argument("spec", metavar="SPEC")
@options.as_json
def check(spec: str) -> None:
    """Load a classifier, let it hear noise, and say what it is.

    SPEC is FILE.py:NAME, MODULE:NAME, hf:FOLDER, MODEL.ts, run:RUN, or an installed one. NAME is
    what l2i.wrap gave, or a function that returns it. FOLDER is a checkpoint of transformers,
    MODEL.ts TorchScript with a MODEL.json that tells its sample_rate and classes, RUN a finished
    run, whose classifier is meant.

    Hidden layers are what an interpreter can read. D, F and T are the channels, rows and frames of
    a window, or of a second.
    """
    import torch

    clf = options.load_classifier(spec)
    noise = 0.1 * torch.randn(1, round(_TRIAL_S * clf.sample_rate))
    begin = time.monotonic()
    with torch.no_grad():
        scores = clf.logits(noise.to(clf.device))
    took = time.monotonic() - begin
    report: dict[str, Any] = {
        "sample_rate": clf.sample_rate,
        "task": str(clf.task),
        "classes": list(clf.classes),
        "differentiable": clf.differentiable,
        "device": str(clf.device),
        "seconds_per_5_s_clip": took,
        "scores": list(scores.shape[1:]),
    }
    layers, why = _layers(clf)
    report["layers"] = layers
    if why:
        report["no_layers"] = why
    if answered(report):
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
    click.echo()
    if why:
        click.echo(why)
        return
    click.echo("Hidden layers; those marked * are read where none are named:")
    shown = _shown(layers)
    keys = ("name", "axes", "channels", "rows", "frames")
    rows = [["*" if f["chosen"] else "", *(f[key] for key in keys)] for f in shown]
    emit_table(["", "layer", "axes", "D", "F", "T"], rows, right=(3, 4, 5))
    if len(shown) < len(layers):
        click.echo(f"... and {len(layers) - len(shown)} more (--json has all)")


def _layers(clf: Any) -> tuple[list[dict[str, Any]], str]:
    """All hidden layers that can be read, or a sentence that says why there are none."""
    from l2i.training.interpreter import layers_of

    if not hasattr(clf, "chosen_layers"):
        return (
            [],
            "It offers no hidden layers; a classifier that l2i.wrap makes of a torch module does.",
        )
    try:
        chosen = layers_of(clf)
    except L2IError as error:
        return [], str(error)
    return [
        {
            "name": f.layer.name,
            "axes": f.layer.axes,
            "kind": f.kind,
            "channels": f.channels,
            "rows": f.rows,
            "frames": f.frames,
            # The built-in network names its own without their axes.
            "chosen": not {str(f.layer), f.layer.name}.isdisjoint(chosen),
        }
        for f in clf.layers()
    ], ""


def _shown(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are chosen, and of the others the outermost and latest, `_MOST` in all."""

    def rank(i: int) -> tuple[bool, int, int]:
        return not layers[i]["chosen"], layers[i]["name"].count("."), -i

    return [layers[i] for i in sorted(sorted(range(len(layers)), key=rank)[:_MOST])]
