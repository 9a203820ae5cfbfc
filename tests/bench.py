"""Speed and memory, as ``docs/results.md`` reports them: ``make bench``.

What is compared runs in turns, in one process, so that a noisy machine is noisy to both; the
figure is the median, beside it the quickest. Inputs are noise and weights are seeded: none of
this depends on what the sounds are.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from l2i.audit.cues import Palette
from l2i.audit.scan import scan
from l2i.config import resolve
from l2i.data import open_dataset
from l2i.data.cache import WaveformCache
from l2i.dsp.audio import write_audio
from l2i.dsp.spectrogram import SpectrogramSettings
from l2i.explanation import Explainer, MethodSettings, Subject, make_method
from l2i.explanation.gates import Gates
from l2i.models.classifier import FrozenClassifier
from l2i.models.dictionary import unit_columns
from l2i.models.features import FeatureStore
from l2i.models.gate_head import GateHead
from l2i.models.gated import Gating
from l2i.models.heard import hear
from l2i.models.interpreter import Interpreter
from l2i.models.losses import fidelity_loss, reconstruction_loss, sparsity_loss
from l2i.models.vgg import HIDDEN_MAPS, VGG
from l2i.recipes.publishing.explain import explain
from l2i.recipes.training.train import train
from l2i.run.device import cpu_has_bfloat16, set_threads
from l2i.run.progress import Progress
from l2i.types import Task
from tests.reference import published_activations

SETTINGS = SpectrogramSettings(44100)
N_SAMPLES, CLASSES, COMPONENTS = 220500, 10, 100


def _line(name: str, seconds: list[float], scale: float, unit: str) -> None:
    print(
        f"{name:<52} {statistics.median(seconds) * scale:>8.2f} {unit:<9} "
        f"(quickest {min(seconds) * scale:.2f})",
        flush=True,
    )


def _in_turns(rounds: int, *what: Callable[[], object]) -> list[list[float]]:
    for f in what:
        f()  # Once for nothing: caches, memory, kernels.
    taken: list[list[float]] = [[] for _ in what]
    for _ in range(rounds):
        for f, times in zip(what, taken, strict=True):
            begin = time.perf_counter()
            f()
            times.append(time.perf_counter() - begin)
    return taken


def _explainer(dtype: torch.dtype = torch.float32) -> Explainer:
    torch.manual_seed(0)
    names = [str(c) for c in range(CLASSES)]
    classifier = FrozenClassifier(VGG(CLASSES), SETTINGS, names, Task.SINGLE_LABEL, dtype=dtype)
    w = unit_columns(torch.rand(SETTINGS.n_bins, COMPONENTS))
    interpreter = Interpreter(COMPONENTS, CLASSES).eval().requires_grad_(False)
    return Explainer(classifier, w, interpreter, SETTINGS.domain)


def interpreter_epoch(rounds: int) -> None:
    """One epoch over 320 clips of 5 s, in batches of 32, from what is kept of the classifier."""
    n, batch = 320, 32
    torch.manual_seed(0)
    frames = SETTINGS.n_frames(N_SAMPLES)
    store = FeatureStore(
        torch.randn(n, CLASSES),
        tuple(torch.rand(n, r, t, c) for c, r, t in ((512, 4, 13), (256, 8, 26), (128, 16, 53))),
        torch.ones(n, frames, dtype=torch.bool),
        torch.rand(n, COMPONENTS, frames),
        torch.rand(n) * 1e5,
    )
    w = unit_columns(torch.rand(SETTINGS.n_bins, COMPONENTS))
    gram = w.T @ w
    network = Interpreter(COMPONENTS, CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    cpu = torch.device("cpu")

    def epoch(published: bool) -> None:
        for rows in torch.randperm(n).split(batch):
            features, _, projected, energy = store.batch(rows, cpu)
            if published:
                weights = dict(network.named_parameters())
                maps = dict(zip(network.maps, features.maps, strict=True))
                h = published_activations(weights, maps, frames)
                logits = network.fc1(network.pool(h))
            else:
                interpretation = network(features.maps, frames)
                h, logits = interpretation.activations, interpretation.logits
            loss = 5 * reconstruction_loss(h, gram, projected, energy, SETTINGS.n_bins)
            loss = loss + 0.5 * fidelity_loss(features.logits, logits, Task.SINGLE_LABEL)
            loss = loss + 0.4 * sparsity_loss(h)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def ours() -> None:
        epoch(False)

    ours()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    mine, theirs = _in_turns(rounds, ours, lambda: epoch(True))
    _line("interpreter, one epoch of 320 clips, float32", mine, 1, "s")
    _line("  the same in the published order of operations", theirs, 1, "s")
    print(f"{'  peak memory of the process':<52} {peak:>8.2f} GiB", flush=True)


def explanations(rounds: int) -> None:
    """Explanation and removal audio, and what the classifier says of the removal, per clip."""
    explainer, n = _explainer(), 32
    x = torch.randn(n, N_SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.1
    heard = explainer.hear(x)

    @torch.inference_mode()
    def whole(explainer: Explainer) -> None:
        for some in x.split(16):
            explanation, _, _ = explainer.explain(some, threshold=0.2)
            explainer.classifier.logits(explanation.removal)

    what: list[Callable[[], object]] = [
        lambda: whole(explainer),
        lambda: explainer.classifier.features_of(heard.spectrum, explainer.interpreter.maps),
        lambda: explainer.interpret(heard),
    ]
    if cpu_has_bfloat16():
        in_bfloat16 = _explainer(torch.bfloat16)
        what.append(lambda: whole(in_bfloat16))
    times, classifier, network, *reduced = _in_turns(rounds, *what)
    _line("explanation, removal and faithfulness, per clip", times, 1000 / n, "ms")
    _line("  of which the classifier's forward, each of two", classifier, 1000 / n, "ms")
    _line("  of which the interpreter's forward", network, 1000 / n, "ms")
    for seconds in reduced:
        _line("  the whole with --precision bfloat16", seconds, 1000 / n, "ms")


def without_training(rounds: int) -> None:
    """An explanation without training of the VGG, clips of 5 s at 44.1 kHz, two at once."""
    gates = Gates(_explainer().classifier)
    x = torch.randn(2, N_SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.1
    (times,) = _in_turns(min(rounds, 3), lambda: gates(x, torch.tensor([0, 1])))
    _line("explanation without training, per clip", times, 1 / 2, "s")
    subject = _gated_subject()
    trained, refined = (
        make_method(name, subject, MethodSettings()) for name in ("gated-l2i", "refined-gates")
    )
    heard = hear(subject.classifier, x, SETTINGS.domain, trained.layers)
    classes = torch.tensor([0, 1])
    times, longer = _in_turns(
        min(rounds, 3), *(partial(way, heard, classes, [0, 1]) for way in (trained, refined))
    )
    _line("  by gates that were trained", times, 1000 / 2, "ms")
    _line("  by the same, refined", longer, 1 / 2, "s")


def _gated_subject() -> Subject:
    """The VGG, a dictionary, and gates at random."""
    explainer, layers = _explainer(), tuple(reversed(HIDDEN_MAPS))
    x = torch.randn(1, N_SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.1
    shapes = tuple((m.shape[1], m.shape[2]) for m in explainer.classifier.features(x, layers).maps)
    head = GateHead(COMPONENTS, shapes, depths=len(layers)).eval().requires_grad_(False)
    parts = {"dictionary": explainer.w, "interpreter": explainer.interpreter}
    parts["gates"] = Gating(head, layers, explainer.w)
    return Subject(explainer.classifier, SETTINGS.domain, parts)


def audit_pass(rounds: int) -> None:
    """`l2i audit`'s pass over 2,000 clips of 5 s at 44.1 kHz by gates, beside the classifier's own
    forward; and the memory that 250 and all of them take."""
    subject = _gated_subject()
    classifier = subject.classifier
    x = torch.randn(16, N_SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.1
    way = make_method("gated-l2i", subject, MethodSettings())
    palette = Palette(SETTINGS.domain, subject.parts["dictionary"], torch.device("cpu"))
    clips = x.numpy()

    def read(some: slice) -> np.ndarray:
        return clips[: some.stop - some.start]

    peaks, seconds = [], []
    for count in (250, 2000):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            scan(subject, way, palette, read, count, Path(folder), lambda n: None)
            seconds.append(time.perf_counter() - begin)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    (forward,) = _in_turns(rounds, lambda: classifier.logits(x))
    _line("audit, the pass over 2,000 clips, per clip", seconds[1:], 1000 / 2000, "ms")
    _line("  the classifier's forward alone", forward, 1000 / len(x), "ms")
    for count, peak in zip((250, 2000), peaks, strict=True):
        print(f"{f'  peak memory after {count} clips':<52} {peak:>8.2f} GiB", flush=True)


def warm_cache(rounds: int) -> None:
    """Clips of 5 s at 44.1 kHz per second, from the cache on disk into memory."""
    over = ["dataset.sample_rate=44100", "dataset.duration_s=5.0", "dataset.clips_per_class=25"]
    dataset = open_dataset(resolve(overrides=over).dataset)
    clips = dataset.clips()
    cache = WaveformCache()
    cache.open(dataset, clips)

    def read() -> None:
        waves = cache.open(dataset, clips)
        order = np.random.default_rng(0).permutation(waves.rows(clips))
        for start in range(0, len(order), 32):
            np.asarray(waves.array[order[start : start + 32]])

    (times,) = _in_turns(rounds, read)
    median = statistics.median(times)
    print(f"{'clips from a warm cache':<52} {len(clips) / median:>8.0f} clips/s", flush=True)


def whole_files(rounds: int) -> None:
    """`l2i explain` of 80 files of 5 s at 44.1 kHz: sounds, pictures, and the page of all."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/runs.db"
        small = (
            "dataset.sample_rate=44100",
            "dataset.duration_s=5.0",
            "dataset.clips_per_class=10",
        )
        once = ("classifier.epochs=1", "interpreter.epochs=1", "explanation.rule=published")
        before = Path.cwd()
        os.chdir(folder)
        try:
            config = resolve(overrides=[*small, *once, "output.clips=0"])
            run = train(config, Progress(quiet=True)).run_id
            dataset = open_dataset(config.dataset)
            clips = dataset.clips()
            waves = WaveformCache().open(dataset, clips)
            files = []
            for number, row in enumerate(waves.rows(clips)):
                files.append(Path(f"{number}.wav"))
                write_audio(files[-1], waves.array[row], 44100)
            (times,) = _in_turns(
                min(rounds, 3), lambda: explain(run, files, Progress(quiet=True), out=Path("out"))
            )
        finally:
            os.chdir(before)
    _line(f"{len(files)} files, sounds, pictures and page, each", times, 1 / len(files), "s")


BENCHES = {
    "interpreter": interpreter_epoch,
    "explain": explanations,
    "files": whole_files,
    "gates": without_training,
    "audit": audit_pass,
    "cache": warm_cache,
}


def main() -> None:
    """Run the benches that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(BENCHES):
        parser.error(f"there is no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    threads = set_threads(0)
    print(f"{platform.machine()}, {threads} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["L2I_CACHE_DIR"] = str(Path(folder) / "cache")
        for name in chosen.names or BENCHES:
            BENCHES[name](chosen.rounds)


if __name__ == "__main__":
    main()
