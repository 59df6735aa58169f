"""Operations of a network: against a slow count, weight by weight, of what a model really computes."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax

LAYERS = {
    "dense": (bsojax.BinaryDense(3), (4,)),
    "real_dense": (bsojax.Dense(3, use_bias=False), (2, 4)),
    "convolution": (bsojax.BinaryConv(4, (3, 3)), (5, 4, 2)),
    "grouped": (bsojax.BinaryConv(4, (3, 2), (2, 1), ((1, 0), (2, 1)), feature_group_count=2), (5, 4, 2)),
    "dilated": (bsojax.Conv(3, (2, 2), 1, "VALID", (2, 1), use_bias=False), (5, 4, 2)),
    "causal": (bsojax.BinaryConv(2, 3, padding="CAUSAL"), (6, 2)),
    "three_dimensions": (bsojax.BinaryConv(2, (2, 2, 2), 2), (3, 4, 3, 1)),
    "transposed": (bsojax.BinaryConvTranspose(3, (3, 3), 2), (3, 2, 2)),
    "transposed_valid": (bsojax.BinaryConvTranspose(2, (2, 3), (1, 3), "VALID", (2, 1)), (3, 2, 2)),
    "transposed_padded": (bsojax.BinaryConvTranspose(2, (3,), 2, (1,)), (4, 2)),
}
"""Layers and the shapes of what each is given."""

KINDS = {"spikes": LAYERS, **dict.fromkeys(("events", "fractions", "real"), ("real_dense", "causal"))}
"""Spikes of 0 and 1, an array of these, Spikes of fractions too, an array of real numbers; and what is given them."""


class Abreast(nn.Module):
    """Every layer on every kind of input, each on its own part of the input."""

    @nn.compact
    def __call__(self, x):
        for kind, name, part in parts():
            layer, shape = LAYERS[name]
            value = x[:, part].reshape(-1, *shape)
            value = bsojax.Spikes(value) if kind in ("spikes", "fractions") else value
            layer.clone(parent=self, name=f"{kind}_{name}")(value)
        return x


def parts():
    """Kind, layer and part of the input."""
    first = 0
    for kind, names in KINDS.items():
        for name in names:
            yield kind, name, slice(first, first := first + math.prod(LAYERS[name][1]))


def weights_met(layer, shape):
    """How many weights each input meets: what all outputs add up to where all weights, and one input, are 1."""
    size = math.prod(shape)
    variables = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, *shape)))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), variables)
    outputs = layer.apply(ones, jnp.eye(size).reshape(size, *shape))
    return np.asarray(outputs).reshape(size, -1).sum(1).astype(int)


def slow_count(layer, shape, x, kind="spikes"):
    """Additions and multiply-adds for an example of ``(num_steps, batch, ...)``, one input after another."""
    met = weights_met(layer, shape)
    is_binary = not isinstance(layer, bsojax.Conv | bsojax.Dense)
    additions = multiply_adds = 0
    for frame in x.reshape(-1, len(met)):
        for value, weights in zip(frame, met, strict=True):
            if value == 0 and kind != "real":
                continue
            if is_binary or (value == 1 and kind != "real"):
                additions += weights
            else:
                multiply_adds += weights
    return met.sum(), additions / x.shape[1], multiply_adds / x.shape[1]


def fresh(model, x, seed=0):
    return bsojax.init(model, bsojax.split_optimizer(bsojax.bso(1.0), optax.sgd(0.1)), jax.random.key(seed), x)


@pytest.mark.slow
def test_operations_are_those_of_a_slow_count():
    rng = np.random.default_rng(1)
    x = (rng.random((2, 3, [*parts()][-1][2].stop)) < 0.3).astype(np.float32)
    for kind, _, part in parts():
        if kind in ("fractions", "real"):
            x[:, :, part] *= rng.choice([0.25, 1.0], x[:, :, part].shape)
    model = Abreast()
    summary = bsojax.summarize(model, x, state=fresh(model, x[0]), num_steps=2)
    rows = {row.name: row for row in summary.rows}
    totals = np.zeros(3)
    for kind, name, part in parts():
        row, expected = rows[f"{kind}_{name}"], slow_count(*LAYERS[name], x[:, :, part], kind)
        found = row.connections, row.operations.additions, row.operations.multiply_adds
        assert found == pytest.approx(expected), (kind, name)
        assert row.operations.input_rate == pytest.approx(np.mean(x[:, :, part] != 0))
        totals += expected
    assert (summary.connections, summary.additions, summary.multiply_adds) == pytest.approx(totals)
    assert min(totals) > 0


class Everything(nn.Module):
    """Pools, a separable convolution, a recurrent layer, a real readout; a layer that is called twice."""

    @nn.compact
    def __call__(self, x, train=False):
        x = bsojax.LIF(name="a")(bsojax.BatchNorm(name="norm")(bsojax.Conv(4, (3, 3), name="first")(x), train))
        x = bsojax.LIF(name="b")(bsojax.BinarySeparableConv(4, (3, 3), name="separable")(bsojax.avg_pool(x, 2)))
        twice = bsojax.BinaryConv(4, (1, 1), name="twice")
        x = bsojax.LIF(name="c")(twice(x) + twice(x))
        neuron = functools.partial(bsojax.LIF, v_threshold=0.3)
        x = bsojax.BinaryRecurrent(neuron=neuron, name="recurrent")(
            bsojax.BinaryDense(5, name="dense")(bsojax.flatten(x))
        )
        return bsojax.Dense(3, name="readout")(x)


@pytest.fixture(scope="module")
def everything():
    x = np.random.default_rng(0).standard_normal((6, 4, 4, 2)).astype(np.float32)
    state = fresh(Everything(), x, seed=3)
    summary = bsojax.summarize(Everything(), x, state=state, num_steps=3)
    return state, x, summary


def test_operations_of_a_network_follow_the_spikes_that_it_records(everything):
    (state, x, summary), model, steps = everything, Everything(), 3
    rows = {row.name: row for row in summary.rows}
    spikes = {name: np.asarray(layer.spikes) for name, layer in bsojax.record(model, state, x, steps).items()}
    assert min(spikes[name].mean() for name in spikes) > 0
    for name, spike in spikes.items():
        np.testing.assert_allclose(rows[name].spike_rate, spike.mean(), rtol=1e-6)

    first = rows["first"].operations
    assert first.multiply_adds == steps * rows["first"].connections
    assert (first.additions, first.input_rate) == (0, 1)
    # A pooled value is not zero where any of its four spikes is there.
    pooled = spikes["a"].reshape(steps, 6, 2, 2, 2, 2, 4).any((3, 5)).astype(np.float32)
    depthwise = bsojax.BinaryConv(4, (3, 3), feature_group_count=4)
    np.testing.assert_allclose(
        rows["separable/depthwise"].operations.additions, slow_count(depthwise, (2, 2, 4), pooled)[1]
    )
    assert rows["twice"].connections == 2 * 2 * 2 * 4 * 4
    assert rows["twice"].operations.additions == pytest.approx(2 * 4 * spikes["b"].sum() / 6)
    assert rows["dense"].operations.additions == pytest.approx(5 * spikes["c"].sum() / 6)
    # Recurrent weights hear the spikes of the step before: those of the last are not heard.
    heard = spikes["recurrent/neuron"][:-1]
    assert rows["recurrent/recurrent"].operations.additions == pytest.approx(5 * heard.sum() / 6)
    readout = rows["readout"].operations
    assert (readout.additions, readout.multiply_adds) == pytest.approx((3 * spikes["recurrent/neuron"].sum() / 6, 0))

    assert summary.multiply_adds == first.multiply_adds
    expected = 0.9 * summary.additions + 4.6 * summary.multiply_adds
    assert summary.frame_energy == pytest.approx(expected)
    assert summary.twin_energy == pytest.approx(4.6 * summary.connections)
    assert summary.uncounted == ()


def test_the_energy_of_other_arithmetic():
    x = np.ones((2, 4), np.float32)
    model = bsojax.BinaryDense(8)
    state = fresh(model, x)
    integers = bsojax.OperationEnergy(addition=0.1, multiplication=3.1)
    summary = bsojax.summarize(model, x, state=state, num_steps=5, energy=integers)
    assert summary.frame_energy == pytest.approx(0.1 * 5 * 32)
    assert summary.twin_energy == pytest.approx(3.2 * 32)
    assert "0.1 pJ per addition, 3.2 pJ per multiply-add (as given)" in str(summary)
    text = str(bsojax.summarize(model, x, state=state, num_steps=5))
    assert "0.9 pJ per addition, 4.6 pJ per multiply-add (float32 at 45 nm; Horowitz, ISSCC 2014)" in text


def test_a_float_twin_takes_a_pass_for_each_frame_of_a_sequence_and_one_for_an_input_that_stays():
    model, x = bsojax.BinaryDense(8), np.ones((5, 2, 4), np.float32)
    still, moving = (bsojax.summarize(model, inputs, state=fresh(model, x[0]), num_steps=5) for inputs in (x[0], x))
    assert still.additions == moving.additions == 5 * 32
    assert (still.passes, moving.passes) == (1, 5)
    assert still.twin_energy == pytest.approx(4.6 * 32)
    assert moving.twin_energy == pytest.approx(5 * 4.6 * 32)
    assert "A float twin: 32 multiply-adds in one pass, 147.20 pJ, 1.0 times as much energy." in str(still)
    assert "A float twin: 160 multiply-adds in 5 passes, one for each frame" in str(moving)


def test_what_was_not_measured_or_cannot_be_counted_is_said_to_be():
    class Mixed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return bsojax.BinaryDense(3)(nn.Dense(4, name="foreign")(x))

    x = np.ones((2, 5), np.float32)
    summary = bsojax.summarize(Mixed(), x)
    assert (summary.connections, summary.additions, summary.frame_energy) == (12, None, None)
    assert summary.uncounted == ("foreign",)
    assert "Operations: not measured" in str(summary)
    assert "Operations of foreign: not counted." in str(summary)
    for options in ({"num_steps": 2}, {"state": object()}):
        with pytest.raises(ValueError, match="^state, num_steps: operations are measured with both"):
            bsojax.summarize(Mixed(), x, **options)


def test_a_table_of_operations_has_a_line_a_layer_and_its_totals(everything):
    summary = everything[2]
    lines = str(summary).splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("Operations per frame"))
    assert lines[head] == "Operations per frame (one example, 3 time steps):"
    table = lines[head + 1 :]
    assert [line.split()[0] for line in table[3:10]] == [
        "first", "separable/depthwise", "separable/pointwise", "twice", "dense", "recurrent/recurrent", "readout",
    ]  # fmt: skip
    total = table[11].split()
    assert total[:2] == ["total", f"{summary.connections:,}"]
    assert f"{summary.additions:,.0f}" in total
