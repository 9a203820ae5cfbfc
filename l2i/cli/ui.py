"""``l2i ui``: MLflow's pages, light, on this machine only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from l2i.cli.base import Command


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def server_command(uri: str, artifacts: str, host: str, port: int) -> list[str]:
    """The command line of MLflow's server: one worker, no job runner (0.5 GB, not 1.9 GB)."""
    return [
        *(sys.executable, "-P", "-m", "mlflow", "ui", "--backend-store-uri", uri),
        *("--registry-store-uri", uri),
        *("--default-artifact-root", artifacts, "--host", host, "--port", str(port)),
        # uvicorn looks for modules in its "app dir" first, by default the current folder.
        *("--workers", "1", "--uvicorn-opts", f"--log-level warning --app-dir {os.devnull}"),
    ]


def _names(host: str) -> list[str]:
    """What a browser may call this machine where the pages are served at `host`."""
    names = ["localhost", "127.0.0.1", "::1", host]
    if host in ("0.0.0.0", "::"):
        import psutil

        names += [socket.gethostname().lower(), socket.getfqdn().lower()]
        for found in psutil.net_if_addrs().values():
            # An IPv6 address may have its interface behind it: fe80::1%eth0.
            names += [
                each.address.partition("%")[0]
                for each in found
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
        "PYTHONWARNINGS": "ignore",  # Of its own dependencies.
    }


def _serve(command: list[str], environment: dict[str, str]) -> int:
    """Run the server until it ends or we are told to; it leaves no process behind."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    # Its worker is a process of its own, so that the whole group must be ended.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    before = signal.signal(signal.SIGTERM, stop)
    try:
        return server.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(server.pid, number)
            with suppress(subprocess.TimeoutExpired):
                server.wait(timeout=5)


@click.command(cls=Command, example=["l2i ui", "l2i ui --port 5001"])
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port of the pages.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The pages have no password: keep them on this machine.",
)
@click.option(
    "--allowed-hosts",
    "names",
    multiple=True,
    metavar="NAME",
    help="Another name by which browsers reach this machine; may be given several times.",
)
def ui(port: int, host: str, names: tuple[str, ...]) -> None:
    """Serve MLflow's pages of the runs until Ctrl-C; prints their address.

    Where MLFLOW_TRACKING_URI is a server, it has the pages already, and only its address is
    printed.
    """
    from l2i.errors import StoreError, UsageError
    from l2i.run.runs import list_runs
    from l2i.run.store import VIEW, locate

    store = locate()
    if not store.exists:
        raise StoreError(
            f"There are no runs in {store.shown} yet; 'l2i train --dataset demo' makes one."
        )
    newest = list_runs(limit=1)
    # Without this word MLflow opens its pages for language models.
    page = "?workflowType=machine_learning"
    if newest:
        page = f"/{newest[0].experiment_id}/runs{page}&viewStateShareKey={VIEW}"
    page = f"/#/experiments{page}"
    if store.is_server:
        click.echo(store.uri.rstrip("/") + page)
        return
    if not _is_free(host, port):
        raise UsageError(f"Port {port} of {host} is taken or forbidden; choose another by --port.")
    # Where it listens at all addresses, this is the one that a browser here can use.
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{shown}]" if ":" in shown else shown
    click.echo(f"http://{shown}:{port}{page}")
    click.echo("Ctrl-C ends it.", err=True)
    command = server_command(store.uri, store.artifacts or "", host, port)
    code = _serve(command, server_environment(host, names))
    if code:
        raise StoreError(f"MLflow's server ended with exit code {code}; its words are above.")
