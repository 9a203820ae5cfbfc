"""Stores that go away in the middle of a run: nothing is lost, nothing comes twice."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from mlflow.exceptions import MlflowException

from l2i.errors import StoreError
from l2i.run import outbox
from l2i.run.artifacts import download
from l2i.run.events import send_event
from l2i.run.outbox import UNSENT, Outbox, outboxes, sync
from l2i.run.runs import find_finished, list_runs, resolve_run
from l2i.run.store import Store, connect, locate
from l2i.run.tracker import open_run
from l2i.storage import s3, s3_client
from tests.servers import AKID, S3, Mlflow, free_port
from tests.stores import Said

EXPERIMENT = "demo"


class Stopped(Exception):
    """What interrupts a run in a test."""


@pytest.fixture
def remote(store: Store, s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Runs in a sqlite file here, their artifacts in S3."""
    monkeypatch.setenv("L2I_ARTIFACTS", "s3://bucket/runs")
    monkeypatch.setenv("L2I_PATIENCE", "30")
    return s3


@pytest.fixture
def server(tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mlflow]:
    """A tracking server, which the environment names."""
    started = Mlflow(tmp_path / "server", template)
    try:
        started.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", started.url)
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("L2I_PATIENCE", "60")
        yield started
    finally:
        started.kill()


@pytest.fixture(autouse=True)
def _nothing_said() -> Iterator[None]:
    UNSENT.clear()
    s3.check.cache_clear()
    yield
    UNSENT.clear()


def _steps(run_id: str, key: str = "interpreter/loss") -> list[tuple[int, float]]:
    history = connect(locate()).get_metric_history(run_id, key)
    return [(m.step, m.value) for m in history]


def _later(seconds: float, what: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, what)
    timer.start()
    return timer


def _write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


# --- an object store ----------------------------------------------------------------------------


def test_all_is_there(remote: S3, tmp_path: Path) -> None:
    """Without any outage: files below the run's place in the bucket, figures in the store, and
    nothing left here."""
    with open_run(experiment=EXPERIMENT, name="first", signature="a") as run:
        run.metrics("interpreter", 1, {"loss": 0.5})
        run.artifact(_write(tmp_path / "out", a="one", b="two"))
        run.artifact(tmp_path / "out" / "a.txt", "again")
    (listed,) = list_runs()
    assert listed.status == "FINISHED" and not UNSENT and not outboxes(locate())
    base = remote.folder / "bucket" / "runs" / EXPERIMENT / run.run_id / "artifacts"
    assert {p.relative_to(base).as_posix(): p.read_text() for p in base.rglob("*.txt")} == {
        "a.txt": "one",
        "b.txt": "two",
        "again/a.txt": "one",
    }
    assert connect(locate()).download_artifacts(run.run_id, "a.txt", str(tmp_path))


