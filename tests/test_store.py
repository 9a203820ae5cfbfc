"""`l2i.run.store`: where runs are kept, and that no trap of keeping them closes silently."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import pytest

from l2i.errors import DataError, StoreError
from l2i.run.address import lost_with_container
from l2i.run.artifacts import download
from l2i.run.bin import collect_garbage, delete_run, find_garbage
from l2i.run.runs import list_runs, resolve_run
from l2i.run.store import (
    Store,
    connect,
    experiment_id,
    local_path,
    locate,
    mask,
    store_errors,
)
from l2i.run.tracker import open_run

# --- where ------------------------------------------------------------------------------------


def test_by_default_runs_are_kept_under_the_current_folder() -> None:
    """In ``mlruns/``, and to say so touches nothing."""
    store = locate()
    root = Path.cwd() / "mlruns"
    assert store.database == root / "mlflow.db"
    assert store.uri == f"sqlite:///{root}/mlflow.db"
    assert (store.root, store.artifacts) == (root, str(root / "artifacts"))
    assert not store.artifacts_chosen and not store.is_server and not store.exists
    assert store.folder("7") == root / "work" / "run-7"
    assert store.lock("7") == root / "work" / "run-7.lock"
    assert not root.exists()


def test_the_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By ``L2I_MLRUNS``, as the images do; work that a server has not got lies there, too."""
    monkeypatch.setenv("L2I_MLRUNS", str(tmp_path / "kept"))
    store = locate()
    assert store.database == tmp_path / "kept" / "mlflow.db"
    assert store.artifacts == str(tmp_path / "kept" / "artifacts")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert locate().folder("1") == tmp_path / "kept" / "work" / "run-1"
    monkeypatch.setenv("L2I_MLRUNS", "  ")
    assert locate().root == Path.cwd() / "mlruns"


def test_another_sqlite_file_brings_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute (four slashes) or relative to the current folder."""
    here = Path.cwd()
    for uri, database in (
        ("sqlite:///kept/all.db", here / "kept" / "all.db"),
        ("sqlite:////data/all.db", Path("/data/all.db")),
        ("  sqlite+pysqlite:///all.db ", here / "all.db"),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        store = locate()
        assert store.database == database
        assert store.root == database.parent
        assert store.artifacts == str(database.parent / "artifacts")
        assert store.shown == str(database)


def test_a_server_keeps_artifacts_where_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a place of ours; locks and unfinished work stay on this machine; its password is
    not shown."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@runs.example.org:5000/x")
    store = locate()
    assert store.is_server and store.exists and store.artifacts is None
    assert store.database is None and store.root == Path.cwd() / "mlruns"
    assert store.shown == "https://me:***@runs.example.org:5000/x"


def test_a_database_that_is_no_file_keeps_artifacts_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL, say."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/db")
    store = locate()
    assert not store.is_server and store.exists and store.database is None
    assert store.artifacts == str(Path.cwd() / "mlruns" / "artifacts")
    assert "secret" not in store.shown


def test_the_artifact_root_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, relative or not, or a bucket; also where a server would decide."""
    for word, want in (("kept", str(Path.cwd() / "kept")), ("s3://b/p", "s3://b/p")):
        monkeypatch.setenv("L2I_ARTIFACTS", word)
        for uri in ("", "http://localhost:5000"):
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            store = locate()
            assert store.artifacts == want and store.artifacts_chosen


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "/data/mlruns", "file:///mlruns", "sqlite:"])
def test_kinds_of_store_that_do_not_last_are_refused(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow no longer writes folders of files; a database in memory is gone with the process."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(StoreError, match="is not a store that lasts"):
        locate()


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("http://host:5000/x", "http://host:5000/x"),
        ("l2i train --name first", "l2i train --name first"),
        ("--password hunter2 --epochs 3", "--password *** --epochs 3"),
        ("--API-KEY=abc", "--API-KEY=***"),
        ("AWS_SECRET_ACCESS_KEY=abc l2i", "AWS_SECRET_ACCESS_KEY=*** l2i"),
        ("--token --epochs 3", "--token --epochs 3"),
    ],
)
def test_passwords_are_masked(text: str, want: str) -> None:
    """In addresses and after options that are called so; all else is left as it is."""
    assert mask(text) == want


def test_local_paths_are_told_from_others() -> None:
    """A path and a file address are local; buckets and what a server hands on are not."""
    assert local_path("/a/b") == Path("/a/b")
    assert local_path("file:///a/b%20c") == Path("/a/b c")
    assert local_path("s3://bucket/a") is None
    assert local_path("mlflow-artifacts:/1/abc") is None


