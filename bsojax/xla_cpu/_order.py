"""Arithmetic that XLA on a CPU keeps where and when it is written, on which training's memory depends.

XLA's fusion repeats cheap arithmetic in every consumer, however far away, instead of storing the result, and so keeps
the operands alive; its scheduler starts early whatever can start early. Both cost memory in a step whose forward pass
is far from its backward pass, and optimization barriers have been removed by then. XLA does not see through control
flow that depends on data. On other platforms these functions are plain calls. docs/BENCHMARKS.md has the measured
savings.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bsojax.xla_cpu._switch import by_platform


def in_place(update: Callable[..., jax.Array], state: jax.Array, *operands: Any) -> jax.Array:
    """Returns ``update(state, *operands)``, computed once and written over state where nothing else reads it.

    Use it for an elementwise update of an array that a loop carries and a backward pass needs.

    Args:
      update: elementwise; returns an array of the shape and dtype of state.
      state: a floating array that is not empty.
      *operands: arrays.
    """

    def loop(state: jax.Array, *operands: Any) -> jax.Array:
        def body(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return jnp.zeros_like(carry[0]), update(carry[1], *operands)

        return jax.lax.while_loop(lambda carry: carry[0], body, (_true_at_run_time(state), state))[1]

    return by_platform(state, *operands, cpu=loop, default=update)


def not_before(cause: jax.Array, function: Callable[..., Any], *operands: Any) -> Any:
    """Returns ``function(*operands)``, no part of which starts before cause is available.

    Use it for work of the backward pass that could start in the forward pass, such as a transposition of what was
    stored: its result would occupy memory until the gradient arrives.

    Args:
      cause: a floating or boolean array that is not empty.
      function: returns a tree of arrays.
      *operands: arrays.
    """

    def branch(cause: jax.Array, *operands: Any) -> Any:
        def nothing(*operands: Any) -> Any:
            return jax.tree.map(jnp.zeros_like, jax.eval_shape(function, *operands))

        return jax.lax.cond(_true_at_run_time(cause), function, nothing, *operands)

    return by_platform(cause, *operands, cpu=branch, default=lambda cause, *operands: function(*operands))


def copied_transposition(x: jax.Array, axes: tuple[int, ...], joined: int) -> jax.Array:
    """Returns the transposition as one copy in memory, with its bytes in the order of its axes.

    Use it where a convolution reads the result: the convolution needs this order, and XLA would fold a plain
    transposition into the convolution's slow form, which a barrier prevents. Across the barrier two axes are joined
    that were not neighbours before, or XLA (jaxlib 0.12) would copy the array twice: once in its old order, before the
    barrier, and once after it.

    Args:
      x: an array of three axes or more.
      axes: as in jnp.transpose.
      joined: the axis of the result that is joined to the next one. The two must not have been neighbours in x in this
        order; and if one of them is the batch it must come first, or the devices of a mesh that split it would gather
        the array.
    """
    turned = jnp.transpose(x, axes)
    shape = (*turned.shape[:joined], -1, *turned.shape[joined + 2 :])
    copy: jax.Array = jax.lax.optimization_barrier(turned.reshape(shape)).reshape(turned.shape)
    return copy


def _true_at_run_time(array: jax.Array) -> jax.Array:
    """Returns True, in a way that the compiler cannot determine before it has the first element of the array."""
    first = jax.lax.slice(array, (0,) * array.ndim, (1,) * array.ndim).reshape(())
    if first.dtype == jnp.bool_:
        bits = first.astype(jnp.uint8)
    else:
        bits = jax.lax.bitcast_convert_type(first, jnp.dtype(f"uint{8 * first.dtype.itemsize}"))
    return (bits | 1) > 0
