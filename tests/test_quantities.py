"""Values with units on the command line, and what is said of settings."""

from __future__ import annotations

import tomllib

import click
import pytest

from l2i.cli import kinds
from l2i.config import Config, Warn, meanings, resolve
from tests.test_cli_data import Say


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (kinds.DURATION_S, "90", 90),
        (kinds.DURATION_S, "90s", 90),
        (kinds.DURATION_S, "1.5 h", 5400),
        (kinds.DURATION_S, "1h30m", 5400),
        (kinds.DURATION_S, "2D", 172_800),
        (kinds.MINUTES, "5m", 5),
        (kinds.MINUTES, "5", 5),
        (kinds.MINUTES, "30s", 0.5),
        (kinds.Quantity(kinds.TIME, 60, whole=True), "6h", 21_600),
        (kinds.Quantity(kinds.SIZE_MIB, 256, whole=True), "14GiB", 14_336),
        (kinds.Quantity(kinds.SIZE_MIB, 256, whole=True), "14000", 14_000),
    ],
)
def test_a_number_with_its_unit(kind: kinds.Quantity, text: str, value: float) -> None:
    """A bare number is of the unit that the option had before."""
    assert kind.convert(text, None, None) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "h", "6 parsecs", "1h30", "-5m", "5m,", "nan", "1 2"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    """And the units that there are are named."""
    with pytest.raises(click.BadParameter, match="there are s, m, min, h, d"):
        kinds.DURATION_S.convert(text, None, None)


def test_too_little_is_refused() -> None:
    """With the least there may be."""
    with pytest.raises(click.BadParameter, match="5s is not in the range: it must be 60 s or more"):
        kinds.Quantity(kinds.TIME, 60, whole=True).convert("5s", None, None)


def test_every_setting_has_a_meaning() -> None:
    """A sentence, its range or its choices, and the value it has before presets."""
    known = meanings(Config)
    del known["parts"]
    assert not [name for name, meaning in known.items() if not meaning.text]
    assert str(known["run.device"]).endswith("(one of 'auto', 'cpu', 'cuda', 'mps')")
    assert known["classifier.learning_rate"].allowed == "above 0, at most 1"
    assert known["dataset.sample_rate"].allowed == "1000 or more, at most 384000"
    assert known["explanation.warn.fall"].default == Warn().fall


def test_comments_change_no_setting() -> None:
    """TOML with meanings reads back as what it is without."""
    c = resolve(dataset="esc10")
    text = c.to_toml(explain=True)
    assert tomllib.loads(text) == tomllib.loads(c.to_toml())
    assert "# tau for removal. (0 or more, below 1)\nfaithfulness_threshold = 0.3\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_config_explain(say: Say) -> None:
    """One setting, a whole section, and the nearest to a word that is none."""
    told = say("config", "explain", "explanation.warn.fall")
    assert told.code == 0
    assert told.out.startswith("explanation.warn.fall = 0.2\n    An explanation holds if")
    section = say("config", "explain", "explanation.warn").out
    assert section.count("explanation.warn.") == len(Warn.model_fields)
    preset = say("config", "explain", "classifier.epochs", "--dataset", "demo").out
    assert "The preset of demo sets it; else 40." in preset
    wrong = say("config", "explain", "interpreter.veiws")
    assert wrong.code == 2 and "did you mean 'interpreter.views'?" in wrong.err
    assert "'interpreter.views'" in say("config", "explain", "views").err
