"""One validated tree of settings, from defaults, presets, a TOML file and the command line.

The layers, later ones winning::

    defaults (the published ESC-50 configuration)  <-  the data set's preset (l2i/presets)
        <-  own-classifier, with --classifier  <-  --config FILE.toml (and what it `extends`)
        <-  -o key=value  <-  options

All mistakes are reported at once, each with the nearest valid key. The **signature** of a
config is a hash of it without what does not change the science (where the data lie, names,
the device): the same experiment has the same signature on every machine. Stages have
signatures of their own, over the settings they read, so that a change of an interpreter's
setting does not train the classifier again.

============  ============================================================
``schema``    the settings: sections of names, ranges, defaults, meanings
``tree``      the whole of them, and its signatures
``layers``    files, presets and words, laid over each other and validated
============  ============================================================
"""

from l2i.config.layers import own_classifier_preset, preset_names, read_toml, resolve
from l2i.config.schema import (
    Augmentation,
    Classifier,
    Dataset,
    Dictionary,
    Explanation,
    Interpreter,
    Method,
    Output,
    Run,
    Spectrogram,
    Warn,
)
from l2i.config.tree import STAGES, Config, flatten, meanings, toml_of

__all__ = [
    "STAGES",
    "Augmentation",
    "Classifier",
    "Config",
    "Dataset",
    "Dictionary",
    "Explanation",
    "Interpreter",
    "Method",
    "Output",
    "Run",
    "Spectrogram",
    "Warn",
    "flatten",
    "meanings",
    "own_classifier_preset",
    "preset_names",
    "read_toml",
    "resolve",
    "toml_of",
]
