"""Our settings of T-BSO as one optimizer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import bsojax


def calibrated(
    num_steps: int,
    total_updates: int,
    *,
    b1: float = 0.9,
    growth: float = 0.2,
    c: float = 0.1,
    b2: float = 0.99,
    momentum_dtype: Any = "float32",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """T-BSO whose momentum becomes quiet as the run goes on, with a threshold in units of that momentum's noise.

    Gradients are first brought to one size a channel, so that late ones, which are small, count as much as early ones.
    The momentum's window follows window_schedule; the threshold keeps its distance to the momentum's noise.

    Args:
      num_steps: T.
      total_updates: updates of the run.
      b1: decay of the momentum at the start, an update.
      growth: updates by which the window grows an update.
      c: the threshold, in standard deviations of the momentum's noise.
      b2: decay of the second moment.
      momentum_dtype: dtype of the momentum at rest.
      seed: of rounding at random.
    """
    schedule = window_schedule(b1, growth, total_updates)
    flip = bsojax.t_bso(
        bsojax.noise_threshold(schedule, c),
        num_steps,
        schedule,
        b2,
        debias=True,
        momentum_dtype=momentum_dtype,
        seed=seed,
    )
    return optax.chain(bsojax.scale_by_channel_rms(), flip)


def window_schedule(b1: float, growth: float, total_updates: int) -> optax.Schedule:
    """Returns b1 as a schedule whose window grows, and which ends at 1.

    ``1 - b1`` is a cosine from 1 to 0 over ``1 / (1 - b1) + growth * k`` after k updates: at first an average of a few
    gradients, which moves fast, later one of a share of all gradients, which is quiet, and in the end fixed signs, so
    that the norms' statistics settle.
    """
    cosine = optax.cosine_decay_schedule(1.0, total_updates)

    def schedule(count: jax.Array) -> jax.Array:
        return 1 - jnp.maximum(cosine(count), 0) / (1 / (1 - b1) + growth * count)  # rounding must not pass 0

    return schedule
