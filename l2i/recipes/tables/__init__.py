"""Many runs or many methods, side by side.

================  =====================================================================
``sweep``         many trainings from one file; ``sweep_file``: that file;
                  ``sweep_table``: mean and deviation over them
``benchmark``     all methods on the same clips, under the same figures
``shortcut``      methods on a cue that the classifier must go by
``compare``       finished runs: which figures differ; ``paired``: clip by clip;
                  ``side_by_side``: a page that plays both
================  =====================================================================
"""
