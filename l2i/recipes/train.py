"""The whole method on one fold: classifier -> dictionary -> interpreter -> figures -> sounds.

Each part is a stage that survives a crash (see `stage`); the same command again goes on from the
last finished epoch, in the same MLflow run. The best epoch of classifier and interpreter is the
one with the lowest loss on the validation clips, which are taken from the training clips. A loss
and not a share of right answers: with some thirty validation clips, shares come in steps of three
per cent, and many epochs tie.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from l2i.config import Config
from l2i.dsp.spectrogram import (
    log_magnitude,
    magnitude,
    mel_bands,
    peak_normalise,
    power_to_db,
    stft,
)
from l2i.errors import CheckpointError, DataError, DeviceError, UsageError
from l2i.explanation import Explainer
from l2i.metrics.classification import best_thresholds
from l2i.models.augmentation import augment, cropped
from l2i.models.checkpoint import load_checkpoint, read_settings
from l2i.models.classifier import FrozenClassifier
from l2i.models.dictionary import band_dictionary, learn_dictionary, random_dictionary
from l2i.models.features import allocate, compute_features, memory_budget
from l2i.models.interpreter import Interpreter
from l2i.models.losses import fidelity_loss, reconstruction_loss, sparsity_loss
from l2i.models.vgg import MIN_FRAMES, VGG, last_map_size
from l2i.recipes.bundle import MODEL, build_classifier, build_explainer, build_interpreter
from l2i.recipes.checkpoints import keep_checkpoints
from l2i.recipes.description import DESCRIPTION, describe_model
from l2i.recipes.examples import write_examples
from l2i.recipes.figures import write_evaluation
from l2i.recipes.material import Material, prepare
from l2i.recipes.measure import Evaluation, evaluate_clips
from l2i.recipes.served import write_model
from l2i.recipes.stage import Stage, open_stage
from l2i.run import provenance
from l2i.run.device import epoch_generator, pick_device, seed_everything, set_threads
from l2i.run.progress import Progress
from l2i.run.runs import adopt, register
from l2i.run.tracker import RunInfo, Tracker, find_finished, open_run
from l2i.types import Clip, Task

__all__ = ["Outcome", "train"]


@dataclass(frozen=True)
class Outcome:
    """What `train` gives back: the finished run, and whether it was there already."""

    run_id: str
    name: str
    experiment: str
    scores: dict[str, float]
    resumed: bool = False
    found: bool = False


def train(
    config: Config,
    progress: Progress,
    *,
    again: bool = False,
    parent: str = "",
    register_as: str = "",
    owner: str = "",
    marks: Mapping[str, str] | None = None,
) -> Outcome:
    """Train, measure and explain; everything is kept as one MLflow run.

    Parameters
    ----------
    config : Config
    progress : Progress
    again : bool
        Make a new run even where a finished one has the same signature. Finished stages are
        reused all the same: they would come out equal.
    parent : str
        The id of a run to lie under.
    register_as : str
        Name of a registered model, of which this run's model becomes a version.
    owner : str
        See `l2i.run.tracker.open_run`.
    marks : mapping, optional
        More tags of the run, be it trained or found.

    Returns
    -------
    Outcome
    """
    threads = set_threads(config.run.threads)
    device, dtype, sentences = pick_device(config.run.device, config.run.precision)
    learns_in, more = _training_precision(config, device, dtype)
    sentences = [*sentences, *more]
    seed_everything(config.run.seed)
    material = prepare(config, progress)
    experiment = config.run.experiment or config.dataset.name
    weights = _weights_digest(config)
    signature = _sign(config.signature(), material, weights)
    if not again and (done := find_finished(experiment, signature)) is not None:
        adopt(done, parent, marks)
        if register_as:
            register(done, register_as, MODEL)
        return _found(done)
    name = config.run.name or f"{config.dataset.name}-fold{config.dataset.fold}-{signature[:6]}"
    tags = provenance.tags(device) | {
        "l2i.kind": "train",
        "l2i.dataset": config.dataset.name,
        "l2i.fold": str(config.dataset.fold),
        "l2i.data_digest": material.digest,
        "l2i.threads": str(threads),
        **({"mlflow.parentRunId": parent} if parent else {}),
        **(marks or {}),
    }
    with (
        open_run(
            experiment=experiment,
            name=name,
            signature=signature,
            tags=tags,
            params=config.flat(),
            resume=not again,
            owner=owner,
            on_away=progress.say,
        ) as run,
        keep_checkpoints(run, config.run.checkpoint_minutes, progress) as kept,
    ):
        for sentence in sentences:
            progress.say(sentence)
        word = "Resuming" if run.resumed else "Run"
        progress.say(f"{word} {run.name} ({run.run_id[:8]}) of experiment {experiment}.")
        source = material.card.homepage or material.card.title
        run.input(config.dataset.name, material.digest, source)
        split = material.split
        progress.say(
            f"{material.card.title}: {len(split.train)} clips train, {len(split.validate)} "
            f"choose the epoch, {len(split.test)} test."
        )
        work = run.folder.parent
        bundle = run.folder / "bundle"
        bundle.mkdir(parents=True, exist_ok=True)

        stages = {
            k: _sign(config.signature(k), material, _weights_digest(config, k)) for k in _STAGES
        }
        if fetched := kept.fetch(stages):
            progress.say(f"Fetched the checkpoint of an earlier attempt: {fetched}.")
            run.tags({"l2i.resumed_from": fetched})

        def hold(name: str) -> AbstractContextManager[Stage]:
            return open_stage(name, stages[name], work, run, progress, kept.saved)

        with hold("classifier") as stage:
            if not stage.result.exists():
                _train_classifier(config, material, stage, device, learns_in, progress)
            tensors, document = stage.load()
            classifier = build_classifier(tensors, document, stage.result, device, dtype)
            shutil.copy2(stage.result, bundle)
        _same_data(classifier, material, stage.result)

        with hold("dictionary") as stage:
            if not stage.result.exists():
                _learn_dictionary(config, material, stage, device, progress)
            tensors, _ = stage.load()
            w = tensors["W"].to(device)
            shutil.copy2(stage.result, bundle)

        with hold("interpreter") as stage:
            if not stage.result.exists():
                _train_interpreter(config, material, classifier, w, stage, device, dtype, progress)
            stage.load()
            shutil.copy2(stage.result, bundle)
        explainer = build_explainer(bundle, device, dtype)

        evaluation = evaluate_clips(
            explainer,
            material.waves.array,
            material.rows(split.test),
            material.targets(split.test).numpy().astype(bool),
            config.explanation,
            seed=config.run.seed,
            progress=progress,
        )
        _publish(config, material, run, bundle, explainer, evaluation, progress)
        if register_as:
            run.register(register_as, MODEL)
        kept.done()
        return Outcome(run.run_id, run.name, experiment, evaluation.scores, run.resumed)


_STAGES = ("classifier", "dictionary", "interpreter")


def _sign(signature: str, material: Material, weights: str) -> str:
    """A config's signature together with the content of the clips and of weights it names."""
    words = f"{signature} {material.digest} {weights}"
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _weights_digest(config: Config, stage: str = "interpreter") -> str:
    """Of the files of weights that a stage depends on, by default the last one and so all.

    Another file under the same name is another experiment.
    """
    c = config.classifier
    named = {
        "classifier": (c.weights, c.audioset_weights),
        "dictionary": (config.dictionary.weights,),
    }
    found = []
    for part, words in named.items():
        for word in words:
            if word and stage in (part, "interpreter"):
                path = Path(word)
                if not path.is_file():
                    raise CheckpointError(f"There are no {part} weights at {path}.")
                with path.open("rb") as file:
                    found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(found)


