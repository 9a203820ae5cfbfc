"""`l2i.run.progress`: bars on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io

import pytest

from l2i.run.progress import Progress, duration


class Terminal(io.StringIO):
    """What looks like one."""

    def isatty(self) -> bool:
        """It does."""
        return True


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        (0, "0.00 s"),
        (0.5, "0.50 s"),
        (59.94, "59.9 s"),
        (60, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_durations_are_for_people(seconds: float, want: str) -> None:
    """Two numbers at most."""
    assert duration(seconds) == want


def test_durations_are_rounded_before_they_are_cut() -> None:
    """A second that is not quite full is never called sixty seconds, a minute never sixty."""
    assert duration(59.97) == "1 min 00 s"
    assert duration(0.997) == "1.0 s"
    assert duration(3599.7) == "1 h 00 min"


def test_without_a_terminal_there_are_lines() -> None:
    """The last step always has one; those before only when it is time."""
    out = io.StringIO()
    progress = Progress(stream=out, every_s=1e9)
    progress.say("Learning.")
    with progress.task("interpreter", total=3, unit="epoch") as task:
        for n in range(3):
            task.advance(note=f"loss {n}")
    lines = out.getvalue().splitlines()
    assert lines[0] == "Learning."
    assert len(lines) == 2
    assert lines[1].startswith("interpreter: 3/3 epochs, ")
    assert ", done in " in lines[1] and lines[1].endswith(", loss 2")
    assert "left" not in lines[1]


def test_lines_say_how_long_it_will_take() -> None:
    """Count, speed and what is left, in every line where it is time for one."""
    out = io.StringIO()
    with Progress(stream=out, every_s=0.0).task("clips", total=4, unit="clip") as task:
        task.advance()
        task.advance()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("clips: 1/4 clips, ") and lines[0].endswith(" left")
    assert "about" in lines[1]
    # It stopped early, and says where.
    assert lines[2].startswith("clips: 2 clips, done in ")


def test_where_nobody_knows_the_end_there_is_none() -> None:
    """Neither a total nor what is left, but a last line."""
    out = io.StringIO()
    with Progress(stream=out, every_s=0.0).task("sweeps", unit="sweep") as task:
        task.advance(note="D 1.5")
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("sweeps: 1 sweep, ") and "left" not in lines[0]
    assert lines[1].startswith("sweeps: 1 sweep, done in ") and lines[1].endswith("D 1.5")


def test_another_process_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines come with its name where there is no terminal, none twice; on one they are a bar,
    which goes away with it."""
    out = io.StringIO()
    with Progress(stream=out, every_s=0.0).watch("1/2 seed 0") as show:
        for _ in range(2):
            show("classifier: 3/16 epochs, 9.1 s/epoch, about 2 min 01 s left, accuracy 0.5")
        show("interpreter: 1/4 epochs")
    assert out.getvalue().splitlines() == [
        "1/2 seed 0: classifier: 3/16 epochs, 9.1 s/epoch, about 2 min 01 s left, accuracy 0.5",
        "1/2 seed 0: interpreter: 1/4 epochs",
    ]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    progress = Progress(stream=terminal)
    with progress.watch("1/2 seed 0") as show:
        show("Device: cpu.")  # No count: nothing to show of it.
        show("classifier: 3/16 epochs, 9.1 s/epoch, about 2 min 01 s left, accuracy 0.5")
    assert progress._bars is None
    assert "1/2 seed 0, classifier" in terminal.getvalue() and "3/16" in terminal.getvalue()
    quiet = io.StringIO()
    with Progress(quiet=True, stream=quiet).watch("x") as show:
        show("classifier: 3/16 epochs, 9.1 s/epoch")
    assert not quiet.getvalue()


def test_what_an_earlier_process_did_is_counted_but_not_timed() -> None:
    """A resumed task begins where it was, and its speed is that of this process."""
    progress = Progress(stream=io.StringIO())
    with progress.task("interpreter", total=10, unit="epoch", done=9) as task:
        assert task.line() == "interpreter: 9/10 epochs"
        task._start -= 10.0
        task.advance()
        assert "10/10 epochs, 10.0 s/epoch" in task.line()


@pytest.mark.parametrize(
    ("total", "unit", "words"),
    [
        (1, "clip", "0/1 clip"),
        (2, "clip", "0/2 clips"),
        (None, "file", "0 files"),
        (5, "MB", "0/5 MB"),
    ],
)
def test_one_clip_and_two_clips(total: float | None, unit: str, words: str) -> None:
    """Words have a plural; what is an abbreviation has none."""
    with Progress(stream=io.StringIO()).task("x", total=total, unit=unit) as task:
        assert task.line() == f"x: {words}"


def test_a_task_begins_with_its_first_unit() -> None:
    """Where nothing is to be done nothing is shown; afterwards it is one task, and is ended."""
    out = Terminal()
    progress = Progress(stream=out)
    with progress.once_begun("clips", "clip"):
        pass
    assert out.getvalue() == ""
    with progress.once_begun("clips", "clip") as begun:
        first = begun(2)
        first.advance()
        assert begun(2) is first and first.done == 1
    text = out.getvalue()
    assert "clips" in text and "1/2" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is back"


def test_quiet_is_quiet() -> None:
    """Nothing is written, and tasks still count."""
    for out in (io.StringIO(), Terminal()):
        progress = Progress(quiet=True, stream=out, every_s=0.0)
        progress.say("Learning.")
        with progress.task("interpreter", total=2) as task:
            task.advance(2)
            assert task.done == 2
        assert out.getvalue() == ""


def test_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """So that what a command answers can be piped."""
    progress = Progress()
    progress.say("Learning.")
    with progress.task("interpreter", total=1) as task:
        task.advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Learning.\ninterpreter: 1/1 step")


def test_on_a_terminal_there_are_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """One per task, nested ones below, with notes; square brackets in names and sentences are
    what they are, and not somebody's mark-up."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Terminal()
    progress = Progress(stream=out)
    with progress.task("folds [bold]", total=1, unit="fold") as outer:
        with progress.task("interpreter", total=2, unit="epoch", done=1) as inner:
            progress.say("A sentence [red]with brackets[/red].")
            inner.advance(note="fidelity [0.7]")
        outer.advance()
    text = out.getvalue()
    for words in (
        "A sentence [red]with brackets[/red].",
        "folds [bold]",
        "interpreter",
        "2/2",
        "1/1",
        "fidelity [0.7]",
    ):
        assert words in text
    assert progress._bars is None, "the screen is given back"


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bars where the terminal cannot move its cursor."""
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    with Progress(stream=out).task("clips", total=1, unit="clip") as task:
        task.advance()
    assert out.getvalue().startswith("clips: 1/1 clip")
    assert "\x1b" not in out.getvalue()


def test_the_screen_is_given_back_when_a_task_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception passes, and the next task begins anew."""
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress(stream=Terminal())
    with pytest.raises(ZeroDivisionError), progress.task("clips", total=1):
        raise ZeroDivisionError
    assert progress._bars is None
    with progress.task("again", total=1) as task:
        task.advance()
    assert task.done == 1
