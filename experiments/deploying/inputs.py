"""Inputs as integers: as they are stored, or rounded to a grid with a number of bits."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import DataSet, Split

BATCH = 500
"""Examples that a front end converts at once."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """How inputs become integers.

    Attributes:
      scale: whole inputs are the model's times this.
      low, high: the least and the largest; inputs beyond are clipped to these.
      is_exact: whether nothing is rounded.
    """

    scale: float
    low: int
    high: int
    is_exact: bool

    def whole(self, inputs: np.ndarray) -> np.ndarray:
        """Returns integers, int32."""
        return np.clip(np.rint(inputs * np.float64(self.scale)), self.low, self.high).astype(np.int32)

    def real(self, whole: np.ndarray) -> np.ndarray:
        """Returns the float32 inputs of the model that correspond to integer inputs."""
        return whole.astype(np.float32) / np.float32(self.scale)

    def __str__(self) -> str:
        return f"{self.low} to {self.high} over {self.scale:.6g}{'' if self.is_exact else ', rounded'}"


def grid_of(data: DataSet, bits: int) -> Grid:
    """Returns the grid of a data set: that on which its inputs lie, or one that reaches as far as training inputs do.

    Args:
      data: the data set.
      bits: of the grid, including the sign, if inputs do not lie on one.
    """
    if data.front_end.levels is not None:
        return Grid(data.front_end.levels, 0, data.front_end.levels, True)
    most = 0.0
    for inputs, _ in seen(data, data.train):
        most = max(most, float(np.max(np.abs(inputs), where=np.isfinite(inputs), initial=0.0)))
    largest = 2 ** (bits - 1) - 1
    return Grid(largest / (most or 1.0), -largest, largest, False)


def seen(data: DataSet, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields what the network sees of a split, float32, and labels."""
    evaluate = jax.jit(data.front_end.evaluate)
    for x, y in split.batches(BATCH):
        inputs, labels = jax.device_get((evaluate(jnp.asarray(x)), y))
        yield inputs, labels
