"""Cues of a class that are worth a proof: what changes probability, or decisions, on a few clips.

A proof costs four passes over some dozens of clips, and each one makes every other need a smaller p
value. So all cues are tried first, and the few that do most are proved on other clips. Decisions
count by themselves: where a classifier hardly tells two classes apart, little probability decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.audit.cues import Cue, Palette, fixed_tone
from l2i.audit.proof import Bench, Trial, energy
from l2i.audit.settings import Settings
from l2i.audit.traits import traits_of
from l2i.explanation import Subject

# What is so far below a clip is nobody's cue, and is not tried.
_INAUDIBLE_DB = -50.0
# How often a clip of the class must have more of a trait than another clip: one of six others may
# have it too, by the nature of its own sound, and two may not.
_MORE_OFTEN = 0.75


@torch.inference_mode()
def screen(
    subject: Subject,
    palette: Palette,
    label: int,
    own: NDArray[np.float32],
    hosts: NDArray[np.float32],
    settings: Settings,
) -> list[Trial]:
    """The cues of a class that are worth a proof, the most effective first.

    Parameters
    ----------
    subject : Subject
    palette : Palette
    label : int
        The class.
    own, hosts : float32 [N, S]
        As many clips that the classifier takes for the class as clips that it does not.
    settings : Settings
    """
    bench = Bench(subject, palette, label, own, hosts)
    before = [bench.probability(h.logits) for h in (bench.own, bench.hosts)]
    usual, rate = bench.usual.cpu().numpy(), palette.domain.sample_rate
    sounds: dict[Cue, Tensor] = {}

    def tone_of(cue: Cue, sound: Tensor) -> float | None:
        return None if cue.kind == "time" else fixed_tone(sound, rate)

    def tried(cues: Iterable[Cue]) -> list[Trial]:
        some = []
        for cue in cues:
            sound, levels = bench.cue(cue)
            # What is loud in one clip of four may be the class's sound there.
            level = float(levels.quantile(0.75))
            if level <= _INAUDIBLE_DB:
                continue
            # However loud it is, no natural sound is the same tone in all clips.
            tone = None
            if level > settings.quiet_db and (tone := tone_of(cue, sound)) is None:
                continue
            after = (
                bench.own.judge(bench.clean[0] - sound),
                bench.hosts.judge(bench.clean[1] + sound),
            )
            falls, rises = (float((bench.probability(after[i]) - before[i]).mean()) for i in (0, 1))
            # All of its own clips were of the class, and no other one was.
            lost, won = (float(bench.decided(logits).float().mean()) for logits in after)
            sounds[cue] = sound
            trial = Trial(label, cue, level, -falls, rises, usual, tone)
            some.append(replace(trial, flips=max(1 - lost, won) if trial.removable else won))
        return some

    def worth(trial: Trial, least: float) -> bool:
        return trial.effect >= least or trial.flips >= settings.excess

    # Components are many: those are tried that lie where a band does something.
    steady = palette.steady(bench.own, bench.taken, bench.usual)
    wide = tried([*(cue for cue in palette.cues if cue.kind != "component"), steady])
    telling = (t.cue for t in wide if worth(t, settings.worth / 2))
    bands = [cue for cue in telling if isinstance(cue, Cue) and cue.kind == "band"]
    # And what neighbours do, each a little, is one cue that does more.
    wide += tried(_joined(palette, bands))
    near = [cue for cue in palette.parts if cue.kind == "component" and _within(cue, bands)]
    trials = [t for t in (*wide, *tried(near)) if worth(t, settings.worth)]
    for trait in traits_of(bench.clean[0], rate):
        mine, theirs = (trait.measure(x, rate) for x in bench.clean)
        if _above(mine, theirs) < _MORE_OFTEN:
            continue
        imposed = bench.hosts.judge(trait.impose(bench.clean[1], rate))
        rises = float((bench.probability(imposed) - before[1]).mean())
        if rises >= settings.worth:
            trials.append(Trial(label, trait, 0.0, 0.0, rises, usual))
    trials.sort(key=lambda t: -t.effect)
    kept: list[Trial] = []
    for trial in trials:
        # Two parts that are largely one sound, or one within the other, are one cue: the more
        # effective stands for both.
        if isinstance(trial.cue, Cue) and any(
            isinstance(other.cue, Cue)
            and (
                _part_of(trial.cue, other.cue) or _alike(sounds[trial.cue], sounds[other.cue]) > 0.5
            )
            for other in kept
        ):
            continue
        if isinstance(trial.cue, Cue) and trial.tone_hz is None:
            # For what is not kept it would be reckoned for nothing.
            trial = replace(trial, tone_hz=tone_of(trial.cue, sounds[trial.cue]))
        kept.append(trial)
        if len(kept) == settings.cues:
            break
    return kept


def _joined(palette: Palette, bands: Sequence[Cue]) -> list[Cue]:
    """Runs of two or more neighbours among some bands, each as one."""
    runs: list[list[Cue]] = []
    for band in bands:
        if runs and band.number == runs[-1][-1].number + 1:
            runs[-1].append(band)
        else:
            runs.append([band])
    return [
        palette.neighbours(run[0].number, len(run) + run[-1].bands - 1)
        for run in runs
        if len(run) > 1
    ]


def _within(cue: Cue, bands: Sequence[Cue]) -> bool:
    """Whether the middle of a component's spectrum is in one of some bands, and it is not much
    wider than that."""
    middle, width = (cue.low_hz + cue.high_hz) / 2, cue.high_hz - cue.low_hz
    return any(
        b.low_hz <= middle <= b.high_hz and width <= 3 * (b.high_hz - b.low_hz) for b in bands
    )


def _part_of(cue: Cue, other: Cue) -> bool:
    """Whether a band is one of several that are one."""
    return (
        cue.kind == other.kind == "band"
        and other.number <= cue.number
        and cue.number + cue.bands <= other.number + other.bands
    )


def _alike(a: Tensor, b: Tensor) -> float:
    """Mean cosine of two sounds of the same clips."""
    scale = (energy(a) * energy(b)).sqrt().clamp_min(1e-20)
    return float(((a * b).sum(dim=1) / scale).abs().mean())


def _above(mine: Tensor, theirs: Tensor) -> float:
    """How often one of the first is more than one of the second; half for a tie."""
    more = mine.unsqueeze(1) > theirs.unsqueeze(0)
    same = mine.unsqueeze(1) == theirs.unsqueeze(0)
    return float((more + 0.5 * same).float().mean())
