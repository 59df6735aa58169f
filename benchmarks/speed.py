"""Time of a training step on a CPU, as ratios: against T and batch, against latent weights, and what options save."""

import unittest.mock
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bsojax
from benchmarks.measure import interleave, load_text, mark_load, ratio_text, ratios
from benchmarks.plain import PlainBatchNorm, PlainLIF
from bsojax.xla_cpu import _rows
from experiments.pages import BLUE, GREY, ORANGE, figure, finish, table
from experiments.rivals import ThroughTimeLIF, latent_weights, make_bptt_step

CHANNELS = (32, "M", 64, "M", 128)
SHAPE = (28, 28, 1)
BATCH, NUM_STEPS = 64, 4


def measure(rounds: int = 7) -> dict[str, Any]:
    """Returns, for each comparison, the spread of each way's time over that of its first."""
    comparisons: dict[str, dict[str, Callable[[], Any]]] = {
        "time steps": {f"T = {steps}": online(num_steps=steps) for steps in (1, 2, 4, 8, 16)},
        "batch": {f"batch {size}": online(batch=size) for size in (16, 32, 64, 128)},
        "latent weights": {
            "T-BSO, boolean signs": online(),
            "OTTT, latent float32 weights, Adam": online(flip=latent_weights(optax.adam(1e-2), seed=0)),
            "OTTT, latent float32 weights, SGD": online(flip=latent_weights(optax.sgd(1.0, momentum=0.9), seed=0)),
            "BPTT, latent float32 weights, Adam": through_time(),
        },
        "state": {
            "boolean signs, float32 momentum": online(),
            "packed signs, float32 momentum": online(packed=True),
            "packed signs, bfloat16 momentum": online(packed=True, momentum_dtype="bfloat16"),
            "packed signs, int16 momentum": online(packed=True, momentum_dtype="int16"),
            "packed signs, int8 momentum": online(packed=True, momentum_dtype="int8"),
        },
        "backward steps": {
            f"{count} of {NUM_STEPS}": online(backward_steps=count) for count in range(NUM_STEPS, 0, -1)
        },
        "gradients": {
            "by hand": online(),
            "automatic differentiation": online(norm=PlainBatchNorm, neuron=PlainLIF),
        },
    }
    plain: dict[str, Any] = {"rows": False, "norm": PlainBatchNorm, "neuron": PlainLIF}
    comparisons["plain version, T = 16"] = {"plain": online(num_steps=16, **plain), "ours": online(num_steps=16)}
    comparisons["small convolutions"] = {"along rows": online(), "as they are": online(rows=False)}
    found: dict[str, Any] = {}
    for title, ways in comparisons.items():
        load = mark_load()
        seconds = interleave(ways, rounds=rounds)
        spreads = ratios(seconds, next(iter(ways)))
        found[title] = {"rows": {name: spread.quantiles(4) for name, spread in spreads.items()}} | {
            "cores busy with other work": round(load.others(), 2)
        }
    network = {"channels": list(CHANNELS), "input": list(SHAPE), "batch": BATCH, "T": NUM_STEPS}
    return {"network": network, "rounds": rounds, "comparisons": found}


def online(
    *,
    batch: int = BATCH,
    num_steps: int = NUM_STEPS,
    flip: optax.GradientTransformation | None = None,
    momentum_dtype: str = "float32",
    packed: bool = False,
    backward_steps: int | None = None,
    rows: bool = True,
    **model_options: Any,
) -> Callable[[], Any]:
    """Returns a function that does one online training step; without rows, convolutions are left as they are."""
    model = bsojax.models.SpikingVGG(channels=CHANNELS, **model_options)
    flip = flip or bsojax.t_bso(5e-7, num_steps, momentum_dtype=momentum_dtype)
    tx = bsojax.split_optimizer(flip=flip, real=optax.adam(1e-3))
    step = bsojax.make_train_step(model, tx, num_steps, backward_steps=backward_steps)
    with unittest.mock.patch.object(_rows, "WORTH", _rows.WORTH if rows else float("inf")):
        call = repeated(step, model, tx, batch, packed=packed)
        call()  # compiles
    return call


def through_time(*, batch: int = BATCH, num_steps: int = NUM_STEPS) -> Callable[[], Any]:
    """Returns a function that does one step of backpropagation through time, with latent weights and Adam."""
    model = bsojax.models.SpikingVGG(channels=CHANNELS, neuron=ThroughTimeLIF)
    tx = bsojax.split_optimizer(flip=latent_weights(optax.adam(1e-2), seed=0), real=optax.adam(1e-3))
    return repeated(make_bptt_step(model, tx, num_steps), model, tx, batch)


def repeated(step: Any, model: Any, tx: Any, batch: int, *, packed: bool = False) -> Callable[[], Any]:
    """Returns a function that does one more step at every call and keeps its own state."""
    x, y = jnp.asarray(np.random.default_rng(0).random((batch, *SHAPE)), jnp.float32), jnp.arange(batch) % 10
    state = [bsojax.init(model, tx, jax.random.key(0), x, packed=packed)]

    def once() -> Any:
        state[0], metrics = step(state[0], x, y)
        return metrics

    return once


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    network = result["network"]
    yield (
        f"SpikingVGG{tuple(network['channels'])} on {network['input']}, batch {network['batch']}, T = {network['T']} "
        f"unless stated otherwise; {result['rounds']} rounds. Each row is relative to the first of its table."
    )
    for title, found in result["comparisons"].items():
        rows = [(name, ratio_text(spread)) for name, spread in found["rows"].items()]
        yield table((title, "time, ratio"), rows)
        yield load_text(found)
    yield "![Time of a step](pictures/bench-speed.png)"


def draw(result: dict[str, Any]) -> Any:
    """Draws each comparison of times: the median, and from the lowest to the highest."""
    comparisons = result["comparisons"]
    drawing = figure(14, 6)
    for axes, (title, found) in zip(drawing.subplots(2, 4).flat, comparisons.items(), strict=False):
        names = list(found["rows"])[::-1]
        for index, name in enumerate(names):
            spread = found["rows"][name]
            color = ORANGE if "latent" in name else GREY if "automatic" in name else BLUE
            axes.barh(index, spread["median"], color=color, alpha=0.85)
            axes.plot([spread["min"], spread["max"]], [index, index], color="black", lw=1)
        axes.set_yticks(range(len(names)), [name.replace(", ", ",\n") for name in names], fontsize=7)
        finish(axes, title, "time, ratio to the first", "")
    return drawing
