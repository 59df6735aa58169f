"""Composition with optax: which optimizer owns which leaf, and wrappers for transforms that cannot handle booleans."""

import inspect
from typing import Any, NamedTuple

import optax

from bsojax import _validate
from bsojax.signs import check_updates, deltas_like, to_weights, unpack_signs


class SplitState(NamedTuple):
    """The state of split_optimizer.

    Checkpoints from before this form existed hold its leaves under other names: they are refused and cannot be resumed.

    Attributes:
      signs: the state of the flip optimizer.
      params: the state of the optimizer of the real parameters.
    """

    signs: optax.OptState
    params: optax.OptState


def split_optimizer(
    flip: optax.GradientTransformation, real: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """One optimizer over ``{"signs": ..., "params": ...}``: flip owns the signs, real owns the real parameters.

    Use it to train a whole network: every leaf has exactly one owner, chosen by its place in the tree. Each optimizer
    sees only its own tree, without "signs" or "params" at the top, and flip sees the signs as booleans in whatever form
    they are held; labels and masks within flip refer to that tree. Extra arguments such as ``time_step`` reach both.
    Updates are checked as in :func:`checked`.

    Example:
      >>> import jax.numpy as jnp, optax, bsojax
      >>> tx = bsojax.split_optimizer(flip=bsojax.bso(0.01, b1=0.9), real=optax.sgd(0.5))
      >>> network = {"signs": {"kernel": jnp.array([True, False])}, "params": {"bias": jnp.zeros(2)}}
      >>> gradients = {"signs": {"kernel": jnp.ones(2)}, "params": {"bias": jnp.ones(2)}}
      >>> updates, state = tx.update(gradients, tx.init(network), network)
      >>> network = bsojax.apply_updates(network, updates)
      >>> network["signs"]["kernel"].tolist(), network["params"]["bias"].tolist()
      ([False, False], [-0.5, -0.5])

    Args:
      flip: bso, t_bso, a chain that ends in one, or freeze.
      real: any optax optimizer.

    Returns:
      A transformation with state :class:`SplitState`.

    Raises:
      TypeError, ValueError: as in flip, real and :func:`checked`.
    """
    flip, real = pass_extra_args(flip), pass_extra_args(real)

    def init_fn(params: optax.Params) -> SplitState:
        return SplitState(flip.init(params["signs"]), real.init(params["params"]))

    def update_fn(
        updates: optax.Updates,
        state: SplitState,
        params: optax.Params | None = None,
        *,
        grad: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SplitState]:
        _validate.needs_params(params)
        trees: Any = params
        found, states = {}, {}
        for name, owner in (("signs", flip), ("params", real)):
            own = {} if grad is None else {"grad": grad[name]}
            found[name], states[name] = owner.update(
                updates[name], getattr(state, name), trees[name], **own, **extra_args
            )
        return found, SplitState(**states)

    return checked(optax.GradientTransformationExtraArgs(init_fn, update_fn))


def checked(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that mistakes that would silently destroy signs raise an error at trace time.

    Use it as the outermost wrapper where the updates go to stock ``optax.apply_updates`` or flax's ``TrainState``.
    split_optimizer includes it. It checks only dtypes and shapes, and costs nothing at run time. The wrapped optimizer
    sees packed signs as booleans, so that accumulators have the gradients' shapes and training is identical bit for
    bit.

    Raises:
      TypeError: at update, a sign leaf gets an update that is not an int8 delta, or a part of the optimizer state
        changes its dtype (an accumulator was created from boolean parameters: wrap its transform in on_weights).
      ValueError: at update, the parameters are missing.
    """
    inner = pass_extra_args(inner)

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        _validate.needs_params(params)
        signs = unpack_signs(params)
        new_updates, new_state = inner.update(updates, state, signs, **extra_args)
        check_updates(signs, new_updates)
        _validate.kept_dtypes(state, new_state)
        return deltas_like(params, new_updates), new_state

    return optax.GradientTransformationExtraArgs(lambda params: inner.init(unpack_signs(params)), update_fn)


def on_weights(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Wraps a transform of gradients so that it sees signs as float32 weights of +1 and -1.

    Use it before bso or t_bso for transforms that build their state from the parameters: ``optax.trace``, ``ema``,
    ``scale_by_adam`` and the like would allocate boolean accumulators. It returns gradients, not deltas.

    Example:
      >>> import optax, bsojax
      >>> tx = optax.chain(bsojax.on_weights(optax.ema(0.9)), bsojax.bso(1e-6))
    """
    inner = pass_extra_args(inner)

    def init_fn(params: optax.Params) -> optax.OptState:
        return inner.init(to_weights(params))

    def update_fn(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, optax.OptState]:
        result: tuple[optax.Updates, optax.OptState] = inner.update(
            updates, state, None if params is None else to_weights(params), **extra_args
        )
        return result

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def pass_extra_args(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Like ``optax.with_extra_args_support``, also for optax.MultiSteps, which takes extra arguments undeclared."""
    kinds = [parameter.kind for parameter in inspect.signature(tx.update).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return optax.GradientTransformationExtraArgs(tx.init, tx.update)
    return optax.with_extra_args_support(tx)
