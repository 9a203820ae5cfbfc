"""What is written of explanations held against the truth: a table, and sounds."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from l2i.dsp.audio import write_audio
from l2i.recipes.measuring.truth import Scene
from l2i.storage import write_csv


def table_of(rows: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write the rows as csv, names first."""
    first = ["scene", "clip", "class", "present"]
    frame = pd.DataFrame(dict(rows))
    write_csv(
        path, frame[[*(c for c in first if c in frame), *(c for c in frame if c not in first)]]
    )


@contextmanager
def sounds_aside() -> Iterator[tuple[Path, Callable[[Path], bool]]]:
    """A folder for sounds until it is known where they go, and a function that copies them to the
    folder ``sounds`` within another; whether there are any."""
    with tempfile.TemporaryDirectory() as work:
        # Not this folder itself, whose permissions a copy would have.
        held = Path(work) / "sounds"
        held.mkdir()

        def put(folder: Path) -> bool:
            if not any(held.iterdir()):
                return False
            shutil.copytree(held, folder / "sounds", dirs_exist_ok=True)
            return True

        yield held, put


def sound_writer(
    folder: Path, classes: Sequence[str], sample_rate: int, most: int
) -> Callable[[Scene, int, Mapping[str, Tensor]], None]:
    """A function that writes the sounds of the first `most` pairs, one folder for each.

    All sounds of a pair have one gain, so that their levels can be compared by ear.
    """
    places: Iterator[int] = iter(range(1, most + 1))

    def write(scene: Scene, c: int, sounds: Mapping[str, Tensor]) -> None:
        number = next(places, None)
        if number is None:
            return
        word = re.sub(r"[^\w.-]+", "_", f"{scene.id}-{classes[c]}")[-80:]
        loudest = max(float(x.abs().max()) for x in sounds.values())
        gain = 1 / loudest if loudest > 1 else 1.0
        place = folder / f"{number:02d}-{word}"
        place.mkdir(parents=True, exist_ok=True)
        for name, x in sounds.items():
            write_audio(place / f"{name}.wav", (gain * x).cpu().numpy(), sample_rate)

    return write
