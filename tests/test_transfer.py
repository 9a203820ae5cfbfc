"""Runs that move: whole, once, and a store that was moved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from l2i.errors import DataError, StoreError
from l2i.run.artifacts import download
from l2i.run.runs import list_runs, resolve_run
from l2i.run.search import RunInfo
from l2i.run.store import Store, connect, locate
from l2i.run.tracker import open_run
from l2i.run.transfer import import_runs
from l2i.storage import is_output
from tests.servers import S3
from tests.stores import Said


def _make(name: str = "first", parent: str = "") -> RunInfo:
    tags = {"l2i.kind": "train", "l2i.commit": "abc"}
    if parent:
        tags["mlflow.parentRunId"] = parent
    with open_run(experiment="demo", name=name, signature=name, tags=tags) as run:
        run.params({"run.seed": 0, "a": "ü & 🐕"})
        for step in (1, 2, 3):
            run.metrics("interpreter", step, {"loss": 1 / step})
        run.final({"test/accuracy": 0.75})
        (run.folder / "out" / "deep").mkdir(parents=True)
        (run.folder / "out" / "deep" / "sp ace ü.txt").write_text("text")
        run.artifact(run.folder / "out")
    return resolve_run(run.run_id)


def _elsewhere(template: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(template, folder / "mlruns" / "mlflow.db")
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("where", ["folder", "archive", "s3"])
def test_whole_and_once(
    where: str,
    store: Store,
    s3: S3,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[..., Said],
) -> None:
    """Parameters, every step with its time, tags, times, files; in another store; a second import
    finds it."""
    own = _make()
    places = {"folder": str(tmp_path / "kept"), "archive": str(tmp_path / "below" / "kept.zip")}
    place = places.get(where, "s3://bucket/kept")
    history = connect(store).get_metric_history(own.id, "interpreter/loss")
    answer = say("runs", "export", "first", place)
    assert answer.code == 0 and answer.out.strip().endswith("zip" if where == "archive" else own.id)
    assert where != "folder" or is_output(tmp_path / "kept")
    _elsewhere(template, tmp_path / "other", monkeypatch)
    answer = say("runs", "import", place)
    assert answer.code == 0 and "imported" in answer.out
    (imported,) = list_runs()
    assert (imported.name, imported.experiment, imported.status) == ("first", "demo", "FINISHED")
    assert (imported.params, imported.metrics) == (own.params, own.metrics)
    assert imported.tags["l2i.commit"] == "abc" and imported.tags["l2i.imported_from"] == own.id
    assert imported.start is not None and own.start is not None and own.end is not None
    assert abs((imported.start - own.start).total_seconds()) < 0.002
    assert imported.end is not None and abs((imported.end - own.end).total_seconds()) < 0.002
    again = connect(locate()).get_metric_history(imported.id, "interpreter/loss")
    assert [(m.step, m.value, m.timestamp) for m in again] == [
        (m.step, m.value, m.timestamp) for m in history
    ]
    path = tmp_path / "other/mlruns/artifacts/demo" / imported.id / "artifacts/deep/sp ace ü.txt"
    assert path.read_text() == "text"
    assert "there already" in say("runs", "import", place).out
    assert len(list_runs()) == 1


def test_a_run_that_is_running(
    store: Store,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[..., Said],
) -> None:
    """Where it is imported nobody does it: it is KILLED, and can be deleted. Once it is over, its
    next export takes the place."""
    with open_run(
        experiment="demo", name="first", signature="a", tags={"l2i.kind": "train"}
    ) as run:
        assert say("runs", "export", "first", str(tmp_path / "kept")).code == 0
    assert say("runs", "export", "first", str(tmp_path / "later")).code == 0
    _elsewhere(template, tmp_path / "other", monkeypatch)
    for _ in range(2):
        assert say("runs", "import", str(tmp_path / "kept")).code == 0
        (imported,) = list_runs()
        assert imported.status == "KILLED" and imported.end is not None
        assert imported.tags["l2i.error"] == "It was exported while it was running."
        assert imported.tags["l2i.imported_from"] == run.run_id
    assert say("runs", "import", str(tmp_path / "later")).code == 0
    (imported,) = list_runs()
    assert imported.status == "FINISHED" and "l2i.error" not in imported.tags
    assert say("runs", "delete", "first", "--yes").code == 0 and list_runs() == []


def test_children_stay_under_their_parent(
    store: Store,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[..., Said],
) -> None:
    """A parent and its children are exported together."""
    parent = _make("parent")
    _make("child", parent.id)
    assert say("runs", "export", "parent", "child", str(tmp_path / "kept")).code == 0
    _elsewhere(template, tmp_path / "other", monkeypatch)
    import_runs(tmp_path / "kept")
    runs = {run.name: run for run in list_runs()}
    assert runs["child"].tags["mlflow.parentRunId"] == runs["parent"].id != parent.id


def test_what_is_no_export(store: Store, tmp_path: Path, say: Callable[..., Said]) -> None:
    """One sentence each, exit code 1."""
    for text in (None, "nonsense", '{"format": 1}', '{"format": 99}'):
        folder = tmp_path / "kept" / "x"
        folder.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (folder / "run.json").write_text(text)
        answer = say("runs", "import", str(tmp_path / "kept"))
        assert answer.code == 1 and "Traceback" not in answer.err
    with pytest.raises(DataError, match="There is no folder"):
        import_runs(tmp_path / "nowhere")
    (tmp_path / "kept.zip").write_bytes(b"PK\3\4nonsense")
    answer = say("runs", "import", str(tmp_path / "kept.zip"))
    assert answer.code == 1 and "archive" in answer.err and "Traceback" not in answer.err


def test_an_archive_that_cannot_be_written_leaves_nothing(
    store: Store, tmp_path: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays, and no half of a new one beside it."""
    _make()
    place = tmp_path / "out" / "kept.zip"
    assert say("runs", "export", "first", str(place)).code == 0
    old = place.read_bytes()

    def full(*args: object, **kwargs: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.make_archive", full)
    answer = say("runs", "export", "first", str(place))
    assert answer.code == 1 and "No space left" in answer.err
    assert [path.name for path in place.parent.iterdir()] == ["kept.zip"]
    assert place.read_bytes() == old


@pytest.mark.parametrize("what", ["file", "folder", "artifacts", "run.json", "pipe"])
def test_links_in_an_export_are_not_followed(
    what: str,
    store: Store,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[..., Said],
) -> None:
    """An export by a stranger brings in no file of this machine: neither as a linked file or
    folder, nor by links in place of its own two; nothing of it is imported."""
    kept = tmp_path / "kept"
    own = _make()
    assert say("runs", "export", "first", str(kept)).code == 0
    secret = tmp_path / "private"
    secret.mkdir()
    (secret / "key.txt").write_text("hush")
    run = kept / own.id
    if what == "file":
        (run / "artifacts" / "deep" / "n.txt").symlink_to(secret / "key.txt")
    elif what == "folder":
        (run / "artifacts" / "more").symlink_to(secret)
    elif what == "pipe":
        os.mkfifo(run / "artifacts" / "n.txt")
    else:
        (run / what).rename(secret / what)
        (run / what).symlink_to(secret / what)
    _elsewhere(template, tmp_path / "other", monkeypatch)
    answer = say("runs", "import", str(kept))
    assert answer.code == 1
    assert "is a link or a device" in " ".join(answer.err.split())
    assert list_runs() == []
    assert not [p for p in (tmp_path / "other").rglob("*") if p.is_file() and p.suffix == ".txt"]
    # The user's own word for a place may be a link.
    if what == "file":
        (run / "artifacts" / "deep" / "n.txt").unlink()
        (tmp_path / "word").symlink_to(kept)
        assert say("runs", "import", str(tmp_path / "word")).code == 0


def test_a_store_that_was_moved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Callable[..., Said]
) -> None:
    """It is refused until it is mended; then its runs and their files are found where they are,
    and new ones go there."""
    own = _make()
    shutil.move("mlruns", tmp_path / "there")
    (tmp_path / "new").mkdir()
    shutil.move(tmp_path / "there", tmp_path / "new" / "mlruns")
    monkeypatch.chdir(tmp_path / "new")
    with pytest.raises(StoreError, match="was moved"):
        _make("second")
    answer = say("runs", "relocate")
    assert answer.code == 0 and str(tmp_path / "new") in answer.out
    assert "Nothing was moved" in say("runs", "relocate").out
    run = resolve_run(own.id)
    assert run.artifact_uri.startswith((tmp_path / "new").as_uri())
    path = connect(locate()).download_artifacts(own.id, "deep/sp ace ü.txt", str(tmp_path))
    assert Path(path).read_text() == "text"
    second = _make("second")
    assert second.artifact_uri.startswith((tmp_path / "new").as_uri())


