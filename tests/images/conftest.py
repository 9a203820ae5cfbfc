"""An engine, the images, and a user's folder beside them.

`IMAGES` says which images are built and tested, ``cpu``, ``cuda`` or both (``"cpu cuda"``).

The engine is the one that ``docker`` reaches. Where there is none, a program beside the checkout,
``shared/docker/engine``, may bring one up (with base images made on the spot, for machines that
reach no registry of images); it is stopped again if it was not running before. Where there is
neither, the tests are left out with a sentence that says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.recipes.conftest import SMALL

FLAVOURS = os.environ.get("IMAGES", "cpu").split()
_ELSEWHERE = REPOSITORY.parent / "shared" / "docker" / "engine"
# A user that the image has never heard of; root tests as somebody else, since it may do anything.
USER = (os.getuid(), os.getgid()) if os.getuid() else (4711, 4711)


@dataclass(frozen=True)
class Engine:
    """A Docker engine: `engine("run", "--rm", ...)`.

    Attributes
    ----------
    env : dict of str to str
        How the client reaches it.
    build : dict of str to str
        What ``docker/build`` has to be told here.
    """

    env: dict[str, str]
    build: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run the client; `code` is what it must end with (None: anything)."""
        done = subprocess.run(
            ["docker", *words], env=self.env, capture_output=True, text=True, timeout=1200
        )
        assert code is None or done.returncode == code, (
            f"docker {' '.join(words)}\nended with {done.returncode}, not {code}:\n"
            f"{done.stdout}{done.stderr}"
        )
        return done

    def inspect(self, what: str) -> Any:
        """All that the engine knows of an image or a container."""
        return json.loads(self("inspect", what).stdout)[0]


