"""Gates, trained by what the frozen classifier answers to the sound that they let through.

Learnt on mixtures of the training clips, x = a + b, whose parts are known, for one class c that the
classifier hears in a and not in b. With the mask M, the explanation E = istft(M X), the removal
R = x - E, the classifier's probabilities f, and w = 1 where f(a)_c >= 1/2 and f(b)_c <= 1/5 (the
classifier itself certifies which part carries the class), else 0::

    separate   w sum (|X| BCE(M, |A| / (|A| + |B|))) / sum |X|       the part that carries the class
    in         CE(f(E), f(x) sharpened)                              it is enough
    out        -log(1 - f(R)_c)                                      and it is needed
    size       relu(sum M |X| / sum |X| - 0.05)                      as little as can be
    energy     relu(sum |M X|^2 / sum |X|^2 - 0.05)                  the same, of what is loud
    leak       w relu(30 dB + level of M B over B) / 10 dB           nothing of the other part
    keep       w relu(-1 dB - level of M A over A) / 10 dB           all of this one
    absent     sum M' |X| / sum |X|, M' of a class of probability below 0.02: silence
    smooth     mean |G_t - G_(t-1)|                                  no musical noise

The first epochs have the first term alone, for which the classifier need not hear a mask; the
others have all. Two presets of their weights: ``evidence``, as little as convinces, and ``source``,
all of the sound that convinces.

With ``dictionary = "learnt"`` the components are learnt further with their gates: W has a gradient
by all of these terms, through the updates that make H of it, and by two of its own::

    explained  |S - W H|^2 / |S|^2, S = log(1 + |X|)                 it is still of these sounds
    overlap    sum over pairs of columns (w_k' w_l)^2 / K            and its columns differ

In the end, one number added to the log odds of all gates shuts them further, for as long as on
mixtures of validation clips the classifier still decides by what they let through, and what they
take away still lowers the class nearly as far (``closing``): a term's weight says in which
direction to go, and not where to stop.

Sources: the in and out terms, Paissan et al. 2024, arXiv 2403.13086 (there the out term is
log f(R)_c, which has no bound); separation learnt through a classifier, Pishdadian, Wichern, Le
Roux 2020, arXiv 1911.02182; NMF unfolded and learnt by what it is for, Le Roux, Hershey, Weninger
2015 (*Deep NMF for speech separation*).

Over 300 lines: settings with their descriptions are a fifth of it; the rest is one training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from l2i.dsp.spectrogram import Domain, kept_energy
from l2i.errors import CheckpointError, DataError
from l2i.models.checkpoint import load_weights, read_domain
from l2i.models.gate_head import GateHead, gate
from l2i.models.gated import Gating, Taken, split_sounds
from l2i.models.heard import Heard, need_gradients
from l2i.models.optimizers import Adam
from l2i.registry import class_index
from l2i.run.device import epoch_generator, learning_dtype
from l2i.training.fitting import average_weights, best_epoch, keep_best
from l2i.training.interpreter import layers_of
from l2i.training.mixtures import Mixer, Mixing
from l2i.training.parts import Context, Sounds
from l2i.training.stage import Stage
from l2i.training.teacher import Teacher

# How far gates are shut further at the most, step by step, and the share of decisions that stays.
_SHIFTS = tuple(-n / 2 for n in range(1, 9))
_DECIDED = 0.98
# With few mixtures, one decision that changes would end it.
_CLOSING_MIXTURES = 96
_NAMED = 5
# The rate of a dictionary that is learnt, too, over that of the gates.
_SLOWLY = 0.5
_CLOSING = {"source": 1.0, "evidence": 0.95}
_WEIGHTS = {
    "source": {"separate": 2.0, "in": 1.0, "size": 0.1, "energy": 0.0, "leak": 0.2, "keep": 0.0},
    "evidence": {"separate": 0.2, "in": 2.0, "size": 0.3, "energy": 1.0, "leak": 0.2, "keep": 0.0},
}


class GatesSettings(BaseModel):
    """The table ``[parts.gates]``."""

    model_config = ConfigDict(extra="forbid")

    preset: Literal["evidence", "source"] = Field(
        "evidence", description="As little as convinces, or all of the sound that convinces."
    )
    epochs: int = Field(20, ge=1, description="Epochs with all terms of the loss.")
    warm_epochs: int = Field(20, ge=0, description="Before them, of separation alone.")
    batch_size: int = Field(16, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    late_learning_rate: float = Field(5e-4, gt=0, description="In the epochs with all terms.")
    precision: Literal["", "float32", "bfloat16", "auto"] = Field(
        "",
        description="Number format in which the classifier is listened to while gates are trained; "
        "empty: the run's; 'auto': bfloat16 if the device has it.",
    )
    average: float = Field(0.99, ge=0, lt=1, description="Decay of the average of the weights.")
    width: int = Field(192, ge=1)
    depths: int = Field(
        3, ge=1, description="How many of the deepest maps the class is asked for at."
    )
    gates: Literal["frame", "clip"] = Field(
        "frame", description="A gate for each frame of a component, or one for all."
    )
    mask: Literal["linear", "log"] = Field("linear", description="A gain of |X|, or of log(1+|X|).")
    activations: Literal["sound", "network"] = Field(
        "sound", description="What gates multiply: activations of the sound, or the interpreter's."
    )
    dictionary: Literal["given", "learnt"] = Field(
        "given", description="Components as they are, or learnt further with the gates."
    )
    certified: bool = Field(
        True, description="Learn from the parts only where the classifier tells them apart."
    )
    without: tuple[str, ...] = Field((), description="Classes that no clip trains the gates for.")
    crop_share: float = Field(
        0.5, gt=0, le=1, description="Learn from stretches of so much of each clip."
    )
    views: int = Field(4, ge=1, description="Such stretches of each clip, drawn once.")
    mixed_db: float = Field(12.0, ge=0, description="Mix at 0 to so many dB below.")
    alone: float = Field(0.25, ge=0, le=1, description="Share of clips that are not mixed.")
    closing: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Shut gates further while removals keep this share of their effect on mixtures "
        "of validation clips; 1: not at all. Unset: the preset's.",
    )
    lambda_separate: float | None = Field(None, ge=0, description="Unset: the preset's.")
    lambda_in: float | None = Field(None, ge=0, description="Unset: the preset's.")
    lambda_out: float = Field(1.0, ge=0)
    lambda_size: float | None = Field(None, ge=0, description="Unset: the preset's.")
    lambda_energy: float | None = Field(None, ge=0, description="Unset: the preset's.")
    lambda_leak: float | None = Field(None, ge=0, description="Unset: the preset's.")
    lambda_keep: float | None = Field(None, ge=0, description="Unset: the preset's.")
    lambda_absent: float = Field(0.2, ge=0)
    lambda_smooth: float = Field(0.05, ge=0)

    def weights(self) -> dict[str, float]:
        """The weight of each term, as set or as the preset has it."""
        names = ("separate", "in", "out", "size", "energy", "leak", "keep", "absent", "smooth")
        given = {name: getattr(self, f"lambda_{name}") for name in names}
        return {k: _WEIGHTS[self.preset][k] if v is None else float(v) for k, v in given.items()}


class GatesPart:
    """Hidden maps to gates on the dictionary's components: a `l2i.training.parts.Part`."""

    name = "gates"
    settings = GatesSettings

    def check(self, settings: GatesSettings, sounds: Sounds, domain: Domain) -> None:
        """Refuse what cannot be mixed, and classes to leave out that there are not.

        Raises
        ------
        DataError
            There is only one training clip.
        UsageError
            The classifier knows no such class.
        """
        if sounds.known:
            _unasked(settings, sounds.known)
        if len(sounds.train) < 2:
            raise DataError(
                f"{sounds.title} have one training clip, and gates are learnt on mixtures of two."
            )

    def fit(self, settings: GatesSettings, context: Context, stage: Stage) -> None:
        """Train from where the stage stands, and finish the stage with its last epoch.

        Raises
        ------
        UsageError
            The classifier has no gradients, or no hidden layers that can be read.
        DataError
            A loss is no longer a number.
        """
        s, device = settings, context.device
        need_gradients(context.classifier, "the part 'gates'", "take method 'l2i' or 'shapley'")
        layers = layers_of(context.classifier)
        classes = context.classifier.classes
        unasked = _unasked(s, classes)
        mixing = Mixing(s.batch_size, s.mixed_db, s.views, s.crop_share, s.alone)
        mixer = Mixer(context, mixing, unasked)
        shapes = mixer.shapes(layers)
        torch.manual_seed(context.seed)
        w = context.parts["dictionary"]
        document = {
            "components": w.shape[1],
            "layers": list(layers),
            "shapes": [list(shape) for shape in shapes],
            "width": s.width,
            "depths": min(s.depths, len(layers)),
            "gates": s.gates,
            "mask": s.mask,
            "activations": s.activations,
            "preset": s.preset,
            "dictionary": s.dictionary,
            "classes": [classes[c] for c in mixer.asked],
        }
        missing = [name for name in classes if name not in document["classes"]]
        if missing:
            some = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            context.progress.say(
                f"No clip trains the gates for {len(missing)} of {len(classes)} classes, for which "
                f"they may stay shut: {some}."
            )
        network = _head(document, w).to(device)
        averaged = copy.deepcopy(network)
        teacher = Teacher(
            context.classifier,
            context.domain,
            _gating(network, document, context),
            s.weights(),
            certified=s.certified,
            unasked=unasked,
            precision=learning_dtype(s.precision, device, context.dtype, "parts.gates.precision")
            if s.precision
            else None,
        )
        slow = [] if network.w is None else [network.w]
        quick = [p for p in network.parameters() if p is not network.w]
        groups = [{"params": quick, "share": 1.0}, {"params": slow, "share": _SLOWLY}]
        optimizer = Adam(groups, s.learning_rate)
        best = stage.restore(optimizer, network=network, averaged=averaged)
        done, total = len(stage.history), s.warm_epochs + s.epochs
        batches = mixer.batches
        with context.progress.task(self.name, total=total, unit="epoch", done=done) as bar:
            for epoch in range(done + 1, total + 1):
                warm = epoch <= s.warm_epochs
                generator = epoch_generator(context.seed, self.name, epoch)
                sums: dict[str, float] = {}
                for step, mixture in enumerate(mixer.train(generator)):
                    at = (epoch - 1) * batches + step
                    for group in optimizer.param_groups:
                        group["lr"] = group["share"] * self._rate(s, at, batches)
                    terms = teacher.terms(mixture, generator, warm=warm)
                    weighed = [teacher.weight(k, warm=warm) * v for k, v in terms.items()]
                    loss = torch.stack(weighed).sum()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    for group in optimizer.param_groups:
                        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
                    optimizer.step()
                    average_weights(averaged, network, at, s.average)
                    for name, value in terms.items():
                        sums[name] = sums.get(name, 0.0) + float(value.detach()) / batches
                sums["loss"] = sum(teacher.weight(k, warm=warm) * v for k, v in sums.items())
                judged = teacher.of(averaged)
                held = _figures(judged, _held(judged, mixer, context.seed))
                best = keep_best(stage, sums | held, averaged, best, last=True)
                stage.save(optimizer, best, network=network, averaged=averaged)
                bar.advance(1, f"validation fall {held['fall']:.3f} at {held['kept']:.0%} kept")
        document["epoch"] = best_epoch(stage, last=True)
        closing = _CLOSING[s.preset] if s.closing is None else s.closing
        if closing < 1:
            averaged.load_state_dict(best)
            document["shift"] = _closed(teacher.of(averaged), mixer, context.seed, closing)
        stage.finish(best, document, context.domain)

    @staticmethod
    def _rate(s: GatesSettings, step: int, batches: int) -> float:
        """Each phase ends with its last third on the way down to a twentieth of its rate."""
        warm = s.warm_epochs * batches
        base, at, steps = (
            (s.learning_rate, step, warm)
            if step < warm
            else (s.late_learning_rate, step - warm, s.epochs * batches)
        )
        return base * max(0.05, min(1.0, (steps - at) / (0.3 * steps)))

    def load(
        self, tensors: Mapping[str, Tensor], document: Mapping[str, Any], path: Path, context: Any
    ) -> Gating:
        """The network, frozen, on the device, and what its gates multiply."""
        read_domain(path, document, context.domain)
        k = context.parts["dictionary"].shape[1]
        if document["components"] != k:
            raise CheckpointError(
                f"{path} is for {document['components']} components, the dictionary has {k}."
            )
        network = _head(document, context.parts["dictionary"])
        load_weights(network, tensors, path)
        network = network.to(context.device).eval().requires_grad_(False)
        return _gating(network, document, context)


