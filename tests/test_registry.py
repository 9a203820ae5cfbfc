"""`l2i.registry`: names are cheap, and a wrong one is answered well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from l2i.errors import UnknownName
from l2i.registry import Registry, nearest


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two names of a module that nobody has imported yet, one that lacks its attribute."""
    (tmp_path / "l2i_test_fruit.py").write_text("APPLE = 'an apple'\nPEAR = 'a pear'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "l2i_test_fruit", raising=False)
    return Registry(
        "fruit",
        {
            "apple": "l2i_test_fruit:APPLE",
            "pear": "l2i_test_fruit:PEAR",
            "plum": "l2i_test_fruit:PLUM",
        },
    )


def test_nothing_is_imported_until_a_name_is_asked_for(registry: Registry) -> None:
    """Listing, counting and looking whether a name is there import nothing."""
    assert list(registry) == ["apple", "pear", "plum"]
    assert len(registry) == 3
    assert "pear" in registry and "fig" not in registry
    assert "l2i_test_fruit" not in sys.modules
    assert registry["pear"] == "a pear"
    assert "l2i_test_fruit" in sys.modules


def test_an_unknown_name_is_answered_with_the_nearest_and_all(registry: Registry) -> None:
    """What there is not, what may be meant, what there is."""
    with pytest.raises(UnknownName) as caught:
        registry["aple"]
    assert str(caught.value) == (
        "There is no fruit 'aple'; did you mean 'apple'? There are: apple, pear, plum."
    )


def test_a_name_that_is_like_none_gets_no_guess(registry: Registry) -> None:
    """Only what there is."""
    with pytest.raises(UnknownName) as caught:
        registry["xyzzy"]
    assert str(caught.value) == "There is no fruit 'xyzzy'. There are: apple, pear, plum."


def test_a_wrong_table_is_our_bug_and_not_the_users(registry: Registry) -> None:
    """An attribute that is not there raises what Python raises."""
    with pytest.raises(AttributeError, match="PLUM"):
        registry["plum"]


def test_nearest_is_near() -> None:
    """A slip of the finger is mended, another word is not."""
    words = ["interpreter.epochs", "interpreter.maps", "run.seed"]
    assert nearest("interpreter.epoch", words) == "interpreter.epochs"
    assert nearest("run.sed", words) == "run.seed"
    assert nearest("banana", words) is None
    assert nearest("anything", []) is None
