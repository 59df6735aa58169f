"""The stored momentum, in 32, 16 or 8 bits per weight: one object defines how a leaf is kept and updated."""

import abc
import dataclasses
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax.optim._dither import dither, uniform
from bsojax.optim._flips import moving_average
from bsojax.xla_cpu import not_before

_ROOM = 1.1  # a new scale relative to the largest momentum of its channel
_SMALLEST, _LARGEST = 2.0**-90, 2.0**90  # within these, no product or quotient of scale and L**2 leaves float32


@flax.struct.dataclass
class IntegerMomentum:
    """The momentum of a layer as integers with one scale per output channel; a pytree.

    With L the largest integer of the dtype, 127 or 32767, a value v stands for ``scale * v * abs(v) / L**2``: levels
    are closest around zero, where signs flip, and one large weight in a channel costs the others little precision. A
    channel whose largest momentum is below 8e-28 counts as zero; gradients larger than 1e27 count as 1e27.

    Attributes:
      values: int8 or int16, of the shape of the signs.
      scale: float32, the largest momentum that the integers of a channel can hold, of shape ``(channels,)`` for the
        last axis of the signs; a scalar where they have fewer than two axes.
    """

    values: jax.Array
    scale: jax.Array

    def to_float(self) -> jax.Array:
        """Returns the momentum as float32, in the shape of the signs."""
        values = jnp.asarray(self.values)  # a restored state may hold NumPy arrays
        limit = float(jnp.iinfo(values.dtype).max)
        return _over_channels(jnp.asarray(self.scale), values.ndim) * (_square(values).astype(jnp.float32) / limit**2)


class Momentum(abc.ABC):
    """How the momentum of one layer is stored between updates.

    Use it as ``momentum_dtype`` of bso and t_bso; to add a kind of your own, write a class with these methods. Leaves
    of the state may be trees of arrays.
    """

    @abc.abstractmethod
    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Returns a momentum of zero for signs of the given shape."""

    @abc.abstractmethod
    def advance(
        self, leaf: Any, gradient: jax.Array, decay: float | jax.Array, number: int, count: jax.Array
    ) -> tuple[Any, jax.Array]:
        """Returns the moving average after a gradient as a pair: as it is stored, and in float32 before rounding.

        Args:
          leaf: the momentum as stored.
          gradient: floating, of the shape of the signs.
          decay: b1.
          number: the place of the leaf in its tree, so that leaves are rounded independently.
          count: int32 scalar, the number of updates before this one.
        """

    def zero_where(self, mask: jax.Array, leaf: Any) -> Any:
        """Returns the momentum with zeros where the mask is True; for leaves that are arrays of the signs' shape."""
        return jnp.where(mask, 0, leaf)


