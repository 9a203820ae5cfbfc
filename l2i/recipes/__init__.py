"""The experiments: flat functions that read from top to bottom, and know a config.

A room imports from rooms above it in this table, and from itself (``tests/test_layers.py``):

==============  =======================================================================
``opening``     what a recipe begins with: clips, and a finished run's networks
``measuring``   figures of a run, of any method, and against known parts
``publishing``  explanations and results as files, as pages and as a served model
``training``    the whole method on one fold, and trainings that only a figure needs
``tables``      many runs or many methods, side by side
==============  =======================================================================
"""
