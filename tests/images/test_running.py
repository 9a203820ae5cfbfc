"""The images as users run them: every option, and what is said where one is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from l2i.run.runs import list_runs
from l2i.run.search import RunInfo
from tests.images.conftest import USER, Image, Place, own

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

# A folder that cannot be written, somebody whom nobody knows, no network, and hardly any memory
# to share between processes.
HARSH = ("--read-only", "--tmpfs", "/tmp", "--network", "none", "--shm-size", "1m")
# Said when the classifier is trained: what a test looks for comes before, and the rest is not its.
_TRAINS = r"hidden maps: \d+/\d+"
# No more of the true experiments than proves that all of it works.
SHORT = """
[dataset]
sample_rate = 8000
duration_s = 1.6

[spectrogram]
n_fft = 256
hop_length = 100

[classifier]
epochs = 1
batch_size = 16
width = 0.25

[dictionary]
components = 20
iterations = 2

[interpreter]
epochs = 1
views = 1

[explanation]
random_draws = 1

[output]
clips = 2

[run]
threads = 1
"""
GATES = """
[parts.gates]
warm_epochs = 1
epochs = 1
views = 1
"""


def runs_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[RunInfo]:
    """What this machine's MLflow reads in the store that containers wrote."""
    monkeypatch.setenv("L2I_MLRUNS", str(place.folder / "mlruns"))
    return list_runs(limit=20)


def test_without_words_it_prints_its_help(image: Image) -> None:
    """And ends with 0; a word that is no command with 2, as outside."""
    done = image.engine("run", "--rm", image.tag)
    assert done.stdout.startswith("Usage: l2i [OPTIONS] COMMAND")
    assert "No such option" in image.engine("run", "--rm", image.tag, "--nope", code=2).stderr


