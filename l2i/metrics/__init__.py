"""Figures of a classifier, an interpreter and its explanations.

Each metric is one function on arrays, and one line of `METRICS`, which says its unit, which way
is better and where it comes from. To add one: write the function in a file of its family
(``classification``, ``fidelity``, ``faithfulness``, ``curves``, ``sensitivity``,
``complexity``, ``separation``, ``localisation``, ``encoding``), and its line here. ``statistics``
has intervals and paired differences, of any figure.

`l2i.metrics.own` has metrics of users, in the files that they name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

_L2I = "Parekh et al. 2022, arXiv 2202.11479"
_LMAC = "Paissan et al. 2024, arXiv 2403.13086"
_LMACZS = "Paissan et al. 2024, NeurIPS"
_BSS = "Vincent et al. 2006, BSS Eval"
_FRAMES = "Dumpis, Virtanen 2026, arXiv 2605.23293"
_ROC = "Hanley, McNeil 1982"
_IG = "Sundararajan et al. 2017, arXiv 1703.01365"
_POINTING = "Zhang et al. 2018, arXiv 1608.00507"
_RISE = "Petsiuk et al. 2018, arXiv 1806.07421"
_ERASER = "DeYoung et al. 2020, arXiv 1911.03429"
_BHATT = "Bhatt et al. 2020, arXiv 2005.00631"
_YEH = "Yeh et al. 2019, arXiv 1901.09392"
_SANITY = "Adebayo et al. 2018, arXiv 1810.03292"
_ROAR = "Hooker et al. 2019, arXiv 1806.10758"
_SB = "SpeechBrain, recipes/ESC50/interpret"
_EVAL_X = "Jethani et al. 2021, arXiv 2103.01890"
_PLANTED = "Haunschmid et al. 2020, arXiv 2009.02051"
_SDR = "Le Roux et al. 2019, arXiv 1811.02508"


@dataclass(frozen=True, slots=True)
class Metric:
    """What a figure means.

    Attributes
    ----------
    title : str
    unit : str
        ``share`` is from 0 to 1.
    better : {'higher', 'lower', ''}
    source, short : str
        `short` is the title where there is little room.
    """

    title: str
    unit: str
    better: Literal["higher", "lower", ""]
    source: str = ""
    short: str = ""

    @property
    def meaning(self) -> str:
        """Title, unit and direction in one line.

        >>> METRICS["kept"].meaning
        'Energy kept in the explanation (share): lower is better'
        """
        which = f": {self.better} is better" if self.better else ""
        return f"{self.title} ({self.unit}){which}"


METRICS = {
    "accuracy": Metric("Classifier accuracy", "share", "higher", short="accuracy"),
    "auprc_macro": Metric("Classifier AUPRC, macro", "share", "higher", short="AUPRC"),
    "auprc_micro": Metric("Classifier AUPRC, micro", "share", "higher"),
    "fidelity_top1": Metric("Top-1 fidelity", "share", "higher", _L2I, "top-1 fidelity"),
    "fidelity_top3": Metric("Top-3 fidelity", "share", "higher", _L2I),
    "fidelity_top5": Metric("Top-5 fidelity", "share", "higher", _L2I),
    "fidelity_auprc_macro": Metric(
        "Fidelity AUPRC, macro", "share", "higher", _L2I, "fidelity AUPRC"
    ),
    "fidelity_auprc_micro": Metric("Fidelity AUPRC, micro", "share", "higher", _L2I),
    "fidelity_max_f1": Metric("Fidelity, max F1 (micro)", "share", "higher", _L2I),
    "faithfulness_probability": Metric(
        "Faithfulness, probability (median)", "probability", "higher", _L2I, "faithfulness"
    ),
    "faithfulness_probability_mean": Metric(
        "Faithfulness, probability (mean)", "probability", "higher", _L2I, "faithfulness (mean)"
    ),
    "faithfulness_logit": Metric(
        "Faithfulness, logit (median)", "logit", "higher", short="faithfulness, logit"
    ),
    "random_probability": Metric(
        "Random removal, probability (median)", "probability", "", _L2I, "random removal"
    ),
    "random_probability_std": Metric(
        "Random removal, probability (std)", "probability", "", short="random std"
    ),
    "random_probability_mean": Metric(
        "Random removal, probability (mean)", "probability", "", _L2I, "random removal (mean)"
    ),
    "random_logit": Metric("Random removal, logit (median)", "logit", "", short="random, logit"),
    "components_removed": Metric(
        "Components removed, mean", "components", "lower", _L2I, "components removed"
    ),
    "average_increase": Metric("AI, average increase", "% of clips", "higher", _LMAC, "AI"),
    "average_increase_margin": Metric(
        "AI+, average increase, margin 0.001", "% of clips", "higher", _LMAC, "AI+"
    ),
    "average_drop": Metric("AD, average drop", "%", "lower", _LMAC, "AD"),
    "average_gain": Metric("AG, average gain", "%", "higher", _LMAC, "AG"),
    "ff_mean": Metric("FF, mean fall without explanation", "probability", "higher", _LMAC, "FF"),
    "ff_share": Metric("FF/y, share of the probability", "share", "higher", short="FF/y"),
    "fid_in": Metric("Fid-In, same class by the explanation", "share", "higher", _LMAC, "Fid-In"),
    "sparseness": Metric("SPS, sparseness (Gini) of the mask", "0 to 1", "higher", _LMAC, "SPS"),
    "complexity": Metric("COMP, complexity (entropy) of mask", "nats", "lower", _LMAC, "COMP"),
    "kept": Metric("Energy kept in the explanation", "share", "lower", short="energy kept"),
    "mean_mask": Metric("Mean of the mask", "0 to 1", "lower", _LMACZS, "mean mask"),
    "components": Metric(
        "Components in an explanation, mean", "components", "lower", _L2I, "components"
    ),
    "reconstruction": Metric(
        "Reconstruction, mean squared error", "log power", "lower", _L2I, "reconstruction"
    ),
    "ff_at_10": Metric("FF, 10 % of the energy removed", "probability", "higher", _LMAC),
    "ff_at_25": Metric("FF, 25 % of the energy removed", "probability", "higher", _LMAC),
    "ff_at_50": Metric("FF, 50 % of the energy removed", "probability", "higher", _LMAC),
    "fid_in_at_10": Metric("Fid-In, by 10 % of the energy", "share", "higher", _LMAC),
    "fid_in_at_25": Metric("Fid-In, by 25 % of the energy", "share", "higher", _LMAC),
    "fid_in_at_50": Metric("Fid-In, by 50 % of the energy", "share", "higher", _LMAC),
    "insertion": Metric("Insertion, area over energy", "probability", "higher", _RISE),
    "deletion": Metric("Deletion, area over energy", "probability", "lower", _RISE),
    "insertion_less_deletion": Metric("Insertion less deletion", "probability", "higher", _RISE),
    "sufficiency": Metric("Sufficiency, mean over sizes", "probability", "lower", _ERASER),
    "comprehensiveness": Metric(
        "Comprehensiveness, mean over sizes", "probability", "higher", _ERASER
    ),
    "faithfulness_correlation": Metric("Faithfulness correlation", "-1 to 1", "higher", _BHATT),
    "infidelity": Metric("Infidelity, best scaled", "probability^2", "lower", _YEH),
    "completeness_gap": Metric("Completeness gap of relevances", "logit", "lower", _IG),
    "max_sensitivity": Metric("Max-sensitivity, to 2 % of noise", "relative", "lower", _YEH),
    "stability_30": Metric("Stability, rank correlation at 30 dB", "-1 to 1", "higher"),
    "stability_20": Metric("Stability, rank correlation at 20 dB", "-1 to 1", "higher"),
    "stability_10": Metric("Stability, rank correlation at 10 dB", "-1 to 1", "higher"),
    "shift_change": Metric("Change by a shift of 0.5 s", "1 - cosine", "lower"),
    "gain_change": Metric("Change by a gain of -20 dB", "relative", "lower"),
    "contrast_next": Metric("Contrast to the next class", "1 - cosine", "higher"),
    "contrast_absent": Metric("Contrast to an absent class", "1 - cosine", "higher"),
    "absent_kept": Metric(
        "Energy kept for an absent class", "share", "lower", _LMACZS, "absent kept"
    ),
    "absent_closed": Metric(
        "Absent class closed (kept <= 0.05)", "share of clips", "higher", short="absent closed"
    ),
    "randomised": Metric("Randomised weights, rank correlation", "-1 to 1", "lower", _SANITY),
    "randomised_control": Metric("Randomised control, another clip", "-1 to 1", "", _SANITY),
    "randomised_class": Metric("Randomised, of the next class", "-1 to 1", "lower"),
    "randomised_ssim": Metric("Randomised weights, SSIM", "-1 to 1", "lower", _SANITY),
    "randomised_gates": Metric("Randomised gates, rank correlation", "-1 to 1", "lower", _SANITY),
    "randomised_gates_control": Metric(
        "Randomised gates control, other clip", "-1 to 1", "", _SANITY
    ),
    "randomised_gates_class": Metric("Randomised gates, of the next class", "-1 to 1", "lower"),
    "data_randomised": Metric(
        "Data randomised (labels), rank corr.", "-1 to 1", "lower", _SANITY, "labels"
    ),
    "data_randomised_control": Metric(
        "Data randomised control, other clip", "-1 to 1", "", _SANITY
    ),
    "roar_at_0": Metric("ROAR, without 0 %: whole clips", "accuracy", "", _ROAR),
    "roar_at_10": Metric("ROAR, without the top 10 %", "accuracy", "lower", _ROAR),
    "roar_at_30": Metric("ROAR, without the top 30 %", "accuracy", "lower", _ROAR),
    "roar_at_50": Metric("ROAR, without the top 50 %", "accuracy", "lower", _ROAR),
    "roar_control_at_10": Metric("ROAR control, 10 % at random", "accuracy", "", _ROAR),
    "roar_control_at_30": Metric("ROAR control, 30 % at random", "accuracy", "", _ROAR),
    "roar_control_at_50": Metric("ROAR control, 50 % at random", "accuracy", "", _ROAR),
    "encoded": Metric("Encoded: class read from the mask", "share", "lower", _EVAL_X),
    "encoded_control": Metric("Encoded control: the loudest bins", "share", "", _EVAL_X),
    "agreed": Metric("Agreed: the other says the class", "share", ""),
    "agreed_ff": Metric("FF on clips agreed on", "probability", "higher", _LMAC),
    "other_ff": Metric("FF by the other classifier", "probability", "higher", _LMAC),
    "other_fid_in": Metric("Fid-In by the other classifier", "share", "higher", _LMAC),
    "other_average_increase_margin": Metric(
        "AI+ by the other classifier", "% of clips", "higher", _LMAC
    ),
    "transfer": Metric("Transfer: FF by the other over FF", "ratio", "higher", short="transfer"),
    "spectrogram_average_increase": Metric("AI, of spectrograms", "% of clips", "higher", _SB),
    "spectrogram_average_drop": Metric("AD, of spectrograms", "%", "lower", _SB),
    "spectrogram_average_gain": Metric("AG, of spectrograms", "%", "higher", _SB),
    "spectrogram_ff_mean": Metric("FF, of spectrograms", "probability", "higher", _SB),
    "spectrogram_fid_in": Metric("Fid-In, of spectrograms", "share", "higher", _SB),
    "cue_kept": Metric("Cue kept, share of its energy", "share", "higher", _PLANTED, "cue kept"),
    "rest_kept": Metric("Rest kept, share of its energy", "share", "lower", _PLANTED, "rest kept"),
    "cue_lost": Metric(
        "Cue lost, FF on clips with it", "probability", "higher", _PLANTED, "cue lost"
    ),
    "si_sdr": Metric("SI-SDR of the explanation, median", "dB", "higher", _SDR, "SI-SDR"),
    "si_sdr_improvement": Metric(
        "SI-SDRi, improvement over the mixture", "dB", "higher", _SDR, "SI-SDRi"
    ),
    "sir": Metric("SIR, right part over the other kept", "dB", "higher", _BSS, "SIR"),
    "sar": Metric("SAR, right part over artefacts", "dB", "higher", _BSS, "SAR"),
    "other_left": Metric("Level left of the other part, median", "dB", "lower", short="other left"),
    "class_left": Metric(
        "Level left of the class's part, median", "dB", "higher", short="class left"
    ),
    "energy_share": Metric(
        "Energy share of class's part, median", "share", "higher", short="energy share"
    ),
    "time_iou": Metric("Time IoU with the class's part", "share", "higher"),
    "frame_f1": Metric("Frame F1, as many as the part has", "share", "higher", _FRAMES),
    "frame_auc": Metric("Frame AUC, part against rest", "share", "higher", _ROC),
    "pointing": Metric("Pointing game, loudest frame", "share", "higher", _POINTING, "pointing"),
    "present": Metric("Present: explained class in mixture", "share", "higher", short="present"),
}

SHORT = {name: metric.short for name, metric in METRICS.items() if metric.short}
"""What tables and pages call a figure where there is little room; each is in its title, too."""

OF_NETWORKS = ("accuracy", "auprc_macro", "fidelity_top1", "fidelity_auprc_macro")
"""What the classifier and the interpreter are judged by, whatever explains."""

MAIN = (*OF_NETWORKS, "faithfulness_probability", "ff_mean", "fid_in", "kept")
"""What a run is judged by, in this order."""

CONTROLS = {
    "faithfulness_probability": "random_probability",
    "faithfulness_probability_mean": "random_probability_mean",
    "faithfulness_logit": "random_logit",
    "randomised": "randomised_control",
    "randomised_gates": "randomised_gates_control",
    "data_randomised": "data_randomised_control",
    "encoded": "encoded_control",
    **{f"roar_at_{share}": f"roar_control_at_{share}" for share in (10, 30, 50)},
}
"""Figures that say little alone, and what each is to be compared with."""


def short(name: str) -> str:
    """What a figure is called where there is little room; its title, where it has no such name.

    >>> short("published_ff_mean"), short("fidelity_top3")
    ('published FF', 'Top-3 fidelity')
    """
    if name.startswith(PUBLISHED):
        return f"published {short(name.removeprefix(PUBLISHED))}"
    return SHORT.get(name) or METRICS[name].title


def meanings(scores: Iterable[str]) -> dict[str, dict[str, str]]:
    """What each figure of one measurement means: fields of `Metric`, and ``short``.

    Only the published rule has a threshold: where another explains, and so figures of the
    published one stand beside its own, what hangs on the threshold is the published rule's, too.

    >>> scores = ["faithfulness_logit", "kept", "published_kept"]
    >>> [means["title"] for means in meanings(scores).values()][:2]
    ['Published: Faithfulness, logit (median)', 'Energy kept in the explanation']
    """
    names = list(scores)
    means = {name: asdict(METRICS[name]) | {"short": short(name)} for name in names}
    if any(name.startswith(PUBLISHED) for name in names):
        for name in names:
            if name.startswith(_BY_THRESHOLD):
                means[name]["title"] = f"{PUBLISHED_TITLE}{METRICS[name].title}"
                means[name]["short"] = f"published {short(name)}"
    return means


def control(name: str, scores: Mapping[str, float | None]) -> str:
    """What a figure is to be compared with, in words; empty: nothing, or it is not known.

    >>> control("faithfulness_logit", {"random_logit": 0.01}), control("kept", {"kept": 0.3})
    ('random 0.010', '')
    """
    value = scores.get(CONTROLS.get(name, ""))
    return "" if value is None or not math.isfinite(value) else f"random {value:.3f}"


OF_THEIR_SIZE = (
    *("average_increase", "average_increase_margin", "average_drop", "average_gain"),
    *("ff_mean", "ff_share", "fid_in"),
)
"""Figures that a mask of ones passes: they say something beside the energy that is kept."""

PUBLISHED = "published_"
"""Before the names of what L2I's published rule reaches, where another rule stands beside it."""

PUBLISHED_TITLE = "Published: "
"""Before their titles."""

METRICS |= {
    f"{PUBLISHED}{name}": replace(METRICS[name], title=f"{PUBLISHED_TITLE}{METRICS[name].title}")
    for name in (
        *("average_increase_margin", "average_drop", "average_gain", "ff_mean", "ff_share"),
        *("fid_in", "kept", "absent_kept", "absent_closed"),
    )
}

_BY_THRESHOLD = ("faithfulness_", "random_", "components_removed")
