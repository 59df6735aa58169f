"""Renders docs/SCALING.md from scaling.json and votes.json in benchmarks/results."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.render import Results, load
from experiments.evidence.tables import table

MIB = 2**20

INTRODUCTION = """# Many devices

Written by `python -m benchmarks.scaling_page` from benchmarks/results/scaling.json (`python -m benchmarks.scaling`) and
votes.json (`python -m benchmarks.votes`). **All of it was run on CPU devices that JAX makes of the cores of one host.
No pod, TPU or network between hosts was used**: results and bytes are what the programs say, speed was not measured."""

WAYS = """## Three ways, one training step

Data parallelism: each device has all signs and real parameters and a share of each batch.

**jit over a mesh.** The compiler adds the exchange, and statistics are those of the global batch:

```python
mesh = bsojax.data_mesh()                                              # one axis "batch" over all devices
step = bsojax.make_train_step(model, tx, num_steps=4, mesh=mesh)
shardings = bsojax.state_shardings(state, mesh, split_optimizer=True)  # each device keeps a slice of the momentum
state = jax.device_put(state, shardings)
step = jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)
state, metrics = step(state, *jax.device_put((x, y), jax.NamedSharding(mesh, jax.P("batch"))))
```

`mesh=` keeps signs and gradients whole on each device within the loop over time steps. Without it the compiler carries
the signs in slices too, and gathers them as float32 weights before each layer: same results, more traffic.

**pmap.** Every leaf gets a device axis; norms need the axis' name:

```python
norm = functools.partial(bsojax.BatchNorm, axis_name="batch")
step = bsojax.make_train_step(Net(norm=norm), tx, num_steps=4, axis_name="batch")
state = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (8, *leaf.shape)), state)
state, metrics = jax.pmap(step, axis_name="batch")(state, x.reshape(8, -1, *x.shape[1:]), y.reshape(8, -1))
```

**shard_map.** The same step:

```python
specs = {"in_specs": (P(), P("batch"), P("batch")), "out_specs": (P(), P())}
step = jax.jit(jax.shard_map(step, mesh=bsojax.data_mesh(), **specs))
```

## Several hosts

`python -m experiments.train CONFIG --coordinator host:port --num-processes N --process-id I`: every process runs the
same command with its own I, and `--output` in a folder that all of them see: process 0 writes it, all write their part
of a checkpoint into it. Every batch is that of a run of one process: a set that is streamed is read in parts, process I
only its own examples of each batch; a set in memory lies whole on every device, which gathers its own examples.

Tried with 2 processes of 2 devices each on 127.0.0.1 (tests/test_processes.py): after 10 steps both hold the same bits,
the signs are those of one process on 1, 2, 4 and 8 devices, momentum, real parameters and metrics within 1e-5 of their
size (the order of float32 sums); a checkpoint goes on in another number of processes and devices. A process that cannot
join the others gives up after two minutes; one that dies ends the others once their runtime notices, and `--resume`
goes on.

## What a TPU pod run needs

One process a host with the command above (on Cloud TPU, and under Slurm, `--coordinator auto` finds address and
numbers), the same versions and the prepared data on every host, a batch that the number of devices divides, a shared
folder. Not tried here: speed, overlap of exchange and arithmetic, failures of hosts, and what a TPU's compiler makes of
the same program."""

BEYOND = """## Beyond one pod: votes

Between pods links are slow, and a float32 gradient is much to send for a decision of one bit. With
`make_train_step(..., axis_name="batch", vote=True)` each device keeps the momentum of its own share of the batch, and a
sign flips where more than half of the devices would flip it; votes travel as packed bits, 2 bits a weight and time step
for any number of devices. Real parameters, loss and statistics are averaged as before, signs stay equal on all devices,
and an update that one must skip is skipped by all. Momenta differ between devices: a checkpoint of them fits the same
number of devices only.

Under pmap nothing else changes. Under shard_map the optimizer's state gets a leading device axis:

