"""An epoch of training in chunks: a compiled program if the split lies on the device, otherwise batch by batch."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

import bsojax
from experiments.data import Split
from experiments.data.splits import MemorySplit, gather
from experiments.running.devices import Devices

CHUNKS = 20
"""Chunks of an epoch on the device, if it has as many batches: how often a progress bar moves."""

RECORDED = ("loss", "accuracy", "flips", "spike_rate", "skipped")
"""What is recorded of every batch."""

SPIKES, FLIPS = "spikes/", "flips/"
"""What the names of records of single layers begin with: a neuron layer's spike rate, a sign leaf's flips."""

SINGLE = Devices()
"""A single device, JAX's default."""

Step = Callable[[bsojax.TrainState, jax.Array, jax.Array, jax.Array], tuple[bsojax.TrainState, dict[str, Any]]]
"""A jitted function of a state, which it donates, a key and a stored batch: the next state, and metrics."""

Fetch = Callable[[], dict[str, np.ndarray]]
"""Waits until a chunk is done; returns what was recorded of each of its batches."""

Advance = Callable[[bsojax.TrainState, int, int], tuple[bsojax.TrainState, Fetch]]
"""Starts a chunk: a function of a state, which it donates, and of the first and the behind-last batch; returns the next
state and what fetches the records. Chunks of an epoch are asked for in their order and without gaps."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Batches that were trained on one after another.

    Attributes:
      epoch: their epoch, counted from 1.
      done: batches of this epoch that are done.
      batches: what was recorded of each batch: float64 arrays, those of RECORDED, one for each layer (see
        SPIKES), and one for each further metric.
    """

    epoch: int
    done: int
    batches: dict[str, np.ndarray]

    @property
    def mean(self) -> dict[str, float]:
        """The mean over the batches of each recorded quantity."""
        return {name: float(np.mean(values)) for name, values in self.batches.items()}


class Epochs(Protocol):
    """A way through a training split; the results are bit-identical for every way and every division into chunks."""

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Cuts the batches ``first .. last - 1`` of an epoch; a function of the numbers of batches, not of time."""

    def start(self, key: jax.Array, first: int = 0) -> Advance:
        """Begins an epoch at a batch; the order of the examples and the batches' keys are drawn from its key."""


def make_epochs(step: Step, split: Split, batch_size: int, devices: Devices = SINGLE, shardings: Any = None) -> Epochs:
    """Returns the fastest way through a training split with a step.

    Args:
      step: the step.
      split: the split.
      batch_size: examples per batch.
      devices: the devices of the run.
      shardings: where the leaves of the state lie on them, as jit takes it; None: it is left open.
    """
    if isinstance(split, MemorySplit):
        return OnDevice(step, split, batch_size, devices, shardings)
    return BatchByBatch(step, split, batch_size, devices)


class Running:
    """The chunks that were started, up to an evaluation. Each is reported when the next one has been started.

    So the device does not wait for the host: it computes a chunk while the host reads the records of the one before.

    Args:
      epoch: their epoch, counted from 1.
      on_chunk: called with every chunk.
    """

    def __init__(self, epoch: int, on_chunk: Callable[[Chunk], None]) -> None:
        self._epoch, self._on_chunk = epoch, on_chunk
        self._running: list[tuple[int, Fetch]] = []
        self._chunks: list[Chunk] = []
        self._started = time.perf_counter()

    def add(self, done: int, fetch: Fetch) -> None:
        """Notes that a chunk has been started, after which this many batches of the epoch are done."""
        self._running.append((done, fetch))
        if len(self._running) > 1:
            self._hear()

    def finish(self) -> list[Chunk]:
        """Waits until all that was started is done, and returns it."""
        while self._running:
            self._hear()
        return self._chunks

    @property
    def seconds(self) -> float:
        """How long ago this began."""
        return time.perf_counter() - self._started

    def _hear(self) -> None:
        done, fetch = self._running.pop(0)
        self._chunks.append(Chunk(self._epoch, done, fetch()))
        self._on_chunk(self._chunks[-1])


