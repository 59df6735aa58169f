"""The residual network: its size, its wiring against plain JAX, its online gradient, and that all of it learns."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import often, rarely
from jax import lax

import bsojax
from bsojax.models import SpikingResNet, cifar_stem, imagenet_stem

key = jax.random.key(0)
SMALL = SpikingResNet(num_classes=3, stages=(1, 1), width=4, stem=cifar_stem)
SHAPE = (4, 7, 6, 2)
T = 3


def frame_of(shape=SHAPE, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def shapes_of(model, shape, dtype=jnp.float32):
    """The shapes of a model's variables; nothing is run."""
    init = functools.partial(model.init, train=True, time_step=0)
    return jax.eval_shape(init, key, jax.ShapeDtypeStruct(shape, dtype))


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.cache
def drawn(model=SMALL):
    """Variables without the neurons' state, with norms that are not the identity."""
    variables = jax.jit(functools.partial(model.init, train=True, time_step=0))(key, frame_of())
    flat, structure = jax.tree.flatten({name: variables[name] for name in ("params", "batch_stats")})
    rng = np.random.default_rng(1)
    noisy = [leaf * rng.uniform(0.7, 1.4, leaf.shape) + rng.uniform(-0.2, 0.2, leaf.shape) for leaf in flat]
    noisy = [
        np.abs(leaf).astype(np.float32) if np.all(old == 1) else leaf for leaf, old in zip(noisy, flat, strict=True)
    ]
    return {"signs": variables["signs"], **jax.tree.unflatten(structure, [jnp.float32(leaf) for leaf in noisy])}


defaults = {
    "imagenet": (SpikingResNet(), 224, 704_040),
    "cifar10": (SpikingResNet(num_classes=10, stem=cifar_stem), 32, 188_490),
    "cifar100": (SpikingResNet(num_classes=100, stem=cifar_stem), 32, 234_660),
}


@pytest.mark.parametrize(("model", "side", "real"), often(defaults, "cifar100"))
def test_the_default_has_the_size_that_its_docstring_states(model, side, real):
    variables = shapes_of(model, (1, side, side, 3))
    assert size(variables["signs"]) == 10_985_472
    assert size(variables["params"]) == real
    assert size(variables["batch_stats"]) == 9_600
    summary = bsojax.summarize(model, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    assert (summary.binary_weights, summary.real_parameters, summary.statistics) == (10_985_472, real, 9_600)
    assert summary.stored_bytes == 10_985_472 // 8 + 4 * (real + 9_600)
    for number in (10_985_472, 704_040, 513_000, 172_032, 9_600, 4_227_744, 46_796_448, 188_490):
        assert f"{number:,}" in SpikingResNet.__doc__


def test_only_the_3x3_convolutions_of_the_blocks_are_binary():
    variables = shapes_of(SpikingResNet(), (1, 224, 224, 3))
    places = [f"stage_{stage}_block_{block}" for stage in range(4) for block in range(2)]
    assert set(variables["signs"]) == {f"{place}_conv_{layer}" for place in places for layer in range(2)}
    norms = {f"{place}_norm_{layer}" for place in places for layer in range(2)}
    shortcuts = {f"stage_{stage}_block_0_shortcut_{part}" for stage in (1, 2, 3) for part in ("conv", "norm")}
    assert set(variables["params"]) == norms | shortcuts | {"stem_conv", "stem_norm", "readout"}
    for name, leaves in variables["signs"].items():
        stage, block, layer = (int(part) for part in name.split("_")[1::2])
        after = 64 * 2**stage
        before = after // 2 if stage > 0 and block == 0 and layer == 0 else after
        assert leaves["kernel"].shape == (3, 3, before, after)
        assert leaves["kernel"].dtype == jnp.bool_
    for stage in (1, 2, 3):
        kernel = variables["params"][f"stage_{stage}_block_0_shortcut_conv"]
        assert {part: leaf.shape for part, leaf in kernel.items()} == {"kernel": (1, 1, 32 * 2**stage, 64 * 2**stage)}


@pytest.mark.parametrize("stem", [imagenet_stem, cifar_stem], ids=["imagenet", "cifar"])
@pytest.mark.parametrize("side", [1, 5, 14, *rarely(2, 7, 9, 33, 224)])
def test_the_side_halves_rounding_up(stem, side):
    model = SpikingResNet(num_classes=5, stages=(1, 2, 1), width=2, stem=stem)
    neurons = shapes_of(model, (2, side, side + 1, 3))["neurons"]

    def after(halvings):
        return tuple(math.ceil(length / 2**halvings) for length in (side, side + 1))

    start = 2 if stem is imagenet_stem else 0
    for stage, block in ((0, 0), (1, 0), (1, 1), (2, 0)):
        membrane = neurons[f"stage_{stage}_block_{block}_neuron_1"]["membrane"]
        assert membrane.shape == (2, *after(start + stage), 2 * 2**stage)
    assert neurons["readout_neuron"]["membrane"].shape == (2, *after(start + 2), 8)


def test_the_layers_do_not_depend_on_the_size_of_the_image_and_keep_its_dtype():
    small, large = (shapes_of(SpikingResNet(), (1, side, side, 3)) for side in (32, 224))
    assert small["signs"] == large["signs"]
    assert small["params"] == large["params"]
    neurons = shapes_of(SMALL, SHAPE, jnp.bfloat16)["neurons"]
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(neurons))


