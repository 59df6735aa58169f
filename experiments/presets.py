"""The settings of BSO and T-BSO: the paper's, and ours."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

import bsojax
from experiments.config import Config

PAPER_THRESHOLD = 5e-7
PAPER_B1 = 0.999
PAPER_B2 = 0.99999
CALIBRATED_B1 = 0.99
CALIBRATED_B2 = 0.99
CALIBRATED_C = 0.5


def flip_optimizer(config: Config, updates: int) -> optax.GradientTransformationExtraArgs:
    """Returns bso or t_bso with the settings of the config's preset, for a run of so many updates."""
    return {"paper": paper, "calibrated": calibrated}[config.preset](config, updates)


def paper(config: Config, updates: int) -> optax.GradientTransformationExtraArgs:
    """Constant settings as in the paper's experiments (section 5), whatever the length of the run."""
    threshold = PAPER_THRESHOLD if config.threshold is None else config.threshold
    b1 = PAPER_B1 if config.b1 is None else config.b1
    if config.optimizer != "t-bso":
        return bsojax.bso(threshold, b1, reset_on_flip=config.optimizer == "bso-reset")
    return bsojax.t_bso(threshold, config.num_steps, b1, PAPER_B2 if config.b2 is None else config.b2)


def calibrated(config: Config, updates: int) -> optax.GradientTransformationExtraArgs:
    """Ours: 1 - b1 falls to 0 by a cosine, and the threshold keeps its distance to the momentum's noise.

    Flips die out by themselves, so that the norms' statistics settle. The threshold of t-bso starts at half the noise's
    standard deviation; bso, whose threshold is absolute, starts at the paper's.
    """
    b1 = CALIBRATED_B1 if config.b1 is None else config.b1
    start = config.threshold
    if start is None:
        start = PAPER_THRESHOLD if config.optimizer != "t-bso" else bsojax.noise_threshold(b1, CALIBRATED_C)
    remaining = _cosine(updates)

    def b1_schedule(count: jax.Array) -> jax.Array:
        return 1 - (1 - b1) * remaining(count)

    def threshold_schedule(count: jax.Array) -> jax.Array:
        return start * jnp.sqrt(remaining(count))

    if config.optimizer != "t-bso":
        return bsojax.bso(threshold_schedule, b1_schedule, reset_on_flip=config.optimizer == "bso-reset")
    b2 = CALIBRATED_B2 if config.b2 is None else config.b2
    return bsojax.t_bso(threshold_schedule, config.num_steps, b1_schedule, b2, debias=True)


def _cosine(updates: int) -> Callable[[jax.Array], jax.Array]:
    """From 1 to 0 over so many updates; not negative by rounding, whose root would be NaN."""
    schedule = optax.cosine_decay_schedule(1.0, updates)
    return lambda count: jnp.maximum(schedule(count), 0)
