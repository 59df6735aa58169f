# %% [markdown]
# # Many devices and hosts
#
# For people who have, or will have, more than one accelerator and want to write and test their program on a laptop
# first. At the end you will have one training step running on four devices, with the momentum split between them, a
# second one that exchanges votes instead of gradients, and the commands that start the same training on several hosts.

# %% [markdown]
# ## Four devices without an accelerator
#
# JAX makes as many CPU devices as you ask for, if you ask **before importing it**. They share this computer's cores, so
# nothing gets faster, but everything else is as it would be on four accelerators.

# %%
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

import bsojax

print(jax.devices())

# %% [markdown]
# ## One device first
#
# The familiar program: a batch of 64, here for ten batches, with everything on the first device.

# %%
T, BATCH = 4, 64
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, 10 * BATCH, BATCH)]

model = bsojax.models.SpikingMLP(features=(256, 256))
tx = bsojax.split_optimizer(bsojax.calibrated(T), optax.sgd(0.05))


def fresh():
    return bsojax.init(model, tx, jax.random.key(0), x[:BATCH])


alone, step = fresh(), bsojax.make_train_step(model, tx, T)
for batch in batches:
    alone, metrics = step(alone, *batch)
print(f"one device: loss {metrics['loss']:.6f}, the network is on {len(alone.step.devices())} device")

# %% [markdown]
# ## A mesh: the batch is split, the network is not
#
# In **data parallelism** each device holds the whole network and a share of each batch. Under `jit` that takes two
# lines: a mesh, and batches placed on it. The compiler sees where the data is and adds the exchange of gradients and
# norm statistics itself, so statistics are those of the whole batch, as on one device.

# %%
mesh = bsojax.data_mesh()
over_devices = jax.NamedSharding(mesh, P("batch"))

together = jax.device_put(fresh(), bsojax.state_shardings(fresh(), mesh))
for batch in batches:
    together, metrics = step(together, *jax.device_put(batch, over_devices))
print(f"four devices: loss {metrics['loss']:.6f}")
different = jax.tree.map(lambda a, b: int(jnp.sum(np.asarray(a) != np.asarray(b))), alone.signs, together.signs)
print("signs that differ from one device:", different)

# %% [markdown]
# Gradients are now sums of four partial sums, which round differently. A sign can differ only where a momentum or a
# membrane is within rounding of its threshold; from there the runs slowly diverge, as two runs that differ in one spike
# do. [Scaling](../SCALING.md) says how often that happens.
#
# ## Splitting the momentum
#
# Holding the whole network on each device wastes memory where the optimizer's state is the largest part, as here. With
# `split_optimizer=True` each device keeps a slice of the momentum and updates the signs that belong to it; the flips,
# at one byte per weight, are then sent to all. Pass `mesh=` to the step, so that signs stay whole within its loop.

# %%
split_step = bsojax.make_train_step(model, tx, T, mesh=mesh)
shardings = bsojax.state_shardings(fresh(), mesh, split_optimizer=True)
split_step = jax.jit(split_step, out_shardings=(shardings, None), donate_argnums=0)
split = jax.device_put(fresh(), shardings)
for batch in batches:
    split, metrics = split_step(split, *jax.device_put(batch, over_devices))
print(f"split optimizer: loss {metrics['loss']:.6f}")

# %%


def bytes_by_device(tree):
    """Bytes of a tree's leaves on each device."""
    held = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return np.array(list(held.values())) / 1000


ways = {"one device": alone, "mesh": together, "mesh, split optimizer": split}
fig, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained", sharey=True)
for ax, (way, state) in zip(axes, ways.items(), strict=True):
    signs, optimizer = bytes_by_device(state.signs), bytes_by_device(state.opt_state)
    ax.bar(range(4), signs, color="#0072B2", label="signs")
    ax.bar(range(4), optimizer, bottom=signs, color="#D55E00", label="optimizer")
    ax.set(title=way, xlabel="device", xticks=range(4))
    print(f"{way:22} kB a device:", *(f"{size:.0f}" for size in signs + optimizer))
