"""The experiments: flat functions that read from top to bottom, and know a config.

====================  =================================================================
``train``             the whole method: classifier, dictionary, interpreter, measures
``evaluate``          the figures of a run, measured again
``explain``           a user's own audio
====================  =================================================================

No recipe imports another. What they share:

====================  =================================================================
``material``          the clips of a run: opened, split, decoded
``fit_classifier``    the first stage of ``train``
``fit_dictionary``    the second
``fit_interpreter``   the third
``fitting``           what the trainings of both networks share
``stage``             a part of a run that survives a crash
``checkpoints``       its state in the store, for the next machine
``sweep_table``       mean and deviation over a sweep's runs
``bundle``            a finished run's networks, from its artifacts
``measure``           figures on clips
``figures``           an evaluation as files and a page
``examples``          explanations as files and a page
====================  =================================================================
"""
