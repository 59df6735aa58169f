"""Memory of one training step of the paper's VGG-11 against T: bytes that the compiler plans; nothing is run."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import bsojax
from benchmarks.measure import CompiledBytes, compiled_bytes
from benchmarks.plain import PlainBatchNorm, PlainLIF
from experiments.pages import BLUE, GREY, ORANGE, figure, finish, table
from experiments.rivals import ThroughTimeLIF, latent_weights, make_bptt_step

BATCH = 128
TIME_STEPS = (2, 4, 8, 16, 32)
MIB = 2**20
NEURONS = 409_600
"""Neurons of the VGG-11 per example of 32 x 32: each has a current, a membrane and a trace."""


def measure() -> dict[str, Any]:
    """Returns argument and temporary bytes of each kind of step at each T, and the floor of ours."""
    rows = []
    for name, (make, steps) in kinds().items():
        for num_steps in steps:
            arguments, temporaries = make(num_steps)
            rows.append({"step": name, "T": num_steps, "arguments": arguments, "temporaries": temporaries})
    floors = {"float32": floor(4), "bfloat16 activations": floor(2)}
    return {"network": "VGG-11", "batch": BATCH, "input": "32 x 32 x 3", "floor": floors, "rows": rows}


def kinds() -> dict[str, tuple[Callable[[int], CompiledBytes], tuple[int, ...]]]:
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
) -> CompiledBytes:
    """Returns argument and temporary bytes of our step."""
    model = bsojax.models.SpikingVGG(norm=norm, neuron=neuron)
    flip = bsojax.t_bso(5e-7, num_steps, momentum_dtype=momentum_dtype)
    tx = bsojax.split_optimizer(flip=flip, real=optax.sgd(0.1))
    return _bytes(model, tx, bsojax.make_train_step(model, tx, num_steps, dtype=dtype), batch, packed)


def through_time(num_steps: int, *, batch: int = BATCH) -> CompiledBytes:
    """Returns those of backpropagation through time, with latent weights and Adam."""
    model = bsojax.models.SpikingVGG(neuron=ThroughTimeLIF)
    tx = bsojax.split_optimizer(flip=latent_weights(optax.adam(1e-2), seed=0), real=optax.sgd(0.1))
    return _bytes(model, tx, make_bptt_step(model, tx, num_steps), batch, False)


def floor(itemsize: int) -> dict[str, int]:
    """Returns the least bytes that our step needs, for activations of the given bytes per number.

    Membrane and trace are the carry of the loop over time steps, the current is what the backward pass of the norm
    needs; sign and momentum are the state, the gradient of all weights must be known finite before one flips.
    """
    weights = 9_216_000
    return {
        "membranes, traces and currents": 3 * itemsize * NEURONS * BATCH,
        "signs, momentum and gradients": (1 + 4 + 4) * weights,
    }


def _bytes(model: nn.Module, tx: optax.GradientTransformation, step: Any, batch: int, packed: bool) -> CompiledBytes:
    x = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
    y = jax.ShapeDtypeStruct((batch,), jnp.int32)
    state = jax.eval_shape(lambda key: bsojax.init(model, tx, key, x, packed=packed), jax.random.key(0))
    assert bsojax.memory_report(state)["signs_packed"] == 9_216_000 // 8
    return compiled_bytes(step, state, x, y)


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    steps = sorted({row["T"] for row in result["rows"]})
    cells: dict[str, dict[int, int]] = {}
    for row in result["rows"]:
        cells.setdefault(row["step"], {})[row["T"]] = row["arguments"] + row["temporaries"]
    rows = [(name, *(f"{found[T] / MIB:,.0f}" if T in found else "" for T in steps)) for name, found in cells.items()]
    yield (
        f"{result['network']}, batch {result['batch']}, {result['input']}: argument and temporary bytes of the "
        "compiled step in MiB."
    )
    yield table(("step", *(f"T = {T}" for T in steps)), rows)
    ours, floors = cells["float32"], result["floor"]
    told = "; ".join(
        f"{name}: {sum(parts.values()) / MIB:,.0f} MiB ("
        + ", ".join(f"{part} {size / MIB:,.0f}" for part, size in parts.items())
        + ")"
        for name, parts in floors.items()
    )
    growth = max(ours.values()) - min(ours.values())
    yield (
        f"Floors: {told}. From T = {steps[0]} to T = {steps[-1]} the float32 step grows by {growth} bytes: "
        "T-BSO keeps one second moment per layer and time step, and nothing else grows. The released PyTorch code is "
        'reported to take 2.9 GB for BSO and 3.1 GB for T-BSO. "Automatic differentiation" is the same step with norm '
        "and neurons written plainly (benchmarks/plain.py)."
    )
    yield "![Memory against T](pictures/bench-memory.png)"


def draw(result: dict[str, Any]) -> Any:
    """Draws compiled bytes against T on logarithmic axes, with the floors."""
    drawing = figure(8, 4.5)
    axes = drawing.subplots()
    names = list(dict.fromkeys(row["step"] for row in result["rows"]))
    shades = iter((BLUE, "#56B4E9", "#009E73", "#CC79A7", "#000000"))
    for name in names:
        rows = sorted((row for row in result["rows"] if row["step"] == name), key=lambda row: row["T"])
        steps = [row["T"] for row in rows]
        sizes = [(row["arguments"] + row["temporaries"]) / MIB for row in rows]
        if "BPTT" in name:
            style: dict[str, Any] = {"color": ORANGE, "marker": "o", "lw": 2.5}
        elif "automatic" in name:
            style = {"color": GREY, "ls": "--" if "bfloat16" in name else "-", "lw": 1.5}
        else:
            style = {"color": next(shades), "marker": "o", "lw": 2}
        axes.plot(steps, sizes, label=name, **style)
    for floor, parts in result["floor"].items():
        axes.axhline(sum(parts.values()) / MIB, color=GREY, ls=":", lw=1)
        axes.annotate(f"floor, {floor}", (2.05, sum(parts.values()) / MIB), fontsize=8, va="bottom", color="#555555")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted({row["T"] for row in result["rows"]}), sorted({row["T"] for row in result["rows"]}))
    ticks = (300, 500, 1000, 2000, 5000, 10000, 20000)
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    finish(axes, f"Memory of a training step: {result['network']}, batch {result['batch']}", "time steps T", "MiB")
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return drawing
