"""`l2i runs`: filters, and what is removed for good."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from l2i.config import resolve
from l2i.run.runs import list_runs, register, resolve_run
from l2i.run.store import Store
from l2i.run.tracker import open_run
from tests.stores import Said


def _make(name: str, kind: str = "train", experiment: str = "demo", **more: str) -> str:
    tags = {"l2i.kind": kind, **{k if "." in k else f"l2i.{k}": v for k, v in more.items()}}
    with open_run(experiment=experiment, name=name, signature=name, tags=tags) as run:
        run.final({"test/accuracy": 0.5 if name == "weak" else 0.9})
        note = Path(f"{name}.txt")
        note.write_text("x" * 1000)
        run.artifact(note, "model")
        (run.folder / "last.bin").write_bytes(b"0" * 500)
        return run.run_id


def _names(answer: Said) -> list[str]:
    assert answer.code == 0, answer.err
    return [run["name"] for run in json.loads(answer.out)]


def test_filters(store: Store, say: Callable[..., Said]) -> None:
    """By state, kind, tag and MLflow's own words; all at once; what fits none is no error."""
    _make("weak", dataset="esc10", fold="1")
    _make("good", dataset="esc10", fold="2")
    _make("noisy", kind="noise", dataset="esc10")
    with pytest.raises(RuntimeError), open_run(experiment="demo", name="broken", signature="b"):
        raise RuntimeError("planted")
    assert _names(say("runs", "--json")) == ["broken", "good", "weak"]
    assert _names(say("runs", "--status", "failed", "--json")) == ["broken"]
    assert _names(say("runs", "--kind", "noise", "--json")) == ["noisy"]
    assert _names(say("runs", "--kind", "all", "--json")) == ["broken", "noisy", "good", "weak"]
    assert _names(say("runs", "--tag", "fold=2", "--json")) == ["good"]
    assert _names(say("runs", "--tag", "l2i.fold=1", "--tag", "dataset=esc10", "--json")) == [
        "weak"
    ]
    assert _names(say("runs", "--where", "metrics.`test/accuracy` > 0.7", "--json")) == ["good"]
    for where in ("accuracy > 0.7", "test/accuracy>=0.9", "metrics.accuracy > .8 and accuracy < 1"):
        assert _names(say("runs", "--where", where, "--json")) == ["good"], where
    answer = say("runs", "--tag", "fold=7")
    assert answer.code == 0 and answer.err == "No run fits.\n"


def test_children_stand_below_their_parent(store: Store, say: Callable[..., Said]) -> None:
    """A sweep's trainings, and what was measured of one; whoever sorts by a figure has one list,
    and a child whose parent is not listed stands alone."""
    above = _make("above", kind="sweep")
    below = {"mlflow.parentRunId": above}
    left, _ = (_make(name, **below) for name in ("left", "right"))
    _make("noisy", kind="noise", **{"mlflow.parentRunId": left})
    _make("alone")

    def names(*words: str) -> list[str]:
        lines = say("runs", *words).out.splitlines()[1:]
        return [line.split("demo")[0][8:].rstrip()[2:] for line in lines]

    assert names("--kind", "all") == ["alone", "above", "└ right", "└ left", "  └ noisy"]
    assert names() == ["alone", "above", "└ right", "└ left"]
    assert names("--sort", "accuracy", "left") == ["left"]
    assert names("left") == ["left"]
    assert _names(say("runs", "--kind", "all", "--json")) == [
        *("alone", "noisy", "right", "left", "above")
    ]


def _scored(name: str, experiment: str = "demo", method: str = "l2i", **scores: float) -> None:
    tags = {"l2i.kind": "train", "l2i.dataset": "esc10", "l2i.method": method}
    with open_run(experiment=experiment, name=name, signature=name, tags=tags) as run:
        run.final({key.replace("__", "/"): value for key, value in scores.items()})


def test_the_best_come_first(store: Store, say: Callable[..., Said]) -> None:
    """By a figure's name in the table, on pages or in MLflow: the highest first, or the lowest
    where that is better; a run without it is last, and the limit cuts the worst. A figure that the
    table lacks has a column then."""
    _scored("a", test__ff_mean=0.2, test__kept=0.5, test__accuracy=0.7, test__fidelity_top1=0.9)
    _scored("none")
    _scored("b", test__ff_mean=0.9, test__kept=0.1, test__accuracy=0.6)
    for word in ("ff_mean", "FF", "test/ff_mean", "test/FF"):
        assert _names(say("runs", "--sort", word, "--json")) == ["b", "a", "none"]
    assert _names(say("runs", "--sort", "energy kept", "--json")) == ["b", "a", "none"]
    assert _names(say("runs", "--sort", "Accuracy", "--json")) == ["a", "b", "none"]
    for word in ("fidelity", "top-1 fidelity", "fidelity_top1"):
        assert _names(say("runs", "--sort", word, "--json"))[0] == "a"
    assert _names(say("runs", "--sort", "kept", "--limit", "1", "--json")) == ["b"]
    head, first, *_ = say("runs", "--sort", "ff_mean").out.splitlines()[-4:]
    assert head.split()[-3:] == ["top-1", "fidelity", "FF"]
    assert first.split()[-2:] == ["0.600", "0.900"]
    answer = say("runs", "--sort", "ff_maen")
    assert answer.code == 2 and answer.out == ""
    assert (
        "no run of this list has a figure 'ff_maen'; did you mean 'ff_mean'?" in answer.err.lower()
    )


