"""The training step and its settings."""

from collections.abc import Mapping

import chex
import flax.linen as nn
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bsojax import _validate
from bsojax.losses import Loss, Metric
from bsojax.online._evaluate import DEFAULT_LOSS
from bsojax.online._exchange import Exchange, exchange_of
from bsojax.online._judge import Seen
from bsojax.online._loop import OnlineLoop
from bsojax.online._schedule import UpdateAtEach, UpdateAtEnd, backward_of
from bsojax.online._step import Step


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    loss: Loss = DEFAULT_LOSS,
    metrics: Mapping[str, Metric] | None = None,
    accumulate: bool = False,
    backward_steps: int | None = None,
    axis_name: str | None = None,
    vote: bool = False,
    mesh: Mesh | None = None,
    exchange: Exchange | None = None,
    dtype: chex.ArrayDType = jnp.float32,
) -> Step:
    """Returns ``step(state, x, y) -> (state, metrics)``: online training on one batch, one time step after another.

    Use it as the body of a training loop. Each time step runs the network on one frame, takes the gradient of this
    step's loss through the layers only, and updates signs and real parameters, so that memory does not grow with
    num_steps. The state is donated: keep only the returned one. ``bsojax.online.time_step`` is for your own loops.

    :class:`bsojax.online.Step` describes what the step takes: a static frame or a sequence, labels or any other
    targets, and by name mask, rngs and neurons.

    Its metrics, for the whole sequence, are: "loss" (mean over time), "accuracy" (of the logits' mean over time, if y
    are class labels) or the given metrics; "flips" (number of flips, by sign leaf), "spikes" (spikes per neuron and
    time step, by neuron layer) and "skipped" (number of updates skipped because the loss or a gradient was not finite,
    or a label was outside the classes). A skipped update changes nothing but counts: those of batches and of skipped
    updates, and the flip optimizer's own count of its calls.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> state, metrics = bsojax.make_train_step(model, tx, num_steps=4)(state, x, jnp.array([0, 1]))
      >>> sorted(metrics)
      ['accuracy', 'flips', 'loss', 'skipped', 'spikes']

    Args:
      model: a Linen module (see init).
      tx: an optimizer over ``{"signs": ..., "params": ...}``; it receives ``time_step``, ``value`` (the loss that was
        differentiated) and ``grad``.
      num_steps: T, the number of time steps of a sequence, >= 1.
      loss: a function of logits and y at a time step, see :mod:`bsojax.losses`: the mean over the batch, or a value for
        each example, which a mask requires. It is divided by num_steps or, for a padded example, by its own number.
      metrics: functions of logits and y by name, see :mod:`bsojax.losses`; None: "accuracy" if y are class labels.
      accumulate: whether gradients are summed over the sequence for a single update (with time_step 0) at its end.
      backward_steps: K: backpropagate only at K of the time steps that the loss uses, drawn anew for each batch, and
        run only forward at the others, where no weight changes. Use it to trade accuracy for time: a backward pass
        costs two forward passes. None means all of them. Source: Meng et al., SLTT, ICCV 2023 (SLTT-K).
      axis_name: the axis of pmap or shard_map over which the batch is split (see MeanOverAxis). Give the model's norms
        the same name for statistics of the global batch; else each device normalises by its own. None under jit.
      vote: whether the devices of axis_name exchange votes on flips, 2 bits per weight, instead of the signs'
        gradients, 64 bits (see Votes).
      mesh: under jit, the mesh of data_mesh over which the optimizer's state is split (see OnMesh and state_shardings).
        None where that state is not split.
      exchange: what the devices exchange, as an object; axis_name, vote and mesh are short forms of the built-in ones.
      dtype: dtype of the activations, and so of membranes and traces.

    Returns:
      A jitted function: it has ``lower``, and may be called inside jit, pmap, shard_map and scan.

    Raises:
      TypeError: num_steps is not an int; at a call, x is not floating, y is not what the loss takes, or mask is not
        boolean.
      ValueError: num_steps < 1, backward_steps is outside 1 .. num_steps, vote is given without axis_name, axis_name
        together with mesh, or one of these with exchange; at a call, x, y, the state, the model and the optimizer do
        not fit each other. Labels outside the classes and inputs that are not finite are refused where x and y are
        NumPy arrays, and skipped elsewhere.
    """
    _validate.linen(model)
    _validate.metric_names(metrics or ())
    num_steps = _validate.steps(num_steps)
    updates = UpdateAtEnd() if accumulate else UpdateAtEach()
    backward = backward_of(backward_steps, num_steps)
    devices = exchange_of(axis_name, vote, mesh, exchange)
    loop = OnlineLoop(model, tx, num_steps, loss, metrics, updates, backward, devices, jnp.dtype(dtype), Seen())
    return Step(loop.train, loop.seen, num_steps, loss, donate_argnums=0)
