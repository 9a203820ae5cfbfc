"""Explanations of clips as files: sounds, pictures, what is known of them, and a page of it all.

Over 300 lines: the longest function writes all that there is of a clip, so that no two places say
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i.config import Explanation as ExplanationSettings
from l2i.config import Warn
from l2i.dsp.audio import write_audio
from l2i.dsp.spectrogram import common_gain, magnitude, peak_normalise, stft
from l2i.explained import energy_share, explain_by
from l2i.explanation import Explainer, ExplanationMethod, MethodSettings, Subject, make_method
from l2i.explanation.listen_to_interpret import alone
from l2i.metrics.doubts import explanation_doubts, verdict
from l2i.models.heard import hear
from l2i.pages import Figure, Media, MediaList, write_listening_page
from l2i.pages.pictures import mask_picture, spectrogram_picture, spectrum_line
from l2i.plots import panels
from l2i.recipes.opening.bundle import explainer_of
from l2i.storage import write_json
from l2i.types import Clip

# On the page: components that can be heard alone, and how many of the rest are named.
_HEARD, _OTHERS = 5, 3
# The page has at most so many explanations of one clip.
_CLASSES = 3


def write_explanation(
    explainer: Explainer,
    waveform: Tensor,
    folder: Path,
    settings: ExplanationSettings,
    *,
    title: str,
    explained: int | None = None,
    n_samples: int | None = None,
    labels: Sequence[str] | None = None,
) -> tuple[dict[str, Any], Media]:
    """Explain one clip: three sounds, a picture, and what is known of them.

    Parameters
    ----------
    explainer : Explainer
    waveform : Tensor [S]
    folder : Path
        Made; ``original.wav``, ``explanation.wav``, ``removal.wav``, ``spectrograms.png``. The
        sounds have one common gain, by which the original's peak is full scale or less.
    settings : l2i.config.Explanation
    title : str
        The picture's.
    explained : int, optional
        The class; without it the one that the classifier finds most probable.
    n_samples : int, optional
        Length of the sounds, where the clip was padded.
    labels : sequence of str, optional
        Where it is known what the clip is: none of the classes, one or several.

    Returns
    -------
    dict
        ``class``, ``probability`` (of the clip, of the explanation alone, of the removal; None:
        it is silent) and ``interpreter_probability``; ``decided`` and ``interpreter_decided``,
        the classes that either says are there, by the classifier's thresholds; ``agree``, they
        are the same; ``labels``, and ``right``, they are what the classifier decided (None: not
        known). ``components``, those selected, and ``others``, the most relevant of the rest,
        each with ``relevance``, ``spectrum`` (see `l2i.pages.pictures.spectrum_line`),
        ``peak_hz``, where that is greatest, ``bin_hz``, the width of a bin, and, of those that
        are heard alone, ``mask_peak``, the greatest value of its own mask, and ``energy``, the
        energy of its sound over the clip's. ``classifier`` and
        ``interpreter``: probabilities of the classes that either finds likeliest.
        ``holds``, ``verdict`` and ``warnings``: as `l2i.explained.Explained` has them.
    Media
        What a page needs.
    """
    classifier = explainer.classifier
    x = waveform.unsqueeze(0)
    e, at_once, interpretation = explainer.explain(
        x,
        None if explained is None else [explained],
        threshold=settings.threshold,
        max_components=settings.max_components,
    )
    c = int(e.classes[0])
    p = classifier.probabilities(at_once.logits)[0]
    g = classifier.probabilities(interpretation.logits)[0]
    original = peak_normalise(x.to(e.audio.device))
    sounds = {"original": original, "explanation": e.audio, "removal": e.removal}
    parts = at_once.judge(torch.cat([e.audio, e.removal]), [0, 0])
    judged = classifier.probabilities(parts)
    again = {
        name: float(q) if bool(sounds[name].any()) else None
        for name, q in zip(("explanation", "removal"), judged[:, c], strict=True)
    }
    if at_once.level is not None:
        # As loud as they are: what hears levels was asked so.
        sounds = {name: sound * at_once.level for name, sound in sounds.items()}
    gain = common_gain(sounds.values())
    folder.mkdir(parents=True, exist_ok=True)
    length = n_samples or x.shape[1]
    rate = explainer.domain.sample_rate
    heard = {name: (sound[0] * gain).cpu().numpy()[:length] for name, sound in sounds.items()}
    for name, samples in heard.items():
        write_audio(folder / f"{name}.wav", samples, rate)
    frames = explainer.domain.n_frames(length)
    order = e.relevance[0].argsort(descending=True).tolist()
    chosen = [k for k in order if e.selected[0, k]]
    others = [k for k in order if not e.selected[0, k] and e.relevance[0, k] > 0][:_OTHERS]
    components = [(k, float(e.relevance[0, k])) for k in chosen]
    # Not rescaled to the peak again: the three pictures share one scale, as the sounds do.
    spectrum = stft(torch.cat(list(sounds.values())), explainer.domain)
    spectra = list(magnitude(spectrum)[:, :, :frames].cpu().numpy())
    reference = max(float(spectrum.max()) for spectrum in spectra)
    seen = {
        name: spectrogram_picture(spectrum, rate, reference)
        for name, spectrum in zip(sounds, spectra, strict=True)
    }
    masks, peaks, energies = {"mask": e.mask[0]}, {}, {}
    for k, mask, sound in alone(explainer, at_once, interpretation, chosen[:_HEARD]):
        # Its share of a bin is often small: the picture goes up to the greatest.
        peaks[k] = float(mask.max())
        masks[str(k)] = mask / peaks[k] if peaks[k] > 0 else mask
        heard[str(k)] = (sound * gain).cpu().numpy()[:length]
        energies[k] = energy_share(heard[str(k)], heard["original"])
    seen |= {
        name: mask_picture(m.cpu().numpy()[:, :frames], rate, spectra[0], reference)
        for name, m in masks.items()
    }
    media = Media.of(rate, heard, seen)
    name = classifier.classes[c]

    def said_of(word: str, value: float | None) -> str:
        return f"{word}: {'silent' if value is None else f'{value:.0%} {name}'}"

    heading = title if explained is None else f"{title}, explained as {name}"
    panels.explanation(
        spectra,
        [
            said_of("original", float(p[c])),
            said_of("explanation", again["explanation"]),
            said_of("removal", again["removal"]),
        ],
        components,
        explainer.domain,
        heading,
        folder / "spectrograms.png",
    )
    classes = classifier.classes
    both = {k for q in (p, g) for k in q.topk(min(3, len(q))).indices.tolist()}
    decided, also = (
        [classes[k] for k in classifier.decisions(logits)[0].nonzero()[:, 0].tolist()]
        for logits in (at_once.logits, interpretation.logits)
    )

    def described(some: Sequence[int]) -> list[dict[str, Any]]:
        spectra = explainer.w[:, list(some)].T.cpu().numpy()
        bin_hz = rate / explainer.domain.n_fft
        return [
            {
                "component": k,
                "relevance": float(e.relevance[0, k]),
                "peak_hz": int(w.argmax()) * bin_hz,
                "bin_hz": bin_hz,
                "spectrum": spectrum_line(w, rate),
                **({"mask_peak": peaks[k], "energy": energies[k]} if k in peaks else {}),
            }
            for k, w in zip(some, spectra, strict=True)
        ]

    def likeliest(q: Tensor) -> dict[str, float]:
        return {classes[k]: float(q[k]) for k in sorted(both, key=lambda k: -float(q[k]))}

    peak = float(x.abs().max())
    doubts = explanation_doubts(
        name,
        [dict(zip(classes, q.tolist(), strict=True)) for q in (p, *judged)],
        classifier.task,
        peak=peak,
        alone_peak=peak * float(e.audio.abs().max()),
        warn=settings.warn,
    )
    facts = {
        "duration_s": length / rate,
        "class": name,
        "probability": {"original": float(p[c]), **again},
        "holds": not any(doubt.void for doubt in doubts),
        "verdict": verdict(name, [float(q[c]) for q in (p, *judged)], doubts),
        "warnings": [doubt._asdict() for doubt in doubts],
        "interpreter_probability": float(g[c]),
        "labels": list(labels or ()),
        "decided": decided,
        "interpreter_decided": also,
        "right": None if labels is None else set(labels) == set(decided),
        "agree": decided == also,
        "threshold": settings.threshold,
        "max_components": settings.max_components,
        "components": described(chosen),
        "others": described(others),
        "classifier": likeliest(p),
        "interpreter": likeliest(g),
    }
    return facts, media


def _word(name: str) -> str:
    """A name as a part of a folder's."""
    return re.sub(r"[^\w.-]+", "_", name)[-60:]


