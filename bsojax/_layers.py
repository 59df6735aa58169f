"""Layers: synapses with binary or real weights, and pooling. Each takes Spikes or an array."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bsojax import _synapses
from bsojax._geometry import ConvGeometry, Padding, conv_geometry
from bsojax._kinds import LARGEST, as_real, check_bool, check_callable, check_floating, check_positive_int, is_int
from bsojax._packing import PackedSigns, is_sign
from bsojax._signs import SignKernel, to_weights
from bsojax._spikes import Spikes, as_spikes, check_spikes, map_spikes

Scale = Callable[[int], float]


def unit_scale(fan_in: int) -> float:
    """Returns 1: the current is the plain sum of signed spikes. Use it where a norm follows.

    Raises:
      TypeError, ValueError: fan_in is no positive int.
    """
    check_positive_int("fan_in", fan_in)
    return 1.0


def rsqrt_fan_in(fan_in: int) -> float:
    """Returns ``1 / sqrt(fan_in)``: the current keeps the size of the input. Use it where no norm follows.

    Raises:
      TypeError, ValueError: fan_in is no positive int.
    """
    check_positive_int("fan_in", fan_in)
    return 1 / math.sqrt(fan_in)


class BinaryDense(nn.Module):
    """A fully connected layer whose weights are signs: ``scale(in) * value @ (+-1 kernel)``, without bias.

    Use it for ``(batch, ..., in)`` inputs; Spikes or an array, whose gradient for the weights is taken at the trace.

    Variables: "kernel" in the collection "signs", boolean of shape ``(in, features)``, drawn as fair coins. ``apply``
    also takes it as floating +1 and -1 (that is how it is differentiated) and as PackedSigns.

    Attributes:
      features: the number of output channels.
      scale: a function of the fan-in that gives the factor on the current: unit_scale or rsqrt_fan_in.

    Raises:
      TypeError: an attribute is not of its kind, or x is not floating.
      ValueError: features < 1, x has no channel axis, or its channels do not fit the kernel.
    """

    features: int
    scale: Scale = unit_scale

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        fan_in = _check_input(self, x)
        kernel = _sign_kernel(self, (fan_in, self.features), as_spikes(x).value.dtype)
        return _scaled(_synapses.dense(x, kernel), _factor(self, fan_in))


class BinaryConv(nn.Module):
    """A two-dimensional convolution whose weights are signs, without bias.

    Use it for ``(batch, height, width, channels)`` inputs; Spikes or an array, whose gradient for the weights is taken
    at the trace.

    Variables: "kernel" in the collection "signs", boolean of shape ``(*kernel_size, channels // groups, features)``.
    ``apply`` also takes it as floating +1 and -1 and as PackedSigns.

    Attributes:
      features: the number of output channels.
      kernel_size: height and width of the kernel.
      strides, padding, kernel_dilation, feature_group_count: as in flax.linen.Conv.
      scale: a function of the fan-in that gives the factor on the current: unit_scale or rsqrt_fan_in.

    Raises:
      TypeError: an attribute is not of its kind, or x is not floating.
      ValueError: an attribute is out of range, or x is not four-dimensional.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    feature_group_count: int = 1
    scale: Scale = unit_scale

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        shape, geometry = _conv_shapes(self, x)
        kernel = _sign_kernel(self, shape, as_spikes(x).value.dtype)
        return _scaled(_synapses.conv(x, kernel, geometry), _factor(self, math.prod(shape[:-1])))


class Dense(nn.Module):
    """A fully connected layer with real weights; for readouts and first layers. Input as in BinaryDense.

    Variables, in the collection "params": "kernel" of shape ``(in, features)`` and "bias", float32.

    Attributes:
      features: the number of output channels.
      use_bias: whether to add a bias.
      kernel_init: initialiser of the kernel.

    Raises:
      TypeError, ValueError: as BinaryDense.
    """

    features: int
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        fan_in = _check_input(self, x)
        check_callable("kernel_init", self.kernel_init, f"'{self.name}'")
        kernel = self.param("kernel", self.kernel_init, (fan_in, self.features), jnp.float32)
        return _biased(self, _synapses.dense(x, kernel))


class Conv(nn.Module):
    """A two-dimensional convolution with real weights; for first layers and shortcuts. Input as in BinaryConv.

    Variables, in the collection "params": "kernel" of shape ``(*kernel_size, channels // groups, features)`` and
    "bias", float32.

    Attributes:
      features: the number of output channels.
      kernel_size: height and width of the kernel.
      strides, padding, kernel_dilation, feature_group_count: as in flax.linen.Conv.
      use_bias: whether to add a bias.
      kernel_init: initialiser of the kernel.

    Raises:
      TypeError, ValueError: as BinaryConv.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    feature_group_count: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Spikes | jax.Array) -> jax.Array:
        shape, geometry = _conv_shapes(self, x)
        check_callable("kernel_init", self.kernel_init, f"'{self.name}'")
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return _biased(self, _synapses.conv(x, kernel, geometry))


def avg_pool(x: Spikes | jax.Array, window: int | tuple[int, int]) -> Spikes | jax.Array:
    """Averages value and trace over windows that do not overlap; a rest at the lower and right edge is dropped.

    Args:
      x: Spikes or an array of shape ``(batch, height, width, channels)``.
      window: height and width of a window, or an int for both.

    Raises:
      TypeError: x is no array, or window neither an int nor two.
      ValueError: the window is larger than the image, or x is not four-dimensional.
    """
    sides = (window, window) if is_int(window) else window
    if not isinstance(sides, tuple | list) or len(sides) != 2:
        raise TypeError(f"window: needs an int, or two for height and width, not {window!r}.")
    for side in sides:
        check_positive_int("window", side)
    high, wide = sides

    def pool(image: jax.Array) -> jax.Array:
        if image.ndim != 4 or not (1 <= high <= image.shape[1] and 1 <= wide <= image.shape[2]):
            raise ValueError(f"window: cannot pool an image of shape {image.shape} by {(high, wide)}.")
        batch, height, width, channels = image.shape
        rows, columns = height // high, width // wide
        tiles = image[:, : rows * high, : columns * wide].reshape(batch, rows, high, columns, wide, channels)
        return tiles.mean((2, 4))

    return map_spikes(pool, x)


def global_avg_pool(x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Averages value and trace over height and width: ``(batch, height, width, channels)`` to ``(batch, channels)``.

    Raises:
      TypeError: x is no array.
      ValueError: x is not four-dimensional.
    """

    def pool(image: jax.Array) -> jax.Array:
        if image.ndim != 4:
            raise ValueError(f"x: needs images of shape (batch, height, width, channels), got shape {image.shape}.")
        return image.mean((1, 2))

    return map_spikes(pool, x)


def flatten(x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Ravels all axes but the batch, of value and trace alike.

    Raises:
      TypeError: x is no array.
      ValueError: x is a scalar.
    """

    def ravel(value: jax.Array) -> jax.Array:
        if value.ndim < 1:
            raise ValueError("x: needs a batch axis first, got a scalar.")
        return value.reshape(value.shape[0], math.prod(value.shape[1:]))

    return map_spikes(ravel, x)


def _sign_kernel(module: nn.Module, shape: tuple[int, ...], dtype: Any) -> jax.Array | SignKernel:
    variable = module.variable("signs", "kernel", lambda: jax.random.bernoulli(module.make_rng("params"), shape=shape))
    kernel = variable.value
    if not isinstance(kernel, SignKernel | PackedSigns | jax.Array | np.ndarray):
        raise TypeError(f"signs: '{module.name}' needs an array for its kernel, not {kernel!r}.")
    held = kernel.packed.shape if isinstance(kernel, SignKernel) else kernel.shape
    if held != shape:
        raise ValueError(f"x: '{module.name}' holds signs of shape {held}, but this input needs {shape}.")
    if isinstance(kernel, SignKernel):
        return kernel
    return to_weights(kernel, dtype) if is_sign(kernel) or isinstance(kernel, PackedSigns) else kernel.astype(dtype)


def _check_input(module: Any, x: Spikes | jax.Array) -> int:
    value = check_spikes("x", x).value
    check_positive_int("features", module.features, f"'{module.name}'")
    if value.ndim < 2:
        raise ValueError(f"x: '{module.name}' needs a batch axis first and channels last, got shape {value.shape}.")
    check_floating("x", value, f"'{module.name}'")
    return int(value.shape[-1])


def _conv_shapes(module: Any, x: Spikes | jax.Array) -> tuple[tuple[int, ...], ConvGeometry]:
    channels = _check_input(module, x)
    groups = module.feature_group_count
    geometry = conv_geometry(
        as_spikes(x).value.shape, module.kernel_size, module.strides, module.padding, module.kernel_dilation, groups
    )
    if module.features % groups:
        raise ValueError(f"features: '{module.name}' has {module.features} features, not divisible by {groups} groups.")
    return (*module.kernel_size, channels // groups, module.features), geometry


def _factor(module: Any, fan_in: int) -> Any:
    check_callable("scale", module.scale, f"'{module.name}'")
    return as_real("scale", module.scale(fan_in), -LARGEST, LARGEST, f"'{module.name}'")


def _scaled(current: jax.Array, scale: Any) -> jax.Array:
    return current if isinstance(scale, float) and scale == 1 else current * scale


def _biased(module: Any, current: jax.Array) -> jax.Array:
    check_bool("use_bias", module.use_bias, f"'{module.name}'")
    if not module.use_bias:
        return current
    bias = module.param("bias", nn.initializers.zeros, (module.features,), jnp.float32)
    return current + bias.astype(current.dtype).reshape((1,) * (current.ndim - 1) + bias.shape)
