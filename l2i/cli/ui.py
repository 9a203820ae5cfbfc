"""``l2i ui`` and ``l2i listen``: runs in a browser, served lightly, on this machine only."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import click

from l2i.cli import options
from l2i.cli.base import Command
from l2i.errors import StoreError, UsageError
from l2i.run.artifacts import download
from l2i.run.runs import no_runs, resolve_run
from l2i.run.signals import signals_as_exit
from l2i.run.store import locate
from l2i.run.view import MODE

_PORT = 5000


def _free(host: str, port: int) -> int:
    """The port, or, of port 0, one that is free; refused where it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise UsageError(
                f"Port {port} of {host} is taken or forbidden; choose another by --port."
            ) from None
        return int(probe.getsockname()[1])


def _names(host: str) -> list[str]:
    """What a browser may call this machine where the pages are served at `host`."""
    names = ["localhost", "127.0.0.1", "::1", host]
    if host in ("0.0.0.0", "::"):
        import psutil

        names += [socket.gethostname().lower(), socket.getfqdn().lower()]
        for addresses in psutil.net_if_addrs().values():
            # An IPv6 address may have its interface behind it: fe80::1%eth0.
            names += [
                each.address.partition("%")[0]
                for each in addresses
                if each.family in (socket.AF_INET, socket.AF_INET6)
            ]
    return list(dict.fromkeys(names))


def server_environment(host: str, more: Sequence[str] = ()) -> dict[str, str]:
    """Its environment: without telemetry, jobs and modules of the current folder.

    MLflow answers browsers that call it by a name it knows, so that no page of another site can
    ask it by a name made to lead here. It is told this machine's, and `more`. The port may be
    another one outside of a container.
    """
    # The addresses that a machine around a container may have.
    hosts = ["192.168.*", "10.*", *(f"172.{i}.*" for i in range(16, 32))]
    origins: list[str] = []
    for name in (*_names(host), *map(str.lower, more)):
        plain = f"[{name}]" if ":" in name else name
        patterns = [plain, plain.replace("[", "[[]") + ":*"]  # As fnmatch reads them.
        hosts += patterns
        origins += [f"{scheme}://{each}" for scheme in ("http", "https") for each in patterns]
    return {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        **os.environ,
        "PYTHONSAFEPATH": "1",  # For its worker, which it starts by itself.
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",  # Those of its own dependencies.
    }


def _serve(command: list[str], environment: dict[str, str], at: Callable[[], bool]) -> int:
    """Run the server until it ends or we are told to; it leaves no process behind. `at` is asked
    until it says that the server answers."""
    from l2i.launch import processes

    server = processes.start(command, environment)
    try:
        with signals_as_exit():
            while server.poll() is None and not at():
                time.sleep(0.1)
            return server.wait()
    finally:
        processes.tell(server)
        processes.reap([server], grace_s=5)


def _run(host: str, port: int, names: Sequence[str], page: str, *, browser: bool) -> None:
    """Serve, print the address of a page when it answers, and open it in a browser if there is
    one."""
    # Where it listens at all addresses, this is the one that a browser here can use.
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{reached}]" if ":" in reached else reached

    def at() -> bool:
        try:
            socket.create_connection((reached, port), timeout=1).close()
        except OSError:
            return False
        address = f"http://{shown}:{port}{page}"
        click.echo(address)
        click.echo("Ctrl-C ends it.", err=True)
        if browser:
            _open(address)
        return True

    # One process, and no job runner: 0.5 GB, not 1.9 GB.
    command = [
        *(sys.executable, "-P", "-m", "uvicorn", "l2i.recipes.publishing.site:app"),
        # uvicorn looks for modules in its "app dir" first, by default the current folder.
        *("--host", host, "--port", str(port), "--log-level", "warning", "--app-dir", os.devnull),
    ]
    code = _serve(command, server_environment(host, names), at)
    if code:
        raise StoreError(f"The server ended with exit code {code}; its words are above.")


def _open(address: str) -> None:
    import webbrowser

    # On a terminal alone, a text browser would take the terminal.
    if sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        with suppress(webbrowser.Error):
            webbrowser.open(address)


def _store() -> Any:

    store = locate()
    if not store.exists:
        raise no_runs(store)
    return store


_host = click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address; 0.0.0.0 shows the pages to the whole network, without a password.",
)
_allowed = options.several(
    "--allowed-hosts",
    "names",
    metavar="NAME",
    help="Another name by which browsers reach this machine",
)


@click.command(cls=Command, example=["l2i ui", "l2i ui latest", "l2i ui --port 5001"])
@click.argument("run", metavar="[RUN]", required=False)
@options.number("--port", default=_PORT, most=65535, help="Port of the pages.")
@_host
@_allowed
def ui(run: str | None, port: int, host: str, names: tuple[str, ...]) -> None:
    """Serve the pages of all runs until Ctrl-C; prints their address when they answer.

    The start page lists the runs, and leads to their sounds and to MLflow's pages; with RUN it is
    MLflow's page of that run. Where MLFLOW_TRACKING_URI is a server, it has MLflow's pages already,
    and only their address is printed.
    """
    store = _store()
    page = "/"
    if run or store.is_server:
        info = resolve_run(run) if run else None
        place = f"/{info.experiment_id}/runs/{info.id}" if info else ""
        page = f"/mlflow#/experiments{place}{MODE}"
    if store.is_server:
        click.echo(store.uri.rstrip("/") + page.replace("/mlflow", "/"))
        return
    _run(host, _free(host, port), names, page, browser=False)


@click.command(
    cls=Command, example=["l2i listen", "l2i listen esc10-fold1 --no-browser --port 5001"]
)
@click.argument("run", metavar="[RUN]", default="latest")
@options.number("--port", most=65535, help=f"Port of the pages.  [default: {_PORT}, or a free one]")
@_host
@_allowed
@click.option("--no-browser", is_flag=True, help="Only print the address.")
def listen(run: str, port: int | None, host: str, names: tuple[str, ...], no_browser: bool) -> None:
    """Open the page to listen to a run's explanations; serve it until Ctrl-C.

    RUN is a run id, a run name or how it begins, or 'latest', which it is by default. The address
    is printed when the page is there. Where MLFLOW_TRACKING_URI is a server, the page is fetched
    from it, and opened as a file.
    """
    store = _store()
    info = resolve_run(run)
    # A run's own; those of what was made of one.
    for path in ("explanations/index.html", "index.html", "audit.html"):
        try:
            page = download(info, path)
            break
        except StoreError as error:
            if "has no artifact" not in str(error):
                raise
    else:
        parent = info.tags.get("mlflow.parentRunId", "")[:8]
        way = f"'l2i explain {info.id[:8]} AUDIO...' makes one of your own sounds."
        if parent and not info.has_model:
            way = f"'l2i listen {parent}' opens the page of its parent run."
        raise StoreError(f"Run {info.name} ({info.id[:8]}) has no page to listen to: {way}")
    if store.is_server:
        click.echo(page.resolve().as_uri())
        if not no_browser:
            _open(page.resolve().as_uri())
        return
    try:
        port = _free(host, _PORT if port is None else port)
    except UsageError:
        if port is not None:
            raise
        port = _free(host, 0)
    _run(host, port, names, f"/listen/{info.id}/{path}", browser=not no_browser)
