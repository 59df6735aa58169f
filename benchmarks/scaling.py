"""What many devices exchange, hold and compute: ``python -m benchmarks.scaling``, on eight CPU devices of one host."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import bsojax
from benchmarks.hlo import Array, Program
from benchmarks.measure import planned_bytes, save
from experiments.pages import table

COUNTS = (1, 2, 4, 8)
STEPS, NUM_STEPS = 10, 4
MIB = 2**20
FILE = Path("benchmarks") / "results" / "scaling.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """A network and its batch."""

    channels: tuple[Any, ...]
    shape: tuple[int, ...]
    batch: int


JOBS = {
    "digits network": Job((16, 32, "M", 64, 64), (8, 8, 1), 32),
    "VGG-11": Job((64, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512), (32, 32, 3), 128),
}
TX = bsojax.split_optimizer(flip=bsojax.t_bso(0.01, NUM_STEPS, 0.99, 0.99), real=optax.sgd(0.1))


def main() -> None:
    """Measures and writes benchmarks/results/scaling.json."""
    jax.config.update("jax_num_cpu_devices", max(COUNTS))
    save(FILE, measure())


def measure() -> dict[str, Any]:
    """Returns traffic, memory and agreement, as JSON values; there must be eight devices."""
    compiled = {
        (name, devices, way): WAYS[way](job, jax.devices()[:devices]).compile()
        for name, job in JOBS.items()
        for way in WAYS
        for devices in (COUNTS if way.startswith("jit") else (max(COUNTS),))
    }
    agreement = [agree(JOBS["digits network"], devices, way) for way in AGREEING for devices in COUNTS]
    return {
        "T": NUM_STEPS,
        "jobs": {name: dataclasses.asdict(job) | {"signs": signs(job)} for name, job in JOBS.items()},
        "traffic": [
            {"job": name, "exchange": way} | traffic(Program(program.as_text()), max(COUNTS))
            for (name, devices, way), program in compiled.items()
            if devices == max(COUNTS)
        ],
        "memory": [
            {"job": name, "way": way, "devices": devices} | memory(program)
            for (name, devices, way), program in compiled.items()
            if way.startswith("jit")
        ],
        "agreement": agreement,
    }


def make(job: Job, **options: Any) -> tuple[bsojax.TrainState, Any]:
    """Returns the shapes of a state and a training step."""
    axis = options.get("axis_name")
    start = bsojax.models.SpikingVGG(channels=job.channels)
    model = bsojax.models.SpikingVGG(channels=job.channels, norm=functools.partial(bsojax.BatchNorm, axis_name=axis))
    x = jax.ShapeDtypeStruct((job.batch, *job.shape), jnp.float32)
    state = jax.eval_shape(lambda key: bsojax.init(start, TX, key, x), jax.random.key(0))
    return state, bsojax.make_train_step(model, TX, NUM_STEPS, **options)


def signs(job: Job) -> int:
    """Returns the number of binary weights."""
    return sum(leaf.size for leaf in jax.tree.leaves(make(job)[0].signs))


def batch(job: Job, sharding: Any = None) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch."""
    x = jax.ShapeDtypeStruct((job.batch, *job.shape), jnp.float32, sharding=sharding)
    return x, jax.ShapeDtypeStruct((job.batch,), jnp.int32, sharding=sharding)


def by_jit(job: Job, devices: Sequence[jax.Device], split: bool) -> Any:
    """Returns the lowered step under jit over a mesh."""
    mesh = bsojax.data_mesh(devices)
    state, step = make(job, mesh=mesh if split else None)
    shardings = bsojax.state_shardings(state, mesh, split_optimizer=split)
    placed = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, shardings)
    jitted = jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)
    return jitted.lower(placed, *batch(job, NamedSharding(mesh, P("batch"))))


