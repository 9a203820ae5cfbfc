"""What MLflow's page of a run says at its top."""

from __future__ import annotations

import json
import math
from pathlib import Path

from l2i.recipes.opening.description import (
    DESCRIPTION,
    describe_found,
    describe_model,
    main_figures,
    table,
)
from l2i.recipes.tables.sweep_file import Sweep
from l2i.recipes.tables.sweep_table import describe_table
from l2i.run.runs import resolve_run
from l2i.run.search import RunInfo
from l2i.run.store import connect, locate
from l2i.run.view import VIEW
from tests.recipes.conftest import Finished


def _model(**changes: object) -> str:
    facts: dict[str, object] = {
        "what": "ESC-10, tested on fold 1",
        "scores": {"accuracy": 0.85, "fidelity_top1": math.nan, "average_drop": 20.4},
        "intervals": {"accuracy": (0.762, 0.925)},
        "clips": 80,
        "experiment_id": "7",
        "run_id": "abc",
        "listen": True,
    }
    return describe_model(**(facts | changes))  # type: ignore[arg-type]


def test_figures_and_links() -> None:
    """The figures that there are, with their intervals; what is undefined is left out; links go
    to this run's pages, the one to listen to only where it is."""
    text = _model()
    assert text.startswith("[**Listen to the explanations**](#/experiments/7/runs/abc/")
    assert text.splitlines()[2] == "ESC-10, tested on fold 1: accuracy **0.850**"
    assert "| Classifier accuracy | 0.850 | 0.762 to 0.925 |" in text
    assert "| AD, average drop | 20.400 |  |" in text
    assert "nan" not in text
    mode = "?workflowType=machine_learning"
    assert f"(#/experiments/7/runs/abc/artifacts/explanations/index.html{mode})" in text
    assert f"(#/experiments/7/runs/abc/artifacts/figures.html{mode})" in text
    assert "explanations" not in _model(listen=False)
    assert "Caution" not in text
    told = _model(warnings=["There are 3 test clips."])
    assert told.splitlines()[4] == "**Caution:** There are 3 test clips."


def test_a_control_stands_beside_what_it_belongs_to() -> None:
    """Removal and removal at random are one row, and one figure of the first lines."""
    text = _model(scores={"faithfulness_probability": 0.62, "random_probability": 0.1, "kept": 0.3})
    assert "faithfulness **0.620** (random 0.100), energy kept **0.300**" in text
    assert "| 0.620 (random 0.100) |" in text
    scores = {"faithfulness_probability": 0.62, "published_ff_mean": 0.2, "ff_mean": 0.5}
    assert "published faithfulness **0.620**, FF **0.500**" in _model(scores=scores)
    assert "| Published: Faithfulness, probability (median) | 0.620 |" in _model(scores=scores)
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 4


def test_main_figures_say_what_they_mean() -> None:
    """Title, unit and direction; what hangs on a threshold is the published rule's, where another
    rule explains."""
    scores = {"faithfulness_probability": 0.2, "random_probability": 0.0, "kept": 0.3}
    removal, kept = main_figures(scores)
    assert removal.meaning == "Faithfulness, probability (median) (probability): higher is better"
    assert kept.meaning.endswith("(share): lower is better")
    other, same = main_figures({**scores, "published_kept": 0.1})
    assert (other.name, same) == ("published faithfulness", kept)
    assert other.meaning == f"Published: {removal.meaning}"


def test_names_are_text() -> None:
    """What people called a setting is no markup, and breaks no table."""
    figures = {"accuracy": {"mean": 0.85, "std": 0.021, "n": 2}}
    table_of_one = {
        "children": [],
        "meaning": {"accuracy": "Classifier accuracy"},
        "table": [{"setting": "a|b", "figures": figures}],
    }
    text = describe_table(Sweep(Path("<script>"), ("a|b",), (), ()), table_of_one)
    assert "\\<script\\>" in text
    assert text.splitlines()[-1] == "| a\\|b | 0.850 ± 0.021 |"
    assert table(["x", "y"], [["1", "2"]]).splitlines() == [
        "| x | y |",
        "| :-- | --: |",
        "| 1 | 2 |",
    ]


def test_a_run_has_it(single: Finished) -> None:
    """A finished run's description has its figures; its experiment a view with their columns."""
    run = resolve_run("latest")
    scores = json.loads((single.artifacts / "scores.json").read_text())["scores"]
    text = run.tags[DESCRIPTION]
    assert f"accuracy **{scores['accuracy']:.3f}**" in text
    assert f"runs/{run.id}/artifacts/explanations/index.html" in text
    experiment = connect(locate()).get_experiment(run.experiment_id)
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{VIEW}"])
    metrics = [c.split("`")[1] for c in view["selectedColumns"] if c.startswith("metrics.")]
    assert set(metrics) & set(run.metrics)


def test_what_was_asked_is_said_in_words() -> None:
    """Several of one kind are no list of Python's, and what was not asked is left out."""
    run = RunInfo("1" * 32, "first", "demo", "1", "FINISHED", "")
    params = {"methods": ["l2i", "full"], "clips": 3, "limit": None, "protocols": []}
    text = describe_found(run, "benchmark", params, {"ff": 0.5})
    assert text.splitlines()[0].endswith(": methods l2i and full, clips 3")
    assert "0.5" in text and "[first](#/experiments/1/runs/" in text
