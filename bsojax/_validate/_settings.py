"""Settings: numbers, schedules and choices that users give to optimizers, neurons, layers and steps."""

import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from bsojax._jax import is_traced

Schedule: TypeAlias = Callable[[Any], Any]
ScalarOrSchedule: TypeAlias = float | jax.Array | Schedule


def number(name: str, value: Any, low: float, high: float, *, open_above: bool = False) -> Any:
    """Returns a hyperparameter, with an int as a float; a traced one may have any value."""
    if isinstance(value, bool) or getattr(value, "dtype", None) == jnp.bool_:
        raise TypeError(
            f"{name}: got the boolean {value!r} and needs a number. optax.inject_hyperparams casts numbers to the "
            "dtype of the parameters: give it hyperparam_dtype=jnp.float32."
        )
    if is_traced(value):
        return value
    if not low <= value <= high or (open_above and value == high):
        bracket = ")" if open_above or high == math.inf else "]"
        raise ValueError(f"{name}: must be in [{low:g}, {high:g}{bracket}, got {value}.")
    return float(value) if isinstance(value, int) else value


def schedule(name: str, value: ScalarOrSchedule, low: float, high: float, *, open_above: bool = False) -> Schedule:
    """Returns a schedule over the update count; a constant must lie in the range, and stays a constant."""
    if callable(value):
        return value
    constant = number(name, value, low, high, open_above=open_above)
    return lambda count: constant


def positive(owner: str, name: str, value: Any, at_least: float | None = None) -> Any:
    """Returns a neuron's constant, a float or an array of them: finite, and above 0 or no less than at_least."""
    # Under jit a comparison of JAX scalars would be traced.
    value = float(value) if np.ndim(value) == 0 else np.asarray(value, np.float64)
    good = np.isfinite(value) & (value > 0 if at_least is None else value >= at_least)
    if not np.all(good):
        bound = "threshold > 0" if at_least is None else f"time constant >= {at_least:g} time step"
        wrong = value if np.ndim(value) == 0 else value[~good][0]
        raise ValueError(f"{name}: {owner} needs a finite {bound}, got {wrong}.")
    return value


def leaking(owner: str, tau: float) -> float:
    """Returns a time constant from which learning starts; refuses those where a sigmoid has no end or gradient."""
    if not 1 < (tau := float(tau)) < math.inf:
        raise ValueError(f"tau: {owner} learns from a finite time constant > 1 time step, got {tau}.")
    return tau


def finite(owner: str, name: str, value: Any) -> None:
    """Refuses known numbers that are not finite: everything computed from them would not be finite either."""
    if not is_traced(value) and not np.all(np.isfinite(np.asarray(value, np.float64))):
        raise ValueError(f"{name}: {owner} needs finite numbers, got {value}.")


def one_a_neuron(owner: str, name: str, shape: tuple[int, ...], needed: tuple[int, ...]) -> None:
    """Refuses constants for neurons that do not exist: the spikes would be broadcast to their shape."""
    last = needed[len(needed) - len(shape) :]
    if len(shape) > len(needed) or any(size not in (1, own) for size, own in zip(shape, last, strict=True)):
        raise ValueError(
            f"{name}: {owner} needs a number, or an array that broadcasts to its current of shape {needed}, such as "
            f"one of shape {needed[-1:]}; got {shape}."
        )


