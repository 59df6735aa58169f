"""How fuzz tests try many cases: what is bad is refused by its name, in time, and leaves every array as it was."""

import dataclasses
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

FACTOR = "BSOJAX_FUZZ"
"""An environment variable for hunts: so many times the cases, and other ones at each run."""

MILLISECONDS = 30_000
"""What takes longer hangs; compiling takes a second or two."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call, and the argument, leaf or layer of which one must be named where it is refused."""

    call: Callable[..., Any]
    arguments: tuple[Any, ...]
    names: tuple[str, ...]


def fuzz(cases: st.SearchStrategy, examples: int, check: Callable[[Any], Any]) -> list[Any]:
    """Checks at least so many cases; returns what the check gave for each."""
    outcomes = []
    factor = int(os.environ.get(FACTOR, "1"))

    @settings(
        max_examples=factor * examples, derandomize=factor == 1, database=None, print_blob=True, deadline=MILLISECONDS
    )
    @given(cases)
    def try_case(case):
        outcomes.append(check(case))

    try_case()
    return outcomes


def raised(call: Callable[[], Any]) -> BaseException | None:
    """What a call raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of numbers beyond float32, is clear
            call()
    except (Exception, SystemExit) as error:
        return error
    return None


def is_refused(case: Case) -> bool:
    """Whether the call is refused: by a TypeError or ValueError that names what is wrong, and no array changes."""
    before = bits(case.arguments)
    error = raised(lambda: case.call(*case.arguments))
    if error is None:
        return False
    assert type(error) in (TypeError, ValueError), f"{type(error).__name__}: {error}"
    words = re.findall(r"\w+", str(error))
    assert set(case.names) & set(words), f"names none of {case.names}: {error}"
    assert bits(case.arguments) == before
    return True


def must_be_refused(case: Case) -> None:
    """As is_refused, and nothing else will do."""
    assert is_refused(case), f"not refused: {case}"


def bits(tree: Any) -> list[bytes]:
    """What all arrays hold; one that was donated raises."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, np.ndarray | jax.Array)]
    return [np.asarray(leaf).tobytes() for leaf in leaves]


@st.composite
def user_arrays(draw):
    """Arrays as files may hold them."""
    shape = draw(st.sampled_from([(), (0,), (4,), (3, 2), (4, 2, 2), (4, 2, 2, 1), (2, 4, 2, 2, 1), (0, 2, 2, 1)]))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int64, np.bool, np.complex64, np.uint8, "U3", object]))
    value = draw(st.sampled_from([0, 1, -1, 7, 1e300, np.nan, np.inf]))
    if not np.issubdtype(dtype, np.inexact) and not abs(value) < 10:
        value = 3
    with np.errstate(over="ignore"):
        return np.full(shape, abs(value) if dtype == np.uint8 else value, dtype)


def outside(low: float, high: float, *, open_above: bool = False) -> st.SearchStrategy:
    """Numbers outside of [low, high], or [low, high) without its end, and NaN."""
    above = st.floats(min_value=high, exclude_min=not open_above) if np.isfinite(high) else st.nothing()
    return st.one_of(st.floats(max_value=low, exclude_max=True), above, st.just(float("nan")))
