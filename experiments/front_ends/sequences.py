"""Front ends of sequences of unequal length: padded frames of features, with a mask of the padding."""

import flax
import jax
import jax.numpy as jnp

from experiments.front_ends._front_end import FrontEnd


@flax.struct.dataclass
class Padded:
    """Padded sequences as the network sees them.

    Attributes:
      x: float32 of shape ``(num_steps, batch, features)``.
      mask: which frames are valid, boolean of shape ``(num_steps, batch)``.
    """

    x: jax.Array
    mask: jax.Array


def standardised() -> FrontEnd:
    """Stored frames with zero mean and unit variance over the valid frames of each example, suitable for spectra."""

    def evaluate(stored: jax.Array) -> Padded:
        frames, there = _apart(stored)
        number = jnp.maximum(jnp.sum(there, 1) * frames.shape[-1], 1).astype(jnp.float32)[:, None, None]
        frames = jnp.where(there[..., None], frames, 0)
        mean = jnp.sum(frames, (1, 2), keepdims=True) / number
        centred = jnp.where(there[..., None], frames - mean, 0)
        deviation = jnp.sqrt(jnp.sum(jnp.square(centred), (1, 2), keepdims=True) / number)
        return _over_time(centred / jnp.maximum(deviation, 1e-3), there)

    return FrontEnd(lambda key, stored: evaluate(stored), evaluate)


def counts() -> FrontEnd:
    """Stored spike counts as they are."""

    def evaluate(stored: jax.Array) -> Padded:
        return _over_time(*_apart(stored))

    return FrontEnd(lambda key, stored: evaluate(stored), evaluate)


def _apart(stored: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the features and the valid frames of stored examples whose last feature is 1 where a frame is valid."""
    return stored[..., :-1].astype(jnp.float32), stored[..., -1] > 0


def _over_time(frames: jax.Array, there: jax.Array) -> Padded:
    return Padded(frames.swapaxes(0, 1), there.swapaxes(0, 1))
