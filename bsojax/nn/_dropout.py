"""Dropout for sequences: the same neurons are silent at all time steps."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._spikes import Spikes, as_spikes, map_spikes

SEQUENCE = "sequence"
"""The stream of random keys that stay the same over the time steps of a sequence."""


class SpikingDropout(nn.Module):
    """Silences a fraction of the inputs, the same ones over a whole sequence, and scales up the others.

    Use it behind neurons, with ``rngs`` passed to the training step. ``flax.linen.Dropout`` draws a new mask at each
    time step: what one time step silences the next lets through, and over a sequence little is dropped. Spikes and
    their traces are silenced together, so a silent input teaches its weights nothing.

    The mask comes from the stream of random keys "sequence", which training steps keep the same over the time steps of
    a batch. In a loop of your own, pass ``model.apply`` the same key, ``rngs={"sequence": key}``, at all of them. No
    mask is stored: it is drawn again at each time step.

    Attributes:
      rate: the fraction that is silenced, in [0, 1); the others are multiplied by ``1 / (1 - rate)``.

    Raises:
      ValueError: the rate is outside [0, 1).

    Source: Gal and Ghahramani, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks, 2016.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Spikes | jax.Array, deterministic: bool = False) -> Spikes | jax.Array:
        """Returns Spikes or an array, like x; returns x itself where deterministic is True, as in evaluation."""
        rate = _validate.number("rate", self.rate, 0, 1, open_above=True)
        if deterministic or (isinstance(rate, float) and rate == 0):
            return x
        kept = jax.random.bernoulli(self.make_rng(SEQUENCE), 1 - rate, as_spikes(x).value.shape)
        return map_spikes(lambda values: jnp.where(kept, values / (1 - rate), jnp.zeros_like(values)), x)