def reference(trainable, stats, x):
    """SMALL at its first time step and with running statistics, written out in plain JAX."""

    def norm(current, name):
        parts = {**trainable["params"][name], **stats[name]}
        scale, bias, mean, var = (parts[part].reshape(1, 1, 1, -1) for part in ("scale", "bias", "mean", "var"))
        return (current - mean) / jnp.sqrt(var + 1e-5) * scale + bias

    def conv(image, kernel, stride=1):
        return lax.conv_general_dilated(
            image, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def spike(current):
        return bsojax.sigmoid(4.0)(current - 1.0)

    def branch(current, name, layer, stride=1):
        kernel = bsojax.to_weights(trainable["signs"][f"{name}_conv_{layer}"]["kernel"])
        return norm(conv(spike(current), kernel, stride), f"{name}_norm_{layer}")

    def pooled(image):
        ones = jnp.ones_like(image[:1, :, :, :1])
        window = ((1, 2, 2, 1), (1, 2, 2, 1), "SAME")
        return lax.reduce_window(image, 0.0, lax.add, *window) / lax.reduce_window(ones, 0.0, lax.add, *window)

    params = trainable["params"]
    current = norm(conv(x, params["stem_conv"]["kernel"]), "stem_norm")
    current = current + branch(current, "stage_0_block_0", 0)
    current = current + branch(current, "stage_0_block_0", 1)
    shortcut = conv(pooled(current), params["stage_1_block_0_shortcut_conv"]["kernel"])
    current = norm(shortcut, "stage_1_block_0_shortcut_norm") + branch(current, "stage_1_block_0", 0, stride=2)
    current = current + branch(current, "stage_1_block_0", 1)
    return spike(current).mean((1, 2)) @ params["readout"]["kernel"] + params["readout"]["bias"].reshape(1, -1)


def test_logits_and_gradients_of_the_first_time_step_are_those_of_plain_jax():
    # From rest the trace is the spike, so that the online gradient is the ordinary one.
    variables, x = drawn(), frame_of()
    stats = variables["batch_stats"]
    trainable = {name: variables[name] for name in ("signs", "params")}
    cotangent = frame_of((4, 3), seed=2)

    def online(weights):
        logits = SMALL.apply({**weights, "batch_stats": stats}, x, mutable=["neurons"])[0]
        return jnp.sum(logits * cotangent), logits

    def plain(weights):
        logits = reference(weights, stats, x)
        return jnp.sum(logits * cotangent), logits

    (_, logits), grads = jax.jit(bsojax.value_and_grad(online, has_aux=True))(trainable)
    (_, want), want_grads = jax.jit(bsojax.value_and_grad(plain, has_aux=True))(trainable)
    np.testing.assert_allclose(logits, want, rtol=1e-4, atol=1e-5)
    for (path, got), expected in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(want_grads), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5, err_msg=name)
        assert np.mean(np.abs(got) > 1e-7) > 0.4, name


def captured(model, variables, x, kind):
    """The first argument of each call of a kind of module, by the module's name."""
    inputs = {}

    def look(call, args, kwargs, context):
        if isinstance(context.module, kind) and context.method_name == "__call__":
            inputs[context.module.name] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        model.apply(variables, x, True, 0, mutable=["neurons", "batch_stats"])
    return inputs


def test_shortcuts_are_real_and_binary_convolutions_see_spikes():
    for name, spikes in captured(SMALL, drawn(), frame_of(), bsojax.BinaryConv).items():
        assert isinstance(spikes, bsojax.Spikes), name
        assert spikes.trace is not None, name
        assert set(np.unique(spikes.value)) == {0, 1}, name
    currents = captured(SMALL, drawn(), frame_of(), (bsojax.LIF, bsojax.Conv))
    assert len(currents) == 5 + 2
    for name, current in currents.items():
        assert isinstance(current, jax.Array), name
        # Nearly all values differ, where spikes, or sums of a few, would repeat.
        assert len(np.unique(current)) > 0.9 * current.size, name


