"""Strategies and checks of the fuzz tests: a call with one argument replaced works, or names that argument."""

import dataclasses
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import bsojax

things = st.sampled_from(
    [
        None, True, False, "", "text", b"bytes", [], [1, 2], ["a"], (), (1, 2, 3), {}, {"a": 1}, {1}, 1j, object(),
        0, 1, -1, 10**10, -(10**10), 10**400, float("nan"), float("inf"), -float("inf"), 0.5, -0.5, 1e300,
        np.float32("nan"), np.int8(-3), np.uint32(7), np.complex64(1), np.bool(True), np.array("text"),
        np.array(None), np.zeros(2), np.zeros((0, 2), np.float32), jnp.ones(()), jnp.zeros(3), jnp.array(2), Exception,
        jax.random.key(1), jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.uint32),
        np.zeros(5, np.uint32), bsojax.Spikes(None), lambda: None,
    ]
)  # fmt: skip
anything = st.one_of(things, st.integers(-5, 0), st.floats(-10, 10), st.floats(), st.text(max_size=4))
"""Values of all types; integers are small or huge, as a size in between would be a valid one, and slow."""


@st.composite
def arrays(draw):
    shape = draw(
        st.sampled_from([(), (0,), (2,), (3, 2), (2, 3), (4, 2, 2), (4, 2, 2, 2), (0, 2, 2, 1), (1, 1, 1, 1, 1)])
    )
    dtype = draw(st.sampled_from([np.float32, np.int32, np.bool, np.complex64, np.uint8, "U3", object]))
    value = draw(st.sampled_from([0, 1, 7, np.nan, np.inf]))
    if not np.issubdtype(dtype, np.inexact) and not np.isfinite(value):
        value = 3
    array = np.full(shape, value, dtype)
    return jnp.asarray(array) if array.dtype.kind in "fib" and draw(st.booleans()) else array


array = st.one_of(arrays(), anything)


def trees(*names: str):
    """Trees with leaves of these names, or of other ones."""
    leaves = st.one_of(arrays(), anything.filter(lambda value: not isinstance(value, dict | list | tuple)))
    branches = st.dictionaries(st.sampled_from([*names, "other"]), leaves, max_size=2)
    packed = st.builds(bsojax.PackedSigns, st.one_of(arrays(), anything), st.sampled_from([(3, 2), (9,), None, (-1,)]))
    return st.one_of(branches, st.builds(lambda leaf: {names[0]: leaf}, packed), array)


def replaced(valid: Any, bad: st.SearchStrategy):
    """States with one field replaced."""
    fields = [field for field in (getattr(valid, "_fields", None) or vars(valid)) if field != "_"]
    change = (lambda name, value: valid._replace(**{name: value})) if hasattr(valid, "_replace") else (
        lambda name, value: dataclasses.replace(valid, **{name: value})
    )  # fmt: skip
    return st.one_of(st.builds(change, st.sampled_from(sorted(fields)), bad), anything)


FACTOR = "BSOJAX_FUZZ"
"""An environment variable for hunts: so many times the cases, and other ones at each run."""

MILLISECONDS = 30_000
"""What takes longer hangs; compiling takes a second or two."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One public callable.

    Attributes:
      call: takes the arguments by keyword.
      valid: arguments that work.
      bad: what each of them is replaced by.
      examples: the number of cases.
      also: what a message may name in the place of an argument, by argument.
      share: the share of cases that must be refused at least, or the row would not test refusals.
      documented_in: what says in its docstring which errors there are; None is the public object of the row's name.
    """

    call: Callable[..., Any]
    valid: dict[str, Any]
    bad: dict[str, st.SearchStrategy]
    examples: int = 25
    also: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    share: float = 0.25
    documented_in: Any = None


def fresh(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same arguments in other buffers: a training step may take those it gets."""
    return {name: jax.tree.map(lambda leaf: leaf.copy() if is_array(leaf) else leaf, value) for name, value in
            arguments.items()}  # fmt: skip


def is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def bits(arguments: dict[str, Any]) -> list[bytes]:
    """What all arrays hold; a deleted one raises."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(arguments) if is_array(leaf)]


def raised(call: Callable[[], Any]) -> BaseException | None:
    """What a call raises."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of numbers beyond float32, is clear
            warnings.filterwarnings("ignore", "Data type alias")
            call()
    except (Exception, SystemExit) as error:
        return error
    return None


def is_refusal(error: BaseException | None, names: tuple[str, ...], documentation: str) -> bool:
    """Whether there is an error; it must be of a documented type, and begin with one of the names."""
    if error is None:
        return False
    assert type(error) in (TypeError, ValueError), f"{type(error).__name__}: {error}"
    assert type(error).__name__ in documentation.partition("Raises")[2], f"not documented: {error!r}"
    head, colon, _ = str(error).partition(": ")
    named = [part.split(" ")[-1] for part in head.split(", ")] + [head]
    assert colon, f"names nothing: {error}"
    assert set(named) & set(names), f"does not begin with {' or '.join(names)}: {error}"
    return True


def refused(row: Row, documentation: str, argument: str, value: Any) -> bool:
    """Calls with one bad argument; whether that was refused, which must be by name and must leave all as it was."""
    arguments = fresh({**row.valid, argument: value})
    before = bits(arguments)
    names = (argument, *row.also.get(argument, ()))
    if not is_refusal(raised(lambda: row.call(**arguments)), names, documentation):
        return False
    assert bits(arguments) == before
    return True


def fuzz(cases: st.SearchStrategy, examples: int, is_refused: Callable[..., bool], share: float = 0.25) -> None:
    """Tries so many cases, of which at least a share must have been bad ones."""
    outcomes = []
    factor = int(os.environ.get(FACTOR, "1"))

    @settings(
        max_examples=factor * examples, derandomize=factor == 1, database=None, print_blob=True, deadline=MILLISECONDS
    )
    @given(cases)
    def try_case(case):
        outcomes.append(is_refused(*case))

    try_case()
    assert len(outcomes) >= examples  # hypothesis stops early where a strategy has no more values
    assert sum(outcomes) >= share * examples


def arguments_of(row: Row) -> st.SearchStrategy:
    return st.one_of(*(st.tuples(st.just(argument), bad) for argument, bad in row.bad.items()))
