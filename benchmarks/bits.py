"""Bits that a binary weight takes in training: its sign, its momentum, and what else its optimizer keeps for it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

import bsojax
from experiments.rivals import latent_weights

NUM_STEPS = 4


def measure() -> dict[str, Any]:
    """Returns bits a weight of the paper's VGG-11, by what they hold."""
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
