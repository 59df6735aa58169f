"""A model's walk through the time steps of a batch, and the state of its neurons along the way."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn import StateForm
from bsojax.online._batch import Batch, along
from bsojax.online._model import Forward, Start, forward, neuron_batch_axes, start, started
from bsojax.online._state import TrainState, check_state

EVALUATION = StateForm(before_reset=False, traces=False)
"""How neurons hold their state where nothing is learned."""

LEARNING = StateForm(before_reset=True, traces=True)
"""How neurons hold their state where gradients are taken."""


@dataclasses.dataclass(frozen=True)
class Walk:
    """A model on the time steps of a batch, without a gradient.

    Attributes:
      model: a Linen module (see init).
      batch: the batch.
      variables: the collections "signs", "params" and "batch_stats".
      rngs: random keys of the sequence, or None.
      train: whether the model is called in training.
      extra: further collections to return.
      axes: the batch axes of the neurons' state; None where they are not needed.
    """

    model: nn.Module
    batch: Batch
    variables: dict[str, Any]
    rngs: Any
    train: bool
    extra: tuple[str, ...]
    axes: Any

    def at(self, t: jax.Array, neurons: Any, variables: dict[str, Any] | None = None) -> Forward:
        """Runs the model on a time step; neurons of examples that do not count keep their state."""
        out = forward(
            self.model,
            self.variables if variables is None else variables,
            neurons,
            self.batch.frame(t),
            t,
            train=self.train,
            counted=self.batch.counted(t),
            rngs=self.rngs,
            extra=self.extra,
        )
        return out._replace(neurons=waiting(self.batch, t, out.neurons, neurons, self.axes))


def walk(
    model: nn.Module,
    state: TrainState,
    batch: Batch,
    *,
    train: bool = False,
    form: StateForm = EVALUATION,
    rngs: Any = None,
    neurons: Any = None,
    extra: tuple[str, ...] = (),
) -> tuple[Walk, Start]:
    """Returns a walk through a batch and where it starts: at rest, or with the given neurons.

    Raises:
      ValueError: state, batch, neurons and model do not fit each other.
    """
    frame = batch.frame(0)
    begun = started(model, frame, batch.num_steps, train=train, form=form)
    if neurons is not None:
        held: Any = jax.tree.structure(neurons)
        if held != jax.tree.structure(begun.neurons):
            form = LEARNING  # the neurons come from a stream in training
            begun = started(model, frame, batch.num_steps, train=train, form=form)
        begun = begun._replace(neurons=handed_on(neurons, begun.neurons))
    check_state(state, begun.variables)
    axes = None if batch.mask is None else neuron_batch_axes(model, frame, batch.num_steps, train=train, form=form)
    return Walk(model, batch, state.variables, rngs, train, extra, axes), begun


def waiting(batch: Batch, t: jax.Array, new: Any, old: Any, axes: Any) -> Any:
    """Returns the state of neurons after a time step; examples that do not count keep their previous state."""
    counted = batch.counted(t)
    if counted is None:
        return new

    def kept(new: jax.Array, old: jax.Array, axis: int) -> jax.Array:
        return new if axis < 0 else jnp.where(along(counted, new, axis), new, old)

    return jax.tree.map(kept, new, old, axes)


def handed_on(neurons: Any, at_rest: Any) -> Any:
    """Returns neurons that a user passes in; refuses those of another model, of another batch, or without traces."""
    _validate.neurons(neurons, at_rest)
    return neurons


def rest(model: nn.Module, x: Any, *, train: bool = False) -> Any:
    """Returns the state of a model's neurons at rest, the start of a stream.

    Use it where a stream is longer than one call can take: pass it to a training step, ``evaluate`` or ``predict`` as
    ``neurons``, and pass the state that the call returns to the next one.

    Example:
      >>> import jax, numpy as np, optax, bsojax
      >>> model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3)
      >>> tx = bsojax.split_optimizer(bsojax.bso(1e-3, b1=0.9), optax.sgd(0.1))
      >>> x, y = np.ones((2, 4, 5), np.float32), np.array([0, 1, 2, 0])
      >>> state, step = bsojax.init(model, tx, jax.random.key(0), x[0]), bsojax.make_train_step(model, tx, 2)
      >>> neurons = bsojax.rest(model, x[0], train=True)
      >>> for chunk in range(3):
      ...     state, metrics = step(state, x, y, neurons=neurons)
      ...     neurons = metrics["neurons"]

    Args:
      model: a Linen module (see init).
      x: a batch of one time step; only shapes and dtypes matter.
      train: whether it is for training, whose state holds traces; evaluation accepts both.
    """
    like = jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.result_type(leaf)), x)
    return jax.jit(lambda frame: start(model, frame, 1, train=train).neurons)(like)
