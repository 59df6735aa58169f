"""Online gradients and updates of two small networks: the released code's numbers, and backpropagation through time."""

import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import bsojax

pytestmark = pytest.mark.optimised

all_traces = {"bso": bsojax.ndot_released, "ottt": bsojax.ottt, "sltt": None}
each_trace = pytest.mark.parametrize("prefix", all_traces)


def golden_files(pattern):
    tests = pathlib.Path(__file__).resolve().parent
    # Keyed by their bytes, so that a file that lies in both places is run once.
    folders = (tests.parents[1] / "shared" / "golden", tests / "golden")
    files = {path.read_bytes(): path for folder in folders for path in sorted(folder.glob(pattern))}
    return [pytest.param(path, id=f"{path.parents[1].name}-{path.stem}") for path in files.values()]


conv_files, dense_files = golden_files("e_conv_bneval_*.npz"), golden_files("e_dense_*.npz")
each_file = pytest.mark.parametrize("path", [*conv_files, *dense_files])


class ConvNet(nn.Module):
    """The convolutional network; layers bear the numbers of the recording."""

    channels: tuple[int, int, int]
    num_classes: int
    neuron: Any

    @nn.compact
    def __call__(self, x, train=False):
        del train  # the recording's norms stand still
        spikes = []
        for index, width in zip((0, 3, 7), self.channels, strict=True):
            kind = bsojax.BinaryConv if index else bsojax.Conv
            x = bsojax.BatchNorm(name=f"features_{index + 1}")(kind(width, (3, 3), name=f"features_{index}")(x))
            x = self.neuron(name=f"neuron_{len(spikes)}")(x)
            spikes.append(x)
            x = bsojax.avg_pool(x, 2) if index == 3 else x
        self.sow("intermediates", "spikes", spikes)
        return bsojax.Dense(self.num_classes, name="classifier_0")(bsojax.global_avg_pool(x))


class DenseNet(nn.Module):
    """The fully connected network."""

    widths: tuple[int, int, int]
    num_classes: int
    neuron: Any

    @nn.compact
    def __call__(self, x):
        spikes = []
        for index, width in zip((0, 3, 6), self.widths, strict=True):
            name = f"features_{index}"
            layer = bsojax.BinaryDense(width, lambda _: 0.37, name=name) if index else bsojax.Dense(width, name=name)
            x = self.neuron(name=f"neuron_{len(spikes)}")(layer(x))
            spikes.append(x)
        self.sow("intermediates", "spikes", spikes)
        return bsojax.Dense(self.num_classes, name="classifier_0")(x)


def network(golden, trace):
    tau, alpha = float(golden["tau"]), float(golden["alpha"])
    neuron = functools.partial(bsojax.LIF, tau=tau, trace=trace, surrogate=bsojax.sigmoid(alpha))
    kind = ConvNet if is_conv(golden) else DenseNet
    widths = tuple(len(golden[f"init/features.{i}.weight"]) for i in ((0, 3, 7) if kind is ConvNet else (0, 3, 6)))
    return kind(widths, len(golden["init/classifier.0.bias"]), neuron)


def is_conv(golden):
    return golden["init/features.0.weight"].ndim == 4


def channels_last(image):
    """From NCHW, or rows that stay as they are, with any leading axes."""
    return np.moveaxis(image, -3, -1) if image.ndim > 3 else image


def kernel_of(weight, shape):
    """From OIHW or (out, in), of the given shape, with any leading axes."""
    if len(shape) == 4:
        return np.moveaxis(weight, (-2, -1, -3, -4), (-4, -3, -2, -1))
    return np.swapaxes(weight, -1, -2)


def tree_of(golden, arrays):
    """Sorts arrays by PyTorch name into {"signs": ..., "params": ..., "batch_stats": ...}, in the layouts of JAX."""
    tree = {"signs": {}, "params": {}, "batch_stats": {}}
    renamed = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    for name, value in arrays.items():
        path, _, leaf = name.rpartition(".")
        shape = golden[f"init/{name}"].shape
        collection = "batch_stats" if leaf.startswith("running") else "params"
        if leaf == "weight" and len(shape) > 1:
            value, leaf = kernel_of(np.asarray(value), shape), "kernel"
            collection = "params" if f"init/{path}.bias" in golden else "signs"
        tree[collection].setdefault(path.replace(".", "_"), {})[renamed.get(leaf, leaf)] = jnp.asarray(value)
    return {name: leaves for name, leaves in tree.items() if leaves}


def read(golden, prefix, names=("weight", "bias")):
    arrays = {key.removeprefix(prefix): golden[key] for key in golden.files if key.startswith(prefix)}
    return tree_of(golden, {name: value for name, value in arrays.items() if name.endswith(names)})


def initial(golden):
    """Returns the trainable tree, with boolean signs, and the running statistics."""
    trainable = read(golden, "init/")
    assert all(np.all(np.abs(leaf) == 1) for leaf in jax.tree.leaves(trainable["signs"]))
    buffers = read(golden, "init/", ("running_mean", "running_var"))
    return {**trainable, "signs": bsojax.to_signs(trainable["signs"])}, buffers.get("batch_stats", {})


