"""`l2i.run.device`: the words of a config on this machine; every seed."""

from __future__ import annotations

import platform
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from l2i.environment import cpu_count
from l2i.errors import DeviceError
from l2i.run import device
from l2i.run.device import (
    cuda_problem,
    epoch_generator,
    keep_memory,
    pick_device,
    seed_everything,
    set_threads,
)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither CUDA nor MPS."""
    monkeypatch.setattr(device, "cuda_problem", lambda: "torch sees no CUDA device")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a CUDA device that has bfloat16."""
    monkeypatch.setattr(device, "cuda_problem", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


@pytest.mark.usefixtures("no_gpu")
def test_auto_falls_back_to_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 where it has no bfloat16, with the reason in the sentence."""
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: False)
    place, dtype, sentences = pick_device("auto", "auto")
    assert (place, dtype) == (torch.device("cpu"), torch.float32)
    assert sentences == ["Device: cpu, float32 (torch sees no CUDA device)."]


@pytest.mark.usefixtures("gpu")
def test_auto_takes_cuda_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """With bfloat16 where the device has it, float16 where it has not; float32 if asked for."""
    place, dtype, sentences = pick_device("auto", "auto")
    assert (place.type, dtype) == ("cuda", torch.bfloat16)
    assert sentences == ["Device: Some GPU, bfloat16."]
    assert pick_device("cuda", "float32")[1] == torch.float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert pick_device("cuda", "auto")[1] == torch.float16
    with pytest.raises(DeviceError, match="Some GPU has no bfloat16"):
        pick_device("cuda", "bfloat16")


@pytest.mark.usefixtures("no_gpu")
def test_mps_is_taken_where_there_is_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    place, dtype, sentences = pick_device("auto", "auto")
    assert (place.type, dtype, sentences) == ("mps", torch.float32, ["Device: mps, float32."])
    with pytest.raises(DeviceError, match="bfloat16 is not offered on mps"):
        pick_device("mps", "bfloat16")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        (
            "cuda",
            "float32",
            "--device cuda cannot be had: torch sees no CUDA device; take --device",
        ),
        ("mps", "float32", "--device mps cannot be had"),
        ("cpu", "float16", "--precision float16 needs a CUDA device, not cpu"),
        ("auto", "float16", "--precision float16 needs a CUDA device, not cpu"),
    ],
)
def test_what_is_not_there_is_refused(name: str, precision: str, words: str) -> None:
    """With the reason and what to take instead."""
    with pytest.raises(DeviceError, match=words):
        pick_device(name, precision)


@pytest.mark.usefixtures("no_gpu")
def test_bfloat16_needs_a_processor_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated it would be slower than float32."""
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: True)
    for wanted in ("bfloat16", "auto"):
        assert pick_device("cpu", wanted)[:2] == (torch.device("cpu"), torch.bfloat16)
    monkeypatch.setattr(device, "cpu_has_bfloat16", lambda: False)
    with pytest.raises(DeviceError, match="This processor has no bfloat16"):
        pick_device("cpu", "bfloat16")


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 12040). Please update "
            "your GPU driver by downloading and installing a new version from the URL: ...",
            f"the NVIDIA driver is too old: it goes up to CUDA 12.4, torch {torch.__version__} "
            "needs CUDA 13.0; install a newer driver",
        ),
        (
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU ...",
            "there is no NVIDIA driver here (in a container: docker run --gpus all, which needs "
            "NVIDIA's container toolkit on the machine)",
        ),
        ("No CUDA GPUs are available", "No CUDA GPUs are available"),
        ("Unexpected error. Please see ...\nmore", "Unexpected error"),
    ],
)
def test_why_there_is_no_device(words: str, want: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says of it when it is pressed, in words of what to do."""

    def init() -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    assert cuda_problem() == want


def test_why_cuda_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build without it, no device, a driver that breaks: each is the end of a sentence."""
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is a build without CUDA" in (cuda_problem() or "")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert cuda_problem() == "torch sees no CUDA device"

    def broken() -> bool:
        raise RuntimeError("CUDA error: no kernel image\nmore words")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    assert cuda_problem() == "the CUDA device does not work: CUDA error: no kernel image"


@pytest.mark.parametrize(
    ("limit", "want"), [("max 100000\n", 8), ("250000 100000\n", 2), ("50000 100000\n", 1)]
)
def test_a_containers_limit_counts(
    limit: str, want: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As many of eight cores as the control group allows, rounded down, at least one; so many at
    once share them."""
    import psutil

    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr("l2i.environment.Path", lambda _: tmp_path / "cpu.max")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 8)
    assert cpu_count() == want and cpu_count(3) == max(1, want // 3)


def test_threads_are_those_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number wins, then OMP_NUM_THREADS, then one per physical core."""
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert set_threads(3) == 3 == torch.get_num_threads()
        assert set_threads() == 2 == torch.get_num_threads()
        for word in ("", "many", "0"):
            monkeypatch.setenv("OMP_NUM_THREADS", word)
            assert set_threads() == cpu_count()
    finally:
        torch.set_num_threads(before)


_FAULTS = """
import ctypes, resource, sys, torch
from l2i.run.device import keep_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # No huge pages, with which there are few faults anyway.
kept = keep_memory() if sys.argv[1] == "keep" else None
torch.set_num_threads(1)
# What is kept is fetched once. Where in a page the heap begins is chance, and at first a block
# that was freed may be some bytes too short for the same block aligned otherwise.
for _ in range(20):
    torch.ones(16_000_000).mul(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    torch.ones(16_000_000).mul(2)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's mallopt is asked for")
def test_memory_that_is_freed_is_kept() -> None:
    """Six times 64 MB: with glibc's defaults every page is fetched anew, each time; kept, hardly
    one is."""

    def faults(word: str) -> list[str]:
        command = [sys.executable, "-c", _FAULTS, word]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    kept, few = faults("keep")
    assert kept == "True"
    assert 10 * int(few) < int(faults("leave")[1])


def test_memory_is_left_to_a_c_library_that_cannot_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No mallopt (musl), or another system: False, and no error."""
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    assert not keep_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_memory()


def test_one_seed_seeds_everything() -> None:
    """Python's, NumPy's and torch's generators start where they started before; a seed larger
    than NumPy takes is taken too."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        drawn = []
        for seed in (3, 3, 4, 2**40):
            seed_everything(seed)
            drawn.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
        assert drawn[0] == drawn[1]
        assert all(a != b for a, b in zip(drawn[0], drawn[2], strict=True))
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def test_an_epochs_draws_depend_on_its_words_alone() -> None:
    """Not on what was drawn before, nor on the global seed; each word matters, and so does how
    they are put together."""

    def draw(*words: str | int) -> list[float]:
        return torch.rand(4, generator=epoch_generator(*words)).tolist()  # type: ignore[arg-type]

    want = draw(0, "interpreter", 3)
    torch.rand(7)
    assert draw(0, "interpreter", 3) == want
    others = [(1, "interpreter", 3), (0, "classifier", 3), (0, "interpreter", 4), (0,)]
    others += [(0, "interpreter", 31), (0, "interpreter", "3"), (0, "interpreter3")]
    drawn = [draw(*words) for words in others]
    assert want not in drawn
    assert len({tuple(d) for d in drawn}) == len(drawn)
