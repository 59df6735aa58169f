"""Complete optimizers of signs with our settings."""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax._validate import Schedule
from bsojax.optim._bso import noise_threshold, t_bso
from bsojax.optim._channel_rms import scale_by_channel_rms
from bsojax.optim._counter import counter
from bsojax.optim._momentum import Momentum


def calibrated(
    num_steps: int,
    total_updates: int | None = None,
    *,
    b1: float = 0.9,
    growth: float = 0.5,
    c: float = 0.0,
    b2: float = 0.99,
    rms_decay: float = 0.0,
    anneal: Schedule | None = None,
    deploy_c: float | None = 0.3,
    momentum_dtype: chex.ArrayDType | Momentum = "float32",
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """T-BSO with our settings: the recipe to start with.

    Use it as the flip optimizer. Gradients are scaled to one size per channel, so that late ones, which are small,
    count as much as early ones. Signs follow the momentum without a threshold, and its window grows with the run.
    Beside them, at one bit per weight, the state keeps the signs to evaluate and ship, which follow only where the
    momentum is certain (see deployed_signs). docs/RESULTS.md has the evidence: how it compares with rules that keep
    latent weights.

    Example:
      >>> import optax, bsojax
      >>> epochs, batches, num_steps = 15, 45, 4
      >>> updates = epochs * batches * num_steps
      >>> flip = bsojax.calibrated(num_steps, updates)
      >>> tx = bsojax.split_optimizer(flip, optax.sgd(optax.cosine_decay_schedule(0.1, updates)))

    Args:
      num_steps: T, the number of time steps of a sequence.
      total_updates: the number of updates of the run, at the end of which flips die out. An online step updates after
        every time step, so this is the number of batches times num_steps, not the number of batches; with
        losses.at_last or accumulation it is the number of batches. None: flips continue, for runs whose end is not
        known.
      b1: decay of the momentum at the start, in [0, 1).
      growth: by how many updates the momentum's window, 1 / (1 - b1), grows per update.
      c: the threshold, in standard deviations of the momentum's noise (see noise_threshold).
      b2: decay of the second moment.
      rms_decay: decay of the root mean square (see scale_by_channel_rms).
      anneal: a schedule by which ``1 - b1`` is multiplied; None: falling linearly from 1 to 0 at total_updates.
      deploy_c: how certain the momentum must be for a sign to be deployed, in the same standard deviations; None: the
        trained signs are deployed.
      momentum_dtype: how the momentum is stored (see bso).
      seed: the seed of the rounding to that dtype (see bso).

    Returns:
      A transformation whose state contains a :class:`TBSOState`. With growth 0.2, c 0.1, no deploy_c, and
      ``optax.cosine_decay_schedule(1.0, total_updates)`` for anneal, it is the recipe of earlier versions.

    Raises:
      TypeError, ValueError: as t_bso; or growth is negative, or total_updates below 1.
    """
    b1_at = window_schedule(b1, growth, total_updates, anneal or _linear(total_updates))
    sure = None if deploy_c is None else _validate.number("deploy_c", deploy_c, 0.0, math.inf)
    flip = t_bso(
        noise_threshold(b1_at, c),
        num_steps,
        b1_at,
        b2,
        debias=True,
        deploy_threshold=None if sure is None else noise_threshold(b1_at, sure),
        momentum_dtype=momentum_dtype,
        seed=seed,
    )
    return optax.chain(scale_by_channel_rms(rms_decay), flip)


def calibrated_counter(
    total_updates: int | None = None,
    bits: int = 6,
    *,
    rho: float = 1.0,
    max_step: float = 2.5,
    growth: float = 1.0,
    rms_decay: float = 0.0,
    anneal: Schedule | None = None,
    deploy_c: float | None = 0.15,
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """A counter with our settings: the counterpart of calibrated in a few bits per weight.

    Use it where memory decides: at six bits per weight, including the sign, it comes close to calibrated with a float32
    momentum (docs/RESULTS.md shows how close, on which set, at which width). Its steps shrink as the momentum's window
    grows in calibrated.

    Example:
      >>> import optax, bsojax
      >>> flip = bsojax.calibrated_counter(total_updates=2700, bits=6)
      >>> tx = bsojax.split_optimizer(flip, optax.sgd(0.1))

    Args:
      total_updates: the number of updates of the run, at the end of which flips die out (see calibrated), or None.
      bits: bits per weight, including its sign, in 3 .. 8.
      rho: the size of the steps, relative to those with which the counter forgets as fast as the momentum of
        calibrated. Smaller values learn faster at first and end lower.
      max_step: the largest step, in levels per gradient of 1.
      growth: by how many updates the window grows per update.
      rms_decay: decay of the root mean square (see scale_by_channel_rms).
      anneal: a schedule by which steps are multiplied; None: falling linearly from 1 to 0 at total_updates.
      deploy_c: how far from zero a weight must be for its sign to be deployed, as a fraction of the scale, smaller as
        anneal falls; it takes one more bit per weight. None: the trained signs are deployed.
      seed: the seed of the rounding.

    Raises:
      TypeError, ValueError: as counter; or a number is negative, or total_updates below 1.
    """
    factor = anneal or _linear(total_updates) or optax.constant_schedule(1.0)
    top = 2.0 ** (_validate.counter_bits(bits) - 1)
    slow = _validate.number("rho", rho, 0.0, math.inf) * top**2 / 1.6
    most = _validate.number("max_step", max_step, 0.0, math.inf)
    slower = _validate.number("growth", growth, 0.0, math.inf)
    sure = 0.0 if deploy_c is None else _validate.number("deploy_c", deploy_c, 0.0, math.inf)

    def step_at(count: jax.Array) -> jax.Array:
        return jnp.maximum(factor(count), 0) * jnp.minimum(most, slow / (10 + slower * count))

    def level_at(count: jax.Array) -> jax.Array:
        return sure * top * jnp.sqrt(jnp.maximum(factor(count), 0))

    flip = counter(step_at, bits, deploy_level=None if deploy_c is None else level_at, seed=seed)
    return optax.chain(scale_by_channel_rms(rms_decay), flip)


def per_batch(schedule: Schedule, updates_per_batch: int) -> Schedule:
    """Returns a schedule over updates that follows a schedule over batches.

    Use it wherever an online step is given a schedule: the step updates after every time step, so a schedule that
    counts updates, as all of optax's do, ends num_steps times as fast as one that counts batches.

    Example:
      >>> import optax, bsojax
      >>> learning_rate = bsojax.per_batch(optax.cosine_decay_schedule(0.1, decay_steps=1000), updates_per_batch=4)
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, 4), optax.sgd(learning_rate))

    Args:
      schedule: a function of the number of batches.
      updates_per_batch: num_steps; 1 where gradients are accumulated.

    Raises:
      TypeError, ValueError: updates_per_batch is not an int, or less than 1.
    """
    each = _validate.steps(updates_per_batch, "updates_per_batch")

    def of_updates(count: jax.Array) -> jax.Array:
        value: jax.Array = schedule(count // each)
        return value

    return of_updates


def window_schedule(
    b1: float, growth: float, total_updates: int | None = None, anneal: Schedule | None = None
) -> Schedule:
    """Returns a schedule for b1: ``1 - b1`` is a factor over ``1 / (1 - b1) + growth * k`` after k updates.

    Use it for a momentum that at first averages a few gradients, and moves fast, and later averages a fraction of all
    gradients, and is quiet. Where the factor ends at 0, the momentum stands still at the end, so that nothing flips.

    Args:
      b1: the decay at the start, in [0, 1).
      growth: by how many updates the window grows per update.
      total_updates: the number of updates of the run; None where anneal does not need it.
      anneal: the factor, a schedule; None: a cosine from 1 to 0 at total_updates, or 1 where that is None too.

    Raises:
      TypeError, ValueError: b1 is not in [0, 1), growth is negative, or total_updates is below 1.
    """
    end = _validate.updates(total_updates)
    cosine = None if end is None else optax.cosine_decay_schedule(1.0, end)
    factor = anneal or cosine or optax.constant_schedule(1.0)
    window = 1 / (1 - _validate.number("b1", b1, 0.0, 1.0, open_above=True))
    wider = _validate.number("growth", growth, 0.0, math.inf)

    def b1_at(count: jax.Array) -> jax.Array:
        share: jax.Array = jnp.maximum(factor(count), 0) / (window + wider * count)  # rounding must not pass 0
        return 1 - share

    return b1_at


def _linear(total_updates: int | None) -> Schedule | None:
    end = _validate.updates(total_updates)
    return None if end is None else optax.linear_schedule(1.0, 0.0, end)
