"""Arrays: batches, labels, currents and what models return."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def first_batch(x: Any) -> None:
    """Refuses a batch from which no network can be made."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    if not x.shape or 0 in x.shape:
        raise ValueError(f"x: needs a batch of at least one example, got shape {x.shape}.")


def batch(x: Any, y: Any, input_shape: tuple[int, ...], num_steps: int, *, name: str = "") -> bool:
    """Returns whether x is a (T, batch, ...) sequence rather than a static (batch, ...) frame; y are its labels.

    Refuses what is neither: it would be broadcast, or its pixels taken for other ones.
    """
    _floating_and_labels(x, y, name)
    if 0 in (*x.shape, *y.shape):
        raise ValueError(f"{name}x, {name}y: there is no example in x of shape {x.shape} and y of shape {y.shape}.")
    frame = (len(y), *input_shape)
    if x.shape not in (frame, (num_steps, *frame)):
        raise ValueError(
            f"x, y: the model was initialised for examples of shape {tuple(input_shape)}, so with {len(y)} labels x "
            f"needs the shape {frame}, or {(num_steps, *frame)} for a frame a time step; got {x.shape}."
        )
    return x.shape != frame


def _floating_and_labels(x: Any, y: Any, name: str) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}x: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    if not jnp.issubdtype(y.dtype, jnp.integer):
        raise TypeError(f"{name}y: needs integer class labels, not {y.dtype}.")
    if y.ndim != 1:
        raise ValueError(f"{name}y: needs one label an example, shape (batch,), got {y.shape}; is it one-hot?")


def values(x: Any, y: Any, num_classes: Any, *, name: str = "", batch_axis: int = 0) -> None:
    """Refuses labels outside the classes and inputs that are not finite, in NumPy arrays; names the first of them."""
    if isinstance(y, np.ndarray) and (wrong := np.flatnonzero((y < 0) | (y >= num_classes))).size:
        raise ValueError(
            f"{name}y: {wrong.size} labels are outside the classes 0 .. {num_classes - 1}, the first at index "
            f"{wrong[0]} ({y[wrong[0]]}); relabel them or give the model more classes."
        )
    if isinstance(x, np.ndarray) and not np.isfinite(x).all():
        axes = tuple(axis for axis in range(x.ndim) if axis != batch_axis)
        bad = np.flatnonzero(~np.isfinite(x).all(axis=axes))
        raise ValueError(
            f"{name}x: {bad.size} examples hold NaN or infinity, the first at index {bad[0]}; repair or drop them."
        )


def check_data(x: Any, y: Any, num_classes: int, *, name: str = "") -> None:
    """Raises unless x is finite, floating and not empty, and y are labels in ``0 .. num_classes - 1``, one an example.

    Use it once on a data set before training; training steps call it on batches that are NumPy arrays.

    Args:
      x: an array of shape ``(examples, ...)``.
      y: integer labels of shape ``(examples,)``.
      num_classes: the number of classes.
      name: put before the arguments' names in messages, such as "train ".

    Raises:
      TypeError: a dtype is wrong.
      ValueError: a shape or a value is wrong; the message names the first offending example.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape[:1] != y.shape[:1]:
        raise ValueError(f"{name}x, {name}y: {x.shape[:1]} examples but {y.shape[:1]} labels.")
    batch(x, y, x.shape[1:], 1, name=name)
    values(x, y, num_classes, name=name)


def logits(value: Any, y: Any) -> None:
    """Refuses a model that returns something other than logits of shape (batch, classes)."""
    if getattr(value, "ndim", None) != 2 or value.shape[0] != len(y):
        raise ValueError(f"model: it must return logits of shape (batch, classes), here ({len(y)}, ...); got {value}.")


def loss(value: Any) -> None:
    """Refuses a loss through which no gradient flows, or more than one."""
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating) or jnp.shape(value) != ():
        raise TypeError(
            f"loss: must return a floating scalar, not {jnp.result_type(value)}{list(jnp.shape(value))}; a mean over "
            "the batch is one."
        )


def floating(name: str, value: Any, owner: str) -> None:
    """Refuses integers, with which surrogate gradients and membranes would be rounded to zero."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: {owner} needs a floating input, not {value.dtype}; convert it first.")


def kernel_shape(owner: str, held: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses an input whose channels do not fit the signs that a layer holds."""
    if held != needed:
        raise ValueError(f"x: {owner} holds signs of shape {held}, but this input needs {needed}.")


def state_shape(owner: str, held: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses a current of another shape than a neuron's state, which would be broadcast."""
    if held != needed:
        raise ValueError(
            f"current: {owner} holds a state of shape {held} and got {needed}; start a new sequence with an empty "
            "'neurons' collection."
        )


def some_batches(count: int) -> None:
    """Refuses to estimate statistics from nothing: they would stay what they were."""
    if not count:
        raise ValueError("batches: there is none; give at least one batch of training inputs.")


def no_feedback(depends: bool) -> None:
    """Refuses to re-estimate statistics that the model's output in training depends on."""
    if depends:
        raise ValueError(
            "model: its output in training depends on its running statistics (BatchRenorm normalises by them), so they "
            "cannot be re-estimated; they are what training used, so evaluate with them as they are."
        )


def finite_statistics(finite: bool) -> None:
    """Refuses statistics that are not finite: evaluation would be NaN."""
    if not finite:
        raise ValueError("batches: the statistics came out as NaN or infinity; are the inputs and parameters finite?")


def batch_given(*, model: Any, step: Any, x: Any, y: Any) -> None:
    """Refuses a report of what depends on the batch without one."""
    if model is not None and x is None:
        raise ValueError("x: the size of the neurons' state depends on the batch; give x together with model.")
    if step is not None and (x is None or y is None):
        raise ValueError("x, y: the compiled step depends on the batch; give both together with step.")


def known_layers(unknown: set[str]) -> None:
    """Refuses spike rates of layers that a model does not have."""
    if unknown:
        raise ValueError(f"spikes: the model has no layers {sorted(unknown)}; are they another model's metrics?")
