"""What a recipe begins with: a run's clips, and what a finished run has learnt.

================  =====================================================================
``material``      the clips of a run: opened, split, decoded
``disk``          the disk that a training takes, told before it begins
``bundle``        what a run has learnt, from its checkpoints
``opened``        a finished run, opened to be measured
``description``   what MLflow's page of a run says at its top
================  =====================================================================
"""
