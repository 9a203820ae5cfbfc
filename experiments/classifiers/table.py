"""How explanations of real classifiers do, as the table in docs/classifiers.md has it::

    python experiments/classifiers/table.py ESC-10 --clips 10

Each of the classifiers beside this file whose packages are installed hears all clips of fold 1 of
ESC-10. Those of which it is surest are explained, each for the class that it finds likeliest. The
figures are means over them: what the classifier says of the class by the clip, by the explanation
alone and without it, the explanation's share of the energy, and how many explanations hold.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from pathlib import Path

import torch

import l2i
from l2i.dsp.audio import read_audio
from l2i.models.spec import load_classifier

HEARS = {
    "yamnet": "YAMNet: 521 classes, several at once",
    "aisfx": "aiSFX: 79 sound effects",
    "silero": "Silero VAD: speech or none",
    "birdnet": "BirdNET: 6522 classes, a black box",
}


def clips(folder: Path, fold: str = "1") -> list[Path]:
    """The sound files of a fold."""
    with open(folder / "meta" / "esc50.csv", newline="") as file:
        names = [row["filename"] for row in csv.DictReader(file) if row["fold"] == fold]
    return [next((folder / "audio").glob(f"{Path(name).stem}.*")) for name in names]


def surest(clf: l2i.Classifier, files: list[Path], n: int) -> list[Path]:
    """The files of which the classifier is surest."""
    sure = {}
    for path in files:
        x = torch.from_numpy(read_audio(path, clf.sample_rate)).unsqueeze(0)
        with torch.no_grad():
            sure[path] = float(clf.probabilities(clf.logits(x)).max())
    return sorted(files, key=lambda path: -sure[path])[:n]


def row(name: str, files: list[Path], n: int) -> str:
    """A line of the table."""
    source = Path(__file__).with_name(f"{name}.py")
    clf = load_classifier(f"{source}:load")
    chosen = surest(clf, files, n)
    l2i.explain(clf, chosen[0])  # Once for nothing: caches, kernels.
    seconds, explained = [], []
    for path in chosen:
        begin = time.perf_counter()
        explained.append(l2i.explain(clf, path))
        seconds.append(time.perf_counter() - begin)
    p = [e.probabilities[e.target] for e in explained]
    means = [statistics.mean(part) for part in zip(*p, strict=True)]
    cells = [
        HEARS[name],
        f"[{len(source.read_text().splitlines())}](experiments/classifiers/{source.name})",
        f"{statistics.median(seconds):.1f} s",
        *(f"{mean:.3f}" for mean in means),
        f"{statistics.mean(e.kept for e in explained):.0%}",
        f"{sum(e.holds for e in explained)} of {n}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where ESC-10 is")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=HEARS, default=list(HEARS))
    chosen = parser.parse_args()
    titles = "classifier | lines | time | by the clip | alone | without | energy kept | holds"
    print(f"| {titles} |\n{'|---' * 8}|")
    for name in chosen.only:
        try:
            print(row(name, clips(chosen.folder), chosen.clips), flush=True)
        except (ImportError, l2i.errors.L2IError) as error:
            print(f"{name} is left out: {error}")


if __name__ == "__main__":
    main()
