"""What an explanation of one clip is: its sounds, its mask, what the classifier says of both; in
files, and on a page to listen to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.config import Warn
from l2i.dsp.audio import write_audio
from l2i.dsp.spectrogram import (
    Domain,
    common_gain,
    kept_energy,
    linear_gain,
    magnitude,
    stft,
    synthesise,
)
from l2i.errors import StoreError
from l2i.explanation import ExplanationMethod, soft_mask, split_audio
from l2i.explanation.gated import GatedL2I
from l2i.explanation.listen_to_interpret import ListenToInterpret
from l2i.metrics.doubts import Doubt, explanation_doubts, verdict
from l2i.models.gated import Taken
from l2i.models.heard import Heard
from l2i.pages.listening import Media, MediaList, write_listening_page
from l2i.pages.page import escape, refuse_foreign
from l2i.pages.pictures import mask_picture, spectrogram_picture, spectrum_line
from l2i.recording import TABLE
from l2i.storage import atomic_write_text, disk_errors, make_output
from l2i.types import Task

__all__ = [
    "Component",
    "Explained",
    "Probabilities",
    "energy_share",
    "explain_by",
    "pictured",
    "size_of",
    "write_explained",
]

_SHOWN = 5
# Most components of a dictionary of hundreds have next to no share.
_AMONG = 12
_FACTS = "explanation.json"


def energy_share(part: NDArray[np.floating], whole: NDArray[np.floating]) -> float:
    """The energy of a sound [S] over that of the clip [S] it is a part of; of silence it is 0."""
    both = [float(np.square(x, dtype=np.float64).sum()) for x in (part, whole)]
    return both[0] / both[1] if both[1] else 0.0


def size_of(x: NDArray[np.float32], domain: Domain) -> NDArray[np.float32]:
    """``|X|`` [F, T] of a sound [S]."""
    size: NDArray[np.float32] = magnitude(stft(torch.from_numpy(x[None]), domain))[0].numpy()
    return size


def pictured(
    sounds: Mapping[str, NDArray[np.float32]], domain: Domain
) -> tuple[dict[str, bytes], dict[str, NDArray[np.float32]], float]:
    """Spectrograms of sounds [S] as PNG, all of one scale; ``|X|`` of each, and the greatest."""
    sizes = {name: size_of(x, domain) for name, x in sounds.items()}
    most = max(float(size.max()) for size in sizes.values())
    rate = domain.sample_rate
    pictures = {name: spectrogram_picture(size, rate, most) for name, size in sizes.items()}
    return pictures, sizes, most


class Written(Protocol):
    """What can be written as an explanation."""

    def write(self, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Media]:
        """Write the sounds; what is known, what of that the page has, and its media."""


class Probabilities(NamedTuple):
    """What the classifier says of one class: by the clip, by its explanation, without it."""

    input: float
    explanation: float
    removal: float


@dataclass(frozen=True)
class Component:
    """One spectral pattern of a clip.

    Attributes
    ----------
    number : int
    share : float
        Share of the explanation, in [0, 1]; all shares add up to 1.
    evidence : float
        How much of the component is in the explanation, in [0, 1].
    peak_hz : float
        Where its spectrum is greatest.
    spectrum : float32 [F]
    activation, gate : float32 [T]
        How loud it is, and how much of that counts, in [0, 1].
    audio : float32 [S]
        What it contributes to the explanation; made by `sound` when it is asked for, since few of
        many components are heard.
    relevance : float
        For the class; where the method has none of its own, its share.
    """

    number: int
    share: float
    evidence: float
    peak_hz: float
    spectrum: NDArray[np.float32] = field(repr=False)
    activation: NDArray[np.float32] = field(repr=False)
    gate: NDArray[np.float32] = field(repr=False)
    sound: Callable[[], Tensor] = field(repr=False, compare=False)
    relevance: float

    @cached_property
    def audio(self) -> NDArray[np.float32]:
        """What it contributes to the explanation, float32 [S]."""
        made: NDArray[np.float32] = self.sound().cpu().numpy()
        return made


@dataclass(frozen=True)
class Explained:
    """Why a classifier says of a clip what it says.

    Attributes
    ----------
    input, audio, removal : float32 [S]
        The clip, the part that made the classifier say so, and what is left: the last two add up
        to the first, sample by sample.
    sample_rate : int
        Hz, of all three: the classifier's.
    target : str
        The class explained.
    mask : float32 [F, T]
        The linear gain in [0, 1] of each bin; `domain` says which bins.
    domain : Domain
    components : tuple of Component
        Those with the largest share of the explanation first.
    probabilities : dict of str to Probabilities
        For every class.
    method : str
    task : Task
        Whether one class excludes the others.
    warn : l2i.config.Warn
        What `warnings` goes by.
    """

    input: NDArray[np.float32] = field(repr=False)
    audio: NDArray[np.float32] = field(repr=False)
    removal: NDArray[np.float32] = field(repr=False)
    sample_rate: int
    target: str
    mask: NDArray[np.float32] = field(repr=False)
    domain: Domain = field(repr=False)
    components: tuple[Component, ...] = field(repr=False)
    probabilities: dict[str, Probabilities] = field(repr=False)
    method: str
    task: Task = Task.SINGLE_LABEL
    warn: Warn = field(default=Warn(), repr=False)

    @cached_property
    def kept(self) -> float:
        """The explanation's share of the clip's energy, of the spectrogram's bins, in [0, 1]."""
        both = (self.mask, size_of(self.input, self.domain))
        mask, size = (torch.from_numpy(np.ascontiguousarray(x)).unsqueeze(0) for x in both)
        return float(kept_energy(mask, size).nan_to_num(0.0))

    @cached_property
    def doubts(self) -> list[Doubt]:
        """What is to be said against it, each with a mark; those that make it void first."""
        parts = [{name: p[at] for name, p in self.probabilities.items()} for at in range(3)]
        return explanation_doubts(
            self.target,
            parts,
            self.task,
            peak=float(np.abs(self.input).max(initial=0)),
            alone_peak=float(np.abs(self.audio).max(initial=0)),
            warn=self.warn,
        )

    @property
    def warnings(self) -> list[str]:
        """The same as sentences; empty, if there is nothing to be said against it."""
        return [doubt.text for doubt in self.doubts]

    @property
    def holds(self) -> bool:
        """Whether the class falls by a fifth or more without the explanation, and keeps half of
        its probability by the explanation alone."""
        return not any(doubt.void for doubt in self.doubts)

    @property
    def verdict(self) -> str:
        """What the classifier says of both parts, and whether that bears the explanation out."""
        return verdict(self.target, self.probabilities[self.target], self.doubts)

    def __str__(self) -> str:
        more = "".join(f" {doubt.text}" for doubt in self.doubts if not doubt.void)
        return f"{self.verdict} {self.kept:.0%} of the energy is kept.{more}"

    def likeliest(self, n: int = _SHOWN) -> dict[str, Probabilities]:
        """The classes that the classifier finds most probable, and the one explained."""
        order = sorted(self.probabilities, key=lambda name: -self.probabilities[name].input)
        return {name: self.probabilities[name] for name in dict.fromkeys([*order[:n], self.target])}

    def media(self) -> Media:
        """What a page needs: sounds of one gain, and pictures of one scale."""
        rate = self.sample_rate
        sounds = {"original": self.input, "explanation": self.audio, "removal": self.removal}
        pictures, sizes, reference = pictured(sounds, self.domain)
        pictures["mask"] = mask_picture(self.mask, rate, sizes["original"], reference)
        sounds |= {str(c.number): c.audio for c in self.components[:_SHOWN]}
        gain = common_gain(map(torch.from_numpy, sounds.values()))
        return Media.of(rate, {n: x * np.float32(gain) for n, x in sounds.items()}, pictures)

    def facts(self) -> dict[str, Any]:
        """All that is known, as JSON has it: what ``explanation.json`` holds."""
        p = self.probabilities[self.target]
        likely = self.likeliest()
        return {
            "duration_s": len(self.input) / self.sample_rate,
            "sample_rate": self.sample_rate,
            "method": self.method,
            "class": self.target,
            "probability": {
                "original": p.input,
                "explanation": p.explanation,
                "removal": p.removal,
            },
            "holds": self.holds,
            "verdict": self.verdict,
            "warnings": [doubt._asdict() for doubt in self.doubts],
            "kept": self.kept,
            "labels": [],
            "right": None,
            "decided": [next(iter(likely))],
            "components": [
                {
                    "component": c.number,
                    "relevance": c.relevance,
                    "evidence": c.evidence,
                    "peak_hz": c.peak_hz,
                    "bin_hz": self.domain.sample_rate / self.domain.n_fft,
                    "energy": energy_share(c.audio, self.input),
                    "spectrum": spectrum_line(c.spectrum, self.sample_rate),
                }
                for c in self.components[:_SHOWN]
            ],
            "classifier": {name: q.input for name, q in likely.items()},
            "alone": {name: q.explanation for name, q in likely.items()},
            "without": {name: q.removal for name, q in likely.items()},
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``original.wav``, ``explanation.wav``, ``removal.wav``, ``explanation.json`` and
        ``index.html``, a page to listen to; the folder.

        Raises
        ------
        StoreError
            The folder cannot be written, or holds what a run gave.
        """
        folder = Path(folder)
        write_explained([("", self)], folder, [""])
        return folder

    def write(self, folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any], Media]:
        """Write the sounds; what is known, what of that the page has, and its media."""
        sounds = {"original": self.input, "explanation": self.audio, "removal": self.removal}
        gain = np.float32(common_gain(map(torch.from_numpy, sounds.values())))
        for word, x in sounds.items():
            write_audio(folder / f"{word}.wav", x * gain, self.sample_rate)
        facts = {"name": name or self.target, **self.facts()}
        return facts, facts, self.media()

    def _repr_html_(self) -> str:
        media = self.media()

        def address(kind: str, data: bytes) -> str:
            return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"

        picture = "position:absolute;inset:0;width:100%;height:100%;image-rendering:auto"
        spectrum = address("image/png", media.pictures["original"])
        mask = address("image/png", media.pictures["mask"])
        rows = "".join(
            f"<tr><td>{title}</td><td><audio controls preload='none' "
            f"src='{address('audio/flac', media.sounds[name])}'></audio></td></tr>"
            for name, title in (
                ("original", "input"),
                ("explanation", "explanation"),
                ("removal", "what is left"),
            )
        )
        return (
            f"<div><p>{escape(self)}</p><table>{rows}</table>"
            f"<div style='position:relative;max-width:640px;height:200px'>"
            f"<img alt='spectrogram' style='{picture}' src='{spectrum}'>"
            f"<img alt='mask' style='{picture};opacity:.6' src='{mask}'></div></div>"
        )


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
        audio, removal = split_audio(
            heard.spectrum, mask, domain, heard.n_samples, heard.size, linear=way.linear
        )
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
        sound: NDArray[np.float32] = x[0].cpu().numpy()[:length]
        return sound

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
    )


@torch.inference_mode()
def _alone(
    spectrum: Tensor,
    size: Tensor,
    domain: Domain,
    level: Tensor,
    n_samples: int,
    length: int,
    linear: bool,
    mask: Callable[[], Tensor],
) -> Tensor:
    """What a mask keeps of one clip, at the clip's level [S]."""
    gain = linear_gain(mask(), size, linear=linear)
    return (synthesise(spectrum, gain, domain, n_samples) * level)[0, :length]


def _player(heard: Heard, level: Tensor, length: int, *, linear: bool) -> partial[Tensor]:
    """`_alone` of one clip; it does not hold the hidden maps."""
    clip = (heard.spectrum, heard.size, heard.domain)
    return partial(_alone, *clip, level, heard.n_samples, length, linear)


def _components(
    way: ListenToInterpret, heard: Heard, classes: Tensor, level: Tensor, length: int
) -> tuple[Component, ...]:
    """The selected components of one clip, the most relevant first."""
    e = way.explainer
    interpretation = e.interpret(heard)
    relevances = e.relevances(interpretation.pooled, classes, heard.size)[0]
    h, selected = way.select(heard, classes)
    order = [k for k in relevances.argsort(descending=True).tolist() if selected[0, k]]
    loud = e.w.sum(dim=0) * h[0].sum(dim=1)
    total = float(sum(loud[k] for k in order)) or 1.0
    alone = _player(heard, level, length, linear=False)
    components = []
    for k in order:
        only = torch.zeros_like(selected)
        only[0, k] = True
        mask = partial(soft_mask, e.w, h, only)
        components.append(
            Component(
                k,
                float(loud[k]) / total,
                1.0,
                float(e.w[:, k].argmax()) * e.domain.sample_rate / e.domain.n_fft,
                e.w[:, k].cpu().numpy(),
                h[0, k].cpu().numpy(),
                np.ones(h.shape[2], np.float32),
                partial(alone, mask),
                float(relevances[k]),
            )
        )
    return tuple(components)


def _gated(
    way: GatedL2I, gates: Tensor, taken: Taken, heard: Heard, level: Tensor, length: int
) -> tuple[Component, ...]:
    """The components that most of a clip's explanation is made of, the largest share first."""
    shares, evidence = (x[0] for x in taken.shares(gates))
    order = [k for k in shares.argsort(descending=True).tolist() if shares[k] > 0][:_AMONG]
    alone = _player(heard, level, length, linear=True)
    components = []
    for k in order:
        one = Taken(way.w[:, [k]], taken.activations[:, [k]], taken.whole)
        mask = partial(way.gating.gain, one, gates[:, [k]], heard.size)
        components.append(
            Component(
                number=k,
                share=float(shares[k]),
                evidence=float(evidence[k]),
                peak_hz=float(way.w[:, k].argmax()) * heard.domain.sample_rate / heard.domain.n_fft,
                spectrum=way.w[:, k].cpu().numpy(),
                activation=taken.activations[0, k].cpu().numpy(),
                gate=gates[0, k].cpu().numpy(),
                sound=partial(alone, mask),
                relevance=float(shares[k]),
            )
        )
    return tuple(components)


def write_explained(
    explanations: Iterable[tuple[str, Written]], out: Path, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Write explanations into a folder, each in one of its own, and a page to listen to all.

    Parameters
    ----------
    explanations : iterable of (str, Explained), or others that can be written
        With the names of their folders. Each is written, and let go, before the next is asked for.
    out : Path
        Made for the first of them.
    names : sequence of str
        All that may come: that their folders are free is found out first. One alone may be called
        ``""``, and lies in `out` itself.

    Returns
    -------
    list of dict
        What each ``explanation.json`` holds.

    Raises
    ------
    StoreError
    """
    page = out / "index.html"
    refuse_foreign(page)
    for folder in (out / name for name in names):
        if folder.is_dir() and any(folder.iterdir()) and not (folder / _FACTS).is_file():
            raise StoreError(f"{folder} holds other things than an explanation: name another.")
    found_facts: list[dict[str, Any]] = []
    clips: list[dict[str, Any]] = []
    media = MediaList(beside=out)
    for name, e in explanations:
        with disk_errors(out):
            make_output(out)
            folder = out / name
            folder.mkdir(exist_ok=True)
            facts, shown, seen = e.write(folder, name)
            if "windows" not in facts:
                (folder / TABLE).unlink(missing_ok=True)  # Another sound's, that lay here.
            text = json.dumps(facts, indent=2, ensure_ascii=False)
            atomic_write_text(folder / _FACTS, f"{text}\n")
            media.append(seen, name)
        found_facts.append(facts)
        clips.append(shown)
    if clips:
        title = "Explanations" if len(clips) > 1 else f"Explanation: {clips[0]['class']}"
        with disk_errors(out):
            write_listening_page(page, clips, media, title=title)
    return found_facts
