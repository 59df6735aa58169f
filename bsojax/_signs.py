"""Signs: the weights of a binary network, kept as booleans (True = +1, False = -1)."""

import math
from collections.abc import Callable
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax


def is_sign(leaf: Any) -> bool:
    """Whether a leaf is a sign leaf, that is, a boolean array."""
    return getattr(leaf, "dtype", None) == jnp.bool_


def same_structure(one: Any, other: Any) -> bool:
    """Whether two trees have the same structure."""
    structure: Any = jax.tree.structure(one)
    return structure == jax.tree.structure(other)


def leaf_name(path: tuple[Any, ...]) -> str:
    """The name of a leaf in messages and metrics: its keys joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/") or "(the tree itself)"


def to_weights(signs: chex.ArrayTree, dtype: chex.ArrayDType = jnp.float32) -> chex.ArrayTree:
    """Returns the tree with every boolean leaf as weights of +1 and -1.

    Use it to hand signs to code that computes with numbers. Leaves that are not boolean pass through untouched, so a
    mixed tree of signs and real parameters becomes one that ``jax.grad`` accepts.

    Args:
      signs: a tree of arrays; boolean leaves of any shape are signs.
      dtype: the floating dtype of the weights.
    """
    dtype = _floating(dtype)
    one = jnp.ones((), dtype)
    return jax.tree.map(lambda leaf: jnp.where(leaf, one, -one) if is_sign(leaf) else leaf, signs)


def to_signs(weights: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the signs of a tree of real weights; zero counts as positive (the paper's eq. 4).

    Use it to take over a network trained elsewhere. Boolean leaves pass through, floating leaves become boolean.

    Raises:
      TypeError: a leaf is neither boolean nor floating.
    """

    def convert(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        if is_sign(leaf):
            return leaf
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"weights: leaf '{leaf_name(path)}' is {leaf.dtype}; it must be floating or boolean.")
        return leaf >= 0

    return jax.tree_util.tree_map_with_path(convert, weights)


@flax.struct.dataclass
class PackedSigns:
    """Signs at one bit a weight.

    Attributes:
      bits: uint8 of shape ``(ceil(size / 8),)``: the raveled signs, eight a byte, the first in the highest bit, the
        last byte filled with zeros.
      shape: the shape of the signs (not traced).
    """

    bits: jax.Array
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)