```python
own = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (8, *leaf.shape)), state.opt_state)
state = dataclasses.replace(state, opt_state=own)
places = dataclasses.replace(jax.tree.map(lambda _: P(), state), opt_state=P("batch"))

def local_step(state, x, y):
    state = dataclasses.replace(state, opt_state=jax.tree.map(lambda leaf: leaf[0], state.opt_state))
    state, metrics = step(state, x, y)
    return dataclasses.replace(state, opt_state=jax.tree.map(lambda leaf: leaf[None], state.opt_state)), metrics

specs = {"in_specs": (places, P("batch"), P("batch")), "out_specs": (places, P())}
step_on_all = jax.jit(jax.shard_map(local_step, mesh=mesh, check_vma=False, **specs))
```"""


def main(root: Path = Path()) -> None:
    """Writes the page."""
    (root / "docs" / "SCALING.md").write_text(page(load(root)))


def page(results: Results) -> str:
    """Returns the page; a part whose file is missing says how to make it."""
    parts = [INTRODUCTION, WAYS]
    if "scaling" in results:
        file = results["scaling"]
        parts += [*_traffic(file["result"]), *_memory(file["result"]), *_agreement(file["result"]), _head(file)]
    else:
        parts.append("Bytes are not measured yet: `python -m benchmarks.scaling`.")
    parts.append(BEYOND)
    if "votes" in results:
        parts += [*_votes(results["votes"]["result"]), _head(results["votes"])]
    else:
        parts.append("Accuracy is not measured yet: `python -m benchmarks.votes`.")
    return "\n\n".join(parts) + "\n"


def _head(file: dict[str, Any]) -> str:
    device = file["device"]
    return (
        f"Written by `{file['command']}` with jax {file['versions']['jax']} on {device['count']} {device['kind']} "
        f"devices of one host ({device['cores']} cores)."
    )


def _traffic(result: dict[str, Any]) -> Iterable[str]:
    yield "## Bytes exchanged"
    told = "; ".join(f"{name}: {job['signs']:,} signs, batch {job['batch']}" for name, job in result["jobs"].items())
    yield (
        f"What a device sends a time step, in KiB, from the compiled step of 8 devices (T = {result['T']}; {told}). A "
        "ring is assumed: an all-reduce sends twice 7/8 of its bytes, an all-gather or all-to-all 7/8. Statistics are "
        "those of batches, with gradients of norms and biases; other are scalars, and what else is gathered. Nothing "
        "was run on a network."
    )
    kinds = ("gradients", "statistics", "flips", "other")
    rows = [
        (row["job"], row["exchange"], *(f"{row[kind] / 1024:,.1f}" for kind in kinds),
         f"{sum(row[kind] for kind in kinds) / 1024:,.1f}")
        for row in result["traffic"]
    ]  # fmt: skip
    yield table(("job", "way", *kinds, "all"), rows)


def _memory(result: dict[str, Any]) -> Iterable[str]:
    yield "## Memory of a device"
    yield "Argument and temporary bytes of the compiled step, MiB; the batch stays the same and is split."
    cells: dict[tuple[str, str], dict[int, str]] = {}
    for row in result["memory"]:
        size = (row["arguments"] + row["temporaries"]) / MIB
        found = cells.setdefault((row["job"], row["way"]), {})
        found[row["devices"]] = f"{size:,.2f} (arguments {row['arguments'] / MIB:,.2f})"
    counts = sorted({row["devices"] for row in result["memory"]})
    header = ("job", "way", "1 device", *(f"{count} devices" for count in counts if count > 1))
    yield table(header, [(*names, *(found[count] for count in counts)) for names, found in cells.items()])


def _agreement(result: dict[str, Any]) -> Iterable[str]:
    yield "## What the number of devices changes"
    yield (
        "The digits network after 10 steps, against jit on one device. The number of devices changes the order of "
        "float32 sums over the batch. That is rounding until a membrane or a momentum comes within rounding of its "
        "threshold; then one spike or sign differs, and from there the runs part, as two runs do that differ in one "
        "spike. Rows with differing signs show it: no float sum rules it out. In the jobs of tests/test_devices.py it "
        "does not happen: there signs and spikes are equal, and all else within 1e-5 of its root mean square."
    )
    names = ("flips", "signs that differ", "momentum, of its RMS", "loss", "accuracy")
    rows = [
        (row["way"], str(row["devices"]), *(f"{row[name]:,}" for name in names[:2]),
         *(f"{row[name]:.1e}" if row[name] else "0" for name in names[2:]))
        for row in result["agreement"]
    ]  # fmt: skip
    header = ("way", "devices", "flips", "signs that differ")
    yield table((*header, *(f"largest difference: {name}" for name in names[2:])), rows)


def _votes(result: dict[str, Any]) -> Iterable[str]:
    told = "; ".join(
        f"{name}: {job['dataset']}, {job['network']} {job['channels']}, T = {job['T']}, batch {job['batch']} or "
        f"{job['batch'] // result['devices']} examples a device, {job['epochs']} epochs"
        for name, job in result["jobs"].items()
    )
    yield (
        f"Accuracy at the last epoch, %, mean ± standard deviation over seeds ({told}; calibrated preset). Validation "
        "is a held-out fifth of the training examples. A threshold is in deviations of the momentum's noise; other "
        "than the preset's they were tried with one seed, to be chosen on validation."
    )
    groups: dict[tuple[str, str, float | None], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["job"], row["exchange"], row["threshold"]), []).append(row)
    rows = []
    for (job, exchange, threshold), found in sorted(groups.items(), key=lambda group: group[0][0]):
        name = exchange if threshold is None else f"{exchange}, threshold {threshold:g}"
        accuracy = (_spread([100 * row[key] for row in found]) for key in ("validation", "test"))
        flips = statistics.mean(row["flips_per_weight"] for row in found)
        rows.append((job, name, *accuracy, f"{flips:.1f}", str(len(found))))
    yield table(("job", "exchanged", "validation", "test", "flips a weight", "seeds"), rows)


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


if __name__ == "__main__":
    main()