def test_with_silent_branches_the_stems_current_reaches_the_last_neuron_of_its_stage_unchanged():
    variables = drawn()
    silent = {
        name: jax.tree.map(jnp.zeros_like, leaves) if "_norm_" in name else leaves
        for name, leaves in variables["params"].items()
    }
    currents = captured(SMALL, {**variables, "params": silent}, frame_of(), bsojax.LIF)
    first = currents["stage_0_block_0_neuron_0"]
    for name in ("stage_0_block_0_neuron_1", "stage_1_block_0_neuron_0"):
        np.testing.assert_array_equal(currents[name], first)
    last = currents["readout_neuron"]
    np.testing.assert_array_equal(currents["stage_1_block_0_neuron_1"], last)
    loud = captured(SMALL, variables, frame_of(), bsojax.LIF)
    assert np.mean(loud["stage_1_block_0_neuron_0"] != first) > 0.9


def test_binary_weights_learn_from_traces_and_real_shortcuts_from_their_current():
    variables, x = drawn(), frame_of()
    _, rest = SMALL.apply(variables, x, mutable=["neurons"])
    rest = jax.tree.map(jnp.zeros_like, rest["neurons"])

    @jax.jit
    def grads(factor):
        neurons = {
            name: {**state, "trace": factor * frame_of(state["trace"].shape, seed=3)} for name, state in rest.items()
        }

        def loss(weights):
            fixed = {"batch_stats": variables["batch_stats"], "neurons": neurons}
            return SMALL.apply({**weights, **fixed}, x, mutable=["neurons"])[0].sum()

        return bsojax.value_and_grad(loss)({name: variables[name] for name in ("signs", "params")})[1]

    zero, one, two = (grads(factor) for factor in (0.0, 1.0, 2.0))
    for name in zero["signs"]:
        step = one["signs"][name]["kernel"] - zero["signs"][name]["kernel"]
        assert np.mean(step != 0) > 0.9, name
        assert np.max(np.abs(step)) > 0.01, name
        twice = two["signs"][name]["kernel"] - zero["signs"][name]["kernel"]
        np.testing.assert_allclose(twice, 2 * step, rtol=1e-3, atol=1e-4)
    # The readout, too, reads spikes; everything else is as without traces.
    assert np.any(zero["params"].pop("readout")["kernel"] != one["params"].pop("readout")["kernel"])
    for old, new in zip(*map(jax.tree.leaves, (zero["params"], one["params"])), strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-5, atol=1e-6)


def test_no_gradient_flows_through_time():
    variables, x = drawn(), frame_of()
    _, changed = SMALL.apply(variables, x, mutable=["neurons"])

    def loss(neurons):
        return SMALL.apply({**variables, "neurons": neurons}, x, mutable=["neurons"])[0].sum()

    assert all(not np.any(grad) for grad in jax.tree.leaves(jax.jit(jax.grad(loss))(changed["neurons"])))


@pytest.mark.parametrize("sequence", often({"static": False, "sequence": True}, "sequence"))
def test_training_flips_every_layer_and_lowers_the_loss(sequence):
    neuron = functools.partial(bsojax.LIF, v_threshold=0.5)
    norm = functools.partial(bsojax.BatchNorm, num_steps=T) if sequence else bsojax.BatchNorm
    model = SMALL.clone(neuron=neuron, norm=norm)
    tx = bsojax.split_optimizer(bsojax.t_bso(0.2, T, 0.9, 0.99, debias=True), optax.sgd(0.1, momentum=0.9))
    y = np.arange(12) % 3
    x = np.random.default_rng(0).random((T, 12, 8, 8, 1), np.float32) + y.reshape(1, 12, 1, 1, 1)
    x = x if sequence else x[0]
    step = bsojax.make_train_step(model, tx, T)
    state = bsojax.init(model, tx, key, x[0] if sequence else x)
    before = jax.tree.map(np.asarray, state.signs)
    flips, losses = dict.fromkeys(before, 0), []
    for _ in range(25):
        state, metrics = step(state, x, y)
        losses.append(float(metrics["loss"]))
        flips = {name: count + int(metrics["flips"][f"{name}/kernel"]) for name, count in flips.items()}
    assert len(flips) == 4
    for name, leaves in before.items():
        assert flips[name] > 0, name
        assert np.any(leaves["kernel"] != state.signs[name]["kernel"]), name
    assert int(state.skipped) == 0
    assert losses[-1] < 0.6 * losses[0]


def test_a_stem_of_ones_own():
    def patches(x, width, norm):
        return norm(bsojax.Conv(width, (4, 4), strides=4, name="patches")(x), "patch_norm")

    variables = shapes_of(SMALL.clone(stem=patches), (2, 16, 16, 3))
    assert variables["params"]["patches"]["kernel"].shape == (4, 4, 3, 4)
    assert variables["neurons"]["stage_0_block_0_neuron_0"]["membrane"].shape == (2, 4, 4, 4)
