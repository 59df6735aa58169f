"""A Linen network as an NNX module: its collections are NNX variables."""

from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from bsojax import _validate
from bsojax.online import call_options, forward, start
from bsojax.signs import is_sign


class Signs(nnx.Variable[Any]):
    """Binary weights: an array of booleans, True for +1."""


class Neurons(nnx.Variable[Any]):
    """The state of neurons, from one time step of a sequence to the next."""


class Network(nnx.Module):
    """A Linen network of this library within an NNX model; a call is one time step.

    Use it like any NNX module. Call :meth:`rest` before each sequence; then each call takes a frame, returns the
    model's outputs, and advances the state of the neurons and, in training, the running statistics. A model that uses
    random numbers, such as one with dropout, is called with ``rngs``, the same key at all time steps of a sequence (see
    bsojax.online.forward). A network whose Optimizer keeps deployed signs is called with ``train=True`` or within
    value_and_grad; to evaluate and save it, use :meth:`Optimizer.deployed`.

    Example:
      >>> import jax.numpy as jnp, bsojax, bsojax.nnx
      >>> from flax import nnx
      >>> x = jnp.ones((2, 5))
      >>> net = bsojax.nnx.Network(bsojax.models.SpikingMLP(features=(8, 8)), x, rngs=nnx.Rngs(0))
      >>> net.rest(x)
      >>> net(x).shape
      (2, 10)

    Attributes:
      model: the Linen module.
      signs: its binary weights, a tree of :class:`Signs`.
      params: its real parameters, a tree of ``nnx.Param``.
      batch_stats: its running statistics, a tree of ``nnx.BatchStat``.
      neurons: the state of its neurons, a tree of :class:`Neurons`.
      trained_apart: whether these signs are only for training, and its Optimizer keeps others to evaluate.

    Args:
      model: a Linen module (see bsojax.init).
      x: a batch of one time step.
      rngs: its stream "params" draws the weights.
    """

    def __init__(self, model: nn.Module, x: Any, *, rngs: nnx.Rngs) -> None:
        self.model = model
        variables: Any = model.init(rngs.params(), x, **call_options(model, train=True, time_step=0))
        self.signs = _held(variables.get("signs", {}), Signs)
        self.params = _held(variables.get("params", {}), nnx.Param)
        self.batch_stats = _held(variables.get("batch_stats", {}), nnx.BatchStat)
        self.trained_apart = False
        self.rest(x)

    def rest(self, x: Any, num_steps: int = 1, *, train: bool = False) -> None:
        """Puts the neurons at rest.

        Args:
          x: a batch of one time step; only its shape and dtype matter.
          num_steps: the number of time steps that follow.
          train: whether these steps are for training: neurons then keep traces.

        Raises:
          ValueError: a norm keeps statistics for fewer time steps.
        """
        self.neurons = _held(start(self.model, x, num_steps, train=train).neurons, Neurons)

    def __call__(self, x: Any, *, train: bool = False, time_step: int | jax.Array = 0, rngs: Any = None) -> Any:
        if not train:
            # Where gradients are taken signs are numbers: some train a network without a norm with train=False.
            _validate.evaluates_deployed(self.trained_apart and any(map(is_sign, jax.tree.leaves(_values(self.signs)))))
        held = {"signs": self.signs, "params": self.params, "batch_stats": self.batch_stats}
        variables = {name: _values(tree) for name, tree in held.items()}
        out = forward(self.model, variables, _values(self.neurons), x, time_step, train=train, rngs=rngs)
        _set(self.neurons, out.neurons)
        if train:
            _set(self.batch_stats, out.batch_stats)
        return out.logits


def mark(model: nnx.Module, trained_apart: bool) -> None:
    """Records in the networks of a model whether their signs are only for training."""
    for _, node in nnx.iter_graph(model):
        if isinstance(node, Network):
            node.trained_apart = trained_apart


def _held(tree: Any, kind: type[nnx.Variable[Any]]) -> Any:
    """One variable per leaf, so that ``nnx.state`` names each array, and a pure dict of them can be read back."""
    return nnx.data(jax.tree.map(kind, tree))


def _values(tree: Any) -> Any:
    return jax.tree.map(lambda variable: variable.get_value(), tree, is_leaf=_is_variable)


def _set(tree: Any, values: Any) -> None:
    jax.tree.map(lambda variable, value: variable.set_value(value), tree, values, is_leaf=_is_variable)


def _is_variable(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)
