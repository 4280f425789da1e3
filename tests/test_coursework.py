"""How a notebook's ``check`` speaks: of a failing test its words, of a crash what caused it and where."""

from __future__ import annotations

import sys

import pytest

from cdimlib import coursework

NOTEBOOK = '''
def halves(x):
    return 1 / x

def nothing(x):
    x + 1

class Net:
    def __call__(self, x):
        return x.gone

def inner(x):
    return halves(x)

later, pair, number = ..., {"a": ...}, 3
'''


@pytest.fixture
def notebook():
    names, earned = {}, {}
    exec(NOTEBOOK, names)
    return coursework.checker(names, earned), earned


def wrong(halves):
    if halves(2) != 0.25:  # a bare assert would be rewritten by pytest
        raise AssertionError("one half of the points is lost")


def crash(halves):
    assert halves(0) == 1


def inside(inner):
    assert inner(0) == 1


def empty(nothing):
    assert nothing(1) + 1 == 3


def empty_but_told(nothing):
    if nothing(1) is None:
        raise AssertionError("the words of the test come first")


def leaves(halves):
    sys.exit(3)


bare = eval(compile("lambda number: (_ for _ in ()).throw(AssertionError)", "none", "eval"))
bare.__name__ = "bare"


def waiting(later, number):
    assert later < number


def missing(undefined):
    assert undefined(1) == 1


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (wrong, "not yet, 0 of 2: one half of the points is lost\n"),
        (crash, "not yet, 0 of 2: ZeroDivisionError: division by zero (in halves, at `"),
        (inside, "ZeroDivisionError: division by zero (in inner, at `"),
        (empty, "nothing returns nothing: is `return` missing, or does `...` still stand there?"),
        (empty_but_told, "not yet, 0 of 2: the words of the test come first\n"),
        (leaves, "not yet, 0 of 2: SystemExit: 3"),
        (bare, "not yet, 0 of 2: `"),
        (waiting, "later: no answer yet\n"),
        (missing, "undefined: no answer yet\n"),
    ],
)
def test_what_is_wrong_is_said_in_words(notebook, capsys, test, words):
    check, earned = notebook
    check(test, 2)
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == ""
    assert earned == {test.__name__: 0}


def test_what_is_right_has_its_points(notebook, capsys):
    def right(halves, number):
        assert halves(number) == 1 / 3
        return "a third"

    check, earned = notebook
    check(right, 2)
    assert capsys.readouterr().out == "passed, 2 of 2: a third\n" and earned == {"right": 2}


def test_a_seal_tells_right_from_wrong():
    seal = coursework.sealed("aligned", "flatten")
    assert len(seal) == 8 and seal == coursework.sealed("aligned", "flatten")
    others = [("aligned", "gap"), ("shifted", "flatten"), ("flatten", "aligned")]
    assert seal not in [coursework.sealed(*words) for words in others]