# --- errors -----------------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_says_what_to_do(store: Store) -> None:
    """And keeps what caused it for whoever wants the traceback."""
    cause = OSError(28, "No space left on device")
    with pytest.raises(StoreError) as caught, store_errors(store, "written"):
        raise cause
    assert str(caught.value).startswith(f"The run store {store.database} cannot be written: ")
    assert str(caught.value).endswith("Free some disk space and give the same command again.")
    assert caught.value.__cause__ is cause


def test_our_own_errors_and_bugs_pass(store: Store) -> None:
    """An error that already is a sentence is left alone, and a bug is not taken for the store's."""
    with pytest.raises(DataError, match="a clip"), store_errors(store, "read"):
        raise DataError("a clip")
    with pytest.raises(ZeroDivisionError), store_errors(store, "read"):
        raise ZeroDivisionError


def test_a_file_that_is_no_database_is_said_to_be_none() -> None:
    """One sentence with the file's name."""
    Path("mlruns").mkdir()
    Path("mlruns/mlflow.db").write_bytes(b"this is not sqlite" * 100)
    with pytest.raises(StoreError, match=r"mlflow\.db cannot be opened: .*not a database"):
        connect(locate())


@pytest.mark.parametrize(
    ("scheme", "what"),
    [
        ("http", "tracking server"),
        ("postgresql", "database"),
        ("mysql+pymysql", "database"),
    ],
)
def test_a_store_that_is_not_there_is_said_at_once(
    scheme: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of after minutes of asking again: the first knock decides. No password is said."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # Bound and not listening: nobody answers, nobody else may.
        port = probe.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://me:planted@127.0.0.1:{port}/x")
        with pytest.raises(StoreError, match=rf"No {what} answers at .*:{port}") as error:
            connect(locate())
    assert "planted" not in str(error.value)


# --- making -----------------------------------------------------------------------------------


def test_a_database_without_its_driver_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that is missing is named, and no password."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"me:planted@127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mssql+pymssql://{address}/x")
        with pytest.raises(StoreError, match="needs the Python package 'pymssql'") as error:
            connect(locate())
    assert "planted" not in str(error.value)


def test_two_processes_may_make_the_store_at_once(child: Callable[[str], Popen[str]]) -> None:
    """Both find a whole store, also beside what a process left that was killed while making one;
    the experiment that both make is one, and nothing half-made stays behind."""
    Path("mlruns").mkdir()
    Path("mlruns/.mlflow.db.new").write_bytes(b"half a migration")
    code = """
        import sys
        from l2i.run.store import connect, experiment_id, locate
        import mlflow
        sys.stdin.readline()
        print(experiment_id(locate(), "demo"))
    """
    processes = [child(code) for _ in range(2)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0].strip() == outputs[1].strip() != ""
    assert {p.name for p in Path("mlruns").iterdir()} - {"artifacts"} == {
        "mlflow.db",
        ".mlflow.db.lock",
    }
    assert experiment_id(locate(), "demo") == outputs[0].strip()


def test_an_experiment_keeps_its_artifacts_beside_the_store(store: Store) -> None:
    """In a folder named after it, also where its name holds what a folder's may not."""
    client = connect(store)
    for name, folder in (("demo", "demo"), ("mine/second try", "mine-second-try"), ("..", None)):
        number = experiment_id(store, name)
        assert experiment_id(store, name) == number
        place = local_path(client.get_experiment(number).artifact_location)
        assert place == store.root / "artifacts" / (folder or "experiment")


# --- in an image ------------------------------------------------------------------------------


def test_a_store_that_goes_with_the_container_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image, and where the folder is no mount; never of a server."""
    # /dev/shm is a mount everywhere, and /etc none.
    monkeypatch.setenv("L2I_MLRUNS", "/etc/mlruns")
    assert lost_with_container(locate()) == ""
    monkeypatch.setenv("L2I_REVISION", "abc")
    assert "are lost with it: mount a folder" in lost_with_container(locate())
    assert "-v $PWD/mlruns:/etc/mlruns" in lost_with_container(locate())
    monkeypatch.setenv("L2I_MLRUNS", "/dev/shm/mlruns")
    assert lost_with_container(locate()) == ""
    monkeypatch.setenv("L2I_MLRUNS", "/etc/mlruns")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert lost_with_container(locate()) == ""


def test_who_may_not_write_is_told_how(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose the folder is does not matter: the container's user has to be its owner."""
    message = f"User {os.getuid()} may not write in {store.root}"
    for error in (PermissionError(13, "Permission denied"), OSError("a readonly database")):
        monkeypatch.delenv("L2I_REVISION", raising=False)
        with pytest.raises(StoreError, match=rf"{message}\.$"), store_errors(store, "opened"):
            raise error
        monkeypatch.setenv("L2I_REVISION", "abc")
        with pytest.raises(StoreError, match=r"docker run --user"), store_errors(store, "opened"):
            raise error


# --- moving -----------------------------------------------------------------------------------


def test_a_store_that_was_moved_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """MLflow would go on writing artifacts to the old place without a word. The message names
    both places; with the old place chosen on purpose it goes on."""
    experiment_id(store, "demo")
    shutil.copytree("mlruns", tmp_path / "mlruns")
    monkeypatch.chdir(tmp_path)
    moved = locate()
    assert moved.database != store.database
    with pytest.raises(StoreError) as caught:
        experiment_id(moved, "demo")
    message = str(caught.value)
    assert str(store.root / "artifacts" / "demo") in message
    assert str(moved.root / "artifacts" / "demo") in message
    assert "moved, copied or mounted elsewhere" in message
    assert experiment_id(moved, "another")
    monkeypatch.setenv("L2I_ARTIFACTS", str(store.root / "artifacts"))
    assert experiment_id(locate(), "demo")


def test_a_store_behind_a_link_is_not_moved(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same folder by another name."""
    number = experiment_id(store, "demo")
    (tmp_path / "link").symlink_to(Path.cwd())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/link/mlruns/mlflow.db")
    assert experiment_id(locate(), "demo") == number


def test_another_place_asked_for_later_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment's place is decided once: asked for a bucket now, it says where it is."""
    experiment_id(store, "demo")
    monkeypatch.setenv("L2I_ARTIFACTS", "s3://bucket/prefix")
    with pytest.raises(StoreError, match=r"not in s3://bucket/prefix/demo"):
        experiment_id(locate(), "demo")


def test_experiments_of_a_server_and_in_the_bin_are_refused(store: Store) -> None:
    """What only a server can reach is said to be so; what was deleted is not written to."""
    client = connect(store)
    client.create_experiment("served", artifact_location="mlflow-artifacts:/7")
    with pytest.raises(StoreError, match="made through a tracking server"):
        experiment_id(store, "served")
    number = experiment_id(store, "binned")
    client.delete_experiment(number)
    with pytest.raises(StoreError, match=rf"is in the bin: .* -x {number}"):
        experiment_id(store, "binned")


@pytest.mark.parametrize("name", ["100%20x", "what? #1", "50%"])
def test_folders_of_any_name(
    name: str, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run and its files are kept, read and removed there, and no other folder is made."""
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    (tmp_path / name / "mlruns").mkdir(parents=True)
    shutil.copy(template, tmp_path / name / "mlruns" / "mlflow.db")
    monkeypatch.chdir(tmp_path / name)
    with open_run(experiment="demo", name="a", signature="a") as run:
        (run.folder / "a.txt").write_text("text")
        run.artifact(run.folder / "a.txt")
    file = download(resolve_run("a"), "a.txt")
    assert file.is_relative_to(tmp_path / name) and file.read_text() == "text"
    # As a task is told it by MLFLOW_TRACKING_URI.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", locate().uri)
    monkeypatch.chdir(tmp_path)
    assert locate().database == tmp_path / name / "mlruns" / "mlflow.db"
    delete_run(resolve_run("a"))
    collect_garbage(find_garbage())
    assert not file.exists() and list_runs() == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("ffffffffffff", "written by a newer MLflow than the .* of this l2i. Use the newer l2i"),
        ("451aebb31d03", "out-of-date database schema .*mlflow db upgrade"),
    ],
)
def test_stores_of_other_versions(version: str, message: str, store: Store) -> None:
    """One of a newer MLflow is said to be that, one of an older one to be out of date."""
    with closing(sqlite3.connect("mlruns/mlflow.db")) as base, base:
        base.execute("UPDATE alembic_version SET version_num = ?", (version,))
    with pytest.raises(StoreError, match=message):
        connect(store)


def test_artifacts_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the home folder, as in a shell, also where no shell has read it."""
    monkeypatch.setenv("L2I_ARTIFACTS", "~/a")
    assert locate().artifacts == str(Path.home() / "a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/b/runs.db")
    assert locate().database == Path.home() / "b" / "runs.db"


def test_a_store_that_vanishes_is_not_made_anew(store: Store) -> None:
    """An empty one in its place knows neither the run that is written nor its experiment."""
    experiment_id(store, "e")
    database = store.database
    assert database is not None
    database.unlink()
    for touch in (connect, lambda where: experiment_id(where, "e")):
        with pytest.raises(StoreError, match="is gone: put it back"):
            touch(store)
    assert not database.exists()
