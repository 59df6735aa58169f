"""A spiking multilayer perceptron."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from bsojax.nn import LIF, BatchNorm, BinaryDense, Dense, Scale, Spikes, flatten, rsqrt_fan_in, unit_scale


class SpikingMLP(nn.Module):
    """Fully connected layers, each followed by a norm and neurons, and a readout; returns one time step's logits.

    Use it for inputs without spatial structure; images are raveled. Hidden layers after the first are binary; the first
    layer and the readout keep real weights unless binary_ends is set, which is the honest test of whether flips do the
    learning.

    Attributes:
      features: the width of each hidden layer.
      num_classes: the number of logits.
      binary_ends: whether the first layer and the readout are binary too.
      neuron: makes a neuron module, such as ``functools.partial(bsojax.LIF, tau=1.5)``.
      norm: makes a module called with (current, train, time_step). The default serves any number of time steps; where
        that is known, ``functools.partial(bsojax.BatchNorm, num_steps=4)`` is the better choice (see BatchNorm).
      scale: the factor on the current of each binary hidden layer; rsqrt_fan_in where the norm has no statistics.

    """

    features: Sequence[int] = (256, 256)
    num_classes: int = 10
    binary_ends: bool = False
    neuron: Callable[..., nn.Module] = LIF
    norm: Callable[..., nn.Module] = BatchNorm
    scale: Scale = unit_scale

    @nn.compact
    def __call__(
        self, x: Spikes | jax.Array, train: bool = False, time_step: int | jax.Array | None = None
    ) -> jax.Array:
        x = flatten(x)
        for index, width in enumerate(self.features):
            real = index == 0 and not self.binary_ends
            name = f"dense_{index}"
            layer = Dense(width, name=name) if real else BinaryDense(width, scale=self.scale, name=name)
            x = self.norm(name=f"norm_{index}")(layer(x), train, time_step)
            x = self.neuron(name=f"neuron_{index}")(x)
        if self.binary_ends:
            return BinaryDense(self.num_classes, scale=rsqrt_fan_in, name="readout")(x)
        return Dense(self.num_classes, name="readout")(x)
