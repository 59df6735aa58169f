"""BSO and T-BSO: optimizers of signs, as optax gradient transformations built on one core."""

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax._validate import ScalarOrSchedule
from bsojax.optim import _deployed, _flips, _momentum
from bsojax.optim._momentum import Momentum
from bsojax.optim._second_moment import SecondMoment
from bsojax.signs import deltas, unpack_signs


class BSOState(NamedTuple):
    """The state of bso.

    Attributes:
      count: int32, the number of calls of update.
      momentum: tree like the signs, the moving average of the gradients: arrays of momentum_dtype, or for integer
        dtypes :class:`IntegerMomentum`.
      skipped: int32, how many calls changed nothing because a gradient was not finite.
      deployed: tree like the signs, those to evaluate, save and export, as PackedSigns; None: the trained signs.
    """

    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, as optax states do
    momentum: optax.Updates
    skipped: jax.Array
    deployed: optax.Params | None = None


class TBSOState(NamedTuple):
    """The state of t_bso.

    Attributes:
      count: int32, the number of calls of update.
      momentum: tree like the signs, the moving average of the gradients: arrays of momentum_dtype, or for integer
        dtypes :class:`IntegerMomentum`.
      second_moment: tree like the signs with float32 leaves of shape ``(num_steps,)``: for each layer and time step
        the moving average of the mean squared gradient.
      second_moment_weight: float32 of shape ``(num_steps,)``, the weight that those averages have accumulated so far,
        between 0 and 1; None without debias.
      skipped: int32, how many calls changed nothing because a gradient was not finite.
      deployed: the signs to evaluate, save and export, as in :class:`BSOState`.
    """

    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, as optax states do
    momentum: optax.Updates
    second_moment: optax.Updates
    second_moment_weight: jax.Array | None
    skipped: jax.Array
    deployed: optax.Params | None = None


