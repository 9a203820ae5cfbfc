"""Networks: classifiers of any kind behind one interface, and what methods learn from them.

====================  ==========================================================
``wrapped``           any classifier: waveforms in, logits and hidden maps out
``hearing``           its way from sound to logits; ``resampling`` to its rate
``answers``           probabilities and decisions of logits
``layers``            which hidden layers can be read; ``axes``, ``windows``: how
``spec``              classifiers by a word of the command line
``hugging_face``      those of ``transformers``; ``extractors``: how they hear
``classifier``        the built-in one, frozen; ``vgg``, ``winograd``: its network
``augmentation``      changes to the clips that it is trained on
``published``         the files of the method's authors
``heard``             clips, what a classifier says of them and by which channels of its
                      hidden maps; ``features``, kept
``checkpoint``        weights and settings in one file
``optimizers``        Adam, without torch's compiler
``dictionary``        L2I's W; ``interpreter``, ``general``, ``losses``: the rest
``gated``             what gates make of a sound; ``gate_head``: their network
``players``           a clip as a game of its sounds
``mask_decoder``      L-MAC's network; ``time_domain``: LMAC-TD's
``attributes``        FLINT's; ``chunks``: VIBI's; ``quantised``: PIQ's
====================  ==========================================================
"""
