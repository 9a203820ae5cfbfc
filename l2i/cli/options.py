"""Options that several commands share, worded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

__all__ = [
    "as_json",
    "config_file",
    "data_dir",
    "device",
    "overrides",
    "precision",
    "quiet",
    "resolved",
    "show_scores",
]

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

data_dir: _Decorator = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The data set's folder, or the shelf it stands on.  [default: the user's cache]",
)
device: _Decorator = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="What to compute on.  [default: auto]",
)
precision: _Decorator = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
    help="Of the networks' arithmetic.  [default: float32]",
)
config_file: _Decorator = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A TOML file with settings that differ.",
)
overrides: _Decorator = click.option(
    "-o",
    "--override",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting; may be given several times.",
)
quiet: _Decorator = click.option("-q", "--quiet", is_flag=True, help="No progress, only results.")
as_json: _Decorator = click.option("--json", "as_json", is_flag=True, help="Results as JSON.")


def resolved(path: Path | None) -> str | None:
    """A folder as one address, whatever the current folder is later; None stays None."""
    return str(path.expanduser().resolve()) if path else None


def show_scores(scores: Mapping[str, float | None]) -> None:
    """A table of figures, each with its unit and which way is better."""
    from l2i.cli.base import emit_table
    from l2i.metrics import METRICS

    rows = []
    for name, metric in METRICS.items():
        value = scores.get(name)
        if name in scores:
            shown = "not defined" if value is None or value != value else f"{value:.4f}"
            rows.append([metric.title, shown, metric.unit, metric.better])
    emit_table(["figure", "value", "unit", "better"], rows, right=[1])