@torch.inference_mode()
def _detected(subject: Subject, x: Tensor) -> list[int]:
    """The classes of a clip [S] to explain, the likeliest first: all that the classifier detects,
    a few at most; where it detects none, the likeliest."""
    clf = subject.classifier
    logits = clf.logits(x.unsqueeze(0).to(clf.device))
    order = logits[0].argsort(descending=True).tolist()[:_CLASSES]
    decided = clf.decisions(logits)[0].tolist()
    return [c for c in order if decided[c]] or order[:1]


def write_by(
    way: ExplanationMethod,
    method: str,
    subject: Subject,
    waveform: Tensor,
    folder: Path,
    *,
    explained: int | None = None,
    n_samples: int = 0,
    key: int = 0,
    labels: Sequence[str] | None = None,
    warn: Warn | None = None,
) -> tuple[dict[str, Any], Media]:
    """Explain one clip by any method: three sounds, and what is known of them.

    Parameters
    ----------
    way : ExplanationMethod
    method : str
        Its name.
    subject : Subject
    waveform : Tensor [S]
    folder : Path
        Made; ``original.wav``, ``explanation.wav``, ``removal.wav``.
    explained : int, optional
        The class; without it the one that the classifier finds most probable.
    n_samples : int
        Length of the sounds, where the clip was padded; 0: all of it.
    key : int
        What is random is drawn from it.
    labels : sequence of str, optional
        As for `write_explanation`.
    warn : l2i.config.Warn, optional
        When it is said that the explanation does not hold.

    Returns
    -------
    dict
        As `l2i.explained.Explained.facts` has it.
    Media
        What a page needs.
    """
    clf = subject.classifier
    heard = hear(clf, waveform.unsqueeze(0), subject.domain, way.layers)
    c = int(heard.logits.argmax()) if explained is None else explained
    e = explain_by(way, heard, c, method=method, key=key, length=n_samples, warn=warn)
    folder.mkdir(parents=True, exist_ok=True)
    facts, _, media = e.write(folder, "")
    decided = [clf.classes[k] for k in clf.decisions(heard.logits)[0].nonzero()[:, 0].tolist()]
    facts |= {
        "decided": decided,
        "labels": list(labels or ()),
        "right": None if labels is None else set(labels) == set(decided),
    }
    return facts, media


