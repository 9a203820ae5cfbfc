"""Methods that learn, in Python: fit, explain, save and load, evaluate, compare; no store, no run.

::

    x = l2i.fit(clf, "sounds/")                  # a folder, a list of files, or arrays
    x.explain("dog.wav", target="Dog")           # as l2i.explain, by what was learnt
    x.save("dog.l2i"); x = l2i.load("dog.l2i", clf)
    l2i.evaluate(x, "other-sounds/")             # a DataFrame
    l2i.benchmark(clf, "sounds/", methods=["l2i", "gradcam", "gates"])

Labels are not needed: what a method learns, it learns from the classifier.
"""

from l2i.trained.fitted import Fitted, fit, load
from l2i.trained.judged import benchmark, evaluate

__all__ = ["Fitted", "benchmark", "evaluate", "fit", "load"]
