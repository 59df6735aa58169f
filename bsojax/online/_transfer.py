"""Transfer of what one network has learned to another."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.online._state import TrainState
from bsojax.optim import deployed_anew
from bsojax.signs import is_packed, pack_signs, unpack_signs


def transfer(state: TrainState, *, into: TrainState) -> tuple[TrainState, list[str]]:
    """Copies the signs, real parameters and statistics of a trained network into another where they fit.

    Use it to give a trained network another readout, or more layers. It copies deployed signs, which become both the
    trained and the deployed signs of the new network; the rest of the optimizer's state and all counts are those of the
    new network.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, 4), optax.adam(1e-3))
      >>> ten = bsojax.init(bsojax.models.SpikingMLP(num_classes=10), tx, jax.random.key(0), jnp.ones((2, 5)))
      >>> twelve = bsojax.init(bsojax.models.SpikingMLP(num_classes=12), tx, jax.random.key(1), jnp.ones((2, 5)))
      >>> state, fresh = bsojax.transfer(ten, into=twelve)
      >>> fresh
      ['params/readout/bias', 'params/readout/kernel']

    Args:
      state: the state of the trained network, from init or a step; its signs packed or not.
      into: the state of the new network; neither is changed, and this one determines the form in which signs are held.

    Returns:
      The new state, and the names of the leaves that were not copied, because the trained network has none of the same
      name, shape and dtype: they keep their initial values.

    Raises:
      ValueError: nothing fits.
    """
    old, new = _by_name(state), _by_name(into)
    taken = {name: old[name] for name, leaf in new.items() if name in old and _kind(old[name]) == _kind(leaf)}
    _validate.some_taken(bool(taken), list(new))

    def merged_leaf(path: Any, leaf: Any) -> Any:
        return jnp.copy(taken.get(leaf_name(path), leaf))

    merged = jax.tree_util.tree_map_with_path(merged_leaf, unpack_signs(into.variables))
    signs = jax.tree.map(
        lambda held, leaf: pack_signs(leaf) if is_packed(held) else leaf, into.signs, merged["signs"], is_leaf=is_packed
    )
    opt_state = deployed_anew(into.opt_state, signs)  # an optimizer that has made updates would keep its own
    return dataclasses.replace(into, **{**merged, "signs": signs}, opt_state=opt_state), sorted(
        new.keys() - taken.keys()
    )


def _by_name(state: TrainState) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(unpack_signs(state.variables))
    return {leaf_name(path): leaf for path, leaf in leaves}


def _kind(leaf: Any) -> tuple[Any, Any]:
    return jnp.shape(leaf), jnp.result_type(leaf)
