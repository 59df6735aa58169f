"""Spiking residual networks: binary 3x3 convolutions, with real-valued currents on the shortcuts around them."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from bsojax.nn import (
    LIF,
    BatchNorm,
    BinaryConv,
    Conv,
    Dense,
    Scale,
    Spikes,
    as_spikes,
    global_avg_pool,
    halve,
    unit_scale,
)

NamedNorm = Callable[[jax.Array, str], jax.Array]
Stem = Callable[[Spikes | jax.Array, int, NamedNorm], jax.Array]


def imagenet_stem(x: Spikes | jax.Array, width: int, norm: NamedNorm) -> jax.Array:
    """Real 7x7 convolution of stride 2, norm and 2x2 average pooling: a quarter of the side; for large images."""
    current = Conv(width, (7, 7), strides=2, use_bias=False, name="stem_conv")(x)
    return as_spikes(halve(norm(current, "stem_norm"))).value


def cifar_stem(x: Spikes | jax.Array, width: int, norm: NamedNorm) -> jax.Array:
    """Real 3x3 convolution and norm: the side is unchanged; for images and event frames below about 64 pixels."""
    return norm(Conv(width, (3, 3), use_bias=False, name="stem_conv")(x), "stem_norm")


class SpikingResNet(nn.Module):
    """Binary 3x3 convolutions, each with a real-valued shortcut around it; returns one time step's logits.

    Use it for images and event frames of shape ``(batch, height, width, channels)`` where VGG is too shallow. A layer
    consists of neurons, a binary convolution and a norm, added to the real-valued current that the neurons read,
    because a sum of spikes would be neither binary for the next convolution nor more than a few levels for the
    shortcut. The current is computed anew at each time step and only neurons keep state, so binary weights see spikes
    with their traces, the gradient flows unhindered along the shortcuts, and none flows through time.

    The first convolution of each stage except the first halves the side (odd sides round up) and doubles the channels;
    its shortcut is a 2x2 average pooling, a real 1x1 convolution and a norm. Norms make biases unnecessary, except in
    the readout.

    The default is ResNet-18. For 1000 classes of 224 x 224 RGB images it has 10,985,472 binary weights, 704,040 real
    parameters (513,000 of them the readout's, 172,032 the shortcuts') and 9,600 statistics: 4,227,744 bytes with packed
    signs, 46,796,448 as float32. With cifar_stem and 10 classes it has 188,490 real parameters.

    Modules: "stem_conv", "stem_norm"; "stage_0_block_0_neuron_0", "..._conv_0", "..._norm_0", "..._conv_1", and so on;
    "stage_1_block_0_shortcut_conv", "..._shortcut_norm"; "readout_neuron", "readout".

    Attributes:
      num_classes: the number of logits.
      stages: the number of blocks, of two binary convolutions each, in every stage.
      width: the channels of the first stage.
      stem: computes the first current from the frame: imagenet_stem, cifar_stem, or a function of (x, width, norm) that
        returns an array of ``width`` channels; ``norm(current, name)`` is the model's norm.
      neuron: makes a neuron module, such as ``functools.partial(bsojax.LIF, tau=1.5)``.
      norm: makes a module called with (current, train, time_step). The default serves any number of time steps; where
        that is known, ``functools.partial(bsojax.BatchNorm, num_steps=4)`` is the better choice (see BatchNorm).
      scale: the factor on the current of each binary convolution; rsqrt_fan_in where the norm has no statistics.

    """

    num_classes: int = 1000
    stages: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    stem: Stem = imagenet_stem
    neuron: Callable[..., nn.Module] = LIF
    norm: Callable[..., nn.Module] = BatchNorm
    scale: Scale = unit_scale

    @nn.compact
    def __call__(
        self, x: Spikes | jax.Array, train: bool = False, time_step: int | jax.Array | None = None
    ) -> jax.Array:
        def norm(current: jax.Array, name: str) -> jax.Array:
            normalised: jax.Array = self.norm(name=name)(current, train, time_step)
            return normalised

        current = self.stem(x, self.width, norm)
        for stage, blocks in enumerate(self.stages):
            features = self.width * 2**stage
            for index in range(2 * blocks):
                block, layer = f"stage_{stage}_block_{index // 2}", index % 2
                strides = 2 if stage > 0 and index == 0 else 1
                spikes = self.neuron(name=f"{block}_neuron_{layer}")(current)
                conv = BinaryConv(features, (3, 3), strides=strides, scale=self.scale, name=f"{block}_conv_{layer}")
                branch = norm(conv(spikes), f"{block}_norm_{layer}")
                if strides == 2:
                    shortcut = Conv(features, (1, 1), use_bias=False, name=f"{block}_shortcut_conv")
                    current = norm(shortcut(halve(current)), f"{block}_shortcut_norm")
                current = current + branch
        x = global_avg_pool(self.neuron(name="readout_neuron")(current))
        return Dense(self.num_classes, name="readout")(x)