def _found(done: RunInfo) -> Outcome:
    scores = {k.removeprefix("test/"): v for k, v in done.metrics.items() if k.startswith("test/")}
    return Outcome(done.id, done.name, done.experiment, scores, found=True)


def _same_data(classifier: FrozenClassifier, material: Material, path: Path) -> None:
    if different := classifier.settings.differences(material.settings):
        raise CheckpointError(f"{path} was made under other settings: {', '.join(different)} now.")
    if classifier.classes != material.card.classes:
        raise CheckpointError(
            f"{path} knows {len(classifier.classes)} classes ({', '.join(classifier.classes[:4])}"
            f"...), which are not the {len(material.card.classes)} of {material.card.title}."
        )


# --- classifier ---------------------------------------------------------------------------------


def _batches(rows: Tensor, size: int, lone: bool) -> list[Tensor]:
    """Batches of `size`; unless `lone`, a last one of one clip goes with the batch before."""
    found = list(rows.split(size))
    if not lone and len(found) > 1 and len(found[-1]) == 1:
        found[-2:] = [torch.cat(found[-2:])]
    return found


def _training_precision(
    config: Config, device: torch.device, dtype: torch.dtype
) -> tuple[torch.dtype, list[str]]:
    """What the classifier is trained in, `dtype` being that of all else, and a sentence on it."""
    own = config.classifier.precision
    if not own or config.classifier.weights:
        return dtype, []
    try:
        found = pick_device(device.type, own)[1]
    except DeviceError as error:
        # The option's words, of this setting.
        raise DeviceError(str(error).replace("--precision", "classifier.precision")) from None
    if own == "auto" and found == torch.float16:
        found = torch.float32  # Gradients would be lost below its range.
    word = str(found).removeprefix("torch.")
    return found, [f"The classifier is trained in {word}."] if found != dtype else []


