"""Checks of what kind of thing an argument is: each raises one message that names the argument and what it needs.

Where an owner is given, such as "LIF 'neuron_0'", the message names it too.
"""

import inspect
import math
from typing import Any, TypeGuard

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

ARRAYS = (jax.Array, np.ndarray, np.generic)
NUMBERS = (bool, int, float, complex)


def check_bool(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is True or False."""
    if not isinstance(value, bool | np.bool):
        raise TypeError(f"{_subject(name, owner)} needs True or False, not {value!r}.")


def is_int(value: Any) -> TypeGuard[int]:
    """Whether value is an int; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_int_scalar(value: Any) -> bool:
    """Whether value is an int, or an array of one, traced or not."""
    if not isinstance(value, ARRAYS):
        return is_int(value)
    return jnp.issubdtype(value.dtype, jnp.integer) and value.shape == ()


def check_int(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is a positive int that JAX can index with."""
    if not is_int(value):
        raise TypeError(f"{_subject(name, owner)} needs an int, not {value!r}.")
    if not 1 <= value < 2**31:
        raise ValueError(f"{_subject(name, owner)} needs an int of at least 1 and below 2^31, got {value}.")


def check_number(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is a real number, and no array."""
    if not is_int(value) and not isinstance(value, float | np.floating):
        raise TypeError(f"{_subject(name, owner)} needs a number, not {value!r}.")


def as_real(name: str, value: Any, low: float, high: float = math.inf, owner: str = "") -> float:
    """Returns value as a float, as JAX takes no int beyond its integers; raises unless it is finite, in [low, high]."""
    check_number(name, value, owner)
    try:
        number = float(value)
    except OverflowError:  # an int beyond the range of floats
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high):
        bounds = f"in [{low:g}, {high:g}]" if high < math.inf else f">= {low:g}"
        raise ValueError(f"{_subject(name, owner)} needs a finite number {bounds}, got {value!r}.")
    return number


def _subject(name: str, owner: str) -> str:
    return f"{name}: {owner}" if owner else f"{name}:"


def check_callable(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value can be called."""
    if not callable(value):
        raise TypeError(f"{_subject(name, owner)} needs a function, not {value!r}.")


def check_axis_name(value: Any) -> None:
    """Raises unless value is None or a string, or several strings in a tuple."""
    names = value if isinstance(value, tuple) else (value,)
    if value is not None and not (names and all(isinstance(name, str) for name in names)):
        raise TypeError(f"axis_name: needs the name of an axis, or None, not {value!r}.")


def check_model(model: Any) -> None:
    """Raises unless model is a Linen module."""
    if not isinstance(model, nn.Module):
        hint = "; call the class to make one" if inspect.isclass(model) and issubclass(model, nn.Module) else ""
        raise TypeError(f"model: needs a Flax Linen module, not {model!r}{hint}.")


def check_optimizer(name: str, tx: Any) -> None:
    """Raises unless tx is an optax gradient transformation, or looks like one."""
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))) or isinstance(tx, nn.Module):
        raise TypeError(f"{name}: needs an optax.GradientTransformation, not {tx!r}.")


def check_array(name: str, value: Any, *, or_shape: bool = False) -> None:
    """Raises unless value is an array of numbers, or, if that will do, the shape and dtype of one."""
    if not isinstance(value, _kinds(or_shape)) or not _is_numeric(value):
        raise TypeError(f"{name}: needs an array of numbers, not {_described(value)}.")


def check_numeric(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is a real number or an array of real numbers."""
    reals = (jnp.integer, jnp.floating, jnp.bool_)
    if not _is_numeric_leaf(value, ARRAYS) or not any(jnp.issubdtype(jnp.result_type(value), kind) for kind in reals):
        raise TypeError(f"{_subject(name, owner)} needs a real number or an array of them, not {_described(value)}.")


def check_leaves(name: str, tree: Any, *, or_shape: bool = False) -> None:
    """Raises unless every leaf of a tree is a number or an array of numbers, or its shape and dtype."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not _is_numeric_leaf(leaf, _kinds(or_shape)):
            owner = f"leaf '{jax.tree_util.keystr(path, simple=True, separator='/')}'" if path else ""
            raise TypeError(f"{_subject(name, owner)} needs an array of numbers, not {_described(leaf)}.")


def as_host_array(name: str, value: Any) -> np.ndarray:
    """Returns value as a NumPy array; raises where its parts do not make one."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: needs an array, and {_described(value)} makes none ({error}).") from error


def as_dtype(name: str, value: Any) -> np.dtype:
    """Returns value as a dtype; raises where it names none."""
    # NumPy takes None for float64, and ever more things for dtypes of its own.
    if value is not None and not isinstance(value, jax.Array | np.ndarray | np.generic | list | tuple | dict):
        try:
            return jnp.dtype(value)
        except (TypeError, ValueError, SyntaxError):  # NumPy parses strings
            pass
    raise TypeError(f"{name}: needs a dtype, not {value!r}.")


def _kinds(or_shape: bool) -> tuple[type, ...]:
    return (*ARRAYS, jax.ShapeDtypeStruct) if or_shape else ARRAYS


def _is_numeric(array: Any) -> bool:
    # Keys of random numbers lie in the states of some optimizers; what needs a number asks for its dtype.
    kinds = (jnp.number, jnp.bool_, jax.dtypes.extended)
    return array.dtype == jax.dtypes.float0 or any(jnp.issubdtype(array.dtype, kind) for kind in kinds)


def _is_numeric_leaf(leaf: Any, kinds: tuple[type, ...]) -> bool:
    if isinstance(leaf, kinds):
        return _is_numeric(leaf)
    # JAX has no dtype for an int beyond 32 bits, unless told to.
    return isinstance(leaf, NUMBERS) and not (isinstance(leaf, int) and not -(2**31) <= leaf < 2**31)


def _described(value: Any) -> str:
    if isinstance(value, ARRAYS):
        return f"one of {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"
