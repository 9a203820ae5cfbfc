"""The commands that measure a finished run: ground truth, overlap, noise, benchmark, components."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image

from l2i.explanation import METHODS, make_method, part_names, usual_methods
from l2i.metrics import METRICS
from l2i.metrics.statistics import wilcoxon
from l2i.recipes.measuring.evaluate import evaluate
from l2i.recipes.measuring.judging import ABSENT_SCORES, FF_SHARE, MASK_SCORES
from l2i.recipes.measuring.truth import TRUTH_SCORES
from l2i.recipes.opening.opened import open_finished
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from l2i.run.runs import list_runs, resolve_run
from l2i.run.store import connect, locate
from l2i.storage import is_output, mark_output
from l2i.training.interpreter import validate
from l2i.types import Features, Interpretation, Task
from tests.recipes.conftest import Finished, small_config
from tests.stores import Said

QUIET = Progress(quiet=True)
Say = Callable[..., Said]


@pytest.fixture(params=["single", "multi"])
def run(request: pytest.FixtureRequest) -> Finished:
    """A run on `demo` and one on `demo-multilabel`."""
    finished: Finished = request.getfixturevalue(request.param)
    return finished


def _json(answer: Said) -> Any:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


# --- ground truth -----------------------------------------------------------------------------


def test_ground_truth(run: Finished, say: Say, tmp_path: Path) -> None:
    """Figures of all and per class come from the table of pairs; the sounds kept are a mixture
    and its two parts, which add up."""
    out = tmp_path / "out"
    # The small classifier of single sounds is right on none that pauses: all are asked for.
    asked = "labels" if run.outcome.experiment == "demo" else "predicted"
    words = ("ground-truth", "latest", "--explain", asked, "--out", str(out), "--no-keep", "--json")
    truth = _json(say(*words))
    assert truth["kept"] is None
    pairs = pd.read_csv(out / "pairs.csv")
    assert len(pairs) == truth["explained"] >= 1
    for name in TRUTH_SCORES:
        means = ("time_iou", "frame_f1", "frame_auc", "pointing")
        middle = np.mean if name in means else np.median
        wanted = middle(pairs[name].dropna())
        assert truth["scores"][name] == pytest.approx(wanted, rel=1e-4), name
    for name, figures in truth["per_class"].items():
        assert figures["explained"] == (pairs["class"] == name).sum()
    assert sum(f["explained"] for f in truth["per_class"].values()) == truth["explained"]
    assert all(0 <= share <= 1 for share in pairs["energy_share"].dropna())
    places = sorted((out / "sounds").iterdir())
    assert 1 <= len(places) <= 4
    for place in places:
        x = {name: soundfile.read(place / f"{name}.wav")[0] for name in ("mixture", "class_part")}
        other, _ = soundfile.read(place / "other_part.wav")
        np.testing.assert_allclose(x["class_part"] + other, x["mixture"], atol=3e-4)


def test_ground_truth_of_what_is_there(multi: Finished, say: Say) -> None:
    """Asked for the labels, every clip is explained for every class it has, detected or not."""
    truth = _json(
        say("ground-truth", "latest", "--explain", "labels", "--no-keep", "--json", "--sounds", "0")
    )
    assert truth["scores"]["present"] == 1.0
    table = pd.read_csv(multi.artifacts / "clips.csv").drop_duplicates("clip")
    assert truth["explained"] == sum(len(text.split(";")) for text in table["labels"])


def test_ground_truth_full_mask_keeps_all(single: Finished, say: Say) -> None:
    """The reference that any explanation is held against: all is left of both parts."""
    truth = _json(
        say("ground-truth", "latest", "--method", "full", "--no-keep", "--json", "--sounds", "0")
    )
    assert truth["scores"]["class_left"] == pytest.approx(0, abs=1e-3)
    assert truth["scores"]["other_left"] == pytest.approx(0, abs=1e-3)
    assert truth["scores"]["si_sdr_improvement"] == pytest.approx(0, abs=1e-2)


# --- overlap ----------------------------------------------------------------------------------


def test_overlap(run: Finished, say: Say, tmp_path: Path) -> None:
    """The louder the second clip, the worse the first one's explanation fares; figures come from
    the table; the same seed draws the same pairs."""
    words = ("overlap", "latest", "--mixtures", "6", "--gain-db", "-30", "--gain-db", "20")
    words += ("--class", "first", "--no-keep", "--json")
    overlap = _json(say(*words, "--out", str(tmp_path / "out")))
    soft, loud = overlap["conditions"]
    assert (soft["gain_db"], loud["gain_db"]) == (-30, 20)
    assert soft["scores"]["present"] == 1.0
    assert soft["scores"]["si_sdr"] > loud["scores"]["si_sdr"]
    assert soft["scores"]["energy_share"] > 0.9 > loud["scores"]["energy_share"]
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    for condition in (soft, loud):
        mine = pairs[pairs["gain_db"] == condition["gain_db"]]
        assert len(mine) == condition["explained"] >= 6
        wanted = np.median(mine["si_sdr"])
        assert condition["scores"]["si_sdr"] == pytest.approx(wanted, rel=1e-4)
    assert {p.name for p in (tmp_path / "out" / "sounds").iterdir()} == {
        "gain-30.0dB",
        "gain+20.0dB",
    }
    again = _json(say(*words))
    assert again["conditions"] == overlap["conditions"]
    others = _json(say(*words, "--seed", "1"))
    assert others["conditions"] != overlap["conditions"]


def test_overlap_of_named_clips(single: Finished, say: Say, tmp_path: Path) -> None:
    """Two clips by their ids, in their order; the level between them is the gain asked for."""
    table = pd.read_csv(single.artifacts / "clips.csv")
    first = table["clip"][0]
    second = table["clip"][table["labels"] != table["labels"][0]].iloc[0]
    words = ("overlap", "latest", "--pair", first, second, "--gain-db", "-12", "--no-keep")
    overlap = _json(
        say(*words, "--level", "energy", "--class", "first", "--out", str(tmp_path), "--json")
    )
    assert overlap["mixtures"] == 1
    (place,) = (tmp_path / "sounds" / "gain-12.0dB").iterdir()
    level = [
        20 * math.log10(np.std(soundfile.read(place / f"{name}_part.wav")[0]))
        for name in ("class", "other")
    ]
    assert level[0] - level[1] == pytest.approx(12, abs=0.2)
    answer = say(*words[:3], first, "no-such-clip", "--no-keep")
    assert answer.code == 2 and "has no clip 'no-such-clip'" in answer.err


def test_overlap_with_noise(single: Finished, say: Say) -> None:
    """White noise instead of second clips: as far below the clip as asked."""
    overlap = _json(
        say(
            *("overlap", "latest", "--mixtures", "4", "--noise-db", "6", "--class", "first"),
            *("--method", "full", "--no-keep", "--json"),
        )
    )
    (condition,) = overlap["conditions"]
    # The clip's share of the mixture's energy is 1 / (1 + 10^-0.6).
    assert condition["scores"]["energy_share"] == pytest.approx(1 / (1 + 10**-0.6), abs=0.02)
    assert condition["scores"]["si_sdr"] == pytest.approx(6.0, abs=0.5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--class", "sirren"), "knows no class 'sirren'; did you mean 'siren'?"),
        (("--second-fold", "9"), "no clips in fold 9"),
        (("--method", "magic"), "There is no explanation method 'magic'"),
        (("--mixtures", "0"), "0 is not in the range"),
    ],
)
def test_overlap_of_what_is_not_there(
    single: Finished, say: Say, words: tuple[str, ...], sentence: str
) -> None:
    """One sentence, and exit code 2."""
    answer = say("overlap", "latest", *words, "--no-keep")
    assert answer.code == 2
    assert sentence in " ".join(answer.err.split())
    assert "Traceback" not in answer.err


# --- noise ------------------------------------------------------------------------------------


def test_noise(run: Finished, say: Say, tmp_path: Path) -> None:
    """Without noise, the run's own figures; with more of it, explanations are further from the
    clip. All in a table and a picture."""
    noise = _json(
        say(
            *("noise", "latest", "--snr-db", "30", "--snr-db", "-10", "--colour", "pink"),
            *("--out", str(tmp_path), "--no-keep", "--json"),
        )
    )
    none, little, much = noise["conditions"]
    assert none["colour"] is None and none["snr_db"] is None
    kept = json.loads((run.artifacts / "scores.json").read_text())["scores"]
    for name, value in none["scores"].items():
        if not name.startswith(("random", "absent")):  # What is drawn hangs on the clip's number.
            assert value == pytest.approx(kept[name], rel=1e-3), name
    mixture = [c["scores"]["si_sdr"] - c["scores"]["si_sdr_improvement"] for c in (little, much)]
    # Medians of a difference are not differences of medians, but near.
    assert mixture[0] > mixture[1] + 20
    assert little["scores"]["si_sdr"] > much["scores"]["si_sdr"]
    table = pd.read_csv(tmp_path / "noise.csv")
    assert table["snr_db"].tolist()[1:] == [30, -10]
    assert Image.open(tmp_path / "noise.png").size[0] > 300


# --- all methods ------------------------------------------------------------------------------


def test_benchmark(run: Finished, say: Say, tmp_path: Path) -> None:
    """All usual methods, one table; each metric says which way is better. A full mask changes
    nothing, and is the least sparse."""
    # This run has no gates.
    methods = [name for name in usual_methods() if "gates" not in part_names(METHODS[name])]
    if run.outcome.experiment != "demo":  # Those that differ where there are several classes.
        methods = ["l2i", "full", "saliency", "gradcam"]
    words = [word for name in methods for word in ("--method", name)]
    words += ["--limit", "5", "--out", str(tmp_path), "--no-keep", "--json"]
    benchmark = _json(say("benchmark", "latest", *words))
    assert list(benchmark["methods"]) == methods
    absent = ABSENT_SCORES if run.outcome.experiment != "demo" else ()
    assert benchmark["metrics"] == [*MASK_SCORES, FF_SHARE, *TRUTH_SCORES, *absent]
    for name, means in benchmark["meaning"].items():
        assert means["better"] == METRICS[name].better != ""
    full = benchmark["methods"]["full"]["scores"]
    assert full["fid_in"] == 1.0 and full["sparseness"] == pytest.approx(0, abs=1e-6)
    assert full["average_drop"] == pytest.approx(0, abs=0.01)
    for name, method in benchmark["methods"].items():
        if name not in ("full", "l2i-linear"):  # The latter keeps all where less is not enough.
            assert method["scores"]["sparseness"] > 0.05, name
    table = pd.read_csv(tmp_path / "benchmark.csv").set_index("method")
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    for name in methods:
        mine = pairs[pairs["method"] == name]
        assert table["ff_mean"][name] == pytest.approx(mine["ff_mean"].mean(), rel=1e-4, abs=1e-5)


def test_the_same_evaluation_of_every_method(run: Finished, tmp_path: Path) -> None:
    """`evaluate --method` and `benchmark` agree, and L2I has the figures of the run itself."""
    scores = evaluate("latest", QUIET, method="l2i", keep=False)["scores"]
    from l2i.recipes.tables.benchmark import benchmark

    methods = benchmark("latest", QUIET, methods=["l2i", "saliency"], keep=False)["methods"]
    for name in MASK_SCORES:
        assert methods["l2i"]["scores"][name] == pytest.approx(scores[name], rel=1e-4, abs=1e-4)
    other = evaluate("latest", QUIET, method="saliency", out=tmp_path, keep=False)
    for name in MASK_SCORES:
        assert other["scores"][name] == pytest.approx(methods["saliency"]["scores"][name], rel=1e-4)
    # Beside them stands what the classifier is worth, whatever explains it.
    more = (
        {"accuracy"} if run.outcome.scores.keys() & {"accuracy"} else {"auprc_macro", "auprc_micro"}
    )
    more |= set(ABSENT_SCORES) if "auprc_macro" in more else set()
    assert set(other["scores"]) == {*MASK_SCORES, FF_SHARE, *more}
    for name in more & set(ABSENT_SCORES):
        for method, values in (("l2i", scores), ("saliency", other["scores"])):
            assert methods[method]["scores"][name] == values[name]
    table = pd.read_csv(tmp_path / "clips.csv")
    assert table["fid_in"].mean() == pytest.approx(other["scores"]["fid_in"])


def test_all_figures_under_several_protocols(bench: Path, say: Say, tmp_path: Path) -> None:
    """Each protocol its own table; a probe's figures are means of their columns; a mask of ones has
    no fall at any size and forgets nothing; the evaluator is another seed's classifier."""
    for seed in (1, 0):
        train(small_config("demo", f"run.seed={seed}", f'run.name="seed{seed}"'), QUIET)
    out = tmp_path / "out"
    words = ("benchmark", "seed0", "--method", "l2i", "--method", "full", "--all", "--no-keep")
    words += ("--evaluator", "seed1", "--repeats", "2", "--limit", "4")
    for name in ("clean", "mix0", "noise6"):
        words += ("--protocol", name)
    benchmark = _json(say(*words, "--out", str(out), "--json"))
    assert list(benchmark["protocols"]) == ["clean", "mix0", "noise6"]
    assert benchmark["methods"] == benchmark["protocols"]["clean"]
    pairs = pd.read_csv(out / "pairs.csv")
    for name, methods in benchmark["protocols"].items():
        full, own = methods["full"]["scores"], methods["l2i"]["scores"]
        assert full["kept"] == pytest.approx(1.0) and own["kept"] < 0.9
        assert full["ff_at_25"] == pytest.approx(0, abs=1e-4)
        mine = pairs[(pairs["method"] == "l2i") & (pairs["protocol"] == name)]
        for figure in ("ff_at_25", "insertion", "spectrogram_ff_mean", "agreed", "encoded"):
            assert own[figure] == pytest.approx(mine[figure].mean(), rel=1e-3, abs=1e-5), figure
        ratio = mine["ff_mean"].mean() / mine["probability"].mean()
        assert own["ff_share"] == pytest.approx(ratio, rel=1e-3)
        low, high = methods["l2i"]["intervals"]["ff_mean"]
        assert low <= own["ff_mean"] <= high
    full = benchmark["methods"]["full"]["scores"]
    assert full["randomised"] == 1.0 and full["contrast_absent"] == pytest.approx(0, abs=1e-9)
    clean = pairs[pairs["protocol"] == "clean"]
    assert clean.groupby("method")["randomised"].count().tolist() == [2, 2]
    # What takes further explanations is asked once.
    assert "randomised" not in benchmark["protocols"]["mix0"]["full"]["scores"]
    means = pairs[pairs["method"] == "full"].groupby("protocol")["probability"].mean()
    assert means.nunique() == 3, "each hears something else"
    answer = say(*words[:6], "--all", "--limit", "2", "--repeats", "1", "--no-keep", "-q")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
    assert "95 % interval" in answer.out
    answer = say("benchmark", "seed0", "--evaluator", "seed0", "--no-keep")
    assert answer.code == 2 and "is the run itself" in answer.err
    answer = say("benchmark", "seed0", "--protocol", "mix1", "--no-keep")
    assert answer.code == 2 and "'mix1' is not one of" in answer.err