def bso(
    threshold: ScalarOrSchedule,
    b1: ScalarOrSchedule = 0.999,
    *,
    deploy_threshold: ScalarOrSchedule | None = None,
    reset_on_flip: bool = False,
    update_dtype: chex.ArrayDType = "int8",
    momentum_dtype: chex.ArrayDType | Momentum = "float32",
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """Binary Spiking Online optimization: flip a weight where ``weight * momentum > threshold``.

    Use it for layers with similar gradient scales; t_bso adapts the threshold to each layer. Make it the last transform
    of a chain: its updates are int8 deltas in {-1, 0, +1} that ``optax.apply_updates`` adds to boolean signs. Leaves
    kept as floating +1 and -1 get ``-2 * weight`` where they flip.

    A call whose gradients are not all finite changes neither signs nor momentum and is counted in ``state.skipped``.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> signs, tx = {"kernel": jnp.array([True, False])}, bsojax.bso(threshold=0.01, b1=0.9)
      >>> updates, state = tx.update({"kernel": jnp.array([1.0, 1.0])}, tx.init(signs), signs)
      >>> bsojax.apply_updates(signs, updates)["kernel"].tolist()
      [False, False]

    Args:
      threshold: gamma, in the units of the gradient: a number >= 0 (infinity freezes the signs but keeps a momentum;
        freeze keeps none), or a schedule over the number of updates, num_steps per batch (see per_batch).
      b1: decay of the momentum, in [0, 1), or a schedule. For a float, ``1 - b1`` is computed in double precision; a
        schedule works in float32, where ``1 - b1`` cannot be distinguished from 0 below about 6e-8.
      deploy_threshold: makes the state keep a second set of signs, one bit per weight, which follow the trained ones
        only where the momentum exceeds it: steadier signs to evaluate and ship (see deployed_signs). Training stays the
        same. A number or schedule in the units of threshold; best: threshold 0, here ``noise_threshold(b1, 0.3)``.
      reset_on_flip: whether the momentum of a weight that flips restarts at zero.
      update_dtype: dtype of the deltas. Keep int8, unless a wrapper such as ``optax.apply_if_finite`` needs the
        gradient's; ``bsojax.apply_updates`` takes only int8.
      momentum_dtype: how the momentum is stored: an object such as ``bsojax.optim.Integers("int8", seed=1)``, or for
        short float32, or to save memory bfloat16, int16 or int8. Those three round stochastically, without bias; the
        noise grows with the window ``1 / (1 - b1)``. As fractions of the momentum's own root mean square, for windows
        of 100, 1,000, 10,000 and 100,000 updates and white noise of one size per channel: int16 0.0002, 0.0007, 0.002,
        0.007; bfloat16 0.01, 0.04, 0.12, 0.36; int8 0.06, 0.18, 0.7, 2.5, so windows longer than about 10,000 gain
        nothing. In channels of mixed sizes the integers add up to five times as much. Prefer int16 to bfloat16.
      seed: the seed of that rounding, in 0 .. 2^32 - 1. The same seed, state and gradients give the same bits.

    Returns:
      A transformation with state :class:`BSOState`. ``init`` and ``update`` take the tree of signs as params.

    Raises:
      TypeError: a number is given as a boolean, or momentum_dtype names no momentum.
      ValueError: a number is out of range; at init, a leaf does not hold signs; at update, gradients or state do not
        fit the signs.

    Source: Liang et al., BSO, ICML 2025, eq. 11-12.
    """
    # Dtypes default to strings: optax.inject_hyperparams mistakes callables, such as jnp.int8, for schedules.
    return _flip_optimizer(threshold, b1, None, deploy_threshold, reset_on_flip, update_dtype, momentum_dtype, seed)


def t_bso(
    threshold: ScalarOrSchedule,
    num_steps: int,
    b1: ScalarOrSchedule = 0.999,
    b2: float = 0.99999,
    eps: float = 1e-20,
    *,
    reset_on_flip: bool = False,
    debias: bool = False,
    deploy_threshold: ScalarOrSchedule | None = None,
    update_dtype: chex.ArrayDType = "int8",
    momentum_dtype: chex.ArrayDType | Momentum = "float32",
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """Temporal-aware BSO: flip where ``weight * momentum > threshold * sqrt(v[t] + eps)``.

    Use it by default: ``v[t]``, the mean squared gradient of the layer at time step t, makes the threshold independent
    of the gradient's scale. Like bso it goes last in a chain, and it skips and counts gradients that are not finite.

    With the paper's settings the threshold is far below the momentum's noise, which is about ``sqrt((1 - b1) / 2)`` of
    the gradient's root mean square. ``noise_threshold`` gives one that has an effect, best with ``debias=True`` and b2
    near 0.99; ``calibrated`` is such an optimizer, ready to use.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> signs, tx = {"kernel": jnp.array([True, True])}, bsojax.t_bso(0.1, num_steps=4, b1=0.9, debias=True)
      >>> updates, state = tx.update({"kernel": jnp.array([3.0, 0.1])}, tx.init(signs), signs, time_step=0)
      >>> bsojax.apply_updates(signs, updates)["kernel"].tolist()
      [False, True]

    Args:
      threshold: gamma, in units of the gradient's root mean square: a number >= 0 (infinity freezes the signs, see
        bso), or a schedule over the number of updates, num_steps per batch (see per_batch).
      num_steps: T, the number of time steps of a sequence. Within optax.MultiSteps an update happens at the time step
        when the gradients are complete: with a multiple of T it is the last, whose second moment is then that of the
        accumulated gradients, and the others are unused. An update that is skipped there is not accumulated: the next
        takes its place, so from then on flips happen a time step later, whose second moment starts at zero (debias=True
        makes it a mean at once). ``make_train_step(..., accumulate=True)`` accumulates a batch without that shift.
      b1: decay of the momentum, in [0, 1), or a schedule (see bso about its precision).
      b2: decay of the second moment, in [0, 1).
      eps: added inside the root. It must stay far below ``(1 - b2) * g**2``, about 1e-15 on the first updates, or it
        becomes the threshold.
      reset_on_flip: whether the momentum of a weight that flips restarts at zero.
      debias: whether v is divided by the weight that it has accumulated, so that it is a mean from the first update on.
        (The momentum is not: a single gradient is noise.) The paper does not do this.
      deploy_threshold: how certain the momentum must be for a sign to be deployed, in the units of threshold (see bso).
      update_dtype: dtype of the deltas (see bso).
      momentum_dtype: how the momentum is stored (see bso).
      seed: the seed of the rounding to that dtype (see bso).

    Returns:
      A transformation with state :class:`TBSOState`. ``update(grads, state, signs, time_step=t)`` takes the time step
      as an int32 scalar; left out, it is the state's own count modulo num_steps. A traced time step outside
      ``0 .. num_steps - 1`` skips the update and counts it.

    Raises:
      TypeError: a number is given as a boolean, num_steps is not an int, or momentum_dtype names no momentum.
      ValueError: a number is out of range; at init, a leaf does not hold signs; at update, gradients or state do not
        fit the signs, or time_step is outside 0 .. num_steps - 1.

    Source: Liang et al., BSO, ICML 2025, eq. 11, 13-14.
    """
    second_moment = SecondMoment(
        _validate.steps(num_steps),
        _validate.number("b2", b2, 0.0, 1.0, open_above=True),
        _validate.number("eps", eps, 0.0, math.inf, open_above=True),
        debias,
    )
    return _flip_optimizer(
        threshold, b1, second_moment, deploy_threshold, reset_on_flip, update_dtype, momentum_dtype, seed
    )


def _flip_optimizer(
    threshold: ScalarOrSchedule,
    b1: ScalarOrSchedule,
    second_moment: SecondMoment | None,
    deploy_threshold: ScalarOrSchedule | None,
    reset_on_flip: bool,
    update_dtype: chex.ArrayDType,
    momentum_dtype: chex.ArrayDType | Momentum,
    seed: int | jax.Array,
) -> optax.GradientTransformationExtraArgs:
    """The core of bso and, with a second moment, of t_bso."""
    threshold_at = _validate.schedule("threshold", threshold, 0.0, math.inf)
    b1_at = _validate.schedule("b1", b1, 0.0, 1.0, open_above=True)
    sure_at = (
        None if deploy_threshold is None else _validate.schedule("deploy_threshold", deploy_threshold, 0.0, math.inf)
    )
    kind = _momentum.as_momentum(momentum_dtype, seed)

    def zero() -> jax.Array:
        return jnp.zeros((), jnp.int32)

    def fresh(signs: optax.Params) -> Any:
        momentum = _momentum.zero_momentum(kind, signs)
        deployed = None if sure_at is None else _deployed.begun(signs)
        if second_moment is None:
            return BSOState(zero(), momentum, zero(), deployed)
        return TBSOState(zero(), momentum, *second_moment.start(signs), zero(), deployed)

    def init_fn(params: optax.Params) -> Any:
        signs = unpack_signs(params)
        _validate.sign_values(signs)
        return fresh(signs)

    def update_fn(
        grads: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        time_step: int | jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        _validate.needs_params(params)
        signs = unpack_signs(params)
        _validate.same_shapes("grads", grads, signs)
        _validate.same("state", state, jax.eval_shape(fresh, signs), MISFIT)
        gamma, decay = threshold_at(state.count), b1_at(state.count)
        keep = _flips.all_finite(grads)
        scales: Any = jax.tree.map(lambda _: 1.0, signs)
        changed: dict[str, Any] = {}
        if second_moment is not None:
            changed, scales, keep = second_moment.advance(state, grads, time_step, keep)
        limits = jax.tree.map(lambda scale: gamma * scale, scales)
        momentum, average = _momentum.advance(kind, state.momentum, grads, decay, keep, state.count)
        flips = jax.tree.map(lambda w, m, limit: keep & _flips.flip_mask(w, m, limit), signs, average, limits)
        if sure_at is not None:
            least = sure_at(state.count)
            sure = jax.tree.map(lambda m, scale: keep & (jnp.abs(m) > least * scale), average, scales)
            changed["deployed"] = _deployed.followed(state, signs, flips, sure)
        if reset_on_flip:
            momentum = _momentum.zero_where(kind, flips, momentum)
        count = optax.safe_increment(state.count)
        state = state._replace(count=count, momentum=momentum, skipped=state.skipped + ~keep, **changed)
        return deltas(params, flips, update_dtype), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


MISFIT = (
    "it was made for other signs, another num_steps, momentum_dtype or debias, or optax.partition got labels by dtype "
    "(label by path instead). Give the optimizer the settings of the state, or start with tx.init."
)


def check_time_steps(opt_state: optax.OptState, num_steps: int) -> None:
    """Raises ValueError if a t_bso somewhere in an optimizer's state was made for fewer time steps.

    Use it before a loop whose time steps are traced: inside the loop, none can be refused.
    """
    for node in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, TBSOState)):
        for leaf in jax.tree.leaves(node.second_moment if isinstance(node, TBSOState) else ()):
            _validate.time_step("t_bso", num_steps - 1, jnp.size(leaf))


def noise_threshold(b1: ScalarOrSchedule, c: float = 0.5) -> Any:
    """Returns ``c * sqrt((1 - b1) / 2)``: a threshold in standard deviations of the momentum under pure noise.

    Use it as the threshold of t_bso. The moving average of white noise with root mean square g has the standard
    deviation ``sqrt((1 - b1) / (1 + b1)) * g``, so this threshold stops most flips that noise alone would cause: c = 0
    stops none, 0.5 all but one in twenty. A schedule for b1 gives a schedule that follows it.

    Example:
      >>> import bsojax
      >>> round(bsojax.noise_threshold(b1=0.99), 4)
      0.0354

    Args:
      b1: decay of the momentum, in [0, 1): a number or a schedule.
      c: how many standard deviations, >= 0.

    Raises:
      TypeError: b1 or c is given as a boolean.
      ValueError: b1 or c is out of range.
    """
    c = _validate.number("c", c, 0.0, math.inf)
    if callable(b1):
        return lambda count: c * jnp.sqrt((1 - b1(count)) / 2)
    constant = _validate.number("b1", b1, 0.0, 1.0, open_above=True)
    return c * (math.sqrt((1 - constant) / 2) if isinstance(constant, float) else jnp.sqrt((1 - constant) / 2))
