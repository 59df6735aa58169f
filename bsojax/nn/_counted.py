"""Which examples of a batch count: padding is left out of statistics and rates, and its state does not change."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp

_COUNTED: contextvars.ContextVar[jax.Array | None] = contextvars.ContextVar("bsojax_counted", default=None)


@contextlib.contextmanager
def counting(examples: jax.Array | None) -> Iterator[None]:
    """A context in which norms and spike rates leave out the examples of a batch that are marked False.

    Use it around ``model.apply`` in a loop of your own; ``bsojax.online.forward`` does.

    Args:
      examples: boolean of shape ``(batch,)``; None means that all count.
    """
    token = _COUNTED.set(examples)
    try:
        yield
    finally:
        _COUNTED.reset(token)


def counted_examples() -> jax.Array | None:
    """Returns which examples count, boolean of shape ``(batch,)``; None means all.

    Use it in a norm of your own whose first axis is the batch axis.
    """
    return _COUNTED.get()


def mean_spike(spike: jax.Array) -> jax.Array:
    """Returns the mean of the spikes over all other axes and over the examples that count, a float32 scalar."""
    examples = _COUNTED.get()
    if examples is None:
        return jnp.mean(spike, dtype=jnp.float32)
    rates = jnp.mean(spike.reshape(len(spike), -1), axis=1, dtype=jnp.float32)
    return jnp.sum(jnp.where(examples, rates, 0)) / jnp.maximum(jnp.sum(examples), 1)