def loss_of(golden):
    mse = bsojax.cross_entropy_mse(float(golden["loss_lambda"]))
    return lambda logits: mse(logits, jnp.asarray(golden["y"])) / int(golden["T"])


def at(tree, t):
    return jax.tree.map(lambda leaf: leaf[t], tree)


def close(actual, expected, rtol=1e-5, atol=1e-7):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=rtol, atol=atol), actual, expected)


@functools.cache
def online(path, trace, tx=None):
    """Runs the time steps; returns what each computed, and the parameters after it where there is an optimizer."""
    golden = np.load(path)
    model = network(golden, trace)
    trainable, batch_stats = initial(golden)

    def objective(trainable, neurons, frame):
        variables = {**trainable, "batch_stats": batch_stats, "neurons": neurons}
        logits, changed = model.apply(variables, frame, mutable=["neurons", "intermediates"])
        loss = loss_of(golden)(logits)
        return loss, (logits, changed["neurons"], changed["intermediates"]["spikes"][0])

    def step(carry, inputs):
        trainable, opt_state, neurons = carry
        t, frame = inputs
        (loss, (logits, neurons, spikes)), grads = bsojax.value_and_grad(objective, has_aux=True)(
            trainable, neurons, frame
        )
        if tx is not None:
            updates, opt_state = tx.update(grads, opt_state, trainable, time_step=t)
            trainable = bsojax.apply_updates(trainable, updates)
        membranes = [neurons[f"neuron_{j}"]["membrane"] for j in range(len(spikes))]
        record = {"loss": loss, "logits": logits, "grads": grads, "v": membranes, "spikes": spikes, "after": trainable}
        return (trainable, opt_state, neurons), record

    frames = jnp.asarray(channels_last(golden["x"]))

    @jax.jit
    def run(trainable, frames):
        rest = model.init(jax.random.key(0), frames[0])["neurons"]
        carry = (trainable, () if tx is None else tx.init(trainable), rest)
        return lax.scan(step, carry, (jnp.arange(len(frames)), frames))[1]

    return run(trainable, frames)


def check_forward(golden, prefix, record):
    close(record["logits"], golden[f"{prefix}/logits"], atol=1e-6)
    close(record["loss"], golden[f"{prefix}/loss"])
    for j, (membrane, spikes) in enumerate(zip(record["v"], record["spikes"], strict=True)):
        close(membrane, channels_last(golden[f"{prefix}/v{j}"]), rtol=0, atol=2e-6)
        if f"{prefix}/spike{j}" in golden:
            np.testing.assert_array_equal(spikes.value, channels_last(golden[f"{prefix}/spike{j}"]))
        if spikes.trace is not None:
            # NDOT's is a product of quotients of membranes, whose last places differ between compilers.
            close(spikes.trace, channels_last(golden[f"{prefix}/trace{j}"]), rtol=3e-5, atol=1e-6)


@each_trace
@each_file
def test_forward_values_and_gradients_agree_with_the_released_code(path, prefix):
    golden, record = np.load(path), online(path, all_traces[prefix])
    check_forward(golden, prefix, record)
    assert all((spikes.trace is None) == (prefix == "sltt") for spikes in record["spikes"])
    close(record["grads"], read(golden, f"{prefix}/grad/"))


def optimizer(golden, name):
    threshold, beta1, beta2, rate = (
        float(golden[f"{name}/hyper_{key}"]) for key in ("threshold", "beta1", "beta2", "lr")
    )
    if name == "update_tbso":
        flip = bsojax.t_bso(threshold, int(golden["T"]), b1=1 - beta1, b2=1 - beta2)
    else:
        flip = bsojax.bso(threshold, b1=1 - beta1, reset_on_flip=True)
    return bsojax.split_optimizer(flip=flip, real=optax.sgd(rate))


each_update = pytest.mark.parametrize("name", ["update_tbso", "update_bso"])


@each_update
@pytest.mark.parametrize("path", conv_files)
def test_updates_after_every_time_step_agree_with_the_released_code(path, name):
    golden = np.load(path)
    record = online(path, bsojax.ndot_released, optimizer(golden, name))
    after = read(golden, f"{name}/param/")
    before = bsojax.to_weights(initial(golden)[0]["signs"])
    assert all(np.any(before[layer]["kernel"] != after["signs"][layer]["kernel"][-1]) for layer in before)
    jax.tree.map(np.testing.assert_array_equal, bsojax.to_weights(record["after"]["signs"]), after["signs"])
    close(record["after"]["params"], after["params"], atol=1e-6)
    close(record["grads"], read(golden, f"{name}/grad/"), rtol=2e-5, atol=2e-7)
    check_forward(golden, name, record)


