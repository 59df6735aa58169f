"""The model summary: against the variables and outputs that real runs make, for flat, nested and borrowed modules."""

import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax
from bsojax.models import SpikingMLP, SpikingVGG

X = jax.ShapeDtypeStruct((2, 6, 6, 3), jnp.float32)
VGG = SpikingVGG(num_classes=3, channels=(4, "M", 6))


class Block(nn.Module):
    """A block with a parameter of its own beside its layers."""

    @nn.compact
    def __call__(self, x, train=False):
        gain = self.param("gain", nn.initializers.ones, (), jnp.float32)
        current = nn.BatchNorm(use_running_average=not train, name="norm")(bsojax.BinaryConv(5, (3, 3), name="conv")(x))
        return bsojax.LIF(name="neuron")(gain * current)


class Nested(nn.Module):
    """Modules made in setup, one of them called twice, inside a lifted transform and beside flax's own layers."""

    def setup(self):
        self.first = nn.Conv(5, (3, 3))
        self.block = nn.remat(Block, static_argnums=2)()
        self.pair = (nn.Dense(4), bsojax.BinaryDense(3))
        self.unused = nn.Dense(7)

    def __call__(self, x, train=False):
        x = self.block(self.block(self.first(x), train).value, train)
        return self.pair[1](self.pair[0](bsojax.flatten(x.value)))


class HeldTree(nn.Module):
    """A parameter whose value is a tree, and no call of the module that owns the other one."""

    @nn.compact
    def __call__(self, x):
        held = self.param("held", lambda key: {"a": jnp.zeros(3), "b": {"c": jnp.zeros((2, 2), jnp.bfloat16)}})
        return bsojax.BinaryDense(3, name="dense")(x) + held["a"].reshape(1, 3) + Table(name="table").row(1)


class Table(nn.Module):
    """Used through a method of another name."""

    @nn.compact
    def row(self, index):
        return self.param("rows", nn.initializers.ones, (4, 3), jnp.float32)[index : index + 1]


all_models = {
    "vgg": (VGG, X),
    "binary ends": (VGG.clone(binary_ends=True), X),
    "norm a time step": (VGG.clone(norm=functools.partial(bsojax.BatchNorm, num_steps=3)), X),
    "mlp": (SpikingMLP(features=(7, 5), num_classes=3), jax.ShapeDtypeStruct((2, 9), jnp.bfloat16)),
    "nested": (Nested(), X),
    "held tree": (HeldTree(), jax.ShapeDtypeStruct((2, 5), jnp.float32)),
    "one layer": (bsojax.BinaryDense(3), jax.ShapeDtypeStruct((2, 5), jnp.float32)),
}
each_model = pytest.mark.parametrize(("model", "x"), all_models.values(), ids=all_models)


def row_of(summary, name):
    (row,) = [row for row in summary.rows if row.name == name]
    return row


@functools.cache
def stored_variables(model, x):
    """The trees that are stored, made by really drawing them."""
    options = {"time_step": 0} if isinstance(model, SpikingVGG) else {}
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, **options))(jnp.zeros(x.shape, x.dtype))
    return {name: tree for name, tree in variables.items() if name in ("signs", "params", "batch_stats")}


@each_model
def test_the_totals_are_those_of_the_variables_that_init_draws(model, x):
    summary = bsojax.summarize(model, x)
    variables = stored_variables(model, x)
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in variables.items()}
    assert summary.binary_weights == sizes["signs"]
    assert summary.real_parameters == sizes.get("params", 0)
    assert summary.statistics == sizes.get("batch_stats", 0)
    assert summary.binary_share == sizes["signs"] / (sizes["signs"] + sizes.get("params", 0))
    assert summary.float32_bytes == 4 * sum(sizes.values())
    # Really packed.
    assert summary.stored_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(bsojax.pack_signs(variables)))
    assert summary.compression == summary.float32_bytes / summary.stored_bytes


@each_model
def test_the_binary_leaves_are_the_boolean_ones(model, x):
    flat = jax.tree_util.tree_leaves_with_path(stored_variables(model, x))
    boolean = {jax.tree_util.keystr(k, simple=True, separator="/") for k, leaf in flat if leaf.dtype == jnp.bool_}
    assert set(bsojax.summarize(model, x).binary_leaves) == boolean


