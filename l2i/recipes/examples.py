"""Explanations of clips as files: sounds, pictures, and what is known of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from l2i import plots
from l2i.config import Explanation as ExplanationSettings
from l2i.dsp.audio import write_audio
from l2i.dsp.spectrogram import peak_normalise, stft
from l2i.explanation import Explainer
from l2i.storage import atomic_write_text
from l2i.types import Clip

__all__ = ["spread", "write_examples", "write_explanation"]


def spread(clips: Sequence[Clip], n: int) -> list[int]:
    """Indices of at most `n` clips that cover as many classes as can be, in order.

    >>> spread([Clip("a", (0,)), Clip("b", (0,)), Clip("c", (1,))], 2)
    [0, 2]
    """
    queues: dict[tuple[int, ...], list[int]] = {}
    for index, clip in enumerate(clips):
        queues.setdefault(clip.labels[:1], []).append(index)
    chosen: list[int] = []
    while len(chosen) < min(n, len(clips)):
        for queue in queues.values():
            if queue and len(chosen) < n:
                chosen.append(queue.pop(0))
    return sorted(chosen)


def write_explanation(
    explainer: Explainer,
    waveform: Tensor,
    folder: Path,
    settings: ExplanationSettings,
    *,
    title: str,
    explained: int | None = None,
    n_samples: int | None = None,
) -> dict[str, Any]:
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
        Of the picture.
    explained : int, optional
        The class; without it the one that the classifier finds most probable.
    n_samples : int, optional
        Length of the sounds, where the clip was padded.

    Returns
    -------
    dict
        ``class``, ``probability`` (of the clip, of the explanation alone, of the removal),
        ``components`` and ``classifier``, the most probable classes.
    """
    classifier = explainer.classifier
    x = waveform.unsqueeze(0)
    e, features, said = explainer.explain(
        x,
        None if explained is None else [explained],
        threshold=settings.threshold,
        max_components=settings.max_components,
    )
    c = int(e.classes[0])
    p = classifier.probabilities(features.logits)[0]
    g = classifier.probabilities(said.logits)[0]
    original = peak_normalise(x.to(e.audio.device))
    sounds = {"original": original, "explanation": e.audio, "removal": e.removal}
    again = {
        name: float(classifier.probabilities(classifier.logits(sound))[0, c])
        if bool(sound.any())
        else None
        for name, sound in sounds.items()
        if name != "original"
    }
    # One gain for all three, so that their levels can be compared by ear.
    loudest = max(float(sound.abs().max()) for sound in sounds.values())
    gain = 1.0 / loudest if loudest > 1.0 else 1.0
    folder.mkdir(parents=True, exist_ok=True)
    for name, sound in sounds.items():
        samples = (sound[0] * gain).cpu().numpy()[:n_samples]
        write_audio(folder / f"{name}.wav", samples, explainer.settings.sample_rate)
    frames = explainer.settings.n_frames(n_samples or x.shape[1])
    chosen = e.selected[0].nonzero()[:, 0].tolist()
    components = sorted(((k, float(e.relevance[0, k])) for k in chosen), key=lambda kr: -kr[1])
    # Not rescaled to the peak again: the three pictures share one scale, as the sounds do.
    spectra = [
        stft(sound, explainer.settings)[0].abs().cpu().numpy()[:, :frames]
        for sound in sounds.values()
    ]
    name = classifier.classes[c]

    def said_of(word: str, value: float | None) -> str:
        return f"{word}: {'silent' if value is None else f'{value:.0%} {name}'}"

    heading = title if explained is None else f"{title}, explained as {name}"
    plots.explanation(
        spectra,
        [
            said_of("original", float(p[c])),
            said_of("explanation", again["explanation"]),
            said_of("removal", again["removal"]),
        ],
        components,
        explainer.settings,
        heading,
        folder / "spectrograms.png",
    )
    best = p.topk(min(3, len(p))).indices.tolist()
    return {
        "class": name,
        "probability": {"original": float(p[c]), **again},
        "interpreter_probability": float(g[c]),
        "components": [{"component": k, "relevance": r} for k, r in components],
        "classifier": {classifier.classes[k]: float(p[k]) for k in best},
    }


def write_examples(
    explainer: Explainer,
    waveforms: NDArray[np.float32],
    rows: NDArray[np.int64],
    clips: Sequence[Clip],
    settings: ExplanationSettings,
    n: int,
    folder: Path,
    on_clip: Callable[[], None],
) -> None:
    """Explanations of at most `n` clips, spread over the classes; ``explanations.json`` lists
    them.

    Parameters
    ----------
    explainer : Explainer
    waveforms : float32 [M, S]
    rows : int64 [N]
    clips : sequence of Clip
    settings : l2i.config.Explanation
    n : int
    folder : Path
        Made, with one folder per clip.
    on_clip : callable
        Called after each clip.
    """
    if not n:
        return
    classes = explainer.classifier.classes
    listed = []
    for number, index in enumerate(spread(clips, n), start=1):
        clip = clips[index]
        x = torch.from_numpy(np.array(waveforms[rows[index]]))
        word = re.sub(r"[^\w.-]+", "_", Path(clip.id).stem)[-60:]
        place = f"{number:02d}-{word}"
        labels = [classes[c] for c in clip.labels]
        title = f"{clip.id} ({', '.join(labels) or 'no class'})"
        found = write_explanation(explainer, x, folder / place, settings, title=title)
        listed.append({"clip": clip.id, "labels": labels, "folder": place, **found})
        on_clip()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(listed, indent=2, ensure_ascii=False)
    atomic_write_text(folder / "explanations.json", text + "\n")
