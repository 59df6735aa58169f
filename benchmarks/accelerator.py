"""VGG-11 on an accelerator: images per second, peak memory, where the time goes, and how near the machine's limits.

``python -m benchmarks.accelerator`` writes benchmarks/results/accelerator.json; on a GPU some minutes. Absolute times
are those of the device that the file names. ``--batches 2 --image 8`` tries it on a CPU.
"""

import collections
import dataclasses
import functools
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

import bsojax
from benchmarks.measure import RESULTS, compiled_bytes, interleave, save
from experiments.pages import table
from experiments.spread import Spread

MIB = 2**20
MAC_AN_IMAGE = 605_754_368
"""Multiply-adds of the forward pass of the paper's VGG-11 on one 32 x 32 image of three channels, at one time step."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      batches: batch sizes.
      num_steps: T.
      image: height and width of the images.
      channels: of the network; the paper's VGG-11 without any.
      repeats: timed steps, at least 5.
      matrix: rows of the square matrices whose product is the measured matrix rate.
      weights: weights of the flip update that is compared with the measured memory bandwidth.
    """

    batches: tuple[int, ...] = (128, 512)
    num_steps: int = 4
    image: int = 32
    channels: tuple[int | str, ...] = ()
    repeats: int = 20
    matrix: int = 8192
    weights: int = 64 * 2**20


def measure(options: Options) -> dict[str, Any]:
    """Returns the limits of the machine, one row per kind of step and batch, and the flip update."""
    kinds = {
        "float32, highest precision": (jnp.float32, "highest"),
        "float32, tf32 products": (jnp.float32, "default"),
        "bfloat16 activations": (jnp.bfloat16, "default"),
    }
    limits = {
        "float32 products, FLOP/s": matrix_rate(options, jnp.float32, "highest"),
        "tf32 products, FLOP/s": matrix_rate(options, jnp.float32, "default"),
        "bfloat16 products, FLOP/s": matrix_rate(options, jnp.bfloat16, "default"),
        "memory, bytes/s": bandwidth(options),
    }
    rows = []
    for name, (dtype, precision) in kinds.items():
        for batch in options.batches:
            with jax.default_matmul_precision(precision):
                rows.append({"step": name, "batch": batch} | one_step(options, batch, dtype))
    return {
        "options": dataclasses.asdict(options),
        "limits": limits,
        "rows": rows,
        "flip update": flip_update(options, limits["memory, bytes/s"]),
    }


def one_step(options: Options, batch: int, dtype: Any) -> dict[str, Any]:
    """Returns images per second, memory, and the ten longest operations of one kind of step."""
    network = {"channels": options.channels} if options.channels else {}
    model = bsojax.models.SpikingVGG(**network)
    tx = bsojax.split_optimizer(flip=bsojax.t_bso(5e-7, options.num_steps), real=optax.sgd(0.1))
    step = bsojax.make_train_step(model, tx, options.num_steps, dtype=dtype)
    random = np.random.default_rng(0)
    x = jax.device_put(random.random((batch, options.image, options.image, 3), np.float32))
    y = jax.device_put(random.integers(0, 10, batch).astype(np.int32))
    state = [bsojax.init(model, tx, jax.random.key(0), x)]
    planned = compiled_bytes(step, state[0], x, y)

    def once() -> Any:
        state[0], metrics = step(state[0], x, y)
        return metrics

    seconds = timed(once, options.repeats)
    stats = jax.devices()[0].memory_stats() or {}
    found = {
        "seconds": seconds.quantiles(4),
        "images a second": batch / seconds.quantiles(4)["median"],
        "compiled bytes": planned.total,
        "peak bytes in use": stats.get("peak_bytes_in_use"),
        "longest operations": longest(once),
    }
    if not options.channels and options.image == 32:
        # Forward, and two products of the same size backward; the first layer has no gradient of its input.
        operations = 6 * MAC_AN_IMAGE * batch * options.num_steps
        found["FLOP/s of the convolutions"] = operations / found["seconds"]["median"]
    return found


