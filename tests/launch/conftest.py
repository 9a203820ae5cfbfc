"""AWS Batch without AWS: moto's server, and what moto lacks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.servers import Server, free_port

REGION = "eu-west-1"
IMAGE = f"registry.example/l2i@sha256:{'a' * 64}"


class Batch(Server):
    """moto's server with `tests.launch.batch_server`."""

    def __init__(self, **environment: str) -> None:
        port = free_port()
        super().__init__(
            [sys.executable, "-m", "tests.launch.batch_server", str(port)],
            port,
            {
                "PYTHONPATH": str(REPOSITORY),
                "MOTO_IAM_LOAD_MANAGED_POLICIES": "true",
                **environment,
            },
        )


def point_at_batch(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment name the server as AWS, with keys and a region."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRETTESTSECRET")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def batch_server() -> Iterator[Batch]:
    """A server whose tasks are scripts."""
    server = Batch(BATCH_SCRIPTED="1", BATCH_MACHINES="2")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def aws(batch_server: Batch, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """The same, empty, named by the environment; the store is a server somewhere."""
    import requests

    requests.post(f"{batch_server.url}/moto-api/reset", timeout=30)
    point_at_batch(batch_server, monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    return batch_server


@pytest.fixture(scope="session", autouse=True)
def _models_read_once() -> Iterator[None]:
    """Each session of botocore reads the descriptions of AWS's services anew: megabytes of JSON, a
    quarter of what these tests take."""
    from botocore.loaders import JSONFileLoader

    load = JSONFileLoader.load_file
    once = cache(partial(load, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _self, path: once(path))
        yield


SWEEP = """
extends = "demo"

[sweep]
seeds = [0, 1]
"interpreter.pooling" = ["attention", "max"]
"""


@pytest.fixture
def sweep_file() -> Path:
    """A sweep of four trainings, in the current folder."""
    path = Path("four.toml")
    path.write_text(SWEEP, encoding="utf-8")
    return path
