"""Make ``train.json`` again: ``python -m tests.golden.make``, in the repository's root.

Only after a change that is meant to change the numbers; say so in the commit.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from l2i.models.checkpoint import load_checkpoint
from l2i.recipes.training.train import train
from l2i.run.progress import Progress
from tests.recipes.conftest import Finished, small_config

KEYS = {"classifier": "loss", "dictionary": "objective", "interpreter": "reconstruction"}


def main() -> None:
    """Train both small runs with the published network, and write their curves."""
    target = Path(__file__).with_name("train.json").resolve()
    golden: dict[str, dict[str, list[float]]] = {}
    for kind, name in (("single", "demo"), ("multi", "demo-multilabel")):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            os.environ["XDG_CACHE_HOME"] = folder
            config = small_config(name, "classifier.width=1")
            made = Finished(Path(folder), train(config, Progress(quiet=True)))
            golden[kind] = {}
            for stage, key in KEYS.items():
                path = made.artifacts / "model" / "artifacts" / f"{stage}.safetensors"
                history = load_checkpoint(path, stage)[1]["history"]
                golden[kind][stage] = [float(f"{figures[key]:.6g}") for figures in history]
            os.chdir(target.parent)
    target.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
