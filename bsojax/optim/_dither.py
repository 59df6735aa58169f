"""Numbers that stand in for random ones in rounding and choosing, with the same bits for the same seed."""

import jax
import jax.numpy as jnp

_GOLDEN = 0x9E3779B9  # 2^32 divided by the golden ratio


def dither(shape: tuple[int, ...], number: int, count: jax.Array, seed: int | jax.Array) -> jax.Array:
    """Returns uint32 numbers that are uniform over the elements of a leaf and evenly distributed over time.

    A hash of its place gives each element a start, from which it proceeds around the circle in steps of the golden
    ratio, which fill the circle evenly: the accumulated error of rounding a constant this way does not grow. Fresh
    random bits at each update leave 1.4 to 1.7 times the error on noise too (b1 from 0.99 to 0.9999), and cost far
    more.

    Args:
      shape: the shape of the leaf.
      number: the place of the leaf in its tree, so that leaves are rounded independently.
      count: int32 scalar, the number of updates before this one.
      seed: in 0 .. 2^32 - 1.
    """
    index = _mix(jnp.asarray(seed, jnp.uint32) + jnp.uint32(number * _GOLDEN % 2**32))
    stride = 1
    for axis in reversed(range(len(shape))):
        index = index + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    bits: jax.Array = _mix(index) + count.astype(jnp.uint32) * jnp.uint32(_GOLDEN)
    return bits


def uniform(bits: jax.Array) -> jax.Array:
    """Returns uint32 as float32 in [0, 1)."""
    return (bits >> 8).astype(jnp.int32).astype(jnp.float32) * 2.0**-24


def _mix(bits: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3: every bit of the result depends on every input bit."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)
