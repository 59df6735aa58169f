"""Parameters of tests: which ones run with the fast tests, where each one costs seconds of compilation."""

import pytest

SLOW = pytest.mark.slow


def often(cases, *names):
    """Returns the parameters of a mapping of cases, under their names: the given ones are fast, all others slow."""
    assert set(names) <= set(cases)
    return [
        pytest.param(*(case if type(case) is tuple else (case,)), id=name, marks=() if name in names else SLOW)
        for name, case in cases.items()
    ]


def rarely(*values):
    """Returns parameters that are slow, each the value of one argument."""
    return [pytest.param(value, marks=SLOW) for value in values]