def by_shard_map(job: Job, devices: Sequence[jax.Device], vote: bool) -> Any:
    """Returns the lowered step under shard_map; with votes, each device has its own optimizer state."""
    state, step = make(job, axis_name="batch", vote=vote)
    places = jax.tree.map(lambda _: P(), state)
    if vote:
        own = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(devices), *leaf.shape), leaf.dtype), state.opt_state)
        state, places = dataclasses.replace(state, opt_state=own), dataclasses.replace(places, opt_state=P("batch"))

    def local_step(state: bsojax.TrainState, x: jax.Array, y: jax.Array) -> Any:
        if vote:
            state = dataclasses.replace(state, opt_state=jax.tree.map(lambda leaf: leaf[0], state.opt_state))
        state, metrics = step(state, x, y)
        if vote:
            state = dataclasses.replace(state, opt_state=jax.tree.map(lambda leaf: leaf[None], state.opt_state))
        return state, metrics

    specs = {"in_specs": (places, P("batch"), P("batch")), "out_specs": (places, P())}
    mesh = bsojax.data_mesh(devices)
    placed = jax.tree.map(
        lambda at, part: jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, at)), part
        ),
        places,
        state,
        is_leaf=lambda node: isinstance(node, P),
    )
    jitted = jax.jit(jax.shard_map(local_step, mesh=mesh, check_vma=not vote, **specs))
    return jitted.lower(placed, *batch(job, NamedSharding(mesh, P("batch"))))


WAYS: dict[str, Callable[[Job, Sequence[jax.Device]], Any]] = {
    "jit, replicated optimizer": functools.partial(by_jit, split=False),
    "jit, split optimizer": functools.partial(by_jit, split=True),
    "shard_map, gradients": functools.partial(by_shard_map, vote=False),
    "shard_map, votes": functools.partial(by_shard_map, vote=True),
}


def traffic(program: Program, devices: int) -> dict[str, int]:
    """Returns the bytes that a device sends per time step in a ring, by kind.

    An all-reduce of b bytes sends ``2 (n - 1) / n * b``, an all-gather or all-to-all of b bytes ``(n - 1) / n * b``.
    """
    sent = {"gradients": 0.0, "statistics": 0.0, "flips": 0.0, "other": 0.0}
    for kind, arrays, in_loop in program.collectives():
        if not in_loop:  # once per batch
            continue
        share = (devices - 1) / devices * (2 if kind == "all-reduce" else 1)
        for array in arrays:
            sent[_meaning(kind, array)] += share * array.size
    return {what: round(size) for what, size in sent.items()}


def _meaning(kind: str, array: Array) -> str:
    """What an exchanged array is."""
    several = math.prod(array.shape) > 1
    if kind == "all-reduce" and array.dtype == "f32" and several:
        return "gradients" if len(array.shape) > 1 else "statistics"
    return "flips" if array.dtype in ("u8", "s8", "pred") and several else "other"


def memory(program: Any) -> dict[str, int]:
    """Returns the bytes of a device."""
    return planned_bytes(program)._asdict()


AGREEING = ("jit", "jit, split optimizer", "pmap", "shard_map")


@functools.cache
def trained(job: Job, devices: int, way: str) -> Any:
    """Returns state, metrics and flips after STEPS steps."""
    named = way in ("pmap", "shard_map")
    mesh = bsojax.data_mesh(jax.devices()[:devices])
    split = way == "jit, split optimizer"
    _, step = make(job, axis_name="batch") if named else make(job, mesh=mesh if split else None)
    random = np.random.default_rng(0)
    x, y = random.random((job.batch, *job.shape), np.float32), np.arange(job.batch) % 10
    state = bsojax.init(bsojax.models.SpikingVGG(channels=job.channels), TX, jax.random.key(0), x)
    if way == "pmap":
        state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (devices, *leaf.shape)), state)
        x, y = (leaf.reshape(devices, -1, *leaf.shape[1:]) for leaf in (x, y))
        step = jax.pmap(step, axis_name="batch", devices=jax.devices()[:devices])
    elif way == "shard_map":
        specs = {"in_specs": (P(), P("batch"), P("batch")), "out_specs": (P(), P())}
        step = jax.jit(jax.shard_map(step, mesh=mesh, **specs))
    else:
        shardings = bsojax.state_shardings(state, mesh, split_optimizer=split)
        state, (x, y) = jax.device_put(state, shardings), jax.device_put((x, y), NamedSharding(mesh, P("batch")))
        step = jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)
    flips = 0
    for _ in range(STEPS):
        state, metrics = step(state, x, y)
        flips += sum(int(np.ravel(count)[0]) for count in metrics["flips"].values())
    state, metrics = jax.device_get((state, metrics))
    if way == "pmap":
        state, metrics = jax.tree.map(lambda leaf: leaf[0], (state, metrics))
    return state, metrics, flips


