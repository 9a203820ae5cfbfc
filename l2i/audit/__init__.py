"""``l2i audit``: what a model listens to, before it ships.

==============  ==================================================================================
``cues``        what a classifier might go by, as something that can be cut out and put in
``traits``      what clips have in common that is not a sound
``scan``        one pass over all clips: a row for each class that is said of each
``hearing``     the pass as a whole: stopped, gone on with, shared among the tasks of a job
``groups``      whether a class's explanations are of one kind
``settings``    limits, and how much is tried
``screening``   cues that are worth a proof
``proof``       the counter-proof
``companions``  sounds of two classes that are taken for a third
``report``      the document, the table, the lines
``words``       what it says in sentences: of a cue, of a mistake, and what else there is to know
``page``        the page to listen to
``audit``       all of it, on a finished run
``planted``     whether suspects name a cue that was planted
``sources``     whether evidence hangs on recording, fold or microphone
``changes``     two audits beside each other
==============  ==================================================================================
"""

from l2i.audit.audit import audit
from l2i.audit.changes import changes
from l2i.audit.hearing import hear_share

__all__ = ["audit", "changes", "hear_share"]
