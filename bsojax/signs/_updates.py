"""Updates of trees that hold signs: made from flips, applied, counted, and refused where they destroy a sign."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.signs._packed import PackedSigns, bits_of, is_packed, is_sign, signs_of


def deltas(signs: chex.ArrayTree, flips: chex.ArrayTree, dtype: Any = jnp.int8) -> optax.Updates:
    """Returns what to add to a tree of signs so that exactly the chosen weights flip.

    Args:
      signs: boolean arrays, floating arrays of +1 and -1, and PackedSigns.
      flips: boolean arrays of the same shapes.
      dtype: the dtype of the deltas of boolean signs: -1 where a True flips, +1 where a False flips, 0 elsewhere.

    Returns:
      A tree like the signs. Floating weights get ``-2 * weight`` where they flip, in their own dtype; PackedSigns get
      what to add to their bytes, modulo 256, as PackedSigns.
    """

    def delta(leaf: Any, flips: jax.Array) -> Any:
        if isinstance(leaf, PackedSigns):
            return _packed_delta(leaf, bits_of(flips))
        if is_sign(leaf):
            return jnp.where(flips, jnp.where(leaf, -1, 1), 0).astype(dtype)
        return jnp.where(flips, -2 * leaf, 0).astype(leaf.dtype)

    return jax.tree.map(delta, signs, flips, is_leaf=is_packed)


def deltas_like(signs: chex.ArrayTree, updates: optax.Updates) -> optax.Updates:
    """Returns deltas of booleans in the form in which signs are held: packed where those are packed."""
    leaves, found = _leaves(signs, updates)
    made = [
        _packed_delta(leaf, bits_of(update != 0)) if is_packed(leaf) else update
        for leaf, update in zip(leaves, found, strict=True)
    ]
    structure: Any = jax.tree.structure(signs, is_leaf=is_packed)
    return jax.tree.unflatten(structure, made)


def no_flips(signs: chex.ArrayTree) -> optax.Updates:
    """Returns deltas that flip nothing, in the form in which signs are held."""

    def nothing(leaf: Any) -> Any:
        if isinstance(leaf, PackedSigns):
            return PackedSigns(jnp.zeros_like(leaf.bits), leaf.shape)
        return jnp.zeros(jnp.shape(leaf), jnp.int8 if is_sign(leaf) else leaf.dtype)

    return jax.tree.map(nothing, signs, is_leaf=is_packed)


def flip_bits(signs: chex.ArrayTree, updates: optax.Updates) -> list[jax.Array]:
    """Returns which signs the deltas flip, as packed bits, one array per leaf; packed signs are not unpacked."""
    return [
        leaf.bits ^ (leaf.bits + update.bits) if is_packed(leaf) else bits_of(update != 0)
        for leaf, update in zip(*_leaves(signs, updates), strict=True)
    ]


def deltas_of_bits(signs: chex.ArrayTree, bits: list[jax.Array]) -> optax.Updates:
    """Returns the deltas that flip the signs of the given bits; the inverse of flip_bits."""
    structure: Any = jax.tree.structure(signs, is_leaf=is_packed)
    made = [
        _packed_delta(leaf, mask) if is_packed(leaf) else deltas(leaf, signs_of(mask, leaf.shape))
        for leaf, mask in zip(structure.flatten_up_to(signs), bits, strict=True)
    ]
    return jax.tree.unflatten(structure, made)


def check_updates(params: chex.ArrayTree, updates: chex.ArrayTree) -> None:
    """Raises unless every leaf gets an update of its shape, and every sign leaf an int8 delta; free at run time.

    Any other update would be silently wrong: adding a float to a boolean casts the sum back, so that whatever is not
    exactly zero becomes True, and ``bool + bool`` can set a sign but never clear it.

    Raises:
      TypeError: an update of a sign leaf is not an int8 delta.
      ValueError: the trees or shapes differ.
    """
    _validate.same_shapes("updates", updates, params)
    for (path, leaf), update in zip(_with_paths(params), _leaves(params, updates)[1], strict=True):
        if is_packed(leaf):
            _validate.delta(leaf_name(path), "uint8 delta of its bytes", update.bits, jnp.uint8)
        elif is_sign(leaf):
            _validate.delta(leaf_name(path), "int8 delta of -1, 0 or +1", update, jnp.int8)


def apply_updates(params: optax.Params, updates: optax.Updates) -> optax.Params:
    """Like ``optax.apply_updates``, but refuses an update that would silently destroy a sign leaf.

    Use it in place of optax's wherever parameters hold signs. It checks only dtypes and shapes, at trace time.

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
    flips = {}
    for (path, leaf), update in zip(_with_paths(params), _leaves(params, updates)[1], strict=True):
        if is_packed(leaf):
            changed = jax.lax.population_count(leaf.bits ^ (leaf.bits + update.bits))
            flips[leaf_name(path)] = jnp.sum(changed, dtype=jnp.int32)
        elif is_sign(leaf):
            flips[leaf_name(path)] = jnp.sum(update != 0, dtype=jnp.int32)
    return flips


def _packed_delta(leaf: PackedSigns, mask: jax.Array) -> PackedSigns:
    return PackedSigns((leaf.bits ^ mask) - leaf.bits, leaf.shape)


def _with_paths(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_packed)


def _leaves(tree: Any, other: Any) -> tuple[list[Any], list[Any]]:
    """The leaves of two trees of equal structure, packed signs as one leaf each; JAX refuses unequal structures."""
    structure: Any = jax.tree.structure(tree, is_leaf=is_packed)
    return structure.flatten_up_to(tree), structure.flatten_up_to(other)
