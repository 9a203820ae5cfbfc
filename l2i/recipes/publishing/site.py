"""What ``l2i ui`` serves: a start page, runs' pages to listen to, and MLflow's pages.

=====================  ===================================================================
``/``                  all runs, their main figures, and what to do next
``/listen/RUN``        to the run's page to listen to, which lies below
``/listen/RUN/PATH``   the run's artifacts that such pages are
``/mlflow``            MLflow's pages; the addresses of its own files and of its API are as
                       MLflow has them, so that clients find it here as well
=====================  ===================================================================

They are routes of MLflow's own server, behind its check of who asks. A page of a run may come from
anywhere and would be of the same origin as MLflow's API. One of this very version runs, with a
policy that lets its own script alone run; any other is in a sandbox, without an origin.

Run by uvicorn, as ``l2i.recipes.publishing.site:app``, in the environment that `l2i.cli.ui` makes.
"""

from __future__ import annotations

import json
import mimetypes
import os
from pathlib import Path
from typing import Any

import mlflow.server
from mlflow.server import constants
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.routing import Route

from l2i.errors import L2IError
from l2i.pages.page import as_json, asset, policy_of
from l2i.pages.start import RunCard, start_page
from l2i.recipes.opening.description import main_figures
from l2i.run.artifacts import download
from l2i.run.runs import list_runs, resolve_run
from l2i.run.search import RunInfo
from l2i.run.store import local_path, locate
from l2i.run.view import MODE, VIEW_STATE

_LISTEN = "explanations/index.html"
_MOST = 500
_NEXT = {
    "l2i listen {run}": "the page to listen to, from a terminal",
    "l2i explain {run} my.wav": "explain sounds of your own",
    "l2i compare {run} OTHER --out compared": "two runs side by side, clip by clip, with sounds",
    "l2i components {run} --out components": "what the model learnt as a whole, by class",
    "l2i train --help": "make another run",
}
# What MLflow's pages remember of a visit: that their assistant was open once, and that nobody needs
# to be told of usage data, since none are sent.
_REMEMBERED = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.telemetry.info.alert.dismissed_v1": "true",
}
# ... and which columns were seen last, where the address is of an experiment. A view that is shared
# by its address would have a banner, and would forget what its reader changes.
_FIRST = """
const [, experiment] = location.hash.match(/^#\\/experiments\\/(\\d+)/) ?? [];
if (experiment) {
  known[`MLflowLocalStorage-1.1-ExperimentPage-["${experiment}"]-ReactComponentState`] = view;
}
for (const [key, value] of Object.entries(known)) {
  if (localStorage.getItem(key) === null) localStorage.setItem(key, value);
}
"""


def _card(run: RunInfo) -> RunCard:
    began = run.start.astimezone().strftime("%Y-%m-%d %H:%M") if run.start else ""
    all_runs = f"/mlflow#/experiments/{run.experiment_id}/runs"
    links = {
        "In MLflow": f"{all_runs}/{run.id}{MODE}",
        f"All of {run.experiment}": f"{all_runs}{MODE}",
    }
    base = local_path(run.artifact_uri)
    there = run.has_model and run.status == "FINISHED"
    if base is not None:
        there = (base / _LISTEN).is_file()
    if base is not None and (base / "figures.html").is_file():
        links = {"Figures": f"/listen/{run.id}/figures.html", **links}
    return RunCard(
        name=run.name,
        about=" · ".join(filter(None, (run.experiment, run.status.lower(), began, run.id[:8]))),
        figures=main_figures(run.scores),
        warnings=run.tags.get("l2i.warnings", "").splitlines(),
        links=links,
        listen=f"/listen/{run.id}" if there else "",
    )


def _start(_request: Request) -> HTMLResponse:
    runs = list_runs(limit=_MOST)
    name = next((run.name for run in runs if run.has_model and run.status == "FINISHED"), "RUN")
    steps = {line.format(run=name): why for line, why in _NEXT.items()}
    return HTMLResponse(start_page(locate().shown, [_card(run) for run in runs], steps))


def _mlflow(_request: Request) -> HTMLResponse:
    folder = Path(mlflow.server.__file__).parent / mlflow.server.REL_STATIC_DIR
    text = (folder / "index.html").read_text(encoding="utf-8")
    known = f"const known = {as_json(_REMEMBERED)}, view = {as_json(json.dumps(VIEW_STATE))};"
    script = f"<script>{known}{_FIRST}</script>"
    style = f"<style>{asset('mlflow.css')}</style>"
    return HTMLResponse(text.replace("<head>", f"<head>{script}{style}", 1))


def _listen(request: Request) -> RedirectResponse | PlainTextResponse:
    try:
        run = resolve_run(request.path_params["run"])
    except L2IError as error:
        return PlainTextResponse(str(error), 404)
    return RedirectResponse(f"/listen/{run.id}/{_LISTEN}")


def _artifact(request: Request) -> FileResponse | HTMLResponse | PlainTextResponse:
    path = request.path_params["path"]
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or "\0" in path:
        return PlainTextResponse("There is no such page.", 404)
    if parts[0] not in ("explanations", "figures.html", "index.html", "audit.html"):
        return PlainTextResponse("Only the pages of a run are served here.", 404)
    try:
        file = download(resolve_run(request.path_params["run"]), path)
    except L2IError as error:
        return PlainTextResponse(str(error), 404)
    if not file.is_file():
        return PlainTextResponse("There is no such page.", 404)
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox"}
    if kind != "text/html":
        return FileResponse(file, media_type=kind, headers=headers)
    content = file.read_bytes()
    headers["Content-Security-Policy"] = (
        policy_of(content) or "sandbox allow-scripts allow-downloads"
    )
    return HTMLResponse(content, headers=headers)


def _make() -> Any:
    store = locate()
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = store.uri
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = store.uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = store.artifacts or ""
    # It reads these when it is imported.
    from mlflow.server.fastapi_app import app as server

    server.router.routes[:0] = [
        Route("/", _start),
        Route("/mlflow", _mlflow),
        # What a browser has after the '#' is kept.
        Route("/mlflow/", lambda _request: RedirectResponse("/mlflow")),
        Route("/listen/{run}", _listen),
        Route("/listen/{run}/{path:path}", _artifact),
    ]
    return server


app = _make()
