"""`l2i.registry`: names are cheap, and a wrong one is answered well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from l2i.errors import DataError, UnknownName, UsageError
from l2i.registry import METHODS, Registry, load_object, nearest, source_digest


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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that offers a fruit and a method by entry points."""
    (tmp_path / "orchard.py").write_text("FIG = 'a fig'\n\n\nclass Mine:\n    parts = ()\n")
    about = tmp_path / "orchard-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: orchard\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[l2i.fruits]\nfig = orchard:FIG\n\n[l2i.methods]\nmine = orchard:Mine\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "orchard", raising=False)
    return tmp_path


def test_installed_packages_add_names(package: Path) -> None:
    """By entry points; nothing is imported for the list, and a built-in name stays what it is."""
    fruits = Registry("fruit", {"apple": "math:pi"}, "l2i.fruits")
    assert list(fruits) == ["apple", "fig"] and "orchard" not in sys.modules
    assert fruits["fig"] == "a fig"
    assert fruits.digest("apple") == "" and len(fruits.digest("fig")) == 64
    # As the methods have it, once more: the list of this process was made before.
    again = Registry("explanation method", dict(METHODS._own), "l2i.methods")
    assert again["mine"].parts == ()


def test_words_with_a_colon(package: Path) -> None:
    """A module's or a file's; only where names may be added."""
    fruits = Registry("fruit", {}, "l2i.fruits")
    assert fruits["orchard:FIG"] == "a fig"
    assert fruits[f"{package / 'orchard.py'}:FIG"] == "a fig"
    with pytest.raises(UnknownName):
        Registry("fruit", {"apple": "math:pi"})["orchard:FIG"]


def test_files_are_modules_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of one name, and one that was changed, at once and in its length not; what lies beside
    can be imported."""
    # As where Python writes bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for place, value in (("a", 1), ("b", 2)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.py").write_text(f"V = {value}\n")
    assert [load_object(f"{tmp_path / p / 'x.py'}:V") for p in "ab"] == [1, 2]
    first = source_digest(f"{tmp_path / 'a' / 'x.py'}:V")
    (tmp_path / "a" / "x.py").write_text("V = 3\n")
    assert load_object(f"{tmp_path / 'a' / 'x.py'}:V") == 3
    assert source_digest(f"{tmp_path / 'a' / 'x.py'}:V") != first
    assert source_digest(f"{tmp_path / 'b' / 'x.py'}:V") != source_digest(
        f"{tmp_path / 'b' / 'x.py'}:W"
    )
    (tmp_path / "a" / "beside.py").write_text("W = 4\n")
    (tmp_path / "a" / "y.py").write_text("from beside import W\n")
    path = list(sys.path)
    assert load_object(f"{tmp_path / 'a' / 'y.py'}:W") == 4 and sys.path == path


@pytest.mark.parametrize(
    ("word", "error", "sentence"),
    [
        ("nowhere.py:V", DataError, "There is no file"),
        ("no_such_module:V", UsageError, "There is no module 'no_such_module'"),
        ("math:pie", UsageError, "math has no 'pie'; did you mean 'pi'"),
        ("math:", UsageError, "names nothing: give MODULE:NAME"),
    ],
)
def test_wrong_words(word: str, error: type[Exception], sentence: str) -> None:
    """One sentence each."""
    with pytest.raises(error, match=sentence):
        load_object(word)


def test_code_that_fails(tmp_path: Path) -> None:
    """It is about the file, and nothing half-loaded stays."""
    file = tmp_path / "bad.py"
    file.write_text("V = 1\nraise RuntimeError('no GPU.')\n")
    before = set(sys.modules)
    with pytest.raises(DataError, match=r"bad\.py cannot be loaded: RuntimeError: no GPU\."):
        load_object(f"{file}:V")
    assert set(sys.modules) <= before


def test_neighbours_of_one_name(tmp_path: Path) -> None:
    """Each file imports the one beside it, not what another file had imported."""
    for word in ("a", "b"):
        (tmp_path / word).mkdir()
        (tmp_path / word / "near.py").write_text(f"V = {word!r}\n")
        (tmp_path / word / "main.py").write_text("from near import V\n")
    assert [load_object(f"{tmp_path / word / 'main.py'}:V") for word in "ab"] == ["a", "b"]


def test_code_that_ends_the_program(tmp_path: Path) -> None:
    """No command ends without a word."""
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(DataError, match=r"ends\.py cannot be loaded: it ends the program"):
        load_object(f"{tmp_path / 'ends.py'}:load")
