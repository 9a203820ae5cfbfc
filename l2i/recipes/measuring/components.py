"""What a model learnt as a whole: which components speak for which class, and how they sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from l2i import plots
from l2i.dsp.audio import write_audio
from l2i.errors import DataError
from l2i.explained import size_of
from l2i.explanation import Explainer, audible, soft_mask, split_heard
from l2i.pages import Media, MediaList, write_listening_page
from l2i.pages.pictures import spectrogram_picture, spectrum_line
from l2i.recipes.measuring.figures import sounds_aside
from l2i.recipes.opening.material import PartName
from l2i.recipes.opening.opened import Where, open_finished, write_found
from l2i.run.progress import Progress
from l2i.storage import atomic_write_text

_BATCH = 16
_SHOWN = 40


@dataclass(frozen=True)
class Heard:
    """Relevances [P, K] of classes [P] explained; of N audible clips their numbers [N] and pooled
    activations [N, K]."""

    relevance: NDArray[np.float32]
    classes: NDArray[np.int64]
    clips: NDArray[np.int64]
    pooled: NDArray[np.float32]


def components(
    word: str,
    progress: Progress,
    *,
    part: PartName = "test",
    top: int = 5,
    sounds: bool = True,
    **where: Unpack[Where],
) -> dict[str, Any]:
    """Class by component: relevance, spectra, sounds, the clips that excite each, and a map.

    Relevances are of the classes that the classifier says of each clip. Silent clips are left out.

    Parameters
    ----------
    word : str
        A run id, a run name, or ``latest``.
    progress : Progress
    part : {'test', 'train', 'all'}
        The clips that are heard.
    top : int
        Clips named per component, and components named per class.
    sounds : bool
        Write a sound of each component: what its mask keeps of the clip that excites it most.
    **where
        `out` has ``components.json``, ``relevance.csv`` (classes by components),
        ``components.csv``, pictures, ``sounds/component-<k>.wav``, and ``index.html``, a page to
        listen to the components of each class.

    Returns
    -------
    dict
        ``components``: one per component, with ``peak_hz``, ``centre_hz``, ``classes`` (those it
        speaks most for, with its mean relevance) and ``clips`` (those that excite it most);
        ``classes``: class -> the components that speak for it; ``clips``, how many were heard;
        ``silent``, how many were not; ``run``; ``kept``.

    Raises
    ------
    DataError
        All clips are silent.
    """
    opened = open_finished(word, progress, **where)
    material, explainer = opened.material, opened.explainer()
    clips = material.clips(part)
    rows = material.rows(clips)
    with progress.task("clips", total=len(clips), unit="clip") as bar:
        heard = _listen(explainer, material.waves.array, rows, bar.advance)
    silent = len(clips) - len(heard.clips)
    if not len(heard.clips):
        raise DataError(f"All {silent} clips are silent: there is nothing to hear a component in.")
    if silent:
        progress.say(f"Silent clips are left out: {silent} of {len(clips)}.")
    clips, rows = [clips[n] for n in heard.clips], rows[heard.clips]
    names = explainer.classifier.classes
    w = explainer.w.cpu().numpy()
    k = w.shape[1]
    table = np.full((len(names), k), np.nan)
    for c in range(len(names)):
        if (mine := heard.classes == c).any():
            table[c] = heard.relevance[mine].mean(axis=0)
    settings = explainer.domain
    hz = np.arange(settings.n_bins) * settings.sample_rate / settings.n_fft
    described: list[dict[str, Any]] = []
    for index in range(k):
        order = [
            c for c in np.argsort(-np.nan_to_num(table[:, index], nan=-9)) if table[c, index] > 0
        ][:3]
        exciting = np.argsort(-heard.pooled[:, index], kind="stable")[:top]
        total = float(w[:, index].sum())
        described.append(
            {
                "component": index,
                "peak_hz": round(float(hz[w[:, index].argmax()]), 1),
                "centre_hz": round(float(hz @ w[:, index]) / total, 1) if total > 0 else None,
                "classes": [
                    {"class": names[c], "relevance": round(float(table[c, index]), 4)}
                    for c in order
                ],
                "clips": [
                    {"clip": clips[n].id, "activation": round(float(heard.pooled[n, index]), 5)}
                    for n in exciting
                ],
            }
        )
    by_class: dict[str, list[dict[str, float]]] = {}
    for c, name in enumerate(names):
        if not np.isnan(table[c]).all():
            best = [i for i in np.argsort(-table[c])[:top] if table[c, i] > 0]
            by_class[name] = [
                {"component": int(i), "relevance": round(float(table[c, i]), 4)} for i in best
            ]
    document = {
        "clips": len(clips),
        "silent": silent,
        "part": part,
        "classes": by_class,
        "components": described,
    }

    def write(folder: Path) -> None:
        frame = pd.DataFrame(table, index=pd.Index(names, name="class"))
        atomic_write_text(folder / "relevance.csv", frame.to_csv(float_format="%.5g"))
        lines = [
            {
                **f,
                "classes": ";".join(f"{c['class']} {c['relevance']:.2f}" for c in f["classes"]),
                "clips": ";".join(c["clip"] for c in f["clips"]),
            }
            for f in described
        ]
        atomic_write_text(folder / "components.csv", pd.DataFrame(lines).to_csv(index=False))
        plots.component_relevance(table, names, folder / "relevance.png")
        strength = np.nan_to_num(table, nan=0.0).max(axis=0)
        shown = [int(i) for i in np.argsort(-strength)[:_SHOWN]]
        likeliest = [[c["class"] for c in described[i]["classes"]] or ["none"] for i in shown]
        titles = [f"{i}: {first}" for i, (first, *_) in zip(shown, likeliest, strict=True)]
        plots.component_spectra(w, shown, titles, settings, folder / "spectra.png")
        if len(heard.relevance) > 3:
            plots.component_map(_plane(heard.relevance), heard.classes, names, folder / "map.png")
        if put(folder):
            title = f"{opened.run.name}: components"
            _page(folder / "index.html", document, heard_as, explainer, w, title)

    with sounds_aside() as (held, put):
        heard_as: dict[int, NDArray[np.float32]] = {}
        if sounds:
            with progress.task("sounds", total=k, unit="component") as bar:
                for index in range(k):
                    loudest = int(heard.pooled[:, index].argmax())
                    x = np.array(material.waves.array[rows[loudest]])
                    heard_as[index] = _sound(explainer, x, index)
                    wav = held / f"component-{index:03d}.wav"
                    write_audio(wav, heard_as[index], settings.sample_rate)
                    bar.advance(1)
        return write_found(
            opened,
            "components",
            {"part": part, "clips": len(clips)},
            {"used": float((np.nan_to_num(table, nan=0.0) > 0.1).any(axis=0).sum())},
            document,
            write,
        )


@torch.inference_mode()
def _listen(
    explainer: Explainer, waveforms: NDArray[np.float32], rows: NDArray[np.int64], on_clip: Any
) -> Heard:
    relevances, classes, clips, pooled = [], [], [], []
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        heard = explainer.hear(torch.from_numpy(np.asarray(waveforms[some])))
        z = explainer.interpret(heard).pooled.float()
        size = heard.size
        sounds = audible(size)
        decisions = explainer.classifier.decisions(heard.logits) & sounds.unsqueeze(1)
        which, c = decisions.nonzero(as_tuple=True)
        relevances.append(explainer.relevances(z[which], c, size[which]).cpu().numpy())
        classes.append(c.cpu().numpy())
        clips.append(sounds.nonzero()[:, 0].cpu().numpy() + start)
        pooled.append(z[sounds].cpu().numpy())
        on_clip(len(some))
    return Heard(*(np.concatenate(x) for x in (relevances, classes, clips, pooled)))


@torch.inference_mode()
def _sound(explainer: Explainer, x: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """What the mask of one component keeps of a clip that is scaled to its peak."""
    heard = explainer.hear(torch.from_numpy(x).unsqueeze(0))
    h = explainer.interpret(heard).activations
    selected = torch.zeros(1, h.shape[1], dtype=torch.bool, device=h.device)
    selected[0, index] = True
    mask = soft_mask(explainer.w, h, selected)
    audio, _ = split_heard(heard, mask, linear=False)
    return audio[0].cpu().numpy()


def _page(
    path: Path,
    document: dict[str, Any],
    sounds: dict[int, NDArray[np.float32]],
    explainer: Explainer,
    w: NDArray[np.floating],
    title: str,
) -> None:
    """The components of each class, to listen to."""
    domain = explainer.domain
    rate, bin_hz = domain.sample_rate, domain.sample_rate / domain.n_fft
    media, facts = MediaList(), []
    for name, best in document["classes"].items():
        heard, pictures, shown = {}, {}, []
        for item in best:
            k = int(item["component"])
            about = document["components"][k]
            heard[str(k)] = sounds[k]
            size = size_of(sounds[k], domain)
            pictures[f"sound {k}"] = spectrogram_picture(size, rate, float(size.max()))
            others = [c["class"] for c in about["classes"] if c["class"] != name]
            also = f", speaks for {' and '.join(others)}, too" if others else ""
            shown.append(
                {
                    "component": k,
                    "relevance": item["relevance"],
                    "peak_hz": int(w[:, k].argmax()) * bin_hz,
                    "bin_hz": bin_hz,
                    "spectrum": spectrum_line(w[:, k], rate),
                    "text": f"loudest in {about['clips'][0]['clip']}{also}",
                }
            )
        own = Media.of(rate, heard, pictures)
        n = f"{len(best)} component{'' if len(best) == 1 else 's'}"
        facts.append(
            {
                "name": name or "(no name)",
                "class": name,
                "duration_s": own.duration_s or 1.0,
                "short": n,
                "lines": [] if best else [f"No component speaks for {name}."],
                "about": f"Those that speak for “{name}”, by mean relevance over the clips that "
                "the classifier takes for it. Choose one to hear what it keeps of the clip that "
                "excites it most.",
                "components": shown,
            }
        )
        media.append(own)
    intro = "What speaks for each class: spectral patterns, each as a sound."
    write_listening_page(path, facts, media, title=title, parts=(), intro=intro, noun="classes")


def _plane(x: NDArray[np.float32]) -> NDArray[np.floating]:
    """t-SNE of the relevances [P, 2]; of few, their two principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(x) < 30 or not x.std(axis=0).any():
        return PCA(2, random_state=0).fit_transform(x)
    near = min(30.0, (len(x) - 1) / 3)
    return TSNE(2, perplexity=near, random_state=0).fit_transform(x)
