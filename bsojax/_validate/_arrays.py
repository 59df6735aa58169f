"""Arrays: inputs, currents, statistics."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from bsojax._jax import is_traced
from bsojax._validate._batches import finite_values, frames, label_values, labels


def first_batch(x: Any) -> None:
    """Refuses a batch from which no network can be initialised."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"x: needs a floating dtype, not {x.dtype}; convert it first, as in x / 255.")
    if not x.shape or 0 in x.shape:
        raise ValueError(f"x: needs a batch of at least one example, got shape {x.shape}.")


def check_data(x: Any, y: Any, num_classes: int, *, name: str = "") -> None:
    """Raises unless x is finite, floating and not empty, and y holds one label per example in ``0 .. num_classes - 1``.

    Use it once on a data set before training; training steps call it on batches that are NumPy arrays.

    Args:
      x: an array of shape ``(examples, ...)``.
      y: integer labels of shape ``(examples,)``.
      num_classes: the number of classes.
      name: a prefix for the arguments' names in messages, such as "train ".

    Raises:
      TypeError: a dtype is wrong.
      ValueError: a shape or a value is wrong; the message names the first offending example.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape[:1] != y.shape[:1]:
        raise ValueError(f"{name}x, {name}y: {x.shape[:1]} examples but {y.shape[:1]} labels.")
    frames("x", x, x.shape[1:], 1, False, prefix=name)
    labels(y, prefix=name)
    label_values(y, np.ones(y.shape, bool), num_classes, prefix=name)
    finite_values("x", x, np.ones(len(x), bool), 0, prefix=name)


def floating(name: str, value: Any, owner: str) -> None:
    """Refuses integers, with which surrogate gradients and membranes would be rounded to zero."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: {owner} needs a floating input, not {value.dtype}; convert it first.")


def not_unpacked() -> NoReturn:
    """Refuses to unpack Spikes, as one unpacks other libraries' pairs of spikes and membranes."""
    raise TypeError(
        "Spikes: they cannot be unpacked or iterated over; take spikes.value and spikes.trace, and the membrane from "
        "neuron.membrane_potential()."
    )


def no_single_array() -> NoReturn:
    """Refuses to convert Spikes into one array, as layers and functions of other libraries would."""
    raise TypeError(
        "Spikes: they are not one array; take spikes.value, or give them to a layer or function of bsojax, such as "
        "Dense, Conv, concatenate, avg_pool, max_pool or flatten."
    )


def weights_of_spikes(other: Any, is_spikes: bool) -> None:
    """Refuses the product of two spikes, which has no trace."""
    if is_spikes:
        raise TypeError(
            "Spikes: the product of spikes and spikes has no trace; multiply spikes.value with one of them, as weights."
        )


def probabilities(name: str, value: Any, owner: str) -> Any:
    """Returns floating values as an array; refuses those outside [0, 1] in NumPy arrays, such as unscaled pixels."""
    if not isinstance(value, jax.Array):
        value = np.asarray(value)
        floating(name, value, owner)
        if (outside := ~((value >= 0) & (value <= 1))).any():
            raise ValueError(
                f"{name}: {owner} needs values in [0, 1], and {outside.sum()} of {value.size} are outside, the first "
                f"of them {value[outside].flat[0]}; scale them first."
            )
    floating(name, value, owner)
    return jnp.asarray(value)


def positive_values(name: str, value: Any) -> None:
    """Refuses known numbers that are not positive: a division by them would be NaN or infinite."""
    if not isinstance(value, jax.Array) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name}: must be positive, got {value}.")


def kernel_shape(owner: str, held: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses an input whose channels do not match the signs that a layer holds."""
    if held != needed:
        raise ValueError(f"x: {owner} holds signs of shape {held}, but this input needs {needed}.")


def state_shape(owner: str, held: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses a current whose shape differs from that of a neuron's state: it would be broadcast."""
    if held != needed:
        raise ValueError(
            f"current: {owner} holds a state of shape {held} and got {needed}; start a new sequence with an empty "
            "'neurons' collection."
        )


def more_than_one_value(owner: str, values: int) -> None:
    """Refuses to normalise a single value per channel: nothing would be left, and nothing learned."""
    if values == 1:
        raise ValueError(
            f"x: {owner} has one value per channel in training, which its own mean cancels; give batches of two "
            "examples or more, or use bsojax.Affine instead of the norm."
        )


def some_batches(count: int) -> None:
    """Refuses to estimate statistics from nothing: they would stay unchanged."""
    if not count:
        raise ValueError("batches: there is none; give at least one batch of training inputs.")


def no_feedback(depends: Any) -> None:
    """Refuses to re-estimate statistics on which the model's output in training depends."""
    if not is_traced(depends) and depends:
        raise ValueError(
            "model: its output in training depends on its running statistics (BatchRenorm normalises by them), so they "
            "cannot be re-estimated; they are what training used, so evaluate with them as they are."
        )


def measured_statistics(measured: Any) -> None:
    """Refuses batches from which nothing was measured: all statistics would stay as they are."""
    if not is_traced(measured) and not measured:
        raise ValueError(
            "batches: no statistics could be measured, since at no time step do two examples of a batch count; put "
            "several sequences into a batch."
        )


def finite_statistics(finite: Any) -> None:
    """Refuses statistics that are not finite: evaluation would be NaN."""
    if not is_traced(finite) and not finite:
        raise ValueError("batches: the statistics came out as NaN or infinity; are the inputs and parameters finite?")


def batch_given(*, model: Any, step: Any, x: Any, y: Any) -> None:
    """Refuses a report of anything that depends on the batch without a batch."""
    if model is not None and x is None:
        raise ValueError("x: the size of the neurons' state depends on the batch; give x together with model.")
    if step is not None and (x is None or y is None):
        raise ValueError("x, y: the compiled step depends on the batch; give both together with step.")


def measured_together(state: bool, num_steps: bool) -> None:
    """Refuses to measure operations without weights, or over an unknown time."""
    if state != num_steps:
        raise ValueError("state, num_steps: operations are measured with both; give them together, and x as an array.")


def known_layers(name: str, unknown: set[str]) -> None:
    """Refuses names of neuron layers that a model does not have."""
    if unknown:
        raise ValueError(f"{name}: the model has no layers {sorted(unknown)}; are they another model's?")


def plain_inputs(is_plain: bool, kind: str) -> None:
    """Refuses to write a tree of inputs whose structure a file cannot describe."""
    if not is_plain:
        raise ValueError(f"model: its inputs are in a {kind}; a file can describe dicts by text, lists and tuples.")


def knows_input(input_shape: Any) -> None:
    """Refuses to create a state for a saved network whose input is unknown."""
    if input_shape is None:
        raise ValueError(
            "input_shape: the file does not hold it, like those of earlier runs; give it with the model, as in "
            "bsojax.load_model(path, model, input_shape=(8, 8, 1))."
        )
