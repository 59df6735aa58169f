"""The measurements of benchmarks.accelerator; ``one`` is what its processes call."""

import collections
import functools
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import bsojax
from benchmarks.accelerator.jobs import (
    BFLOAT16,
    FLIPS,
    FLOAT32,
    KINDS,
    LATENT,
    LIMITS,
    PLAIN,
    TF32,
    Options,
    kind_and_batch,
)
from benchmarks.measure import compiled_bytes, interleave
from benchmarks.plain import PlainBatchNorm, PlainLIF
from experiments.rivals import ThroughTimeLIF, latent_weights, make_bptt_step
from experiments.spread import Spread

MAC_AN_IMAGE = 605_754_368
"""Multiply-adds of the forward pass of the paper's VGG-11 on one 32 x 32 image of three channels, at one time step."""


def one(options: Options, job: str) -> dict[str, Any]:
    """Returns what a job measures, as JSON values.

    Args:
      options: what is measured.
      job: one of ``jobs(options)``.
    """
    if job == LIMITS:
        return limits(options)
    if job == FLIPS:
        return flip_update(options)
    kind, batch = kind_and_batch(job)
    with jax.default_matmul_precision(KINDS[kind][1]):
        return one_step(options, kind, batch)


def limits(options: Options) -> dict[str, float]:
    """Returns what the machine reaches: operations a second of products, and bytes a second of its memory."""
    return {
        FLOAT32: matrix_rate(options, jnp.float32, "highest"),
        TF32: matrix_rate(options, jnp.float32, "default"),
        BFLOAT16: matrix_rate(options, jnp.bfloat16, "default"),
        "memory, bytes/s": bandwidth(options),
    }


def make(options: Options, kind: str) -> tuple[nn.Module, optax.GradientTransformation, Callable[..., Any]]:
    """Returns network, optimizer and step of a kind."""
    parts = {PLAIN: {"norm": PlainBatchNorm, "neuron": PlainLIF}, LATENT: {"neuron": ThroughTimeLIF}}.get(kind, {})
    network = {"channels": options.channels} if options.channels else {}
    model = bsojax.models.SpikingVGG(**network, **parts)
    flip = latent_weights(optax.adam(1e-2)) if kind == LATENT else bsojax.t_bso(5e-7, options.num_steps)
    tx = bsojax.split_optimizer(flip=flip, real=optax.sgd(0.1))
    if kind == LATENT:
        return model, tx, make_bptt_step(model, tx, options.num_steps)
    return model, tx, bsojax.make_train_step(model, tx, options.num_steps, dtype=jnp.dtype(KINDS[kind][0]))


def one_step(options: Options, kind: str, batch: int) -> dict[str, Any]:
    """Returns images a second, memory, and the ten longest operations of one kind of step."""
    model, tx, step = make(options, kind)
    random = np.random.default_rng(0)
    x = jax.device_put(random.random((batch, options.image, options.image, 3), np.float32))
    y = jax.device_put(random.integers(0, 10, batch).astype(np.int32))
    state = [bsojax.init(model, tx, jax.random.key(0), x)]
    planned = compiled_bytes(step, state[0], x, y)

    def once() -> Any:
        state[0], metrics = step(state[0], x, y)
        return metrics

    seconds = timed(once, options.repeats)
    # Read before the profiler runs; of the whole process, so with what the compiler tried while it tuned the step.
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


def flip_update(options: Options) -> dict[str, Any]:
    """Returns the time of one update of the signs, and the bytes a second that it moves, by momentum.

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
        rows[dtype] = {"seconds": seconds.quantiles(4), "bytes/s": moved / seconds.median}
    return rows


def timed(once: Callable[[], Any], repeats: int) -> Spread:
    """Returns the seconds of this many calls, after two to warm up."""
    return Spread.of(interleave({"": once}, rounds=repeats)[""])
