"""BinaryRecurrent: neurons that receive each other's last spikes through binary weights."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn._layers import BinaryDense, Scale, rsqrt_fan_in
from bsojax.nn._neuron_state import NEURONS
from bsojax.nn._neurons import LIF
from bsojax.nn._spikes import Spikes


class BinaryRecurrent(nn.Module):
    """Neurons with binary recurrent weights: each time step adds ``scale * s[t-1] @ (+-1 kernel)`` to the current.

    Use it for sequences, instead of a neuron:
    ``bsojax.BinaryRecurrent(neuron=functools.partial(bsojax.LIF, tau=4.0))(current)``. Weights connect the last axis of
    the current with itself; for ``(batch, height, width, channels)`` they do so at each position separately.

    Learning stays online. The kernel's gradient is taken at the trace of the last step's spikes, a[t-1] (eq. 6). For
    OTTT's trace this is the exact derivative of this step's membranes with respect to the kernel, except for the reset
    and for the kernel's effect on earlier spikes, neither of which flows back through time. At two time steps it equals
    backpropagation through time.

    Variables: "recurrent/kernel" in the collection "signs", boolean of shape ``(n, n)``, packed or not. State, in the
    collection "neurons": the neuron's own, and "spike" and "trace", those of its last spikes; given a state without a
    trace, as in evaluation, no trace is kept.

    Attributes:
      neuron: makes the neuron module, called with (name="neuron").
      scale: a function that maps the number of neurons to the factor on the recurrent current. No norm follows, so the
        default is rsqrt_fan_in: sums of n spikes grow as sqrt(n), and the threshold does not.

    Raises:
      TypeError, ValueError: as the neuron.
    """

    neuron: Callable[..., nn.Module] = LIF
    scale: Scale = rsqrt_fan_in

    @nn.compact
    def __call__(self, current: jax.Array) -> Spikes:
        owner = f"recurrent layer '{self.name}'"
        _validate.floating("current", current, owner)
        last = self.variable(NEURONS, "spike", jnp.zeros_like, current)
        _validate.state_shape(owner, last.value.shape, current.shape)
        last_trace: jax.Array | None = self.get_variable(NEURONS, "trace", None)
        recurrent = BinaryDense(current.shape[-1], self.scale, name="recurrent")
        heard = Spikes(jax.lax.stop_gradient(last.value), last_trace)
        spikes: Spikes = self.neuron(name="neuron")(current + recurrent(heard))
        trace = spikes.trace
        traces = [] if trace is None else [(self.variable(NEURONS, "trace", jnp.zeros_like, trace), trace)]
        if not self.is_initializing():
            last.value = jax.lax.stop_gradient(spikes.value)
            for kept, new in traces:
                kept.value = jax.lax.stop_gradient(new)
        return spikes
