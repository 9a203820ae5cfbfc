"""Runs side by side: differences that are known on paper, and what cannot be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from l2i.errors import DataError, UsageError
from l2i.recipes.measuring.evaluate import evaluate
from l2i.recipes.tables.compare import _differing, _Measured, compare
from l2i.recipes.tables.paired import corrected, difference
from l2i.run.progress import Progress
from tests.recipes.conftest import Finished
from tests.stores import Said

QUIET = Progress(quiet=True)


def _folder(
    name: str, ranks: list[int], drops: list[float], clips: str = "abcdefghij", **scores: float
) -> str:
    """What `evaluate --out` leaves, by hand."""
    path = Path(name)
    path.mkdir()
    table = pd.DataFrame(
        {"clip": list(clips[: len(ranks)]), "labels": "dog", "class": "dog", "rank": ranks}
    )
    table["average_drop"] = drops
    table.to_csv(path / "clips.csv", index=False)
    own = {f"fidelity_top{k}": float(np.mean(np.array(ranks) <= k)) for k in (1, 3, 5)}
    own["accuracy"] = 1.0
    text = json.dumps({"scores": own | {"average_drop": float(np.mean(drops))} | scores})
    (path / "scores.json").write_text(text)
    return str(path)


def test_clips_of_one_recording_are_one() -> None:
    """Two recordings of two equal clips each have an interval as wide as two clips have; what is
    not finite is left out; a share has the test for shares."""
    d = np.array([0.0, 0.0, 1.0, 1.0])
    by_clip = difference("kept", np.zeros(4), d)
    by_recording = difference("kept", np.zeros(4), d, np.array(["a", "a", "b", "b"]))
    assert by_recording["interval"] == [0.0, 1.0]
    assert by_clip["interval"][0] >= 0 and by_clip["p"] == by_recording["p"] == 0.5
    infinite = difference("si_sdr", np.array([1.0, -np.inf]), np.array([3.0, -np.inf]))
    assert infinite["clips"] == 1 and infinite["difference"] == 2.0
    # Five clips won, none lost: twice 1 / 2^5.
    assert difference("fid_in", np.zeros(5), np.ones(5))["p"] == 0.0625
    none = difference("kept", np.full(2, np.nan), np.zeros(2))
    assert [line["figure"] for line in corrected([none, by_clip])] == ["kept"]
    assert corrected([by_clip, by_clip])[0]["p_holm"] == 1.0


def test_differences_on_paper() -> None:
    """Six clips on which only the second agrees: McNemar's p is 2 / 2^6. A drop that is lower by
    1 on every clip of ten: Wilcoxon's is 2 / 2^10. Three figures, so Holm's factor is 3, 2, 1."""
    first = _folder("first", [2] * 6 + [1] * 4, [5.0 + i for i in range(10)])
    drops = [4.0 + i - 0.01 * i for i in range(10)]
    second = _folder("second", [1] * 10, drops)
    comparison = compare([first, second])
    lines = {line["figure"]: line for line in comparison["differences"]}
    assert [*lines] == [
        *("accuracy", "fidelity_top1", "fidelity_top3", "fidelity_top5", "average_drop")
    ]
    top1, drop = lines["fidelity_top1"], lines["average_drop"]
    assert top1["difference"] == pytest.approx(0.6) and top1["clips"] == 10
    assert top1["p"] == pytest.approx(2 / 2**6)
    assert drop["difference"] == pytest.approx(-1.045)
    assert drop["p"] == pytest.approx(2 / 2**10)
    # Five figures, of which three do not differ at all.
    assert drop["p_holm"] == pytest.approx(5 * 2 / 2**10)
    assert top1["p_holm"] == pytest.approx(4 * 2 / 2**6)
    assert lines["accuracy"]["p_holm"] == 1.0
    low, high = drop["interval"]
    assert low <= -1.045 <= high and high - low < 0.1
    assert comparison["scores"]["fidelity_top1"] == [0.4, 1.0]


def test_clips_are_paired_by_name() -> None:
    """In another order, and with clips that the other has not: pairs are by id, over the common
    ones."""
    first = _folder("first", [1, 1, 2, 2], [1.0, 2.0, 3.0, 4.0], "abcd")
    second = _folder("second", [2, 2, 1, 1], [4.5, 3.5, 2.5, 9.0], "dcbx")
    comparison = compare([first, second])
    line = next(line for line in comparison["differences"] if line["figure"] == "average_drop")
    assert line["clips"] == 3 and line["difference"] == pytest.approx(0.5)


def test_several_classes_of_a_clip_are_one_value() -> None:
    """A clip with two classes counts once; one in which nothing was detected is left out of what
    is not defined there."""
    for name, values in (("first", [1.0, 3.0, None]), ("second", [5.0, 5.0, 7.0])):
        Path(name).mkdir()
        table = pd.DataFrame({"clip": ["a", "a", "b"], "labels": "x;y", "class": ["x", "y", None]})
        table["average_drop"] = values
        table.to_csv(f"{name}/clips.csv", index=False)
        Path(name, "scores.json").write_text('{"scores": {"average_drop": 3.0}}')
    (line,) = compare(["first", "second"])["differences"]
    assert line["clips"] == 1 and line["difference"] == pytest.approx(3.0)


def test_a_run_with_itself(single: Finished, tmp_path: Path) -> None:
    """No difference, and no significance; a run and what `evaluate` wrote of it are the same."""
    evaluate("latest", QUIET, out=tmp_path / "figures", keep=False)
    comparison = compare(["latest", str(tmp_path / "figures")], out=tmp_path / "compared")
    assert comparison["runs"] == [single.outcome.name, "figures"]
    assert comparison["differences"] and comparison["settings"] == {}
    for line in comparison["differences"]:
        assert line["difference"] == 0.0 and line["p"] == line["p_holm"] == 1.0
    table = pd.read_csv(tmp_path / "compared" / "compare.csv")
    assert table["figure"].tolist() == [line["figure"] for line in comparison["differences"]]


def test_a_page_to_listen_to_both(
    single: Finished, say: Callable[..., Said], tmp_path: Path
) -> None:
    """A dozen clips, those first where FF differs most, each by both runs, for the class that
    the first run's classifier says; in folders there are no networks to explain by."""
    page = tmp_path / "both" / "index.html"
    answer = say("compare", "latest", "latest", "--out", str(page.parent))
    assert answer.code == 0 and f"to listen to both, open {page}" in answer.err
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', text)
    held = {name: json.loads(content) for name, content in blocks}
    facts = held["facts"]
    parts = ["original", "explanation A", "explanation B", "removal A", "removal B"]
    assert [name for name, _ in facts["parts"]] == parts
    table = pd.read_csv(single.artifacts / "clips.csv")
    assert {clip["name"] for clip in facts["clips"]} <= set(table["clip"])
    assert len(facts["clips"]) == min(12, len(table))
    for number, clip in enumerate(facts["clips"]):
        assert set(held[f"media-{number}"]["sounds"]) == set(parts)
        assert set(held[f"media-{number}"]["levels"]) == set(parts)
        row = table[table["clip"] == clip["name"]].iloc[0]
        assert clip["class"] == row["class"]
        p = clip["probability"]
        assert p["original"] == pytest.approx(row["probability"], abs=1e-4)
        assert p["explanation A"] == p["explanation B"]
        assert "FF A" in clip["short"] and len(clip["lines"]) == 3
    evaluate("latest", QUIET, out=tmp_path / "figures", keep=False)
    answer = say("compare", "latest", str(tmp_path / "figures"), "--out", str(tmp_path / "one"))
    assert "figures is a folder, without networks" in answer.err
    assert not (tmp_path / "one" / "index.html").exists()


