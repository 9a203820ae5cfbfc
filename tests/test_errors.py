"""`l2i.errors`: the tree in its docstring is the tree."""

from __future__ import annotations

import re

import pytest

from l2i import errors


def _picture() -> dict[str, str]:
    """Child to parent, as drawn: each level is four columns further in."""
    by_name: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ([│├└─ ]*)([A-Z]\w+)(?:\s{2,}|\s+[a-z]|$)", line)
        if not match or not hasattr(errors, match[2]):
            continue
        depth = len(match[1]) // 4
        stack = [entry for entry in stack if entry[0] < depth]
        if stack:
            by_name[match[2]] = stack[-1][1]
        stack.append((depth, match[2]))
    return by_name


def test_the_picture_is_the_tree() -> None:
    """Every exception stands in the docstring under the class it is derived from."""
    classes = {name: getattr(errors, name) for name in errors.__all__}
    real = {
        name: kind.__bases__[0].__name__ for name, kind in classes.items() if name != "L2IError"
    }
    assert _picture() == real
    assert classes["L2IError"].__bases__ == (Exception,)


@pytest.mark.parametrize("name", errors.__all__)
def test_exit_codes_are_those_of_the_picture(name: str) -> None:
    """Wrong words end with 2, anything else a user can mend with 1."""
    kind = getattr(errors, name)
    assert kind.exit_code == (2 if issubclass(kind, errors.UsageError) else 1)


def test_one_mistake_in_a_config_is_one_sentence() -> None:
    """Without a list around it."""
    error = errors.ConfigError(["run.seed = -1: must be at least 0."])
    assert str(error) == "run.seed = -1: must be at least 0."


def test_all_mistakes_in_a_config_are_shown() -> None:
    """As a list under their number, and one by one for programs."""
    problems = ["first.", "second.", "third."]
    error = errors.ConfigError(problems)
    assert error.problems == problems
    assert str(error).splitlines() == [
        "3 mistakes in the config:",
        "  - first.",
        "  - second.",
        "  - third.",
    ]