GATES = GatesPart()


def _unasked(settings: GatesSettings, classes: Sequence[str]) -> list[int]:
    return [class_index(classes, name, "The classifier") for name in settings.without]


def _head(document: Mapping[str, Any], w: Tensor) -> GateHead:
    """The network that a checkpoint's metadata describe; older ones say less."""
    return GateHead(
        document["components"],
        tuple((d, f) for d, f in document["shapes"]),
        width=document["width"],
        depths=document.get("depths", 1),
        per_clip=document.get("gates") == "clip",
        w=w if document.get("dictionary") == "learnt" else None,
    )


def _gating(network: GateHead, document: Mapping[str, Any], context: Any) -> Gating:
    """The network, and what its gates multiply."""
    return Gating(
        network,
        tuple(document["layers"]),
        context.parts["dictionary"],
        log=document.get("mask") == "log",
        psi=context.parts["interpreter"] if document.get("activations") == "network" else None,
        shift=document.get("shift", 0.0),
        preset=document.get("preset", "evidence"),
        classes=frozenset(document["classes"]) if "classes" in document else None,
    )


# Mixtures that nothing is learnt from, what their gates are the `gate` of, and their classes.
_Held = tuple[Heard, Taken, Tensor, Tensor]


@torch.no_grad()
def _held(teacher: Teacher, mixer: Mixer, seed: int, *key: str | int) -> Iterator[_Held]:
    """The same mixtures for the same key."""
    network = teacher.gating.head
    network.eval()
    for mixture in mixer.validate(epoch_generator(seed, "gates", "validate", *key)):
        heard, taken = teacher.read(mixture)
        yield heard, taken, teacher.gating.log_odds(heard, mixture.classes), mixture.classes
    network.train()


