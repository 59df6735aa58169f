"""What a network answers, and what its neurons do in the process."""

import dataclasses
import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.nn import RECORDINGS
from bsojax.online._batch import along, as_inputs, as_mask, batch_of
from bsojax.online._state import TrainState, not_donated
from bsojax.online._statistics import Static
from bsojax.online._walk import EVALUATION, LEARNING, walk


def predict(
    model: nn.Module,
    state: TrainState,
    x: Any,
    num_steps: int,
    *,
    per_step: bool = False,
    mask: Any = None,
    rngs: Any = None,
    neurons: Any = None,
) -> Any:
    """Returns a model's outputs for a batch, summed over the time steps or at each.

    Use it with running statistics that are up to date (see refresh_statistics). The class of an example is the largest
    of its logits; metrics receive the logits divided by the example's number of time steps.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> bsojax.predict(model, state, x, num_steps=4).shape
      (2, 3)

    Args:
      model: a Linen module (see init).
      state: the training state.
      x: a frame ``(batch, ...)``, a sequence ``(num_steps, batch, ...)``, or a tree of these, as in training.
      num_steps: the number of time steps.
      per_step: whether outputs are returned for each time step, of shape ``(num_steps, batch, ...)``.
      mask: boolean of shape ``(batch,)`` or ``(T, batch)``; outputs are zero where it is False.
      rngs: random keys, for models that use them.
      neurons: their state, from :func:`rest` or the previous call.

    Returns:
      Float32 outputs of shape ``(batch, ...)``, a tree where the model returns one; NaN for examples that are not
      finite. With neurons, a pair of these and the state with which a stream continues.

    Raises:
      TypeError, ValueError: x, mask, neurons, state and model do not fit each other.
    """
    outputs, after, _ = _run(model, state, x, num_steps, per_step, False, mask, rngs, neurons)
    return outputs if neurons is None else (outputs, after)


@flax.struct.dataclass
class Recording:
    """What the neurons of a layer did, as arrays of shape ``(num_steps, batch, ...)``; None for what they do not have.

    Attributes:
      spikes: 0 or 1.
      membranes: before the reset, so that a spike is visible as a crossing of the threshold.
      currents: the inputs.
      traces: the traces of their spikes.
    """

    spikes: jax.Array | None = None
    membranes: jax.Array | None = None
    currents: jax.Array | None = None
    traces: jax.Array | None = None


def record(
    model: nn.Module,
    state: TrainState,
    x: Any,
    num_steps: int,
    *,
    mask: Any = None,
    rngs: Any = None,
    neurons: Any = None,
) -> dict[str, Recording]:
    """Returns what each layer of neurons does for a batch in evaluation, by the layer's name.

    Use it to inspect spikes and membranes; it holds all time steps in memory. Your own neuron layers are included if
    they call ``bsojax.nn.report``.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> {name: layer.spikes.shape for name, layer in bsojax.record(model, state, x, num_steps=4).items()}
      {'neuron_0': (4, 2, 8), 'neuron_1': (4, 2, 8)}

    Args:
      model: a Linen module (see init).
      state: the training state.
      x: as in :func:`predict`, like the arguments below.
      num_steps: the number of time steps.
      mask: which examples count; what is recorded is zero where it is False, as predict's outputs are.
      rngs: random keys.
      neurons: their state from training.

    Raises:
      TypeError, ValueError: as predict.
    """
    _, _, found = _run(model, state, x, num_steps, False, True, mask, rngs, neurons)
    known = {field.name for field in dataclasses.fields(Recording)}
    layers: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        if path[-1].key in known:  # models may sow what they like
            layers.setdefault(leaf_name(path[:-1]), {})[path[-1].key] = leaf if mask is None else _counted(leaf, mask)
    return {name: Recording(**fields) for name, fields in layers.items()}


def _counted(leaf: jax.Array, mask: Any) -> jax.Array:
    """Returns an array of shape (T, batch, ...) with zeros where a mask is False: waiting neurons show spikes there."""
    counts = jnp.asarray(mask)
    return jnp.where(counts.reshape(counts.shape + (1,) * (leaf.ndim - 2)), leaf, jnp.zeros((), leaf.dtype))


def _run(
    model: nn.Module,
    state: TrainState,
    x: Any,
    num_steps: int,
    per_step: bool,
    records: bool,
    mask: Any,
    rngs: Any,
    neurons: Any,
) -> tuple[Any, Any, Any]:
    x, mask = as_inputs(x, state.input_shape), as_mask(mask)
    num_steps = _validate.steps(num_steps)
    batch_of(x, None, mask, state.input_shape, num_steps)
    with not_donated(state):
        outputs: tuple[Any, Any, Any] = _outputs(
            Static(model), num_steps, per_step, records, state, x, mask, rngs, neurons
        )
        return outputs


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _outputs(
    static_model: Static,
    num_steps: int,
    per_step: bool,
    records: bool,
    state: TrainState,
    x: Any,
    mask: Any,
    rngs: Any,
    neurons: Any,
) -> tuple[Any, Any, Any]:
    """Returns outputs, the neurons after the last time step, and what they report at each step."""
    batch = batch_of(x, None, mask, state.input_shape, num_steps)
    form, extra = (LEARNING, (RECORDINGS,)) if records else (EVALUATION, ())
    way, begun = walk(static_model.model, state, batch, form=form, rngs=rngs, neurons=neurons, extra=extra)
    _validate.outputs(begun.logits, batch.size)

    def body(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], Any]:
        t, neurons, total = carry
        out, counted = way.at(t, neurons), batch.counted(t)
        outputs = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), out.logits)
        if counted is not None:
            outputs = jax.tree.map(lambda leaf: jnp.where(along(counted, leaf), leaf, 0), outputs)
        total = () if per_step else jax.tree.map(jnp.add, total, outputs)
        return (t + 1, out.neurons, total), (outputs if per_step else (), out.recordings)

    total = () if per_step else jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), begun.logits)
    first = (jnp.zeros((), jnp.int32), begun.neurons, total)
    (_, after, total), (outputs, found) = jax.lax.scan(body, first, None, length=batch.num_steps)
    finite = batch.finite_examples()  # spikes hide bad inputs: the answer would look like any other

    def told(leaf: jax.Array) -> jax.Array:
        return jnp.where(along(finite, leaf, int(per_step)), leaf, jnp.nan)

    return jax.tree.map(told, outputs if per_step else total), after, found
