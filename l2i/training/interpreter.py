"""The interpreter, trained to say what the frozen classifier says."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from l2i import config
from l2i.dsp.spectrogram import Domain
from l2i.errors import CheckpointError, UsageError
from l2i.models.checkpoint import load_weights, read_domain
from l2i.models.features import FeatureStore, compute_features
from l2i.models.general import GeneralInterpreter
from l2i.models.interpreter import Interpreter, Psi
from l2i.models.losses import fidelity_loss, reconstruction_loss, sparsity_loss
from l2i.models.optimizers import Adam
from l2i.run.device import epoch_generator
from l2i.training.fitting import average_weights, best_epoch, in_batches, keep_best, share_right
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage
from l2i.types import Classifier, Task


class InterpreterPart:
    """Hidden maps to activations of the dictionary: a `l2i.training.parts.Part`.

    The published network where the classifier has the maps that it reads (`published_maps`), else
    `l2i.models.general.GeneralInterpreter` on layers that the settings name, or that are found.
    """

    name = "interpreter"
    settings = config.Interpreter

    def check(self, settings: config.Interpreter, sounds: Sounds, domain: Domain) -> None:
        """Nothing is refused here."""

    def fit(self, settings: config.Interpreter, context: Context, stage: Stage) -> None:
        """Train an interpreter from where the stage stands, and finish the stage with its best
        epoch.

        What the frozen classifier says of the clips is computed once, before the first epoch. A
        resumed training takes up what lies on disk of it.

        Raises
        ------
        UsageError
            The classifier has no hidden layers that can be read.
        DataError
            A loss is no longer a number.
        """
        i, sounds, device, dtype = settings, context.sounds, context.device, context.dtype
        classifier, w = context.classifier, context.parts["dictionary"]
        maps = read_layers(settings, classifier)
        heard = partial(compute_features, classifier, w, context.domain, sounds.waveforms)
        with context.progress.task(
            "hidden maps", total=len(sounds.train) * i.views + len(sounds.validate), unit="clip"
        ) as bar:
            kept = heard(
                sounds.train,
                maps,
                stage.folder / "train",
                views=i.views,
                mixed_db=i.mixed_db,
                silenced=i.silenced,
                generator=epoch_generator(context.seed, "views"),
                on_clip=bar.advance,
            )
            held = heard(sounds.validate, maps, stage.folder / "validate", on_clip=bar.advance)
        meta: dict[str, Any] = {
            "components": w.shape[1],
            "n_classes": len(classifier.classes),
            "maps": list(maps),
            "pooling": i.pooling,
            "attention_width": i.attention_width,
            "skip_silence": i.skip_silence,
        }
        front_end: Domain = context.domain
        own = getattr(classifier, "published_maps", ())
        if own and settings.network != "general" and not settings.layers:
            front_end = classifier.settings  # type: ignore[attr-defined]
            meta["rows"] = front_end.n_mels // 32  # type: ignore[attr-defined]
            meta["width"] = classifier.width  # type: ignore[attr-defined]
        else:
            meta["network"] = "general"
            # Channels last: [N, F_l, T_l, D_l].
            meta["shapes"] = [[m.shape[3], m.shape[1]] for m in kept.maps]
        torch.manual_seed(context.seed)
        network = build_interpreter(meta).to(device)
        averaged = copy.deepcopy(network) if i.average else network
        networks = {"network": network} | ({"averaged": averaged} if i.average else {})
        groups: list[dict[str, Any]] = [
            {"params": [p for p in network.parameters() if p is not network.theta]},
            {"params": [network.theta], "lr": i.head_learning_rate or i.learning_rate},
        ]
        optimizer = Adam(groups, lr=i.learning_rate)
        # A clip has few of a tagger's hundreds of classes: a mean over all of them would count for
        # nothing beside the other losses. Ten are the published number.
        many = max(1.0, len(classifier.classes) / 10)
        general = isinstance(network, GeneralInterpreter)
        scale = many if general and classifier.task is Task.MULTI_LABEL else 1.0
        gram = w.T @ w
        n, task = len(sounds.train), context.classifier.task
        batches = len(in_batches(torch.arange(n), i.batch_size))
        best = stage.restore(optimizer, **networks)
        done = len(stage.history)
        with context.progress.task("interpreter", total=i.epochs, unit="epoch", done=done) as bar:
            for epoch in range(done + 1, i.epochs + 1):
                generator = epoch_generator(context.seed, "interpreter", epoch)
                late = epoch >= i.late_epoch
                weight = scale * (i.lambda_fidelity_late if late else i.lambda_fidelity)
                # One view of each clip per epoch: the number of steps does not depend on the views.
                view = torch.randint(i.views, (n,), generator=generator) * n + torch.arange(n)
                network.train()
                totals = torch.zeros(3, dtype=torch.float64)
                order = view[torch.randperm(n, generator=generator)]
                for step, rows in enumerate(in_batches(order, i.batch_size)):
                    features, audible, projected, energy = kept.batch(rows, device)
                    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                        interpretation = network(features.maps, kept.frames, audible)
                    h = interpretation.activations.float()
                    terms = (
                        reconstruction_loss(h, gram, projected, energy, w.shape[0]),
                        fidelity_loss(features.logits, interpretation.logits.float(), task),
                        sparsity_loss(h),
                    )
                    loss = i.lambda_reconstruction * terms[0] + weight * terms[1]
                    loss = loss + i.lambda_sparsity * terms[2]
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    if i.average:
                        average_weights(averaged, network, (epoch - 1) * batches + step, i.average)
                    totals += torch.stack([t.detach().double().cpu() for t in terms]) * len(rows)
                names = ("reconstruction", "fidelity", "sparsity")
                figures = dict(zip(names, (totals / n).tolist(), strict=True))
                figures |= validate(
                    averaged, held, gram, w.shape[0], task, device, dtype, i.batch_size
                )
                best = keep_best(stage, figures, averaged, best)
                stage.save(optimizer, best, **networks)
                bar.advance(1, f"validation fidelity {figures['validation_fidelity']:.3f}")
        stage.finish(best, {**meta, "epoch": best_epoch(stage)}, front_end)

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> Psi:
        """The network, frozen, on the device."""
        read_domain(path, document, context.domain)
        w, classes = context.parts["dictionary"], context.classifier.classes
        if document["components"] != w.shape[1] or document["n_classes"] != len(classes):
            raise CheckpointError(
                f"{path} is for {document['components']} components and {document['n_classes']} "
                f"classes, the dictionary has {w.shape[1]} and the classifier {len(classes)}."
            )
        network = build_interpreter(document)
        load_weights(network, tensors, path)
        return network.to(context.device).eval().requires_grad_(False)


INTERPRETER = InterpreterPart()


def read_layers(settings: config.Interpreter, classifier: Classifier) -> tuple[str, ...]:
    """The hidden layers to read: those that are named, or that the classifier finds by itself.

    Raises
    ------
    UsageError
        It has none, or not these.
    """
    own: Sequence[str] = getattr(classifier, "published_maps", ())
    if settings.layers:
        find = getattr(classifier, "layer", str)
        return tuple(dict.fromkeys(str(find(word)) for word in settings.layers))
    if own:
        return tuple(dict.fromkeys(settings.maps))
    if settings.network == "published":
        raise UsageError(
            "The published interpreter reads the maps of the built-in classifier alone: leave out "
            "interpreter.network, or set it to general."
        )
    return layers_of(classifier)


def layers_of(classifier: Classifier) -> tuple[str, ...]:
    """The hidden layers that a classifier finds by itself, in words, the deepest last.

    Raises
    ------
    UsageError
        It has none that can be read.
    """
    choose = getattr(classifier, "chosen_layers", None)
    if choose is None:
        raise UsageError(
            "No hidden layers of this classifier can be read, which method 'l2i' needs: 'gates' "
            "and 'shapley' need none."
        )
    return tuple(str(getattr(layer, "layer", layer)) for layer in choose())


def build_interpreter(document: Mapping[str, Any]) -> Psi:
    """An interpreter of the shape that a checkpoint's metadata describe."""
    both: dict[str, Any] = {
        "maps": tuple(document["maps"]),
        "pooling": document["pooling"],
        "attention_width": document["attention_width"],
        "skip_silence": document.get("skip_silence", False),  # Older checkpoints do not say.
    }
    k, c = document["components"], document["n_classes"]
    if document.get("network") == "general":
        shapes = tuple((d, f) for d, f in document["shapes"])
        return GeneralInterpreter(k, c, shapes=shapes, **both)
    return Interpreter(k, c, rows=document["rows"], width=document.get("width", 1.0), **both)


