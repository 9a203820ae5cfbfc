"""Keys, tokens and passwords stay where the user put them.

A training, its measurements, its export and its failures, with planted secrets in every place that
a user may put one; then every byte that was written, and every word that was said, is searched.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.conftest import REPOSITORY
from tests.recipes.conftest import SMALL
from tests.servers import S3, Mlflow

PLANTED = "pl4nted"
# Bytes of these are the user's own, or the server's that checks the key.
_LITTLE = ("-o", "classifier.epochs=1", "-o", "interpreter.epochs=1", "-o", "output.clips=1")


@pytest.fixture
def environment(s3: S3, tmp_path: Path) -> dict[str, str]:
    """Where secrets may stand, but for those that the S3 server must know."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": f"{PLANTED}-password",
        "MLFLOW_TRACKING_TOKEN": f"{PLANTED}-token",
        "AWS_SESSION_TOKEN": f"{PLANTED}-session",
        "HF_TOKEN": f"{PLANTED}-hf",
        "L2I_PATIENCE": "1",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "1",
    }


# Command lines, one after the other; the code of each on a line of its own.
_LINES = """
import json, sys
from l2i.cli import main

for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        print("CODE", end.code, flush=True)
"""


def _run(lines: list[list[str]], env: dict[str, str], folder: Path) -> tuple[list[str], str]:
    """The exit codes of some lines, and all that they said; in one process, since a start takes
    seconds."""
    done = subprocess.run(
        [sys.executable, "-c", _LINES, json.dumps(lines)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=250,
    )
    output = done.stdout + done.stderr
    codes = re.findall(r"^CODE (\d+)$", done.stdout, re.M)
    assert len(codes) == len(lines), output
    return codes, output


def _leaks(folder: Path, *secrets: str) -> list[str]:
    words = [PLANTED.encode(), *(secret.encode() for secret in secrets)]
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 5
    return [str(p) for p in files if any(w in p.read_bytes() for w in words)]


@pytest.mark.slow
def test_planted_secrets_are_nowhere(
    s3: S3, environment: dict[str, str], tmp_path: Path, template: Path
) -> None:
    """In no parameter, tag, artifact, database, log, export or message: of a run to a server whose
    address has a password and whose artifacts go to S3, of its export, and of all that fails."""
    server = Mlflow(tmp_path / "server", template)
    work = tmp_path / "work"
    work.mkdir()
    (work / "small.toml").write_text(SMALL.format(name="demo"), encoding="utf-8")
    soundfile.write(work / "a.wav", [0.1, -0.1] * 4000, 8000)
    outputs = []
    try:
        server.start()
        address = server.url.replace("http://", f"http://me:{PLANTED}-url@")
        env = environment | {"MLFLOW_TRACKING_URI": address}
        where = ["--config", "small.toml", *_LITTLE]
        lines = [
            ["train", *where, "--name", "first"],
            ["runs", "show", "latest"],
            ["runs", "--json"],
            ["runs", "export", "latest", "kept"],
            ["runs", "export", "latest", "s3://bucket/kept"],
            ["explain", "latest", "a.wav"],
            ["noise", "latest", "--snr-db", "0", "--limit", "2"],
            ["config", "show"],
            ["doctor"],
        ]
        codes, words = _run(lines, env, work)
        assert codes[:-1] == ["0"] * (len(lines) - 1), words
        outputs.append(words)
        server.kill()
        codes, words = _run([["runs"]], env, work)
        assert codes == ["1"] and "No tracking server answers" in words
        outputs.append(words)
    finally:
        server.kill()
    local = environment | {"MLFLOW_TRACKING_URI": f"postgresql://me:{PLANTED}-db@127.0.0.1:1/x"}
    wrong = environment | {"AWS_SECRET_ACCESS_KEY": f"{PLANTED}-key"}
    elsewhere = ["train", *where, "--artifacts", "s3://bucket/runs", "--seed", "1"]
    for lines, env in (
        ([["runs"]], local),
        ([elsewhere, ["data", "check", "esc10", "--data-dir", "s3://bucket/none"]], wrong),
        ([["train", *where, "--data-dir", f"s3://me:{PLANTED}-in-url@bucket/x"]], environment),
    ):
        codes, words = _run(lines, env, work)
        assert "0" not in codes, words
        assert "Traceback" not in words
        outputs.append(words)
    assert not [
        words
        for words in outputs
        if PLANTED in words or environment["AWS_SECRET_ACCESS_KEY"] in words
    ]
    assert _leaks(tmp_path, environment["AWS_SECRET_ACCESS_KEY"]) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """The search above would find a secret in any file."""
    for n in range(6):
        (tmp_path / f"{n}.bin").write_bytes(b"\0" * 100)
    assert _leaks(tmp_path) == []
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.db").write_bytes(b"\0\1" + PLANTED.encode() + b"\2")
    assert len(_leaks(tmp_path)) == 1
