"""`l2i.cli`: words in, one call, exit codes out; help that is true, and no traceback but ours."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import requests

import l2i
from l2i.cli import COMMANDS, SECTIONS, cli, main, measuring
from l2i.cli.base import emit_json, emit_table, variables_of
from l2i.config import Config, preset_names, resolve
from l2i.environment import SHARED
from l2i.errors import ConfigError, DataError
from l2i.pages import write_listening_page
from l2i.pages.page import asset
from l2i.run.store import Store
from l2i.run.tracker import open_run
from tests.servers import Server, free_port
from tests.stores import Said


def _walk(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and group below `l2i`, with the words that lead to it."""
    if path:
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _walk(below, (*path, name))


ALL = list(_walk())
each_command = pytest.mark.parametrize(
    ("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL]
)


# --- help -------------------------------------------------------------------------------------


def test_every_command_of_the_table_is_there() -> None:
    """The words of `l2i --help` lead to commands of that name."""
    assert {path[0] for path, _ in ALL} == set(COMMANDS)
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted([*listed, "task"]) == sorted(COMMANDS)
    assert {"train", "evaluate", "explain", "runs", "doctor"} <= set(COMMANDS)
    for path, command in ALL:
        assert command.name == path[-1]


def test_help_names_every_command(say: Callable[..., Said]) -> None:
    """With its line, within 80 columns; -h is --help; examples and variables are told."""
    answer = say("--help")
    assert answer.code == 0 and answer.err == ""
    assert answer.out == say("-h").out
    for name, (_, short) in COMMANDS.items():
        assert name == "task" or re.search(rf"^  {name} +{re.escape(short)}$", answer.out, re.M)
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "Examples:" in answer.out and "L2I_<COMMAND>_<OPTION>" in answer.out
    for name in SHARED:
        assert f"{name} " in answer.out


def test_version(say: Callable[..., Said]) -> None:
    """The package's."""
    assert say("--version") == Said(0, f"l2i, version {l2i.__version__}\n", "")


def test_no_words_are_answered_with_help(say: Callable[..., Said]) -> None:
    """On stderr, since nothing was done; likewise for a group."""
    for words in ((), ("data",), ("config",)):
        answer = say(*words)
        assert answer.code == 2 and answer.out == ""
        assert answer.err.startswith("Usage: l2i")


@each_command
def test_help_of_a_command(
    path: tuple[str, ...], command: click.Command, say: Callable[..., Said]
) -> None:
    """It fits 80 columns, says what the command does without cutting a sentence, has examples of
    this very command, every option has a help, and the last line says how variables are called."""
    answer = say(*path, "--help")
    assert answer.code == 0 and answer.err == ""
    lines = answer.out.splitlines()
    assert max(map(len, lines)) <= 80
    # Words in capitals may be repeated; a sentence that click cuts ends in small letters.
    assert not re.search(r"[a-z ,]\.\.\.", answer.out)
    assert lines.count("Examples:") == 1
    examples = lines[lines.index("Examples:") + 1 :]
    assert examples, "a heading and nothing below it"
    assert any(f"l2i {' '.join(path)}" in line for line in examples)
    shown = " ".join(answer.out.split())
    for option in command.params:
        if isinstance(option, click.Option) and not (option.hidden or "--help" in option.opts):
            assert option.help, option.name
            old = getattr(option, "old", ())
            assert max((word for word in option.opts if word not in old), key=len) in shown
            assert not any(re.search(rf"{word}(?![\w-])", shown) for word in old)
            for variable in variables_of(option)[:1]:
                pattern = f"L2I_{'_'.join(path)}_<OPTION>".replace("-", "_").upper()
                last = answer.out.rpartition("\n\n")[2]
                assert last.startswith("Variables: ")
                assert variable in last or (variable not in SHARED and pattern in last)


# A run says where its data are; the variable of all data sets is asked where they are gone.
_MEASURE = ("evaluate", "benchmark", "audit", "overlap", "noise", "components")


def test_no_variable_means_two_things() -> None:
    """What commands share has a short name, all else the command's; none answers a question, none
    is for an option that may be given several times."""
    meant: dict[str, set[tuple[str, ...]]] = {}
    for path, command in ALL:
        for option in command.params:
            if not isinstance(option, click.Option) or "--help" in option.opts:
                continue
            old = getattr(option, "old", ())
            word = max((word for word in option.opts if word not in old), key=len)
            if word == "--yes" or option.multiple or option.hidden:
                assert option.envvar is None
                continue
            if word in ("--data-dir", "--dataset") and path[0] in _MEASURE:
                assert not option.envvar
                continue
            assert len(variables_of(option)) == 1 + len(old), (path, word)
            variable = variables_of(option)[0]
            own = "_".join(("L2I", *path, word[2:])).replace("-", "_").upper()
            short = f"L2I_{word[2:]}".replace("-", "_").upper()
            assert variable in (short if short in SHARED else own, "L2I_JOB")
            for name in variables_of(option):
                meant.setdefault(name, set()).add(() if short in SHARED else path)
    assert all(len(paths) == 1 for paths in meant.values())
    assert {"L2I_TRAIN_SEED", "L2I_RUNS_LIMIT", "L2I_EVALUATE_OUT", *SHARED} <= set(meant)


def test_an_old_name_still_does(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a word, as a variable and in a preset; the present name of a variable wins."""
    seen = []

    def overlap(_run: str, wanted: Any, *_: Any, sounds: int, **__: Any) -> Any:
        seen.append((wanted.noise_db, sounds))
        raise DataError("enough")

    monkeypatch.setattr("l2i.recipes.measuring.overlap.overlap", overlap)
    Path("old.toml").write_text("[overlap]\nnoise-db = 3.0\nsounds = 1\n")
    Path("new.toml").write_text("[overlap]\nsnr-db = 3.0\nsave-sounds = 1\n")
    for words in (
        ("--noise-db", "3", "--sounds", "1"),
        ("--snr-db", "3", "--save-sounds", "1"),
        ("--preset", "old.toml"),
        ("--preset", "new.toml"),
    ):
        assert say("overlap", "latest", *words).err == "Error: enough\n"
    monkeypatch.setenv("L2I_OVERLAP_SOUNDS", "1")
    assert say("overlap", "latest", "--snr-db", "3").err == "Error: enough\n"
    assert seen == [(3.0, 1)] * 5
    monkeypatch.setenv("L2I_OVERLAP_SAVE_SOUNDS", "2")
    say("overlap", "latest")
    assert seen[-1] == (None, 2)


@pytest.mark.parametrize(
    ("name", "words", "hint"),
    [
        ("L2I_DATASTE", ("train",), "did you mean L2I_DATASET?"),
        ("L2I_SEED", ("train",), "did you mean L2I_TRAIN_SEED?"),
        ("L2I_LIMIT", ("runs",), "did you mean L2I_RUNS_LIMIT?"),
        ("L2I_LIMIT", ("evaluate", "latest"), "did you mean L2I_"),
        ("L2I_YES", ("data", "clean"), "L2I_YES. 'l2i COMMAND --help' names those"),
        ("L2I_OVERRIDE", ("train",), "There is no variable L2I_OVERRIDE"),
    ],
)
def test_a_variable_that_nobody_reads_is_refused(
    name: str,
    words: tuple[str, ...],
    hint: str,
    say: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before anything is done, with the nearest one; help is given all the same."""
    monkeypatch.setenv(name, "7")
    answer = say(*words)
    assert answer.code == 2 and answer.out == "" and not Path("mlruns").exists()
    assert answer.err.startswith(f"Error: There is no variable {name}") and hint in answer.err
    assert say(*words[:1], "--help").code == 0


def test_what_others_set_is_no_option(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes names the services of a namespace by variables; one may be called l2i."""
    for name in ("L2I_PORT", "L2I_SERVICE_HOST", "L2I_UI_PORT_5000_TCP_ADDR", "L2I_PORT_80_TCP"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    for name in ("L2I_PATIENCE", "L2I_TASK_INDEX", "L2I_REVISION"):
        monkeypatch.setenv(name, "1")
    assert say("config", "show").code == 0


def _parse(words: list[str]) -> click.Command:
    """Let click read a command line without doing what it says."""
    context, command = cli.make_context("l2i", words), cli
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            break
        name, below, rest = command.resolve_command(context, rest)
        assert below is not None
        context, command = below.make_context(name, rest, parent=context), below
    return command


@each_command
def test_examples_can_be_typed(path: tuple[str, ...], command: click.Command) -> None:
    """Every command line among the examples of a help is one that the command understands."""
    examples = getattr(command, "examples", ())
    assert examples
    for example in examples:
        if example.startswith("l2i "):
            _parse(shlex.split(example.partition(">")[0])[1:])


def test_an_example_that_is_wrong_would_be_seen() -> None:
    """The test above fails on an option that is not there."""
    with pytest.raises(click.UsageError):
        _parse(["runs", "--limits", "3"])
    with pytest.raises(click.UsageError):
        _parse(["config", "chek", "a.toml"])


# --- wrong words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "There is no command 'trian'. Did you mean 'train'?"),
        (["xyzzy"], "There is no command 'xyzzy'.\n"),
        (["--frobnicate"], "--frobnicate"),
        (["config", "chek"], "chek"),
        (["runs", "--limt", "3"], "--limit"),
        (["runs", "--limit", "0"], "--limit"),
        (["submit", "x.toml", "--on", "lcoal"], "did you mean 'local'? There are: local, docker"),
        (["submit", "x.toml", "--on", "mine"], "or MODULE:NAME, or FILE.py:NAME."),
        (["runs", "shwo", "latest"], "Did you mean 'l2i runs show'?"),
        (["completion", "tcsh"], "tcsh"),
        (["config", "check"], "FILE"),
        (["train", "--fold", "0"], "--fold"),
        (["explain", "latest"], "Give AUDIO files, too, such as 'l2i explain latest my.wav'."),
        (["explain", "latest", "-"], "/dev/stdin"),
        (["explain", "latest", "http://a.org/b.wav"], "http://a.org/b.wav is an address"),
        (["explain", "latest", "a.wav", "--classifier", "a.py:b"], "'latest' is no file"),
        (["evaluate"], "RUN"),
        (["explain", "latest", "a.wav", "--window", "nan"], "'nan' is no finite number"),
        (["evaluate", "latest", "--threshold", "nan"], "'nan' is no finite number"),
        (["overlap", "latest", "--gain-db", "inf"], "'inf' is no finite number"),
        (["audit", "latest", "--false-alarms", "nan"], "'nan' is no finite number"),
        (["explain", "latest", ""], "AUDIO is empty"),
        (["explain", "latest", "a.wav", "--out", ""], "it is empty"),
        (["train", "--data-dir", ""], "it is empty"),
    ],
)
def test_wrong_words_end_with_2(words: list[str], message: str, say: Callable[..., Said]) -> None:
    """What is wrong is named on stderr, with the nearest right word where there is one."""
    answer = say(*words)
    assert answer.code == 2 and answer.out == ""
    assert message in answer.err and "Traceback" not in answer.err


def test_a_hidden_option_is_not_suggested(say: Callable[..., Said]) -> None:
    """'--parent' is like '--datset', too, and for engines."""
    answer = say("train", "--datset", "demo")
    assert "--dataset" in answer.err and "--parent" not in answer.err


def test_cautions_are_wrapped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the width of the terminal, 80 columns at most."""
    for columns, most in (("50", 50), ("300", 80)):
        monkeypatch.setenv("COLUMNS", columns)
        measuring.caution(["Explanations of bell do not hold: " + "their removal hardly " * 9])
        assert max(map(len, capsys.readouterr().out.splitlines())) in range(most - 15, most + 1)


def test_a_wrong_setting_ends_with_2_before_anything_is_done(say: Callable[..., Said]) -> None:
    """`train` with two mistakes names both, and leaves no folder."""
    answer = say("train", "-o", "interpreter.epoch=3", "-o", "run.seed=-1")
    assert answer.code == 2 and answer.out == ""
    assert "2 mistakes in the config" in answer.err
    assert "did you mean 'interpreter.epochs'?" in answer.err
    assert list(Path.cwd().iterdir()) == []


def test_a_wrong_name_of_a_data_set_ends_with_2(say: Callable[..., Said]) -> None:
    """With the nearest one, in every command that takes one."""
    for words in (["data", "info", "esc-10"], ["data", "fetch", "esc-10"]):
        answer = say(*words)
        assert answer.code == 2, words
        assert "did you mean 'esc10'?" in answer.err


# --- exit codes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "err"),
    [
        (DataError("clip 7 is silent."), 1, "Error: clip 7 is silent.\n"),
        (ConfigError(["run.seed = -1: no."]), 2, "Error: run.seed = -1: no.\n"),
        (KeyboardInterrupt(), 130, "\nStopped.\n"),  # Below the ^C of the terminal.
        (click.Abort(), 130, "Stopped.\n"),
        (SystemExit(143), 143, ""),
    ],
)
def test_what_happened_is_the_exit_code(
    error: BaseException,
    code: int,
    err: str,
    say: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line on stderr, nothing on stdout, no traceback."""

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("l2i.cli.runs.list_runs", broken)
    assert say("runs") == Said(code, "", err)


def test_a_folder_that_was_deleted(
    say: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To stand in one is a sentence, whatever the command is."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    answer = say("runs")
    assert answer.code == 1 and "current folder was deleted" in answer.err


@pytest.mark.parametrize(("value", "plain"), [("1", True), ("", False)])
def test_no_color(value: str, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR, unless it is empty, is heeded on a terminal too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(l2i.__file__).resolve().parent.parent))
    monkeypatch.setenv("NO_COLOR", value)
    ours, theirs = pty.openpty()
    with open(ours, "rb", closefd=True) as screen:
        subprocess.run([sys.executable, "-m", "l2i", "data", "list"], stdout=theirs, check=True)
        os.close(theirs)
        assert (b"\x1b[" not in screen.read1()) == plain


def test_stopped_is_resumed(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C a training says how it goes on."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("l2i.recipes.training.train.train", interrupted)
    answer = say("train", "--dataset", "demo")
    assert answer.code == 130
    assert answer.err.strip() == "Stopped. The same command goes on from here."


def test_our_own_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything else is not caught: a person could do nothing about a tidy sentence."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("l2i.cli.runs.list_runs", broken)
    with pytest.raises(ZeroDivisionError):
        main(["runs"])


def test_debug_shows_the_traceback_behind_a_message(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``L2I_DEBUG=1``, and the sentence after it."""
    monkeypatch.setenv("L2I_DEBUG", "1")
    answer = say("config", "check", "absent.toml")
    assert answer.code == 2
    assert answer.err.startswith("Traceback") and "\nError: " in answer.err


@pytest.mark.parametrize("words", [["evaluate", "latest"], ["explain", "latest", "my.wav"], ["ui"]])
def test_without_runs_what_needs_one_says_so(words: list[str], say: Callable[..., Said]) -> None:
    """Exit code 1 and what makes one; nothing is left behind."""
    answer = say(*words)
    assert answer.code == 1 and answer.out == ""
    assert "There are no runs" in answer.err and "l2i train --dataset demo" in answer.err
    assert list(Path.cwd().iterdir()) == []


def test_help_without_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same where Python is told to throw docstrings away."""
    monkeypatch.setenv("PYTHONPATH", str(Path(l2i.__file__).resolve().parent.parent))

    def help_of(words: list[str], **more: str) -> str:
        return subprocess.run(
            [*words, "runs", "gc", "--help"],
            env=os.environ | more,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    console = str(Path(sys.executable).with_name("l2i"))
    plain = help_of([console])
    assert "Remove deleted runs for good" in plain
    assert help_of([console], PYTHONOPTIMIZE="2") == plain
    assert help_of([sys.executable, "-OO", "-P", "-m", "l2i"]) == plain
    assert help_of([sys.executable, "-m", "l2i"], PYTHONOPTIMIZE="1") == plain


@pytest.mark.parametrize(
    ("words", "streams", "code", "message"),
    [
        ("--version", ">&-", 0, ""),
        ("runs", ">&-", 0, "There are no runs yet; 'l2i train --dataset demo' makes one.\n"),
        ("config show", "<&- >&-", 0, ""),
        ("--version", ">/dev/full", 1, "The output cannot be written (No space left on device)."),
        ("config show", ">/dev/full", 1, "The output cannot be written (No space left on device)."),
        ("config list --nonsense", "2>/dev/full", 2, ""),
    ],
)
def test_an_output_that_is_closed_or_full(
    words: str, streams: str, code: int, message: str
) -> None:
    """A closed one is as if it were /dev/null; what a full disk does not take is said in a
    sentence. Python has nothing to add when it ends."""
    l2i = shlex.quote(str(Path(sys.executable).with_name("l2i")))
    done = subprocess.run(
        f"{l2i} {words} {streams}", shell=True, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (code, f"Error: {message}\n" if code == 1 else message)


def test_a_reader_that_goes_away_is_no_fault() -> None:
    """``l2i config show | head -1``: exit code 0, not a word on stderr."""
    env = {**os.environ, "PYTHONPATH": str(Path(l2i.__file__).resolve().parent.parent)}
    reader, writer = os.pipe()
    os.close(reader)
    for words in (["config", "show"], ["data", "list"], ["--help"], ["runs", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "l2i", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
    os.close(writer)


# --- environment variables --------------------------------------------------------------------


def test_options_are_read_from_the_environment(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``L2I_CONFIG_SHOW_SECTION`` is --section of 'config show'; what is typed wins over it."""
    monkeypatch.setenv("L2I_CONFIG_SHOW_SECTION", "run")
    assert say("config", "show").out.startswith("[run]")
    assert say("config", "show", "--section", "output").out.startswith("[output]")
    monkeypatch.setenv("L2I_RUNS_LIMIT", "none")
    answer = say("runs")
    assert answer.code == 2 and "L2I_RUNS_LIMIT" in answer.err


# --- config -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_config_show_reads_back(name: str, say: Callable[..., Said]) -> None:
    """What it prints is TOML that --config takes, of the same signature, told on its first line;
    shown again it is the same to the letter."""
    first = say("config", "show", "--dataset", name, "-o", "run.seed=7")
    assert first.code == 0 and first.err == ""
    Path("mine.toml").write_text(first.out, encoding="utf-8")
    want = resolve(dataset=name, overrides=["run.seed=7"])
    assert resolve("mine.toml") == want
    assert first.out.splitlines()[0] == f"# signature {want.signature()}"
    assert say("config", "show", "--config", "mine.toml").out == first.out


def test_config_show_of_one_section(say: Callable[..., Said]) -> None:
    """Only it, with what is below it; one that is not there is answered with the nearest."""
    answer = say("config", "show", "--section", "classifier")
    tree = tomllib.loads(answer.out)
    assert set(tree) == {"classifier"} and "mixup" in tree["classifier"]["augmentation"]
    assert set(tomllib.loads(say("config", "show", "--section", "run").out)) == {"run"}
    answer = say("config", "show", "--section", "dictionry")
    assert answer.code == 2 and "did you mean 'dictionary'?" in answer.err


def test_config_check_names_every_mistake(say: Callable[..., Said]) -> None:
    """All three, each with its file; the file that is fine is said to be fine."""
    Path("good.toml").write_text('extends = "esc10"\n[interpreter]\nepochs = 10\n')
    Path("bad.toml").write_text(
        '[interpreter]\nepoch = 3\npooling = "mean"\n[dictionary]\nsparsity = -1\n'
    )
    answer = say("config", "check", "good.toml", "bad.toml")
    assert answer.code == 2
    assert answer.out == f"good.toml: fine; data set esc10, {resolve('good.toml').signature()}\n"
    assert "3 mistakes" in answer.err
    for words in (
        "bad.toml: There is no setting 'interpreter.epoch'; did you mean 'interpreter.epochs'?",
        "bad.toml: interpreter.pooling = 'mean': ",
        "bad.toml: dictionary.sparsity = -1: ",
    ):
        assert words in answer.err
    assert say("config", "check", "good.toml").code == 0


# --- runs -------------------------------------------------------------------------------------


def test_runs_without_a_store(say: Callable[..., Said]) -> None:
    """No table, a hint on stderr, and no fault; as JSON an empty list; no store is made."""
    answer = say("runs")
    assert (answer.code, answer.out) == (0, "")
    assert "l2i train --dataset demo" in answer.err
    assert json.loads(say("runs", "--json").out) == []
    assert not Path("mlruns").exists()


def test_runs_as_a_table_and_as_json(store: Store, say: Callable[..., Said]) -> None:
    """Newest first, at most 80 columns also where names are long; figures where there are any;
    JSON has everything, NaN as null."""
    with open_run(
        experiment="demo", name="first-" + "x" * 90, signature="a", params={"run.seed": 0}
    ) as run:
        run.final({"test/accuracy": 0.75, "test/fidelity_top1": float("nan")})
    with open_run(experiment="other", name="second", signature="b"):
        pass
    lines = say("runs").out.splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 80
    assert lines[0].split() == ["top-1"]
    assert " ".join(lines[1].split()) == "id name experiment status started accuracy fidelity"
    assert " second " in lines[2] and "finished" in lines[2]
    assert lines[3].startswith(run.run_id[:8]) and "…" in lines[3] and "0.750" in lines[3]
    runs = json.loads(say("runs", "--json").out)
    assert [item["name"] for item in runs] == ["second", run.name]
    assert runs[1]["metrics"] == {"test/accuracy": 0.75, "test/fidelity_top1": None}
    assert runs[1]["params"] == {"run.seed": "0"} and runs[1]["status"] == "FINISHED"
    assert len(say("runs", "--limit", "1").out.splitlines()) == 2
    assert " second " not in say("runs", "--experiment", "demo").out
    missing = say("runs", "--experiment", "dem")
    assert missing.code == 2 and "did you mean 'demo'?" in missing.err


# --- ui ---------------------------------------------------------------------------------------


def _pages(run: Any) -> None:
    """What a run has that can be heard: a page of this version, and one of another making."""
    folder = Path("explanations")
    folder.mkdir()
    write_listening_page(folder / "index.html", [], [], title="heard")
    (folder / "other.html").write_text("<script>1</script>", encoding="utf-8")
    (folder / "a.wav").write_bytes(b"RIFF")
    run.artifact(folder, "explanations")
    Path("secret.txt").write_text("secret", encoding="utf-8")
    run.artifact("secret.txt")


def test_ui_prints_the_page_and_starts_a_light_server(
    store: Store, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start page, or MLflow's of a run, once the server answers, and not before; one process,
    no job runner, on this machine only; a server that fails is said to have failed."""
    import l2i.cli.ui

    with open_run(experiment="demo", name="a", signature="a") as run:
        pass
    started: list[list[str]] = []
    codes = iter([0, 0, 3])

    def serve(command: list[str], _environment: dict[str, str], at: Callable[[], bool]) -> int:
        started.append(command)
        code = next(codes)
        assert not at()
        with socket.socket() as server:
            server.bind(("127.0.0.1", int(command[command.index("--port") + 1])))
            server.listen()
            if not code:
                assert at()
        return code

    ui = l2i.cli.ui
    monkeypatch.setattr(ui, "_serve", serve)
    port = str(free_port())
    answer = say("ui", "--port", port)
    assert (answer.code, answer.out) == (0, f"http://127.0.0.1:{port}/\n")
    page = f"/mlflow#/experiments/{run.experiment_id}/runs/{run.run_id}"
    answer = say("ui", "a", "--port", port)
    assert answer.out == f"http://127.0.0.1:{port}{page}?workflowType=machine_learning\n"
    line = " ".join(started[0])
    assert f"-m uvicorn l2i.recipes.publishing.site:app --host 127.0.0.1 --port {port}" in line
    assert ui.server_environment("::")["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "exit code 3" in say("ui", "--port", port).err
    assert say("ui", "b", "--port", port).code == 2


def test_ui_serves_the_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every name of this machine, at whatever port, and by no other; no file of the current
    folder is run, though it is called as a module is. The start page leads to all of a run; what
    can be heard is served under a policy, and nothing else of the run."""
    with open_run(experiment="demo", name="a<b>", signature="a") as run:
        run.final({"test/faithfulness_probability": 0.5, "test/random_probability": 0.125})
        _pages(run)
    for name in ("random", "uvicorn", "fastapi", "mlflow"):
        Path(f"{name}.py").write_text("open('run', 'w'); raise SystemExit(9)\n")
    monkeypatch.setenv("PYTHONPATH", str(Path(l2i.__file__).resolve().parent.parent))
    port = free_port()
    words = ["--port", str(port), "--host", "0.0.0.0", "--allowed-hosts", "Runs.lab.example"]
    server = Server([sys.executable, "-P", "-m", "l2i", "ui", *words], port)
    search = f"{server.url}/ajax-api/2.0/mlflow/runs/search"
    heard = f"{server.url}/listen/{run.run_id}"

    def answer(name: str) -> int:
        called = {"Host": f"{name}:8080", "Origin": f"http://{name}:8080"}
        response = requests.post(search, json={"experiment_ids": ["0"]}, headers=called, timeout=30)
        return response.status_code

    def policy(path: str) -> str:
        response = requests.get(f"{heard}/{path}", timeout=30)
        assert response.status_code == 200, response.text
        return response.headers["Content-Security-Policy"]

    try:
        server.start()
        start = requests.get(server.url, timeout=30).text
        assert (
            "a&lt;b&gt;" in start
            and "faithfulness</abbr> <strong>0.500</strong> (random 0.125)" in start
        )
        assert f'class="listen" href="/listen/{run.run_id}"' in start
        mlflow = requests.get(f"{server.url}/mlflow", timeout=30).text
        assert '<div id="root"' in mlflow and "autoOpenedOnFirstLoad" in mlflow
        assert "test/accuracy" in mlflow and asset("mlflow.css") in mlflow
        assert requests.get(f"{server.url}/mlflow/", timeout=30).url == f"{server.url}/mlflow"
        names = ("localhost", socket.gethostname().lower(), "runs.lab.example", "evil.example")
        assert [answer(name) for name in names] == [200, 200, 200, 403]
        evil = requests.get(server.url, headers={"Host": "evil.example"}, timeout=30)
        assert evil.status_code == 403
        page = requests.get(heard, timeout=30)
        assert page.url == f"{heard}/explanations/index.html" and "<h1>heard</h1>" in page.text
        own = policy("explanations/index.html")
        assert "script-src 'sha256-" in own and "sandbox" not in own
        assert policy("explanations/other.html") == "sandbox allow-scripts allow-downloads"
        assert policy("explanations/a.wav") == "sandbox"
        for path in ("secret.txt", "explanations/..%2f..%2fsecret.txt", "explanations/b.html"):
            assert requests.get(f"{heard}/{path}", timeout=30).status_code == 404
    finally:
        server.end()
    assert not Path("run").exists()


def test_ui_says_that_a_port_is_taken(store: Store, say: Callable[..., Said]) -> None:
    """With exit code 2, and how to choose another."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        answer = say("ui", "--port", str(other.getsockname()[1]))
    assert answer.code == 2 and "is taken or forbidden; choose another by --port" in answer.err


def test_listen_opens_the_page_of_a_run(
    store: Store, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the newest, or of the one that is named, at a free port; a run without one is said
    to have none, and what makes one. A browser is opened where there is one and it is wanted."""
    import l2i.cli.ui

    with open_run(experiment="demo", name="first", signature="a") as run:
        _pages(run)
    with open_run(experiment="demo", name="mute", signature="b") as other_run:
        other_run.artifact("secret.txt")
    ran: list[tuple[int, str, bool]] = []

    def serve(host: str, port: int, names: object, page: str, *, browser: bool) -> None:
        ran.append((port, page, browser))

    monkeypatch.setattr(l2i.cli.ui, "_run", serve)
    page = f"/listen/{run.run_id}/explanations/index.html"
    port = free_port()
    assert say("listen", "first", "--port", str(port)).code == 0
    assert say("listen", "fir", "--no-browser", "--port", str(port)).code == 0
    assert ran == [(port, page, True), (port, page, False)]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert say("listen", "first", "--port", str(taken)).code == 2
        monkeypatch.setattr(l2i.cli.ui, "_PORT", taken)
        assert say("listen", "first").code == 0
    assert ran[2][0] not in (taken, port)
    with open_run(experiment="demo", name="components", signature="c") as below:
        below.artifact("explanations/index.html")
    assert say("listen", "components").code == 0
    assert ran[3][1] == f"/listen/{below.run_id}/index.html"
    mute = say("listen", "mute")
    assert mute.code == 1
    assert "has no page to listen to" in mute.err and "l2i explain" in mute.err
    tags = {"l2i.kind": "noise", "mlflow.parentRunId": below.run_id}
    with open_run(experiment="demo", name="measured", signature="m", tags=tags) as run:
        run.artifact("explanations/index.html", "elsewhere")
    assert (
        f"'l2i listen {below.run_id[:8]}' opens the page of its parent"
        in say("listen", "measured").err
    )


@pytest.mark.parametrize("display", ["", ":0"])
def test_a_browser_is_opened_where_there_is_a_screen(
    display: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal alone, a text browser would take the terminal."""
    import webbrowser

    from l2i.cli.ui import _open

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    _open("http://127.0.0.1:5000/")
    assert opened == (["http://127.0.0.1:5000/"] if display else [])


# --- explain ----------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [False, True])
def test_explain_says_where_sounds_lie_beside_the_page(
    beside: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where they are too many for one page: who moves it is told to take the folder along."""
    from l2i.cli.explain import _show

    (tmp_path / "a").mkdir()
    if beside:
        (tmp_path / "a" / "page.js").touch()
    _show([], tmp_path)
    assert (f"keep {tmp_path} as a whole" in capsys.readouterr().out) == beside


# --- doctor -----------------------------------------------------------------------------------


def test_a_user_without_name_and_home(tmp_path: Path) -> None:
    """Gets a private folder for caches, which is said, and every check of doctor works."""
    user = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    if shutil.which("unshare") is None or subprocess.run([*user, "true"]).returncode:
        pytest.skip("This system maps no user ids.")
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "LOGNAME")}
    l2i = str(Path(sys.executable).with_name("l2i"))
    done = subprocess.run(
        [*user, l2i, "doctor", "--json"],
        env=env | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    home = tmp_path / "l2i-12345"
    assert done.stderr == (
        f"User 12345 has no home folder: caches go to {home}. Set HOME to keep them elsewhere.\n"
    )
    findings = json.loads(done.stdout)
    assert not [f for f in findings if "This check broke" in f["sentence"]]
    assert any(str(home / ".cache" / "l2i") in f["sentence"] for f in findings)
    assert home.stat().st_mode & 0o777 == 0o700


def test_doctor_answers_yes_no_or_unknown(say: Callable[..., Said]) -> None:
    """One sentence per line for people, the same for programs; a healthy machine is a 0; and it
    leaves nothing behind."""
    checks = json.loads(say("doctor", "--json").out)
    abouts = {item["about"] for item in checks}
    assert {"python", "torch", "cuda", "audio", "store", "cpu", "memory", "disk", "data"} <= abouts
    assert {item["answer"] for item in checks} <= {"yes", "no", "unknown"}
    assert any("demo is here" in item["sentence"] for item in checks)
    answer = say("doctor")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert len(lines) == len(checks)
    for line, item in zip(lines, checks, strict=True):
        assert line.split()[0] == item["answer"] and line.endswith((".", item["sentence"][-1]))
    assert not Path("mlruns").exists()


def test_doctor_ends_with_1_where_nothing_works(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 'no' that blocks is a 1; one that does not is a 0; a check that breaks is an 'unknown',
    and the others are still made."""
    import l2i.cli.doctor

    doctor = l2i.cli.doctor

    def breaks() -> Any:
        raise RuntimeError("no such thing\nmore")

    def checks(*answers: tuple[str, bool]) -> Any:
        return [
            breaks,
            *[lambda a=a, b=b: iter([doctor.Finding("x", a, "So it is.", b)]) for a, b in answers],
        ]

    monkeypatch.setattr(doctor, "_CHECKS", checks(("yes", True), ("no", False)))
    answer = say("doctor")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "unknown This check broke: RuntimeError: no such thing",
        "yes     So it is.",
        "no      So it is.",
    ]
    monkeypatch.setattr(doctor, "_CHECKS", checks(("no", True)))
    assert say("doctor").code == 1
    assert say("doctor", "--json").code == 1


def test_doctor_says_that_a_store_cannot_be_read(say: Callable[..., Said]) -> None:
    """A file that is no database blocks everything."""
    Path("mlruns").mkdir()
    Path("mlruns/mlflow.db").write_bytes(b"this is not sqlite" * 100)
    answer = say("doctor", "--json")
    assert answer.code == 1
    (item,) = [item for item in json.loads(answer.out) if item["about"] == "store"]
    assert item["answer"] == "no" and item["blocks"] and "cannot be opened" in item["sentence"]


# --- completion -------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, say: Callable[..., Said]) -> None:
    """A script for l2i that the shell, where it is there, can read."""
    answer = say("completion", shell)
    assert answer.code == 0
    assert f"_L2I_COMPLETE={shell}_complete" in answer.out and "l2i" in answer.out
    if path := shutil.which(shell):
        subprocess.run([path, "-n"], input=answer.out, text=True, check=True, timeout=60)


def test_words_are_completed(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the script asks for: commands, their sub-commands, their options, names of data sets;
    where a folder is wanted the shell is told to look for one."""
    monkeypatch.setenv("_L2I_COMPLETE", "bash_complete")
    for words, want in (
        ("l2i tr", {"train"}),
        ("l2i config c", {"check"}),
        ("l2i runs --e", {"--experiment"}),
        ("l2i completion ", {"bash", "zsh", "fish"}),
        ("l2i train --dataset esc", {"esc10", "esc50"}),
        ("l2i data fetch s", {"sust"}),
        ("l2i train --data-dir ES", {"ES"}),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        answer = say()
        assert {line.partition(",")[2] for line in answer.out.splitlines()} == want, words


# --- tables and JSON --------------------------------------------------------------------------


def test_tables_fit_and_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    """The widest columns of words are cut until 80 columns do; numbers stand to the right; None is
    nothing."""
    emit_table(["name", "note", "n"], [["a" * 70, "b" * 30, 7], ["short", None, 1234]], right=[2])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" in lines[1] and lines[1].endswith("   7") and lines[2].endswith("1234")
    assert "None" not in lines[2]
    emit_table(["name", "note"], [["a" * 49, "b" * 30]])
    assert capsys.readouterr().out.splitlines()[1] == "a" * 49 + " " + "b" * 30
    emit_table(["a", "b"], [])
    assert capsys.readouterr().out == "a  b\n"
    emit_table(["run", "top-1 fidelity", "kept"], [["r" * 68, "0.5", "0.25"]], right=[1, 2])
    assert capsys.readouterr().out.splitlines() == [
        " " * 70 + "top-1",
        "run" + " " * 64 + "fidelity kept",
        "r" * 33 + "…" + "r" * 32 + "      0.5 0.25",
    ]


def test_rows_of_a_table_without_room_stay_distinguishable(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Words go on in the line below, a single one keeps both ends, and numbers are not cut."""
    numbers = ["-0.125"] * 9
    titles = ["Stability of the mask at 10 dB", "Stability of the mask at 20 dB"]
    heads = ["what", *"abcdefghi"]
    emit_table(heads, [[title, *numbers] for title in titles], right=range(1, 10))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(word in " ".join(lines) for word in ("10 dB", "20 dB"))
    assert sum(line.count("-0.125") for line in lines) == 18
    emit_table(heads, [["lmac-audio-of-mine", *numbers], ["lmac-td-of-others", *numbers]])
    first, second = (line.split()[0] for line in capsys.readouterr().out.splitlines()[1:])
    assert first != second and "…" in first and first.endswith("e") and second.endswith("s")


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN and infinities are null at any depth; paths are texts; other scripts are readable."""
    emit_json({"a": [float("nan"), (1.5, -float("inf"))], "é": Path("x"), 3: True, "n": None})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": [None, [1.5, None]], "é": "x", "3": True, "n": None}
    assert "é" in out


def test_python_m_l2i_is_l2i(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module runs the console script."""
    import runpy

    monkeypatch.setattr(sys, "argv", ["l2i", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("l2i", run_name="__main__")
    assert end.value.code == 0


def test_process_1_heeds_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the kernel keeps from it, unless it has a handler; all others end by it without one."""
    import l2i.cli

    set_: list[object] = []
    monkeypatch.setattr(signal, "signal", lambda number, handler: set_.extend((number, handler)))
    l2i.cli._heed_sigterm()
    assert set_ == []
    monkeypatch.setattr(os, "getpid", lambda: 1)
    l2i.cli._heed_sigterm()
    number, handler = set_
    assert number == signal.SIGTERM and callable(handler)
    with pytest.raises(SystemExit) as end:
        handler(signal.SIGTERM, None)
    assert end.value.code == 143


def test_who_is_told_to_end_ends_at_once(child: Callable[[str], subprocess.Popen[str]]) -> None:
    """With the exit code, after what is to be done at the end, and without taking everything to
    pieces first."""
    process = child(
        """
        import atexit, sys
        import l2i.cli

        class Slow:
            def __del__(self):
                print("taken to pieces")

        slow = Slow()
        atexit.register(print, "cleaned up")

        def run(_):
            print("there")
            raise SystemExit(143)

        l2i.cli._run = run
        l2i.cli.main()
        """
    )
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out.split("\n")) == (143, ["there", "cleaned up", ""])


def test_ctrl_c_of_a_real_process_is_130(child: Callable[[str], subprocess.Popen[str]]) -> None:
    """A process that is interrupted amid a command says so in one word."""
    process = child(
        """
        import sys, time
        import l2i.run.runs
        from l2i.cli import main

        def wait(*_, **__):
            print("there", flush=True)
            time.sleep(60)

        l2i.run.runs.list_runs = wait
        main(["runs"])
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out.strip() == "Stopped."


def test_defaults_in_help_are_the_defaults(say: Callable[..., Said]) -> None:
    """What help says of unset options is what a config has."""
    c = Config()
    text = " ".join(say("train", "--help").out.split())
    assert f"[default: {c.dataset.name}]" in text
    assert f"[default: {c.dataset.fold}]" in text
    assert f"[default: {c.run.device}]" in text and f"[default: {c.run.precision}]" in text


def test_folders_among_the_files_to_explain(tmp_path: Path) -> None:
    """Their sound files, at any depth, in order; without what is hidden, no sound, or what l2i
    wrote there; a folder without any is said."""
    from l2i.cli.explain import _files

    names = ("b.wav", "a/c.flac", "a/.d.wav", "a/notes.txt", "out/.l2i", "out/dog/original.wav")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    alone = tmp_path / "a" / "notes.txt"
    wanted = [alone, tmp_path / "a" / "c.flac", tmp_path / "b.wav"]
    assert _files([str(alone), str(tmp_path)]) == wanted
    with pytest.raises(DataError, match="out has no sound file"):
        _files([str(tmp_path / "out")])


def test_figures_stand_beside_what_they_are_nothing_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Random removal in the row of the removal, the kept energy in those that a mask of ones
    passes; the published rule's have a table of their own, with its own kept energy; 80 columns."""
    from l2i.cli.measuring import show_figures
    from l2i.metrics import meanings

    scores = {
        "faithfulness_probability": 0.25,
        "random_probability": 0.01,
        "average_drop": 12.5,
        "ff_mean": 0.5,
        "kept": 0.4,
        "published_ff_mean": 0.1,
        "published_kept": float("nan"),
    }
    intervals = {"ff_mean": (0.4, 0.6)}
    show_figures(scores, intervals, meanings(scores))
    own, published = capsys.readouterr().out.split("By the published rule\n")
    rows, theirs = (
        {line[:40].split("  ")[0]: line for line in table.splitlines()}
        for table in (own, published)
    )
    assert "random 0.010" in theirs["Faithfulness, probability (median)"]
    assert not any("Random removal" in row for row in (*rows, *theirs))
    assert "12.50 %  ↓  kept 0.40" in rows["AD, average drop"]
    assert rows["FF, mean fall without explanation"].endswith("0.400 to 0.600")
    assert "0.100    ↑  kept nan" not in published and "not defined" in published
    assert max(map(len, own.splitlines())) <= 80


@pytest.mark.parametrize("command", ["evaluate", "overlap", "benchmark"])
def test_results_are_written_to_folders_alone(command: str, say: Callable[..., Said]) -> None:
    """An address would be a local folder called 's3:', and nothing of it in the bucket."""
    answer = say(command, "latest", "--out", "s3://bucket/figures")
    assert answer.code == 2 and "address, not a folder" in answer.err
    assert not Path("s3:").exists()
