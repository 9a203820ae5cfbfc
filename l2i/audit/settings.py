"""What an audit goes by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Limits, and how much is tried.

    Attributes
    ----------
    quiet_db : float
        A cue is one of a few parts of a sound, and no suspect, where it is louder than this against
        the clip, dB, in energy and in its loudest moment: the class's own sound is what it should
        go by.
    tried : int
        Clips that cues are tried on first.
    proved : int
        Pairs of clips of a proof, at most.
    cues : int
        Cues of a class that are proved, at most.
    worth : float
        Mean change of the class's probability from which on a cue is worth a proof; so is one that
        changes `excess` of the decisions.
    excess : float
        Share of the decisions that it must change beyond its control.
    together : float
        Share of the mixtures of two other classes' clips that must be taken for a class beyond
        their control. Some mixtures sound like a third class by chance; most of them do not.
    false_alarms : float
        The chance of a suspect in an audit where no cue does more than its control.
    """

    quiet_db: float = -10.0
    tried: int = 6
    proved: int = 24
    cues: int = 4
    worth: float = 0.1
    excess: float = 0.25
    together: float = 2 / 3
    false_alarms: float = 0.05
