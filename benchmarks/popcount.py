"""Evaluation on a CPU by counting bits, compared with float32 products: layers and whole networks."""

import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bsojax
from benchmarks.measure import interleave, load_text, mark_load, ratio_text, ratios
from bsojax.xla_cpu import _popcount
from experiments.pages import table
from experiments.spread import Spread

NUM_STEPS = 4
BATCHES = (1, 32)
RATE = 0.15
LAYERS = ((256, 16), (512, 8), (512, 4))
"""Channels and image side of the 3 x 3 convolutions of VGG-11."""

FEATURES = 512
NETWORKS = {
    "digits": ((16, 32, "M", 64, 64), (8, 8, 1)),
    "VGG-11": ((64, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512), (32, 32, 3)),
}
FLOATS, BITS = "float32", "bits"


def measure(rounds: int = 9) -> dict[str, Any]:
    """Returns the times of layers and networks by float32 products, and by bits where evaluation counts them.

    Raises:
      RuntimeError: their results differ.
    """
    load, rows = mark_load(), []
    for batch in BATCHES:
        for channels, side in LAYERS:
            name = f"convolution, {channels} channels, {side} x {side}"
            shape, kernel = (batch, side, side, channels), (3, 3, channels, channels)
            rows += [compared(what, batch, layer(bsojax.conv, x, kernel), rounds) for what, x in inputs(name, shape)]
        name, shape = f"dense, {FEATURES} features", (batch, FEATURES)
        kernel = (FEATURES, FEATURES)
        rows += [compared(what, batch, layer(bsojax.dense, x, kernel), rounds) for what, x in inputs(name, shape)]
        for name, (channels, image) in NETWORKS.items():
            rows.append(compared(name, batch, network(channels, image, batch), rounds))
    return {
        "num_steps": NUM_STEPS,
        "rate": RATE,
        "rounds": rounds,
        "cores busy with other work": round(load.others(), 2),
        "rows": rows,
    }


def inputs(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, jax.Array]]:
    """Yields spikes of some time steps, and means of four of them, as average pooling makes them."""
    spikes = np.random.default_rng(0).random((NUM_STEPS, *shape, 4)) < RATE
    yield f"{name}, spikes", jnp.asarray(spikes[..., 0], jnp.float32)
    yield f"{name}, means of four", jnp.asarray(spikes.mean(-1), jnp.float32)


def layer(product: Callable[..., jax.Array], x: jax.Array, shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Returns the currents of a layer summed over the time steps, both ways."""
    signs = jnp.asarray(np.random.default_rng(1).random(shape) < 0.5)

    def program() -> Any:
        def run(x: jax.Array, signs: jax.Array) -> jax.Array:
            nothing = jnp.zeros(jax.eval_shape(product, x[0], signs).shape)
            return jax.lax.scan(lambda total, frame: (total + product(frame, signs), None), nothing, x)[0]

        return jax.jit(run)

    return both(program, x, signs)


def network(channels: tuple[Any, ...], image: tuple[int, ...], batch: int) -> dict[str, Callable[[], Any]]:
    """Returns the evaluation of a network, both ways."""
    model = bsojax.models.SpikingVGG(channels=channels)
    tx = bsojax.split_optimizer(bsojax.bso(1e-4, b1=0.9), optax.sgd(0.1))
    x = jnp.asarray(np.random.default_rng(2).random((batch, *image)), jnp.float32)
    state = bsojax.init(model, tx, jax.random.key(0), x)
    state = bsojax.refresh_statistics(model, state, [x], NUM_STEPS)
    labels = jnp.zeros(batch, jnp.int32)
    return both(lambda: bsojax.make_eval_step(model, NUM_STEPS), state, x, labels)


def both(program: Callable[[], Any], *arguments: Any) -> dict[str, Callable[[], Any]]:
    """Returns a program compiled without counting and with it, made anew for each."""
    with unittest.mock.patch.object(_popcount, "MANY", _popcount.EXACT):
        floats = program().lower(*arguments).compile()
    bits = program().lower(*arguments).compile()
    return {FLOATS: lambda: floats(*arguments), BITS: lambda: bits(*arguments)}


def compared(name: str, batch: int, calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
    """Returns the milliseconds per time step of both ways, and how many times faster counting is."""
    floats, bits = (jax.tree.leaves(call()) for call in calls.values())
    if not all(map(np.array_equal, floats, bits)):
        raise RuntimeError(f"{name}, batch {batch}: the results differ.")
    seconds = interleave(calls, rounds=rounds)
    spreads = {way: Spread.of(1e3 * value / NUM_STEPS for value in values) for way, values in seconds.items()}
    return {
        "name": name,
        "batch": batch,
        "milliseconds": {way: spread.quantiles(4) for way, spread in spreads.items()},
        "times faster": ratios(seconds, BITS)[FLOATS].quantiles(4),
    }


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    yield (
        "In a large enough layer whose weights are signs and whose inputs are spikes or means of four spikes, "
        "evaluation counts bits; elsewhere it computes float32 products. The results are equal. Median milliseconds "
        f"per time step, over {result['num_steps']} time steps, at a spike rate of {result['rate']:g}; "
        f"{result['rounds']} rounds."
    )
    found = [
        (
            row["name"],
            str(row["batch"]),
            *(f"{row['milliseconds'][way]['median']:.3g}" for way in (FLOATS, BITS)),
            ratio_text(row["times faster"]),
        )
        for row in result["rows"]
    ]
    yield table(("", "batch", "float32, ms", "by bits, ms", "times faster"), found)
    yield load_text(result)