@torch.no_grad()
def _figures(teacher: Teacher, held: Iterable[_Held], shift: float = 0.0) -> dict[str, float]:
    """What an epoch is judged by, and a shift of the gates' log odds."""
    clf = teacher.classifier
    columns: dict[str, list[Tensor]] = {}
    for heard, taken, odds, classes in held:
        own = classes.unsqueeze(1)
        mask = teacher.gating.gain(taken, gate(odds + shift), heard.size)
        inside, outside = teacher.judge(heard, split_sounds(heard, mask))
        enough, needed = teacher.answers(heard, inside, outside, classes)
        y, q = (clf.probabilities(z).gather(1, own)[:, 0] for z in (heard.logits, outside))
        figures = {
            "fall": y - q,
            "kept": kept_energy(mask, heard.size).nan_to_num(),
            "fid_in": clf.decisions(inside).gather(1, own)[:, 0].float(),
            "validation_loss": enough + needed,
        }
        for name, values in figures.items():
            columns.setdefault(name, []).append(values)
    return {name: float(torch.cat(values).mean()) for name, values in columns.items()}


def _closed(teacher: Teacher, mixer: Mixer, seed: int, closing: float) -> float:
    """How far gates can be shut further with nothing lost that counts: a number below 0, or 0."""
    held: list[_Held] = []
    while sum(len(classes) for *_, classes in held) < _CLOSING_MIXTURES:
        held += _held(teacher, mixer, seed, len(held))
    trained, shut = _figures(teacher, held), 0.0
    for shift in _SHIFTS:
        figures = _figures(teacher, held, shift)
        if (
            figures["fall"] < closing * trained["fall"]
            or figures["fid_in"] < _DECIDED * trained["fid_in"]
        ):
            break
        shut = shift
    return shut