def pack_signs(signs: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the tree with every boolean leaf packed to one bit a weight, as :class:`PackedSigns`.

    Use it to store or ship a network. Other leaves pass through. Exact for every shape, scalars and empty arrays too.
    """

    def pack(leaf: Any) -> Any:
        if not is_sign(leaf):
            return leaf
        return PackedSigns(jnp.packbits(jnp.ravel(leaf)), tuple(np.shape(leaf)))

    return jax.tree.map(pack, signs)


def unpack_signs(packed: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the tree with every :class:`PackedSigns` as the boolean array it came from; the inverse of pack_signs.

    Raises:
      ValueError: the number of bytes does not fit the shape.
    """

    def unpack(leaf: Any) -> Any:
        if not isinstance(leaf, PackedSigns):
            return leaf
        size = math.prod(leaf.shape)
        expected = ((size + 7) // 8,)
        if leaf.bits.shape != expected or leaf.bits.dtype != jnp.uint8:
            raise ValueError(
                f"packed: signs of shape {leaf.shape} take uint8{list(expected)}, not "
                f"{leaf.bits.dtype}{list(leaf.bits.shape)}; was the array cut or converted?"
            )
        return jnp.unpackbits(leaf.bits, count=size).astype(bool).reshape(leaf.shape)

    return jax.tree.map(unpack, packed, is_leaf=lambda leaf: isinstance(leaf, PackedSigns))


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    dtype: chex.ArrayDType = jnp.float32,
) -> Callable[..., Any]:
    """As ``jax.value_and_grad``, where boolean leaves are differentiated as weights of +1 and -1.

    Use it wherever a loss depends on signs: ``jax.grad`` refuses booleans. ``fun`` receives the weights, and the
    gradient has the structure and shapes of the signs. Works under jit, vmap, scan and remat.

    Args:
      fun: a function of the arguments, real-valued, or with ``has_aux`` a pair ``(value, auxiliary)``.
      argnums: which positional arguments to differentiate; their leaves are boolean or floating.
      has_aux: whether ``fun`` returns a pair.
      dtype: the floating dtype in which signs are seen, and so the dtype of their gradients.

    Raises:
      TypeError: a leaf to differentiate is neither boolean nor floating.
    """
    dtype = _floating(dtype)
    grad_fun = jax.value_and_grad(fun, argnums=argnums, has_aux=has_aux)
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def value_and_grad_fun(*args: Any, **kwargs: Any) -> Any:
        if not all(-len(args) <= number < len(args) for number in chosen):
            raise ValueError(f"argnums: {argnums} is out of range for {len(args)} positional arguments.")
        views = list(args)
        for number in chosen:
            for path, leaf in jax.tree_util.tree_leaves_with_path(args[number]):
                leaf_dtype = jnp.result_type(leaf)
                if leaf_dtype != jnp.bool_ and not jnp.issubdtype(leaf_dtype, jnp.inexact):
                    raise TypeError(
                        f"argument {number}: leaf '{leaf_name(path)}' is {leaf_dtype} and has no gradient; make it "
                        "boolean (signs) or floating, or leave it out of argnums."
                    )
            views[number] = to_weights(args[number], dtype)
        return grad_fun(*views, **kwargs)

    return value_and_grad_fun


def check_updates(params: chex.ArrayTree, updates: chex.ArrayTree) -> None:
    """Raises unless every boolean leaf of params gets an int8 update of its shape; costs nothing at run time.

    Any other update would be silently wrong: adding a float to a boolean casts the sum back, so that whatever is not
    exactly zero becomes True, and ``bool + bool`` can set a sign but never clear it.

    Raises:
      TypeError: an update of a sign leaf is not an int8 delta.
      ValueError: the trees or shapes differ.
    """
    if not same_structure(params, updates):
        raise ValueError(
            f"updates: their tree {jax.tree.structure(updates)} differs from the parameters' "
            f"{jax.tree.structure(params)}; pass what the optimizer returned for these parameters."
        )
    flat = jax.tree_util.tree_leaves_with_path(params)
    for (path, leaf), update in zip(flat, jax.tree.leaves(updates), strict=True):
        if is_sign(leaf) and jnp.result_type(update) != jnp.int8:
            raise TypeError(
                f"updates: sign leaf '{leaf_name(path)}' got a {jnp.result_type(update)} update, but needs an int8 "
                "delta of -1, 0 or +1. Make bso or t_bso the last transform that touches this leaf (optax.scale, "
                "add_decayed_weights or ema after it break the delta), and let no other optimizer own it: see "
                "bsojax.split_optimizer."
            )
        if jnp.shape(update) != jnp.shape(leaf):
            raise ValueError(
                f"updates: leaf '{leaf_name(path)}' has shape {jnp.shape(leaf)}, its update {jnp.shape(update)}."
            )


def apply_updates(params: optax.Params, updates: optax.Updates) -> optax.Params:
    """As ``optax.apply_updates``, refusing an update that would silently destroy a sign leaf.

    Use it in place of optax's wherever parameters hold signs. The check is of dtypes and shapes alone, at trace time.

    Args:
      params: a tree of boolean signs and real parameters.
      updates: the same tree; int8 deltas for signs, as ``bso`` and ``t_bso`` return them.

    Raises:
      TypeError: an update of a sign leaf is not an int8 delta; the message names the leaf.
      ValueError: the trees or shapes differ.
    """
    check_updates(params, updates)
    return optax.apply_updates(params, updates)


def count_flips(params: chex.ArrayTree, updates: chex.ArrayTree) -> dict[str, jax.Array]:
    """Returns how many signs each sign leaf's update flips, as int32 by leaf name."""
    flat = jax.tree_util.tree_leaves_with_path(params)
    return {
        leaf_name(path): jnp.sum(update != 0, dtype=jnp.int32)
        for (path, leaf), update in zip(flat, jax.tree.leaves(updates), strict=True)
        if is_sign(leaf)
    }


def _floating(dtype: chex.ArrayDType) -> np.dtype:
    dtype = jnp.dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"dtype: weights of +1 and -1 need a floating dtype, not {dtype}.")
    return dtype
