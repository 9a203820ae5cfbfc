"""Clips to show on a page, from the toy whose answers are known on paper, under names that would
break a careless one.

Each clip is two tones; the louder is the class. Its explanation is that tone alone, its removal
the other one. About `DISAGREEING` the interpreter says another class, and finds no component that
speaks for the classifier's: its explanation is silent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from l2i.config import Explanation as ExplanationSettings
from l2i.metrics import meanings
from l2i.recipes.opening.description import main_figures
from l2i.recipes.publishing.examples import write_examples
from l2i.types import Clip
from tests.toys import BANDS, SETTINGS, tone, tone_subject

CLASSES = (
    "<b>bold</b>",
    "</script><script>alert(1)</script>",
    "quo\"te's & ampersands",
    "Hörner – Straße",
    "🐕 dog",
    "../up",
    "{{data}}",
    "a\u2028b",
    "${x}",
    "",
    " spaced  out ",
)
SECONDS = 2.0
SAMPLES = round(SECONDS * SETTINGS.sample_rate)

# Name, band that is louder, band that is softer, label.
CLIPS = (
    ("Übung 🐕/<img src=x onerror=alert(1)>.wav", 2, 7, 2),
    ("../../etc/pass wd", 3, 8, 8),
    ('"quoted" & </script><!--.wav', 4, 9, 4),
    ("line\u2028and\u2029ends", 2, 6, 2),
)
DISAGREEING = 2
WRONG = 1


def hertz(band: int) -> float:
    """The frequency of a band's tone."""
    return (3 * band + 1) * SETTINGS.sample_rate / SETTINGS.n_fft


FIGURES = {"faithfulness_probability": 0.62, "random_probability": 0.1, "kept": 0.31}
"""What a page says of the run at its head."""


def write_run(folder: Path, title: str = "A run") -> list[dict[str, Any]]:
    """Sounds, ``explanations.json`` and ``index.html``; returns what the JSON holds."""
    theta = 1.5 * torch.eye(BANDS) - 0.5
    theta[[4, 5]] = theta[[5, 4]]
    subject = tone_subject(theta)
    subject.classifier.classes = CLASSES  # type: ignore[misc]
    waves = torch.stack([tone(a, 1.0, SAMPLES) + tone(b, 0.6, SAMPLES) for _, a, b, _ in CLIPS])
    write_examples(
        subject,
        "l2i",
        waves.numpy(),
        np.arange(len(CLIPS)),
        [Clip(name, (label,)) for name, _, _, label in CLIPS],
        ExplanationSettings(),
        [(i, f"<b>{i}</b>") for i in range(len(CLIPS))],
        folder,
        on_clip=lambda: None,
        title=title,
        labels=[CLASSES[label] for _, _, _, label in CLIPS],
        known=np.eye(BANDS, dtype=bool)[[label for _, _, _, label in CLIPS]],
        summary=main_figures(FIGURES),
    )
    explanations: list[dict[str, Any]] = json.loads(
        (folder / "explanations.json").read_text(encoding="utf-8")
    )
    return explanations


def document() -> dict[str, Any]:
    """What ``scores.json`` may hold, with classes of awkward names and figures that are absent."""
    meaning = {
        "accuracy": {"title": "Accuracy <i>", "unit": "share", "better": "higher", "source": ""},
        "average_drop": {"title": "AD", "unit": "%", "better": "lower", "source": "A & B 2024"},
        "random_logit": meanings(["random_logit"])["random_logit"],
    }
    curve = [
        {
            "threshold": tau,
            "faithfulness_probability": 0.8 - tau,
            "random_probability": 0.1,
            "random_probability_std": 0.01,
            "faithfulness_logit": 2.0 - tau,
            "random_logit": None,
            "components_removed": 10 * (1 - tau),
        }
        for tau in (0.1, 0.3, 0.5)
    ]
    per_class = {
        name: {"clips": 3 + i, "accuracy": [0.5, 1.0, 0.25][i % 3]}
        for i, name in enumerate(CLASSES[:5])
    }
    del per_class[CLASSES[3]]["accuracy"]
    return {
        "clips": 25,
        "task": "single-label",
        "scores": {"accuracy": 0.8125, "average_drop": 12.345, "random_logit": None},
        "per_class": per_class,
        "intervals": {"accuracy": [0.7, 0.9]},
        "faithfulness": curve,
        "meaning": meanings(name for name in curve[0] if name != "threshold") | meaning,
    }
