"""What methods must learn: their parts, and what all trainings share.

A part (a dictionary, an interpreter, a decoder) has settings of its own, a stage that survives a
crash, a checkpoint ``<name>.safetensors``, and a signature over what it reads. A method names its
parts in the order in which they are learnt (see `l2i.explanation`); each is given those before it.

To add one, write a class as `Part` describes, in the file of the method that needs it, and put an
instance of it among the method's ``parts``. Its settings are the table ``[parts.<name>]`` of a
config. That is all: `l2i train`, resuming, checkpoints and `l2i.fit` follow from it.

====================  ==========================================================
``parts``             what a part is, and what it learns from
``stage``             a part that survives a crash
``fitting``           what the trainings share: averages, batches, the best epoch
``dictionary``        L2I's first part
``interpreter``       L2I's second
``gates``             gated L2I's third, through the audio and the classifier
``teacher``           the terms of its loss
``mixtures``          mixtures with known parts, to learn from
``masks``             what networks share that learn to mask
``mask_decoder``      L-MAC's
``learnt``            PIQ's, VIBI's and FLINT's
====================  ==========================================================
"""