def test_words_say_which_runs(store: Store, say: Callable[..., Said]) -> None:
    """Each of them is part of a name, an experiment, a data set or a method, whatever the case;
    options stand before or after. Filtering comes before the limit. A command that is mistyped is
    such a word, and ends with 2 where nothing fits it."""
    _scored("first", method="gated-l2i", test__accuracy=0.9)
    _scored("second", experiment="birds", test__accuracy=0.8)
    _scored("third", method="gated-l2i", test__accuracy=0.7)
    assert _names(say("runs", "GATED", "--json")) == ["third", "first"]
    assert _names(say("runs", "--json", "esc10", "bird")) == ["second"]
    assert _names(say("runs", "gated-l2i", "irs", "--limit", "1", "--json")) == ["first"]
    assert _names(say("runs", "l2i", "--sort", "accuracy", "--json")) == [
        *("first", "second", "third")
    ]
    assert _names(say("runs", "demogated", "--json")) == [], "no word reaches over two of them"
    answer = say("runs", "shwo", "first")
    assert (answer.code, answer.out) == (2, "")
    assert "No run fits 'shwo first'. Did you mean 'l2i runs show'?" in answer.err
    assert "Did you mean 'l2i compare'?" in say("runs", "compare", "birds").err
    answer = say("runs", "birds", "first")
    assert answer.code == 0 and answer.err.startswith("No run fits; 'l2i runs --help'")
    assert say("runs", "show", "first").out.startswith("Run first (")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--where", "accuracy is high"), "MLflow does not understand 'accuracy is high'"),
        (("--tag", "fold"), "'fold' is not KEY=VALUE"),
        (("--tag", "a=it's"), "has no quotes"),
        (("--sort", "a`b"), "has no back-tick: test/a`b."),
        (("--status", "dead"), "'dead' is not one of"),
    ],
)
def test_filters_that_are_none(
    store: Store, say: Callable[..., Said], words: tuple[str, str], sentence: str
) -> None:
    """One sentence, exit code 2, no traceback."""
    _make("one")
    answer = say("runs", *words)
    assert answer.code == 2
    assert sentence in answer.err and "Traceback" not in answer.err


def test_a_run_in_full(store: Store, say: Callable[..., Said]) -> None:
    """Figures of test clips with which way is better; of the settings those that differ from the
    preset, and all of them on request; of a run about another one all that there is."""
    config = resolve(dataset="demo", overrides=["interpreter.pooling=max", "run.seed=3"])
    with open_run(experiment="demo", name="a", signature="a", params=config.flat()) as run:
        run.final({"test/kept": 0.25, "interpreter/reconstruction": 0.5})
    lines = say("runs", "show", "a").out.splitlines()
    assert "test/kept                    0.25  ↓  energy kept" in lines
    assert "interpreter/reconstruction    0.5" in lines
    start = lines.index("parameter            value")
    assert [line.split() for line in lines[start + 1 : start + 4]] == [
        *(["dataset.name", "demo"], ["interpreter.pooling", "max"], ["run.seed", "3"])
    ]
    assert "settings are as the preset of demo has them; --all shows them." in lines[start + 4]
    whole = say("runs", "show", "a", "--all").out
    assert "interpreter.epochs" in whole and "--all shows them" not in whole
    with open_run(experiment="demo", name="b", signature="b", params={"hz": 2000}):
        pass
    assert "hz         2000" in say("runs", "show", "b").out


def test_garbage(store: Store, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is in the bin goes, with its files and what it left here, and only when one says
    so; a run whose model is registered stays, and what a run of another store has left."""
    kept, gone, named = _make("kept"), _make("gone"), _make("named")
    register(resolve_run("named"), "a model", "model")
    stage = store.root / "work" / "stages" / "classifier-1"
    stage.mkdir(parents=True)
    (stage / "weights").write_bytes(b"0" * 100)
    stranger = store.folder("0" * 32)
    stranger.mkdir()
    assert "nothing to remove" in say("runs", "gc").out
    # The list may be JSON; a command below it is none of it.
    assert "nothing to remove" in say("runs", "--json", "gc").out
    for name in ("gone", "named"):
        assert say("runs", "delete", name, "--yes").code == 0
    artifacts = store.root / "artifacts" / "demo"
    there = (artifacts / gone, store.folder(gone), artifacts / named, artifacts / kept)

    answer = say("runs", "gc", "--dry-run")
    assert answer.code == 0 and "gone" in answer.out and "kept" not in answer.out
    assert "named" in answer.err and "its model is registered" in answer.err
    assert all(path.exists() for path in there)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    answer = say("runs", "gc")
    assert answer.code == 1 and "Nothing was removed" in answer.err
    assert all(path.exists() for path in there)

    assert say("runs", "gc", "--yes").code == 0
    assert [path.exists() for path in there] == [False, False, True, True]
    assert store.folder(kept).exists() and stage.exists() and stranger.exists()
    assert [run.name for run in list_runs()] == ["kept"]
    assert "nothing to remove" in say("runs", "gc").out
    assert say("runs", "gc", "--stages", "--yes").code == 0
    assert not stage.exists()
