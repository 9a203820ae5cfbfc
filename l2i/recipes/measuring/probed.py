"""Which probes there are for a method, and what becomes of their columns at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from l2i.explanation import METHODS, MethodSettings, Subject
from l2i.recipes.measuring.encoded import Encoding
from l2i.recipes.measuring.probes import (
    Attributions,
    Completeness,
    Curves,
    OnSome,
    Probe,
    SpectrogramProtocol,
)
from l2i.recipes.measuring.reexplained import Contrast, Randomised, Stability

__all__ = ["all_probes", "finished"]


def all_probes(
    subject: Subject, method: str, settings: MethodSettings, again: frozenset[str]
) -> list[Probe]:
    """All there are; of `again`, ids of scenes, those that have the method explain again."""
    probes: list[Probe] = [Curves(), Attributions(settings.seed), Encoding()]
    if hasattr(subject.classifier, "logits_of") and subject.domain == getattr(
        subject.classifier, "domain", None
    ):
        probes.append(SpectrogramProtocol())
    # An oracle knows the parts of these mixtures, and of no sound that hardly differs from them.
    if again and not getattr(METHODS[method], "knows_parts", False):
        if hasattr(METHODS[method], "relevances_of"):
            probes.append(OnSome(Completeness(), again))
        for probe in (
            Stability(settings.seed),
            Contrast(),
            Randomised(method, subject, settings),
        ):
            probes.append(OnSome(probe, again))
    return probes


def finished(
    rows: dict[str, NDArray[Any]], probes: Sequence[Probe], groups: NDArray[Any]
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Rows with the columns that come when all clips are seen, and the names of probes' scores.

    Parameters
    ----------
    rows : dict of str to array [P]
    probes : sequence of Probe
        That have seen the clips.
    groups : array [P]
        The recording of each row.
    """
    names = [name for probe in probes for name in probe.names]
    for probe in probes:
        if isinstance(probe, Encoding):
            columns = probe.finish(groups)
            rows = rows | columns
            names += columns
    if "other_ff" in names:
        names.append("transfer")
    return rows, names
