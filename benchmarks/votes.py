"""Accuracy when devices exchange votes on flips instead of gradients: ``python -m benchmarks.votes``.

Eight CPU devices that JAX makes from one host train on eight shares of each batch, with pmap. Runs that exchange
gradients are those of a single device: tests/test_devices.py shows that they are the same.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

import bsojax
from benchmarks.measure import save
from experiments import build
from experiments.config import Config
from experiments.configs import CONFIGS
from experiments.data import hold_out, load
from experiments.evaluation import evaluate, refreshed
from experiments.loop import train
from experiments.pages import table
from experiments.spread import Spread

DEVICES = 8
SEEDS = (0, 1, 2)
THRESHOLDS = (0.3, 0.6)
"""Thresholds of the calibrated preset, in deviations of the momentum's noise, tried with votes besides its 0.1."""

JOBS = ("digits", "fashion-mnist-binary")
FILE = Path("benchmarks") / "results" / "votes.json"


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to train: what devices exchange, and with which threshold; frozen signs are the control."""

    exchange: str
    threshold: float | None = None
    seeds: tuple[int, ...] = SEEDS


WAYS = (
    Way("gradients"),
    Way("votes"),
    Way("nothing: frozen signs"),
    *(Way("votes", threshold, (0,)) for threshold in THRESHOLDS),
)


def main(file: Path = FILE, seeds: int = len(SEEDS)) -> None:
    """Trains all, writing the results after each run; a stopped command continues where it was.

    Args:
      file: where results go; runs that it holds are not repeated.
      seeds: how many seeds, at most.
    """
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_default_device", jax.devices("cpu")[0])
    console = Console()
    rows = json.loads(file.read_text())["result"]["rows"] if file.exists() else []
    for job, way, seed in plan(seeds):
        key = {"job": job, "exchange": way.exchange, "threshold": way.threshold, "seed": seed}
        if any(key.items() <= row.items() for row in rows):
            continue
        rows.append(key | measure(job, way, seed))
        console.print(rows[-1])
        result = {"devices": DEVICES, "jobs": {name: describe(name) for name in JOBS}, "rows": rows}
        save(file, result)


def plan(seeds: int) -> Iterator[tuple[str, Way, int]]:
    """Yields the runs: those of all ways with the first seed come first."""
    for seed in SEEDS[:seeds]:
        for way in WAYS:
            for job in JOBS:
                if seed in way.seeds:
                    yield job, way, seed


def describe(job: str) -> dict[str, Any]:
    """Returns what a reader must know about a job, as JSON values."""
    config = CONFIGS[job][1]
    return {
        "dataset": config.dataset,
        "network": config.network,
        "channels": list(config.channels),
        "T": config.num_steps,
        "batch": config.batch_size,
        "epochs": config.epochs,
    }


def measure(job: str, way: Way, seed: int) -> dict[str, Any]:
    """Returns accuracies at the end of a run, on the held-out fifth of the training examples and on the test set."""
    frozen = way.exchange.startswith("nothing")
    config = dataclasses.replace(CONFIGS[job][1], seed=seed, frozen=frozen, threshold=way.threshold)
    data = load(config.dataset, config.data_dir, config.num_steps)
    run = build.prepare(config, hold_out(data))
    started = time.perf_counter()
    if way.exchange == "votes":
        state, flips = train_by_votes(run)
    else:
        state, records = train(run, lambda _: None, lambda _: None)
        flips = sum(record["flips"] for record in records)
    seconds = time.perf_counter() - started
    return {
        "validation": evaluate(run, state, run.data.test)["accuracy"],
        "test": evaluate(run, state, data.test)["accuracy"],
        "flips_per_weight": flips / run.num_signs,
        "seconds": round(seconds, 1),
    }


def train_by_votes(run: build.Run) -> tuple[bsojax.TrainState, int]:
    """Trains a run on DEVICES shares of each batch; returns the state with refreshed statistics, and the flips."""
    config: Config = run.config
    model = run.model.clone(norm=functools.partial(run.model.norm, axis_name="batch"))
    tx = build.make_optimizer(config, build.count_updates(config, run.data))
    step = bsojax.make_train_step(model, tx, config.num_steps, axis_name="batch", vote=True)
    mapped = jax.pmap(step, axis_name="batch", donate_argnums=0)
    show = jax.jit(run.data.front_end.train)
    state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (DEVICES, *leaf.shape)), run.state)
    key, counts = jax.random.key(config.seed), []
    for epoch in range(1, config.epochs + 1):
        order_key, batch_key = jax.random.split(jax.random.fold_in(key, epoch))
        for index, (x, y) in enumerate(run.data.train.batches(config.batch_size, order_key)):
            x = np.asarray(show(jax.random.fold_in(batch_key, index), x))
            state, metrics = mapped(state, *(shares(np.asarray(leaf)) for leaf in (x, y)))
            counts.append(sum(metrics["flips"].values()))
    for leaf in jax.tree.leaves(state.signs):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    state = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[0]), state)
    return refreshed(run, state), sum(int(np.asarray(count)[0]) for count in counts)


def shares(array: np.ndarray) -> np.ndarray:
    """Splits a batch over the devices."""
    return array.reshape(DEVICES, -1, *array.shape[1:])


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    told = "; ".join(
        f"{name}: {job['dataset']}, {job['network']} {job['channels']}, T = {job['T']}, batch {job['batch']} or "
        f"{job['batch'] // result['devices']} examples per device, {job['epochs']} epochs"
        for name, job in result["jobs"].items()
    )
    yield (
        f"Accuracy at the last epoch, %, mean ± standard deviation over seeds ({told}; calibrated preset). Validation "
        "is a held-out fifth of the training examples. Thresholds are in standard deviations of the momentum's noise; "
        "those other than the preset's were tried with one seed, to be chosen on validation data."
    )
    groups: dict[tuple[str, str, float | None], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["job"], row["exchange"], row["threshold"]), []).append(row)
    rows = []
    for (job, exchange, threshold), found in sorted(groups.items(), key=lambda group: group[0][0]):
        name = exchange if threshold is None else f"{exchange}, threshold {threshold:g}"
        accuracy = (Spread.of(row[key] for row in found).percent for key in ("validation", "test"))
        flips = Spread.of(row["flips_per_weight"] for row in found).mean
        rows.append((job, name, *accuracy, f"{flips:.1f}", str(len(found))))
    yield table(("job", "exchanged", "validation", "test", "flips per weight", "seeds"), rows)


if __name__ == "__main__":
    tyro.cli(main, prog="python -m benchmarks.votes")
