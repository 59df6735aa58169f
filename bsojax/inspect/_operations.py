"""The operations of a network: those that its spikes cause, and their cost."""

import dataclasses
import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bsojax.inspect._synapses import EVENTS, Path, Synapse, observed
from bsojax.nn import RECORDINGS, SPIKE_RATES, StateForm, resting_as
from bsojax.online import TrainState, as_inputs, batch_of, call_options, forward, not_donated, start


@dataclasses.dataclass(frozen=True)
class OperationEnergy:
    """The cost of an operation in picojoules; the defaults are for float32 at 45 nm.

    Use it as ``energy`` of summarize for another arithmetic or process: adding 32-bit integers costs 0.1 pJ at 45 nm.
    Moving data to and from memory is not included, and often costs more than the arithmetic.

    Attributes:
      addition: the cost of adding two numbers.
      multiplication: the cost of multiplying two numbers.

    Source: Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014: 0.9 and 3.7 pJ, together the
    4.6 pJ of a multiply-add that the literature on spiking networks uses.
    """

    addition: float = 0.9
    multiplication: float = 3.7

    @property
    def multiply_add(self) -> float:
        """The cost of a multiplication and an addition."""
        return self.multiplication + self.addition


@dataclasses.dataclass(frozen=True)
class LayerOperations:
    """What a layer's synapses do for a frame: one example with all its time steps, averaged over the batch.

    Attributes:
      input_rate: the fraction of inputs that were not zero.
      additions: additions of weights to currents, one for each weight that a nonzero input reaches, where the input is
        1 or the weight is a sign.
      multiply_adds: the others, of real inputs with real weights; where the input is not given as Spikes, zeros are
        multiplied too.
    """

    input_rate: float
    additions: float
    multiply_adds: float


def connections(model: nn.Module, frame: jax.ShapeDtypeStruct) -> dict[Path, int]:
    """Returns the products of inputs and weights for one example at one time step, by layer; nothing is run.

    Products with the padding of a convolution are left out.
    """
    synapses: dict[Path, list[Synapse]] = {}
    with observed(synapses):
        jax.eval_shape(functools.partial(_initialised, model), frame)
    return {path: sum(call.connections for call in calls) for path, calls in synapses.items()}


def _initialised(model: nn.Module, frame: Any) -> Any:
    # In evaluation, where layers are not called a second time for their traces.
    with resting_as(StateForm(before_reset=False, traces=False)):
        return model.init(jax.random.key(0), frame, **call_options(model, train=False, time_step=0))


def measured(
    model: nn.Module, state: TrainState, x: Any, num_steps: int, rngs: Any
) -> tuple[dict[Path, LayerOperations], dict[str, float]]:
    """Returns what each layer's synapses did for a batch in evaluation, and the spike rate of each neuron layer."""
    x = as_inputs(x, state.input_shape)
    checked = batch_of(x, None, None, state.input_shape, num_steps)
    synapses: dict[Path, list[Synapse]] = {}

    @jax.jit
    def run(variables: Any, x: Any) -> Any:
        batch = dataclasses.replace(checked, x=x)
        begun = start(model, batch.frame(0), num_steps, train=False)

        def body(neurons: Any, t: jax.Array) -> tuple[Any, Any]:
            told = (RECORDINGS, SPIKE_RATES)
            out = forward(model, variables, neurons, batch.frame(t), t, train=False, rngs=rngs, extra=told)
            seen = flax.traverse_util.flatten_dict(out.recordings)
            events = {path[:-1]: calls for path, calls in seen.items() if path[-1] == EVENTS}
            return out.neurons, (events, out.spike_rates)

        return jax.lax.scan(body, begun.neurons, jnp.arange(num_steps))[1]

    with observed(synapses), not_donated(state):
        events, rates = jax.device_get(run(state.variables, x))
    frames = checked.size * num_steps
    operations = {path: _counted(synapses[path], calls, checked.size, frames) for path, calls in events.items()}
    return operations, {name: float(np.mean(rate)) for name, rate in rates.items()}


def frame_of(state: TrainState, x: Any, num_steps: int) -> Any:
    """Returns a batch of one time step of x."""
    batch = batch_of(as_inputs(x, state.input_shape), None, None, state.input_shape, num_steps)
    return jax.eval_shape(lambda: batch.frame(0))


def _counted(synapses: list[Synapse], calls: Any, examples: int, frames: int) -> LayerOperations:
    """Returns the operations of a layer from the number of its nonzero inputs, at each time step, by call."""
    additions = multiply_adds = active = inputs = 0
    for synapse, seen in zip(synapses, calls, strict=True):
        some, other = (np.asarray(seen[name], np.int64).sum(0) for name in ("some", "other"))
        active += int(some.sum())
        inputs += frames * synapse.channels * synapse.fan_out.size
        if not (synapse.takes_spikes or not other.any()):  # real inputs: hardware does not skip zeros among them
            some = other = np.full(synapse.fan_out.shape, frames * synapse.channels)
        multiplied = 0 if synapse.is_binary else int((other * synapse.fan_out).sum())
        additions += int((some * synapse.fan_out).sum()) - multiplied
        multiply_adds += multiplied
    return LayerOperations(active / max(inputs, 1), additions / examples, multiply_adds / examples)
