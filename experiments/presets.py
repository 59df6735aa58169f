"""The settings of BSO and T-BSO: the paper's, and ours."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import bsojax
from experiments.config import Config

PAPER_THRESHOLD = 5e-7
PAPER_B1 = 0.999
PAPER_B2 = 0.99999
CALIBRATED_B1 = 0.9
CALIBRATED_GROWTH = 0.2
CALIBRATED_B2 = 0.99
CALIBRATED_C = 0.1


def flip_optimizer(config: Config, updates: int) -> optax.GradientTransformationExtraArgs:
    """Returns bso or t_bso with the settings of the config's preset, for a run of so many updates."""
    return {"paper": paper, "calibrated": calibrated}[config.preset](config, updates)


def paper(config: Config, updates: int) -> optax.GradientTransformationExtraArgs:
    """Constant settings as in the paper's experiments (section 5), whatever the length of the run."""
    threshold = PAPER_THRESHOLD if config.threshold is None else config.threshold
    b1 = PAPER_B1 if config.b1 is None else config.b1
    if config.optimizer != "t-bso":
        return bsojax.bso(threshold, b1, reset_on_flip=config.optimizer == "bso-reset", **at_rest(config))
    b2 = PAPER_B2 if config.b2 is None else config.b2
    return bsojax.t_bso(threshold, config.num_steps, b1, b2, **at_rest(config))


def calibrated(config: Config, updates: int) -> optax.GradientTransformationExtraArgs:
    """Ours: the momentum's window grows with the run, flips die out at its end, and the threshold follows the noise.

    ``1 - b1`` is a cosine from 1 to 0 over ``1 / (1 - b1) + growth * k`` after k updates: at first an average of a few
    gradients, which moves fast, later one of a share of all gradients, which is quiet, and in the end fixed signs, so
    that the norms' statistics settle. For t-bso gradients are first brought to one size a channel, so that late ones,
    which are small, count as much as early ones; its threshold keeps its distance to the momentum's noise; bso, whose
    threshold is absolute, starts at the paper's.
    """
    b1 = CALIBRATED_B1 if config.b1 is None else config.b1
    growth = CALIBRATED_GROWTH if config.growth is None else config.growth
    cosine = optax.cosine_decay_schedule(1.0, updates)

    def b1_schedule(count: jax.Array) -> jax.Array:
        return 1 - jnp.maximum(cosine(count), 0) / (1 / (1 - b1) + growth * count)  # rounding must not pass 0

    if config.optimizer != "t-bso":
        start = PAPER_THRESHOLD if config.threshold is None else config.threshold
        threshold = bsojax.noise_threshold(b1_schedule, start / bsojax.noise_threshold(b1, 1.0))
        return bsojax.bso(threshold, b1_schedule, reset_on_flip=config.optimizer == "bso-reset", **at_rest(config))
    c = CALIBRATED_C if config.threshold is None else config.threshold
    b2 = CALIBRATED_B2 if config.b2 is None else config.b2
    threshold = bsojax.noise_threshold(b1_schedule, c)
    flip = bsojax.t_bso(threshold, config.num_steps, b1_schedule, b2, debias=True, **at_rest(config))
    return optax.chain(bsojax.scale_by_channel_rms(), flip)


def at_rest(config: Config) -> dict[str, Any]:
    """The arguments of bso and t_bso that say how the momentum is kept between updates."""
    return {"momentum_dtype": config.momentum_dtype, "seed": config.seed}
