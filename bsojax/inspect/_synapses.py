"""How many weights each input of a layer reaches, the basis for counting operations."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bsojax.nn import (
    RECORDINGS,
    BinaryConv,
    BinaryConvTranspose,
    BinaryDense,
    Conv,
    Dense,
    Spikes,
    as_spikes,
    conv_geometry,
    transposed_geometry,
)
from bsojax.xla_cpu import ConvGeometry

SYNAPSES = (BinaryConv, BinaryConvTranspose, BinaryDense, Conv, Dense)
"""The layers whose operations are counted; separable and recurrent ones consist of them."""

EVENTS = "synapse_inputs"
"""The name under which a layer's inputs are reported, in the collection "recordings"."""

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Synapse:
    """A call of a layer, as counted.

    Attributes:
      fan_out: how many weights an input reaches, int64 by its place in space; the same for all channels.
      channels: the number of channels of the input.
      is_binary: whether the weights are signs.
      takes_spikes: whether the input is Spikes, so that zeros cost nothing.
    """

    fan_out: np.ndarray
    channels: int
    is_binary: bool
    takes_spikes: bool

    @property
    def connections(self) -> int:
        """Products of an input and a weight, for one example at one time step."""
        return int(self.fan_out.sum()) * self.channels


def synapse_of(module: Any, x: Spikes | jax.Array) -> Synapse:
    """Returns the counts of a layer that is called with x."""
    shape = as_spikes(x).shape
    is_binary = not isinstance(module, Conv | Dense)
    return Synapse(_fan_out(module, shape), shape[-1], is_binary, isinstance(x, Spikes))


def observed(synapses: dict[Path, list[Synapse]]) -> Any:
    """A context that records calls of layers while a model is initialised, and their inputs while it is applied."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if isinstance(module, SYNAPSES) and context.method_name == "__call__" and module.scope is not None:
            x = args[0] if args else kwargs["x"]
            if module.is_initializing():
                synapses.setdefault(module.path, []).append(synapse_of(module, x))
            else:
                module.sow(RECORDINGS, EVENTS, _events(as_spikes(x).value))
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


def _events(value: jax.Array) -> dict[str, jax.Array]:
    """Returns how many inputs of a batch are not zero, how many neither zero nor one, int32 by place in space."""
    axes = (0, value.ndim - 1)
    some = value != 0
    return {"some": jnp.sum(some, axes), "other": jnp.sum(some & (value != 1), axes)}


def _fan_out(module: Any, shape: Sequence[int]) -> np.ndarray:
    """Returns how many weights an input of a layer reaches, by its place in space."""
    space = tuple(shape[1:-1])
    if isinstance(module, BinaryDense | Dense):
        return np.full(space, module.features, np.int64)
    sides = (module.kernel_size,) if isinstance(module.kernel_size, int) else tuple(module.kernel_size)
    window = module.strides, module.padding, module.kernel_dilation
    if isinstance(module, BinaryConvTranspose):
        geometry, larger = transposed_geometry(shape, sides, *window)
        seen = [np.array([len(at) for at in places]) for places in _places(geometry, sides, larger, space)]
    else:
        geometry = conv_geometry(shape, sides, *window, module.feature_group_count)
        result = _result(geometry, sides, space)
        seen = [
            np.bincount(np.concatenate(places), minlength=size)
            for places, size in zip(_places(geometry, sides, space, result), space, strict=True)
        ]
    counts: np.ndarray = np.ones((), np.int64)
    for along in seen:
        counts = counts[..., None] * along
    return np.asarray(counts * (module.features // geometry.groups))


def _result(geometry: ConvGeometry, sides: Sequence[int], space: Sequence[int]) -> list[int]:
    reach = [(size - 1) * spacing for size, spacing in zip(sides, geometry.dilation, strict=True)]
    # As many steps as the window takes to reach the end of the padded space.
    return [
        (size + sum(pads) - far - 1) // step + 1
        for size, pads, far, step in zip(space, geometry.padding, reach, geometry.strides, strict=True)
    ]


def _places(
    geometry: ConvGeometry, sides: Sequence[int], space: Sequence[int], result: Sequence[int]
) -> Iterator[list[np.ndarray]]:
    """Returns, for each dimension, the inputs within space that each output of a convolution sees."""
    for size, (before, _), step, spacing, inputs, outputs in zip(
        sides, geometry.padding, geometry.strides, geometry.dilation, space, result, strict=True
    ):
        seen = [place * step - before + np.arange(size) * spacing for place in range(outputs)]
        yield [at[(at >= 0) & (at < inputs)] for at in seen]
