"""Composition with optax: who owns which leaf, and wrappers for transforms that know nothing of booleans."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bsojax._kinds import check_leaves, check_optimizer
from bsojax._packing import is_packed, is_sign
from bsojax._signs import leaf_name, same_structure, to_weights
from bsojax._updates import check_updates


def split_optimizer(
    flip: optax.GradientTransformation, real: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """One optimizer over ``{"signs": ..., "params": ...}``: flip owns the signs, real the real parameters.

    Use it to train a whole network: every leaf has exactly one owner, chosen by its place in the tree. Extra arguments
    such as ``time_step`` reach both; its updates are checked as by :func:`checked`.

    Args:
      flip: bso, t_bso, or a chain that ends in one.
      real: any optax optimizer.

    Raises:
      ValueError: at init, the tree has other keys than "signs" and "params", or no boolean leaf under "signs"; at
        update, the updates' tree is another.
      TypeError: flip or real is no optax transformation; at init, a boolean leaf under "params"; at update, a state
        that init did not return, and what :func:`checked` raises.
    """
    check_optimizer("flip", flip)
    check_optimizer("real", real)
    parts = optax.partition(
        {"signs": _pass_extra_args(flip), "params": _pass_extra_args(real)}, {"signs": "signs", "params": "params"}
    )
    inner = checked(parts)

    def init_fn(params: optax.Params) -> optax.OptState:
        if not isinstance(params, dict) or set(params) != {"signs", "params"}:
            keys = sorted(map(str, params)) if isinstance(params, dict) else type(params).__name__
            raise ValueError(f'params: split_optimizer needs a dict {{"signs": ..., "params": ...}}, got {keys}.')
        check_leaves("params", params)
        leaves = jax.tree.leaves(params["signs"], is_leaf=is_packed)
        if not any(is_sign(leaf) or is_packed(leaf) for leaf in leaves):
            raise ValueError(
                "signs: the tree has no boolean leaf, so nothing would ever flip; give the model a binary layer "
                "(bsojax.BinaryDense, bsojax.BinaryConv), or train it with optax alone."
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(params["params"]):
            if is_sign(leaf):
                raise TypeError(f"params: leaf '{leaf_name(path)}' is boolean; signs belong under 'signs'.")
        return inner.init(params)

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        inner_states = getattr(state, "inner_states", None)
        if not isinstance(inner_states, dict) or set(inner_states) != {"signs", "params"}:
            raise TypeError(f"state: needs what init of split_optimizer returned, not a {type(state).__name__}.")
        check_leaves("updates", updates)
        structures: Any = [jax.tree.structure(tree, is_leaf=is_packed) for tree in (updates, params)]
        if params is not None and structures[0] != structures[1]:
            raise ValueError(f"updates: their tree {structures[0]} differs from the parameters' {structures[1]}.")
        return inner.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def checked(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that what would silently destroy signs raises at trace time instead.

    Use it as the outermost wrapper where the updates go to stock ``optax.apply_updates`` or flax's ``TrainState``.
    split_optimizer includes it. It checks dtypes and shapes only, and costs nothing at run time.

    Raises:
      TypeError: inner is no optax transformation; at update, a sign leaf gets an update that is not an int8 delta, or a
        part of the optimizer state changes its dtype (an accumulator was made from boolean parameters: wrap its
        transform in on_weights).
    """
    check_optimizer("inner", inner)
    inner = _pass_extra_args(inner)

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        if params is None:
            raise ValueError("params: update needs the current parameters, as in tx.update(grads, state, params).")
        check_leaves("params", params)
        check_leaves("updates", updates)
        new_updates, new_state = inner.update(updates, state, params, **extra_args)
        check_updates(params, new_updates)
        _check_state(state, new_state)
        return new_updates, new_state

    return optax.GradientTransformationExtraArgs(inner.init, update_fn)


def on_weights(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps a transform of gradients so that it sees signs as float32 weights of +1 and -1.

    Use it before bso or t_bso for transforms that build their state from the parameters: ``optax.trace``, ``ema``,
    ``scale_by_adam`` and the like would allocate boolean accumulators. Its outputs are gradients, not deltas.

    Example:
      >>> import optax, bsojax
      >>> tx = optax.chain(bsojax.on_weights(optax.ema(0.9)), bsojax.bso(1e-6))

    Raises:
      TypeError: inner is no optax transformation.
    """
    check_optimizer("inner", inner)
    inner = _pass_extra_args(inner)

    def init_fn(params: optax.Params) -> optax.OptState:
        return inner.init(to_weights(params))

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        return inner.update(updates, state, None if params is None else to_weights(params), **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _pass_extra_args(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    # optax.MultiSteps takes extra arguments without declaring it by its type; optax would drop time_step silently.
    kinds = [parameter.kind for parameter in inspect.signature(tx.update).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return optax.GradientTransformationExtraArgs(tx.init, tx.update)
    return optax.with_extra_args_support(tx)


def _check_state(old: optax.OptState, new: optax.OptState) -> None:
    if not same_structure(old, new):
        return  # a wrapper with a state of changing structure fails by itself in any loop
    for (path, before), after in zip(jax.tree_util.tree_leaves_with_path(old), jax.tree.leaves(new), strict=True):
        if jnp.result_type(before) != jnp.result_type(after) or jnp.shape(before) != jnp.shape(after):
            raise TypeError(
                f"optimizer state: '{leaf_name(path)}' was {jnp.result_type(before)}{list(jnp.shape(before))} and "
                f"becomes {jnp.result_type(after)}{list(jnp.shape(after))}. A transform made its accumulators from "
                "boolean parameters: wrap it in bsojax.on_weights."
            )
