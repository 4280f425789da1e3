"""How an assignment checks itself: ``check(test, points)`` of its notebook, and answers that a page does not give away.

A check says what is wrong in words and never stops the notebook, whatever the answer does.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable


def checker(notebook: dict, earned: dict) -> Callable:
    """``check(test, points)`` for a notebook: runs a test on what stands there under the names of its arguments.

    notebook: its ``globals()``; earned: test's name -> points, filled as tests run. What is passed goes to standard
    output, what is not to standard error, each in one line.
    """

    def check(test: Callable, points: float) -> None:
        names, silent = list(inspect.signature(test).parameters), []
        given = [_watched(notebook.get(name), silent) for name in names]
        earned[test.__name__] = 0
        try:
            said = test(*given)
        except (Exception, SystemExit) as error:  # whatever a student's code can raise
            why = _why(error, dict(zip(names, given)), silent)
            return print(f"not yet, 0 of {points}: {why}", file=sys.stderr)
        earned[test.__name__] = points
        print(f"passed, {points} of {points}" + (f": {said}" if said else ""))

    return check


def _watched(answer, silent: list[str]):
    """An answer; if it is a function, one that tells ``silent`` its name each time it returns nothing."""
    if not inspect.isfunction(answer):
        return answer

    @functools.wraps(answer)
    def call(*values, **named):
        result = answer(*values, **named)
        silent.extend([answer.__name__] if result is None else [])
        return result

    return call


def _why(error: BaseException, given: dict, silent: list[str]) -> str:
    """What went wrong, in words: of a test that fails its message, of a crash what caused it and where."""
    if isinstance(error, AssertionError) and str(error):
        return str(error)
    if silent:
        return f"{silent[-1]} returns nothing: is `return` missing, or does `...` still stand there?"
    if waiting := [name for name, answer in given.items() if answer is None or answer is ...]:
        return f"{' and '.join(waiting)}: no answer yet"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, AssertionError):
        return f"`{frames[-1].line}` does not hold"
    functions = {answer.__name__ for answer in given.values() if inspect.isfunction(answer) or inspect.isclass(answer)}
    own = [frame for frame in frames if frame.name in functions]
    return f"{type(error).__name__}: {error}" + (f" (in {own[-1].name}, at `{own[-1].line}`)" if own else "")


def sealed(*words) -> str:
    """Eight characters that tell whether an answer is right, and not what it is: ``sealed("aligned", answer)``."""
    return hashlib.sha256("|".join(map(str, words)).encode()).hexdigest()[:8]
