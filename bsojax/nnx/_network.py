"""A Linen network as an NNX module: its collections are NNX variables."""

from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from bsojax.online import call_options, forward, start


class Signs(nnx.Variable):
    """Binary weights: a tree of booleans, True for +1."""


class Neurons(nnx.Variable):
    """The state of neurons, from one time step of a sequence to the next."""


class Network(nnx.Module):
    """A Linen network of this library within an NNX model; a call is one time step.

    Use it as any NNX module. Before each sequence call :meth:`rest`; then each call takes a frame, returns what the
    model returns, and advances the state of the neurons and, in training, the running statistics.

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
      signs: its binary weights, one variable :class:`Signs` of the whole tree.
      params: its real parameters, ``nnx.Param``.
      batch_stats: its running statistics, ``nnx.BatchStat``.
      neurons: the state of its neurons, :class:`Neurons`.

    Args:
      model: a Linen module (see bsojax.init).
      x: a batch of one time step.
      rngs: its stream "params" draws the weights.
    """

    def __init__(self, model: nn.Module, x: Any, *, rngs: nnx.Rngs) -> None:
        self.model = model
        variables: Any = model.init(rngs.params(), x, **call_options(model, train=True, time_step=0))
        self.signs = Signs(variables["signs"])
        self.params = nnx.Param(variables.get("params", {}))
        self.batch_stats = nnx.BatchStat(variables.get("batch_stats", {}))
        self.neurons = Neurons({})
        self.rest(x)

    def rest(self, x: Any, num_steps: int = 1, *, train: bool = False) -> None:
        """Puts the neurons at rest.

        Args:
          x: a batch of one time step; only its shape and dtype matter.
          num_steps: the number of time steps that follow.
          train: whether they are trained on: neurons then keep traces.

        Raises:
          ValueError: a norm keeps statistics for fewer time steps.
        """
        self.neurons.set_value(start(self.model, x, num_steps, train=train).neurons)

    def __call__(self, x: Any, *, train: bool = False, time_step: int | jax.Array = 0) -> Any:
        held = {"signs": self.signs, "params": self.params, "batch_stats": self.batch_stats}
        variables = {name: variable.get_value() for name, variable in held.items()}
        out = forward(self.model, variables, self.neurons.get_value(), x, time_step, train=train)
        self.neurons.set_value(out.neurons)
        if train:
            self.batch_stats.set_value(out.batch_stats)
        return out.logits