def test_train_demo(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under all options at once: another user, a read-only root, no network, little shared
    memory, settings as variables. The run is whole, this machine reads it, its files are its
    user's, and it says which image made it."""
    (place.folder / "work" / "short.toml").write_text(SHORT + GATES)
    options = (*HARSH, "-e", "L2I_TRAIN_CONFIG=short.toml", "-e", "L2I_DATASET=demo")
    done = place.run("train", "--json", options=options)
    scores = json.loads(done.stdout)["scores"]
    assert 0 <= scores["fidelity_top1"] <= 1
    assert "320 clip" in done.stderr and "are lost" not in done.stderr
    (run,) = runs_of(place, monkeypatch)
    assert (run.status, run.experiment) == ("FINISHED", "demo")
    labels = place.image.config["Labels"]
    revision = labels["org.opencontainers.image.revision"]
    assert run.tags["l2i.image"] == labels["l2i.digest"]
    if revision != "unknown":
        commit, _, dirty = revision.partition("-")
        assert run.tags["l2i.commit"] == run.tags["mlflow.source.git.commit"] == commit
        assert run.tags["l2i.dirty"] == ("true" if dirty else "false")
    assert run.params["run.device"] == "auto"
    folder = place.folder / "mlruns"
    artifacts = folder / "artifacts" / "demo" / run.id / "artifacts"
    assert list(artifacts.glob("explanations/**/explanation.*"))
    assert {(p.stat().st_uid, p.stat().st_gid) for p in folder.rglob("*")} == {USER}


def test_train_esc10_on_real_clips(
    place: Place, esc10_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder mounted for reading: caches are kept elsewhere. By the published method,
    since gates have had their turn above."""
    (place.folder / "work" / "short.toml").write_text(SHORT + '[method]\nname = "l2i"\n')
    words = ("train", "--dataset", "esc10", "--config", "short.toml", "--json")
    done = place.run(*words, options=("-v", f"{esc10_dir}:/data:ro"))
    assert "400 clip" in done.stderr
    (run,) = runs_of(place, monkeypatch)
    assert (run.status, run.experiment, run.name[:10]) == ("FINISHED", "esc10", "esc10-fold")
    again = place.run(*words, options=("-v", f"{esc10_dir}:/data:ro"))
    assert json.loads(again.stdout)["found"] is True


def test_data_and_caches_are_kept_on_a_volume(place: Place) -> None:
    """A new volume takes the rights of the image's folder, so that any user may write it; clips
    are decoded once for all of a user's containers. Another user has a cache elsewhere."""
    volume = f"l2i-test-{os.getpid()}"
    options = (*HARSH, "-v", f"{volume}:/data")
    try:
        first = place.start("train", "--config", "small.toml", options=options)
        assert "clips: 48/48" in first.wait_for(_TRAINS)
        place.close()
        code = "from l2i.data.places import cache_folder; print(cache_folder())"
        for user, where in (("{}:{}".format(*USER), "/data/.cache/l2i"), ("4712", "/tmp/l2i-4712")):
            mine = ("-v", f"{volume}:/data", "--user", user)
            assert place.image.python(code, *mine).strip() == where
        second = place.start("train", "--config", "small.toml", "--again", options=options)
        assert "clips: 48/48" not in second.wait_for(_TRAINS)
    finally:
        place.close()
        place.image.engine("volume", "rm", "--force", volume)


@pytest.mark.usefixtures("trained")
def test_explain_a_file_of_ones_own(place: Place, esc10_dir: Path) -> None:
    """In the folder that one works in, mounted at /work."""
    clip = next((esc10_dir / "audio").iterdir())
    here = own(place.folder / "here")
    shutil.copy(clip, here / f"my{clip.suffix}")
    options = ("-v", f"{here}:/work", *HARSH)
    # The later of two mounts of /work would be refused.
    engine, mlruns = place.image.engine, f"{place.folder / 'mlruns'}:/mlruns"
    engine(
        *("run", "--rm", "--user", "{}:{}".format(*USER), "-v", mlruns, *options),
        *(place.image.tag, "explain", "latest", f"my{clip.suffix}", "--out", "heard"),
    )
    assert list(here.glob("heard/**/explanation.wav"))


def test_runs_that_would_be_lost_are_said_to_be(place: Place) -> None:
    """Where nothing is mounted at /mlruns."""
    work = ("-v", f"{place.folder / 'work'}:/work:ro")
    lost = place.detach(*work, place.image.tag, "train", "--config", "small.toml")
    words = lost.wait_for(_TRAINS)
    assert "Runs go to /mlruns in this container, and are lost with it" in words
    assert "-v $PWD/mlruns:/mlruns" in words


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that is another's")
def test_a_folder_of_somebody_else_is_one_sentence(place: Place) -> None:
    """With what to do: run as its owner."""
    shutil.chown(place.folder / "mlruns", 0, 0)
    done = place.run("train", "--config", "small.toml", code=1)
    assert f"User {USER[0]} may not write in /mlruns" in done.stderr
    assert "docker run --user $(id -u):$(id -g)" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_gpu_it_says_so(place: Place) -> None:
    """`--device auto` takes the CPU with the reason; `--device cuda` ends with 1."""
    cuda = place.image.flavour == "cuda"
    why = "there is no NVIDIA driver here" if cuda else "is a build without CUDA"
    words = place.start("train", "--config", "small.toml", options=HARSH).wait_for(_TRAINS)
    assert f"Device: cpu, float32 ({'' if cuda else 'torch 2'}" in words and why in words
    done = place.run("train", "--config", "small.toml", "--device", "cuda", code=1)
    assert "--device cuda cannot be had" in done.stderr and why in done.stderr
    assert "Traceback" not in done.stderr


def test_a_driver_that_is_too_old_is_said_to_be(place: Place) -> None:
    """Before a driver of CUDA 12.4, made here, that answers when it is asked how old it is."""
    if place.image.flavour != "cuda":
        pytest.skip("the CPU image asks no driver")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a driver with")
    source = place.folder / "driver.c"
    source.write_text(
        "int cuInit(unsigned flags) { return 0; }\n"
        "int cuDriverGetVersion(int *version) { *version = 12040; return 0; }\n"
    )
    library = place.folder / "work" / "libcuda.so.1"
    words = ("-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, source)
    subprocess.run([compiler, *words], check=True)
    old = ("-e", "LD_LIBRARY_PATH=/work")
    why = "the NVIDIA driver is too old: it goes up to CUDA 12.4, torch "
    done = place.run("doctor", options=old, code=None)
    assert f"CUDA cannot be used: {why}" in done.stdout and "UserWarning" not in done.stderr
    done = place.run("train", "--config", "small.toml", "--device", "cuda", options=old, code=1)
    assert f"--device cuda cannot be had: {why}" in done.stderr
    done = place.run("train", "--config", "small.toml", options=old)
    assert f"Device: cpu, float32 ({why}" in done.stderr
