"""What travels between layers: a spike and its presynaptic trace."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import flax
import jax
import jax.numpy as jnp

from bsojax import _validate


@flax.struct.dataclass
class Spikes:
    """A spike and its presynaptic trace: the pair that travels along an axon.

    A synapse multiplies the value by its weights in the forward pass and puts the trace in place of the value in the
    gradient of its weights (eq. 6). A plain array counts as its own trace.

    Linear operations act on value and trace alike: ``a + b``, ``a - b``, ``-a``, ``a * 0.5``, ``a / 2``, ``a[:, 3:]``,
    ``a.reshape``, and :func:`concatenate`. Plain arrays that are added count as their own trace. The gradient of a
    learned factor is taken at the value and not at the trace: learned gains belong after a synapse, as in Affine.
    Spikes are not a tuple and cannot be unpacked.

    Attributes:
      value: the spikes of this time step, any floating dtype.
      trace: the filtered spikes ``a[t] = mu[t] a[t-1] + s[t]`` of the same shape, or None: the value is the trace.
    """

    value: jax.Array
    trace: jax.Array | None = None

    __array_priority__ = 1000  # arrays on the left leave the operation to Spikes
    __array_ufunc__ = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.value.shape

    @property
    def ndim(self) -> int:
        """The number of axes of the value."""
        return self.value.ndim

    @property
    def dtype(self) -> Any:
        """The dtype of the value."""
        return self.value.dtype

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[NoReturn]:
        _validate.not_unpacked()

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        _validate.no_single_array()

    def __getitem__(self, index: Any) -> "Spikes":
        return _mapped(lambda leaf: leaf[index], self)

    def reshape(self, *shape: Any) -> "Spikes":
        """Returns value and trace in another shape."""
        return _mapped(lambda leaf: leaf.reshape(*shape), self)

    def astype(self, dtype: Any) -> "Spikes":
        """Returns value and trace in another dtype."""
        return _mapped(lambda leaf: leaf.astype(dtype), self)

    def __neg__(self) -> "Spikes":
        return _mapped(jnp.negative, self)

    def __add__(self, other: Any) -> "Spikes":
        return _joined(jnp.add, self, as_spikes(other))

    def __radd__(self, other: Any) -> "Spikes":
        return _joined(jnp.add, as_spikes(other), self)

    def __sub__(self, other: Any) -> "Spikes":
        return _joined(jnp.subtract, self, as_spikes(other))

    def __rsub__(self, other: Any) -> "Spikes":
        return _joined(jnp.subtract, as_spikes(other), self)

    def __mul__(self, other: Any) -> "Spikes":
        _validate.weights_of_spikes(other, isinstance(other, Spikes))
        return _mapped(lambda leaf: leaf * other, self)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Spikes":
        _validate.weights_of_spikes(other, isinstance(other, Spikes))
        return _mapped(lambda leaf: leaf / other, self)


def as_spikes(x: Any) -> Spikes:
    """Returns x as Spikes; an array or a number has no trace of its own."""
    return x if isinstance(x, Spikes) else Spikes(x)


def map_spikes(function: Callable[[jax.Array], jax.Array], x: Spikes | jax.Array) -> Spikes | jax.Array:
    """Applies a linear function, such as pooling, to value and trace alike; an array stays an array."""
    return _mapped(function, x) if isinstance(x, Spikes) else function(x)


def concatenate(parts: Sequence[Spikes | jax.Array], axis: int = -1) -> Spikes:
    """Returns Spikes joined along an axis, values and traces alike; arrays among them count as their own trace.

    Use it instead of ``jnp.concatenate``, which takes only arrays.

    Args:
      parts: Spikes and arrays.
      axis: the axis to join along; the last one holds the channels.
    """
    return _joined(lambda *leaves: jnp.concatenate(leaves, axis), *map(as_spikes, parts))


def _mapped(function: Callable[[jax.Array], jax.Array], x: Spikes) -> Spikes:
    return Spikes(function(x.value), None if x.trace is None else function(jax.lax.stop_gradient(x.trace)))


def _joined(function: Callable[..., jax.Array], *parts: Spikes) -> Spikes:
    """Applies a function that is linear in all of its arguments together."""
    value = function(*(part.value for part in parts))
    if all(part.trace is None for part in parts):
        return Spikes(value)
    traces = (part.value if part.trace is None else part.trace for part in parts)
    return Spikes(value, function(*map(jax.lax.stop_gradient, traces)))
