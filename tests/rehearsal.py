"""Rehearse the training at the size of SONYC-UST, on synthesised clips: time, memory and disk.

::

    python -m tests.rehearsal 1000 4000

For each number so many recordings of 10 s at 44.1 kHz are written in the layout of SONYC-UST and
in the proportions of its splits, and one epoch of every stage is trained on them, by `sust`'s
preset. A line per stage has its time per clip and the most memory that the process held of its own
(what the allocator keeps for later counts); the last lines the disk that was told before, the most
that was taken, and what was left. Arrays that later epochs read lie in memory up to 1 GiB and in
files above (a quarter of what is free, where nobody rehearses); the spectra that a dictionary is
learnt from, at most `dictionary.max_clips` of them, as ever. Each number has a process of its own.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from l2i.config import resolve
from l2i.data import card, open_dataset
from l2i.models import features
from l2i.recipes.opening.disk import disk_needed
from l2i.recipes.training import fit_classifier
from l2i.recipes.training.train import train
from l2i.run.progress import Progress, Task
from l2i.storage import disk_usage, format_bytes
from tests.miniatures import Recording, sust

__all__ = ["main"]

# Train, validate and test of v2.3, and the sensors of each split.
_SHARES = {"train": (13538, 35), "validate": (4308, 9), "test": (664, 48)}
_KEPT = 2**30
_ONE_EPOCH = (
    "classifier.epochs=1",
    "interpreter.epochs=1",
    "parts.gates.warm_epochs=1",
    "parts.gates.epochs=1",
    "output.clips=4",
)


def recordings(count: int) -> list[Recording]:
    """So many, each with one or two classes, heard by one volunteer and agreed upon."""
    rng = np.random.default_rng(count)
    classes = card("sust").classes
    total = sum(n for n, _ in _SHARES.values())
    made = []
    for split, (n, sensors) in _SHARES.items():
        for i in range(round(count * n / total)):
            chosen = rng.choice(len(classes), size=rng.integers(1, 3), replace=False)
            labels = tuple(classes[k] for k in sorted(chosen))
            name = f"{split}_{i % sensors:02d}_{i:06d}.wav"
            heard = {1 if split == "train" else 0: labels}
            made.append(Recording(name, split, i % sensors, heard, labels))
    return made


class _Most(threading.Thread):
    """The most that something was, looked at again and again."""

    def __init__(self, look: Callable[[], int], every_s: float) -> None:
        super().__init__(daemon=True)
        self._look, self._every_s, self._ended = look, every_s, threading.Event()
        self.bytes = 0
        self.start()

    def run(self) -> None:
        while not self._ended.wait(self._every_s):
            self.bytes = max(self.bytes, self._look())

    def stop(self) -> int:
        """The most."""
        self._ended.set()
        self.join()
        return max(self.bytes, self._look())


class _Watched(Progress):
    """Prints the time per clip and the peak of memory of each outermost task.

    The dictionaries of all classes are one line. Processor time is what tells sizes apart on a
    machine that does other things too.
    """

    def __init__(self, clips: int) -> None:
        super().__init__(quiet=True)
        self._clips, self._within = clips, False
        self._name, self._seconds, self._cpu, self._peak = "", 0.0, 0.0, 0.0

    @contextmanager
    def task(
        self, name: str, total: float | None = None, unit: str = "step", done: float = 0
    ) -> Iterator[Task]:
        outermost, self._within = not self._within, True
        held = _Most(_held, 0.2) if outermost else None
        begin, cpu = time.perf_counter(), time.process_time()
        try:
            with super().task(name, total, unit, done) as task:
                yield task
        finally:
            if held is not None:
                self._within = False
                took = time.perf_counter() - begin, time.process_time() - cpu
                self._add(name.partition(":")[0], *took, held.stop() / 2**30)

    def _add(self, name: str, seconds: float, cpu: float, peak: float) -> None:
        if name != self._name:
            self.flush()
            self._name, self._seconds, self._cpu, self._peak = name, 0.0, 0.0, 0.0
        self._seconds, self._cpu = self._seconds + seconds, self._cpu + cpu
        self._peak = max(self._peak, peak)

    def flush(self) -> None:
        """Print the line that is not complete until another task begins."""
        if self._name:
            print(
                f"{self._name:<20} {self._seconds:>8.1f} s {self._cpu:>8.1f} s of a processor "
                f"{1000 * self._cpu / self._clips:>7.1f} ms a clip {self._peak:>6.2f} GiB",
                flush=True,
            )


def _held() -> int:
    """Bytes of memory that are this process's own: files that are mapped can be given back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this rehearsal needs Linux")


def rehearse(count: int, over: list[str]) -> None:
    """Write so many clips, train, and print what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sust(folder / "data", recordings(count), seconds=10.0, rate=44100)
        os.environ["L2I_CACHE_DIR"] = str(folder / "cache")
        os.environ["L2I_MLRUNS"] = str(folder / "mlruns")
        os.chdir(folder)
        for module in (features, fit_classifier):
            vars(module)["memory_budget"] = lambda: _KEPT
        overrides = [f"dataset.data_dir={folder / 'data'}", *_ONE_EPOCH, *over]
        config = resolve(dataset="sust", overrides=overrides)
        dataset = open_dataset(config.dataset)
        needed = disk_needed(config, dataset)
        print(f"\n{count} clips of 10 s ({platform.machine()})", flush=True)
        places = {"cache": needed.decoded, "mlruns": needed.hidden}
        most = {name: _Most(partial(disk_usage, folder / name), 2) for name in places}
        watched = _Watched(count)
        train(config, watched)
        watched.flush()
        for name, told in places.items():
            peak, left = most[name].stop(), disk_usage(folder / name)
            sizes = " ".join(
                f"{word} {format_bytes(n)}"
                for word, n in (("told", told), ("taken", peak), ("left", left))
            )
            print(f"disk, {name:<14} {sizes}", flush=True)


def main() -> None:
    """Rehearse each number of clips in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.rehearsal", description=__doc__)
    parser.add_argument("counts", nargs="+", type=int, metavar="CLIPS")
    parser.add_argument("-o", dest="over", action="append", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args()
    if len(chosen.counts) == 1:
        rehearse(chosen.counts[0], chosen.over)
        return
    settings = [word for over in chosen.over for word in ("-o", over)]
    for count in chosen.counts:
        subprocess.run([sys.executable, "-m", "tests.rehearsal", str(count), *settings], check=True)


if __name__ == "__main__":
    main()