def agree(job: Job, devices: int, way: str) -> dict[str, Any]:
    """Returns how training on some devices differs from jit on one, as JSON values."""
    (state, metrics, flips), (want, wanted_metrics, _) = trained(job, devices, way), trained(job, 1, "jit")
    pairs = zip(jax.tree.leaves(state.signs), jax.tree.leaves(want.signs), strict=True)
    momenta = [jax.tree.leaves(optax.tree.get(one.opt_state, "momentum")) for one in (state, want)]
    apart = max(float(np.abs(a - b).max() / np.sqrt(np.mean(np.square(b)))) for a, b in zip(*momenta, strict=True))
    return {
        "way": way,
        "devices": devices,
        "flips": flips,
        "signs that differ": sum(int((one != other).sum()) for one, other in pairs),
        "momentum, of its RMS": apart,
        "loss": float(abs(metrics["loss"] - wanted_metrics["loss"])),
        "accuracy": float(abs(metrics["accuracy"] - wanted_metrics["accuracy"])),
    }


def tell(result: dict[str, Any]) -> Iterator[str]:
    """Yields what the page says about a result."""
    yield from _tell_traffic(result)
    yield from _tell_memory(result)
    yield from _tell_agreement(result)


def _tell_traffic(result: dict[str, Any]) -> Iterator[str]:
    yield "## Bytes exchanged"
    told = "; ".join(f"{name}: {job['signs']:,} signs, batch {job['batch']}" for name, job in result["jobs"].items())
    yield (
        f"KiB that a device sends per time step, from the compiled step of 8 devices (T = {result['T']}; {told}). A "
        "ring is assumed: an all-reduce sends twice 7/8 of its bytes, an all-gather or all-to-all 7/8. Statistics are "
        'those of batches, with gradients of norms and biases; "other" is scalars and whatever else is gathered. '
        "Nothing was run over a network."
    )
    kinds = ("gradients", "statistics", "flips", "other")
    rows = [
        (row["job"], row["exchange"], *(f"{row[kind] / 1024:,.1f}" for kind in kinds),
         f"{sum(row[kind] for kind in kinds) / 1024:,.1f}")
        for row in result["traffic"]
    ]  # fmt: skip
    yield table(("job", "way", *kinds, "all"), rows)


def _tell_memory(result: dict[str, Any]) -> Iterator[str]:
    yield "## Memory of a device"
    yield "Argument and temporary bytes of the compiled step, MiB; the global batch stays the same and is split."
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in result["memory"]:
        size = (row["arguments"] + row["temporaries"]) / MIB
        found = cells.setdefault((row["job"], row["way"]), {})
        found[row["devices"]] = f"{size:,.2f} (arguments {row['arguments'] / MIB:,.2f})"
    counts = sorted({row["devices"] for row in result["memory"]})
    header = ("job", "way", "1 device", *(f"{count} devices" for count in counts if count > 1))
    yield table(header, [(*names, *(found[count] for count in counts)) for names, found in cells.items()])


def _tell_agreement(result: dict[str, Any]) -> Iterator[str]:
    yield "## What the number of devices changes"
    yield (
        "The digits network after 10 steps, compared with jit on one device. The number of devices changes the order "
        "of float32 sums over the batch. The difference is only rounding until a membrane or a momentum comes within "
        "rounding of its threshold; then one spike or sign differs, and from then on the runs diverge, like any two "
        "runs that differ in one spike. The rows with differing signs show this; with float sums it cannot be ruled "
        "out. In the jobs of tests/test_devices.py it does not happen: there signs and spikes are equal, and the "
        "rest is within 1e-5 of its root mean square."
    )
    names = ("flips", "signs that differ", "momentum, of its RMS", "loss", "accuracy")
    rows = [
        (row["way"], str(row["devices"]), *(f"{row[name]:,}" for name in names[:2]),
         *(f"{row[name]:.1e}" if row[name] else "0" for name in names[2:]))
        for row in result["agreement"]
    ]  # fmt: skip
    header = ("way", "devices", "flips", "signs that differ")
    yield table((*header, *(f"largest difference: {name}" for name in names[2:])), rows)


if __name__ == "__main__":
    main()