def test_an_evaluator_at_home_with_masks(single: Finished, say: Say) -> None:
    """The run's own classifier, fine-tuned; the ratio of the falls is in the table, and the run's
    own figures are as they are without it."""
    words = ("benchmark", "latest", "--method", "full", "--limit", "3", "--no-keep", "--json")
    scores = _json(say(*words, "--evaluator", "random-masks"))["methods"]["full"]["scores"]
    assert scores["agreed"] > 0
    assert scores["transfer"] == pytest.approx(scores["other_ff"] / scores["agreed_ff"], rel=1e-6)
    plain = _json(say(*words))["methods"]["full"]["scores"]
    assert "transfer" not in plain
    assert {k: scores[k] for k in plain} == pytest.approx(plain)


def test_benchmark_table_fits(single: Finished, say: Say) -> None:
    """80 columns, one line per method, the direction in each head."""
    answer = say("benchmark", "latest", "--method", "full", "--method", "random", "--no-keep", "-q")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("AD↓" in line and "AI↑" in line for line in lines)
    assert [line.split()[0] for line in lines if line.startswith(("full", "random"))]


def test_methods_against_another_one(run: Finished, say: Say, tmp_path: Path) -> None:
    """Differences are of clips, the mean of what is explained of each, by the table of pairs; the
    method is judged although nobody named it; p is corrected for the number of figures, and with
    itself nothing is compared."""
    words = ("benchmark", "latest", "--method", "loudest", "--limit", "6", "--no-keep")
    benchmark = _json(say(*words, "--against", "full", "--out", str(tmp_path), "--json"))
    assert list(benchmark["methods"]) == ["loudest", "full"] and benchmark["against"] == "full"
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    lines = {line["figure"]: line for line in benchmark["differences"]}
    assert {line["method"] for line in lines.values()} == {"loudest"}
    for figure in ("kept", "ff_mean", "complexity"):
        each = pairs.groupby(["method", "scene"])[figure].mean()
        d = (each["loudest"] - each["full"]).to_numpy()
        line = lines[figure]
        assert line["clips"] == len(d) and line["difference"] == pytest.approx(d.mean(), rel=1e-3)
        assert line["interval"][0] <= line["difference"] <= line["interval"][1]
        assert line["p"] == pytest.approx(wilcoxon(d), rel=1e-6)
        assert line["p"] <= line["p_holm"] <= min(1.0, len(lines) * line["p"] + 1e-12)
    assert lines["kept"]["difference"] < -0.3
    table = pd.read_csv(tmp_path / "differences.csv").set_index("figure")
    assert table["low"]["kept"] == pytest.approx(lines["kept"]["interval"][0], rel=1e-4)
    answer = say(*words, "--against", "full", "-q")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80
    assert "loudest less full, over" in answer.out and "mean difference [95 %]" in answer.out
    answer = say("benchmark", "latest", "--method", "full", "--against", "full", "--no-keep")
    assert answer.code == 2 and "no method to compare with 'full'" in answer.err
    answer = say("benchmark", "latest", "--method", "full", "--against", "fully", "--no-keep")
    assert answer.code == 2 and "did you mean 'full'" in answer.err