def write_examples(
    subject: Subject,
    method: str,
    waveforms: NDArray[np.float32],
    rows: NDArray[np.int64],
    clips: Sequence[Clip],
    settings: ExplanationSettings,
    chosen: Sequence[tuple[int, str]],
    folder: Path,
    on_clip: Callable[[], None],
    *,
    title: str,
    labels: Sequence[str],
    known: NDArray[np.bool_] | None,
    summary: Sequence[Figure] = (),
) -> None:
    """Explanations of some clips; ``explanations.json`` lists them, and ``index.html`` is the page
    to listen to them.

    Parameters
    ----------
    subject : Subject
    method : str
    waveforms : float32 [M, S]
    rows : int64 [N]
    clips : sequence of Clip
    settings : l2i.config.Explanation
    chosen : sequence of (int, str)
        Indices of the clips, in the page's order, and why each of them.
    folder : Path
        Made, with one folder per clip.
    on_clip : callable
        Called after each clip.
    title : str
        The page's.
    labels : sequence of str
        The names of each clip's labels, joined by ``;``.
    known : bool [N, C] or None
        The labels as the classifier's classes, where it has them.
    summary : sequence of Figure
        The run's main figures.
    """
    if not chosen:
        return
    classes = subject.classifier.classes
    told = MethodSettings(settings.threshold, settings.max_components)
    way = None if method == "l2i" else make_method(method, subject, told)
    listed: list[dict[str, Any]] = []
    media = MediaList()
    for number, (index, why) in enumerate(chosen, start=1):
        clip = clips[index]
        x = torch.from_numpy(np.array(waveforms[rows[index]]))
        place = f"{number:02d}-{_word(Path(clip.id).stem)}"
        words = ", ".join(filter(None, labels[index].split(";")))
        heading = f"{clip.id} ({words or 'no class'})"
        mine = None if known is None else [classes[c] for c in known[index].nonzero()[0]]
        for c in [None] if way is None else _detected(subject, x):
            # Two classes of one clip are two explanations; the likeliest has the plain name.
            again = bool(listed) and listed[-1]["clip"] == clip.id
            where = f"{place}-{_word(classes[c])}" if again and c is not None else place
            at = folder / where
            if way is None:
                about, shown = write_explanation(
                    explainer_of(subject), x, at, settings, title=heading, labels=mine
                )
            else:
                asked: dict[str, Any] = {"explained": c, "key": int(rows[index]), "labels": mine}
                about, shown = write_by(way, method, subject, x, at, warn=settings.warn, **asked)
            listed.append({"clip": clip.id, "folder": where, "why": why, **about})
            media.append(shown)
        on_clip()
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "explanations.json", listed)
    named = [{**item, "name": item["clip"]} for item in listed]
    write_listening_page(folder / "index.html", named, media, title=title, summary=summary)