def test_each_layer_of_a_flat_model():
    rows = [
        (row.name, row.kind, row.output_shape, row.binary_weights, row.real_parameters, row.statistics)
        for row in bsojax.summarize(VGG, X).rows
    ]
    assert rows == [
        ("conv_0", "Conv", (2, 6, 6, 4), 0, 9 * 3 * 4 + 4, 0),
        ("norm_0", "BatchNorm", (2, 6, 6, 4), 0, 8, 8),
        ("neuron_0", "LIF", (2, 6, 6, 4), 0, 0, 0),
        ("conv_1", "BinaryConv", (2, 3, 3, 6), 9 * 4 * 6, 0, 0),
        ("norm_1", "BatchNorm", (2, 3, 3, 6), 0, 12, 12),
        ("neuron_1", "LIF", (2, 3, 3, 6), 0, 0, 0),
        ("readout", "Dense", (2, 3), 0, 6 * 3 + 3, 0),
    ]


class Convolutions(nn.Module):
    """A layer of each kind, in so many dimensions of space."""

    dims: int

    @nn.compact
    def __call__(self, x):
        size = (3,) * self.dims
        x = bsojax.LIF(name="a")(bsojax.Conv(4, size, name="real")(x))
        x = bsojax.LIF(name="b")(bsojax.BinaryConv(6, size, strides=2, feature_group_count=2, name="binary")(x))
        x = bsojax.LIF(name="c")(bsojax.BinarySeparableConv(5, size, name="separable")(bsojax.max_pool(x, 1)))
        x = bsojax.LIF(name="d")(bsojax.BinaryConvTranspose(3, size, strides=2, name="transposed")(x))
        return bsojax.global_avg_pool(bsojax.avg_pool(x, 2)).value


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_of_every_kind_in_every_dimension(dims):
    taps, space = 3**dims, (6,) * dims
    summary = bsojax.summarize(Convolutions(dims), jax.ShapeDtypeStruct((2, *space, 3), jnp.float32))
    held = {
        row.name: (row.kind, row.output_shape, row.binary_weights, row.real_parameters)
        for row in summary.rows
        if row.kind != "LIF"
    }
    assert held == {
        "real": ("Conv", (2, *space, 4), 0, taps * 3 * 4 + 4),
        "binary": ("BinaryConv", (2, *(3,) * dims, 6), taps * 2 * 6, 0),
        "separable/depthwise": ("BinaryConv", (2, *(3,) * dims, 6), taps * 6, 0),
        "separable/pointwise": ("BinaryDense", (2, *(3,) * dims, 5), 6 * 5, 0),
        "transposed": ("BinaryConvTranspose", (2, *space, 3), taps * 5 * 3, 0),
    }
    bytes_of_bits = sum(math.ceil(bits / 8) for _, _, bits, _ in held.values())
    assert summary.stored_bytes == bytes_of_bits + 4 * (taps * 3 * 4 + 4)


def test_nested_modules_are_named_by_their_path_and_counted_once():
    summary = bsojax.summarize(Nested(), X)
    assert {row.name: (row.kind, row.output_shape, row.real_parameters) for row in summary.rows} == {
        "first": ("Conv", (2, 6, 6, 5), 9 * 3 * 5 + 5),
        "block": ("Block", (2, 6, 6, 5), 1),
        "block/conv": ("BinaryConv", (2, 6, 6, 5), 0),
        "block/norm": ("BatchNorm", (2, 6, 6, 5), 10),
        "block/neuron": ("LIF", (2, 6, 6, 5), 0),
        "pair_0": ("Dense", (2, 4), 6 * 6 * 5 * 4 + 4),
        "pair_1": ("BinaryDense", (2, 3), 0),
    }
    assert row_of(summary, "block/conv").binary_weights == 9 * 5 * 5
    assert row_of(summary, "block/conv").stored_bytes == math.ceil(9 * 5 * 5 / 8)


def test_variables_that_are_trees_and_modules_used_through_another_method():
    summary = bsojax.summarize(HeldTree(), jax.ShapeDtypeStruct((2, 5), jnp.float32))
    own = row_of(summary, "")
    assert (own.kind, own.output_shape, own.real_parameters, own.stored_bytes) == ("HeldTree", (2, 3), 7, 3 * 4 + 4 * 2)
    table = row_of(summary, "table")
    assert (table.kind, table.output_shape, table.real_parameters) == ("Table", None, 12)
    assert "(the model itself)" in str(summary)


