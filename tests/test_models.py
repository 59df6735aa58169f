"""The networks of the paper: what they hold, how they are built, and that every part of them learns."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import often

import bsojax
from bsojax.models import SpikingMLP, SpikingResNet, SpikingVGG

all_models = (
    (SpikingMLP(features=(32, 10), num_classes=3), (4, 4, 5)),
    (SpikingVGG(num_classes=3, channels=(4, "M", 6)), (4, 6, 6, 2)),
)
each_model = pytest.mark.parametrize(("model", "shape"), all_models, ids=["mlp", "vgg"])
resnet = (SpikingResNet(num_classes=3, stages=(1, 1), width=4), (4, 9, 9, 2))
models_and_resnet = dict(zip(("mlp", "vgg", "resnet"), (*all_models, resnet), strict=True))
each_model_and_resnet = pytest.mark.parametrize(("model", "shape"), models_and_resnet.values(), ids=models_and_resnet)
each_model_and_rarely_resnet = pytest.mark.parametrize(("model", "shape"), often(models_and_resnet, "mlp", "vgg"))
key = jax.random.key(0)


def shapes_of(model, shape):
    """The shapes of a model's variables; nothing is run."""
    init = functools.partial(model.init, train=True, time_step=0)
    return jax.eval_shape(init, key, jax.ShapeDtypeStruct(shape, jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def start(model, frame):
    """A model's variables without the state of its neurons, so that every forward pass starts from rest."""
    variables = model.init(key, frame, train=True, time_step=0)
    return {name: variables[name] for name in ("signs", "params", "batch_stats")}


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "time_step"))
def forward(model, variables, frame, train=False, time_step=None):
    """Returns the logits and all collections that a forward pass changed."""
    mutable = ["batch_stats", "neurons", "spike_rates"]
    return model.apply(variables, frame, train, time_step, mutable=mutable)


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def frame_of(shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(("num_classes", "real"), [(10, 12_426), (100, 58_596)])
def test_the_default_vgg_has_the_papers_size(num_classes, real):
    variables = shapes_of(SpikingVGG(num_classes=num_classes), (1, 32, 32, 3))
    assert size(variables["signs"]) == 9_216_000
    assert size(variables["params"]) == real
    assert all(leaf.dtype == jnp.bool_ for leaf in jax.tree.leaves(variables["signs"]))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(("num_classes", "real"), [(10, 12_426), (101, 59_109)])
def test_the_default_vgg_on_event_frames_has_one_input_channel_less(num_classes, real):
    variables = shapes_of(SpikingVGG(num_classes=num_classes), (1, 48, 48, 2))
    assert size(variables["signs"]) == 9_216_000
    assert size(variables["params"]) == real - 3 * 3 * 64
    sides = {name: leaf["membrane"].shape[1] for name, leaf in variables["neurons"].items()}
    assert sides == {f"neuron_{index}": (48, 48, 24, 24, 12, 12, 6, 6)[index] for index in range(8)}


@pytest.mark.slow
def test_a_narrow_vgg_trains_on_a_sequence_of_event_frames():
    num_steps, y = 10, np.arange(4) % 3
    x = np.random.default_rng(0).poisson(0.5, (num_steps, 4, 48, 48, 2)).astype(np.float32)
    model = SpikingVGG(num_classes=3, channels=(2, "M", 4, "M", 4, "M", 6))
    tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps, 0.9, 0.99), optax.sgd(0.1))
    state = bsojax.init(model, tx, key, x[0])
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = bsojax.make_train_step(model, tx, num_steps)(state, x, y)
    assert (int(state.step), int(state.skipped)) == (1, 0)
    assert np.isfinite(metrics["loss"])
    assert set(metrics["flips"]) == {f"conv_{index}/kernel" for index in range(1, 4)}
    assert all(count > 0 for count in metrics["flips"].values())
    assert all(0 < rate < 1 for rate in metrics["spikes"].values())
    assert all(np.any(old != new) for old, new in zip(*map(jax.tree.leaves, (before, state.params)), strict=True))


def test_the_default_vgg_has_the_papers_layers():
    variables = shapes_of(SpikingVGG(), (2, 32, 32, 3))
    channels = (3, 64, 128, 256, 256, 512, 512, 512, 512)
    sides = (32, 32, 16, 16, 8, 8, 4, 4)  # Pooling stands before the 3rd, 5th and 7th convolution.
    kernels = {**variables["signs"], **variables["params"]}
    for index, side in enumerate(sides):
        before, after = channels[index : index + 2]
        assert kernels[f"conv_{index}"]["kernel"].shape == (3, 3, before, after)
        assert variables["neurons"][f"neuron_{index}"]["membrane"].shape == (2, side, side, after)
        assert variables["batch_stats"][f"norm_{index}"]["mean"].shape == (after,)
    assert set(variables["signs"]) == {f"conv_{index}" for index in range(1, 8)}
    norms = {f"norm_{index}" for index in range(8)}
    assert set(variables["params"]) == {"conv_0", "readout"} | norms
    assert kernels["readout"]["kernel"].shape == (512, 10)


def test_the_vggs_layers_do_not_depend_on_the_size_of_the_image():
    small, large = (shapes_of(SpikingVGG(), (1, side, side, 3)) for side in (8, 40))
    assert small["signs"] == large["signs"]
    assert small["params"] == large["params"]


