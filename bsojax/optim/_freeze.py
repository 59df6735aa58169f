"""Signs that stay as they are and cost nothing to train."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from bsojax import _validate
from bsojax.optim._compose import pass_extra_args
from bsojax.signs import is_packed, leaf_name, no_flips

Frozen = Callable[[str], bool] | Any
"""Which leaves of signs are frozen: a function of a leaf's name, or a tree of booleans, a prefix of the signs' tree."""


def freeze(
    flip: optax.GradientTransformation | None = None, frozen: Frozen = lambda name: True
) -> optax.GradientTransformationExtraArgs:
    """A flip optimizer that leaves some signs as they are and keeps no state for them.

    Use it to train parts of a network or, with no arguments, to train its real parameters alone.

    Example:
      >>> import optax, bsojax
      >>> flip = bsojax.freeze(bsojax.t_bso(0.1, 4), lambda name: not name.startswith("readout"))
      >>> tx = bsojax.split_optimizer(flip, optax.adam(1e-3))

    Args:
      flip: the optimizer of the other signs: bso, t_bso, or a chain that ends in one; None if there are none.
      frozen: a function of a leaf's name, as in ``metrics["flips"]`` ("conv_1/kernel"), or a tree of booleans like the
        tree of signs, where a boolean in place of a layer stands for all of it.

    Returns:
      A transformation over trees of signs, whose state is that of flip over the signs that are not frozen.

    Raises:
      ValueError: at init, it would freeze nothing or, without flip, not everything.
    """
    inner = optax.set_to_zero() if flip is None else pass_extra_args(flip)

    def init_fn(signs: optax.Params) -> optax.OptState:
        where = _where(frozen, signs)
        names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(where)]
        _validate.some_frozen(jax.tree.leaves(where), names, flip is not None)
        return optax.EmptyState() if flip is None or all(jax.tree.leaves(where)) else inner.init(_learned(where, signs))

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        _validate.needs_params(params)
        where, still = _where(frozen, params), no_flips(params)
        if flip is None or all(jax.tree.leaves(where)):
            return still, state
        extra_args = {name: _learned(where, value) if name == "grad" else value for name, value in extra_args.items()}
        found, state = inner.update(_learned(where, updates), state, _learned(where, params), **extra_args)
        return jax.tree.map(lambda stays, zero, update: zero if stays else update, where, still, found), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _where(frozen: Frozen, signs: Any) -> Any:
    """Returns, for each leaf of signs, whether it is frozen."""
    if callable(frozen):
        return jax.tree_util.tree_map_with_path(lambda path, _: bool(frozen(leaf_name(path))), signs, is_leaf=is_packed)
    return jax.tree.map(
        lambda stays, below: jax.tree.map(lambda _: bool(stays), below, is_leaf=is_packed), frozen, signs
    )


def _learned(where: Any, tree: Any) -> Any:
    """Returns a tree without its frozen leaves, as optax.masked does."""
    return jax.tree.map(lambda stays, leaf: optax.MaskedNode() if stays else leaf, where, tree)
