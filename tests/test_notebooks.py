"""The notebooks run from top to bottom, and say what they promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "experiments" / "notebooks").glob("*.ipynb"))


def _cells(path: Path) -> list[str]:
    tree = json.loads(path.read_text(encoding="utf-8"))
    assert tree["nbformat"] == 4
    assert not any(cell.get("outputs") for cell in tree["cells"]), "outputs are not kept"
    return ["".join(cell["source"]) for cell in tree["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell of code, in order, in one namespace."""
    told: dict[str, Any] = {"__name__": "notebook"}
    for cell in _cells(path):
        exec(compile(cell, path.name, "exec"), told)
    e = told["e"]
    assert e.target == "bell" and e.holds
    assert e.probabilities["bell"].input > 0.5
    assert e._repr_html_().count("<audio") == 3
    figures, table = told["figures"]["value"], told["table"]
    assert figures["fidelity_top1"] > 0.3, "of eight classes, after a few epochs"
    assert table.loc["gates", "ff_mean"] > table.loc["random", "ff_mean"]
    out = capsys.readouterr().out
    assert out.count("bell") == 2 and "% of the explanation, strongest at" in out
