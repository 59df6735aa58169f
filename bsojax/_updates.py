"""Updates of trees that hold signs: applied, counted, and refused where they would destroy a sign."""

import chex
import jax
import jax.numpy as jnp
import optax

from bsojax._kinds import check_leaves
from bsojax._packing import is_packed, is_sign
from bsojax._signs import leaf_name, same_structure


def check_updates(params: chex.ArrayTree, updates: chex.ArrayTree) -> None:
    """Raises unless every boolean leaf of params gets an int8 update of its shape; costs nothing at run time.

    Any other update would be silently wrong: adding a float to a boolean casts the sum back, so that whatever is not
    exactly zero becomes True, and ``bool + bool`` can set a sign but never clear it.

    Raises:
      TypeError: an update of a sign leaf is not an int8 delta.
      ValueError: the trees or shapes differ.
    """
    check_leaves("params", params)
    check_leaves("updates", updates)
    if not same_structure(params, updates):
        raise ValueError(
            f"updates: their tree {jax.tree.structure(updates)} differs from the parameters' "
            f"{jax.tree.structure(params)}; pass what the optimizer returned for these parameters."
        )
    flat = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_packed)
    for (path, leaf), update in zip(flat, jax.tree.leaves(updates, is_leaf=is_packed), strict=True):
        if is_packed(leaf):
            leaf, update, wanted, delta = leaf.bits, update.bits, jnp.uint8, "uint8 delta of its bytes"
        else:
            wanted, delta = jnp.int8, "int8 delta of -1, 0 or +1"
        if (is_sign(leaf) or wanted == jnp.uint8) and jnp.result_type(update) != wanted:
            raise TypeError(
                f"updates: sign leaf '{leaf_name(path)}' got a {jnp.result_type(update)} update, but needs an {delta}. "
                "Make bso or t_bso the last transform that touches this leaf (optax.scale, "
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
    flips = {}
    flat = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_packed)
    for (path, leaf), update in zip(flat, jax.tree.leaves(updates, is_leaf=is_packed), strict=True):
        if is_packed(leaf):
            changed = jax.lax.population_count(leaf.bits ^ (leaf.bits + update.bits))
            flips[leaf_name(path)] = jnp.sum(changed, dtype=jnp.int32)
        elif is_sign(leaf):
            flips[leaf_name(path)] = jnp.sum(update != 0, dtype=jnp.int32)
    return flips
