"""Deployment: what a network of whole numbers cannot say, and what it is given."""

import math
import re
from typing import Any, NoReturn

import numpy as np


def not_deployable(owner: str, why: str) -> NoReturn:
    """Refuses a layer of a model."""
    raise ValueError(f"model: {owner} cannot be deployed: {why}.")


def not_in_nir(owner: str, why: str) -> NoReturn:
    """Refuses a layer that the Neuromorphic Intermediate Representation has no nodes for."""
    raise ValueError(f"to_nir: {owner} cannot be said in NIR: {why}.")


def positive_number(name: str, value: Any) -> float:
    """Returns a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: needs a number, got {value!r}.")
    if not 0 < value < math.inf:
        raise ValueError(f"{name}: needs a finite number > 0, got {value}.")
    return float(value)


def whole_between(name: str, value: Any, low: int, high: int) -> int:
    """Returns an int in a range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}: needs an int, got {value!r}.")
    if not low <= value <= high:
        raise ValueError(f"{name}: must be in [{low}, {high}], got {value}.")
    return int(value)


def input_range(low: Any, high: Any) -> tuple[int, int]:
    """Returns the least and the largest whole input."""
    low, high = whole_between("input_min", low, -(2**15), 0), whole_between("input_max", high, 0, 2**16 - 1)
    if low == high:
        raise ValueError("input_max: inputs of 0 alone say nothing; give the largest whole input, such as 255.")
    return low, high


def whole_inputs(x: Any, shape: tuple[int, ...], num_steps: int | None) -> np.ndarray:
    """Returns the inputs of a network of whole numbers, whose shape and dtype fit it."""
    x = np.asarray(x)
    if not np.issubdtype(x.dtype, np.integer):
        raise TypeError(
            f"x: needs whole numbers, got {x.dtype}; multiply by input_scale and round, np.rint(x * scale)."
        )
    lead = ("batch",) if num_steps is None else (num_steps, "batch")
    fits = x.ndim == len(lead) + len(shape) and x.shape[len(lead) :] == shape
    if not fits or (num_steps is not None and x.shape[0] != num_steps):
        wanted = ", ".join(map(str, (*lead, *shape)))
        raise ValueError(f"x: needs shape ({wanted}), got {x.shape}.")
    if x.shape[len(lead) - 1] == 0:
        raise ValueError("x: has no examples.")
    return x


def inputs_within(x: np.ndarray, low: int, high: int) -> None:
    """Refuses inputs beyond those for which the bounds of a network are proven."""
    if x.min() < low or x.max() > high:
        raise ValueError(
            f"x: holds numbers from {x.min()} to {x.max()}, and the network is made for {low} to {high} "
            "(input_min and input_max)."
        )


def found_compiler(name: str, path: str | None) -> None:
    """Refuses a C compiler that this machine has not."""
    if path is None:
        raise FileNotFoundError(
            f"compiler: there is no '{name}' on this machine; install one, such as gcc, or name another."
        )


def c_name(name: Any) -> str:
    """Returns a name that C takes as the prefix of others."""
    if not isinstance(name, str) or re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is None:
        raise ValueError(f"name: needs a C identifier, such as 'net', got {name!r}.")
    return name
