"""Checks of batches and data sets: of shapes at trace time, of values on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bsojax._kinds import as_host_array, check_positive_int


def check_data(x: Any, y: Any, num_classes: int, *, name: str = "") -> None:
    """Raises unless x is finite, floating and not empty, and y are labels in ``0 .. num_classes - 1``, one an example.

    Use it once on a data set before training; training steps call it on batches that lie in host memory.

    Args:
      x: an array of shape ``(examples, ...)``.
      y: integer labels of shape ``(examples,)``.
      num_classes: the number of classes.
      name: put before the arguments' names in messages, such as "train ".

    Raises:
      TypeError: a dtype is wrong.
      ValueError: a shape or a value is wrong; the message names the first offending example.
    """
    if not isinstance(name, str):
        raise TypeError(f"name: needs a string, not {name!r}.")
    check_positive_int("num_classes", num_classes)
    x, y = as_host_array(f"{name}x", x), as_host_array(f"{name}y", y)
    check_arrays(x, y, name=name)
    if x.ndim < 1:
        raise ValueError(f"{name}x: needs an axis of examples first, got a scalar.")
    if len(x) != len(y):
        raise ValueError(f"{name}x, {name}y: {len(x)} examples but {len(y)} labels.")
    check_values(x, y, num_classes, name=name)


def check_arrays(x: Any, y: Any, *, name: str = "") -> None:
    """Raises unless x is a floating array and y integer labels of shape (batch,), neither empty."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}x: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{name}y: needs integer class labels, not {y.dtype}.")
    if y.ndim != 1:
        raise ValueError(f"{name}y: needs one label an example, shape (batch,), got {y.shape}; is it one-hot?")
    if 0 in x.shape or 0 in y.shape:
        raise ValueError(f"{name}x, {name}y: there is no example in x of shape {x.shape} and y of shape {y.shape}.")


def check_values(x: np.ndarray, y: np.ndarray, num_classes: int, *, name: str = "", batch_axis: int = 0) -> None:
    """Raises if a label is outside the classes or an input is not finite, naming the first offending example."""
    wrong = np.flatnonzero((y < 0) | (y >= num_classes))
    if wrong.size:
        raise ValueError(
            f"{name}y: {wrong.size} labels are outside the classes 0 .. {num_classes - 1}, the first at index "
            f"{wrong[0]} ({y[wrong[0]]}); relabel them or give the model more classes."
        )
    if not np.isfinite(x).all():
        axes = tuple(axis for axis in range(x.ndim) if axis != batch_axis)
        bad = np.flatnonzero(~np.isfinite(x).all(axis=axes))
        raise ValueError(
            f"{name}x: {bad.size} examples hold NaN or infinity, the first at index {bad[0]}; repair or drop them."
        )


def is_sequence(x: jax.Array, y: jax.Array, input_shape: tuple[int, ...], num_steps: int) -> bool:
    """Returns whether x is a (T, batch, ...) sequence rather than a static (batch, ...) frame.

    Raises:
      TypeError, ValueError: x or y is neither, by shape or dtype.
    """
    check_arrays(x, y)
    if x.shape == (len(y), *input_shape):
        return False
    if x.shape == (num_steps, len(y), *input_shape):
        return True
    raise ValueError(
        f"x, y: the model was initialised for examples of shape {input_shape}, so with {len(y)} labels x needs "
        f"the shape {(len(y), *input_shape)}, "
        f"or {(num_steps, len(y), *input_shape)} for a frame a time step; got {x.shape}."
    )


def check_logits(logits: Any, y: Any) -> None:
    """Raises unless the model returned logits of shape (batch, classes)."""
    if not hasattr(logits, "shape") or logits.ndim != 2 or logits.shape[0] != len(y):
        raise ValueError(f"model: it must return logits of shape (batch, classes), here ({len(y)}, ...); got {logits}.")


def on_host(array: Any) -> bool:
    """Whether looking at the values of an array costs no transfer from an accelerator."""
    if isinstance(array, jax.core.Tracer):
        return False
    if not isinstance(array, jax.Array):
        return True
    return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())
