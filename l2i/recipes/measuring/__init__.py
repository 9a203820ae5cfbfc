"""Figures of a run, of any method, and against known parts.

Recipes:

=================  ====================================================================
``evaluate``       the figures of a run, measured again
``noise``          the same under noise of several levels
``overlap``        two clips at once
``ground_truth``   clips whose parts were kept
``components``     which components speak for which class, and how they sound
=================  ====================================================================

What they are made of:

=================  ====================================================================
``measure``        figures of an explainer, clip by clip
``judging``        what a mask is worth: the classifier hears what it keeps and what it leaves
``figures``        what is measured as files and a page
``truth``          scenes whose parts are known
``protocols``      on what explanations are judged: as they are, two at once, with noise
``probed``         which probes there are for a method; one that reads masks alone
``probes``         probes that hear parts of a clip
``reexplained``    probes that have a method explain again
``evaluator``      a judge that was not in the loop: another run's, or tuned on random masks
=================  ====================================================================
"""
