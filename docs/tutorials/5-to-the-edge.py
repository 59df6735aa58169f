# %% [markdown]
# # To the edge
#
# For engineers who need a trained network on a device without Python. At the end you will have the digits network as
# C99, compiled and run on this computer and, if an emulator is installed, on an ARM processor; and the same network as
# NIR, for other simulators and neuromorphic chips, and as StableHLO, for servers.

# %%
import functools
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import bsojax
from bsojax import deploy

folder = Path(tempfile.mkdtemp())
have_cc = shutil.which("cc") is not None
have_arm = shutil.which("arm-linux-gnueabihf-gcc") is not None and shutil.which("qemu-arm-static") is not None
print("C compiler:", have_cc, "- ARM compiler and emulator:", have_arm)

# %% [markdown]
# Cells whose tool is missing say so and do nothing else.
#
# ## A network to ship
#
# A small convolutional network, trained for a few epochs. [The first tutorial](1-first-network.py) explains each line.

# %%
T, BATCH, EPOCHS = 4, 32, 4
images, labels = load_digits(return_X_y=True)
x = (images / 16).reshape(-1, 8, 8, 1).astype("float32")
x_test, y_test = x[1440:], labels[1440:]
updates = EPOCHS * (1440 // BATCH) * T

norm = functools.partial(bsojax.BatchNorm, num_steps=T)
model = bsojax.models.SpikingVGG(channels=(16, 32, "M", 32), norm=norm)
tx = bsojax.split_optimizer(bsojax.calibrated(T, updates), optax.adam(optax.cosine_decay_schedule(3e-3, updates)))
state = bsojax.init(model, tx, jax.random.key(0), x[:BATCH])
step = bsojax.make_train_step(model, tx, T)
rng = np.random.default_rng(0)
for _ in range(EPOCHS):
    for batch in rng.permutation(1440).reshape(-1, BATCH):
        state, _ = step(state, x[batch], labels[batch])
state = bsojax.refresh_statistics(model, state, x[:1440].reshape(-1, 48, 8, 8, 1), T)
answers = np.argmax(bsojax.predict(model, state, x_test, T), -1)
print(f"in JAX, float32: {np.mean(answers == y_test):.1%} of {len(y_test)} test images are right")

# %% [markdown]
# ## In whole numbers
#
# Small processors often have no floating point. `integer_network` turns the network into whole numbers: signs stay
# signs, a norm becomes an integer gain and shift per channel, and real weights become integers of up to 24 bits.
# Membranes get as many fraction bits as are *proven* safe: whatever the input, no number overflows its width.
#
# It needs to know what the inputs are. Ours are pixels from 0 to 16, divided by 16.

# %%
network = deploy.integer_network(model, state, x, T, input_scale=16, input_max=16)
whole = np.rint(x_test * 16).astype(np.uint8)
print(network.report(model, state, whole[:64]))

# %% [markdown]
# The last line says how often the integer network decides differently from JAX. `network.run` is a reference in plain
# NumPy: slow, but everything below must equal it bit for bit.

# %%
logits, spikes = network.run(whole)
print(f"in whole numbers: {np.mean(logits.argmax(-1) == y_test):.1%} right")
print(f"same answer as JAX for {np.sum(logits.argmax(-1) == answers)} of {len(answers)} images")

# %% [markdown]
# ## C on this computer
#
# `write_c` writes a header and a C file that need a C99 compiler and nothing else: no library, no allocation, no
# floating point.

# %%
network.write_c(folder, "net")
header = (folder / "net.h").read_text()
print(header[:900])

# %% [markdown]
# A program around them takes a dozen lines. It reads frames from standard input and prints a class for each.

# %%
(folder / "main.c").write_text(
    r"""
#include <stdio.h>
#include "net.h"

static net_scratch scratch;

int main(void) {
  static net_input frame[net_INPUTS];
  int32_t logits[net_LOGITS];
  while (fread(frame, sizeof frame, 1, stdin) == 1) {
    int best = 0;
    net_run(frame, logits, &scratch);
    for (int k = 1; k < net_LOGITS; k++)
      if (logits[k] > logits[best]) best = k;
    printf("%d\n", best);
  }
  return 0;
}
"""
)

# %% [markdown]
# All test images go through it, as bytes:


# %%
def build_and_run(compiler, *flags, runner=()):
    """Compiles main.c and net.c, pipes all test images through the program, and returns its answers."""
    command = [compiler, "-std=c99", *flags, "main.c", "net.c", "-o", "app"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run([*runner, folder / "app"], input=whole.tobytes(), capture_output=True, check=True)
    return np.array(done.stdout.split(), int)


if have_cc:
    from_c = build_and_run("cc", "-O3")
    different = np.sum(from_c != logits.argmax(-1))
    print(f"C: {np.mean(from_c == y_test):.1%} right, {different} answers differ from NumPy's")
else:
    print("no C compiler here")

# %% [markdown]
# ## The same on an ARM processor
#
# With a cross compiler and qemu (on Debian and Ubuntu: `apt install gcc-arm-linux-gnueabihf qemu-user-static`), the
# same two files run as a 32-bit ARM program.

# %%
if have_arm:
    from_arm = build_and_run("arm-linux-gnueabihf-gcc", "-O2", "-static", runner=["qemu-arm-static"])
    print(f"ARM: {np.sum(from_arm != logits.argmax(-1))} answers differ from NumPy's")
else:
    print("no ARM compiler and emulator here")

# %% [markdown]
# `network.run_c` does the same with all logits and all spikes, not only the answers. Run this check with your device's
# compiler and flags:

# %%
if have_cc:
    found_logits, found_spikes = network.run_c(whole, compiler="cc", flags=("-O2",))
    equal = [np.array_equal(found_spikes[name], spikes[name]) for name in spikes]
    print("logits equal:", np.array_equal(found_logits, logits), "- spikes equal:", all(equal))

# %% [markdown]
# And bare metal? A Cortex-M4 has no operating system, but sizes can be measured here:

# %%
if shutil.which("arm-none-eabi-gcc"):
    flags = ["-mcpu=cortex-m4", "-mthumb", "-std=c99", "-Os", "-ffreestanding"]
    subprocess.run(["arm-none-eabi-gcc", *flags, "-c", "net.c", "-o", "net.o"], cwd=folder, check=True)
    size = subprocess.run(["arm-none-eabi-size", "net.o"], cwd=folder, check=True, capture_output=True, text=True)
    print(size.stdout)
    print(f"flash: text; memory to work in: {network.report().scratch_bytes:,} bytes, in a struct that you place")
else:
    print("no compiler for bare metal here")

# %% [markdown]
# ## What it costs, layer by layer
#
# Most bytes are signs, at one bit each:

# %%
report = network.report()
layers = [layer for layer in report.layers if layer.weights]
fig, ax = plt.subplots(figsize=(8, 2.8), layout="constrained")
names = [layer.name for layer in layers]
ax.barh(names, [4 * layer.weights for layer in layers], color="#CCCCCC", label="weights in float32")
ax.barh(names, [layer.weight_bytes for layer in layers], color="#0072B2", label="weights as shipped")
ax.set(xlabel="bytes")
ax.invert_yaxis()
ax.legend(frameon=False)

# %% [markdown]
# ## One file
#
# Keep what you tested. `save` writes the integer network into one file; `deploy.load` proves the bounds again from what
# it reads.

# %%
network.save(folder / "net.bsojax")
same = deploy.load(folder / "net.bsojax")
print(f"{(folder / 'net.bsojax').stat().st_size:,} bytes; same logits:", np.array_equal(same.run(whole)[0], logits))

# %% [markdown]
# ## NIR, for other simulators and neuromorphic chips
#
# The [Neuromorphic Intermediate Representation](https://neuroir.org) is a graph of neurons and weights that other tools
# read. It has one set of statistics for all time steps, so a network whose norm keeps one for each is refused:

# %%
if importlib.util.find_spec("nir"):
    try:
        network.to_nir()
    except ValueError as error:
        print(f"ValueError: {error}")
else:
    print("nir is not installed: pip install 'bsojax[nir]'")

# %% [markdown]
# The cure: build the model with the plain norm, copy the trained weights into it with `transfer`, and re-estimate the
# statistics.

# %%
plain = model.clone(norm=bsojax.BatchNorm)
into = bsojax.init(plain, optax.identity(), jax.random.key(0), x[:BATCH])
plain_state, left = bsojax.transfer(state, into=into)
print("not taken over:", ", ".join(left))
plain_state = bsojax.refresh_statistics(plain, plain_state, x[:1440].reshape(-1, 48, 8, 8, 1), T)
told = bsojax.make_eval_step(plain, T)(plain_state, x_test, y_test)
print(f"with one set of statistics: {told['accuracy']:.1%}")

# %%
if importlib.util.find_spec("nir"):
    import nir

    plain_network = deploy.integer_network(plain, plain_state, x, T, input_scale=16, input_max=16)
    graph = plain_network.to_nir(dt=1e-4)
    nir.write(folder / "network.nir", graph)
    for name, node in graph.nodes.items():
        print(f"{name:12} {type(node).__name__}")

# %% [markdown]
# NIR cannot express the reset of our neurons, which subtracts the threshold; the file says so in their metadata, and
# [Deployment](../DEPLOY.md) has the lines that tell SpikingJelly and Norse. snnTorch knows only resets to zero: for it,
# train with `LIF(v_reset=0.0)`.
#
# ## StableHLO, for servers
#
# This is a program that runs wherever jax is installed, without this library, for batches of any size, with signs at
# one bit each.

# %%
if importlib.util.find_spec("flatbuffers"):
    exported = deploy.export_inference(model, state, num_steps=T).serialize()
    program = jax.export.deserialize(bytearray(exported))
    from_program = np.argmax(jax.jit(program.call)(x_test), -1)
    print(f"{len(exported):,} bytes; same answers: {np.array_equal(from_program, answers)}")
else:
    print("flatbuffers is not installed: pip install 'bsojax[export]'")

# %% [markdown]
# ## Where to go next
#
# - [Deployment](../DEPLOY.md): event streams one frame at a time, inputs that are not whole numbers, what is promised.
# - `make deploy` does this for a run of `experiments.train`.
# - [Adapt a shipped network](6-adapt.py) to new data, in little memory.