def test_where_runs_differ_most_comes_first() -> None:
    """By the fall of the class when the explanation is removed, whichever run has the greater."""
    frames = [
        pd.DataFrame({"faithfulness_probability_mean": falls}, index=["a", "b", "c"])
        for falls in ([0.1, 0.5, 0.9], [0.2, 0.9, 0.4])
    ]
    runs = [_Measured(str(i), {}, {}, f, [], pd.Series(dtype=str)) for i, f in enumerate(frames)]
    differing = _differing(runs, ["A", "B"])
    assert list(differing.items()) == [
        ("c", "faithfulness (mean) A 0.90, B 0.40"),
        ("b", "faithfulness (mean) A 0.50, B 0.90"),
        ("a", "faithfulness (mean) A 0.10, B 0.20"),
    ]


def test_methods_can_be_compared(single: Finished, tmp_path: Path) -> None:
    """Another method's figures have no fidelity; those of any mask are compared."""
    evaluate("latest", QUIET, method="full", out=tmp_path / "full", keep=False)
    comparison = compare(["latest", str(tmp_path / "full")])
    figures = {line["figure"] for line in comparison["differences"]}
    assert {"average_drop", "sparseness", "fid_in"} <= figures
    assert "fidelity_top1" not in figures
    assert comparison["scores"]["fidelity_top1"][1] is None


def test_table_fits(single: Finished, tmp_path: Path, say: Callable[..., Said]) -> None:
    """80 columns; runs of one name are told apart."""
    answer = say("compare", "latest", "latest", "latest")
    assert answer.code == 0
    assert max(map(len, answer.out.splitlines())) <= 80
    assert f"{single.outcome.name} (1)" in answer.out and f"{single.outcome.name} (3)" in answer.out
    assert "B less A" in answer.out and "C less A" in answer.out


def test_what_cannot_be_compared(single: Finished, say: Callable[..., Said]) -> None:
    """One sentence each."""
    with pytest.raises(UsageError, match="two runs or more"):
        compare(["latest"])
    empty = Path(single.folder, "nothing")
    empty.mkdir(exist_ok=True)
    with pytest.raises(DataError, match=r"has no scores.json and clips.csv"):
        compare(["latest", str(empty)])
    answer = say("compare", "latest", "lates")
    assert answer.code == 2 and "There is no run 'lates'" in answer.err


def test_other_clips() -> None:
    """Two folds have no clip in common."""
    first = _folder("first", [1], [1.0], "a")
    second = _folder("second", [1], [1.0], "b")
    with pytest.raises(DataError, match="not measured on any clip in common"):
        compare([first, second])


def test_other_answers(say: Callable[..., Said]) -> None:
    """Clips that were labelled anew are counted; runs whose classes have other names, and would be
    compared by their place, are refused."""
    first = _folder("first", [1] * 4, [1.0] * 4)
    second = _folder("second", [1] * 4, [1.0] * 4)
    table = pd.read_csv("second/clips.csv")
    table.loc[[0, 2], "labels"] = "cat"
    table.to_csv("second/clips.csv", index=False)
    assert compare([first, second])["relabelled"] == {"second": 2}
    assert compare([first, first])["relabelled"] == {}
    answer = say("compare", first, second)
    assert "2 clips have other labels in second than in first" in answer.out
    for name, classes in (("first", ["dog", "cat"]), ("second", ["cat", "hen", "fox"])):
        tree = json.loads(Path(name, "scores.json").read_text())
        tree["per_class"] = {key: {} for key in classes}
        Path(name, "scores.json").write_text(json.dumps(tree))
    answer = say("compare", first, second)
    assert answer.code == 1
    assert "second has other classes than first: missing: 'dog'; new: 'hen', 'fox'" in answer.err
