"""A recurrent spiking network: layers whose neurons receive each other's spikes through binary weights."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from bsojax.nn import LIF, BatchNorm, BinaryDense, BinaryRecurrent, Dense, Scale, Spikes, rsqrt_fan_in, unit_scale


class SpikingRNN(nn.Module):
    """Layers of recurrent neurons, each after a synapse and a norm, and a readout; returns one time step's logits.

    Use it for sequences of features, such as spectra or spike counts, of shape ``(batch, channels)`` per time step.
    Recurrent weights are binary, and so are the synapses between layers; the first synapse and the readout keep real
    weights unless binary_ends is set.

    Modules: "dense_0", "norm_0", "recurrent_0" with the neurons inside, and so on; "readout".

    Attributes:
      features: the width of each layer.
      num_classes: the number of logits.
      binary_ends: whether the first synapse and the readout are binary too.
      neuron: makes a neuron module, such as ``bsojax.ALIF``.
      norm: makes a module called with (current, train, time_step). For sequences of unequal length use the default,
        whose statistics are shared by the time steps.
      scale: the factor on the current of each binary synapse between layers; rsqrt_fan_in where the norm has no
        statistics.
    """

    features: Sequence[int] = (128,)
    num_classes: int = 10
    binary_ends: bool = False
    neuron: Callable[..., nn.Module] = LIF
    norm: Callable[..., nn.Module] = BatchNorm
    scale: Scale = unit_scale

    @nn.compact
    def __call__(
        self, x: Spikes | jax.Array, train: bool = False, time_step: int | jax.Array | None = None
    ) -> jax.Array:
        for index, width in enumerate(self.features):
            real = index == 0 and not self.binary_ends
            name = f"dense_{index}"
            layer = Dense(width, name=name) if real else BinaryDense(width, scale=self.scale, name=name)
            current = self.norm(name=f"norm_{index}")(layer(x), train, time_step)
            x = BinaryRecurrent(neuron=self.neuron, name=f"recurrent_{index}")(current)
        if self.binary_ends:
            return BinaryDense(self.num_classes, scale=rsqrt_fan_in, name="readout")(x)
        return Dense(self.num_classes, name="readout")(x)