# --- components -------------------------------------------------------------------------------


def test_components(run: Finished, say: Say, tmp_path: Path) -> None:
    """A table of classes by components, a sound of each, pictures; the component that speaks
    most for a class is the table's greatest."""
    components = _json(say("components", "latest", "--out", str(tmp_path), "--no-keep", "--json"))
    table = pd.read_csv(tmp_path / "relevance.csv", index_col="class")
    assert table.shape[1] == 16
    assert float(table.abs().max().max()) <= 1.0
    for name, best in components["classes"].items():
        row = table.loc[name].to_numpy()
        if best:
            assert best[0]["component"] == int(row.argmax())
            assert best[0]["relevance"] == pytest.approx(row.max(), abs=1e-3)
    assert is_output(tmp_path)
    there = (tmp_path / "sounds").stat().st_mode
    (tmp_path / "new").mkdir()
    assert there == (tmp_path / "new").stat().st_mode, "the user's umask decides who may read them"
    for k in range(16):
        x, rate = soundfile.read(tmp_path / "sounds" / f"component-{k:03d}.wav")
        assert rate == 8000 and np.isfinite(x).all()
    for name in ("relevance", "spectra", "map"):
        assert Image.open(tmp_path / f"{name}.png").size[0] > 300
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', text)
    page = {name: json.loads(content) for name, content in blocks}
    assert [c["class"] for c in page["facts"]["clips"]] == list(components["classes"])
    for number, best in enumerate(components["classes"].values()):
        assert list(page[f"media-{number}"]["sounds"]) == [str(b["component"]) for b in best]
    for item in components["components"]:
        assert 0 <= item["peak_hz"] <= 4000
        levels = [c["activation"] for c in item["clips"]]
        assert levels == sorted(levels, reverse=True)