def test_what_is_in_the_bucket_comes_back(
    remote: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a folder with all below it, all of it; no neighbour whose name begins alike; what is
    not there is said, with what is."""
    out = _write(tmp_path / "out" / "model", a="one")
    _write(out / "deep", b="two")
    _write(tmp_path / "out" / "model-2", c="three")
    with open_run(experiment=EXPERIMENT, name="first", signature="a") as run:
        run.artifact(tmp_path / "out")
    listed = resolve_run(run.run_id)
    assert download(listed, "model/deep/b.txt").read_text() == "two"
    folder = download(listed, "model")
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.txt"))
    assert names == ["a.txt", "deep/b.txt"]
    assert not (folder.parent / "model-2").exists()
    assert (download(listed, "") / "model-2" / "c.txt").read_text() == "three"
    with pytest.raises(StoreError, match=r"no artifact 'nothing'; there are: model, model-2"):
        download(listed, "nothing")
    remote.kill()
    monkeypatch.setenv("L2I_PATIENCE", "1")
    with pytest.raises(StoreError, match="s3://bucket"):
        download(listed, "model")


def test_a_store_killed_amid_a_run_and_started_again(remote: S3, tmp_path: Path) -> None:
    """The run goes on meanwhile, says so once, and ends with everything where it belongs."""
    sentences: list[str] = []
    with open_run(
        experiment=EXPERIMENT, name="first", signature="a", on_away=sentences.append
    ) as run:
        remote.kill()
        run.artifact(_write(tmp_path / "out", a="one"))
        shutil.rmtree(tmp_path / "out")
        for step in range(1, 6):
            run.metrics("interpreter", step, {"loss": 1 / step})
        while not sentences:
            time.sleep(0.05)
        timer = _later(0.5, remote.start)
    timer.join()
    assert len(sentences) == 1 and "kept here and sent later" in sentences[0]
    assert not UNSENT and not outboxes(locate())
    assert _steps(run.run_id) == [(n, 1 / n) for n in range(1, 6)]
    place = remote.folder / "bucket" / "runs" / EXPERIMENT / run.run_id / "artifacts" / "a.txt"
    assert place.read_text() == "one"


def test_a_store_that_stays_away(
    remote: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Callable[..., Said]
) -> None:
    """The run ends, its files are kept here, a sentence says so; `l2i sync` says it cannot, with
    exit code 3, and sends them when the store is back."""
    monkeypatch.setenv("L2I_PATIENCE", "0.5")
    with open_run(experiment=EXPERIMENT, name="first", signature="a") as run:
        remote.kill()
        run.artifact(_write(tmp_path / "out", a="one"))
        run.final({"test/accuracy": 1.0})
    (sentence,) = UNSENT
    assert "is done, and not all of it could be sent" in sentence and "'l2i sync'" in sentence
    UNSENT.clear()
    (box,) = outboxes(locate())
    # The file, the figure and the end wait: in order.
    assert [event["kind"] for event in box.unsent()] == ["files", "metrics", "end"]
    answer = say("sync", "--patience", "0.2")
    assert answer.code == 3 and run.run_id[:8] in answer.out
    assert list_runs()[0].status == "UNSENT" and " unsent " in say("runs").out
    assert "\nunsent; artifacts in" in say("runs", "show", "first").out
    assert " unsent " in say("runs", "--status", "unsent").out
    assert not list_runs(status="killed")
    remote.start()
    assert find_finished(EXPERIMENT, "a") is not None, "the next training sends it, too"
    answer = say("sync")
    assert answer.code == 0 and answer.out == "Everything is sent.\n"
    place = remote.folder / "bucket" / "runs" / EXPERIMENT / run.run_id / "artifacts" / "a.txt"
    assert place.read_text() == "one"
    assert list_runs()[0].status == "FINISHED" and not outboxes(locate())


@pytest.mark.parametrize("wrong", ["keys", "bucket"])
def test_what_no_patience_mends(
    wrong: str, remote: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong keys and a bucket that vanished are not waited for; the sentence says which; and what
    was to be sent is kept all the same."""
    monkeypatch.setenv("L2I_PATIENCE", "600")
    begin = time.monotonic()
    with open_run(experiment=EXPERIMENT, name="first", signature="a") as run:
        if wrong == "keys":
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
        else:
            boto3.client("s3", endpoint_url=remote.url).delete_bucket(Bucket="bucket")
        run.artifact(_write(tmp_path / "out", a="one"))
    assert time.monotonic() - begin < 60
    (sentence,) = UNSENT
    assert ("keys" if wrong == "keys" else "no bucket 'bucket'") in sentence
    assert "planted" not in sentence and AKID not in sentence
    if wrong == "keys":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRETTESTSECRET")
    else:
        boto3.client("s3", endpoint_url=remote.url).create_bucket(Bucket="bucket")
    assert [why for _, why in sync(locate(), 30)] == [""]
    assert (remote.folder / "bucket/runs" / EXPERIMENT / run.run_id / "artifacts/a.txt").exists()


def test_a_run_that_fails_waits_for_nobody(
    remote: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error comes soon, whatever the patience; what it wrote is kept and sent later."""
    monkeypatch.setattr("l2i.run.tracker.STOPPED_WAIT_S", 0.5)
    begin = time.monotonic()
    with (
        suppress(Stopped),
        open_run(experiment=EXPERIMENT, name="first", signature="a") as run,
    ):
        remote.kill()
        run.artifact(_write(tmp_path / "out", a="one"))
        raise Stopped
    assert time.monotonic() - begin < 20
    assert not UNSENT
    remote.start()
    assert [why for _, why in sync(locate(), 30)] == [""]
    assert list_runs()[0].status == "FAILED"


# --- a tracking server --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_server_killed_paused_and_back(server: Mlflow, tmp_path: Path) -> None:
    """SIGKILL and SIGSTOP in one run: every figure of every step is there once and in order, the
    files too, and the run is FINISHED at the time it ended."""
    with open_run(experiment=EXPERIMENT, name="first", signature="a") as run:
        run.params({"run.seed": 0})
        for step in range(1, 31):
            run.metrics("interpreter", step, {"loss": 1 / step, "fidelity": step / 30})
            if step == 5:
                server.kill()
            if step == 15:
                server.start()
            if step == 20:
                server.pause()
            if step == 25:
                server.go_on()
        run.artifact(_write(tmp_path / "out", a="one"))
    assert not UNSENT and not outboxes(locate())
    assert _steps(run.run_id) == [(n, 1 / n) for n in range(1, 31)]
    assert _steps(run.run_id, "interpreter/fidelity") == [(n, n / 30) for n in range(1, 31)]
    (listed,) = list_runs()
    assert listed.status == "FINISHED" and listed.params == {"run.seed": "0"}
    assert connect(locate()).download_artifacts(run.run_id, "a.txt", str(tmp_path))


_CHILD = """
    import sys
    from l2i.run.tracker import open_run

    with open_run(experiment="demo", name="first", signature="a") as run:
        print(run.run_id, run.resumed, flush=True)
        begin = int(sys.stdin.readline())
        for step in range(1, begin + 1):
            run.metrics("interpreter", step, {"loss": 1 / step})
        print("there", flush=True)
        sys.stdin.readline()
"""


@pytest.mark.slow
def test_killed_while_the_server_is_away(
    server: Mlflow, child: Callable[[str], subprocess.Popen[str]]
) -> None:
    """A process that is killed with figures unsent: the next one of the same run sends them first,
    does not repeat them, and goes on."""
    first = child(_CHILD)
    assert first.stdin is not None and first.stdout is not None
    run_id, resumed = first.stdout.readline().split()
    assert resumed == "False"
    server.kill()
    first.stdin.write("4\n")
    first.stdin.flush()
    assert first.stdout.readline() == "there\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    (box,) = outboxes(locate())
    assert box.pending >= 4
    # A line that the kill cut in two was promised to nobody.
    with open(box.folder / "events.jsonl", "a") as file:
        file.write('{"kind": "metr')
    server.start()
    second = child(_CHILD)
    assert second.stdin is not None and second.stdout is not None
    assert second.stdout.readline().split() == [run_id, "True"]
    second.stdin.write("7\n\n")
    second.stdin.flush()
    assert second.stdout.read() == "there\n"
    assert second.wait() == 0
    assert _steps(run_id) == [(n, 1 / n) for n in range(1, 8)]
    assert [run.status for run in list_runs()] == ["FINISHED"]


def test_an_event_that_is_sent_twice_counts_once(
    server: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server took the figures and went away before it said so: sent again, they are there
    once."""
    real = outbox.send_event
    failed: list[str] = []

    def lossy(*what: object, unsure: bool) -> None:
        real(*what, unsure=unsure)  # type: ignore[arg-type]
        if what[3] == "metrics" and len(failed) < 3:
            failed.append("metrics")
            raise outbox.StoreError("The answer was lost.")

    monkeypatch.setattr(outbox, "send_event", lossy)
    with open_run(experiment=EXPERIMENT, name="first", signature="a") as run:
        for step in (1, 2):
            run.metrics("interpreter", step, {"loss": 1 / step})
    assert len(failed) == 3
    assert _steps(run.run_id) == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize(
    ("why", "calls"),
    [
        ("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.digest", 2),
        ("(pymysql.err.IntegrityError) Duplicate entry 'x' for key", 2),
        ("no such run", 1),
    ],
)
@pytest.mark.parametrize("kind", ["inputs", "tags", "metrics"])
def test_what_another_process_wrote_at_the_same_moment(
    kind: str, why: str, calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks that name one data set at once: the database takes one, and the other by the next
    call. It is no outage, for which all that comes after would wait."""
    made: list[str] = []

    def log(run_id: str, **what: object) -> None:
        made.append(run_id)
        if len(made) == 1:
            raise MlflowException(f"BAD_REQUEST: {why}")

    data = {
        "inputs": {"name": "demo", "digest": "1", "source_type": "l2i", "source": "made"},
        "tags": {"a": "b"},
        "metrics": [("loss", 1.0, 0, 1)],
    }
    client = SimpleNamespace(log_inputs=log, log_batch=log)
    store = Store("http://127.0.0.1:1", tmp_path, None, False, None)
    monkeypatch.setattr("l2i.run.events.connect", lambda _store: client)
    with suppress(StoreError) if calls == 1 else nullcontext():
        send_event(store, "run", "", kind, data[kind])
    assert made == ["run"] * calls


def test_other_stores_outboxes_are_left_alone(
    server: Mlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for one server is not sent to another; nor is a password written down."""
    with (
        suppress(Stopped),
        open_run(experiment=EXPERIMENT, name="first", signature="a") as run,
    ):
        box = Outbox(locate(), run.run_id)
        raise Stopped
    box.describe({"run_id": run.run_id, "name": "first"})
    box.add("tags", {"a": "b"})
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:planted@127.0.0.1:{port}")
    assert outboxes(locate()) == []
    Outbox(locate(), "other").describe({"run_id": "other"})
    texts = [p.read_text() for p in box.folder.parent.rglob("about.json")]
    assert len(texts) == 2 and not any("planted" in text for text in texts)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    assert [why for _, why in sync(locate(), 30)] == [""]
    assert connect(locate()).get_run(run.run_id).data.tags["a"] == "b"


# --- the disk -----------------------------------------------------------------------------------


def test_a_local_store_keeps_nothing_twice(store: Store) -> None:
    """A store on this machine has no outbox."""
    with open_run(experiment=EXPERIMENT, name="first", signature="a") as run:
        run.metrics("interpreter", 1, {"loss": 0.5})
        assert not (store.root / "work" / "outbox").exists()
    assert sync(store, 0) == []


def test_events_survive_a_new_reader(store: Store, tmp_path: Path) -> None:
    """Another process reads what was kept, to the last digit, in its order; files as they were
    when they were given, even if they changed since."""
    box = Outbox(store, "r")
    box.describe({"run_id": "r"})
    box.add("metrics", [["a", 1 / 3, 5, 1], ["b", float("nan"), 5, 1]])
    source = _write(tmp_path / "out", a="one")
    box.add("files", "", source)
    (source / "a.txt").unlink()
    (source / "a.txt").write_text("two")
    again = Outbox(store, "r")
    assert again.pending == 2
    first, second = again.unsent()
    assert first["data"][0] == ["a", 1 / 3, 5, 1] and first["data"][1][1] != first["data"][1][1]
    assert second == {"kind": "files", "data": ""}
    assert (again.folder / "files" / "2" / "a.txt").read_text() == "one"
    assert json.loads((again.folder / "about.json").read_text())["run_id"] == "r"


def test_a_bucket_that_refuses_is_told_before_anything_is_done(
    remote: S3, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that begins a run ends with 1, and binds no experiment to that place; a bucket that
    is there is asked once."""
    for name, word in (("L2I_ARTIFACTS", "no bucket 'nowhere'"), ("AWS_SECRET_ACCESS_KEY", "keys")):
        with monkeypatch.context() as patch:
            patch.setenv(name, "s3://nowhere/runs" if name == "L2I_ARTIFACTS" else "wrong")
            answer = say("train", "--dataset", "demo", "-o", "dataset.clips_per_class=4")
            assert answer.code == 1 and word in answer.err and "wrong" not in answer.err
            assert not list_runs() and not outboxes(locate())
    asked = []
    real = s3_client.client().list_objects_v2
    patched = lambda **where: (asked.append(where), real(**where))[1]  # noqa: E731
    monkeypatch.setattr(s3_client.client(), "list_objects_v2", patched)
    for name in "ab":
        with open_run(experiment="another", name=name, signature=name):
            pass
    assert len(asked) == 1


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_a_bucket_that_does_not_answer_stops_nothing(
    how: str, remote: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run goes on, and what it leaves is kept."""
    monkeypatch.setenv("L2I_PATIENCE", "1")
    monkeypatch.setattr(s3, "_ANSWERS_S", 0.5)
    getattr(remote, how)()
    s3.check(s3.Location("bucket", f"silent-{how}"))
    if how == "kill":
        with open_run(experiment="silent", name="first", signature="a") as run:
            run.artifact(_write(tmp_path / "out", a="one"))
        assert [box.run_id for box in outboxes(locate())] == [run.run_id]
