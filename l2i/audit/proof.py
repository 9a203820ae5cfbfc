"""The counter-proof: a cue is taken out of its own clips, and mixed into clips of other classes.

A class rests on a cue where its decisions change without it, or where clips of other classes become
it with the cue. Either says something only beside a control: as much of the same clips that is not
the cue, scaled to the cue's energy. A stretch of time is mixed in alone, beside another stretch.
Whether the cue changes more decisions than its control is an exact McNemar test over pairs of one
clip; p values are corrected for all that was tried (Holm), so that over a whole audit the chance of
one suspect or more is at most the stated rate where no cue does more than its control.

What is tried on some clips first (`l2i.audit.screening`) is never proved on the same clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from l2i.audit.cues import Companion, Cue, Palette, usual_size
from l2i.audit.settings import Settings
from l2i.audit.traits import Trait
from l2i.dsp.spectrogram import peak_normalise
from l2i.explanation import Subject
from l2i.metrics.statistics import holm, mcnemar
from l2i.models.heard import hear

# Stretches of a clip whose loudest is compared, in seconds.
_MOMENT_S = 0.05


@dataclass(frozen=True)
class Trial:
    """A cue of a class, tried on some clips.

    Attributes
    ----------
    label : int
        The class.
    cue : Cue, Trait or Companion
    level_db : float
        Against the clip, see `Bench.cue`: of three of four clips, or below; 0 of what is no `Cue`.
    removal, insertion : float
        Mean fall of the class's probability without it; mean rise in other clips with it.
    usual : float32 [F], optional
        What other clips have: see `l2i.audit.cues.usual_size`.
    tone_hz : float, optional
        A cue's frequency, where it is a tone that is the same in all clips.
    flips : float
        Share of the clips whose decision changes: without it, or with it, whichever is more.
    """

    label: int
    cue: Cue | Trait | Companion
    level_db: float
    removal: float
    insertion: float
    usual: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    tone_hz: float | None = None
    flips: float = 0.0

    @property
    def effect(self) -> float:
        """The greater of both, of those that are put to proof."""
        return max(self.removal, self.insertion) if self.removable else self.insertion

    @property
    def removable(self) -> bool:
        """Whether a clip without it is one that there might be: a hole in time is not."""
        return isinstance(self.cue, Cue) and self.cue.kind != "time"


@dataclass(frozen=True)
class Proof:
    """What a cue does to decisions, beside its control.

    Attributes
    ----------
    trial : Trial
    own, hosts : int64 [N]
        Clips of the class that the cue is of, and the other clips that it was mixed into.
    removal, removal_control : bool [N]
        Which of `own` are no longer of the class without the cue, and without as much of the rest;
        empty for what is not removable.
    insertion, insertion_control : bool [N]
        Which of `hosts` become the class with the cue, and with as much of the rest; for a trait,
        which become the class, and which the other class that most of them become; for a companion,
        which become the class with a clip of the other of both, and which with a third one's.
    p : float
        The smaller of both p values, doubled for two tests; see `proved` for what it becomes.
    beside : int64 [N], optional
        For a companion, the clips that were mixed into `hosts`.
    """

    trial: Trial
    own: NDArray[np.int64]
    hosts: NDArray[np.int64]
    removal: NDArray[np.bool_]
    removal_control: NDArray[np.bool_]
    insertion: NDArray[np.bool_]
    insertion_control: NDArray[np.bool_]
    p: float = 1.0
    beside: NDArray[np.int64] | None = None

    @property
    def excess(self) -> float:
        """The greater share of decisions that the cue changes beyond its control."""
        return max(
            float(a.mean() - b.mean()) if len(a) else 0.0
            for a, b in (
                (self.removal, self.removal_control),
                (self.insertion, self.insertion_control),
            )
        )


Read = Callable[[NDArray[np.int64]], NDArray[np.float32]]


class Bench:
    """Clips of a class and clips of others, heard, for as many cues as there are.

    Parameters
    ----------
    subject : Subject
    palette : Palette
    label : int
        The class.
    own, hosts : float32 [N, S]
        Clips that the classifier takes for the class, and clips that it does not.
    usual : float32 [F], optional
        What other clips have; by default that of `hosts`.

    Attributes
    ----------
    own, hosts : Heard
    clean : list of two Tensor [N, S]
        Both, scaled to their peak: what cues are cut out of and mixed into.
    """

    def __init__(
        self,
        subject: Subject,
        palette: Palette,
        label: int,
        own: NDArray[np.float32],
        hosts: NDArray[np.float32],
        usual: NDArray[np.float32] | None = None,
    ) -> None:
        self.subject, self.palette, self.label = subject, palette, label
        clf = subject.classifier
        self.own, self.hosts = (
            hear(clf, torch.from_numpy(np.ascontiguousarray(x)), subject.domain)
            for x in (own, hosts)
        )
        self.taken = palette.take_apart(self.own)
        self.usual = usual_size(self.hosts)
        if usual is not None:
            self.usual = torch.from_numpy(usual).to(self.usual.device)
        self.clean = [peak_normalise(h.waveform.to(h.size.device)) for h in (self.own, self.hosts)]

    def probability(self, logits: Tensor) -> Tensor:
        """The class's [N]."""
        return self.subject.classifier.probabilities(logits)[:, self.label]

    def decided(self, logits: Tensor) -> Tensor:
        """Whether the class is decided for, bool [N]."""
        return self.subject.classifier.decisions(logits)[:, self.label]

    def cue(self, cue: Cue) -> tuple[Tensor, Tensor]:
        """The cue's sound [N, S], and its level below the clip [N], dB.

        The lower one of two: of the energies, and of the energies of the loudest moments. A click
        is as loud as a bark for a moment; a hum has as much energy as a bark and a long silence.
        """
        x = self.clean[0]
        sound = self.palette.sound(cue, self.own, self.taken, self.usual)
        n = max(1, round(_MOMENT_S * self.palette.domain.sample_rate))
        shares = [of(sound) / of(x).clamp_min(1e-20) for of in (energy, lambda y: _loudest(y, n))]
        return sound, 10 * torch.minimum(*shares).clamp_min(1e-12).log10()

    def control(self, cue: Cue, sound: Tensor) -> Tensor:
        """As much [N, S] of what is not the cue: of all the rest, or of another time."""
        rest = self.clean[0] - sound
        if cue.kind == "time":
            away = 3 * (cue.end - cue.start) * (1 if cue.start < 0.5 else -1)
            other = replace(cue, start=cue.start + away, end=cue.end + away)
            rest = self.palette.sound(other, self.own, self.taken, self.usual)
        return rest * (energy(sound) / energy(rest).clamp_min(1e-20)).sqrt().unsqueeze(1)


