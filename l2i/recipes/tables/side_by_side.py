"""Clips as several runs explain them, on one page: the same class, one sound beside the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from l2i.dsp.spectrogram import common_gain
from l2i.explained import Explained, explain_by, size_of
from l2i.explanation import make_method
from l2i.models.heard import hear
from l2i.pages import Media, MediaList, refuse_foreign, write_listening_page
from l2i.pages.pictures import mask_picture, spectrogram_picture
from l2i.recipes.opening.opened import open_finished
from l2i.run.progress import Progress

_PARTS = ("explanation", "removal")
_INTRO = (
    "The same clips, explained for the same class by each run; where the runs differ most comes "
    "first."
)


def write_side_by_side(
    words: Sequence[str],
    letters: Sequence[str],
    clips: Mapping[str, str],
    page: Path,
    progress: Progress,
    *,
    title: str,
) -> None:
    """Explain clips by each of several runs, and write the page to listen to both.

    Parameters
    ----------
    words : sequence of str
        Run ids or names.
    letters : sequence of str
        What the page calls each.
    clips : mapping of str to str
        Ids of test clips that all runs have, in the page's order, and what is said of each.
    page : Path
        Its folder gets what the page has not the room for.
    progress : Progress
    title : str
    """
    refuse_foreign(page)
    by: list[dict[str, Explained]] = []
    verdicts: dict[str, dict[str, str]] = {clip: {} for clip in clips}
    labels: dict[str, list[str]] = {}
    with progress.task("explanations", total=len(clips) * len(words), unit="clip") as bar:
        for word, letter in zip(words, letters, strict=True):
            opened = open_finished(word, progress, keep=False)
            clf, warn = opened.subject.classifier, opened.config.explanation.warn
            method = opened.config.method.name
            way = make_method(method, opened.subject, opened.told())
            test = [clip for clip in opened.material.split.test if clip.id in clips]
            words_of = opened.material.label_names(test)
            of: dict[str, Explained] = {}
            rows = opened.material.rows(test)
            for clip, row, label in zip(test, rows, words_of, strict=True):
                x = torch.from_numpy(np.array(opened.material.waves.array[row]))
                heard = hear(clf, x[None], opened.subject.domain, way.layers)
                likeliest = clf.classes[int(heard.logits.argmax())]
                # For the same class by all: the one that the first run's classifier says.
                target = by[0][clip.id].target if by else likeliest
                c = clf.classes.index(target)
                e = explain_by(way, heard, c, method=method, key=int(row), warn=warn)
                of[clip.id] = e
                verdicts[clip.id][letter] = f"{letter} says {likeliest}. {e.verdict}"
                labels[clip.id] = [word for word in label.split(";") if word]
                bar.advance(1)
            by.append(of)
    media = MediaList(beside=page.parent)
    facts: list[dict[str, Any]] = []
    for number, (name, short) in enumerate(clips.items(), start=1):
        each = {letter: of[name] for letter, of in zip(letters, by, strict=True)}
        facts.append(_facts(name, each, labels[name], list(verdicts[name].values()), short))
        media.append(_media(each), f"clip-{number:02d}")
    parts = [("original", "original")]
    parts += [(f"{part} {letter}", f"{part} {letter}") for part in _PARTS for letter in letters]
    write_listening_page(page, facts, media, title=title, parts=parts, intro=_INTRO)


def _facts(
    clip: str, each: Mapping[str, Explained], labels: list[str], lines: list[str], short: str
) -> dict[str, Any]:
    first = next(iter(each.values()))
    probability = {"original": first.probabilities[first.target].input}
    says = {
        "original": ", ".join(
            f"{letter} {e.probabilities[e.target].input:.0%}" for letter, e in each.items()
        )
        + f" {first.target}"
    }
    for letter, e in each.items():
        p = e.probabilities[e.target]
        probability |= {f"explanation {letter}": p.explanation, f"removal {letter}": p.removal}
    for part, value in probability.items():
        says.setdefault(part, f"{value:.0%} {first.target}")
    return {
        "name": clip,
        "class": first.target,
        "labels": labels,
        "duration_s": len(first.input) / first.sample_rate,
        "probability": probability,
        "says": says,
        "lines": [f"label: {', '.join(labels) or 'no class'}", *lines],
        "short": short,
    }


def _media(each: Mapping[str, Explained]) -> Media:
    """Sounds of one gain, and pictures of one scale."""
    first = next(iter(each.values()))
    sounds = {"original": first.input}
    sizes = {"original": size_of(first.input, first.domain)}
    for letter, e in each.items():
        for part, x in zip(_PARTS, (e.audio, e.removal), strict=True):
            sounds[f"{part} {letter}"] = x
            sizes[f"{part} {letter}"] = size_of(x, e.domain)
    reference = max(float(size.max()) for size in sizes.values())
    rate = first.sample_rate
    pictures = {
        name: spectrogram_picture(size, rate, reference)
        for name, size in sizes.items()
        if name == "original" or each[name[-1]].sample_rate == rate  # The axis is the first's.
    }
    for letter, e in each.items():
        own = size_of(e.input, e.domain)
        for part in _PARTS:
            pictures[f"mask {part} {letter}"] = mask_picture(e.mask, e.sample_rate, own, reference)
    gain = np.float32(common_gain(map(torch.from_numpy, sounds.values())))
    rates = {name: each[name[-1]].sample_rate for name in sounds if name != "original"}
    return Media.of(rate, {name: x * gain for name, x in sounds.items()}, pictures, rates)
