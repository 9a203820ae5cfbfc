"""What an explanation of one clip is: its sounds, its mask, what the classifier says of both."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.config import Warn
from l2i.dsp.audio import write_audio
from l2i.dsp.spectrogram import Domain, common_gain, kept_energy, magnitude, stft
from l2i.explained.written import write_explained
from l2i.metrics.doubts import Doubt, explanation_doubts, verdict
from l2i.pages.listening import Media
from l2i.pages.page import escape
from l2i.pages.pictures import mask_picture, spectrogram_picture, spectrum_line
from l2i.storage import local_place
from l2i.types import Task

_SHOWN = 5


def energy_share(part: NDArray[np.floating], whole: NDArray[np.floating]) -> float:
    """The energy of a sound [S] over that of the clip [S] it is a part of; of silence it is 0."""
    both = [float(np.square(x, dtype=np.float64).sum()) for x in (part, whole)]
    return both[0] / both[1] if both[1] else 0.0


def size_of(x: NDArray[np.float32], domain: Domain) -> NDArray[np.float32]:
    """``|X|`` [F, T] of a sound [S]."""
    return magnitude(stft(torch.from_numpy(x[None]), domain))[0].numpy()


def pictured(
    sounds: Mapping[str, NDArray[np.float32]], domain: Domain
) -> tuple[dict[str, bytes], dict[str, NDArray[np.float32]], float]:
    """Spectrograms of sounds [S] as PNG, all of one scale; ``|X|`` of each, and the greatest."""
    sizes = {name: size_of(x, domain) for name, x in sounds.items()}
    most = max(float(size.max()) for size in sizes.values())
    rate = domain.sample_rate
    pictures = {name: spectrogram_picture(size, rate, most) for name, size in sizes.items()}
    return pictures, sizes, most


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
        return self.sound().cpu().numpy()


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
    untrained : bool
        Whether no clip trained the method for the class explained.
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
    untrained: bool = False

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
            untrained=self.untrained,
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
        UsageError
            It is an address, not a folder.
        StoreError
            The folder cannot be written, or holds what a run gave.
        """
        folder = local_place(folder)
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