def test_silent_clips_excite_no_component(single: Finished, say: Say, tmp_path: Path) -> None:
    """The loudest clip of no component, in no mean of a class, and counted; the rest is what it
    is without them."""
    words = ("components", "latest", "--no-keep", "--json", "--clips", "test", "--top", "99")
    before = _json(say(*words, "--no-sounds"))
    opened = open_finished("latest", QUIET)
    clips, array = opened.material.split.test, opened.material.waves.array
    silent = {clips[0].id, clips[3].id}
    stored = np.memmap(array.filename, array.dtype, "r+", array.offset, array.shape)
    stored[opened.material.rows([clips[0], clips[3]])] = 0
    stored.flush()
    answer = say(*words, "--out", str(tmp_path))
    assert f"Silent clips are left out: 2 of {len(clips)}." in answer.err
    after = _json(answer)
    assert (after["silent"], after["clips"]) == (2, len(clips) - 2)
    for old, new in zip(before["components"], after["components"], strict=True):
        wanted = [c for c in old["clips"] if c["clip"] not in silent]
        assert [c["clip"] for c in new["clips"]] == [c["clip"] for c in wanted]
        sound, _ = soundfile.read(tmp_path / "sounds" / f"component-{new['component']:03d}.wav")
        assert sound.any() or not new["clips"][0]["activation"]
    stored[:] = 0
    stored.flush()
    answer = say(*words)
    assert answer.code == 1 and f"All {len(clips)} clips are silent" in answer.err


