"""How each layer of the library is represented in a graph."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import numpy as np

from bsojax import _validate, nn
from bsojax.deploy._graph import AnyPool, Flatten, Neurons, Shape, SumPool, Synapse, Window
from bsojax.deploy._marks import Call
from bsojax.deploy._values import Builder, Value

Rule = Callable[[Builder, Call, Value], Value]


def image(shape: tuple[int, ...]) -> Shape:
    """The shape of an example as an image; a vector is one element, a signal one row."""
    if len(shape) > 3:
        _validate.not_deployable("x", f"it has shape {shape}, and volumes are not known")
    *space, channels = shape or (1,)
    high, wide = (1,) * (2 - len(space)) + tuple(space)
    return high, wide, channels


def _conv(builder: Builder, call: Call, value: Value) -> Value:
    given, kernel = call.attributes, _kernel(builder, call)
    shape, sides = builder.shape(value), kernel.shape[:-2]
    if len(sides) > 2:
        _validate.not_deployable(f"'{call.name}'", "convolutions of volumes are not known")
    space = shape[2 - len(sides) : 2]
    geometry = nn.conv_geometry(
        (1, *space, shape[-1]),
        sides,
        given["strides"],
        given["padding"],
        given["kernel_dilation"],
        given["feature_group_count"],
    )
    before, after = zip(*geometry.padding, strict=True)
    reach = ((side - 1) * spacing for side, spacing in zip(sides, geometry.dilation, strict=True))
    out = [
        (side + front + back - far - 1) // step + 1
        for side, front, back, far, step in zip(space, before, after, reach, geometry.strides, strict=True)
    ]
    window = Window(_two(geometry.strides, 1), _two(geometry.dilation, 1), _two(before, 0))
    image_kernel = kernel.reshape((1,) * (2 - len(sides)) + kernel.shape)
    return _synapse(
        builder, call, value, image_kernel, window, given["feature_group_count"], (*_two(out, 1), kernel.shape[-1])
    )


def _dense(builder: Builder, call: Call, value: Value) -> Value:
    kernel, node = _kernel(builder, call), builder.node(value)
    high, wide, _ = builder.shape(value)
    if isinstance(node, Flatten) and value.is_uniform:
        # A vector of an image: a convolution with one window, over maps that keep their form.
        unflat = Value(node.source, value.gain[:, :1], value.shift[:, :1])
        shape = builder.shape(unflat)
        return _synapse(builder, call, unflat, kernel.reshape(*shape, -1), Window(), 1, (1, 1, kernel.shape[-1]))
    return _synapse(
        builder, call, value, kernel.reshape(1, 1, *kernel.shape), Window(), 1, (high, wide, kernel.shape[-1])
    )


def _synapse(
    builder: Builder, call: Call, value: Value, kernel: np.ndarray, window: Window, groups: int, shape: Shape
) -> Value:
    """A synapse over a map, or over a current where its input is not a map times a number, or has too many bits."""
    is_read = value.is_uniform and not builder.holds_many_bits(value)
    read = value if is_read else builder.current(value, f"{builder.name(value)} as a current")
    made = builder.append(Synapse(read.place, call.name, kernel, window, groups, shape))
    scale, given = 1.0, call.attributes
    if "scale" in given:
        scale = given["scale"](math.prod(kernel.shape[:-1]))
    bias = builder.leaf(call, "params/bias") if given.get("use_bias") else 0.0
    return builder.affine(builder.affine(made, read.gain[:, :1] * scale, 0.0), 1.0, bias)


def _kernel(builder: Builder, call: Call) -> np.ndarray:
    kernel = builder.leaf(call, next(name for name in call.leaves if name.endswith("/kernel")))
    return kernel if kernel.dtype == np.bool_ else kernel.astype(np.float64)


def _norm(builder: Builder, call: Call, value: Value) -> Value:
    mean, var = (builder.leaf(call, f"batch_stats/{name}").astype(np.float64) for name in ("mean", "var"))
    steps = call.attributes["num_steps"]
    if steps is not None:
        mean, var = mean[: builder.num_steps], var[: builder.num_steps]
        if len(mean) < builder.num_steps:
            _validate.not_deployable(
                f"'{call.name}'", f"it has statistics for {steps} of {builder.num_steps} time steps"
            )
    with np.errstate(invalid="ignore", divide="ignore"):  # what is not finite is refused
        gain = builder.leaf(call, "params/scale") / np.sqrt(var + call.attributes["epsilon"])
    return builder.affine(value, gain, builder.leaf(call, "params/bias") - mean * gain)


def _affine(builder: Builder, call: Call, value: Value) -> Value:
    return builder.affine(value, builder.leaf(call, "params/scale"), builder.leaf(call, "params/bias"))


def _avg_pool(builder: Builder, call: Call, value: Value) -> Value:
    return _summed(builder, call, value, call.attributes["window"], False)


def _halve(builder: Builder, call: Call, value: Value) -> Value:
    return _summed(builder, call, value, 2, True)


def _global_avg_pool(builder: Builder, call: Call, value: Value) -> Value:
    high, wide, _ = builder.shape(value)
    return _summed(builder, call, value, (high, wide), False)


def _summed(builder: Builder, call: Call, value: Value, window: Any, repeats_edge: bool) -> Value:
    value = builder.narrow(value)
    window, (high, wide, channels) = _sides(window, builder.shape(value)), builder.shape(value)

    def up(side: int, size: int) -> int:
        return -(-side // size) if repeats_edge else side // size

    shape = up(high, window[0]), up(wide, window[1]), channels
    pool = SumPool(value.place, f"{call.name} of '{builder.name(value)}'", window, shape, repeats_edge)
    return Value(builder.append(pool).place, value.gain / math.prod(window), value.shift)


def _max_pool(builder: Builder, call: Call, value: Value) -> Value:
    if not builder.holds_spikes(value):
        _validate.not_deployable(
            f"max_pool after '{builder.name(value)}'", "it reads no spikes; put it behind the neurons, or use avg_pool"
        )
    sides, (high, wide, channels) = _sides(call.attributes["window"], builder.shape(value)), builder.shape(value)
    shape = high // sides[0], wide // sides[1], channels
    return builder.append(AnyPool(value.place, f"{call.name} of '{builder.name(value)}'", sides, shape))


def _sides(window: Any, shape: Shape) -> tuple[int, int]:
    """The rows and columns of a pooling window; a signal has one row."""
    rows, columns = _two((window,) * 2 if isinstance(window, int) else window, 1)
    return (rows if shape[0] > 1 else 1), (columns if shape[1] > 1 else 1)


def _flatten(builder: Builder, call: Call, value: Value) -> Value:
    return builder.flatten(value, call.name)


def _neurons(builder: Builder, call: Call, value: Value) -> Value:
    given, owner = call.attributes, f"'{call.name}'"
    if given.get("refractory_steps"):
        _validate.not_deployable(owner, "its neurons have refractory_steps; deploy neurons without them")
    if any(isinstance(node, Neurons) and node.name == call.name for node in builder.nodes):
        _validate.not_deployable(owner, "it is called twice in a time step; give each call neurons of its own")
    if call.kind is nn.PLIF:
        leak = 1 / (1 + math.exp(-float(builder.leaf(call, "params/w"))))
    else:
        leak = 1 / _one(call, "tau") if call.kind is nn.LIF else 0.0
    rest = given["v_reset"]
    threshold = np.asarray(given["v_threshold"], np.float64) - np.asarray(0.0 if rest is None else rest, np.float64)
    if np.any(threshold <= 0):
        _validate.not_deployable(owner, f"its v_reset {rest} is not below its threshold, so that it always fires")
    value = builder.affine(value, leak, 0.0) if given.get("decay_input") else value
    if np.ptp(threshold) == 0:
        level, value = _in_its_units(float(threshold.reshape(-1)[0]), value)
    else:
        # Neurons with different thresholds become neurons of threshold 1 with different currents.
        level, value = 1.0, builder.affine(value, 1 / _a_channel(owner, threshold, builder.shape(value)[-1]), 0.0)
    read = builder.current(value, f"current of {owner}")
    return builder.append(
        Neurons(read.place, call.name, 1 - leak, level, rest is not None, builder.shape(read), call.shape)
    )


def _in_its_units(level: float, value: Value) -> tuple[float, Value]:
    """Returns a threshold and a current, both divided by the current's gain where that is one number.

    A sum of spikes times a gain such as 1/24 that meets the threshold exactly then also does so in whole numbers.
    """
    gain = float(value.gain[0, 0])
    serves = np.all(value.gain == gain) and not np.any(value.shift) and gain > 0
    return (level / gain, Value(value.place)) if serves and 1 <= level / gain <= 2**20 else (level, value)


def _a_channel(owner: str, threshold: np.ndarray, channels: int) -> np.ndarray:
    """Thresholds as one per channel."""
    rows = threshold.reshape(-1, threshold.shape[-1])
    if rows.shape[1] != channels or np.any(rows != rows[0]):
        _validate.not_deployable(owner, "its thresholds differ in space; give one per channel")
    return rows[:1]


def _one(call: Call, name: str) -> float:
    """A constant that all neurons share."""
    value = np.asarray(call.attributes[name], np.float64)
    if np.ptp(value) != 0:
        _validate.not_deployable(f"'{call.name}'", f"its neurons differ in {name}; give the layer one {name}")
    return float(value.reshape(-1)[0])


def _unchanged(builder: Builder, call: Call, value: Value) -> Value:
    return value


def _two(numbers: Any, fill: int) -> tuple[int, int]:
    """One or two numbers as two: of rows and of columns."""
    first, second = (fill,) * (2 - len(tuple(numbers))) + tuple(int(number) for number in numbers)
    return first, second


RULES: dict[Any, Rule] = {
    nn.BinaryConv: _conv,
    nn.BinaryDense: _dense,
    nn.Conv: _conv,
    nn.Dense: _dense,
    nn.BatchNorm: _norm,
    nn.BatchRenorm: _norm,
    nn.Affine: _affine,
    nn.LIF: _neurons,
    nn.IF: _neurons,
    nn.PLIF: _neurons,
    nn.SpikingDropout: _unchanged,
    nn.avg_pool: _avg_pool,
    nn.halve: _halve,
    nn.global_avg_pool: _global_avg_pool,
    nn.max_pool: _max_pool,
    nn.flatten: _flatten,
}
"""The rules, by class or function."""

DERIVED = "it derives from a known layer, and may behave differently: use that layer itself"

NOT_KNOWN: dict[tuple[type, ...], str] = {
    (nn.LeakyReadout,): "return the current that it reads: logits are summed over the time steps",
    (nn.LIF, nn.IF, nn.PLIF): DERIVED,
    (nn.Neuron,): "LIF, IF and PLIF are",
    (nn.BinaryRecurrent,): "nothing recurrent is; LIF(tau=8), which leaks slowly, remembers long sequences too",
    (nn.BinaryConvTranspose, linen.ConvTranspose): "BinaryConv and Conv are",
    (nn.BinaryConv, nn.BinaryDense, nn.Conv, nn.Dense): DERIVED,
    (linen.Dense, linen.DenseGeneral, linen.Einsum): "bsojax.Dense is",
    (linen.Conv, linen.ConvLocal): "bsojax.Conv is",
    (linen.LayerNorm, linen.GroupNorm, linen.RMSNorm, linen.InstanceNorm): "BatchNorm and Affine are",
}
"""What to do about layers without a rule, by their class or a base class."""
