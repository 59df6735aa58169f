"""Checks of what users hand to the optimizers: each raises one message that names the argument or leaf and the cure."""

from collections.abc import Callable
from typing import Any, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bsojax._kinds import ARRAYS, as_dtype, as_float, as_real, check_leaves, is_int, is_int_scalar, is_real_scalar
from bsojax._momentum import MOMENTUM_DTYPES, IntegerMomentum, is_integer_momentum, scale_shape
from bsojax._packing import is_sign
from bsojax._signs import leaf_name, same_structure

Schedule: TypeAlias = Callable[[Any], Any]
ScalarOrSchedule: TypeAlias = float | jax.Array | Schedule


def as_schedule(name: str, value: ScalarOrSchedule, low: float, high: float, *, open_above: bool = False) -> Schedule:
    """Returns a schedule of the update count; a constant must lie in the range, and stays a constant."""
    if not callable(value):
        constant = as_scalar(name, value, low, high, open_above=open_above, advice="needs a number or a schedule")
        return lambda count: constant

    def schedule(count: Any) -> Any:
        at = value(count)  # traced under jit, so that its range cannot be looked at
        _check_scalar(name, at, "needs a schedule that returns a number")
        return as_float(name, at) if isinstance(at, int) else at

    return schedule


def as_scalar(
    name: str, value: Any, low: float, high: float, *, open_above: bool = False, advice: str = "needs a number"
) -> Any:
    """As as_real, with advice on what optax does to numbers, and on schedules."""
    _check_scalar(name, value, advice)
    return as_real(name, value, low, high, open_above=open_above)


def _check_scalar(name: str, value: Any, advice: str) -> None:
    if isinstance(value, bool) or (isinstance(value, ARRAYS) and value.dtype == jnp.bool_):
        raise TypeError(
            f"{name}: got the boolean {value!r} and needs a number. optax.inject_hyperparams casts numbers to the "
            "dtype of the parameters: give it hyperparam_dtype=jnp.float32."
        )
    if not is_real_scalar(value):
        raise TypeError(f"{name}: {advice}, not {value!r}.")


def check_num_steps(num_steps: Any) -> int:
    """Raises unless num_steps is an int >= 1."""
    if not is_int(num_steps):
        raise TypeError(
            f"num_steps: needs an int, not {num_steps!r}; under optax.inject_hyperparams name it in static_args."
        )
    if num_steps < 1:
        raise ValueError(f"num_steps: a sequence has at least 1 time step, got {num_steps}.")
    if num_steps >= 2**31:
        raise ValueError(f"num_steps: time steps are counted in 32 bits, got {num_steps}.")
    return int(num_steps)


def check_backward_steps(backward_steps: Any, num_steps: int) -> None:
    """Raises unless backward_steps is None or an int in 1 .. num_steps."""
    if backward_steps is None:
        return
    if not is_int(backward_steps):
        raise TypeError(f"backward_steps: needs an int or None, not {backward_steps!r}.")
    if not 1 <= backward_steps <= num_steps:
        raise ValueError(f"backward_steps: must be in 1 .. num_steps, here {num_steps}, got {backward_steps}.")


def check_time_step(time_step: Any, num_steps: int) -> int | jax.Array:
    """Raises unless time_step is an integer scalar in range; the value of a traced one is not seen."""
    if not is_int_scalar(time_step):
        raise TypeError(f"time_step: needs an integer scalar, not {time_step!r}.")
    if not isinstance(time_step, jax.core.Tracer) and not 0 <= int(time_step) < num_steps:
        raise ValueError(
            f"time_step: {int(time_step)} is outside 0 .. {num_steps - 1}; t_bso was made with num_steps={num_steps}."
        )
    return time_step if isinstance(time_step, int) else jnp.asarray(time_step, jnp.int32)


def check_update_dtype(dtype: chex.ArrayDType) -> np.dtype:
    """Raises unless dtype can hold deltas of -1, 0 and +1."""
    if isinstance(dtype, jax.Array | np.ndarray | np.generic):
        raise TypeError(
            f"update_dtype: needs a dtype, not the array {dtype!r}; under optax.inject_hyperparams name it in "
            "static_args."
        )
    dtype = as_dtype("update_dtype", dtype)
    if dtype != jnp.int8 and not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"update_dtype: deltas are int8 or floating, not {dtype}.")
    return dtype


def check_momentum_dtype(dtype: chex.ArrayDType) -> np.dtype:
    """Raises unless dtype is one in which the momentum can be kept."""
    advice = ""
    if isinstance(dtype, jax.Array | np.ndarray | np.generic):
        advice = "; under optax.inject_hyperparams write it as a string"
    else:
        try:
            name = as_dtype("momentum_dtype", dtype).name
            if name in MOMENTUM_DTYPES:
                return jnp.dtype(name)
        except TypeError:
            pass
    raise TypeError(f"momentum_dtype: needs one of {', '.join(MOMENTUM_DTYPES)}, not {dtype!r}{advice}.")


def check_seed(seed: Any) -> None:
    """Raises unless seed is an integer of 32 bits; the value of a JAX array is not seen."""
    if not is_int_scalar(seed):
        raise TypeError(f"seed: needs an int, not {seed!r}.")
    if not isinstance(seed, jax.Array) and not 0 <= int(seed) < 2**32:
        raise ValueError(f"seed: must be in 0 .. 2^32 - 1, got {seed}.")


