"""How a Linen model is called: on one time step, with the state of its neurons handed in and out."""

import inspect
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from bsojax._validate import leaf_name
from bsojax.nn import NEURONS, SPIKE_RATES, StateForm, resting_as


class Forward(NamedTuple):
    """What one time step of a model gives.

    Attributes:
      logits: what the model returns.
      batch_stats: its running statistics after the step.
      neurons: the state of its neurons after the step.
      spike_rates: the mean spike of each neuron layer, by its name; empty in inference.
    """

    logits: jax.Array
    batch_stats: Any
    neurons: Any
    spike_rates: dict[str, jax.Array]


class Start(NamedTuple):
    """A model before the first time step.

    Attributes:
      logits: an array like those that the model returns.
      variables: arrays like the variables of its collections.
      neurons: the state of its neurons at rest.
      spike_rates: arrays like the spike rates of its neuron layers, by name.
    """

    logits: jax.Array
    variables: dict[str, Any]
    neurons: Any
    spike_rates: dict[str, jax.Array]


def call_options(model: nn.Module, *, train: bool, time_step: int | jax.Array) -> dict[str, Any]:
    """Returns those of train and time_step that the model's ``__call__`` takes."""
    parameters = inspect.signature(type(model).__call__).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    options = {"train": train, "time_step": time_step}
    return {name: value for name, value in options.items() if anything or name in parameters}


def start(model: nn.Module, frame: jax.Array, num_steps: int, *, train: bool, learns: bool | None = None) -> Start:
    """Calls the model once, to see what it keeps, and from where its neurons start.

    Use it in a loop of your own, under jit: to the compiler all but the constants of the neurons' state is dead code.
    The model is told the last time step as a plain int, so that a norm with statistics for fewer refuses it; in the
    loop it is traced.

    Args:
      model: a Linen module (see init).
      frame: a batch of one time step.
      num_steps: the number of time steps.
      train: whether the model is called in training.
      learns: whether gradients will be taken: LIF and IF then hold the membrane before the reset, and traces. None: as
        train.

    Raises:
      ValueError: a norm keeps statistics for fewer time steps.
    """
    learns = train if learns is None else learns
    options = call_options(model, train=train, time_step=num_steps - 1)
    with resting_as(StateForm(before_reset=learns, traces=learns)):
        logits, made = model.init_with_output(jax.random.key(0), frame, **options)
    variables: Any = made
    return Start(logits, variables, variables.get(NEURONS, {}), _by_layer(variables))


def forward(
    model: nn.Module,
    variables: dict[str, Any],
    neurons: Any,
    frame: jax.Array,
    time_step: int | jax.Array,
    *,
    train: bool,
) -> Forward:
    """Runs a model on one time step.

    Use it in a loop of your own; the neurons' state comes from :func:`start`, and from the step before.

    Args:
      model: a Linen module (see init).
      variables: the collections "signs", "params" and "batch_stats".
      neurons: the collection "neurons".
      frame: a batch of one time step.
      time_step: its number, 0 .. T - 1.
      train: whether the model is called in training, where statistics follow the batch.
    """
    changing = ["batch_stats", NEURONS, SPIKE_RATES] if train else [NEURONS]
    options = call_options(model, train=train, time_step=time_step)
    logits, changed = model.apply({**variables, NEURONS: neurons}, frame, mutable=changing, **options)
    batch_stats = changed.get("batch_stats", variables.get("batch_stats", {}))
    return Forward(logits, batch_stats, changed.get(NEURONS, neurons), _by_layer(changed))


def _by_layer(variables: Any) -> dict[str, jax.Array]:
    rates = jax.tree_util.tree_leaves_with_path(variables.get(SPIKE_RATES, {}))
    return {leaf_name(path[:-1]): rate for path, rate in rates}
