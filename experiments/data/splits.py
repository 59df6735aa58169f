"""A split of a data set: examples in stored form, read in batches; here the kind that lies on the device."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

import bsojax

Part = tuple[int, int]
WHOLE: Part = (0, 1)
"""All of each batch."""


@runtime_checkable
class Split(Protocol):
    """Stored examples with their labels; a split does not depend on the front end."""

    def __len__(self) -> int:
        """The number of examples."""

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one stored example, without a batch axis."""

    def batches(
        self, batch_size: int, key: jax.Array | None = None, first: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Yields the split once: stored examples of shape ``(batch, ...)`` and int32 labels of shape ``(batch,)``.

        Args:
          batch_size: examples per batch.
          key: the order is drawn from it, and a remainder smaller than a batch is dropped. None: the stored order, and
            the remainder is a smaller last batch.
          first: the batch to begin with; those before it are not read.
          part: ``(index, parts)``: read and yield only this one of the equal parts of each batch; all batches must then
            be full and divisible.

        Raises:
          ValueError: the batch size is not positive, or a batch has no such parts.
        """

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the split of only these examples, in this order."""


class MemorySplit:
    """A split that fits in memory: it lies on the device, and a batch is gathered there.

    Args:
      x: stored examples of shape ``(examples, ...)``.
      y: integer labels of shape ``(examples,)``.

    Attributes:
      x, y: the same on the device, y as int32.

    Raises:
      ValueError: there is no example, or not one label per example.
    """

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = jnp.asarray(x), jnp.asarray(y, jnp.int32)
        if self.y.ndim != 1 or len(self.x) != len(self.y):
            raise ValueError(f"y: needs one label per example, shape ({len(self.x)},), got {self.y.shape}.")
        if not len(self.x):
            raise ValueError("x: there is no example.")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def example(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.x.shape[1:], self.x.dtype)

    def batches(
        self, batch_size: int, key: jax.Array | None = None, first: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[jax.Array, jax.Array]]:
        check_batch_size(batch_size)
        count = len(self)
        low, size = check_part(count, batch_size, key is not None, part)
        order = jnp.arange(count) if key is None else self.order(key)
        for start in range(first * batch_size, count - count % batch_size, batch_size):
            yield gather(self.x, self.y, order, start + low, size)
        if key is None and count % batch_size and first * batch_size < count:
            yield gather(self.x, self.y, order, count - count % batch_size, count % batch_size)

    def order(self, key: jax.Array) -> jax.Array:
        """Returns the order in which ``batches`` yields the examples with this key: int32 positions."""
        return jax.random.permutation(key, len(self))

    def take(self, indices: np.ndarray) -> "MemorySplit":
        return MemorySplit(self.x[jnp.asarray(indices)], self.y[jnp.asarray(indices)])


@functools.partial(jax.jit, static_argnames="size")
def gather(
    x: jax.Array, y: jax.Array, order: jax.Array, start: int | jax.Array, size: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the examples and labels at the places ``start .. start + size - 1`` of an order."""
    indices = jax.lax.dynamic_slice_in_dim(order, start, size)
    return x[indices], y[indices]


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError unless a batch holds at least one example."""
    if batch_size < 1:
        raise ValueError(f"batch_size: must be at least 1, got {batch_size}.")


def check_part(count: int, batch_size: int, drop_remainder: bool, part: Part) -> tuple[int, int]:
    """Returns where in each batch a part begins, and its size.

    Raises:
      ValueError: there is no such part, or not in every batch.
    """
    index, parts = part
    if not 0 <= index < parts:
        raise ValueError(f"part: must be in 0 .. {parts - 1} of {parts}, got {index}.")
    if batch_size % parts or (parts > 1 and not drop_remainder and count % batch_size):
        raise ValueError(f"part: batches of {batch_size} of {count} examples do not all have {parts} equal parts.")
    size = batch_size // parts
    return index * size, size


def check_readable(examples: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raises ValueError if a record could not be read: a damaged file yields nothing instead of an error."""
    if any(value is None for example in examples for value in example.values()):
        raise ValueError(f"{name}: a file of the prepared set is damaged; prepare it again.")


def check_examples(x: np.ndarray, y: np.ndarray, num_classes: int, *, name: str) -> None:
    """Raises unless stored examples are fit to train on: not empty, finite, their labels within the classes.

    Args:
      x: stored examples of shape ``(examples, ...)``, uint8 or floating.
      y: int32 labels of shape ``(examples,)``.
      num_classes: the number of classes.
      name: put before the arguments' names in messages, such as "train ".

    Raises:
      ValueError: a shape or a value is wrong; the message names the first offending example.
    """
    if not np.issubdtype(x.dtype, np.floating):
        # Integers are finite: what is left to check is that there are examples, and their labels.
        x = np.zeros([len(x), *(min(size, 1) for size in x.shape[1:])], np.float32)
    bsojax.check_data(x, y, num_classes, name=name)