def test_sounds_in_a_folder_of_the_users(single: Finished, say: Say, tmp_path: Path) -> None:
    """They are marked as results, lest a data set take them for a class; the folder is not."""
    (tmp_path / "a.txt").write_text("")
    words = ("overlap", "latest", "--mixtures", "2", "--class", "first", "--no-keep", "--quiet")
    assert say(*words, "--out", str(tmp_path)).code == 0
    assert is_output(tmp_path / "sounds") and not is_output(tmp_path)


# --- what is kept -----------------------------------------------------------------------------


def test_what_is_found_is_kept_under_the_run(single: Finished, say: Say) -> None:
    """A run of its own in MLflow, a child of the one it is about, with its figures and files;
    `latest` is still the training, and a child cannot be explained."""
    before = [info.id for info in list_runs()]
    overlap = _json(say("overlap", "latest", "--mixtures", "3", "--class", "first", "--json"))
    client = connect(locate())
    made = client.get_run(overlap["kept"])
    assert made.info.status == "FINISHED"
    assert made.data.tags["mlflow.parentRunId"] == single.outcome.run_id
    assert made.data.tags["l2i.kind"] == "overlap"
    assert made.data.params["measured"] == single.outcome.name
    wanted = overlap["conditions"][0]["scores"]["si_sdr"]
    assert made.data.metrics["overlap/si_sdr"] == pytest.approx(wanted)
    assert {a.path for a in client.list_artifacts(overlap["kept"])} >= {"overlap.json", "pairs.csv"}
    assert resolve_run("latest").id == single.outcome.run_id
    assert [info.id for info in list_runs()] == before
    answer = say("evaluate", overlap["kept"])
    assert answer.code == 2
    assert "of kind 'overlap' and has no networks; it is about run" in " ".join(answer.err.split())


