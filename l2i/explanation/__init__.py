"""Ways to explain a class of a clip: the method, and what it is compared with.

A way is an `ExplanationMethod`: clips that were heard and classes in, masks in [0, 1] out; what is
played is `split_audio` of the mask, whatever made it, and all are judged by the same figures. What
it must learn first are its parts (`l2i.training`): L2I has a dictionary and an interpreter, most
have none.

To add one, write a class in a file of its own and name it in `l2i.registry.METHODS`; or, without a
change here, as ``MODULE:NAME``, ``FILE.py:NAME`` or an entry point ``l2i.methods``::

    class Loudest:
        parts = ()                                # names of what it must learn
        def __init__(self, subject, settings):    # Subject, MethodSettings
            self.layers = ()                      # hidden layers that it reads
            self.linear = True                    # its mask is a gain
        def __call__(self, heard, classes, keys): # Heard [B], int64 [B], numbers [B]
            return (heard.size >= heard.size.amax((1, 2), keepdim=True)).float()

``tests/contracts/test_methods.py`` asks of every method what the rest of the package relies on:

- masks are within [0, 1], of the spectrogram's shape, without NaN;
- silence is explained by nothing;
- a clip's mask does not depend on its neighbours in the batch;
- the classifier is left as it was.

`listen_to_interpret` is the method this package exists for, its formulas in the paper's order.
`gated` and `refined` read gates on its components. `gates` are those that need no training.
`baselines` are gradients and occlusion by Captum, a mask of ones, and as many components as L2I
chooses, drawn at random. `perturbation` asks the classifier of parts of a clip, `bottleneck` puts
noise into a hidden map, `wavelets` differentiates by a clip's wavelet coefficients, and `learnt`
has networks that learn to mask, or Shapley values. `controls` ask nobody: what any method must be
better than; with those that know the parts of a mixture, which none can be better than.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from l2i.dsp.spectrogram import Domain
from l2i.errors import MissingPackage, UsageError
from l2i.explanation.listen_to_interpret import (
    Explainer,
    audible,
    random_ranks,
    reconstruction,
    relevance,
    select,
    soft_mask,
    split_audio,
    split_heard,
)
from l2i.models.heard import Heard, need_gradients
from l2i.registry import METHODS
from l2i.types import Classifier

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "METHODS",
    "Explainer",
    "ExplanationMethod",
    "MethodSettings",
    "Subject",
    "audible",
    "check_gradients",
    "check_heeded",
    "fitting_methods",
    "lacking_packages",
    "make_method",
    "part_names",
    "random_ranks",
    "reconstruction",
    "relevance",
    "select",
    "soft_mask",
    "split_audio",
    "split_heard",
    "usual_methods",
]


@dataclass(frozen=True)
class Subject:
    """What is explained, and what was learnt to explain it.

    Attributes
    ----------
    classifier : Classifier
    domain : Domain
        Where the masks live.
    parts : mapping of str to object
        What was learnt, by its name: ``dictionary`` (a Tensor [F, K]), ``interpreter``, ...
    """

    classifier: Classifier
    domain: Domain
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MethodSettings:
    """What methods are told.

    Attributes
    ----------
    threshold : float
        tau: L2I's, and the random baseline's.
    max_components : int
        0: no limit.
    seed : int
        Seed of whatever a method draws.
    metrics : tuple of str
        Figures of one's own that explanations are judged by; see `l2i.metrics`.
    """

    threshold: float = 0.2
    max_components: int = 0
    seed: int = 0
    metrics: tuple[str, ...] = ()


class ExplanationMethod(Protocol):
    """Clips and classes in, masks out.

    Attributes
    ----------
    layers : tuple of str
        Hidden layers whose maps it reads.
    linear : bool
        Whether its mask is a gain of the magnitude |X|, or of log(1 + |X|), as published.
    """

    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def linear(self) -> bool: ...

    def __call__(self, heard: Heard, classes: Tensor, keys: Sequence[int]) -> Tensor:
        """Mask of one class of each clip.

        Parameters
        ----------
        heard : Heard
            B clips, with the maps of `layers`.
        classes : Tensor [B], int64
        keys : sequence of int
            One number per clip. What is random is drawn from it and the seed, so that a clip's
            mask depends neither on its neighbours nor on the order of clips.

        Returns
        -------
        Tensor [B, F, T]
            In [0, 1].
        """
        ...


def make_method(name: str, subject: Subject, settings: MethodSettings) -> ExplanationMethod:
    """A method, made of what it needs.

    Parameters
    ----------
    name : str
        A name in `METHODS`.
    subject : Subject
    settings : MethodSettings

    Raises
    ------
    UsageError
        There is no such method, it must learn something that the subject has not, it needs
        gradients that the classifier has not, or a package that is not installed.
    """
    kind = METHODS[name]
    check_gradients(name, subject.classifier)
    for package in lacking_packages(kind):
        raise MissingPackage(f"Method {name!r}", package)
    missing = [part for part in part_names(kind) if part not in subject.parts]
    if missing:
        raise UsageError(
            f"Method {name!r} must learn its {' and its '.join(missing)} first: train it, by "
            f"'l2i train' or l2i.fit. 'gates' and 'shapley' learn nothing."
        )
    return kind(subject, settings)


def check_gradients(
    name: str, classifier: Classifier, instead: str = "take method 'shapley'"
) -> None:
    """Refuse a classifier without gradients where a method says ``needs_gradients = True``.

    Raises
    ------
    UsageError
        `instead` says what to do.
    """
    if getattr(METHODS[name], "needs_gradients", False):
        need_gradients(classifier, f"method {name!r}", instead)


def check_heeded(methods: Sequence[str], **given: float | None) -> None:
    """Refuse `MethodSettings` that none of some methods does anything with.

    A built-in method names those that it does in its attribute `heeds`; one of somebody else's that
    has none is believed to heed all.

    Raises
    ------
    UsageError
    """

    def heeds(name: str, setting: str) -> bool:
        kind = METHODS[name]
        others = not kind.__module__.startswith("l2i.")
        return setting in getattr(kind, "heeds", (setting,) if others else ())

    for setting, value in given.items():
        if value is not None and not any(heeds(name, setting) for name in methods):
            can = [name for name in METHODS if heeds(name, setting)]
            raise UsageError(
                f"Method {' and '.join(map(repr, methods))} does nothing with "
                f"--{setting.replace('_', '-')}: take it away, or take --method {' or '.join(can)}."
            )


def usual_methods() -> list[str]:
    """Built-in and installed methods that are compared where nobody names any.

    A method whose class says ``costly = True`` is asked for by its name: it takes many seconds per
    clip, or a training of its own.
    """
    return [name for name in METHODS if not getattr(METHODS[name], "costly", False)]


def fitting_methods(
    classifier: Classifier, learnt: Collection[str] | None = None, *, layers_named: bool = False
) -> list[str]:
    """The usual methods for which there is all that they need.

    Parameters
    ----------
    classifier : Classifier
    learnt : collection of str, optional
        Names of parts that are there; without it, whatever is needed can be learnt.
    layers_named : bool
        Whether the layers to learn from are named, where the classifier finds none by itself.
    """
    from l2i.training.interpreter import layers_of

    try:
        readable = bool(layers_of(classifier))
    except UsageError:  # A black box, or TorchScript.
        readable = False

    def fits(kind: Any) -> bool:
        needs = part_names(kind)
        there = learnt is not None and all(part in learnt for part in needs)
        read = readable or (bool(needs) and (layers_named or there))
        return (
            (classifier.differentiable or not getattr(kind, "needs_gradients", False))
            and (read or not getattr(kind, "needs_layers", False))
            and (there or learnt is None)
        )

    return [name for name in usual_methods() if fits(METHODS[name])]


def part_names(kind: Any) -> tuple[str, ...]:
    """Names of what a method must learn, in the order in which it is learnt."""
    return tuple(part if isinstance(part, str) else part.name for part in kind.parts)


def lacking_packages(kind: Any) -> list[str]:
    """Packages that a method names as needed, by its attribute `packages`, and that are not there.

    Beyond those that l2i itself needs; they are imported by their names.
    """
    return [name for name in getattr(kind, "packages", ()) if find_spec(name) is None]