def _answers(env: dict[str, str]) -> bool:
    command = ["docker", "version"]
    try:
        return subprocess.run(command, env=env, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _exports(text: str) -> dict[str, str]:
    """The variables of lines like ``export A=1 B=2``, with ``$PATH`` in them put in."""
    words = re.findall(r"(\w+)=(\S+)", text)
    return {name: value.replace("$PATH", os.environ["PATH"]) for name, value in words}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine, for all tests."""
    own = {**os.environ, "DOCKER_BUILDKIT": "1"}
    beside = os.access(_ELSEWHERE, os.X_OK)

    def ask(verb: str) -> str:
        done = subprocess.run([_ELSEWHERE, verb], stdout=subprocess.PIPE, text=True, timeout=900)
        if done.returncode:
            pytest.skip(f"{_ELSEWHERE} {verb} ended with {done.returncode}: no Docker engine.")
        return done.stdout

    there = {**own, **(_exports(ask("env")) if beside else {})}
    # The variables of the shell may be those of the engine beside the checkout already.
    if _answers(own) and (not beside or own.get("DOCKER_HOST") != there["DOCKER_HOST"]):
        yield Engine(own)
        return
    if not beside:
        pytest.skip("No Docker engine answers, and there is none beside the checkout to bring up.")
    running = _answers(there)
    ask("start")
    base = "python:3.11-slim-bookworm"
    # The plain one has wheels in it, which are wanted while packages are installed, and the other
    # has not; the CUDA build wants none.
    build = {"BASE_IMAGE": f"{base}-gpu", "BUILD_ARGS": "--network host"}
    try:
        yield Engine(there, build)
    finally:
        if not running:
            ask("stop")


@dataclass(frozen=True)
class Image:
    """One of the two images, built from this checkout."""

    tag: str
    flavour: str
    engine: Engine

    @property
    def config(self) -> Any:
        """Its environment, user, labels and so on."""
        return self.engine.inspect(self.tag)["Config"]

    def python(self, code: str, *options: str) -> str:
        """What a program prints that is run in it."""
        return self.engine(
            *("run", "--rm", "--entrypoint", "python", *options, self.tag, "-c", code)
        ).stdout


def build(engine: Engine, flavour: str, tag: str, checkout: Path = REPOSITORY) -> Image:
    """Build an image as `make image-<flavour>` does."""
    env = {**engine.env, **engine.build, "TAG": tag}
    if engine.build and flavour == "cpu":
        env["BUILD_IMAGE"] = engine.build["BASE_IMAGE"].removesuffix("-gpu")
    done = subprocess.run(
        [checkout / "docker" / "build", flavour], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return Image(tag, flavour, engine)


_built: dict[str, Image] = {}


@pytest.fixture(params=FLAVOURS)
def image(engine: Engine, request: pytest.FixtureRequest) -> Image:
    """Each image under test."""
    flavour = request.param
    if flavour not in _built:
        _built[flavour] = build(engine, flavour, f"l2i:{flavour}")
    return _built[flavour]


@dataclass
class Place:
    """A folder of a user, with ``mlruns`` and a small experiment, and an image to run in it."""

    folder: Path
    image: Image
    _started: list[str] = field(default_factory=list)

    @property
    def mounts(self) -> list[str]:
        """``docker run`` options: the run store, and the folder with ``small.toml``."""
        return [
            *("-v", f"{self.folder / 'mlruns'}:/mlruns"),
            *("-v", f"{self.folder / 'work'}:/work:ro"),
        ]

    def run(
        self, *words: str, options: Sequence[str] = (), code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """``docker run --rm`` of the image as the user, without a terminal."""
        user = ("--user", "{}:{}".format(*USER))
        return self.image.engine(
            *("run", "--rm", *user, *self.mounts, *options, self.image.tag, *words), code=code
        )

    def start(self, *words: str, options: Sequence[str] = ()) -> Container:
        """``docker run --detach`` of the image as the user, with the mounts."""
        user = ("--user", "{}:{}".format(*USER))
        return self.detach(*user, *self.mounts, *options, self.image.tag, *words)

    def detach(self, *words: str) -> Container:
        """``docker run --detach`` with no more than these words; it is removed at the end."""
        done = self.image.engine("run", "--detach", *words)
        self._started.append(done.stdout.strip())
        return Container(self._started[-1], self.image.engine)

    def close(self) -> None:
        """Remove what was started."""
        for name in self._started:
            self.image.engine("rm", "--force", "--volumes", name, code=None)


@dataclass(frozen=True)
class Container:
    """A container that was started in the background."""

    id: str
    engine: Engine

    def wait_for(self, pattern: str) -> str:
        """Follow what it says until a line fits; all that it said until then, and that line."""
        reader = subprocess.Popen(
            ["docker", "logs", "--follow", self.id],
            env=self.engine.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        limit = threading.Timer(300, reader.kill)
        limit.start()
        lines = []
        try:
            assert reader.stdout is not None
            for line in reader.stdout:
                lines.append(line)
                if re.search(pattern, line):
                    return "".join(lines)
        finally:
            limit.cancel()
            reader.kill()
            reader.wait()
        raise AssertionError(f"It never said {pattern!r}, but:\n{''.join(lines)}")

    def end(self) -> tuple[int, str]:
        """Wait until it has ended by itself: exit code, and all it said."""
        code = int(self.engine("wait", self.id).stdout)
        done = self.engine("logs", self.id)
        return code, done.stdout + done.stderr


def own(path: Path) -> Path:
    """Give a folder to `USER`, with all that is in it; it is made if need be."""
    path.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        for each in (path, *path.rglob("*")):
            os.chown(each, *USER)
    return path


@pytest.fixture
def place(image: Image, tmp_path: Path) -> Iterator[Place]:
    """A user's folder."""
    own(tmp_path)
    own(tmp_path / "mlruns")
    (own(tmp_path / "work") / "small.toml").write_text(SMALL.format(name="demo"))
    opened = Place(tmp_path, image)
    yield opened
    opened.close()


_trained: dict[str, tuple[Path, str]] = {}


@pytest.fixture
def trained(place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small run in the user's folder, which a container has made: its id."""
    flavour, here = place.image.flavour, place.folder / "mlruns"
    if flavour not in _trained:
        done = place.run("train", "--config", "small.toml", "--json")
        kept = tmp_path_factory.mktemp("trained") / "mlruns"
        shutil.copytree(here, kept)
        _trained[flavour] = kept, json.loads(done.stdout)["run_id"]
    else:
        shutil.copytree(_trained[flavour][0], here, dirs_exist_ok=True)
        own(here)
    return _trained[flavour][1]
