"""The cost of reporting progress during an epoch: chunks with a bar against one call, and against single batches."""

import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from benchmarks.measure import MIN_ROUNDS, mark_load, ratios, rotated
from experiments.build import Run, prepare
from experiments.config import Config
from experiments.configs import CONFIGS
from experiments.data import load
from experiments.display import Bar
from experiments.epochs import BatchByBatch, Chunk, Epochs, OnDevice, Running
from experiments.pages import table
from experiments.spread import Spread

EMPTY_CHUNKS = 100
"""Number of chunks without a batch; their median time is the cost of a chunk itself."""

ROUNDS = 31
"""Epochs of each way: with few, an overhead of one per cent is lost in noise."""


def measure(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measures the digits job with T-BSO and with backpropagation through time; one result each (see measure_job)."""
    config = CONFIGS["digits"][1]
    return [measure_job(job, rounds) for job in (config, dataclasses.replace(config, optimizer="bptt-adam"))]


def measure_job(config: Config, rounds: int = ROUNDS) -> dict[str, Any]:
    """Returns ratios of the time of an epoch, as JSON values.

    "chunks_to_one_call": as trained, in chunks with a bar on a terminal, over one call of the same compiled program;
    minus 1, it is the overhead of reporting progress. "batches_to_chunks": a step a batch, its metrics fetched at once,
    over the epoch as trained. Each with the median over the rounds, the quartiles, and the ratio of the shortest times,
    which others on the machine disturb least. "chunk_cost": the time of chunks without a batch, as many as an epoch
    has, over that of one call: the host's work, of which the most is done while the device trains on the next chunk.

    Args:
      config: the job; its data set must be prepared and fit on the device.
      rounds: epochs of each way, at least 5.

    Raises:
      ValueError: there are too few rounds, or the training split does not lie on the device.
      RuntimeError: the ways did not give bit-identical results, or the program was compiled more than once.
    """
    if rounds < MIN_ROUNDS:
        raise ValueError(f"rounds: at least {MIN_ROUNDS}, for a median and its quartiles, got {rounds}.")
    run = prepare(config, load(config.dataset, config.data_dir, config.num_steps))
    device = run.epochs
    if not isinstance(device, OnDevice):
        raise ValueError(f"config: '{config.dataset}' does not lie on the device, so no program holds its epoch.")
    single = BatchByBatch(run.step, run.data.train, config.batch_size)
    chunks = list(device.chunks(0, run.batches))
    bar = Bar(Console(file=io.StringIO(), force_terminal=True, width=120), "benchmark", run)
    ways = {
        "one call": _Way(run, device, [(0, run.batches)]),
        "chunks": _Way(run, device, chunks, bar),
        "batches": _Way(run, single, single.chunks(0, run.batches), bar, ahead=False),
    }
    for way in ways.values():
        way.seconds()  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    load_mark = mark_load()
    for turn in range(rounds):
        for name in rotated(list(ways), turn):
            seconds[name].append(ways[name].seconds())
    busy = load_mark.others()
    empty = _empty_chunk(run, device, bar)
    states = [way.state for way in ways.values()]
    if not all(_same_bits(states[0], state) for state in states):
        raise RuntimeError("the ways through an epoch did not give bit-identical results.")
    compiled = device.program._cache_size()  # type: ignore[attr-defined]
    if compiled != 1:
        raise RuntimeError(f"the program was compiled {compiled} times.")
    return {
        "job": {"dataset": config.dataset, "optimizer": config.optimizer, "batch_size": config.batch_size},
        "batches": run.batches,
        "chunks": len(chunks),
        "rounds": rounds,
        "chunks_to_one_call": _ratio(seconds, "chunks", "one call"),
        "batches_to_chunks": _ratio(seconds, "batches", "chunks"),
        "chunk_cost": round(len(chunks) * empty / Spread.of(seconds["one call"]).median, 5),
        "cores busy with other work": round(busy, 2),
    }


class _Way:
    """One way through an epoch, repeated; its state continues where it stopped."""

    def __init__(
        self,
        run: Run,
        way: Epochs,
        bounds: Iterable[tuple[int, int]],
        bar: Bar | None = None,
        ahead: bool = True,
    ) -> None:
        self.state = jax.tree.map(jnp.copy, run.state)
        self._way = way
        self._bounds = list(bounds)
        self._bar = bar
        self._ahead = ahead

    def seconds(self) -> float:
        """Trains an epoch; the bar's start and end, of which a run has only one, are not counted."""
        if self._bar is None:
            return self._train(lambda _: None)
        with self._bar as bar:
            return self._train(bar.chunk)

    def _train(self, on_chunk: Callable[[Chunk], None]) -> float:
        start = time.perf_counter()
        advance = self._way.start(jax.random.key(0))
        # A chunk at a time, its records are fetched before the next one is started.
        for bounds in [self._bounds] if self._ahead else [[bound] for bound in self._bounds]:
            running = Running(1, on_chunk)
            for first, last in bounds:
                self.state, fetch = advance(self.state, first, last)
                running.add(last, fetch)
            running.finish()
        jax.block_until_ready(self.state)
        return time.perf_counter() - start


def _empty_chunk(run: Run, way: Epochs, bar: Bar) -> float:
    """The median seconds of a chunk without a batch: the call, the fetched rows, the bar."""
    state, advance, times = jax.tree.map(jnp.copy, run.state), way.start(jax.random.key(0)), []
    with bar:
        for _ in range(EMPTY_CHUNKS):
            start = time.perf_counter()
            state, fetch = advance(state, 0, 0)
            bar.chunk(Chunk(1, 0, {name: np.zeros(1) for name in fetch()}))
            times.append(time.perf_counter() - start)
    return Spread.of(times).median


def _ratio(seconds: dict[str, list[float]], above: str, below: str) -> dict[str, float]:
    found = ratios({name: seconds[name] for name in (above, below)}, below)[above]
    named = {"median": found.median, "lower_quartile": found.lower, "upper_quartile": found.upper}
    named["shortest"] = min(seconds[above]) / min(seconds[below])
    return {name: round(value, 4) for name, value in named.items()}


def _same_bits(one: Any, other: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), one, other)))


def tell(result: list[dict[str, Any]]) -> Iterator[str]:
    """Yields what the page says about a result."""
    rows = []
    for found in result:
        one, batches = found["chunks_to_one_call"], found["batches_to_chunks"]
        rows.append(
            (
                f"{found['job']['dataset']}, {found['job']['optimizer']}",
                f"{found['batches']} in {found['chunks']}",
                f"{100 * (one['median'] - 1):.2f} % ({100 * (one['lower_quartile'] - 1):.2f} to "
                f"{100 * (one['upper_quartile'] - 1):.2f})",
                f"{100 * found['chunk_cost']:.2f} %",
                f"{batches['median']:.2f} ({batches['lower_quartile']:.2f} to {batches['upper_quartile']:.2f})",
            )
        )
    header = (
        "job",
        "batches in chunks",
        "as trained, relative to one call: overhead (quartiles)",
        "of this, empty chunks",
        "batch by batch, relative to as trained",
    )
    yield table(header, rows)
    yield (
        "Shuffling, front end and training of an epoch are one compiled program, called in chunks so that the progress "
        "bar moves. The overhead is the time of an epoch as trained, relative to a single call of the same program."
    )


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