axes[0].set_ylabel("kB")
axes[0].legend(frameon=False)

# %% [markdown]
# ## Votes instead of gradients
#
# Between hosts, what is exchanged can matter more than memory. A float32 gradient is 32 bits per weight, and summing it
# over devices sends about 64. But a binary weight needs only one bit of advice: flip or stay. With `vote=True` each
# device keeps a momentum of its own gradients and decides its own flips, and the devices **vote**; what more than half
# want is done on all of them. That is 2 bits per weight.
#
# This is a different rule, not the same rule in fewer bytes: momenta of smaller batches are noisier, and a majority
# ignores how sure each device is. It runs under `shard_map` or `pmap`, where each device runs its own copy of the
# program on its own share; norms are given the name of the axis, so statistics are still those of the whole batch.

# %%
norm = functools.partial(bsojax.BatchNorm, axis_name="batch")
voting_model = bsojax.models.SpikingMLP(features=(256, 256), norm=norm)
vote_step = bsojax.make_train_step(voting_model, tx, T, axis_name="batch", vote=True)


def of_one_device(state, x, y):
    """A step of one device, whose momentum has an axis of devices in front."""
    mine = state.replace(opt_state=jax.tree.map(lambda leaf: leaf[0], state.opt_state))
    mine, metrics = vote_step(mine, x, y)
    return mine.replace(opt_state=jax.tree.map(lambda leaf: leaf[None], mine.opt_state)), metrics


where = jax.tree.map(lambda _: P(), fresh()).replace(opt_state=jax.tree.map(lambda _: P("batch"), fresh().opt_state))
sharded = jax.jit(
    jax.shard_map(
        of_one_device, mesh=mesh, in_specs=(where, P("batch"), P("batch")), out_specs=(where, P()), check_vma=False
    ),
    donate_argnums=0,
)
start = fresh()
voted = start.replace(opt_state=jax.tree.map(lambda leaf: jnp.repeat(leaf[None], 4, 0), start.opt_state))
for batch in batches:
    voted, metrics = sharded(voted, *batch)
print(f"votes: loss {metrics['loss']:.6f}")

# %% [markdown]
# ## Several hosts
#
# On several hosts every process runs the *same* program; each sees its own devices and, once the processes have found
# each other, all devices. With the repository's command line, run this on the first of two hosts, whose address the
# other can reach:
#
# ```bash
# python -m experiments.train digits --output /shared/run --coordinator first-host:1234 --num-processes 2 --process-id 0
# ```
#
# and on the second:
#
# ```bash
# python -m experiments.train digits --output /shared/run --coordinator first-host:1234 --num-processes 2 --process-id 1
# ```
#
# `--output` is in a folder that all processes can see; process 0 writes metrics, and each process writes its part of
# each checkpoint. On Cloud TPU and under Slurm, `--coordinator auto` finds addresses and process numbers. If a process
# dies, the others stop once they notice; the same commands with `--resume` continue, with a different number of hosts
# if need be.
#
# Under Slurm that is one line in a job script:
#
# ```bash
# srun python -m experiments.train cifar10-vgg11 --output /shared/run --coordinator auto --resume
# ```
#
# In your own loop, add two things to this page's program: the processes must find each other before JAX does anything,
# and each supplies its own share of a batch.
#
# ```python
# jax.distributed.initialize("first-host:1234", num_processes=2, process_id=I)
# mesh = bsojax.data_mesh()  # the devices of all processes
# over_devices = jax.NamedSharding(mesh, jax.P("batch"))
# x = jax.make_array_from_process_local_data(over_devices, my_x)  # my_x: this process's share of the batch
# ```
#
# You can try both commands on one computer, in two terminals, with `--coordinator 127.0.0.1:1234`. What was tried, and
# what was not (no pod and no network between hosts), is in [Scaling](../SCALING.md).
#
# ## Where to go next
#
# - [Scaling](../SCALING.md): tables of bytes exchanged and memory per device.
# - [Reliability](../RELIABILITY.md): what happens when a host is killed.
# - [Parts of your own](../EXTENDING.md): your own exchange between devices.
