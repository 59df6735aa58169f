"""Training of NNX models that hold signs: gradients of booleans, and an optimizer for both kinds of weights."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from bsojax import signs
from bsojax.nnx._network import Signs, mark
from bsojax.optim import all_finite, deployed_signs, guarded_update


def trainable(model: nnx.Module) -> dict[str, Any]:
    """Returns what an optimizer owns of a model: ``{"signs": ..., "params": ...}``, pure trees of arrays.

    Signs are its variables :class:`Signs`, params its ``nnx.Param``; everything else is left out.
    """
    return {"signs": _pure(model, Signs), "params": _pure(model, nnx.Param)}


def value_and_grad(
    loss: Callable[..., Any], *, has_aux: bool = False, dtype: chex.ArrayDType = jnp.float32
) -> Callable[..., Any]:
    """Like ``nnx.value_and_grad`` for the first argument, a model whose signs are differentiated as +1 and -1.

    Use it on one time step of an NNX model. Changes that the call makes to the model persist: the state of neurons,
    running statistics, counts of random numbers. The gradient is a tree like :func:`trainable`.

    Args:
      loss: a function of a model, and any other arguments, that returns a real scalar or, with ``has_aux``, a pair.
      has_aux: whether it returns a pair.
      dtype: the floating dtype of the signs as weights.
    """

    def value_and_grad_fun(model: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        split: Any = nnx.split(model, nnx.Any(Signs, nnx.Param), ...)
        graph, weights, rest = split

        def objective(weights: Any) -> Any:
            seen = nnx.merge(graph, weights, rest, copy=True)
            result = loss(seen, *args, **kwargs)
            value, aux = result if has_aux else (result, None)
            return value, (aux, nnx.state(seen, nnx.Not(nnx.Any(Signs, nnx.Param))))

        (value, (aux, after)), grads = signs.value_and_grad(objective, has_aux=True, dtype=dtype)(weights)
        nnx.update(model, after)
        parts = {
            name: nnx.to_pure_dict(nnx.filter_state(grads, kind))
            for name, kind in (("signs", Signs), ("params", nnx.Param))
        }
        return ((value, aux) if has_aux else value), parts

    return value_and_grad_fun


class Optimizer(nnx.Module):
    """The state of an optimizer for an NNX model's signs and real parameters.

    Use it like ``nnx.Optimizer``, after each time step of a sequence: an update whose gradients are not finite changes
    nothing, as in bsojax's own training step. Evaluate and save the result of :meth:`deployed`: where the optimizer
    keeps deployed signs, as calibrated does, the model itself holds the trained ones, and its networks refuse to be
    evaluated.

    Attributes:
      tx: the optimizer.
      state: its state, a single ``nnx.OptState`` variable.

    Args:
      model: the model.
      tx: an optimizer over ``{"signs": ..., "params": ...}``, see bsojax.split_optimizer.
    """

    def __init__(self, model: nnx.Module, tx: optax.GradientTransformation) -> None:
        self.tx = tx
        weights = trainable(model)
        self.state = nnx.OptState(tx.init(weights))
        # Where no signs are deployed, this returns the signs themselves.
        mark(model, deployed_signs(self.state.get_value(), weights["signs"]) is not weights["signs"])

    def update(self, model: nnx.Module, grads: Any, **extra_args: Any) -> None:
        """Changes the model by one update.

        Args:
          model: the model.
          grads: the gradients from value_and_grad.
          **extra_args: further arguments of the optimizer, such as ``time_step``.

        Raises:
          TypeError: an update of a sign leaf is not an int8 delta.
        """
        weights = trainable(model)
        updates, state = guarded_update(
            self.tx, grads, self.state.get_value(), weights, all_finite(grads), **extra_args
        )
        self.state.set_value(state)
        changed = signs.apply_updates(weights, updates)
        for name, kind in (("signs", Signs), ("params", nnx.Param)):
            _write(model, kind, changed[name])

    def deployed(self, model: nnx.Module) -> Any:
        """Returns a copy of the model with the signs to evaluate, save and export (see bsojax.deployed_signs).

        The copy does not follow further training: call this again. Its running statistics are those of the trained
        signs; calls with ``train=True``, which change no weight, update them.

        Args:
          model: the model that this optimizer trains; it is not changed.
        """
        found = nnx.clone(model)
        _write(found, Signs, deployed_signs(self.state.get_value(), trainable(model)["signs"]))
        mark(found, False)
        return found


def _pure(model: nnx.Module, kind: type[nnx.Variable[Any]]) -> Any:
    return nnx.to_pure_dict(nnx.state(model, kind))


def _write(model: nnx.Module, kind: type[nnx.Variable[Any]], values: Any) -> None:
    held = nnx.state(model, kind)
    structure: Any = jax.tree.structure(held)  # a pure tree has the same leaves in the same order
    nnx.update(model, jax.tree.unflatten(structure, jax.tree.leaves(values)))
