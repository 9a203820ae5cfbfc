"""One clip's explanation by any method, as a value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.config import Warn
from l2i.dsp.spectrogram import linear_gain, synthesise
from l2i.explained.value import Component, Explained, Probabilities
from l2i.explanation import ExplanationMethod, soft_mask, split_heard
from l2i.explanation.gated import GatedL2I
from l2i.explanation.listen_to_interpret import ListenToInterpret
from l2i.models.gated import Taken
from l2i.models.heard import Heard

# Most components of a dictionary of hundreds have next to no share.
_AMONG = 12


def explain_by(
    way: ExplanationMethod,
    heard: Heard,
    c: int,
    *,
    method: str,
    key: int = 0,
    length: int = 0,
    warn: Warn | None = None,
) -> Explained:
    """One clip's explanation by a method.

    Parameters
    ----------
    way : ExplanationMethod
    heard : Heard
        One clip, with the hidden maps that the method reads.
    c : int
        The class explained.
    method : str
        Its name; of ``FILE.py:NAME`` and ``MODULE:NAME`` what comes last is said.
    key : int
        What is random is drawn from it.
    length : int
        Samples of the clip, where it was padded; 0: all.
    warn : l2i.config.Warn, optional
        When it is said that the explanation does not hold.
    """
    clf, domain = heard.classifier, heard.domain
    length = length or heard.n_samples
    classes = torch.tensor([c], device=heard.size.device)
    gated = way.explain(heard, classes) if isinstance(way, GatedL2I) else None
    mask = way(heard, classes, [key]) if gated is None else gated[2]
    with torch.inference_mode():
        # Sounds are made of the clip scaled to its peak, and are then as loud as the clip.
        level = heard.waveform.abs().amax(dim=1, keepdim=True)
        audio, removal = split_heard(heard, mask, linear=way.linear)
        judged = heard.judge(torch.cat([audio, removal]), [0, 0]).split(1)
        probabilities = [clf.probabilities(z)[0].cpu() for z in (heard.logits, *judged)]
        gain = linear_gain(mask, heard.size, linear=way.linear)
        components: tuple[Component, ...] = ()
        if isinstance(way, ListenToInterpret):
            components = _components(way, heard, classes, level, length)
        elif isinstance(way, GatedL2I) and gated is not None:
            components = _gated(way, *gated[:2], heard, level, length)
        audio, removal = audio * level, removal * level

    def plain(x: Tensor) -> NDArray[np.float32]:
        return x[0].cpu().numpy()[:length]

    return Explained(
        input=plain(heard.waveform),
        audio=plain(audio),
        removal=plain(removal),
        sample_rate=clf.sample_rate,
        target=clf.classes[c],
        mask=gain[0].cpu().numpy()[:, : domain.n_frames(length)],
        domain=domain,
        components=components,
        probabilities={
            name: Probabilities(*(float(p[at]) for p in probabilities))
            for at, name in enumerate(clf.classes)
        },
        method=method.rpartition(":")[2],
        task=clf.task,
        warn=warn or Warn(),
        untrained=isinstance(way, GatedL2I) and way.untrained(clf.classes[c]),
    )


def _maker(
    heard: Heard, level: Tensor, length: int, w: Tensor, h: Tensor, *, linear: bool
) -> Callable[..., Component]:
    """What makes component k of patterns w [F, K] and activations h [K, T] of one clip: from a mask
    that keeps it alone, of which its sound is made at the clip's level, and what else is known."""
    # Not the clip itself, which has the hidden maps.
    spectrum, size, domain, n = heard.spectrum, heard.size, heard.domain, heard.n_samples

    @torch.inference_mode()
    def alone(mask: Callable[[], Tensor]) -> Tensor:
        gain = linear_gain(mask(), size, linear=linear)
        return (synthesise(spectrum, gain, domain, n) * level)[0, :length]

    def component(k: int, mask: Callable[[], Tensor], **known: Any) -> Component:
        return Component(
            number=k,
            peak_hz=float(w[:, k].argmax()) * domain.sample_rate / domain.n_fft,
            spectrum=w[:, k].cpu().numpy(),
            activation=h[k].cpu().numpy(),
            sound=partial(alone, mask),
            **known,
        )

    return component


def _components(
    way: ListenToInterpret, heard: Heard, classes: Tensor, level: Tensor, length: int
) -> tuple[Component, ...]:
    """The selected components of one clip, the most relevant first."""
    e = way.explainer
    relevances = e.relevances(e.interpret(heard).pooled, classes, heard.size)[0]
    h, selected = way.select(heard, classes)
    order = [k for k in relevances.argsort(descending=True).tolist() if selected[0, k]]
    loud = e.w.sum(dim=0) * h[0].sum(dim=1)
    total = float(sum(loud[k] for k in order)) or 1.0
    component = _maker(heard, level, length, e.w, h[0], linear=False)
    components = []
    for k in order:
        only = torch.zeros_like(selected)
        only[0, k] = True
        mask = partial(soft_mask, e.w, h, only)
        known = {"share": float(loud[k]) / total, "relevance": float(relevances[k])}
        gate = np.ones(h.shape[2], np.float32)
        components.append(component(k, mask, evidence=1.0, gate=gate, **known))
    return tuple(components)


def _gated(
    way: GatedL2I, gates: Tensor, taken: Taken, heard: Heard, level: Tensor, length: int
) -> tuple[Component, ...]:
    """The components that most of a clip's explanation is made of, the largest share first."""
    shares, evidence = (x[0] for x in taken.shares(gates))
    order = [k for k in shares.argsort(descending=True).tolist() if shares[k] > 0][:_AMONG]
    component = _maker(heard, level, length, way.w, taken.activations[0], linear=True)
    components = []
    for k in order:
        one = Taken(way.w[:, [k]], taken.activations[:, [k]], taken.whole)
        mask = partial(way.gating.gain, one, gates[:, [k]], heard.size)
        known = {"evidence": float(evidence[k]), "gate": gates[0, k].cpu().numpy()}
        share = float(shares[k])
        components.append(component(k, mask, share=share, relevance=share, **known))
    return tuple(components)