@torch.inference_mode()
def validate(
    network: Psi,
    held: FeatureStore,
    gram: Tensor,
    n_bins: int,
    task: Task,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
) -> dict[str, float]:
    """What an epoch is judged by, on clips that were not trained on.

    Parameters
    ----------
    network : Psi
    held : FeatureStore
        What the classifier said of those clips.
    gram : Tensor
        W'W [K, K] of the dictionary.
    n_bins : int
        F.
    task : Task
    device : device
    dtype : dtype
    batch_size : int

    Returns
    -------
    dict of str to float
        ``validation_loss`` (of fidelity), ``validation_reconstruction``, and
        ``validation_fidelity``: the share of clips, or of clip-and-class pairs, on which
        interpreter and classifier agree.
    """
    network.eval()
    loss = rec = agree = 0.0
    for rows in torch.arange(len(held)).split(batch_size):
        features, audible, projected, energy = held.batch(rows, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            interpretation = network(features.maps, held.frames, audible)
        g = interpretation.logits.float()
        loss += float(fidelity_loss(features.logits, g, task)) * len(rows)
        h = interpretation.activations.float()
        rec += float(reconstruction_loss(h, gram, projected, energy, n_bins)) * len(rows)
        target = (
            F.one_hot(features.logits.argmax(1), g.shape[1])
            if task is Task.SINGLE_LABEL
            else features.logits > 0
        )
        agree += share_right(g, target.float(), task) * len(rows)
    n = len(held)
    return {
        "validation_loss": loss / n,
        "validation_reconstruction": rec / n,
        "validation_fidelity": agree / n,
    }