def refractory_steps(owner: str, value: Any) -> int:
    """Returns a number of time steps; refuses anything that is not one, or that does not fit into a byte."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= 255:
        raise ValueError(f"refractory_steps: {owner} needs an int in 0 .. 255, got {value!r}.")
    return int(value)


def was_called(owner: str, called: bool) -> None:
    """Refuses to return a membrane that does not exist, or that belongs to another time step."""
    if not called:
        raise ValueError(
            f"membrane_potential: {owner} has not been called at this time step; call it first, as in "
            "spikes = neuron(current). Where it is wrapped, as by nn.remat or nn.vmap, ask inside the wrapping."
        )


def between(name: str, value: float, low: float, high: float) -> None:
    """Refuses a number that does not lie strictly between two others."""
    if not low < value < high:
        raise ValueError(f"{name}: must be in ({low:g}, {high:g}), got {value!r}.")


def needs_width(centres: Any) -> None:
    """Refuses centres, in NumPy arrays, without a distance to derive a width from: the result would be NaN."""
    if np.shape(centres)[-1] < 2:
        raise ValueError("width: a single centre has no neighbour to take it from; give it.")
    if not isinstance(centres, jax.Array):
        ends = np.asarray(centres)[..., [0, -1]]
        if not np.all(np.isfinite(ends)) or np.any(ends[..., 0] == ends[..., 1]):
            raise ValueError(f"centres: the first and the last must be finite and differ, got {ends}; or give a width.")


def sharpness(alpha: float) -> None:
    """Refuses a surrogate's sharpness with which no gradient would flow, or with the wrong sign."""
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha: a surrogate's sharpness is a positive finite number, not {alpha!r}.")


def one_of(name: str, value: str, known: Any) -> str:
    """Returns a name; refuses an unknown one."""
    if value not in known:
        raise TypeError(f"{name}: needs one of {', '.join(known)}, not {value!r}.")
    return value


def platforms(names: Any) -> tuple[str, ...]:
    """Returns the platforms that a program is for; refuses names that could be exported but would run nowhere."""
    known = ("cpu", "cuda", "rocm", "tpu")
    if isinstance(names, str) or not (found := tuple(names)) or not set(found) <= set(known):
        raise ValueError(
            f"platforms: needs a sequence of names among {', '.join(known)}, such as ('cpu',); got {names!r}."
        )
    return found


def steps(num_steps: Any, name: str = "num_steps") -> int:
    """Returns the number of time steps of a sequence."""
    if isinstance(num_steps, bool) or not isinstance(num_steps, int | np.integer):
        raise TypeError(
            f"{name}: needs an int, not {num_steps!r}; under optax.inject_hyperparams name it in static_args."
        )
    if num_steps < 1:
        raise ValueError(f"{name}: a sequence has at least 1 time step, got {num_steps}.")
    return int(num_steps)


def time_step(owner: str, value: Any, num_steps: int) -> Any:
    """Returns a time step; refuses one outside ``0 .. num_steps - 1``, which an index would take for another one."""
    if value is None:
        raise ValueError(
            f"time_step: {owner} keeps statistics for each of {num_steps} time steps; pass time_step on from the "
            "model's __call__."
        )
    if not is_traced(value) and not 0 <= int(value) < num_steps:
        raise ValueError(
            f"time_step: {int(value)} is outside 0 .. {num_steps - 1}; {owner} was made with num_steps={num_steps}."
        )
    return value


def linen(model: Any) -> None:
    """Refuses a model of another library, or a class instead of an instance, before its text fills the screen."""
    if not hasattr(type(model), "init_with_output"):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise TypeError(
            f"model: needs a flax.linen module, not {kind}; make an instance of a class, and see bsojax.nnx for models "
            "of Flax NNX."
        )


def counter_bits(bits: Any) -> int:
    """Refuses a counter's width that leaves no room to count, or exceeds a byte."""
    number = steps(bits, "bits")
    if number not in range(3, 9):
        raise ValueError(f"bits: must be in 3 .. 8, got {number}.")
    return number


def updates(total_updates: Any) -> Any:
    """Returns the number of updates of a run, or None; refuses one in which a schedule cannot end."""
    if total_updates is None or is_traced(total_updates) or total_updates >= 1:
        return total_updates
    raise ValueError(
        f"total_updates: must be at least 1, got {total_updates}; it is the number of batches times num_steps, which "
        "is 0 if there are fewer examples than a batch holds. Where the end is not known, leave it out."
    )


