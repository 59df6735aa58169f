"""Memory of one training step of the paper's VGG-11 against T: bytes that the compiler plans, nothing is run."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import bsojax
from benchmarks.plain import PlainBatchNorm, PlainLIF
from bsojax.signs import count_signs
from experiments.rivals import ThroughTimeLIF, latent_weights, make_bptt_step

BATCH = 128
TIME_STEPS = (2, 4, 8, 16, 32)
NEURONS = 409_600
"""Neurons of the VGG-11 at 32 x 32 an example: each has a current, a membrane and a trace."""

Compiled = tuple[int, int]


def measure() -> dict[str, Any]:
    """Returns argument and temporary bytes of each kind of step at each T, and the floor of ours."""
    rows = []
    for name, (make, steps) in kinds().items():
        for num_steps in steps:
            arguments, temporaries = make(num_steps)
            rows.append({"step": name, "T": num_steps, "arguments": arguments, "temporaries": temporaries})
    floors = {"float32": floor(4), "bfloat16 activations": floor(2)}
    return {"network": "VGG-11", "batch": BATCH, "input": "32 x 32 x 3", "floor": floors, "rows": rows}


def kinds() -> dict[str, tuple[Callable[[int], Compiled], tuple[int, ...]]]:
    """Each kind of step: a function of T that returns its compiled bytes, and at which T."""
    few = (2, 32)
    plain = {"norm": PlainBatchNorm, "neuron": PlainLIF}
    small = {"packed": True, "momentum_dtype": "int8"}
    return {
        "float32": (online, TIME_STEPS),
        "bfloat16 activations": (functools.partial(online, dtype=jnp.bfloat16), TIME_STEPS),
        "float32, packed signs, int16 momentum": (
            functools.partial(online, packed=True, momentum_dtype="int16"),
            few,
        ),
        "float32, packed signs, int8 momentum": (functools.partial(online, **small), few),
        "bfloat16 activations, packed signs, int8 momentum": (
            functools.partial(online, dtype=jnp.bfloat16, **small),
            few,
        ),
        "float32, automatic differentiation": (functools.partial(online, **plain), few),
        "bfloat16 activations, automatic differentiation": (
            functools.partial(online, dtype=jnp.bfloat16, **plain),
            few,
        ),
        "BPTT, latent weights, Adam": (through_time, TIME_STEPS),
    }


def online(
    num_steps: int,
    *,
    batch: int = BATCH,
    dtype: Any = jnp.float32,
    packed: bool = False,
    momentum_dtype: str = "float32",
    norm: Callable[..., nn.Module] = bsojax.BatchNorm,
    neuron: Callable[..., nn.Module] = bsojax.LIF,
) -> Compiled:
    """Returns argument and temporary bytes of our step."""
    model = bsojax.models.SpikingVGG(norm=norm, neuron=neuron)
    flip = bsojax.t_bso(5e-7, num_steps, momentum_dtype=momentum_dtype)
    tx = bsojax.split_optimizer(flip=flip, real=optax.sgd(0.1))
    return _bytes(model, tx, bsojax.make_train_step(model, tx, num_steps, dtype=dtype), batch, packed)


def through_time(num_steps: int, *, batch: int = BATCH) -> Compiled:
    """Returns those of backpropagation through time, with latent weights and Adam."""
    model = bsojax.models.SpikingVGG(neuron=ThroughTimeLIF)
    tx = bsojax.split_optimizer(flip=latent_weights(optax.adam(1e-2), seed=0), real=optax.sgd(0.1))
    return _bytes(model, tx, make_bptt_step(model, tx, num_steps), batch, False)


def floor(itemsize: int) -> dict[str, int]:
    """Returns the bytes without which our step cannot be, at the given bytes a number of the activations.

    Membrane and trace are the carry of the loop over time steps, the current is what the backward pass of the norm
    needs; sign and momentum are the state, the gradient of all weights must be known finite before one flips.
    """
    weights = 9_216_000
    return {
        "membranes, traces and currents": 3 * itemsize * NEURONS * BATCH,
        "signs, momentum and gradients": (1 + 4 + 4) * weights,
    }


def _bytes(model: nn.Module, tx: optax.GradientTransformation, step: Any, batch: int, packed: bool) -> Compiled:
    x = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
    y = jax.ShapeDtypeStruct((batch,), jnp.int32)
    state = jax.eval_shape(lambda key: bsojax.init(model, tx, key, x, packed=packed), jax.random.key(0))
    assert count_signs(state.signs) == 9_216_000
    analysis = step.lower(state, x, y).compile().memory_analysis()
    return analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
