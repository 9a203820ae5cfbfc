"""Listen to Interpret: explanations of audio classifiers that one can listen to.

A **clip** becomes a **spectrogram**; a frozen **classifier** turns it into **features**
(logits and hidden maps); an **interpreter** turns the hidden maps into **activations** of a
spectral **dictionary**; the interpreter's head gives each **component** a **relevance** for
one class; the relevant components, as a soft **mask** on the spectrogram, are the
**explanation** one can listen to.

The map of the package, a module importing only from lower ranks or from its own folder
(``tests/test_layers.py`` draws the line)::

    6  cli                                    words -> config -> one call; prints and catches
    5  recipes                                one flat function per experiment
    4  explanation  metrics  plots  pages     the method; its figures; pictures; pages to listen to
    3  data  models  run  launch              arrays in, weights, where a run is kept, jobs
    2  config  storage                        what to do; files that are whole or absent
    1  dsp  registry                          sound and spectrograms; names
    0  types  errors  environment             what flows, what goes wrong, what is set outside

Source of the method: Parekh, Parekh, Mozharovskyi, d'Alché-Buc, Richard, *Listen to
Interpret: Post-hoc Interpretability for Audio Networks with NMF*, NeurIPS 2022,
arXiv 2202.11479.
"""

__version__ = "0.1.0"
