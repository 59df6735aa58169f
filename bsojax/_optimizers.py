"""BSO and T-BSO: optimizers of signs, as optax gradient transformations."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bsojax import _flips, _momentum
from bsojax._arguments import (
    ScalarOrSchedule,
    as_scalar,
    as_schedule,
    check_counters,
    check_gradients,
    check_momentum_dtype,
    check_num_steps,
    check_second_moment,
    check_seed,
    check_signs,
    check_time_step,
    check_update_dtype,
)
from bsojax._kinds import check_bool
from bsojax._packing import is_packed, unpack_signs


class BSOState(NamedTuple):
    """The state of bso.

    Attributes:
      count: int32, the number of calls of update.
      momentum: tree like the signs, the moving average of the gradients: arrays of momentum_dtype, or for an integer
        one :class:`IntegerMomentum`.
      skipped: int32, how many calls changed nothing because a gradient was not finite.
    """

    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, as optax states do
    momentum: optax.Updates
    skipped: jax.Array


class TBSOState(NamedTuple):
    """The state of t_bso.

    Attributes:
      count: int32, the number of calls of update.
      momentum: tree like the signs, the moving average of the gradients: arrays of momentum_dtype, or for an integer
        one :class:`IntegerMomentum`.
      second_moment: tree like the signs with float32 leaves of shape ``(num_steps,)``: for each layer and time step
        the moving average of the mean squared gradient.
      second_moment_weight: float32 of shape ``(num_steps,)``, the weight that those averages have gathered so far,
        between 0 and 1; None without debias.
      skipped: int32, how many calls changed nothing because a gradient was not finite.
    """

    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, as optax states do
    momentum: optax.Updates
    second_moment: optax.Updates
    second_moment_weight: jax.Array | None
    skipped: jax.Array


def bso(
    threshold: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.999,
    *,
    reset_on_flip: bool = False,
    update_dtype: chex.ArrayDType = "int8",
    momentum_dtype: chex.ArrayDType = "float32",
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """Binary Spiking Online optimization: flip a weight where ``weight * momentum > threshold``.

    Use it for layers of similar gradient scale; t_bso suits the threshold to each layer by itself. Make it the last
    transform of a chain: its updates are int8 deltas in {-1, 0, +1} that ``optax.apply_updates`` adds to boolean signs.
    Leaves kept as floating +1 and -1 get ``-2 * weight`` where they flip.

    A call whose gradients are not all finite changes neither signs nor momentum, and is counted in ``state.skipped``.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> signs = {"kernel": jnp.array([True, False])}
      >>> tx = bsojax.bso(threshold=0.01, b1=0.9)
      >>> state = tx.init(signs)
      >>> grads = {"kernel": jnp.array([1.0, 1.0])}
      >>> updates, state = tx.update(grads, state, signs)
      >>> bsojax.apply_updates(signs, updates)["kernel"].tolist()
      [False, False]

    Args:
      threshold: gamma, in the units of the gradient: a number >= 0 (infinity freezes the signs), or a schedule of the
        number of updates.
      b1: decay of the momentum, in [0, 1), or a schedule. A float is complemented in double precision; a schedule works
        in float32, where ``1 - b1`` cannot be told from 0 below about 6e-8.
      reset_on_flip: whether the momentum of a weight that flips starts again at zero.
      update_dtype: dtype of the deltas. int8, unless a wrapper such as ``optax.apply_if_finite`` wants the gradient's;
        ``bsojax.apply_updates`` takes int8 only.
      momentum_dtype: dtype of the momentum at rest: float32, or to save memory bfloat16, int16 or int8. Those round at
        random, without bias; what that adds grows with the window ``1 / (1 - b1)``. In shares of the momentum's own
        root mean square, for windows of 100, 1,000, 10,000 and 100,000 updates and white noise of one size a channel:
        int16 0.0002, 0.0007, 0.002, 0.007; bfloat16 0.01, 0.04, 0.12, 0.36; int8 0.06, 0.18, 0.7, 2.5, so that longer
        windows than some 10,000 gain nothing; in channels of mixed sizes the integers have up to five times as much.
        Prefer int16 to bfloat16. See :class:`IntegerMomentum`.
      seed: of that rounding, in 0 .. 2^32 - 1. The same seed, state and gradients give the same bits.

    Returns:
      A transformation with state :class:`BSOState`. ``init`` and ``update`` take the tree of signs as params.

    Raises:
      TypeError, ValueError: an argument, a sign leaf or a gradient is unfit; the message names it.

    Source: Liang et al., BSO, ICML 2025, eq. 11-12.
    """
    # Dtypes have strings for their defaults: optax.inject_hyperparams takes callables, as jnp.int8, for schedules.
    threshold_at = as_schedule("threshold", threshold, 0.0, math.inf)
    b1_at = as_schedule("b1", b1, 0.0, 1.0, open_above=True)
    update_dtype = check_update_dtype(update_dtype)
    momentum_dtype = check_momentum_dtype(momentum_dtype)
    check_seed(seed)
    check_bool("reset_on_flip", reset_on_flip)

    def init_fn(signs: optax.Params) -> BSOState:
        signs = unpack_signs(signs)
        check_signs(signs)
        return BSOState(
            jnp.zeros((), jnp.int32), _momentum.zero_momentum(signs, momentum_dtype), jnp.zeros((), jnp.int32)
        )

    def update_fn(
        grads: optax.Updates, state: BSOState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, BSOState]:
        del extra_args
        check_counters(state, BSOState)
        signs = check_gradients(grads, state.momentum, unpack_signs(params), momentum_dtype)
        gamma, decay = threshold_at(state.count), b1_at(state.count)
        keep = _flips.all_finite(grads)
        momentum, average = _momentum.advance(state.momentum, grads, decay, keep, state.count, seed)
        flips = jax.tree.map(lambda w, m: keep & _flips.flip_mask(w, m, gamma), signs, average)
        deltas, momentum = _apply_flips(params, flips, momentum, reset_on_flip, update_dtype)
        return deltas, BSOState(_increment(state.count), momentum, state.skipped + ~keep)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def t_bso(
    threshold: ScalarOrSchedule,
    num_steps: int,
    b1: ScalarOrSchedule = 0.999,
    b2: float = 0.99999,
    eps: float = 1e-20,
    *,
    reset_on_flip: bool = False,
    debias: bool = False,
    update_dtype: chex.ArrayDType = "int8",
    momentum_dtype: chex.ArrayDType = "float32",
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """Temporal-aware BSO: flip where ``weight * momentum > threshold * sqrt(v[t] + eps)``.

    Use it by default: ``v[t]``, the mean squared gradient of the layer at time step t, makes the threshold free of the
    gradient's scale. Like bso it goes last in a chain and skips and counts gradients that are not finite.

    With the paper's settings the threshold is far below the momentum's noise, which is about ``sqrt((1 - b1) / 2)`` of
    the gradient's root mean square; ``noise_threshold`` gives one that acts, best with ``debias=True`` and
    b2 near 0.99.

    Args:
      threshold: gamma, in units of the gradient's root mean square: a number >= 0 (infinity freezes the signs), or a
        schedule of the number of updates.
      num_steps: T, the number of time steps of a sequence.
      b1: decay of the momentum, in [0, 1), or a schedule (see bso about its precision).
      b2: decay of the second moment, in [0, 1).
      eps: added inside the root. It must stay far below ``(1 - b2) * g**2``, about 1e-15 on the first updates, or it
        becomes the threshold.
      reset_on_flip: whether the momentum of a weight that flips starts again at zero.
      debias: whether v is divided by the weight it has gathered, so that it is a mean from the first update on. (The
        momentum is not: a single gradient is noise.) The paper does not.
      update_dtype: dtype of the deltas (see bso).
      momentum_dtype: dtype of the momentum at rest: float32, bfloat16, int16 or int8 (see bso).
      seed: of the rounding to that dtype (see bso).

    Returns:
      A transformation with state :class:`TBSOState`. ``update(grads, state, signs, time_step=t)`` takes the time step
      as an int32 scalar; left out, it is the state's own count modulo num_steps. A traced time step outside
      ``0 .. num_steps - 1`` skips the update and counts it.

    Raises:
      TypeError, ValueError: an argument, a sign leaf or a gradient is unfit; the message names it.

    Source: Liang et al., BSO, ICML 2025, eq. 11, 13-14.
    """
    threshold_at = as_schedule("threshold", threshold, 0.0, math.inf)
    b1_at = as_schedule("b1", b1, 0.0, 1.0, open_above=True)
    b2 = as_scalar("b2", b2, 0.0, 1.0, open_above=True)
    eps = as_scalar("eps", eps, 0.0, math.inf, open_above=True)
    num_steps = check_num_steps(num_steps)
    update_dtype = check_update_dtype(update_dtype)
    momentum_dtype = check_momentum_dtype(momentum_dtype)
    check_seed(seed)
    check_bool("reset_on_flip", reset_on_flip)
    check_bool("debias", debias)

    def init_fn(signs: optax.Params) -> TBSOState:
        signs = unpack_signs(signs)
        check_signs(signs)
        return TBSOState(
            count=jnp.zeros((), jnp.int32),
            momentum=_momentum.zero_momentum(signs, momentum_dtype),
            second_moment=jax.tree.map(lambda _: jnp.zeros((num_steps,), jnp.float32), signs),
            second_moment_weight=jnp.zeros((num_steps,), jnp.float32) if debias else None,
            skipped=jnp.zeros((), jnp.int32),
        )

    def update_fn(
        grads: optax.Updates,
        state: TBSOState,
        params: optax.Params | None = None,
        *,
        time_step: int | jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TBSOState]:
        del extra_args
        check_counters(state, TBSOState)
        signs = check_gradients(grads, state.momentum, unpack_signs(params), momentum_dtype)
        check_second_moment(state.second_moment, state.second_moment_weight, signs, num_steps, debias)
        if time_step is None:
            time_step = state.count % num_steps
        t = check_time_step(time_step, num_steps)
        gamma, decay = threshold_at(state.count), b1_at(state.count)
        squares = jax.tree.map(_flips.mean_square, grads)  # the square of a finite gradient may overflow
        keep = _flips.all_finite((grads, squares)) & (t >= 0) & (t < num_steps)

        def average_at_t(average: jax.Array, value: jax.Array) -> jax.Array:
            average = jnp.asarray(average)  # a restored state may hold NumPy arrays
            return average.at[t].set(jnp.where(keep, _flips.moving_average(average[t], value, b2), average[t]))

        momentum, average = _momentum.advance(state.momentum, grads, decay, keep, state.count, seed)
        second_moment = jax.tree.map(average_at_t, state.second_moment, squares)
        weight = None
        scale = jnp.ones(())
        if state.second_moment_weight is not None:
            weight = average_at_t(state.second_moment_weight, jnp.ones(()))
            scale = jnp.where(weight[t] > 0, weight[t], 1)
        flips = jax.tree.map(
            lambda w, m, v: keep & _flips.flip_mask(w, m, gamma * jnp.sqrt(v[t] / scale + eps)),
            signs,
            average,
            second_moment,
        )
        deltas, momentum = _apply_flips(params, flips, momentum, reset_on_flip, update_dtype)
        return deltas, TBSOState(_increment(state.count), momentum, second_moment, weight, state.skipped + ~keep)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def noise_threshold(b1: ScalarOrSchedule, c: float = 0.5) -> Any:
    """Returns ``c * sqrt((1 - b1) / 2)``: c standard deviations of the momentum of t_bso under pure noise.

    Use it as the threshold of t_bso. The moving average of white noise with root mean square g has the standard
    deviation ``sqrt((1 - b1) / (1 + b1)) * g``, so this threshold stops most flips that noise alone would cause: c = 0
    stops none, 0.5 all but one in twenty. A schedule of b1 gives a schedule that follows it.

    Args:
      b1: decay of the momentum, in [0, 1): a number or a schedule.
      c: how many standard deviations, >= 0.

    Raises:
      TypeError: b1 or c is no number.
      ValueError: b1 or c is out of range.
    """
    c = as_scalar("c", c, 0.0, math.inf)
    if callable(b1):
        schedule = as_schedule("b1", b1, 0.0, 1.0, open_above=True)
        return lambda count: c * jnp.sqrt((1 - schedule(count)) / 2)
    constant = as_scalar("b1", b1, 0.0, 1.0, open_above=True)
    return c * (math.sqrt((1 - constant) / 2) if isinstance(constant, float) else jnp.sqrt((1 - constant) / 2))


def _apply_flips(
    signs: optax.Params, flips: optax.Params, momentum: optax.Updates, reset_on_flip: bool, update_dtype: np.dtype
) -> tuple[optax.Updates, optax.Updates]:
    if reset_on_flip:
        momentum = jax.tree.map(_momentum.zero_where, flips, momentum)
    deltas = jax.tree.map(lambda w, f: _flips.flip_delta(w, f, update_dtype), signs, flips, is_leaf=is_packed)
    return deltas, momentum


def _increment(count: jax.Array) -> jax.Array:
    return jnp.where(count < jnp.iinfo(jnp.int32).max, count + 1, count)
