"""Whole optimizers of signs with our settings."""

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

    Use it as the flip optimizer. Gradients are brought to one size a channel, so that late ones, which are small,
    count as much as early ones; signs follow the momentum without a threshold, whose window
    grows with the run; and beside them, at one bit a weight, are kept those to evaluate and ship, which follow only
    where the momentum is sure (see deployed_signs). docs/RESULTS.md has the evidence: how it compares with rules that
    keep latent weights.

    Example:
      >>> import optax, bsojax
      >>> epochs, batches, num_steps = 15, 45, 4
      >>> updates = epochs * batches * num_steps
      >>> flip = bsojax.calibrated(num_steps, updates)
      >>> tx = bsojax.split_optimizer(flip, optax.sgd(optax.cosine_decay_schedule(0.1, updates)))

    Args:
      num_steps: T, the number of time steps of a sequence.
      total_updates: the number of updates of the run, at whose end flips die out. An online step updates after every
        time step: it is the number of batches times num_steps, not the number of batches; with losses.at_last or
        accumulation it is that of batches. None: flips go on, for runs whose end is not known.
      b1: decay of the momentum at the start, in [0, 1).
      growth: how many updates the momentum's window, 1 / (1 - b1), grows an update.
      c: the threshold, in standard deviations of the momentum's noise (see noise_threshold).
      b2: decay of the second moment.
      rms_decay: decay of the root mean square (see scale_by_channel_rms).
      anneal: what ``1 - b1`` is multiplied by, a schedule; None: falling from 1 to 0 at total_updates, evenly.
      deploy_c: how sure the momentum must be for a sign to be deployed, in such standard deviations; None: what is
        trained is deployed.
      momentum_dtype: how the momentum rests (see bso).
      seed: of the rounding to that (see bso).

    Returns:
      A transformation whose state holds a :class:`TBSOState`. With growth 0.2, c 0.1, no deploy_c, and
      ``optax.cosine_decay_schedule(1.0, total_updates)`` for anneal, it is the recipe of earlier versions.

    Raises:
      TypeError, ValueError: as t_bso.
    """
    b1_at = window_schedule(b1, growth, total_updates, anneal or _linear(total_updates))
    flip = t_bso(
        noise_threshold(b1_at, c),
        num_steps,
        b1_at,
        b2,
        debias=True,
        deploy_threshold=None if deploy_c is None else noise_threshold(b1_at, deploy_c),
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
    """A counter with our settings: what calibrated does, in a few bits a weight.

    Use it where memory decides: at six bits a weight, its sign among them, it comes close to calibrated with a float32
    momentum (docs/RESULTS.md has how close, on which set, at which width). Its steps shrink as the window of the
    momentum of calibrated grows.

    Example:
      >>> import optax, bsojax
      >>> flip = bsojax.calibrated_counter(total_updates=2700, bits=6)
      >>> tx = bsojax.split_optimizer(flip, optax.sgd(0.1))

    Args:
      total_updates: the number of updates of the run, at whose end flips die out (see calibrated), or None.
      bits: bits a weight, its sign among them, in 3 .. 8.
      rho: the size of steps, in those with which the counter forgets as fast as the momentum of calibrated. Less is
        faster at first, and ends lower.
      max_step: the largest step, in levels by a gradient of 1.
      growth: how many updates the window grows an update.
      rms_decay: decay of the root mean square (see scale_by_channel_rms).
      anneal: what steps are multiplied by, a schedule; None: falling from 1 to 0 at total_updates, evenly.
      deploy_c: how far from zero a weight must be for its sign to be deployed, in shares of the scale, less as anneal
        falls; it takes one more bit a weight. None: what is trained is deployed.
      seed: of the rounding.

    Raises:
      TypeError, ValueError: as counter.
    """
    factor = anneal or _linear(total_updates) or optax.constant_schedule(1.0)
    top = 2.0 ** (_validate.counter_bits(bits) - 1)
    slow = _validate.number("rho", rho, 0.0, math.inf) * top**2 / 1.6

    def step_at(count: jax.Array) -> jax.Array:
        return jnp.maximum(factor(count), 0) * jnp.minimum(max_step, slow / (10 + growth * count))

    def level_at(count: jax.Array) -> jax.Array:
        return (deploy_c or 0) * top * jnp.sqrt(jnp.maximum(factor(count), 0))

    flip = counter(step_at, bits, deploy_level=None if deploy_c is None else level_at, seed=seed)
    return optax.chain(scale_by_channel_rms(rms_decay), flip)


def per_batch(schedule: Schedule, updates_per_batch: int) -> Schedule:
    """Returns a schedule of updates that follows a schedule of batches.

    Use it wherever an online step is given a schedule: it updates after every time step, so that what counts updates,
    as all of optax's schedules do, comes to its end num_steps times as fast as one that counts batches.

    Example:
      >>> import optax, bsojax
      >>> learning_rate = bsojax.per_batch(optax.cosine_decay_schedule(0.1, decay_steps=1000), updates_per_batch=4)
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, 4), optax.sgd(learning_rate))

    Args:
      schedule: a function of the number of batches.
      updates_per_batch: num_steps; 1 where gradients are accumulated.

    Raises:
      TypeError, ValueError: updates_per_batch is no int, or less than 1.
    """
    each = _validate.steps(updates_per_batch, "updates_per_batch")

    def of_updates(count: jax.Array) -> jax.Array:
        value: jax.Array = schedule(count // each)
        return value

    return of_updates


def window_schedule(
    b1: float, growth: float, total_updates: int | None = None, anneal: Schedule | None = None
) -> Schedule:
    """Returns a schedule of b1: ``1 - b1`` is a factor over ``1 / (1 - b1) + growth * k`` after k updates.

    Use it for a momentum that at first is an average of a few gradients, which moves fast, and later of a share of all
    gradients, which is quiet. Where the factor ends at 0, it stands still in the end, so that nothing flips.

    Args:
      b1: the decay at the start, in [0, 1).
      growth: how many updates the window grows an update.
      total_updates: the number of updates of the run; None where anneal does without it.
      anneal: the factor, a schedule; None: a cosine from 1 to 0 at total_updates, or where that is None too, 1.
    """
    cosine = None if total_updates is None else optax.cosine_decay_schedule(1.0, total_updates)
    factor = anneal or cosine or optax.constant_schedule(1.0)

    def b1_at(count: jax.Array) -> jax.Array:
        return 1 - jnp.maximum(factor(count), 0) / (1 / (1 - b1) + growth * count)  # rounding must not pass 0

    return b1_at


def _linear(total_updates: int | None) -> Schedule | None:
    return None if total_updates is None else optax.linear_schedule(1.0, 0.0, total_updates)