def test_a_store_that_was_moved_before_a_run_left_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Callable[..., Said]
) -> None:
    """A run that was killed in its first stage has left none, and goes on."""
    with pytest.raises(SystemExit), open_run(experiment="demo", name="first", signature="first"):
        raise SystemExit(137)
    assert not Path("mlruns/artifacts/demo").exists()
    (tmp_path / "new").mkdir()
    shutil.move("mlruns", tmp_path / "new" / "mlruns")
    monkeypatch.chdir(tmp_path / "new")
    with pytest.raises(StoreError, match="'l2i runs relocate'"):
        _make()
    answer = say("runs", "relocate")
    assert answer.code == 0 and str(tmp_path / "new") in answer.out
    run = _make()
    assert run.artifact_uri.startswith((tmp_path / "new").as_uri())
    assert run.tags["l2i.resumed"] == "1" and len(list_runs()) == 1


def test_a_store_that_was_copied(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Callable[..., Said]
) -> None:
    """The original's files are not read, exported or removed through it; mended, it has its own."""
    own = _make()
    _make("second")
    original = Path(own.artifact_uri.removeprefix("file://")) / "deep" / "sp ace ü.txt"
    shutil.copytree("mlruns", tmp_path / "new" / "mlruns")
    (tmp_path / "alone" / "mlruns").mkdir(parents=True)
    shutil.copy("mlruns/mlflow.db", tmp_path / "alone" / "mlruns" / "mlflow.db")
    assert download(own, "deep/sp ace ü.txt").samefile(original)
    for name in ("new", "alone"):
        monkeypatch.chdir(tmp_path / name)
        with pytest.raises(StoreError, match="is a copy of a store whose files still lie in"):
            download(resolve_run(own.id), "deep/sp ace ü.txt")
        answer = say("runs", "export", own.id, str(tmp_path / "kept"))
        assert answer.code == 1 and "'l2i runs relocate'" in answer.err
        assert say("runs", "delete", "second", "--yes").code == 0
        assert say("runs", "gc", "--yes").code == 1
    assert original.read_text() == "text"
    monkeypatch.chdir(tmp_path / "new")
    assert say("runs", "relocate").code == 0
    path = download(resolve_run(own.id), "deep/sp ace ü.txt")
    assert path.is_relative_to(tmp_path / "new") and path.read_text() == "text"
    assert say("runs", "gc", "--yes").code == 0 and original.exists()


