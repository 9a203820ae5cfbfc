"""The experiments: flat functions that read from top to bottom, and know a config.

====================  =================================================================
``train``             the whole method: classifier, dictionary, interpreter, measures
``evaluate``          the figures of a run, measured again
``explain``           a user's own audio
====================  =================================================================

What they share:

====================  =================================================================
``material``          the clips of a run: opened, split, decoded
``fit_classifier``    the built-in classifier's training (the parts': `l2i.training`)
``checkpoints``       a stage's state in the store, for the next machine
``sweep_table``       mean and deviation over a sweep's runs
``publishing``        a training's results, as files and in the store
``served``            a run's networks as a model of MLflow's; ``served_input``: its rows
``bundle``            what a finished run has learnt, from its artifacts
``measure``           figures on clips
``truth``             figures of any method, and against known parts
``figures``           an evaluation as files and a page
``telling``           which clips a run's page shows
``examples``          explanations as files and a page
``site``              what ``l2i ui`` serves
====================  =================================================================
"""
