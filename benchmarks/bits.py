"""Bits that a binary weight takes in training: its sign, its momentum, and the rest of its optimizer state."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import bsojax
from experiments.pages import BLUE, ORANGE, figure, finish, table
from experiments.rivals import latent_weights

NUM_STEPS = 4


def measure() -> dict[str, Any]:
    """Returns the bits per weight of the paper's VGG-11, by what they hold."""
    rows: dict[str, dict[str, float]] = {
        # Its sign follows from the latent weight, although the rivals of the experiments hold it beside that.
        "latent float32 weights, Adam": _bits(latent_weights(optax.adam(1e-2), seed=0), packed=False) | {"signs": 0.0},
        "boolean signs, float32 momentum": _bits(bsojax.t_bso(5e-7, NUM_STEPS), packed=False),
    }
    for dtype in ("float32", "bfloat16", "int16", "int8"):
        flip = bsojax.t_bso(5e-7, NUM_STEPS, momentum_dtype=dtype)
        rows[f"packed signs, {dtype} momentum"] = _bits(flip, packed=True)
    return {"network": "VGG-11", "weights": 9_216_000, "rows": rows}


def _bits(flip: optax.GradientTransformation, *, packed: bool) -> dict[str, float]:
    model = bsojax.models.SpikingVGG()
    tx = bsojax.split_optimizer(flip=flip, real=optax.sgd(0.1))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    state = jax.eval_shape(lambda key: bsojax.init(model, tx, key, x, packed=packed), jax.random.key(0))
    report = bsojax.memory_report(state)
    return {key: 8 * report[key] / 9_216_000 for key in ("signs", "momentum", "optimizer_other")}


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    rows = [
        (name, *(f"{found[key]:.3f}" for key in ("signs", "momentum", "optimizer_other")), f"{sum(found.values()):.3f}")
        for name, found in result["rows"].items()
    ]
    yield f"{result['network']}, {result['weights']:,} binary weights."
    yield table(("state", "sign", "momentum, with scales", "other optimizer state", "all"), rows)
    yield (
        "Latent weights and Adam's two moments count as other state; the sign follows from the latent weight. "
        "RESULTS.md shows what fewer bits cost in accuracy."
    )
    yield "![Bits per weight](pictures/bench-bits.png)"


def draw(result: dict[str, Any]) -> Any:
    """Draws the bits per weight as bars of their parts."""
    drawing = figure(8, 3.2)
    axes = drawing.subplots()
    names = list(result["rows"])[::-1]
    left = [0.0] * len(names)
    for key, label, color in (
        ("signs", "sign", BLUE),
        ("momentum", "momentum", "#56B4E9"),
        ("optimizer_other", "latent weight and its moments", ORANGE),
    ):
        sizes = [result["rows"][name][key] for name in names]
        axes.barh(names, sizes, left=left, color=color, label=label)
        left = [one + two for one, two in zip(left, sizes, strict=True)]
    for index, total in enumerate(left):
        axes.annotate(f" {total:.2f}", (total, index), va="center", fontsize=9)
    axes.set_xlim(0, max(left) * 1.1)
    finish(axes, "Training state of a binary weight", "bits", "")
    axes.grid(False)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    return drawing
