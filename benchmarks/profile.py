"""Where the time of a training step goes on a CPU: the operations of the peers' job, as the profiler sees them."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bsojax
from benchmarks.measure import interleave
from benchmarks.speed import BATCH, CHANNELS, SHAPE
from experiments.pages import table

NUM_STEPS, CALLS, SHOWN = 8, 8, 25
PERCENTILE = 12
"""Quantile of an operation's times: a low one, since other processes only ever slow it down."""

_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\S+) ([\w\-]+)\(")
_ORIGIN = re.compile(r'op_name="([^"]*)"')


def measure() -> dict[str, Any]:
    """Returns the longest operations with their share of a step's time, and where in the program they come from.

    The profiler does not name convolutions along rows, so they are the remainder of a step's time.
    """
    model = bsojax.models.SpikingVGG(channels=CHANNELS)
    tx = bsojax.split_optimizer(flip=bsojax.t_bso(5e-7, NUM_STEPS), real=optax.adam(1e-3))
    step = bsojax.make_train_step(model, tx, NUM_STEPS)
    x, y = jnp.asarray(np.random.default_rng(0).random((BATCH, *SHAPE)), jnp.float32), jnp.arange(BATCH) % 10
    state = bsojax.init(model, tx, jax.random.key(0), x)
    known = instructions(step.lower(state, x, y).compile().as_text())
    held = [state]

    def once() -> Any:
        held[0], metrics = step(held[0], x, y)
        return held[0], metrics

    seconds = interleave({"step": once}, rounds=CALLS)["step"]
    whole = 1e3 * float(np.percentile(seconds, PERCENTILE)) / NUM_STEPS
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(CALLS):
                jax.block_until_ready(once())
        times = events(Path(folder))
    total: dict[str, float] = {
        name: float(np.percentile(values, PERCENTILE)) * len(values) / CALLS / NUM_STEPS
        for name, values in times.items()
        if name in known and known[name]["kind"] not in ("while", "conditional", "call")
    }
    rows = [
        {"operation": name, "share": round(total[name] / whole, 4)} | known[name]
        for name in sorted(total, key=lambda name: -total[name])[:SHOWN]
    ]
    named = sum(total.values())
    dense = sum(value for name, value in total.items() if known[name]["dense"])
    shares = {"dense": dense / whole, "others": (named - dense) / whole, "unnamed": 1 - named / whole}
    return {
        "T": NUM_STEPS,
        "operations": len(total),
        "shares": {key: round(share, 4) for key, share in shares.items()},
        "rows": rows,
    }


def instructions(text: str) -> dict[str, dict[str, Any]]:
    """Returns of each instruction of a compiled program its kind, shape, origin, and whether it is a dense product."""
    found = {}
    for line in text.splitlines():
        if match := _INSTRUCTION.match(line):
            origin = _ORIGIN.search(line)
            place = origin.group(1).split("closed_call/")[-1] if origin else ""
            place = re.sub(r"(cond/)?branch_\d_fun/|cond/|jit\(_?\w+\)/", "", place)
            dense = place.rsplit("/", 1)[-1] in ("conv_general_dilated", "dot_general")
            found[match[1]] = {"kind": match[3], "shape": match[2].split("{")[0], "origin": place, "dense": dense}
    return found


def events(folder: Path) -> dict[str, list[float]]:
    """Returns the durations of each event of a trace, in ms."""
    times: dict[str, list[float]] = defaultdict(list)
    for file in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                if "python" not in line.name:
                    for event in line.events:
                        times[event.name].append(event.duration_ns / 1e6)
    return times


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    yield (
        f"The longest of {result['operations']} operations of the job above, T = {result['T']}, and their share of the "
        f"time of a step. Two-dimensional convolutions and matrix products that the profiler names take "
        f"{result['shares']['dense']:.0%} of it, and everything else that it names {result['shares']['others']:.0%}; "
        f"the remaining {result['shares']['unnamed']:.0%} are the convolutions along rows, which it does not name."
    )
    rows = [
        (f"{row['share']:.1%}", "dense" if row["dense"] else "", row["shape"], row["origin"]) for row in result["rows"]
    ]
    yield table(("share", "", "result", "origin"), rows)
    yield (
        "On a CPU, XLA (jaxlib 0.10) runs a two-dimensional convolution with fewer than 128 outputs, or a kernel below "
        "512 KiB, on one core, whether in a loop or not; this was true of all but one of this job's convolutions and "
        "gradients. Written along rows (bsojax/xla_cpu/_rows.py) they use all cores: the last table of times above "
        "compares both."
    )
