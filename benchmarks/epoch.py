"""What it costs to hear of an epoch while it runs: chunks with a bar against one call, and against single batches.

``python -m benchmarks.epoch`` prints the result as JSON: a minute or two on 2 CPU cores. Times of one round are taken
one right after another, in an order that turns, and only their ratios are reported.
"""

import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments import loop
from experiments.config import Config
from experiments.configs import CONFIGS
from experiments.data import load
from experiments.display import Bar
from experiments.epochs import BatchByBatch, Chunk, Epochs, make_epochs

EMPTY_CHUNKS = 100
"""Chunks without a batch whose median time is what a chunk costs by itself."""


def measure(rounds: int = 15) -> list[dict[str, Any]]:
    """Returns measure_job of the digits job with T-BSO and with backpropagation through time."""
    config = CONFIGS["digits"][1]
    return [measure_job(job, rounds) for job in (config, dataclasses.replace(config, optimizer="bptt-adam"))]


def measure_job(config: Config, rounds: int) -> dict[str, Any]:
    """Returns ratios of the time of an epoch, as JSON values.

    "chunks_to_one_call": as trained, in chunks with a bar on a terminal, over one call of the same compiled program;
    less 1 it is the overhead of hearing of an epoch. "batches_to_chunks": a step a batch, its metrics fetched at once,
    over the epoch as trained. Each with the median over the rounds, the quartiles, and the ratio of the shortest times,
    which is the least disturbed by others on the machine. "chunk_cost": the time of chunks without a batch, as many as
    an epoch has, over that of one call: the overhead again, without the difference of two long times.

    Args:
      config: the job; its data set must be prepared and fit on the device.
      rounds: epochs of each way, at least 5.

    Raises:
      ValueError: there are too few rounds.
      RuntimeError: the ways did not lead to the same bits, or the program was compiled more than once.
    """
    if rounds < 5:
        raise ValueError(f"rounds: at least 5, for a median and its quartiles, got {rounds}.")
    run = loop.prepare(config, load(config.dataset, config.data_dir, config.num_steps))
    device = make_epochs(run.step, run.data.train, config.batch_size)
    single = BatchByBatch(run.step, run.data.train, config.batch_size)
    whole = [(0, run.batches)]
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Bar(console, "benchmark", run) as bar:
        ways: dict[str, Callable[[], tuple[float, Any]]] = {
            "chunks": lambda: _epoch(run, device, device.chunks(0, run.batches), bar.chunk),
            "one call": lambda: _epoch(run, device, whole, lambda _: None),
            "batches": lambda: _epoch(run, single, single.chunks(0, run.batches), bar.chunk),
        }
        states = [way()[1] for way in ways.values()]  # compiles
        if not all(_same_bits(states[0], state) for state in states):
            raise RuntimeError("the ways through an epoch did not lead to the same bits.")
        times: dict[str, list[float]] = {name: [] for name in ways}
        names = list(ways)
        for turn in range(rounds):
            for name in names[turn % 3 :] + names[: turn % 3]:
                times[name].append(ways[name]()[0])
        empty = _empty_chunk(run, device, bar.chunk)
    if device.program._cache_size() != 1:
        raise RuntimeError(f"the program was compiled {device.program._cache_size()} times.")
    chunks = sum(1 for _ in device.chunks(0, run.batches))
    return {
        "job": {"dataset": config.dataset, "optimizer": config.optimizer, "batch_size": config.batch_size},
        "device": str(jax.devices()[0].device_kind),
        "batches": run.batches,
        "chunks": chunks,
        "rounds": rounds,
        "chunks_to_one_call": _ratio(times["chunks"], times["one call"]),
        "batches_to_chunks": _ratio(times["batches"], times["chunks"]),
        "chunk_cost": round(chunks * empty / float(np.median(times["one call"])), 5),
    }


def _epoch(
    run: loop.Run, way: Epochs, bounds: Iterable[tuple[int, int]], on_chunk: Callable[[Chunk], None]
) -> tuple[float, Any]:
    """Trains an epoch from the run's first state; returns the seconds and the last state."""
    state = jax.block_until_ready(jax.tree.map(jnp.copy, run.state))
    start = time.perf_counter()
    advance = way.start(jax.random.key(0))
    for first, last in bounds:
        state, recorded = advance(state, first, last)
        on_chunk(Chunk(1, last, recorded))
    jax.block_until_ready(state)
    return time.perf_counter() - start, state


def _empty_chunk(run: loop.Run, way: Epochs, on_chunk: Callable[[Chunk], None]) -> float:
    """The median seconds of a chunk without a batch: the call, the fetched rows, the bar."""
    state, advance, times = jax.tree.map(jnp.copy, run.state), way.start(jax.random.key(0)), []
    for _ in range(EMPTY_CHUNKS):
        start = time.perf_counter()
        state, recorded = advance(state, 0, 0)
        on_chunk(Chunk(1, 0, {name: np.zeros(1) for name in recorded}))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _ratio(above: list[float], below: list[float]) -> dict[str, float]:
    quartiles = np.quantile(np.array(above) / np.array(below), [0.25, 0.5, 0.75])
    low, median, high = (round(float(value), 4) for value in quartiles)
    return {
        "median": median,
        "lower_quartile": low,
        "upper_quartile": high,
        "shortest": round(min(above) / min(below), 4),
    }


def _same_bits(one: Any, other: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), one, other)))


def main() -> None:
    """Prints what is measured."""
    print(json.dumps(measure(), indent=2))


if __name__ == "__main__":
    main()