class OnDevice:
    """Epochs of a split that lies on the device: gather, front end and training of all batches in one program.

    The host is involved once per chunk. The metrics of each batch are written to a row and not summed, so that flips
    are counted exactly and records are those of the other way.

    Attributes:
      program: the jitted function ``(state, x, y, order, key, first, last) -> (state, rows)``. The bounds are traced:
        it is compiled once for chunks of any length. Examples are arguments, or the program would hold a copy of them.
    """

    def __init__(
        self, step: Step, split: MemorySplit, batch_size: int, devices: Devices = SINGLE, shardings: Any = None
    ) -> None:
        self._split, self._devices = split, devices
        self._x, self._y = devices.everywhere((split.x, split.y))
        self._batches = len(split) // batch_size

        def program(
            state: bsojax.TrainState,
            x: jax.Array,
            y: jax.Array,
            order: jax.Array,
            key: jax.Array,
            first: jax.Array,
            last: jax.Array,
        ) -> tuple[bsojax.TrainState, dict[str, Any]]:
            def batch(index: jax.Array, state: bsojax.TrainState) -> tuple[bsojax.TrainState, dict[str, Any]]:
                examples = gather(x, y, order, index * batch_size, batch_size)
                return step(state, jax.random.fold_in(key, index), *devices.split(examples))

            def body(index: jax.Array, carry: tuple[bsojax.TrainState, dict[str, Any]]) -> Any:
                state, metrics = batch(index, carry[0])
                return state, jax.tree.map(lambda row, value: row.at[index].set(value), carry[1], metrics)

            _, metrics = jax.eval_shape(batch, first, state)
            rows = jax.tree.map(lambda value: jnp.zeros((self._batches, *value.shape), value.dtype), metrics)
            return jax.lax.fori_loop(first, last, body, (state, rows))

        placed: dict[str, Any] = {} if shardings is None else {"out_shardings": (shardings, None)}
        self.program = jax.jit(program, donate_argnums=0, **placed)

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        return cut(first, last, min(max(round(CHUNKS * (last - first) / self._batches), 1), last - first))

    def start(self, key: jax.Array, first: int = 0) -> Advance:
        del first  # any batch can be gathered
        order_key, batch_key = jax.random.split(key)
        order = self._devices.everywhere(self._split.order(order_key))

        def advance(state: bsojax.TrainState, first: int, last: int) -> tuple[bsojax.TrainState, Fetch]:
            state, rows = self.program(state, self._x, self._y, order, batch_key, first, last)
            return state, lambda: _by_batch(jax.tree.map(lambda row: row[first:last], jax.device_get(rows)))

        return advance


class BatchByBatch:
    """Epochs of any split: it is asked for a batch, and a step is called with it.

    A chunk is one batch, so that a fast reader does not fill the device's memory with batches ahead of a slow step.
    """

    def __init__(self, step: Step, split: Split, batch_size: int, devices: Devices = SINGLE) -> None:
        self._step = step
        self._split = split
        self._devices = devices
        self._batch_size = batch_size

    def chunks(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        return cut(first, last, last - first)

    def start(self, key: jax.Array, first: int = 0) -> Advance:
        order_key, batch_key = jax.random.split(key)
        batches = self._devices.feed(self._split, self._batch_size, order_key, first)

        def advance(state: bsojax.TrainState, first: int, last: int) -> tuple[bsojax.TrainState, Fetch]:
            rows = []
            for index, (x, y) in zip(range(first, last), batches, strict=False):  # takes no batch beyond the last
                state, metrics = self._step(state, jax.random.fold_in(batch_key, index), x, y)
                rows.append(metrics)
            return state, lambda: _by_batch(jax.tree.map(lambda *values: np.stack(values), *jax.device_get(rows)))

        return advance


def of_layers(batches: dict[str, np.ndarray], prefix: str) -> dict[str, float]:
    """Returns the means over batches of what is recorded of each layer, SPIKES or FLIPS, by the layer's name."""
    return {
        name.removeprefix(prefix): float(np.mean(values)) for name, values in batches.items() if name.startswith(prefix)
    }


def cut(first: int, last: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Cuts ``first .. last - 1`` into pieces whose lengths differ by at most one; none is empty if pieces <= length."""
    bounds = [first + round((last - first) * piece / max(pieces, 1)) for piece in range(pieces + 1)]
    return itertools.pairwise(bounds)


def _by_batch(metrics: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns what is recorded of metrics with a leading axis of batches.

    Raises:
      ValueError: a metric is not one number per batch.
    """
    # A row of neuron layers is contiguous: numpy then adds it in the order in which it adds that row alone.
    rates = np.ascontiguousarray(np.stack(list(metrics["spikes"].values()), axis=-1))
    recorded = {
        "loss": metrics["loss"],
        "accuracy": metrics["accuracy"],
        "flips": sum(flips.astype(np.float64) for flips in metrics["flips"].values()),
        "spike_rate": rates.mean(axis=-1),
        **{f"{SPIKES}{name}": rate for name, rate in metrics["spikes"].items()},
        **{f"{FLIPS}{name}": count for name, count in metrics["flips"].items()},
        **{name: values for name, values in metrics.items() if name not in ("loss", "accuracy", "flips", "spikes")},
    }
    recorded = {name: np.asarray(values, np.float64) for name, values in recorded.items()}
    for name, values in recorded.items():
        if values.ndim != 1:
            raise ValueError(f"metrics: '{name}' is an array of shape {values.shape[1:]}; records hold numbers.")
    return recorded