def no_seed(seed: Any) -> None:
    """Refuses a seed together with a momentum that is an object and has its own."""
    if not isinstance(seed, int) or seed != 0:
        raise ValueError("seed: belongs to the short form; give it to the momentum, as in Integers('int8', seed=1).")


def backward_steps(count: int, num_steps: int) -> None:
    """Refuses a number of backward passes that a sequence cannot have."""
    if count not in range(1, num_steps + 1):
        raise ValueError(f"backward_steps: must be in 1 .. num_steps, here {num_steps}, got {count}.")


def one_exchange(axis_name: Any, vote: bool, mesh: Any, exchange: Any) -> None:
    """Refuses arguments of which one would be ignored."""
    if exchange is not None and (axis_name is not None or vote or mesh is not None):
        raise ValueError("exchange: stands for axis_name, vote and mesh; give it alone, or none.")
    if vote and axis_name is None:
        raise ValueError(
            "vote: needs axis_name, the axis of pmap or shard_map whose devices vote; under jit over a mesh the "
            "compiler exchanges gradients."
        )
    if axis_name is not None and mesh is not None:
        raise ValueError("axis_name, mesh: axis_name is for pmap and shard_map, mesh for jit; give one of them.")


def votes_differ(varying_axes: Any) -> None:
    """Refuses votes where shard_map has already summed the gradients, so that all devices would vote alike."""
    if varying_axes:
        raise ValueError(
            "vote: where shard_map checks that replicas agree, gradients arrive summed over the devices, and there is "
            "nothing to vote on; give jax.shard_map check_vma=False."
        )


def window(
    input_shape: tuple[int, ...],
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    reach: tuple[int, ...],
) -> None:
    """Refuses a kernel that is empty or larger than the padded image: the result would be empty, and its mean NaN."""
    space = input_shape[1 : 1 + len(reach)]
    if min(kernel_size) < 1 or any(
        size + sum(side) < extent for size, side, extent in zip(space, padding, reach, strict=True)
    ):
        raise ValueError(
            f"kernel_size: {tuple(kernel_size)} with dilation {dilation} does not fit into an input of shape "
            f"{input_shape} with padding {padding}."
        )


def pooling_window(window: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Refuses a window that is larger than the image: the result would be empty, and its mean NaN."""
    space = shape[1:-1]
    if len(window) != len(space) or not all(1 <= side <= size for side, size in zip(window, space, strict=False)):
        raise ValueError(f"window: cannot pool an image of shape {shape} by {window}.")


def has_space(shape: tuple[int, ...]) -> None:
    """Refuses to pool an input without spatial dimensions: something else would be pooled silently."""
    if not 3 <= len(shape) <= 5:
        raise ValueError(
            f"x: needs the shape (batch, *space, channels), with one to three dimensions of space; got {shape}."
        )


def dimensions(name: str, shape: tuple[int, ...], dims: int) -> None:
    """Refuses an image whose number of dimensions differs from its kernel's, or for which there are no layers."""
    if not 1 <= dims <= 3 or len(shape) != dims + 2:
        raise ValueError(
            f"{name}: a kernel of {dims} dimensions takes the shape (batch, *space, channels) with as many dimensions "
            f"of space, one to three; got {shape}."
        )


def whole(name: str, values: tuple[Any, ...], at_least: int | None = None) -> tuple[int, ...]:
    """Returns values as ints; refuses fractions, which would be truncated, and values below a bound."""
    if any(isinstance(value, float) or (at_least is not None and value < at_least) for value in values):
        bound = "" if at_least is None else f" of at least {at_least}"
        raise ValueError(f"{name}: needs ints{bound}, got {values}.")
    return tuple(map(operator.index, values))


def one_each(name: str, values: tuple[object, ...], dims: int) -> None:
    """Refuses settings that do not give one number for each dimension of space."""
    if len(values) != dims:
        raise ValueError(f"{name}: needs a number for all {dims} dimensions of space or one for each, got {values}.")