@each_update
@pytest.mark.parametrize("path", conv_files)
def test_the_training_step_ends_where_the_released_code_does(path, name):
    golden = np.load(path)
    model, tx = network(golden, bsojax.ndot_released), optimizer(golden, name)
    trainable, batch_stats = initial(golden)
    frames = jnp.asarray(channels_last(golden["x"]))
    state = bsojax.TrainState(
        **jax.tree.map(jnp.copy, trainable),
        batch_stats=batch_stats,
        opt_state=tx.init(trainable),
        step=jnp.int32(0),
        skipped=jnp.int32(0),
        input_shape=frames.shape[2:],
    )
    step = bsojax.make_train_step(model, tx, len(frames), loss=bsojax.cross_entropy_mse(float(golden["loss_lambda"])))
    state, metrics = step(state, frames, jnp.asarray(golden["y"], jnp.int32))
    after = at(read(golden, f"{name}/param/"), -1)
    jax.tree.map(np.testing.assert_array_equal, bsojax.to_weights(state.signs), after["signs"])
    close(state.params, after["params"], atol=1e-6)
    close(metrics["loss"], golden[f"{name}/loss"].sum())
    for j in range(3):
        assert float(metrics["spikes"][f"neuron_{j}"]) == pytest.approx(golden[f"{name}/spike{j}"].mean(), rel=1e-5)


@each_file
def test_the_last_binary_layers_ottt_gradient_is_that_of_backpropagation_through_time(path):
    golden = np.load(path)
    exact = read(golden, "bptt/grad/")
    summed = jax.tree.map(lambda leaf: leaf.sum(0), online(path, bsojax.ottt)["grads"])
    *earlier, last = sorted(exact["signs"])
    scale = float(np.abs(exact["signs"][last]["kernel"]).max())
    close(summed["signs"][last], exact["signs"][last], atol=1e-6 * scale)
    # Of earlier layers the paths through later membranes are missing, so that this agreement is no accident.
    for layer in earlier:
        assert not np.allclose(summed["signs"][layer]["kernel"], exact["signs"][layer]["kernel"], rtol=0.1)


@each_file
def test_the_readouts_gradient_without_a_trace_is_that_of_backpropagation_through_time(path):
    # The readout has no memory: its exact presynaptic factor is the spike of the moment, and a trace is a choice of
    # the method. Its bias has none, and is exact with every rule.
    exact = read(np.load(path), "bptt/grad/")["params"]["classifier_0"]
    for prefix, trace in all_traces.items():
        summed = online(path, trace)["grads"]["params"]["classifier_0"]
        close(summed["bias"].sum(0), exact["bias"], atol=1e-7)
        same = np.allclose(summed["kernel"].sum(0), exact["kernel"], rtol=1e-5, atol=1e-7)
        assert same == (prefix == "sltt")


def plain_loss(golden, weights):
    """The loss of the first time step in PyTorch's layouts, without any custom derivative."""
    alpha = float(golden["alpha"])

    def fire(current):  # From rest the membrane is the current.
        smooth = jax.nn.sigmoid(alpha * (current - 1))
        return lax.stop_gradient((current >= 1) - smooth) + smooth

    x = jnp.asarray(golden["x"][0])
    for index in (0, 3, 7) if is_conv(golden) else (0, 3, 6):
        weight = weights[f"features.{index}.weight"]
        bias = weights.get(f"features.{index}.bias")
        if not is_conv(golden):
            x = fire(0.37 * (x @ weight.T) if bias is None else x @ weight.T + bias.reshape(1, -1))
            continue
        x = lax.conv_general_dilated(x, weight, (1, 1), "SAME")
        each = lambda vector: vector.reshape(1, -1, 1, 1)  # noqa: E731
        x = x if bias is None else x + each(bias)
        norm = f"features.{index + 1}"
        mean, var = (jnp.asarray(golden[f"init/{norm}.running_{name}"]) for name in ("mean", "var"))
        x = (x - each(mean)) / jnp.sqrt(each(var) + 1e-5)
        x = fire(x * each(weights[f"{norm}.weight"]) + each(weights[f"{norm}.bias"]))
        if index == 3:
            x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))
    x = x.mean((2, 3)) if is_conv(golden) else x
    bias = weights["classifier.0.bias"]
    return loss_of(golden)(x @ weights["classifier.0.weight"].T + bias.reshape(1, -1))


@each_file
def test_the_first_time_steps_gradient_is_the_ordinary_one(path):
    golden = np.load(path)
    names = [key.removeprefix("sltt/grad/") for key in golden.files if key.startswith("sltt/grad/")]
    weights = {name: jnp.asarray(golden[f"init/{name}"]) for name in names}
    loss, grads = jax.jit(jax.value_and_grad(functools.partial(plain_loss, golden)))(weights)
    for trace in all_traces.values():
        record = online(path, trace)
        assert float(loss) == pytest.approx(float(record["loss"][0]), rel=1e-5)
        close(at(record["grads"], 0), tree_of(golden, grads))