def test_arrays_and_their_shapes_give_the_same_summary():
    array = np.ones(X.shape, np.float32)
    assert bsojax.summarize(VGG, array) == bsojax.summarize(VGG, X) == bsojax.summarize(VGG, jnp.asarray(array))


def test_nothing_is_run():
    def refuse(value):
        raise AssertionError(f"run with {value}")

    class Loud(nn.Module):
        @nn.compact
        def __call__(self, x):
            jax.debug.callback(refuse, x.sum())
            return bsojax.BinaryDense(2)(x)

    assert bsojax.summarize(Loud(), jnp.ones((2, 3))).binary_weights == 6
    # A model that no machine here could hold.
    huge = SpikingMLP(features=(10**6, 10**6), num_classes=10)
    assert bsojax.summarize(huge, jax.ShapeDtypeStruct((10**6, 10), jnp.float32)).binary_weights == 10**12


def test_the_rates_of_a_training_step_stand_beside_their_neurons():
    tx = bsojax.split_optimizer(bsojax.bso(1.0), optax.sgd(0.1))
    x = np.random.default_rng(0).standard_normal(X.shape).astype(np.float32)
    _, metrics = bsojax.make_train_step(VGG, tx, 2)(bsojax.init(VGG, tx, jax.random.key(0), x), x, np.arange(2))
    summary = bsojax.summarize(VGG, x, spikes=metrics["spikes"])
    rates = {row.name: row.spike_rate for row in summary.rows if row.spike_rate is not None}
    assert rates == {name: float(rate) for name, rate in metrics["spikes"].items()}
    assert set(rates) == {"neuron_0", "neuron_1"}
    assert 0 < rates["neuron_0"] < 1
    assert f"{rates['neuron_0']:.4f}" in str(summary)
    assert "spike rate" not in str(bsojax.summarize(VGG, x))
    with pytest.raises(ValueError, match=r"^spikes: .*'neuron_7'"):
        bsojax.summarize(VGG, x, spikes={"neuron_7": 0.1, "neuron_0": 0.1})


def test_a_frame_that_the_model_refuses_is_named():
    with pytest.raises(TypeError, match=r"^x: 'conv_0' needs a floating input, not int32"):
        bsojax.summarize(VGG, jax.ShapeDtypeStruct(X.shape, jnp.int32))


@each_model
def test_the_table_has_a_line_a_layer_and_its_columns_are_aligned(model, x):
    summary = bsojax.summarize(model, x)
    lines = str(summary).splitlines()
    rules = [index for index, line in enumerate(lines) if set(line) == {"-"}]
    assert [rules[0], rules[1]] == [1, 3]
    assert rules[2] == 4 + len(summary.rows)
    assert max(map(len, lines[: rules[2] + 2])) == len(lines[1])
    for row, line in zip(summary.rows, lines[4:], strict=False):
        cells = re.split(r" {2,}", line)
        assert cells[:2] == [row.name or "(the model itself)", row.kind]
        assert cells[-1] == (f"{row.stored_bytes:,}" if row.stored_bytes else "-")
        assert len(line) == len(lines[1])
    total = lines[rules[2] + 1]
    assert re.split(r" {2,}", total)[1] == f"{summary.binary_weights:,}"
    assert total.endswith(f"{summary.stored_bytes:,}")


def test_the_table_says_which_leaves_are_one_bit():
    text = str(bsojax.summarize(SpikingVGG(), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)))
    assert "99.87% of the weights (7 boolean leaves, starting with signs/conv_1/kernel)." in text
    assert "1.22 MB, 30.2 times smaller than the 36.94 MB" in text
    one = str(bsojax.summarize(bsojax.BinaryDense(16), jax.ShapeDtypeStruct((2, 500), jnp.float32)))
    assert "100.00% of the weights (the boolean leaf signs/kernel)." in one
    assert "1.00 kB, 32.0 times smaller than the 32.00 kB" in one
    real = bsojax.summarize(bsojax.Dense(3), jax.ShapeDtypeStruct((2, 5), jnp.float32))
    assert real.binary_leaves == ()
    assert real.binary_share == 0
    assert "no binary layer" in str(real)