def check_signs(signs: optax.Params) -> None:
    """Raises unless every leaf is boolean, or floating with values of +1 and -1 only."""
    leaves = jax.tree_util.tree_leaves_with_path(signs)
    if not leaves:
        raise ValueError("signs: the tree has no leaf to flip; does the model have a binary layer?")
    _check_sign_dtypes(signs)
    for path, leaf in leaves:
        if is_sign(leaf):
            continue
        name = leaf_name(path)
        if not isinstance(leaf, jax.core.Tracer) and not np.all(np.abs(np.asarray(leaf)) == 1):
            raise ValueError(
                f"signs: leaf '{name}' is {jnp.result_type(leaf)} with values other than +1 and -1, so it holds no "
                "signs. Keep binary weights boolean (bsojax.to_signs converts), and give real parameters to another "
                "optimizer (bsojax.split_optimizer, optax.masked)."
            )


def _check_sign_dtypes(signs: optax.Params) -> None:
    check_leaves("signs", signs)
    for path, leaf in jax.tree_util.tree_leaves_with_path(signs):
        if not is_sign(leaf) and not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"signs: leaf '{leaf_name(path)}' is {jnp.result_type(leaf)}; signs are boolean, or floating +1 and -1."
            )


def check_counters(state: Any, kind: type) -> None:
    """Raises unless state is of the kind that the optimizer's init returns, with counters that are integer scalars."""
    if not isinstance(state, kind):
        raise TypeError(f"state: needs a {kind.__name__}, as tx.init returns it, not a {type(state).__name__}.")
    check_leaves("state", state)
    for name in ("count", "skipped"):
        if not is_int_scalar(getattr(state, name)):
            raise TypeError(f"state: its {name} must be an integer scalar; start with tx.init.")


def check_second_moment(second_moment: Any, weight: Any, signs: optax.Params, num_steps: int, debias: bool) -> None:
    """Raises unless the second moment has an entry a time step for each leaf, and its weight is there with debias."""
    expected = jax.tree.map(lambda _: (num_steps,), signs)
    if not same_structure(second_moment, signs) or jax.tree.map(jnp.shape, second_moment) != expected:
        raise ValueError(
            f"state: its second_moment needs shape ({num_steps},) for each leaf of the signs; it was made for other "
            "signs or another num_steps."
        )
    if (weight is not None) != debias or (debias and jnp.shape(weight) != (num_steps,)):
        raise ValueError(
            f"state: its second_moment_weight needs shape ({num_steps},) with debias=True, and is None without; it was "
            "made with other settings."
        )


def check_gradients(
    grads: optax.Updates, momentum: optax.Updates, signs: optax.Params | None, momentum_dtype: np.dtype
) -> optax.Params:
    """Returns the signs; raises unless the gradients are floating and they and the momentum match the signs."""
    if signs is None:
        raise ValueError("signs: update needs the current signs, as in tx.update(grads, state, signs).")
    check_leaves("grads", grads)
    _check_sign_dtypes(signs)
    if not same_structure(grads, signs):
        raise ValueError(
            f"grads: their tree {jax.tree.structure(grads)} differs from that of the signs {jax.tree.structure(signs)}."
        )
    _check_momentum(momentum, signs, momentum_dtype)
    flat = jax.tree_util.tree_leaves_with_path(grads)
    for (path, grad), leaf in zip(flat, jax.tree.leaves(signs), strict=True):
        if not jnp.issubdtype(jnp.result_type(grad), jnp.floating):
            raise TypeError(
                f"grads: leaf '{leaf_name(path)}' is {jnp.result_type(grad)}, not floating; bsojax.value_and_grad "
                "gives gradients of boolean signs."
            )
        if jnp.shape(grad) != jnp.shape(leaf):
            raise ValueError(
                f"grads: leaf '{leaf_name(path)}' has shape {jnp.shape(grad)}, its signs have {jnp.shape(leaf)}."
            )
    return signs


def _check_momentum(momentum: optax.Updates, signs: optax.Params, dtype: np.dtype) -> None:
    structure: Any = jax.tree.structure(momentum, is_leaf=is_integer_momentum)
    leaves = jax.tree.leaves(momentum, is_leaf=is_integer_momentum)
    values = [leaf.values if is_integer_momentum(leaf) else leaf for leaf in leaves]
    shapes = [jnp.shape(leaf) for leaf in values]
    if structure != jax.tree.structure(signs) or shapes != [jnp.shape(leaf) for leaf in jax.tree.leaves(signs)]:
        raise ValueError(
            f"state: its momentum has the tree {structure} with shapes {shapes}, other than the signs; it was made for "
            "other parameters, or optax.partition got labels by dtype (label by path instead)."
        )
    for leaf, array in zip(leaves, values, strict=True):
        if jnp.result_type(array) != dtype:
            raise TypeError(
                f"state: its momentum is {jnp.result_type(array)}, but the optimizer was made with "
                f"momentum_dtype={dtype.name!r}; give it the dtype of the state, or start with tx.init."
            )
        if isinstance(leaf, IntegerMomentum) and jnp.shape(leaf.scale) != scale_shape(jnp.shape(array)):
            raise ValueError(
                f"state: momentum of shape {jnp.shape(array)} needs scales of shape {scale_shape(jnp.shape(array))}, "
                f"one for each index of the last axis, not {jnp.shape(leaf.scale)}."
            )
