"""The classifier of a run: trained here, or taken from the weights that the config names.

Over 300 lines: one training, with what is checked before it.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l2i.config import Config
from l2i.data.base import class_differences
from l2i.dsp.spectrogram import magnitude, mel_bands, peak_normalise, power_to_db, stft
from l2i.errors import CheckpointError, UsageError
from l2i.metrics.classification import best_thresholds
from l2i.models.augmentation import augment, cropped
from l2i.models.checkpoint import load_checkpoint, load_weights, read_settings
from l2i.models.classifier import FrozenClassifier
from l2i.models.features import allocate, memory_budget
from l2i.models.optimizers import Adam, AdamW
from l2i.models.published import fit, read_published
from l2i.models.vgg import BLOCKS, MIN_FRAMES, VGG, first_blocks, fold_batch_norm, last_map_size
from l2i.recipes.opening.bundle import build_classifier
from l2i.recipes.opening.material import Material
from l2i.run.device import epoch_generator, learning_dtype
from l2i.run.progress import Progress
from l2i.training.fitting import average_weights, best_epoch, in_batches, keep_best, share_right
from l2i.training.stage import Stage
from l2i.types import Task


def training_precision(
    config: Config, device: torch.device, dtype: torch.dtype
) -> tuple[torch.dtype, list[str]]:
    """What the classifier is trained in, which may be less precise than all else.

    Parameters
    ----------
    config : Config
    device : device
    dtype : dtype
        What all else computes in.

    Returns
    -------
    dtype
    list of str
        A sentence on it, where it is another than `dtype`.

    Raises
    ------
    DeviceError
        The device cannot do what ``classifier.precision`` asks for.
    """
    own = "" if config.classifier.weights else config.classifier.precision
    chosen = learning_dtype(own, device, dtype, "classifier.precision")
    word = str(chosen).removeprefix("torch.")
    return chosen, [f"The classifier is trained in {word}."] if chosen != dtype else []


def check_classifier(config: Config, material: Material) -> None:
    """Refuse what no classifier can be trained by, before a run is begun.

    Parameters
    ----------
    config : Config
    material : Material

    Raises
    ------
    UsageError
        There are values for more or fewer classes than there are, or batches of one clip that is
        too short to be learnt from alone.
    CheckpointError
        Weights that the config names are damaged, or made for something else.
    """
    c, classes = config.classifier, len(material.card.classes)
    if c.weights:
        path = Path(c.weights)
        tensors, document = load_checkpoint(path, "classifier")
        read_settings(path, document, material.settings)
        classifier = build_classifier(tensors, document, path, torch.device("cpu"), torch.float32)
        same_data(classifier, material, path)
        return
    if c.audioset_weights:
        _load_audioset(VGG(classes), Path(c.audioset_weights))
    for name in ("pos_weight", "thresholds"):
        if (values := getattr(c, name)) and len(values) != classes:
            raise UsageError(f"classifier.{name} has {len(values)} values for {classes} classes.")
    n, a = len(material.split.train), c.augmentation
    frames = cropped(material.n_frames, a.crop_share if a.enabled else 1.0, MIN_FRAMES)
    takes_one = not c.train_trunk or last_map_size(frames, material.settings.n_mels) > 1
    if min(n, c.batch_size) == 1 and not takes_one:
        why = "there is one training clip" if n == 1 else "classifier.batch_size is 1"
        raise UsageError(
            f"Clips of {frames} frames are too short for the classifier to learn from one at a "
            f"time, and {why}: give it two at a time, or set dataset.duration_s higher."
        )


def fit_classifier(
    config: Config,
    material: Material,
    stage: Stage,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress,
) -> None:
    """Train a classifier from where the stage stands, and finish the stage with the epoch to keep.

    Parameters
    ----------
    config : Config
        That `check_classifier` does not refuse.
    material : Material
    stage : Stage
    device : device
    dtype : dtype
        The network's arithmetic; weights and losses are float32.
    progress : Progress

    Raises
    ------
    CheckpointError
        Weights that the config names are damaged, or made for something else.
    DataError
        A loss is no longer a number.
    """
    c, task = config.classifier, material.card.task
    if c.weights:
        path = Path(c.weights)
        tensors, document = load_checkpoint(path, "classifier")
        stage.finish(tensors, {**document, "source": path.name}, material.settings)
        return
    network = _begin(config, material, progress).to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # The last epoch, from 1, in which each of the trunk's blocks that are to be frozen learns; a
    # trunk that does not learn has nothing to freeze.
    ends = [max(1, round(share * c.epochs)) for share in (c.freeze_after if c.train_trunk else [])]
    groups = _parameter_groups(network, ends)
    kind = AdamW if c.optimizer == "adamw" else Adam
    optimizer = kind(
        [{"params": group} for group in groups], lr=c.learning_rate, weight_decay=c.weight_decay
    )

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

    @torch.inference_mode()
    def classify(rows: Tensor) -> Tensor:
        """The averaged network's logits [n, C] of unchanged clips, on the CPU."""
        folded = fold_batch_norm(averaged)
        logits = []
        for some in rows.split(c.batch_size):
            x = power_to_db(mel[some].to(device)).unsqueeze(1)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                z = folded(x.contiguous(memory_format=torch.channels_last))
            logits.append(z.float().cpu())
        return torch.cat(logits)

    best = stage.restore(optimizer, network=network, averaged=averaged)
    batches = len(in_batches(torch.arange(n), c.batch_size))
    done = len(stage.history)
    frozen, below = 0, nn.Sequential()  # No block: the log-mel stays as it is.
    if not c.train_trunk:
        frozen, below = BLOCKS, first_blocks(network, BLOCKS)
    with progress.task("classifier", total=c.epochs, unit="epoch", done=done) as bar:
        for epoch in range(done + 1, c.epochs + 1):
            learnt = sum(end < epoch for end in ends)
            if learnt > frozen:
                frozen, below = learnt, _freeze(network, averaged, learnt)
            generator = epoch_generator(config.run.seed, "classifier", epoch)
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))  # Dropout.
            network.train()
            if not c.train_trunk:
                network.netx.eval()  # Frozen batch norms keep their statistics, too.
            total = 0.0
            order = torch.randperm(n, generator=generator)
            for step, rows in enumerate(in_batches(order, c.batch_size)):
                at = (epoch - 1) * batches + step
                for group, end in zip(optimizer.param_groups, [*ends, c.epochs], strict=True):
                    group["lr"] = rate = _learning_rate(config, at, batches, end)
                x, target = mel[rows].to(device), y[rows].to(device)
                x, target = _network_input(config, x, target, generator)
                x = x.contiguous(memory_format=torch.channels_last)
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    with torch.no_grad():
                        x = below(x)
                    logits = network.above(x, frozen)
                loss = loss_of(logits.float(), target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                average_weights(averaged, network, at, c.average)
                total += float(loss.detach()) * len(rows)
            logits = classify(validation)
            wanted = y[validation]
            figures = {
                "loss": total / n,
                "validation_loss": float(loss_of(logits.to(device), wanted.to(device))),
                "validation_accuracy": share_right(logits, wanted, task),
                "learning_rate": rate,
            }
            best = keep_best(stage, figures, averaged, best, last=c.last_epoch)
            stage.save(optimizer, best, network=network, averaged=averaged)
            bar.advance(1, f"validation accuracy {figures['validation_accuracy']:.3f}")
    thresholds: list[float] = []
    if task is Task.MULTI_LABEL:
        thresholds = list(c.thresholds)
        if not thresholds:
            averaged.load_state_dict(best)
            logits = classify(torch.arange(len(y)))
            thresholds = best_thresholds(logits.sigmoid().numpy(), y.numpy().astype(bool))
    meta = {
        "classes": list(material.card.classes),
        "task": str(task),
        "head": c.head,
        "width": c.width,
        "dropout": c.dropout,
        "thresholds": thresholds,
        "epoch": best_epoch(stage, last=c.last_epoch),
    }
    stage.finish(best, meta, material.settings)


def same_data(classifier: FrozenClassifier, material: Material, path: Path) -> None:
    """Refuse a classifier, read from `path`, of other classes or another front-end.

    Raises
    ------
    CheckpointError
    """
    if different := classifier.settings.differences(material.settings):
        raise CheckpointError(f"{path} was made under other settings: {', '.join(different)} now.")
    if others := class_differences(material.card.classes, classifier.classes):
        raise CheckpointError(
            f"{path} knows other classes than {material.card.title} has: {others}. Give "
            "weights for these classes, or leave classifier.weights out to train a classifier."
        )


def _begin(config: Config, material: Material, progress: Progress) -> VGG:
    """The network that the training starts from."""
    c = config.classifier
    torch.manual_seed(config.run.seed)
    network = VGG(len(material.card.classes), head=c.head, dropout=c.dropout, width=c.width)
    if c.audioset_weights:
        path = Path(c.audioset_weights)
        _load_audioset(network, path)
        progress.say(f"AudioSet weights from {path.name}.")
    if not c.train_trunk:
        network.netx.requires_grad_(False)
    return network


def _load_audioset(network: VGG, path: Path) -> None:
    networks = fit([read_published(path)])
    if "trunk" not in networks.tensors:
        raise CheckpointError(f"{path} does not hold the trunk's AudioSet weights.")
    load_weights(network.netx, networks.tensors["trunk"], path)


def _network_input(
    config: Config, mel: Tensor, target: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Log-mel [B, 1, T, M] of mel magnitudes [B, T, M], augmented as the config says; targets."""
    a = config.classifier.augmentation
    if not a.enabled:
        return power_to_db(mel).unsqueeze(1), target
    how = a.model_dump(exclude={"enabled", "mixup"})
    return augment(mel, target, generator, mixup_alpha=a.mixup, min_frames=MIN_FRAMES, **how)


def _parameter_groups(network: VGG, ends: list[int]) -> list[list[nn.Parameter]]:
    """What is learnt by each block that is to be frozen, then by all else."""
    blocks = [
        [p for layer in network.block(i) for p in layer.parameters()] for i in range(len(ends))
    ]
    apart = {id(p) for block in blocks for p in block}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in apart]
    return [*blocks, rest]


def _freeze(network: VGG, averaged: VGG, blocks: int) -> nn.Sequential:
    """The first blocks learn no more: of both networks they are the averaged one's, from now on,
    which make of a log-mel what `VGG.above` goes on from.

    Progressive freezing (Brock et al. 2017, FreezeOut, arXiv 1706.04983). The lowest blocks of a
    network have the fewest weights and the largest images: they are learnt first and take most of
    a step's time. Frozen they go forward alone, folded, and nothing goes back through them. To do
    it again changes nothing, as a resumed training does.
    """
    for number in range(blocks):
        for mine, theirs in zip(network.block(number), averaged.block(number), strict=True):
            mine.load_state_dict(theirs.state_dict())
            mine.requires_grad_(False)
    return first_blocks(averaged, blocks)


def _learning_rate(config: Config, step: int, batches: int, last: int) -> float:
    """One step's, in closed form, so that a resumed run needs no scheduler's state.

    What learns up to epoch `last` alone has a cycle of its own.
    """
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
    total, top = last * batches, c.learning_rate
    rise = max(1, total // 5)
    if step < rise:
        return top * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise)))
    share = (step - rise) / max(1, total - rise)
    return top * max(1e-4, 0.5 * (1 + math.cos(math.pi * share)))


def _mel_magnitudes(
    material: Material, folder: Path, device: torch.device, progress: Progress
) -> Tensor:
    """Mel magnitudes [N, T, M] of training and validation clips, transformed once."""
    rows = material.rows([*material.split.train, *material.split.validate])
    settings = material.settings
    shape = (len(rows), material.n_frames, settings.n_mels)
    mel = allocate(shape, folder, in_memory=4 * math.prod(shape) <= memory_budget())
    with progress.task("spectrograms", total=len(rows), unit="clip") as bar:
        for start in range(0, len(rows), 32):
            some = rows[start : start + 32]
            x = torch.from_numpy(np.asarray(material.waves.array[some])).to(device)
            size = magnitude(stft(peak_normalise(x), settings))
            mel[start : start + len(some)] = mel_bands(size, settings).cpu()
            bar.advance(len(some))
    return mel