def longest(once: Callable[[], Any], count: int = 10) -> list[dict[str, Any]]:
    """Returns the operations with the largest share of the time of one step, as the profiler sees the device."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(once())
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        totals: collections.Counter[str] = collections.Counter()
        for plane in jax.profiler.ProfileData.from_file(str(files[0])).planes if files else ():
            on_device = plane.name.startswith("/device:")
            for line in plane.lines:
                if on_device and "XLA Ops" not in line.name and "Stream" not in line.name:
                    continue
                if not on_device and ("python" in line.name or jax.default_backend() != "cpu"):
                    continue
                for event in line.events:
                    totals[re.sub(r"[.\d]+$", "", event.name)] += event.duration_ns
    whole = sum(totals.values()) or 1
    return [{"operation": name, "share": round(time / whole, 4)} for name, time in totals.most_common(count)]


def matrix_rate(options: Options, dtype: Any, precision: str) -> float:
    """Returns the measured operations per second of a square matrix product."""
    size = options.matrix
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(functools.partial(jnp.matmul, precision=precision))
    return 2 * size**3 / timed(lambda: product(matrix, matrix), options.repeats).median


def bandwidth(options: Options) -> float:
    """Returns the measured bytes per second of reading an array and writing one of its size."""
    array = jnp.ones((4 * options.weights,), jnp.float32)
    scaled = jax.jit(lambda values: 2 * values)
    return 2 * array.nbytes / timed(lambda: scaled(array), options.repeats).median


def flip_update(options: Options, bytes_a_second: float) -> dict[str, Any]:
    """Returns the time of one update of the signs, and its share of the memory bandwidth, by momentum.

    One pass: sign, momentum and gradient are read, sign and momentum written.
    """
    rows = {}
    gradient = {"kernel": jnp.asarray(np.random.default_rng(0).standard_normal((options.weights // 1024, 1024)), "f4")}
    for dtype in ("float32", "int16", "int8"):
        tx = bsojax.t_bso(5e-7, 1, momentum_dtype=dtype)
        signs = {"kernel": jnp.ones(gradient["kernel"].shape, bool)}
        held = [(signs, tx.init(signs))]

        @functools.partial(jax.jit, donate_argnums=0)
        def update(held: Any, gradient: Any, tx: Any = tx) -> Any:
            updates, state = tx.update(gradient, held[1], held[0])
            return bsojax.apply_updates(held[0], updates), state

        def once(held: Any = held, update: Any = update) -> Any:
            held[0] = update(held[0], gradient)
            return held[0][1].count

        seconds = timed(once, options.repeats)
        moved = (2 * 1 + 2 * jnp.dtype(dtype).itemsize + 4) * gradient["kernel"].size
        share = moved / seconds.median / bytes_a_second
        rows[dtype] = {"seconds": seconds.quantiles(4), "share of bandwidth": share}
    return rows


def timed(once: Callable[[], Any], repeats: int) -> Spread:
    """Returns the seconds of this many calls, after two to warm up."""
    return Spread.of(interleave({"": once}, rounds=repeats)[""])


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    rows = [
        (
            row["step"],
            str(row["batch"]),
            f"{row['images a second']:,.0f}",
            f"{(row['peak bytes in use'] or row['compiled bytes']) / MIB:,.0f}",
            ", ".join(f"{one['operation']} {one['share']:.0%}" for one in row["longest operations"][:3]),
        )
        for row in result["rows"]
    ]
    yield table(("step", "batch", "images per second", "peak MiB", "longest operations"), rows)
    flips = [
        (dtype, f"{1e3 * found['seconds']['median']:.3f}", f"{found['share of bandwidth']:.0%}")
        for dtype, found in result["flip update"].items()
    ]
    yield table(("momentum", "flip update, ms", "share of the measured bandwidth"), flips)


if __name__ == "__main__":
    save(RESULTS / "accelerator.json", measure(tyro.cli(Options, prog="python -m benchmarks.accelerator")))
