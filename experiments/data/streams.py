"""A split that is larger than memory: images read, decoded and cut to one shape on the host while training runs."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.splits import WHOLE, Part, check_batch_size, check_part, check_readable


@dataclasses.dataclass(frozen=True, eq=False)
class StreamSplit:
    """A split of image files that is never held in memory, read through grain.

    ``dataclasses.replace(split, workers=8)`` is the same split read by eight processes.

    Attributes:
      source: a data source of examples with "image", the bytes of its file, and "label".
      decode: a function of the bytes: the stored example, an array of one shape and dtype.
      num_classes: the number of classes.
      indices: the examples of the source that make up the split, in order; None: all.
      workers: processes that read and decode; 0: the threads of this one. A script that uses more than 0 must have its
        own work under ``if __name__ == "__main__"``, since each process imports it.
      threads: threads of each process; each has at most one batch ready in advance.

    Raises:
      ValueError: there is no example, or workers or threads are out of range.
    """

    source: Sequence[Any]
    decode: Callable[[bytes], np.ndarray]
    num_classes: int
    indices: np.ndarray | None = None
    workers: int = 0
    threads: int = 4

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1:
            raise ValueError(f"workers, threads: at least 0 and 1, got {self.workers} and {self.threads}.")
        if not len(self):
            raise ValueError("source, indices: there is no example.")

    def __len__(self) -> int:
        return len(self.source) if self.indices is None else len(self.indices)

    def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns one example, stored form and label.

        Raises:
          ValueError: the image is corrupt, or the label outside the classes.
        """
        index = position if self.indices is None else int(self.indices[position])
        example = self.source[index]
        check_readable([example], f"x: example {index}")
        if not 0 <= example["label"] < self.num_classes:
            raise ValueError(
                f"y: the label of example {index}, {example['label']}, is outside 0 .. {self.num_classes - 1}."
            )
        try:
            return self.decode(example["image"]), np.asarray(example["label"], np.int32)
        except OSError as error:
            raise ValueError(f"x: the image of example {index} is corrupt ({error}); prepare the set again.") from error

    @functools.cached_property
    def example(self) -> jax.ShapeDtypeStruct:
        first, _ = self[0]
        return jax.ShapeDtypeStruct(first.shape, first.dtype)

    def batches(
        self, batch_size: int, key: jax.Array | None = None, first: int = 0, part: Part = WHOLE
    ) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Like Split.batches; the order depends only on the key, not on workers and threads."""
        import grain

        check_batch_size(batch_size)
        low, size = check_part(len(self), batch_size, key is not None, part)
        records = grain.MapDataset.source(self)
        if key is not None:
            records = records.shuffle(seed=int(jax.random.bits(key, dtype=jnp.uint32)))
        if first or size < batch_size:
            # Only what is yielded is read: places of the order, a part of each batch from the first on.
            end = len(self) if key is None else len(self) - len(self) % batch_size
            starts = range(first * batch_size, end, batch_size)
            places = [place for start in starts for place in range(start + low, min(start + low + size, end))]
            records = grain.MapDataset.source(_Chosen(records, places))
        batched = records.batch(size, drop_remainder=key is not None)
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=self.threads)
        reading = batched.to_iter_dataset(options)
        if self.workers:
            from absl import flags

            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # grain looks at its own, which only absl's main would parse
            reading = reading.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        for x, y in reading:
            yield jnp.asarray(x), jnp.asarray(y)

    def take(self, indices: np.ndarray) -> "StreamSplit":
        here = np.arange(len(self)) if self.indices is None else self.indices
        return dataclasses.replace(self, indices=here[np.asarray(indices)])


class _Chosen:
    """The elements at some places of a data set, as a source; grain's own slices take one step, not blocks."""

    def __init__(self, records: Any, places: Sequence[int]) -> None:
        self._records, self._places = records, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        return self._records[self._places[index]]