def test_a_place_that_cannot_be_written_is_told_first(
    single: Finished, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any clip is explained, not after all were."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("l2i.recipes.measuring.overlap.judge_scenes", None)
    answer = say("overlap", "latest", "--out", str(tmp_path / "file" / "below"))
    assert answer.code == 1 and "Traceback" not in answer.err and "file" in answer.err
    (tmp_path / "theirs").mkdir()
    mark_output(tmp_path / "theirs", "0123456789ab", "other")
    (tmp_path / "theirs" / "overlap.json").write_text("{}")
    answer = say("overlap", "latest", "--out", str(tmp_path / "theirs"))
    assert answer.code == 1 and "what run other (01234567) gave" in " ".join(answer.err.split())


# --- presets ----------------------------------------------------------------------------------


def test_presets(single: Finished, say: Say, tmp_path: Path) -> None:
    """A file's options are the command's; the command line wins over the file."""
    path = tmp_path / "four.toml"
    path.write_text('[overlap]\nmixtures = 3\ngain-db = [0.0, -6.0]\nlevel = "energy"\n')
    words = ("overlap", "latest", "--preset", str(path), "--no-keep", "--json")
    overlap = _json(say(*words))
    assert overlap["mixtures"] == 3
    assert [c["gain_db"] for c in overlap["conditions"]] == [0, -6]
    assert overlap["settings"]["level"] == "energy"
    assert _json(say(*words, "--mixtures", "2"))["mixtures"] == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[noise]\nseed = 1\n", "no table [overlap] alone"),
        ("[overlap]\nmixture = 3\n", "'mixture' (did you mean 'mixtures'?)"),
        ("[overlap]\ngains_db = 3\n", "did you mean 'gain-db'?"),
        ('[overlap]\nmixtures = "many"\n', "'many' is not a valid integer"),
        ("[overlap\n", "cannot be read"),
        (None, "There is no file"),
    ],
)
def test_presets_that_are_wrong(say: Say, tmp_path: Path, text: str | None, sentence: str) -> None:
    """What, where, what to do; exit code 2."""
    path = tmp_path / "preset.toml"
    if text is not None:
        path.write_text(text)
    answer = say("overlap", "latest", "--preset", str(path))
    assert answer.code == 2
    assert sentence in " ".join(answer.err.split())


