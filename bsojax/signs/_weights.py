"""Signs as numbers and numbers as signs: conversion, and gradients of booleans."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.signs._packed import is_packed, is_sign, unpack_signs


def to_weights(signs: chex.ArrayTree, dtype: chex.ArrayDType = jnp.float32) -> chex.ArrayTree:
    """Returns the tree with all signs as weights of +1 and -1.

    Use it to pass signs to code that computes with numbers. Leaves that are not signs pass through unchanged, so a
    mixed tree of signs and real parameters becomes one that ``jax.grad`` accepts.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> bsojax.to_weights({"kernel": jnp.array([True, False])})["kernel"].tolist()
      [1.0, -1.0]

    Args:
      signs: a tree of arrays; boolean leaves of any shape, and PackedSigns, are signs.
      dtype: the floating dtype of the weights.

    Raises:
      TypeError: dtype is not floating.
      ValueError: packed signs were truncated or converted.
    """
    _validate.weights_dtype(dtype)
    one = jnp.ones((), dtype)

    def convert(leaf: Any) -> Any:
        leaf = unpack_signs(leaf)
        return jnp.where(leaf, one, -one) if is_sign(leaf) else leaf

    return jax.tree.map(convert, signs, is_leaf=is_packed)


def to_signs(weights: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the signs of a tree of real weights; zero counts as positive (the paper's eq. 4).

    Use it to import a network trained elsewhere. Boolean leaves pass through, all others become boolean.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> bsojax.to_signs(jnp.array([0.3, 0.0, -0.2])).tolist()
      [True, True, False]
    """
    return jax.tree.map(lambda leaf: leaf if is_sign(leaf) else jnp.asarray(leaf) >= 0, weights)


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    dtype: chex.ArrayDType = jnp.float32,
) -> Callable[..., Any]:
    """Like ``jax.value_and_grad``, but boolean leaves are differentiated as weights of +1 and -1.

    Use it wherever a loss depends on signs: ``jax.grad`` refuses booleans. ``fun`` receives the weights, and the
    gradient has the structure and shapes of the signs. Works under jit, vmap, scan and remat.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> signs = jnp.array([True, False])
      >>> value, gradient = bsojax.value_and_grad(lambda weights: (weights * jnp.array([3.0, 2.0])).sum())(signs)
      >>> float(value), gradient.tolist()
      (1.0, [3.0, 2.0])

    Args:
      fun: a function of the arguments, real-valued, or with ``has_aux`` a pair ``(value, auxiliary)``.
      argnums: which positional arguments to differentiate; their leaves are boolean or floating.
      has_aux: whether ``fun`` returns a pair.
      dtype: the floating dtype of the signs as weights, and so of their gradients.

    Raises:
      TypeError: dtype is not floating, or a leaf has no gradient.
      ValueError: packed signs were truncated or converted.
    """
    _validate.weights_dtype(dtype)
    grad_fun = jax.value_and_grad(fun, argnums=argnums, has_aux=has_aux)

    def value_and_grad_fun(*args: Any, **kwargs: Any) -> Any:
        views = list(args)
        for index in (argnums,) if isinstance(argnums, int) else argnums:
            views[index] = to_weights(args[index], dtype)
        return grad_fun(*views, **kwargs)

    return value_and_grad_fun
