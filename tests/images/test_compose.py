"""`docker compose up` and one `run`: a team's set-up.

Where the images of PostgreSQL and rclone cannot be had, Debian's PostgreSQL and PyPI's rclone stand
in for them (``standins/``): the file, its networks, health checks and order are the true ones.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from l2i.run.artifacts import download
from l2i.run.runs import resolve_run
from tests.conftest import REPOSITORY
from tests.images.conftest import FLAVOURS, Engine, Image, build
from tests.recipes.conftest import SMALL
from tests.servers import free_port

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

_FOLDER = REPOSITORY / "docker"
_STANDINS = Path(__file__).parent / "standins"


class Compose:
    """The file as a project of its own."""

    def __init__(self, engine: Engine, program: list[str], variables: dict[str, str]) -> None:
        self.engine, self._program = engine, program
        self._env = {**engine.env, **variables}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self._program, "-p", "l2i-test", "-f", str(_FOLDER / "compose.yaml"), *words]
        done = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done


def _program(engine: Engine) -> list[str]:
    for words in (["docker", "compose"], ["docker-compose"]):
        try:
            done = subprocess.run([*words, "version"], env=engine.env, capture_output=True)
        except OSError:
            continue
        if done.returncode == 0:
            return words
    pytest.skip("There is no docker compose here.")


def _stand_in(engine: Engine, name: str, folder: Path) -> str:
    """Build one; its tag."""
    shutil.copytree(_STANDINS, folder / name)
    if name == "rclone":
        shutil.copy(Path(sys.executable).with_name("rclone"), folder / name)
    tag = f"l2i-test:{name}"
    base = f"BASE_IMAGE={engine.build['BASE_IMAGE']}"
    engine(
        *("build", "-q", "--network", "host", "--build-arg", base, "-t", tag),
        *("-f", str(folder / name / f"{name}.Dockerfile"), str(folder / name)),
    )
    return tag


@pytest.fixture
def compose(engine: Engine, tmp_path: Path) -> Iterator[Compose]:
    """The services, up and healthy; gone afterwards with all they kept."""
    program = _program(engine)
    image = build(engine, FLAVOURS[0], f"l2i:{FLAVOURS[0]}")
    engine(
        *("build", "-q", "--network", "host", "--build-arg", f"L2I_IMAGE={image.tag}"),
        *("-t", "l2i:mlflow", "-f", str(_FOLDER / "mlflow.Dockerfile"), str(_FOLDER)),
    )
    variables = {"FLAVOUR": image.flavour, "PORT": str(free_port())}
    if engine.build:
        variables["POSTGRES_IMAGE"] = _stand_in(engine, "postgres", tmp_path)
        variables["RCLONE_IMAGE"] = _stand_in(engine, "rclone", tmp_path)
    stack = Compose(engine, program, variables)
    down = ("down", "--volumes", "--timeout", "5")
    stack(*down)  # What tests that were killed have left.
    try:
        stack("up", "--detach")
        yield stack
    finally:
        stack(*down)


def test_up_and_one_run(
    compose: Compose, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is in the database, its files are in the bucket, and all of it is read from
    outside through the server. Everything is kept when the services are made again."""
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o755)  # The service's user is another.
    (work / "small.toml").write_text(SMALL.format(name="demo"))
    done = compose(
        *("run", "--rm", "-T", "-v", f"{work}:/work:ro", "l2i"),
        *("train", "--config", "small.toml", "--json"),
    )
    run_id = json.loads(done.stdout)["run_id"]
    for again in (False, True):
        if again:
            compose("down", "--timeout", "5")
            compose("up", "--detach")
            compose("run", "--rm", "-T", "l2i", "runs")  # Waits until the server is healthy.
        port = compose("port", "mlflow", "5000").stdout.rpartition(":")[2].strip()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        run = resolve_run(run_id)
        assert run.status == "FINISHED" and run.artifact_uri.startswith("mlflow-artifacts:")
        assert json.loads(download(run, "scores.json").read_text())
    kept = compose("exec", "-T", "store", "sh", "-c", "find /data/l2i -name explanation.wav")
    assert run_id in kept.stdout
    query = f"select status from runs where run_uuid = '{run_id}'"
    told = compose("exec", "-T", "database", "psql", "-U", "mlflow", "-tAc", query, "mlflow")
    assert told.stdout.strip() == "FINISHED"


def test_only_this_machine_reaches_it() -> None:
    """Passwords have defaults, so that nothing listens but the pages, on 127.0.0.1; and every
    service has a health check."""
    services = yaml.safe_load((_FOLDER / "compose.yaml").read_text())["services"]
    ports = {name: service.get("ports") for name, service in services.items()}
    assert {name for name, there in ports.items() if there} == {"mlflow"}
    assert all(port.startswith("127.0.0.1:") for port in ports["mlflow"])
    assert all("healthcheck" in services[name] for name in ("database", "store", "mlflow"))


def test_the_server_has_the_image_s_mlflow(engine: Engine, image: Image) -> None:
    """Another version would migrate the database under everybody's feet."""
    engine(
        *("build", "-q", "--network", "host", "--build-arg", f"L2I_IMAGE={image.tag}"),
        *("-t", "l2i:mlflow", "-f", str(_FOLDER / "mlflow.Dockerfile"), str(_FOLDER)),
    )
    assert image.python("import mlflow; print(mlflow.__version__)") == Image(
        "l2i:mlflow", image.flavour, engine
    ).python("import mlflow, psycopg2; print(mlflow.__version__)")