@dataclasses.dataclass(frozen=True)
class Float32(Momentum):
    """The momentum as float32: 32 bits per weight, and exact."""

    def zeros(self, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros(shape, jnp.float32)

    def advance(
        self, leaf: jax.Array, gradient: jax.Array, decay: float | jax.Array, number: int, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        del number, count
        average = moving_average(leaf, gradient, decay)
        return average, average


@dataclasses.dataclass(frozen=True)
class BFloat16(Momentum):
    """The momentum as bfloat16, rounded stochastically without bias; prefer Integers("int16"), which is more exact.

    Attributes:
      seed: the seed of the rounding, in 0 .. 2^32 - 1.
    """

    seed: int | jax.Array = 0

    def zeros(self, shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros(shape, jnp.bfloat16)

    def advance(
        self, leaf: jax.Array, gradient: jax.Array, decay: float | jax.Array, number: int, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        average = moving_average(leaf.astype(jnp.float32), gradient, decay)
        return _to_bfloat16(average, dither(leaf.shape, number, count, self.seed)), average


@dataclasses.dataclass(frozen=True)
class Integers(Momentum):
    """The momentum as :class:`IntegerMomentum`: 8 or 16 bits per weight, one scale per channel, rounded without bias.

    Attributes:
      dtype: "int8" or "int16".
      seed: the seed of the rounding, in 0 .. 2^32 - 1.
    """

    dtype: str = "int8"
    seed: int | jax.Array = 0

    def zeros(self, shape: tuple[int, ...]) -> IntegerMomentum:
        return IntegerMomentum(jnp.zeros(shape, self.dtype), jnp.zeros(shape[-1:] if len(shape) > 1 else ()))

    def advance(
        self, leaf: IntegerMomentum, gradient: jax.Array, decay: float | jax.Array, number: int, count: jax.Array
    ) -> tuple[IntegerMomentum, jax.Array]:
        return _advance_integers(leaf, gradient, decay, dither(leaf.values.shape, number, count, self.seed))

    def zero_where(self, mask: jax.Array, leaf: IntegerMomentum) -> IntegerMomentum:
        return dataclasses.replace(leaf, values=jnp.where(mask, 0, leaf.values))


def as_momentum(kind: Momentum | chex.ArrayDType, seed: int | jax.Array) -> Momentum:
    """Returns a kind of momentum, which may be given by the name of a dtype."""
    if isinstance(kind, Momentum):
        _validate.no_seed(seed)
        return kind
    kinds = {"float32": Float32(), "bfloat16": BFloat16(seed)}
    kinds |= {name: Integers(name, seed) for name in ("int16", "int8")}
    return kinds[_validate.one_of("momentum_dtype", jnp.dtype(kind).name, kinds)]


def zero_momentum(kind: Momentum, signs: optax.Params) -> optax.Updates:
    """Returns a tree like the signs with momenta of zero; never in the dtype of the signs, which may be boolean."""
    return jax.tree.map(lambda leaf: kind.zeros(jnp.shape(leaf)), signs)


def advance(
    kind: Momentum,
    momentum: optax.Updates,
    grads: optax.Updates,
    decay: float | jax.Array,
    keep: jax.Array,
    count: jax.Array,
) -> tuple[optax.Updates, optax.Updates]:
    """Returns the momentum after a gradient as a pair: as it is stored, and in float32 before rounding.

    Decide flips by the second: it contains the gradient in full, and costs nothing, since it is the value that is
    rounded.

    Args:
      kind: how it is stored.
      momentum: tree of momenta as kind stores them.
      grads: tree of floating gradients.
      decay: b1.
      keep: boolean scalar; where False the stored momentum is the old one, bit for bit.
      count: int32 scalar, the number of updates before this one.
    """
    structure: Any = jax.tree.structure(grads)
    old = jax.tree.map(jnp.asarray, structure.flatten_up_to(momentum))  # a restored state may hold NumPy arrays
    pairs = []
    for number, (leaf, gradient) in enumerate(zip(old, jax.tree.leaves(grads), strict=True)):

        def advanced(leaf: Any, gradient: jax.Array, count: jax.Array, number: int = number) -> tuple[Any, jax.Array]:
            return kind.advance(leaf, gradient, decay, number, count)

        # One layer at a time, once all gradients are there, so that the old momentum is soon released.
        new, exact = not_before(keep, advanced, leaf, gradient, count)
        pairs.append((jax.tree.map(lambda after, before: jnp.where(keep, after, before), new, leaf), exact))
    stored, exact = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return jax.tree.unflatten(structure, stored), jax.tree.unflatten(structure, exact)


def zero_where(kind: Momentum, mask: optax.Params, momentum: optax.Updates) -> optax.Updates:
    """Returns the momentum with zeros where a tree of masks is True."""
    return jax.tree.map(kind.zero_where, mask, momentum)


def _to_bfloat16(average: jax.Array, dropped: jax.Array) -> jax.Array:
    largest = float(jnp.finfo(jnp.bfloat16).max)
    bits = jax.lax.bitcast_convert_type(jnp.clip(average, -largest, largest), jnp.uint32)
    # bfloat16 is the upper half of float32: a carry out of the lower half is a step away from zero.
    bits = (bits + (dropped >> 16)) & jnp.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.bfloat16)


def _advance_integers(
    leaf: IntegerMomentum, gradient: jax.Array, decay: float | jax.Array, bits: jax.Array
) -> tuple[IntegerMomentum, jax.Array]:
    # The scale decays and the integers stay, so that decay is exact and only the increment is rounded. Only where the
    # largest momentum of a channel outgrows the scale, or falls below a quarter of it, are all of its integers rounded
    # to a new one. Rounding all of them at every update is 1.5 times as noisy on gradients of mixed size (b1 =
    # 0.99999), and evenly spaced levels are 2.7 times as noisy. Clipping at some number of deviations would be quieter,
    # but a lone large weight then lowers its own bound at every update.
    limit = float(jnp.iinfo(leaf.values.dtype).max)
    squares, ndim = _square(leaf.values), gradient.ndim
    decayed = (decay * leaf.scale).astype(jnp.float32)
    gradient = jnp.clip(gradient.astype(jnp.float32), -_LARGEST, _LARGEST)
    increment = ((1 - decay) * gradient).astype(jnp.float32)
    average = _over_channels(decayed, ndim) * (squares.astype(jnp.float32) / limit**2) + increment

    peak = jnp.max(jnp.abs(average), axis=tuple(range(ndim - 1)) if ndim > 1 else None, initial=0.0)
    fits = (peak <= decayed) & (decayed <= 4 * peak) & (decayed >= _SMALLEST)
    scale = jnp.where(fits, decayed, jnp.maximum(_ROOM * peak, decayed / 16))
    scale = jnp.where(scale < _SMALLEST, 0, scale)
    divisor = jnp.where(scale > 0, scale, jnp.inf)
    change = jnp.where(fits, 0, decayed / divisor - 1)

    step = squares * _over_channels(change, ndim) + increment / _over_channels(divisor, ndim) * limit**2
    target = squares + step
    sign = jnp.where(target < 0, -1, 1)
    root = jnp.floor(jnp.sqrt(jnp.abs(target))).astype(jnp.int32)
    # In integers, because squares of int16 have more digits than float32: a step of zero must not change the value.
    fraction = ((sign * squares - root * root).astype(jnp.float32) + sign * step) / (2 * root + 1)
    root = jnp.clip(root + jnp.floor(fraction + uniform(bits)).astype(jnp.int32), 0, int(limit))
    return IntegerMomentum((sign * root).astype(leaf.values.dtype), scale), average


def _square(values: jax.Array) -> jax.Array:
    values = values.astype(jnp.int32)
    return values * jnp.abs(values)


def _over_channels(scale: jax.Array, ndim: int) -> jax.Array:
    return jnp.expand_dims(scale, tuple(range(ndim - 1)))
