"""Whole optimizers of signs with our settings."""

import chex
import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax._validate import Schedule
from bsojax.optim._bso import noise_threshold, t_bso
from bsojax.optim._channel_rms import scale_by_channel_rms
from bsojax.optim._momentum import Momentum


def calibrated(
    num_steps: int,
    total_updates: int,
    *,
    b1: float = 0.9,
    growth: float = 0.2,
    c: float = 0.1,
    b2: float = 0.99,
    momentum_dtype: chex.ArrayDType | Momentum = "float32",
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """T-BSO with our settings: the best of the rules without latent weights in docs/RESULTS.md.

    Use it as the flip optimizer of a run whose length is known. Gradients are brought to one size a channel, so that
    late ones, which are small, count as much as early ones; the momentum's window grows with the run, and at its end
    flips die out, so that the norms' statistics settle; the threshold keeps its distance to the momentum's noise.

    Example:
      >>> import optax, bsojax
      >>> epochs, batches, num_steps = 15, 45, 4
      >>> updates = epochs * batches * num_steps
      >>> flip = bsojax.calibrated(num_steps, updates)
      >>> tx = bsojax.split_optimizer(flip, optax.sgd(optax.cosine_decay_schedule(0.1, updates)))

    Args:
      num_steps: T, the number of time steps of a sequence.
      total_updates: the number of updates of the run. An online step updates after every time step: it is the number of
        batches times num_steps, not the number of batches; with losses.at_last or accumulation it is that of batches.
      b1: decay of the momentum at the start, in [0, 1).
      growth: how many updates the momentum's window, 1 / (1 - b1), grows an update.
      c: the threshold, in standard deviations of the momentum's noise (see noise_threshold).
      b2: decay of the second moment.
      momentum_dtype: how the momentum rests (see bso).
      seed: of the rounding to that (see bso).

    Returns:
      A transformation whose state holds a :class:`TBSOState`.

    Raises:
      TypeError, ValueError: as t_bso.
    """
    b1_at = window_schedule(b1, growth, total_updates)
    threshold = noise_threshold(b1_at, c)
    flip = t_bso(threshold, num_steps, b1_at, b2, debias=True, momentum_dtype=momentum_dtype, seed=seed)
    return optax.chain(scale_by_channel_rms(), flip)


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
        return schedule(count // each)

    return of_updates


def window_schedule(b1: float, growth: float, total_updates: int) -> Schedule:
    """Returns a schedule of b1: ``1 - b1`` is a cosine from 1 to 0 over ``1 / (1 - b1) + growth * k`` after k updates.

    Use it for the momentum of a run whose length is known. At first it is an average of a few gradients, which moves
    fast, later of a share of all gradients, which is quiet, and in the end it stands still, so that nothing flips.

    Args:
      b1: the decay at the start, in [0, 1).
      growth: how many updates the window grows an update.
      total_updates: the number of updates of the run.
    """
    cosine = optax.cosine_decay_schedule(1.0, total_updates)

    def b1_at(count: jax.Array) -> jax.Array:
        return 1 - jnp.maximum(cosine(count), 0) / (1 / (1 - b1) + growth * count)  # rounding must not pass 0

    return b1_at