def _train_classifier(
    config: Config,
    material: Material,
    stage: Stage,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> None:
    """Fit the classifier, or take the weights the config names; keep the best epoch's."""
    c, task = config.classifier, material.card.task
    meta: dict[str, Any] = {
        "classes": list(material.card.classes),
        "task": str(task),
        "head": c.head,
        "dropout": c.dropout,
    }
    if c.weights:
        path = Path(c.weights)
        tensors, document = load_checkpoint(path, "classifier")
        read_settings(path, document, material.settings)
        _same_data(build_classifier(tensors, document, path, device, dtype), material, path)
        stage.finish(tensors, {**document, "source": path.name}, material.settings)
        return
    if c.pos_weight and len(c.pos_weight) != len(material.card.classes):
        raise UsageError(
            f"classifier.pos_weight has {len(c.pos_weight)} values for "
            f"{len(material.card.classes)} classes."
        )
    torch.manual_seed(config.run.seed)
    network = VGG(len(material.card.classes), head=c.head, dropout=c.dropout)
    if c.audioset_weights:
        _load_audioset(network, Path(c.audioset_weights), progress)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if not c.train_trunk:
        network.netx.requires_grad_(False)
    parameters = [p for p in network.parameters() if p.requires_grad]
    kind = torch.optim.AdamW if c.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(parameters, lr=c.learning_rate, weight_decay=c.weight_decay)

    split = material.split
    mel = _mel_magnitudes(material, stage.folder, device, progress)
    y = torch.cat([material.targets(split.train), material.targets(split.validate)])
    n = len(split.train)
    validation = torch.arange(n, len(y))
    pos_weight = torch.tensor(c.pos_weight, device=device) if c.pos_weight else None

    def loss_of(logits: Tensor, target: Tensor) -> Tensor:
        if task is Task.SINGLE_LABEL:
            return F.cross_entropy(logits, target, label_smoothing=c.label_smoothing)
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight)

    averaged = copy.deepcopy(network)
    best = stage.restore(optimizer, network=network, averaged=averaged)
    a = c.augmentation
    frames = cropped(mel.shape[1], a.crop_share if a.enabled else 1.0, MIN_FRAMES)
    lone = not c.train_trunk or last_map_size(frames, mel.shape[2]) > 1
    if not lone and min(n, c.batch_size) == 1:
        why = "there is one training clip" if n == 1 else "classifier.batch_size is 1"
        raise UsageError(
            f"Clips of {frames} frames are too short for the classifier to learn from one at a "
            f"time, and {why}: give it two at a time, or set dataset.duration_s higher."
        )
    batches = len(_batches(torch.arange(n), c.batch_size, lone))
    done = len(stage.history)
    with progress.task("classifier", total=c.epochs, unit="epoch", done=done) as bar:
        for epoch in range(done + 1, c.epochs + 1):
            generator = epoch_generator(config.run.seed, "classifier", epoch)
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # Dropout.
            network.train()
            if not c.train_trunk:
                network.netx.eval()  # Frozen batch norms keep their statistics, too.
            total = 0.0
            order = torch.randperm(n, generator=generator)
            for step, rows in enumerate(_batches(order, c.batch_size, lone)):
                rate = _learning_rate(config, (epoch - 1) * batches + step, batches)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                x, target = mel[rows].to(device), y[rows].to(device)
                if a.enabled:
                    x, target = augment(
                        x,
                        target,
                        generator,
                        shift=a.shift,
                        mixup_alpha=a.mixup,
                        gain_db=a.gain_db,
                        filter_db=a.filter_db,
                        noise_db=a.noise_db,
                        crop_share=a.crop_share,
                        frequency_masks=a.frequency_masks,
                        frequency_mask_bands=a.frequency_mask_bands,
                        time_masks=a.time_masks,
                        time_mask_share=a.time_mask_share,
                        min_frames=MIN_FRAMES,
                    )
                else:
                    x = power_to_db(x).unsqueeze(1)
                x = x.contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    logits = network(x)
                loss = loss_of(logits.float(), target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                _average(averaged, network, (epoch - 1) * batches + step, c.average)
                total += float(loss.detach()) * len(rows)
            logits = _classify(averaged, mel, validation, device, dtype, c.batch_size)
            wanted = y[validation]
            figures = {
                "loss": total / n,
                "validation_loss": float(loss_of(logits.to(device), wanted.to(device))),
                "validation_accuracy": _right(logits, wanted, task),
                "learning_rate": rate,
            }
            best = _keep_best(stage, figures, averaged, best)
            stage.save(optimizer, best, network=network, averaged=averaged)
            bar.advance(1, f"validation accuracy {figures['validation_accuracy']:.3f}")
    thresholds: list[float] = []
    if task is Task.MULTI_LABEL:
        thresholds = list(c.thresholds)
        if not thresholds:
            averaged.load_state_dict(best)
            every = torch.arange(len(y))
            logits = _classify(averaged, mel, every, device, dtype, c.batch_size)
            thresholds = best_thresholds(logits.sigmoid().numpy(), y.numpy().astype(bool))
    stage.finish(
        best, {**meta, "thresholds": thresholds, "epoch": _best_epoch(stage)}, material.settings
    )


@torch.no_grad()
def _average(averaged: torch.nn.Module, network: torch.nn.Module, step: int, decay: float) -> None:
    """Let the averaged weights (and batch norms' statistics) follow the trained ones.

    An exponential moving average (Polyak and Juditsky 1992). Few clips give noisy steps, and a
    few dozen validation clips cannot tell a good epoch from a lucky one; the average has
    neither trouble. It is shorter in the beginning, where the weights move fast.
    """
    keep = min(decay, (2 + step) / (11 + step))
    for mine, theirs in zip(
        averaged.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - keep)
        else:
            mine.copy_(theirs)


def _load_audioset(network: VGG, path: Path, progress: Progress) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        unused = network.load_audioset(state)
    except Exception as error:  # torch.load raises whatever the bytes make it raise.
        line = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} does not hold the trunk's AudioSet weights: {line}"
        ) from None
    progress.say(f"AudioSet weights from {path.name}; unused: {', '.join(unused) or 'none'}.")