# --- a mean is over all clips -----------------------------------------------------------------


def test_validation_figures_do_not_hang_on_the_last_batch() -> None:
    """Seven clips in batches of three are seven clips: each counts once."""

    class Held:
        frames = 5

        def __len__(self) -> int:
            return 7

        def batch(self, rows: torch.Tensor, device: object) -> tuple[Any, ...]:
            g = torch.Generator().manual_seed(0)
            logits, h = torch.randn(7, 3, generator=g), torch.rand(7, 4, 5, generator=g)
            audible = torch.ones(7, 5, dtype=torch.bool)
            return Features(logits[rows], (h[rows],)), audible[rows], h[rows], torch.ones(7)[rows]

    class Network(torch.nn.Module):
        def forward(self, maps: tuple[torch.Tensor, ...], *_: object) -> Interpretation:
            z = maps[0].mean(2)
            return Interpretation(maps[0], z, z[:, :3])

    figures = [
        validate(
            Network(),  # type: ignore[arg-type]
            Held(),
            torch.eye(4),
            4,
            Task.SINGLE_LABEL,
            torch.device("cpu"),
            torch.float32,
            size,
        )
        for size in (3, 7, 1)
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    assert figures[2] == pytest.approx(figures[1], rel=1e-5)


def test_noise_explains_each_clip_once(
    single: Finished, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a method gives is measured alone and against the noise; what is asked twice is done
    once."""
    made: list[str] = []

    def counted(name: str, *rest: Any) -> Any:
        made.append(name)
        return make_method(name, *rest)

    monkeypatch.setattr("l2i.recipes.measuring.truth.make_method", counted)
    words = [*("--limit", "2", "--method", "loudest"), *2 * ("--snr-db", "0", "--colour", "white")]
    noise = _json(say("noise", "latest", *words, "--no-keep", "--json"))
    assert made == ["loudest", "loudest"] and len(noise["conditions"]) == 2
    assert "si_sdr" in noise["conditions"][1]["scores"]


def test_a_gain_given_twice_is_measured_once(single: Finished, say: Say) -> None:
    """Its sounds would be written over each other."""
    words = ["--mixtures", "2", *2 * ("--gain-db", "-6")]
    overlap = _json(say("overlap", "latest", *words, "--no-keep", "--json"))
    assert len(overlap["conditions"]) == 1
