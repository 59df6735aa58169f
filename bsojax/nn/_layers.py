"""Layers: synapses with binary or real weights. Each takes Spikes or an array."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax.nn import _synapses
from bsojax.nn._convolutions import conv, conv_transpose
from bsojax.nn._geometry import Padding
from bsojax.nn._spikes import Spikes, as_spikes

Scale = Callable[[int], float]


def unit_scale(fan_in: int) -> float:
    """Returns 1: the current is the plain sum of signed spikes. Use it where a norm follows."""
    del fan_in
    return 1.0


def rsqrt_fan_in(fan_in: int) -> float:
    """Returns ``1 / sqrt(fan_in)``: the current keeps the scale of the input. Use it where no norm follows."""
    return 1 / math.sqrt(fan_in)


class BinaryDense(nn.Module):
    """A fully connected layer whose weights are signs: ``scale(in) * value @ (+-1 kernel)``, without bias.

    Use it for ``(batch, ..., in)`` inputs, Spikes or an array; the gradient of the weights is taken at the input's
    trace.

    Variables: "kernel" in the collection "signs", boolean of shape ``(in, features)``, drawn as fair coin flips.
    ``apply`` also takes it as floating +1 and -1 (the form in which it is differentiated) and as PackedSigns.

    Example:
      >>> import jax, jax.numpy as jnp, bsojax
      >>> layer, x = bsojax.BinaryDense(3), jnp.ones((2, 5))
      >>> variables = layer.init(jax.random.key(0), x)
      >>> variables["signs"]["kernel"].dtype, layer.apply(variables, x).shape
      (dtype('bool'), (2, 3))

    Attributes:
      features: the number of output channels.
      scale: a function that maps the fan-in to the factor on the current: unit_scale or rsqrt_fan_in.

    Raises:
      TypeError: x is not floating.
      ValueError: the channels of x do not match the signs.
    """

    features: int
    scale: Scale = unit_scale

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        fan_in = _channels(self, x)
        kernel = _sign_kernel(self, (fan_in, self.features))
        return _scaled(_synapses.dense(x, kernel), self.scale(fan_in))


class BinaryConv(nn.Module):
    """A convolution in one, two or three dimensions whose weights are signs, without bias.

    Use it for ``(batch, *space, channels)`` inputs, Spikes or an array; the gradient of the weights is taken at the
    input's trace.

    Variables: "kernel" in the collection "signs", boolean of shape ``(*kernel_size, channels // groups, features)``.
    ``apply`` also takes it as floating +1 and -1 and as PackedSigns.

    Example:
      >>> import jax, jax.numpy as jnp, bsojax
      >>> layer, x = bsojax.BinaryConv(16, (3, 3), strides=2), jnp.ones((2, 8, 8, 3))
      >>> current, variables = layer.init_with_output(jax.random.key(0), x)
      >>> current.shape, variables["signs"]["kernel"].shape
      ((2, 4, 4, 16), (3, 3, 3, 16))

    Attributes:
      features: the number of output channels.
      kernel_size: the sides of the kernel, one for each dimension of space; an int is one dimension.
      strides, padding, kernel_dilation, feature_group_count: as in flax.linen.Conv.
      scale: a function that maps the fan-in to the factor on the current: unit_scale or rsqrt_fan_in.

    Raises:
      TypeError: x is not floating.
      ValueError: the channels of x do not match the signs, or the kernel does not fit into the padded image.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    feature_group_count: int = 1
    scale: Scale = unit_scale

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        shape = _kernel_shape(self, x)
        current = _convolved(self, x, _sign_kernel(self, shape))
        return _scaled(current, self.scale(math.prod(shape[:-1])))


class BinaryConvTranspose(nn.Module):
    """A transposed convolution whose weights are signs, without bias: images become ``strides`` times larger.

    Use it in decoders. Input as in BinaryConv.

    Variables: "kernel" in the collection "signs", boolean of shape ``(*kernel_size, channels, features)``. ``apply``
    also takes it as floating +1 and -1 and as PackedSigns.

    Attributes:
      features: the number of output channels.
      kernel_size: the sides of the kernel, one for each dimension of space; an int is one dimension.
      strides, padding, kernel_dilation: as in flax.linen.ConvTranspose.
      scale: a function of the fan-in, here the mean number of inputs that an output sees: unit_scale or rsqrt_fan_in.

    Raises:
      TypeError, ValueError: as BinaryConv.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    scale: Scale = unit_scale

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        sides = _sides(self)
        shape = (*sides, _channels(self, x), self.features)
        kernel = _sign_kernel(self, shape)
        current = conv_transpose(x, kernel, self.strides, self.padding, self.kernel_dilation)
        spread = self.strides ** len(sides) if isinstance(self.strides, int) else math.prod(self.strides)
        return _scaled(current, self.scale(max(1, math.prod(shape[:-1]) // spread)))


class BinarySeparableConv(nn.Module):
    """A binary convolution of each channel separately, followed by a binary mixture of the channels, without bias.

    Use it instead of BinaryConv to save weights: it has channels times kernel plus channels times features of them, not
    the product of all three. There is no neuron between the two parts; the mixture's gradient is taken at the trace
    that the first convolution produces. Input as in BinaryConv.

    Modules: "depthwise", a BinaryConv with as many groups as channels, and "pointwise", a BinaryDense.

    Attributes:
      features: the number of output channels.
      kernel_size: the sides of the kernel, one for each dimension of space; an int is one dimension.
      strides, padding, kernel_dilation: as in flax.linen.Conv.
      scale: a function that maps the fan-in of each part to the factor on its current.

    Raises:
      TypeError, ValueError: as BinaryConv.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    scale: Scale = unit_scale

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        channels, spikes = _channels(self, x), as_spikes(x)
        window = self.strides, self.padding, self.kernel_dilation
        depthwise = BinaryConv(channels, self.kernel_size, *window, channels, self.scale, name="depthwise")
        value = depthwise(spikes)
        trace = None if spikes.trace is None else jax.lax.stop_gradient(depthwise(spikes.trace))
        return BinaryDense(self.features, self.scale, name="pointwise")(Spikes(value, trace))


class Dense(nn.Module):
    """A fully connected layer with real weights; for readouts and first layers. Input as in BinaryDense.

    Variables, in the collection "params": "kernel" of shape ``(in, features)`` and "bias", float32.

    Attributes:
      features: the number of output channels.
      use_bias: whether to add a bias.
      kernel_init: initialiser of the kernel.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        fan_in = _channels(self, x)
        kernel = self.param("kernel", self.kernel_init, (fan_in, self.features), jnp.float32)
        return _biased(self, _synapses.dense(x, kernel))


class Conv(nn.Module):
    """A convolution with real weights; for first layers and shortcuts. Input as in BinaryConv.

    Variables, in the collection "params": "kernel" of shape ``(*kernel_size, channels // groups, features)`` and
    "bias", float32.

    Attributes:
      features: the number of output channels.
      kernel_size: the sides of the kernel, one for each dimension of space; an int is one dimension.
      strides, padding, kernel_dilation, feature_group_count: as in flax.linen.Conv.
      use_bias: whether to add a bias.
      kernel_init: initialiser of the kernel.

    Raises:
      TypeError, ValueError: as BinaryConv.
    """

    features: int
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    feature_group_count: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, _kernel_shape(self, x), jnp.float32)
        return _biased(self, _convolved(self, x, kernel))


def _sign_kernel(module: nn.Module, shape: tuple[int, ...]) -> Any:
    """The signs of a layer, in whatever form they are held."""
    variable = module.variable("signs", "kernel", lambda: jax.random.bernoulli(module.make_rng("params"), shape=shape))
    _validate.kernel_shape(f"'{module.name}'", variable.value.shape, shape)
    return variable.value


def _channels(module: nn.Module, x: Spikes | jax.Array) -> int:
    value = as_spikes(x).value
    _validate.floating("x", value, f"'{module.name}'")
    return int(value.shape[-1])


def _kernel_shape(module: Any, x: Spikes | jax.Array) -> tuple[int, ...]:
    return (*_sides(module), _channels(module, x) // module.feature_group_count, module.features)


def _sides(module: Any) -> tuple[int, ...]:
    return (module.kernel_size,) if isinstance(module.kernel_size, int) else tuple(module.kernel_size)


def _convolved(module: Any, x: Spikes | jax.Array, kernel: Any) -> jax.Array:
    window = module.strides, module.padding, module.kernel_dilation, module.feature_group_count
    return conv(x, kernel, *window)


def _scaled(current: jax.Array, scale: float) -> jax.Array:
    return current if isinstance(scale, float) and scale == 1 else current * scale


def _biased(module: Any, current: jax.Array) -> jax.Array:
    if not module.use_bias:
        return current
    bias = module.param("bias", nn.initializers.zeros, (module.features,), jnp.float32)
    biased: jax.Array = current + bias.astype(current.dtype).reshape((1,) * (current.ndim - 1) + bias.shape)
    return biased