def energy(x: Tensor) -> Tensor:
    """The energies [N] of sounds [N, S]."""
    return x.square().sum(dim=1)


def _loudest(x: Tensor, n: int) -> Tensor:
    """The greatest energy [N] of n samples of sounds [N, S], each n cut out by itself."""
    return F.avg_pool1d(x.square(), n, ceil_mode=True).amax(dim=1) * n


@torch.inference_mode()
def prove(
    subject: Subject,
    palette: Palette,
    trials: Sequence[Trial],
    own: NDArray[np.int64],
    hosts: NDArray[np.int64],
    read: Read,
    batch: int = 8,
) -> list[Proof]:
    """What the cues of a class do to decisions, on clips that they were not found on.

    Parameters
    ----------
    subject : Subject
    palette : Palette
    trials : sequence of Trial
        All for one class.
    own : int64 [M]
        Numbers of clips that the classifier takes for the class.
    hosts : int64 [N]
        Numbers of clips that it does not; where there are more of them than of `own`, the cue of
        one clip is mixed into several.
    read : callable
        Waveforms float32 [B, S] of numbered clips.
    """
    if not trials:
        return []
    label, clf = trials[0].label, subject.classifier
    pairs = np.resize(own, len(hosts))
    answers: list[list[list[Tensor]]] = [[[], [], [], []] for _ in trials]
    for start in range(0, len(hosts), batch):
        some = slice(start, start + batch)
        both = read(pairs[some]), read(hosts[some])
        bench = Bench(subject, palette, label, *both, trials[0].usual)
        own_x, host_x = bench.clean
        first = slice(0, max(0, len(own) - start))
        for trial, decisions in zip(trials, answers, strict=True):
            if isinstance(trial.cue, Trait):
                imposed = trial.cue.impose(host_x, palette.domain.sample_rate)
                # What they were before, they do not become.
                new = clf.decisions(bench.hosts.judge(imposed))
                decisions[2].append(new & ~clf.decisions(bench.hosts.logits))
                continue
            assert isinstance(trial.cue, Cue)
            sound, _ = bench.cue(trial.cue)
            control = bench.control(trial.cue, sound)
            decisions[2].append(bench.decided(bench.hosts.judge(host_x + sound)))
            decisions[3].append(bench.decided(bench.hosts.judge(host_x + control)))
            if trial.removable:
                decisions[0].append(~bench.decided(bench.own.judge(own_x - sound))[first])
                decisions[1].append(~bench.decided(bench.own.judge(own_x - control))[first])
    return [_proof(t, d, own, hosts, label) for t, d in zip(trials, answers, strict=True)]


def _proof(
    trial: Trial,
    decisions: Sequence[Sequence[Tensor]],
    own: NDArray[np.int64],
    hosts: NDArray[np.int64],
    label: int,
) -> Proof:
    nothing = np.zeros(0, np.bool_)
    if isinstance(trial.cue, Trait):
        decided = torch.cat(list(decisions[2])).cpu().numpy()
        others = np.delete(decided, label, axis=1)
        # The other class that it makes of most of them: where it makes all kinds of them one
        # class, that class rests on it; where it makes them many, each a little, none does.
        most = others[:, others.sum(axis=0).argmax()]
        columns = [nothing, nothing, decided[:, label], most]
    else:
        columns = [torch.cat(list(c)).cpu().numpy() if c else nothing for c in decisions]
    out, out_control, into, into_control = columns
    p = min(p_value(out, out_control), p_value(into, into_control))
    return Proof(trial, own, hosts, out, out_control, into, into_control, min(1.0, 2 * p))


def p_value(flips: NDArray[np.bool_], control: NDArray[np.bool_]) -> float:
    """The p value of the cue changing more decisions than its control; 1 if it does not."""
    return mcnemar(flips, control) if flips.sum() > control.sum() else 1.0


def proved(proofs: Sequence[Proof], settings: Settings) -> list[tuple[Proof, float, bool]]:
    """Each proof with its corrected p value, and whether it is a suspect; these first, and those
    that change most decisions before others."""
    corrected = holm([proof.p for proof in proofs])
    judged = []
    for proof, p in zip(proofs, corrected, strict=True):
        least = settings.together if isinstance(proof.trial.cue, Companion) else settings.excess
        bad = p < settings.false_alarms and proof.excess >= least
        judged.append((proof, float(p), bool(bad)))
    return sorted(judged, key=lambda item: (not item[2], -item[0].excess, item[1]))
