"""Spiking VGG networks from a list of channels."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from bsojax.nn import (
    LIF,
    BatchNorm,
    BinaryConv,
    BinaryDense,
    Conv,
    Dense,
    Scale,
    Spikes,
    avg_pool,
    global_avg_pool,
    rsqrt_fan_in,
    unit_scale,
)

VGG11 = (64, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512)


class SpikingVGG(nn.Module):
    """3x3 convolutions, each followed by a norm and neurons, with pooling between; returns one time step's logits.

    Use it for images and event frames of shape ``(batch, height, width, channels)``. The default is the paper's VGG-11:
    9,216,000 binary weights, and for 10 classes of RGB images 12,426 real parameters.

    Attributes:
      num_classes: the number of logits.
      channels: the channels of each convolution, and "M" for a 2x2 average pooling.
      binary_ends: whether the first convolution and the readout are binary too; the paper keeps them real.
      neuron: makes a neuron module, such as ``functools.partial(bsojax.LIF, tau=1.5)``.
      norm: makes a module called with (current, train, time_step). The default serves any number of time steps; where
        that is known, ``functools.partial(bsojax.BatchNorm, num_steps=4)`` is the better choice (see BatchNorm).
      scale: the factor on the current of each binary convolution; rsqrt_fan_in where the norm has no statistics.

    """

    num_classes: int = 10
    channels: Sequence[Any] = VGG11
    binary_ends: bool = False
    neuron: Callable[..., nn.Module] = LIF
    norm: Callable[..., nn.Module] = BatchNorm
    scale: Scale = unit_scale

    @nn.compact
    def __call__(
        self, x: Spikes | jax.Array, train: bool = False, time_step: int | jax.Array | None = None
    ) -> jax.Array:
        index = 0
        for entry in self.channels:
            if entry == "M":
                x = avg_pool(x, 2)
                continue
            if index == 0 and not self.binary_ends:
                x = Conv(entry, (3, 3), name="conv_0")(x)
            else:
                x = BinaryConv(entry, (3, 3), scale=self.scale, name=f"conv_{index}")(x)
            x = self.norm(name=f"norm_{index}")(x, train, time_step)
            x = self.neuron(name=f"neuron_{index}")(x)
            index += 1
        x = global_avg_pool(x)
        if self.binary_ends:
            return BinaryDense(self.num_classes, scale=rsqrt_fan_in, name="readout")(x)
        return Dense(self.num_classes, name="readout")(x)