def _learning_rate(config: Config, step: int, batches: int) -> float:
    """Of one step, in closed form, so that a resumed run needs no scheduler's state."""
    c = config.classifier
    if c.schedule == "steps":
        epoch = step // batches
        for epochs, rate in c.steps:
            if epoch < epochs:
                return rate
            epoch -= epochs
        return c.steps[-1][1] if c.steps else c.learning_rate
    if c.schedule == "constant":
        return c.learning_rate
    # One cycle (Smith and Topin 2019, arXiv 1708.07120): up for a fifth, then down to nothing.
    total, top = c.epochs * batches, c.learning_rate
    rise = max(1, total // 5)
    if step < rise:
        return top * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise)))
    share = (step - rise) / max(1, total - rise)
    return top * max(1e-4, 0.5 * (1 + math.cos(math.pi * share)))


def _keep_best(
    stage: Stage, figures: dict[str, float], network: torch.nn.Module, best: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Append the epoch's figures; its weights, where no earlier epoch was as good."""
    if not all(math.isfinite(v) for v in figures.values()):
        raise DataError(
            f"The {stage.name}'s loss is no longer a number in epoch {len(stage.history) + 1}: "
            f"{figures}; a lower learning rate or --precision float32 may help."
        )
    stage.history.append(figures)
    if _best_epoch(stage) == len(stage.history):
        return {k: v.detach().clone() for k, v in network.state_dict().items()}
    return best


def _best_epoch(stage: Stage) -> int:
    losses = [figures["validation_loss"] for figures in stage.history]
    return 1 + losses.index(min(losses))


def _mel_magnitudes(
    material: Material, folder: Path, device: torch.device, progress: Progress
) -> Tensor:
    """Mel magnitudes [N, T, M] of training and validation clips, transformed once."""
    rows = material.rows([*material.split.train, *material.split.validate])
    settings = material.settings
    shape = (len(rows), settings.n_frames(material.dataset.n_samples), settings.n_mels)
    path = folder / "mel.npy"
    mel = allocate(shape, path, in_memory=4 * math.prod(shape) <= memory_budget())
    with progress.task("spectrograms", total=len(rows), unit="clip") as bar:
        for start in range(0, len(rows), 32):
            some = rows[start : start + 32]
            x = torch.from_numpy(np.asarray(material.waves.array[some])).to(device)
            size = magnitude(stft(peak_normalise(x), settings))
            mel[start : start + len(some)] = mel_bands(size, settings).cpu()
            bar.advance(len(some))
    return mel


@torch.inference_mode()
def _classify(
    network: VGG,
    mel: Tensor,
    rows: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
) -> Tensor:
    """Logits [n, C] of unchanged clips, on the CPU."""
    network.eval()
    found = []
    for some in rows.split(batch_size):
        x = power_to_db(mel[some].to(device)).unsqueeze(1)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            y = network(x.contiguous(memory_format=torch.channels_last))
        found.append(y.float().cpu())
    return torch.cat(found)


def _right(logits: Tensor, targets: Tensor, task: Task) -> float:
    """Share of right answers: of clips, or of clip-and-class pairs at 0.5."""
    if task is Task.SINGLE_LABEL:
        return float((logits.argmax(1) == targets.argmax(1)).float().mean())
    return float(((logits > 0) == (targets > 0.5)).float().mean())


# --- dictionary ---------------------------------------------------------------------------------


class _Blocks(Sequence[Tensor]):
    """Frames [F, n] of some clips, a few clips at a time; kept in memory if they fit."""

    def __init__(self, material: Material, rows: NDArray[np.int64], device: torch.device) -> None:
        self._material, self._device = material, device
        self._rows = [rows[i : i + 8] for i in range(0, len(rows), 8)]
        self.frames = len(rows) * material.settings.n_frames(material.dataset.n_samples)
        self._kept: list[Tensor | None] = [None] * len(self._rows)
        self._keep = 4 * self.frames * material.settings.n_bins <= memory_budget()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        found = self._kept[index]
        if found is None:
            x = torch.from_numpy(np.asarray(self._material.waves.array[self._rows[index]]))
            s = log_magnitude(stft(peak_normalise(x.to(self._device)), self._material.settings))
            found = s.permute(1, 0, 2).flatten(1)
            if self._keep:
                self._kept[index] = found
        return found


def _learn_dictionary(
    config: Config, material: Material, stage: Stage, device: torch.device, progress: Progress
) -> None:
    """Sparse NMF of the training clips: of all at once, or class by class; or what the config
    names."""
    d, card = config.dictionary, material.card
    if d.weights:
        path = Path(d.weights)
        tensors, document = load_checkpoint(path, "dictionary")
        read_settings(path, document, material.settings)
        stage.finish(tensors, {**document, "source": path.name}, material.settings)
        return
    clips = material.split.train
    seed = config.run.seed
    if d.method in ("random", "none"):
        n_bins = material.settings.n_bins
        if d.method == "random":
            generator = epoch_generator(seed, "dictionary", "random")
            w = random_dictionary(n_bins, d.components, generator)
        else:
            w = band_dictionary(n_bins, d.components)
        document = {"method": d.method, "sparsity": 0.0, "classes": []}
        stage.finish({"W": w}, document, material.settings)
        return

    def thinned(some: Sequence[Clip], words: str) -> NDArray[np.int64]:
        rows = material.rows(some)
        if 0 < d.max_clips < len(rows):
            order = torch.randperm(len(rows), generator=epoch_generator(seed, "thin", words))
            rows = np.sort(rows[order.numpy()[: d.max_clips]])
        return rows

    def learn(
        some: Sequence[Clip], k: int, words: str, fixed: Tensor | None = None
    ) -> tuple[Tensor, list[float]]:
        blocks = _Blocks(material, thinned(some, words), device)
        scratch = None
        if 4 * blocks.frames * k > memory_budget():
            scratch = stage.folder / "activations.npy"
        name = f"dictionary: {words}" if words else "dictionary"
        with progress.task(name, total=d.iterations, unit="sweep") as bar:
            learned = learn_dictionary(
                blocks,
                k,
                sparsity=d.sparsity,
                iterations=d.iterations,
                tolerance=d.tolerance,
                generator=epoch_generator(seed, "dictionary", words),
                fixed=fixed,
                scratch=scratch,
                on_sweep=lambda _sweep, value: bar.advance(1, f"objective {value:.4f} per frame"),
            )
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        return learned.w, learned.objective

    owners: list[int] = []
    if d.method == "joint":
        w, objective = learn(clips, d.components, "")
    else:
        n_classes = len(card.classes)
        if d.components % n_classes:
            raise UsageError(
                f"dictionary.components = {d.components} must be a multiple of the {n_classes} "
                "classes when it is learnt class-wise."
            )
        each = d.components // n_classes
        # Clips without any class are noise proper; where there are none, those without the class.
        unlabelled = [clip for clip in clips if not clip.labels]
        noise: Tensor | None = None
        if d.noise_components and unlabelled:
            noise, _ = learn(unlabelled, d.noise_components, "no class")
        columns, curves = [], []
        for index, name in enumerate(card.classes):
            mine = [clip for clip in clips if index in clip.labels]
            if not mine:
                raise DataError(f"No training clip of {card.title} has the class {name!r}.")
            others = [clip for clip in clips if index not in clip.labels]
            if d.noise_components and others and not unlabelled:
                noise, _ = learn(others, d.noise_components, f"all but {name}")
            column, curve = learn(mine, each, name, noise)
            columns.append(column)
            curves.append(curve)
            owners += [index] * each
        w = torch.cat(columns, dim=1)
        # One curve, the mean over classes; a class that is done stays where it is.
        longest = max(len(curve) for curve in curves)
        padded = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
        objective = [sum(values) / len(values) for values in zip(*padded, strict=True)]
    stage.history += [{"objective": value} for value in objective]
    stage.finish(
        {"W": w},
        {"method": d.method, "sparsity": d.sparsity, "classes": owners},
        material.settings,
    )


# --- interpreter --------------------------------------------------------------------------------


def _train_interpreter(
    config: Config,
    material: Material,
    classifier: FrozenClassifier,
    w: Tensor,
    stage: Stage,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> None:
    """Fit the interpreter to what the frozen classifier said, once, of the training clips."""
    i, split = config.interpreter, material.split
    maps = tuple(dict.fromkeys(i.maps))
    with progress.task(
        "hidden maps", total=len(split.train) * i.views + len(split.validate), unit="clip"
    ) as bar:
        kept = compute_features(
            classifier,
            w,
            material.waves.array,
            material.rows(split.train),
            maps,
            stage.folder / "train",
            views=i.views,
            mixed_db=i.mixed_db,
            silenced=i.silenced,
            generator=epoch_generator(config.run.seed, "views"),
            on_clip=bar.advance,
        )
        held = compute_features(
            classifier,
            w,
            material.waves.array,
            material.rows(split.validate),
            maps,
            stage.folder / "validate",
            on_clip=bar.advance,
        )
    meta = {
        "components": w.shape[1],
        "n_classes": len(classifier.classes),
        "maps": list(maps),
        "rows": material.settings.n_mels // 32,
        "pooling": i.pooling,
        "attention_width": i.attention_width,
        "skip_silence": i.skip_silence,
    }
    torch.manual_seed(config.run.seed)
    network = build_interpreter(meta).to(device)
    averaged = copy.deepcopy(network) if i.average else network
    networks = {"network": network} | ({"averaged": averaged} if i.average else {})
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if p is not network.theta]},
        {"params": [network.theta], "lr": i.head_learning_rate or i.learning_rate},
    ]
    optimizer = torch.optim.Adam(groups, lr=i.learning_rate)
    gram = w.T @ w
    n, task = len(split.train), material.card.task
    batches = math.ceil(n / i.batch_size)
    best = stage.restore(optimizer, **networks)
    done = len(stage.history)
    with progress.task("interpreter", total=i.epochs, unit="epoch", done=done) as bar:
        for epoch in range(done + 1, i.epochs + 1):
            generator = epoch_generator(config.run.seed, "interpreter", epoch)
            late = epoch >= i.late_epoch
            weight = i.lambda_fidelity_late if late else i.lambda_fidelity
            # Of each clip one view per epoch: the same number of steps, whatever the views.
            view = torch.randint(i.views, (n,), generator=generator) * n + torch.arange(n)
            network.train()
            totals = torch.zeros(3, dtype=torch.float64)
            order = view[torch.randperm(n, generator=generator)]
            for step, rows in enumerate(order.split(i.batch_size)):
                features, audible, projected, energy = kept.batch(rows, device)
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    said = network(features.maps, kept.frames, audible)
                h = said.activations.float()
                terms = (
                    reconstruction_loss(h, gram, projected, energy, w.shape[0]),
                    fidelity_loss(features.logits, said.logits.float(), task),
                    sparsity_loss(h),
                )
                loss = i.lambda_reconstruction * terms[0] + weight * terms[1]
                loss = loss + i.lambda_sparsity * terms[2]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if i.average:
                    _average(averaged, network, (epoch - 1) * batches + step, i.average)
                totals += torch.stack([t.detach().double().cpu() for t in terms]) * len(rows)
            figures = dict(
                zip(("reconstruction", "fidelity", "sparsity"), (totals / n).tolist(), strict=True)
            )
            figures |= _validate(
                averaged, held, gram, w.shape[0], task, device, dtype, i.batch_size
            )
            best = _keep_best(stage, figures, averaged, best)
            stage.save(optimizer, best, **networks)
            bar.advance(1, f"validation fidelity {figures['validation_fidelity']:.3f}")
    stage.finish(best, {**meta, "epoch": _best_epoch(stage)}, material.settings)
    for part in ("train", "validate"):
        shutil.rmtree(stage.folder / part, ignore_errors=True)