def test_mlp_layers():
    variables = shapes_of(SpikingMLP(features=(20, 30, 40), num_classes=7), (5, 4, 3))
    assert {name: leaves["kernel"].shape for name, leaves in variables["signs"].items()} == {
        "dense_1": (20, 30),
        "dense_2": (30, 40),
    }
    assert variables["params"]["dense_0"]["kernel"].shape == (12, 20)
    assert variables["params"]["readout"]["kernel"].shape == (40, 7)
    assert {name: leaves["membrane"].shape for name, leaves in variables["neurons"].items()} == {
        "neuron_0": (5, 20),
        "neuron_1": (5, 30),
        "neuron_2": (5, 40),
    }


@each_model
def test_binary_ends_leave_only_the_norms_real(model, shape):
    real, binary = shapes_of(model, shape), shapes_of(model.clone(binary_ends=True), shape)
    assert set(binary["params"]) == {name for name in real["params"] if name.startswith("norm_")}
    assert set(binary["signs"]) == set(real["signs"]) | (set(real["params"]) - set(binary["params"]))
    for name in set(binary["signs"]) - set(real["signs"]):
        assert binary["signs"][name]["kernel"].shape == real["params"][name]["kernel"].shape


@each_model
def test_a_binary_readout_is_scaled_to_the_size_of_its_input(model, shape):
    # With norms that give a constant 1 and a low threshold all neurons fire.
    model = model.clone(binary_ends=True, neuron=functools.partial(bsojax.LIF, v_threshold=0.5))
    variables = start(model, frame_of(shape))
    ones = {"scale": jnp.zeros_like, "bias": jnp.ones_like}
    variables["params"] = jax.tree_util.tree_map_with_path(lambda path, p: ones[path[-1].key](p), variables["params"])
    logits, _ = forward(model, variables, frame_of(shape))
    weights = bsojax.to_weights(variables["signs"]["readout"]["kernel"])
    expected = weights.sum(0, keepdims=True).repeat(len(logits), 0) / math.sqrt(len(weights))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@each_model_and_rarely_resnet
def test_norms_that_keep_statistics_of_each_time_step(model, shape):
    neuron, norm = functools.partial(bsojax.LIF, v_threshold=0.1), functools.partial(bsojax.BatchNorm, num_steps=3)
    model, frame = model.clone(neuron=neuron, norm=norm), frame_of(shape)
    variables = start(model, frame)
    _, changed = forward(model, variables, frame, train=True, time_step=1)
    for old, new in zip(*map(jax.tree.leaves, (variables["batch_stats"], changed["batch_stats"])), strict=True):
        assert len(old) == 3
        assert np.any(old[1] != new[1])
        np.testing.assert_array_equal(old[::2], new[::2])
    with pytest.raises(ValueError, match=r"^time_step: "):
        forward(model, variables, frame, train=True)


@each_model
def test_other_neurons(model, shape):
    neuron = functools.partial(bsojax.IF, v_threshold=0.25, trace=None)
    frame = frame_of(shape)
    variables = start(model, frame)
    _, changed = forward(model.clone(neuron=neuron), variables, frame, train=True)
    _, usual = forward(model, variables, frame, train=True)
    assert all(set(state) == {"membrane"} for state in changed["neurons"].values())
    assert all(set(state) == {"membrane", "trace"} for state in usual["neurons"].values())
    # Of a normalised current two fifths lie above the lower threshold, a sixth above the usual one.
    assert 0.3 < float(changed["spike_rates"]["neuron_0"]["rate"]) < 0.5
    assert 0.08 < float(usual["spike_rates"]["neuron_0"]["rate"]) < 0.25


@each_model
@pytest.mark.parametrize("binary_ends", [False, True])
def test_every_parameter_gets_a_gradient(model, shape, binary_ends):
    neuron = functools.partial(bsojax.LIF, v_threshold=0.3)
    model, frame = model.clone(binary_ends=binary_ends, neuron=neuron), frame_of((8, *shape[1:]))
    variables = start(model, frame)

    def loss(trainable):
        logits, _ = forward(model, {**variables, **trainable}, frame, train=True)
        assert logits.shape == (8, 3)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(8) % 3).mean()

    _, grads = jax.jit(bsojax.value_and_grad(loss))({name: variables[name] for name in ("signs", "params")})
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.all(np.isfinite(grad)), name
        # The norm behind it subtracts the first bias again.
        assert np.mean(grad != 0) > 0.4 or name in ("params/dense_0/bias", "params/conv_0/bias"), name


@each_model_and_rarely_resnet
def test_evaluation_normalises_each_example_alike(model, shape):
    frame = frame_of(shape)
    variables = start(model, frame)
    logits, changed = forward(model, variables, frame)
    alone, _ = forward(model, variables, frame[:1])
    np.testing.assert_allclose(logits[:1], alone, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, changed["batch_stats"], variables["batch_stats"])


@each_model_and_resnet
def test_tabulate_shows_the_collections(model, shape):
    table = model.tabulate(key, jnp.ones(shape), train=True, time_step=0, console_kwargs={"width": 240})
    for word in ("signs", "params", "batch_stats", "neurons", "bool", "readout"):
        assert word in table


def test_an_image_too_small_for_the_pooling_raises():
    with pytest.raises(ValueError, match=r"^window: "):
        shapes_of(SpikingVGG(channels=(4, "M", "M")), (1, 3, 3, 3))
