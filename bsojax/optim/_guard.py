"""How a training step skips an update that is not finite.

Values that are not finite are detected in these places, and nowhere else:

- labels outside the classes make a loss NaN (online/_judge.py, _within_classes);
- a training step checks the loss and gradients of each time step (online/_loop.py, OnlineLoop.advance), leaves
  statistics unchanged, and calls guarded_update, here;
- bso, t_bso and counter check the gradients that reach them (optim/_bso.py, optim/_counter.py), in a bare optax
  loop as in a training step, and count what they skip in their own state.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax.optim._bso import BSOState, TBSOState
from bsojax.optim._compose import pass_extra_args
from bsojax.optim._counter import CounterState
from bsojax.signs import check_updates, deltas_like, unpack_signs


def guarded_update(
    tx: optax.GradientTransformation,
    grads: optax.Updates,
    opt_state: optax.OptState,
    params: optax.Params,
    finite: jax.Array,
    **extra_args: Any,
) -> tuple[optax.Updates, optax.OptState]:
    """Calls ``tx.update`` so that an update that is not finite changes nothing and is counted.

    Use it in a training loop of your own. As in a bare optax loop, flip optimizers count the call and, in their own
    ``skipped``, that it changed nothing; the rest of the optimizer's state stays as it was. The optimizer sees packed
    signs as booleans.

    Args:
      tx: any optimizer; optax drops extra arguments that it does not take.
      grads: the gradients.
      opt_state: its state.
      params: the parameters.
      finite: boolean scalar: whether loss and gradients are all finite.
      **extra_args: extra arguments such as ``time_step``.

    Raises:
      TypeError: an update of a sign leaf is not an int8 delta, or a part of the optimizer's state changes its dtype
        because it was created from boolean parameters.
    """
    signs = unpack_signs(params)
    updates, new_state = pass_extra_args(tx).update(grads, opt_state, signs, **extra_args)
    check_updates(signs, updates)
    _validate.kept_dtypes(opt_state, new_state)
    updates = deltas_like(params, updates)
    updates = jax.tree.map(lambda update: jnp.where(finite, update, jnp.zeros_like(update)), updates)
    return updates, _kept_where_finite(finite, new_state, opt_state)


def _kept_where_finite(finite: jax.Array, new: optax.OptState, old: optax.OptState) -> optax.OptState:
    def is_flip_state(node: Any) -> bool:
        return isinstance(node, BSOState | TBSOState | CounterState)

    def kept(after: Any, before: Any) -> Any:
        if not is_flip_state(after):
            return jnp.where(finite, after, before)
        unchanged = optax.tree.where(finite, after, before)
        skipped = jnp.where(finite, after.skipped, before.skipped + (after.count - before.count))
        return unchanged._replace(count=after.count, skipped=skipped)

    return jax.tree.map(kept, new, old, is_leaf=is_flip_state)
