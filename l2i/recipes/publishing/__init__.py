"""Explanations and results as files, as pages and as a served model.

================  =====================================================================
``explain``       a user's own audio, explained by a finished run
``examples``      explanations of clips as files, and a page of them
``results``       a training's figures, tables, pictures and sounds
``served``        a run's networks as an MLflow model; ``served_input``: its rows
``import_run``    a run made of networks that somebody else trained
``site``          what ``l2i ui`` serves
================  =====================================================================
"""
