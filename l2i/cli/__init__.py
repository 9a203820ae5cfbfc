"""The command line: words -> config -> one call; the only place that prints and catches.

How to add a command: write ``l2i/cli/<name>.py`` with a click command of the class
`l2i.cli.base.Command` (or group of `l2i.cli.base.Group`), and name it in `SECTIONS`. Its module
is imported when the command is used, and should import torch, MLflow and the like inside the
function, so that ``l2i <name> --help`` stays quick.

==========  ====================================================
exit code   what happened
==========  ====================================================
0           all went well
1           something that the words point to is wrong: data, weights, the store, a device
2           the words are wrong: an option, a name, the config
3           done, and not all of it could be sent to its store yet
4           of ``l2i audit --fail-on suspects``: done, and there are suspects
70, 75      of ``l2i task`` only: a bug; stopped, and worth another attempt
130, 143    stopped by Ctrl-C, by SIGTERM; the same command goes on
==========  ====================================================

``L2I_DEBUG=1`` shows the traceback behind a message.

Over 300 lines: one way in and out of every command: what is printed, caught and returned.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import click

from l2i import __version__
from l2i.cli.base import name_variables
from l2i.environment import SHARED
from l2i.errors import InputError, L2IError, MissingPackage, StoreError
from l2i.registry import nearest

__all__ = ["COMMANDS", "cli", "main", "say_unsent"]

# What `l2i --help` lists below each heading: name -> (module:attribute here, what it says of it).
SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Make": {
        "train": ("train:train", "Train a classifier and what explains it."),
        "sweep": ("sweep:sweep", "Train all variants of a file, into one table."),
        "import": ("train:import_", "Import networks that the authors publish."),
        "data": ("data:data", "List, fetch and check data sets."),
        "classifiers": ("classifiers:classifiers", "Check a classifier of your own."),
        "config": ("config:config", "Show, explain and check settings."),
    },
    "Explain": {
        "explain": ("explain:explain", "Explain audio files: sounds and pictures."),
        "listen": ("ui:listen", "Listen to a run's explanations, in a browser."),
    },
    "Measure": {
        "evaluate": ("evaluate:evaluate", "Measure a run again on its test clips."),
        "benchmark": ("benchmark:benchmark", "Compare explanation methods in one table."),
        "audit": ("audit:audit", "Find what a model goes by and should not."),
        "overlap": ("mixtures:overlap", "Measure a run on mixtures of two clips."),
        "noise": ("mixtures:noise", "Measure a run on clips with noise added."),
        "ground-truth": ("mixtures:ground_truth", "Compare explanations with the known sources."),
        "shortcut": ("audit:shortcut", "Plant a cue in one class, and look for it."),
        "components": ("evaluate:components", "Show what a model learnt as a whole."),
        "compare": ("benchmark:compare", "Set runs side by side, clip by clip."),
    },
    "Runs": {
        "runs": ("runs:runs", "List runs and their main figures."),
        "ui": ("ui:ui", "Look at all runs, in a browser."),
        "sync": ("transfer:sync", "Upload what MLflow or S3 missed."),
        "doctor": ("doctor:doctor", "Check this machine: Python, torch, GPU, disk, data."),
        "completion": ("doctor:completion", "Print a shell's completion script."),
    },
    "Jobs": {
        "submit": ("submit:submit", "Submit the variants of a file as a job."),
        "jobs": ("jobs:jobs", "List jobs, and retry what failed."),
        "logs": ("jobs:logs", "Show a task's log."),
        "cancel": ("jobs:cancel", "Cancel a job's unfinished tasks."),
        "batch": ("batch:batch", "Set up AWS Batch, and remove it again."),
    },
}

COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
# For engines; no help lists it.
COMMANDS["task"] = ("task:task", "Run one task of a job: for engines.")


class _Lazy(click.Group):
    """A group that imports the module of a command when it is used, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"l2i.cli.{module}"), attribute)
        name_variables(command, (cmd_name,))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            like = nearest(args[0], list(COMMANDS))
            hint = f" Did you mean '{like}'?" if like else ""
            ctx.fail(f"There is no command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table, since click would import every command for its one line of help.
        width = max(len(name) for name in COMMANDS)
        for heading, section in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(n.ljust(width), line) for n, (_, line) in section.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            formatter.write_dl(
                [
                    ("l2i train --dataset demo", "on built-in sounds; nothing to fetch"),
                    ("l2i explain latest my.wav", "with the newest finished run"),
                    ("l2i listen", "hear what it explained"),
                    ("l2i ui", "look at it all"),
                ]
            )
        with formatter.section("Environment variables"):
            formatter.write_text(
                "L2I_<COMMAND>_<OPTION> sets an option that takes one value: L2I_TRAIN_SEED=1 is "
                "'l2i train --seed 1'. These hold for all commands:"
            )
            formatter.write_dl([(name, SHARED[name]) for name in SHARED])


@click.command(
    "l2i",
    cls=_Lazy,
    context_settings={
        "max_content_width": 80,
        "help_option_names": ["-h", "--help"],
        "show_default": True,
    },
)
@click.version_option(__version__, prog_name="l2i")
def cli() -> None:
    """Listen to Interpret: explanations of audio classifiers one can listen to."""


def _fail(error: L2IError) -> int:
    if os.environ.get("L2I_DEBUG"):
        import traceback

        traceback.print_exception(error)
    click.echo(f"Error: {error}", err=True)
    return error.exit_code


class _Stream:
    """A stream of this process that may lead to a full disk.

    What a command answers and cannot be written is said to be lost; what goes to stderr is left
    out, since no training should end by that.
    """

    def __init__(self, stream: TextIO, needed: bool) -> None:
        self._stream = stream
        self._needed = needed

    def write(self, text: str) -> int:
        try:
            # click tries streams by writing nothing, which some devices refuse too.
            return self._stream.write(text) if text != "" else 0
        except OSError as error:
            self._refused(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            raise error
        # It is not tried again when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if self._needed:
            raise StoreError(f"The output cannot be written ({error.strerror}).") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _open_streams() -> None:
    """Let what was closed (``>&-``) be as if it were /dev/null, and a full disk be a sentence.

    Otherwise a file that is opened next, the run store say, would be this process's output.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is the one given.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
    sys.stdout = cast(TextIO, _Stream(sys.stdout, needed=True))
    sys.stderr = cast(TextIO, _Stream(sys.stderr, needed=False))


# Commands that take up what an interruption left.
_RESUMED = {"train", "sweep"}


def _refuse_deleted_folder() -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("The current folder was deleted: change to one that is there.") from None


def _run(args: Sequence[str] | None) -> int:
    stdout = sys.stdout
    try:
        _refuse_deleted_folder()
        # Otherwise it is as the terminal has it; see https://no-color.org.
        colour = False if os.environ.get("NO_COLOR") else None
        # Not standalone: click would turn Ctrl-C into exit code 1.
        result: Any = cli.main(args, prog_name="l2i", standalone_mode=False, color=colour)
        sys.stdout.flush()  # Here, where a pipe that is broken can still be caught.
    except L2IError as error:
        return _fail(error)
    except ModuleNotFoundError as error:
        # The library is installed, and not what commands need beyond it.
        package = (error.name or "").partition(".")[0]
        if package in ("", "l2i") or find_spec(package) is not None:
            raise
        missing = MissingPackage("This command", package, alone=False)
        missing.__cause__ = error
        return _fail(missing)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        # click makes an Abort of a Ctrl-C.
        words = sys.argv[1:] if args is None else args
        more = " The same command goes on from here." if set(words[:1]) & _RESUMED else ""
        click.echo(f"Stopped.{more}", err=True)
        return 130
    except SystemExit as end:
        # Where a pipe breaks while a command writes to it, click exits with 1 and puts a stdout
        # of its own in place that no longer complains.
        if end.code == 1 and sys.stdout is not stdout:
            return 0
        raise
    except BrokenPipeError:
        # The reader of our output went away (`l2i runs | head`): no fault, and nothing to say.
        # Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    code = result if isinstance(result, int) and not isinstance(result, bool) else 0
    return 3 if say_unsent() else code


def say_unsent() -> bool:
    """Say what is done and could not be sent; whether there is any."""
    outbox = sys.modules.get("l2i.run.outbox")
    sentences = list(outbox.UNSENT) if outbox is not None else []
    for sentence in sentences:
        click.echo(sentence, err=True)
    if outbox is not None:
        outbox.UNSENT.clear()
    return bool(sentences)


def _with_docstrings() -> None:
    """Begin anew where Python has thrown docstrings away (``PYTHONOPTIMIZE=2``).

    They are the help of our commands, and MLflow and others read theirs.
    """
    asked = os.environ.get("PYTHONOPTIMIZE", "") not in ("", "0", "1") or "-OO" in sys.orig_argv
    if sys.flags.optimize < 2 or not asked:
        return
    os.environ["PYTHONOPTIMIZE"] = "1"
    words = [word for word in sys.orig_argv[1:] if word != "-OO"]
    os.execv(sys.executable, [sys.executable, *words])


def _have_home() -> None:
    """Be somebody, and have a home, where the system knows no such user: in a container, say.

    Half of the libraries ask for either, and have no answer of their own.
    """
    if os.path.expanduser("~") != "~":
        return
    os.environ.setdefault("LOGNAME", str(os.getuid()))
    os.environ["HOME"] = "/"
    try:
        home = Path(tempfile.gettempdir(), f"l2i-{os.getuid()}")
        with suppress(FileExistsError):
            home.mkdir(mode=0o700)
        status = home.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            home = Path(tempfile.mkdtemp(prefix="l2i-"))  # Anybody can take a name in /tmp.
    except OSError:
        return  # No place to write to: who needs one says so.
    os.environ["HOME"] = str(home)
    click.echo(
        f"User {os.getuid()} has no home folder: caches go to {home}. Set HOME to keep them "
        "elsewhere.",
        err=True,
    )


class _Shown(logging.Handler):
    """Shows what lower layers log, as it is: that a store is waited for, say."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


_SHOWN = _Shown(logging.WARNING)


def _heed_sigterm() -> None:
    """End by SIGTERM even as process 1, as which `docker stop` meets us.

    The kernel keeps from process 1 every signal that it has no handler for; all others end by it
    without one.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:

        def stop(number: int, _frame: Any) -> None:
            raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, stop)


def _leave(code: int) -> NoReturn:
    """End a process that was told to, once it has done what it does at its end.

    Python would go on for seconds, on a busy machine for more than the ten after which a container
    is killed, to take torch and MLflow to pieces.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def main(args: Sequence[str] | None = None) -> None:
    """The console script ``l2i``.

    Parameters
    ----------
    args : sequence of str, optional
        By default those of the process.
    """
    if args is None:
        _with_docstrings()
        _open_streams()
        _have_home()
    _heed_sigterm()
    logging.getLogger("l2i").addHandler(_SHOWN)
    try:
        code = _run(args)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if code <= 128:
            raise
    # A task that was stopped says EX_TEMPFAIL, 75, in place of its signal.
    if (code > 128 or code == os.EX_TEMPFAIL) and args is None:
        _leave(code)
    sys.exit(code)
