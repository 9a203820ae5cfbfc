"""The whole method on one fold, and trainings that only a figure needs.

===================  ==================================================================
``train``            classifier, dictionary, interpreter, figures, sounds
``fit_classifier``   the built-in classifier (what methods learn: `l2i.training`)
``checkpoints``      a stage's state in the store, for the next machine
``retrained``        classifiers trained on labels at random, or on clips without evidence
===================  ==================================================================
"""
