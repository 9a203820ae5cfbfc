"""What containers write, read from outside; and what is outside, read by containers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import requests

from l2i.cli import main
from l2i.run.artifacts import download
from l2i.run.runs import resolve_run
from tests.images.conftest import Place, own
from tests.images.test_running import runs_of
from tests.servers import AKID, S3, SECRET, Mlflow, free_port
from tests.stores import Said

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

_WORDS = ("train", "--config", "small.toml", "--json")


def test_the_pages_are_reached_from_outside(place: Place, trained: str) -> None:
    """`docker run -p 127.0.0.1:5000:5000 ... ui`: they list the run and send its sounds; a stop
    ends them with 143."""
    port = free_port()
    pages = place.start(
        "ui", options=("-p", f"127.0.0.1:{port}:5000", "--read-only", "--tmpfs", "/tmp")
    )
    assert "http://127.0.0.1:5000/" in pages.wait_for("http://")
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 120
    while True:
        try:
            assert requests.get(f"{url}/health", timeout=5).text == "OK"
            break
        except requests.RequestException:
            assert time.monotonic() < end, pages.engine("logs", pages.id).stderr
            time.sleep(0.2)
    assert "<html" in requests.get(url, timeout=30).text
    response = requests.get(
        f"{url}/ajax-api/2.0/mlflow/runs/get", params={"run_id": trained}, timeout=30
    ).json()
    assert response["run"]["info"]["status"] == "FINISHED"
    inside = place.folder / "mlruns" / "artifacts" / "demo" / trained / "artifacts"
    sound = next(inside.rglob("explanation.wav"))
    sent = requests.get(
        f"{url}/get-artifact",
        params={"run_uuid": trained, "path": str(sound.relative_to(inside))},
        timeout=30,
    )
    assert sent.content == sound.read_bytes()
    pages.engine("stop", pages.id)
    assert pages.end()[0] == 143


def test_one_place_for_both_sides(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is mounted where it lies on this machine is the same store on both sides:
    a run made in a container is read by MLflow here, one made here is read in a container."""
    mlruns = place.folder / "mlruns"
    same = ("-v", f"{mlruns}:{mlruns}", "-e", f"L2I_MLRUNS={mlruns}")
    inner = json.loads(place.run(*_WORDS, options=same).stdout)
    monkeypatch.setenv("L2I_MLRUNS", str(mlruns))
    path = download(resolve_run(inner["run_id"]), "scores.json")
    assert path.is_relative_to(mlruns) and json.loads(path.read_text())

    monkeypatch.chdir(place.folder / "work")
    with pytest.raises(SystemExit) as end:
        main([*_WORDS, "--again", "--quiet"])
    assert end.value.code == 0
    outer = next(r for r in runs_of(place, monkeypatch) if r.id != inner["run_id"])
    own(mlruns)  # As one user on both sides, who is nobody special.
    done = place.run("evaluate", outer.id, "--json", options=same)
    assert "fidelity_top1" in done.stdout
    listed = place.run("runs", "--json", options=same).stdout
    assert {run["id"] for run in json.loads(listed)} == {inner["run_id"], outer.id}


def test_another_place_on_each_side_is_noticed(
    place: Place, trained: str, monkeypatch: pytest.MonkeyPatch, say: object
) -> None:
    """/mlruns is no path of this machine: MLflow would write there, or find nothing. l2i refuses,
    says so, and mends it; and then the container does."""
    mlruns = place.folder / "mlruns"
    monkeypatch.setenv("L2I_MLRUNS", str(mlruns))
    monkeypatch.chdir(place.folder / "work")
    assert callable(say)
    answer: Said = say("evaluate", trained)
    assert answer.code == 1 and "'l2i runs relocate'" in answer.err
    answer = say(*_WORDS, "--again")
    assert answer.code == 1 and "mounted elsewhere" in answer.err
    assert say("runs", "relocate").code == 0
    assert download(resolve_run(trained), "scores.json").is_relative_to(mlruns)
    done = place.run(*_WORDS, "--again", code=1)
    assert "keeps its artifacts in" in done.stderr and "'l2i runs relocate'" in done.stderr
    assert place.run("runs", "relocate").returncode == 0
    assert "fidelity_top1" in place.run("evaluate", trained, "--json").stdout


def test_artifacts_in_an_object_store(
    place: Place, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a container sends there is fetched from outside, by MLflow and as files."""
    monkeypatch.setenv("L2I_ARTIFACTS", "s3://bucket/kept")
    variables = {
        "L2I_ARTIFACTS": "s3://bucket/kept",
        "AWS_ENDPOINT_URL_S3": s3.url,
        "AWS_ACCESS_KEY_ID": AKID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    options = [word for pair in variables.items() for word in ("-e", "=".join(pair))]
    done = place.run(*_WORDS, options=(*options, "--network", "host"))
    run_id = json.loads(done.stdout)["run_id"]
    stored = s3.folder / "bucket" / "kept" / "demo" / run_id / "artifacts"
    assert list(stored.rglob("explanation.wav"))
    (run,) = runs_of(place, monkeypatch)
    fetched = download(run, "scores.json")
    assert fetched.read_bytes() == (stored / "scores.json").read_bytes()


def test_a_tracking_server(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and artifacts go there; what is not over yet stays in /mlruns, also for the next one."""
    server = Mlflow(tmp_path / "server")
    server.start()
    try:
        options = ("--network", "host", "-e", f"MLFLOW_TRACKING_URI={server.url}")
        first = place.start(*_WORDS, "-o", "classifier.epochs=30", options=options)
        first.wait_for(r"Run demo-")
        first.engine("stop", first.id)
        assert first.end()[0] == 143
        assert list((place.folder / "mlruns" / "work").glob("run-*"))
        done = place.run(*_WORDS, "-o", "classifier.epochs=30", options=options)
        document = json.loads(done.stdout)
        assert document["resumed"] is True
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        run = resolve_run(document["run_id"])
        assert run.status == "FINISHED"
        assert json.loads(download(run, "scores.json").read_text())
    finally:
        server.kill()