@torch.inference_mode()
def _validate(
    network: Interpreter,
    held: Any,
    gram: Tensor,
    n_bins: int,
    task: Task,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
) -> dict[str, float]:
    """Fidelity loss, reconstruction and share of agreement on the validation clips."""
    network.eval()
    loss = rec = agree = 0.0
    for rows in torch.arange(len(held)).split(batch_size):
        features, audible, projected, energy = held.batch(rows, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            said = network(features.maps, held.frames, audible)
        g = said.logits.float()
        loss += float(fidelity_loss(features.logits, g, task)) * len(rows)
        h = said.activations.float()
        rec += float(reconstruction_loss(h, gram, projected, energy, n_bins)) * len(rows)
        target = (
            F.one_hot(features.logits.argmax(1), g.shape[1])
            if task is Task.SINGLE_LABEL
            else features.logits > 0
        )
        agree += _right(g, target.float(), task) * len(rows)
    n = len(held)
    return {
        "validation_loss": loss / n,
        "validation_reconstruction": rec / n,
        "validation_fidelity": agree / n,
    }


# --- what a run leaves --------------------------------------------------------------------------


def _description(
    config: Config,
    material: Material,
    run: Tracker,
    evaluation: Evaluation,
    test: Sequence[Clip],
) -> str:
    d = config.dataset
    split = f"fold {d.fold}" if material.card.folds else "its test split"
    return describe_model(
        what=f"{material.card.title}, tested on {split}, seed {config.run.seed}",
        scores=evaluation.scores,
        intervals=evaluation.intervals,
        clips=len(test),
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        listen=config.output.clips > 0,
    )


def _publish(
    config: Config,
    material: Material,
    run: Tracker,
    bundle: Path,
    explainer: Explainer,
    evaluation: Evaluation,
    progress: Progress,
) -> None:
    """Figures, tables, pictures and sounds: to the run's folder, then to the store."""
    from l2i import plots

    out = run.folder / "artifacts"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    told = write_model(bundle, config, out / MODEL)
    split = material.split
    histories = {
        name: load_checkpoint(bundle / f"{name}.safetensors", name)[1]["history"]
        for name in _STAGES
    }
    classes = explainer.classifier.classes
    write_evaluation(evaluation, split.test, classes, out, title=run.name, histories=histories)
    plots.training_curves(histories, out / "training_curves.png")
    plots.dictionary(explainer.w.cpu().numpy(), explainer.settings, out / "dictionary.png")
    with progress.task("explanations", total=config.output.clips, unit="clip") as bar:
        write_examples(
            explainer,
            material.waves.array,
            material.rows(split.test),
            split.test,
            config.explanation,
            config.output.clips,
            out / "explanations",
            on_clip=lambda: bar.advance(1),
            title=f"{run.name}: explanations",
        )
    (out / "provenance.json").write_text(
        json.dumps({"data": material.digest, "config": config.signature()}, indent=2) + "\n",
        encoding="utf-8",
    )
    run.final({f"test/{k}": v for k, v in evaluation.scores.items() if math.isfinite(v)})
    run.artifacts(out)
    run.tags(told | {DESCRIPTION: _description(config, material, run, evaluation, split.test)})
    # They are in the store now, and the stages keep what another run could use.
    shutil.rmtree(run.folder, ignore_errors=True)
