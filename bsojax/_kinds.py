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
LARGEST = 1e38
"""Larger numbers than any that a network is made with: float32 and bfloat16 end shortly after."""


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


def check_positive_int(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is a positive int that JAX can index with."""
    if not is_int(value):
        raise TypeError(f"{_subject(name, owner)} needs an int, not {value!r}.")
    if not 1 <= value < 2**31:
        raise ValueError(f"{_subject(name, owner)} needs an int of at least 1 and below 2^31, got {value}.")


def is_real_scalar(value: Any) -> bool:
    """Whether value is a real number, or an array of one, traced or not; True and False are none."""
    if not isinstance(value, ARRAYS):
        return is_int(value) or isinstance(value, float)
    return value.shape == () and any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.integer, jnp.floating))


def check_number(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is a real number, or an array of one."""
    if not is_real_scalar(value):
        raise TypeError(f"{_subject(name, owner)} needs a number, not {value!r}.")


def as_float(name: str, value: Any, owner: str = "") -> float:
    """Returns a real scalar whose value is known, not traced, as a float; infinity for an int beyond the floats."""
    check_number(name, value, owner)
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{_subject(name, owner)} needs a number that is known when it is traced, not {value!r}.")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def as_real(name: str, value: Any, low: float, high: float, owner: str = "", *, open_above: bool = False) -> Any:
    """Returns a real scalar, an int as a float, as JAX takes none beyond its integers.

    Raises unless it is in [low, high], or [low, high) with open_above; the value of a traced one is not seen.
    """
    check_number(name, value, owner)
    if isinstance(value, jax.core.Tracer):
        return value
    number = as_float(name, value, owner)
    if not low <= number <= high or (open_above and number == high):
        bracket = ")" if open_above or high == math.inf else "]"
        raise ValueError(f"{_subject(name, owner)} must be in [{low:g}, {high:g}{bracket}, got {number:g}.")
    return number if isinstance(value, int) else value


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


def check_floating(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is an array of floating dtype."""
    check_array(name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{_subject(name, owner)} needs a floating input, not {value.dtype}; convert it first.")


def check_numeric(name: str, value: Any, owner: str = "") -> None:
    """Raises unless value is a real number or an array of real numbers, as what a user's function returns must be."""
    reals = (jnp.integer, jnp.floating, jnp.bool_)
    if not _is_numeric_leaf(value, ARRAYS) or not any(jnp.issubdtype(jnp.result_type(value), kind) for kind in reals):
        raise TypeError(f"{_subject(name, owner)} needs a real number or an array of them, not {_described(value)}.")


def check_broadcast(name: str, value: Any, shape: tuple[int, ...], owner: str = "") -> None:
    """Raises unless value is a real number, or an array of them that broadcasts to a shape."""
    check_numeric(name, value, owner)
    try:
        fits = jnp.broadcast_shapes(jnp.shape(value), shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{_subject(name, owner)} must return what broadcasts to the shape {shape}, not {jnp.shape(value)}."
        )


def check_scalar_result(name: str, value: Any, *, floating: bool) -> None:
    """Raises unless what a function returned is a real scalar, and, if asked, one that has a gradient."""
    check_numeric(name, value)
    if jnp.shape(value) != () or (floating and not jnp.issubdtype(jnp.result_type(value), jnp.floating)):
        kind = "floating" if floating else "real"
        raise TypeError(f"{name}: must return a {kind} scalar, not {jnp.result_type(value)}{list(jnp.shape(value))}.")


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
    # JAX has no dtype for an int beyond its bits.
    limit = 2 ** (63 if jax.config.values["jax_enable_x64"] else 31)
    return isinstance(leaf, NUMBERS) and not (isinstance(leaf, int) and not -limit <= leaf < limit)


def _described(value: Any) -> str:
    if isinstance(value, ARRAYS):
        return f"one of {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"a {type(value).__name__}"