def test_artifacts_of_ones_own_choice_are_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those in another folder by L2I_ARTIFACTS, and in a store that is reached by a link."""
    monkeypatch.setenv("L2I_ARTIFACTS", str(tmp_path / "chosen"))
    own = _make()
    monkeypatch.delenv("L2I_ARTIFACTS")
    assert download(own, "deep/sp ace ü.txt").is_relative_to(tmp_path / "chosen")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "mlruns").symlink_to(Path("mlruns").absolute())
    monkeypatch.chdir(tmp_path / "linked")
    assert download(own, "deep/sp ace ü.txt").read_text() == "text"


def test_artifacts_that_were_left_behind(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Callable[..., Said]
) -> None:
    """A database alone is not mended to point to nothing."""
    _make()
    (tmp_path / "new" / "mlruns").mkdir(parents=True)
    shutil.copy("mlruns/mlflow.db", tmp_path / "new" / "mlruns" / "mlflow.db")
    monkeypatch.chdir(tmp_path / "new")
    answer = say("runs", "relocate")
    assert answer.code == 1 and "copy them there first" in answer.err


def test_show_and_delete(store: Store, say: Callable[..., Said], tmp_path: Path) -> None:
    """All that is known, in 80 columns; a run goes to the bin with those under it, if one says
    so."""
    parent = _make("parent")
    _make("child", parent.id)
    answer = say("runs", "show", "parent")
    assert answer.code == 0 and max(map(len, answer.out.splitlines())) <= 80 + len(
        parent.artifact_uri
    )
    assert "test/accuracy" in answer.out and "run.seed" in answer.out and "l2i.commit" in answer.out
    assert json.loads(say("runs", "show", "parent", "--json").out)["id"] == parent.id
    answer = say("runs", "delete", "parent", "--yes")
    assert answer.code == 0 and "and 1 under it" in answer.out
    assert list_runs() == []
