"""A bug in one task of an array: Python imports this by itself where its folder is on the path.

The task whose index is that of the variable ``PLANTED`` fails when its classifier is trained, or
found.
"""

import os
import shutil
import sys

_copy2 = shutil.copy2


def _planted(*args, **kwargs):  # type: ignore[no-untyped-def]
    if sys._getframe(1).f_globals.get("__name__") == "l2i.recipes.training.train":
        raise ZeroDivisionError("planted")
    return _copy2(*args, **kwargs)


_index = os.environ.get("L2I_TASK_INDEX") or os.environ.get("AWS_BATCH_JOB_ARRAY_INDEX")
if _index is not None and _index == os.environ.get("PLANTED"):
    shutil.copy2 = _planted
