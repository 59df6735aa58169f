"""Deployed networks on one core: C code against JAX, and against onnxruntime where it is installed.

A layer is a convolution, a norm and neurons on spikes, at one time step; networks are complete, at four time steps.
All forms are checked to agree before they are timed.
"""

import functools
import importlib.util
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

import bsojax
from benchmarks.measure import interleave, load_text, mark_load, ratio_text, ratios
from bsojax.deploy import integer_network
from experiments.deploying.native import compiled
from experiments.pages import table

FLAGS = {
    "C, native": ("-O3", "-march=native"),
    "C, x86-64-v3": ("-O3", "-march=x86-64-v3"),
    "C, plain": ("-O2",),
}
LAYERS = {"256 channels, 16x16": (256, 16), "512 channels, 8x8": (512, 8), "512 channels, 4x4": (512, 4)}
NUM_STEPS = 4

Call = Callable[[], Any]


class Layer(nn.Module):
    """A binary convolution, norm and neurons, with two outputs that read how much each channel fires."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        current = bsojax.BatchNorm()(bsojax.BinaryConv(self.features, (3, 3))(x), train)
        return bsojax.Dense(2)(bsojax.global_avg_pool(bsojax.LIF()(current)))


def measure(rounds: int = 15) -> dict[str, Any]:
    """Returns for each layer and network the spread of the times relative to the native C code, and the times in ms.

    Raises:
      RuntimeError: there is no C compiler.
    """
    if shutil.which("cc") is None:
        raise RuntimeError("cc: the benchmark compiles C, and there is no compiler.")
    load = mark_load()
    rows = {}
    for name, (channels, side) in LAYERS.items():
        rows[name] = _one(Layer(channels), (side, side, channels), 1, 1, 0.15, rounds)
    per_step = functools.partial(bsojax.BatchNorm, num_steps=NUM_STEPS)
    digits = bsojax.models.SpikingVGG(channels=(16, 32, "M", 64, 64), norm=per_step)
    rows["digits network"] = _one(digits, (8, 8, 1), NUM_STEPS, 16, None, rounds)
    rows["VGG-11"] = _one(bsojax.models.SpikingVGG(norm=per_step), (32, 32, 3), NUM_STEPS, 255, None, rounds)
    version = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout
    return {
        "processor": _processor(),
        "compiler": version.split("\n")[0],
        "rounds": rounds,
        "cores busy with other work": round(load.others(), 2),
        "rows": rows,
    }


def _one(
    model: nn.Module, shape: tuple[int, ...], num_steps: int, input_max: int, rate: float | None, rounds: int
) -> dict[str, Any]:
    """Times a model in all its forms, on a single frame."""
    rng = np.random.default_rng(0)
    shapes = (8, *shape)
    x = rng.integers(0, input_max + 1, shapes) if rate is None else (rng.random(shapes) < rate).astype(np.int64)
    inputs = (x / input_max).astype(np.float32)
    state = bsojax.init(model, optax.identity(), jax.random.key(0), inputs)
    state = bsojax.refresh_statistics(model, state, [inputs], num_steps)
    network = integer_network(model, state, inputs, num_steps, input_scale=input_max, input_max=input_max)
    wanted = network.run(x[:1])[0].reshape(-1)
    calls = {name: compiled(network, x[:1], flags) for name, flags in FLAGS.items()}
    calls["JAX float32"] = _jax(model, state, inputs[:1], num_steps, wanted * network.logit_scale)
    if importlib.util.find_spec("onnxruntime") is not None:
        from benchmarks import edge_onnx

        calls |= edge_onnx.calls(network, inputs[:1], wanted * network.logit_scale)
    seconds, report = interleave(calls, rounds=rounds), network.report()
    return {
        "milliseconds": {name: float(np.median(times)) * 1e3 for name, times in seconds.items()},
        "best": {name: min(times) * 1e3 for name, times in seconds.items()},
        "constant bytes": report.constant_bytes,
        "scratch bytes": report.scratch_bytes,
        "float32 bytes": report.float32_bytes,
        "ratios": {name: spread.quantiles(4) for name, spread in ratios(seconds, "C, native").items()},
    }


def _jax(model: nn.Module, state: bsojax.TrainState, x: np.ndarray, num_steps: int, wanted: np.ndarray) -> Call:
    """The evaluation compiled for constant float32 weights, so that none is converted from a sign again."""
    variables = {**state.variables, "signs": bsojax.to_weights(state.signs)}

    @jax.jit
    def run(frame: jax.Array) -> jax.Array:
        begun = bsojax.online.start(model, frame, num_steps, train=False)
        neurons, total = begun.neurons, 0.0
        for t in range(num_steps):
            step = bsojax.online.forward(model, variables, neurons, frame, t, train=False)
            neurons, total = step.neurons, total + step.logits
        return total

    frame = jax.device_put(x)
    found = np.asarray(run(frame)).reshape(-1)
    if np.argmax(found) != np.argmax(wanted) or np.mean(np.abs(found - wanted) > 1e-2) > 1e-3:
        raise RuntimeError("JAX: differs from the reference.")
    return lambda: run(frame)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "")
    popcount = "with" if "avx512_vpopcntdq" in flags else "without"
    return f"{names[0] if names else platform.processor()}, {popcount} VPOPCNTDQ"


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    names = list(dict.fromkeys(name for row in result["rows"].values() for name in row["best"]))
    yield f"{result['processor']}; {result['compiler']}; one core, one frame at a time; {result['rounds']} rounds."
    best = [
        (name, *(f"{row['best'][form]:.3g}" if form in row["best"] else "" for form in names))
        for name, row in result["rows"].items()
    ]
    yield table(("ms, best of all rounds", *names), best)
    sizes = ("constant bytes", "scratch bytes", "float32 bytes")
    found = [(name, *(f"{row[size]:,}" for size in sizes)) for name, row in result["rows"].items()]
    yield table(("bytes", "constants in C", "scratch memory in C", "the same weights and tables in float32"), found)
    compared = [
        (name, *(ratio_text(row["ratios"][form]) if form in row["ratios"] else "" for form in names[1:]))
        for name, row in result["rows"].items()
    ]
    yield table(("time, ratio to native C", *names[1:]), compared)
    yield load_text(result)
