"""Listen to Interpret: explanations of audio classifiers that one can listen to.

A **clip** becomes a **spectrogram**; a frozen **classifier** turns it into **features**
(logits and hidden maps); an **interpreter** turns the hidden maps into **activations** of a
spectral **dictionary**; the interpreter's head gives each **component** a **relevance** for
one class; the relevant components, as a soft **mask** on the spectrogram, are the
**explanation** one can listen to.

In Python, for any classifier, with nothing trained::

    import l2i

    clf = l2i.wrap(model, sample_rate=16000, classes=names, task="multi-label")
    e = l2i.explain(clf, "dog.wav", target="Dog")

The map of the package, a module importing only from lower ranks or from its own folder
(``tests/test_layers.py`` draws the line)::

   10  cli                                    words -> config -> one call; prints and catches
    9  trained                                the Python interface to methods that learn
    8  library  audit                         the Python interface; what a model goes by
    7  recipes                                one flat function per experiment
    6  explained                              an explanation as a value, as files, as a page
    5  explanation  metrics  plots  pages     methods; figures; pictures; pages to listen to
    4  training                               what methods must learn: dictionary, interpreter
    3  data  recording  models  run  launch   arrays in, windows, weights, where a run is kept, jobs
    2  config  dsp                            what to do; sound and spectrograms
    1  registry  storage                      names; files that are whole or absent
    0  types  errors  environment             what flows, what goes wrong, what is set outside

Source of the method: Parekh, Parekh, Mozharovskyi, d'Alché-Buc, Richard, *Listen to
Interpret: Post-hoc Interpretability for Audio Networks with NMF*, NeurIPS 2022,
arXiv 2202.11479.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2i.explained import Explained
    from l2i.library import ExplainedRecording, explain
    from l2i.models.hugging_face import from_transformers
    from l2i.models.wrapped import wrap
    from l2i.trained import Fitted, benchmark, evaluate, fit, load
    from l2i.types import Classifier

__all__ = [
    "Classifier",
    "Explained",
    "ExplainedRecording",
    "Fitted",
    "benchmark",
    "evaluate",
    "explain",
    "fit",
    "from_transformers",
    "load",
    "wrap",
]

__version__ = "0.1.0"

_PUBLIC = {
    "Classifier": "types",
    "Explained": "explained",
    "ExplainedRecording": "library",
    "Fitted": "trained",
    "benchmark": "trained",
    "evaluate": "trained",
    "explain": "library",
    "fit": "trained",
    "from_transformers": "models.hugging_face",
    "load": "trained",
    "wrap": "models.wrapped",
}


def __getattr__(name: str) -> Any:
    # When it is asked for, and not before: torch takes seconds to import.
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
