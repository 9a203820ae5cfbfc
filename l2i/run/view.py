"""How MLflow's pages show an experiment of ours: addresses, and tags that choose columns."""

from __future__ import annotations

import json

MODE = "?workflowType=machine_learning"
"""At the end of an address of MLflow's pages; without it they are those for language models."""
VIEW = "l2i"
"""MLflow's pages show the runs of an experiment with the columns that matter where their address
has ``viewStateShareKey=l2i``: a "shared view", kept as a tag of the experiment."""
_COLUMNS = (
    *("attributes.`Created`", "attributes.`Duration`"),
    *("metrics.`test/accuracy`", "metrics.`test/auprc_macro`", "metrics.`test/fidelity_top1`"),
    *("metrics.`test/ff_mean`", "metrics.`test/fid_in`", "metrics.`test/kept`"),
    *("params.`dataset.fold`", "params.`run.seed`", "tags.`l2i.kind`"),
)
VIEW_STATE = {
    "searchFilter": "",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": list(_COLUMNS),
    "runsExpanded": {},
    "runsPinned": [],
    "runsHidden": [],
    "runsHiddenMode": "FIRST_10_RUNS",
    "viewMaximized": True,
    "runListHidden": False,
    "groupBy": None,
    "groupsExpanded": {},
    "useGroupedValuesInCharts": True,
    "hideEmptyCharts": True,
    "autoRefreshEnabled": True,
    "isAccordionReordered": False,
}
EXPERIMENT_TAGS = {
    # Lets MLflow open its pages for runs, and not those for language models.
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{VIEW}": json.dumps(VIEW_STATE),
}
