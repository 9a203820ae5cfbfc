"""On what explanations are judged: clips as they are, two at once, or with noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2i.data.split import spread
from l2i.recipes.measuring.overlap import Overlap, carried_by, drawn_pairs, mixed_scenes
from l2i.recipes.measuring.truth import Scene, clip_scenes
from l2i.recipes.opening.opened import Opened
from l2i.run.progress import Progress
from l2i.types import Clip

PROTOCOLS: dict[str, str] = {
    "clean": "clips as they are",
    "mix0": "two clips of one energy",
    "mix12": "two clips, the second 12 dB below the first",
    "noise6": "clips with white noise 6 dB below them",
}


@dataclass(frozen=True)
class Protocol:
    """Scenes to judge by.

    Attributes
    ----------
    name : str
        A name in `PROTOCOLS`.
    count : int
        How many scenes.
    known : bool
        Whether the parts of the scenes are known.
    scenes : callable
        Gives them anew each time, for each method.
    """

    name: str
    count: int
    known: bool
    scenes: Callable[[], Iterator[Scene]]
    _groups: dict[str, str]

    def groups(self, ids: Sequence[str] | NDArray[Any]) -> NDArray[np.str_]:
        """The recording of each scene; of two clips at once, the first one's."""
        return np.array([self._groups[name] for name in ids], dtype=str)

    def some(self, n: int, clips: Sequence[Clip]) -> frozenset[str]:
        """Ids of at most `n` scenes: of clips, spread over the classes."""
        if self.name == "clean":
            return frozenset(clips[i].id for i in spread(clips, n))
        return frozenset(list(self._groups)[:n])


def open_protocol(
    opened: Opened, name: str, clips: Sequence[Clip], seed: int, progress: Progress
) -> Protocol:
    """The scenes of a protocol.

    Parameters
    ----------
    opened : Opened
    name : str
        A name in `PROTOCOLS`.
    clips : sequence of Clip
        Clean, these; else as many mixtures of test clips.
    seed : int
        Decides what is mixed with what, and the noise.
    progress : Progress
    """
    if name == "clean":
        return Protocol(
            name,
            len(clips),
            bool(opened.material.dataset.parts(clips[0])),
            partial(clip_scenes, opened.material, clips, opened.classes),
            {clip.id: clip.group or clip.id for clip in clips},
        )
    noise = 6.0 if name == "noise6" else None
    gain = {"mix0": 0.0, "mix12": -12.0}.get(name)
    wanted = Overlap(mixtures=len(clips), level="energy", noise_db=noise, seed=seed)
    carried = carried_by(opened, progress)
    firsts, seconds = drawn_pairs(opened, wanted, carried, progress)
    scenes = partial(mixed_scenes, opened, wanted, firsts, seconds, gain, carried)
    names = [
        f"{a.id}+noise" if noise is not None else f"{a.id}+{b.id}"
        for a, b in zip(firsts, seconds, strict=True)
    ]
    groups = {n: a.group or a.id for n, a in zip(names, firsts, strict=True)}
    return Protocol(name, len(firsts), True, scenes, groups)
