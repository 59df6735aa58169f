"""Deployed signs: a second, steadier reading of what a flip optimizer has accumulated, at one bit per weight.

Flips help training, but those caused by noise alone cost accuracy where the signs are read, because they err together.
A flip optimizer may therefore train with signs that flip freely and keep, beside them, signs that follow only where it
is certain.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax.signs import PackedSigns, bits_of, is_packed, is_sign, leaf_name, signs_of


def begun(signs: optax.Params) -> optax.Params:
    """Returns the deployed signs of a fresh state: PackedSigns like the signs."""
    return jax.tree.map(_packed, signs, is_leaf=is_packed)


def followed(state: Any, signs: optax.Params, flips: optax.Params, sure: optax.Params) -> optax.Params:
    """Returns the deployed signs after an update.

    Args:
      state: the optimizer's state before the update, with fields count, skipped and deployed.
      signs: the signs before the update, not packed.
      flips: which of them the update flips.
      sure: where the deployed signs adopt the new trained signs.
    """
    first = _fresh(state)  # the signs may differ from those of init: deployed signs start from the present ones

    def follow(sign: jax.Array, flip: jax.Array, sure: jax.Array, old: PackedSigns) -> PackedSigns:
        new, mask = bits_of(_positive(sign) ^ (flip & sure)), bits_of(sure | first)
        return PackedSigns(old.bits ^ ((old.bits ^ new) & mask), old.shape)

    return jax.tree.map(follow, signs, flips, sure, state.deployed)


def deployed_signs(opt_state: optax.OptState, signs: optax.Params) -> optax.Params:
    """Returns the signs to evaluate, save and export: the optimizer's deployed ones, or else the given ones.

    Use it in a loop of your own, and before you write signs to a file; ``state.variables`` of a TrainState already has
    them. Before the first update they equal the given ones, so a fresh optimizer can be combined with any signs; after
    it, if you replace the signs, also restart the optimizer with ``tx.init``.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> signs = {"kernel": jnp.array([True, False])}
      >>> tx = bsojax.bso(0.0, b1=0.9, deploy_threshold=bsojax.noise_threshold(0.9, 2.0))
      >>> updates, state = tx.update({"kernel": jnp.array([1.0, 9.0])}, tx.init(signs), signs)
      >>> signs = bsojax.apply_updates(signs, updates)
      >>> signs["kernel"].tolist(), bsojax.deployed_signs(state, signs)["kernel"].tolist()
      ([False, False], [True, False])

    Args:
      opt_state: the state of any optimizer. Deployed signs are the field ``deployed`` of any tuple in it that has one,
        a tree of PackedSigns, next to ``count``, the number of updates, and optionally ``skipped``, how many of them
        changed nothing.
      signs: the trained signs, in any form; the result has the same form.

    Raises:
      ValueError: the optimizer's state belongs to other signs, has a leading axis of devices, or consists of dicts, as
        when a file is read without a state to fill.
    """
    fresh = {name: _fresh(node) for node in _nodes(opt_state) for name in _named(node.deployed)}
    found = deployed_in(opt_state)
    if not found:
        return signs

    def read(path: Any, leaf: Any) -> Any:
        name = _kept_as(leaf_name(path), found)
        return leaf if name is None else _read(name, fresh[name], found.pop(name), leaf)

    deployed = jax.tree_util.tree_map_with_path(read, signs, is_leaf=is_packed)
    _validate.all_deployed(list(found))
    return deployed


def deployed_in(opt_state: optax.OptState) -> dict[str, PackedSigns]:
    """Returns the deployed signs that an optimizer's state keeps, by leaf name."""
    return {name: leaf for node in _nodes(opt_state) for name, leaf in _named(node.deployed).items()}


def with_deployed(opt_state: optax.OptState, deployed: dict[str, PackedSigns]) -> optax.OptState:
    """Returns an optimizer's state with other deployed signs, named as deployed_in does."""

    def changed(node: Any) -> Any:
        if not _reads(node):
            return node
        take = lambda path, _: deployed[leaf_name(path)]  # noqa: E731
        return node._replace(deployed=jax.tree_util.tree_map_with_path(take, node.deployed, is_leaf=is_packed))

    return jax.tree.map(changed, opt_state, is_leaf=_reads)


def deployed_anew(opt_state: optax.OptState, signs: optax.Params) -> optax.OptState:
    """Returns an optimizer's state whose deployed signs, if it keeps any, are the given ones."""
    found = deployed_in(opt_state)
    for name, leaf in _named(signs).items():
        kept = _kept_as(name, found)
        if kept is not None:
            found[kept] = _packed(leaf)
    return with_deployed(opt_state, found)


def _nodes(opt_state: optax.OptState) -> list[Any]:
    nodes = [node for node in jax.tree.leaves(opt_state, is_leaf=_reads) if _reads(node)]
    _validate.deployed_in_tuples(all(isinstance(node, tuple) for node in nodes))
    return nodes


def _named(tree: Any) -> dict[str, Any]:
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_packed)}


def _kept_as(name: str, kept: dict[str, Any]) -> str | None:
    """The name under which an optimizer keeps a leaf of signs: its own, or one from a tree of both signs and params."""
    return next((known for known in (name, f"signs/{name}") if known in kept), None)


def _reads(node: Any) -> bool:
    if isinstance(node, dict):
        return {"count", "deployed"} <= node.keys() and bool(jax.tree.leaves(node["deployed"]))
    return isinstance(node, tuple) and getattr(node, "deployed", None) is not None


def _fresh(state: Any) -> Any:
    """Whether no update has changed anything yet."""
    return state.count == getattr(state, "skipped", 0)


def _positive(leaf: jax.Array) -> jax.Array:
    return leaf if is_sign(leaf) else leaf > 0


def _packed(leaf: Any) -> PackedSigns:
    bits = bits_of(leaf if is_packed(leaf) else _positive(leaf))
    return PackedSigns(jnp.copy(bits), tuple(jnp.shape(leaf)))  # a buffer of its own: steps donate the state


def _read(name: str, fresh: jax.Array, deployed: PackedSigns, leaf: Any) -> Any:
    _validate.deployed_fit(name, (*deployed.shape,), jnp.shape(deployed.bits), jnp.shape(leaf))
    bits = jnp.where(fresh, _packed(leaf).bits, deployed.bits)
    if is_packed(leaf):
        return PackedSigns(bits, leaf.shape)
    signs = signs_of(bits, jnp.shape(leaf))
    return signs if is_sign(leaf) else jnp.where(signs, 1, -1).astype(leaf.dtype)
