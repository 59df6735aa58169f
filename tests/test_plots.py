"""Pictures: what they show is what was recorded, they draw where they are told, and refuse what they cannot show."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

import bsojax
from bsojax import plots
from experiments import layers

RNG = np.random.default_rng(0)
MEMBRANES = RNG.standard_normal((7, 2, 3, 2)).astype(np.float32) + 0.5
RECORDING = bsojax.online.Recording(spikes=jnp.asarray(MEMBRANES > 1, jnp.float32), membranes=jnp.asarray(MEMBRANES))
READOUT = bsojax.online.Recording(membranes=jnp.asarray(MEMBRANES))
EPOCHS = [
    {
        "epoch": epoch,
        "flips": 7,
        "spike_rates": {"lif_10": 0.1 / epoch, "lif_2": 0.2},
        "flip_ratios": {"conv_10/kernel": 0.5 / epoch, "conv_2/kernel": 0.0 if epoch == 2 else 0.25},
    }
    for epoch in (1, 2, 3)
]
BATCHES = [
    {"loss": 1.0, "spikes": {"lif": np.float32(0.5)}, "flips": {"conv/kernel": np.int32(count)}} for count in (6, 3)
]


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return Figure().add_subplot()


def lines(ax):
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.get_lines()}


def test_a_raster_shows_each_spike(ax):
    assert plots.raster(RECORDING, example=1, ax=ax) is ax
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), RECORDING.spikes[:, 1].reshape(7, 6).T)
    assert image.get_extent() == [-0.5, 6.5, -0.5, 5.5]
    assert f"{int(RECORDING.spikes[:, 1].sum())} spikes" in ax.get_title()


def test_a_raster_of_a_large_layer_shows_the_share_of_neighbours(ax):
    spikes = (RNG.random((3, 1, 601)) < 0.3).astype(np.float32)
    plots.raster(bsojax.online.Recording(spikes=spikes), ax=ax)
    shown = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(shown[:200].T, spikes[:, 0, :600].reshape(3, 200, 3).mean(2))
    np.testing.assert_allclose(shown[200], spikes[:, 0, 600])
    assert ax.get_ylim() == (-0.5, 600.5)


def test_membranes_are_drawn_with_their_threshold_and_spikes(ax):
    plots.membrane(RECORDING, neurons=[4, 1], example=1, ax=ax)
    membranes, spikes = (np.asarray(leaf[:, 1]).reshape(7, 6) for leaf in (RECORDING.membranes, RECORDING.spikes))
    drawn = lines(ax)
    assert set(drawn["threshold"]) == {1.0}
    dots = [line for line in ax.get_lines() if line.get_marker() == "o"]
    for neuron, dot in zip((4, 1), dots, strict=True):
        np.testing.assert_array_equal(drawn[f"neuron {neuron}"], membranes[:, neuron])
        np.testing.assert_array_equal(dot.get_xdata(), np.flatnonzero(spikes[:, neuron]))
        np.testing.assert_array_equal(dot.get_ydata(), membranes[spikes[:, neuron] > 0, neuron])
    assert ax.get_xlabel() == "time step"


def test_neurons_that_nobody_named_are_those_that_change(ax):
    spikes = np.zeros((4, 1, 6), np.float32)
    spikes[:, 0, 0] = 1
    spikes[::2, 0, 2:5] = 1
    membranes = spikes + np.arange(6, dtype=np.float32)[None, None] * np.arange(4, dtype=np.float32)[:, None, None]
    plots.membrane(bsojax.online.Recording(spikes=spikes, membranes=membranes), ax=ax)
    assert [name for name in lines(ax) if name.startswith("neuron")] == [f"neuron {n}" for n in (2, 3, 4, 5)]


def test_a_readout_has_neither_threshold_nor_spikes(ax):
    plots.membrane(READOUT, neurons=0, ax=ax)
    assert set(lines(ax)) == {"neuron 0"}


def test_rates_and_flips_of_a_run_by_epoch(ax):
    plots.rates(EPOCHS, ax=ax)
    assert list(lines(ax)) == ["lif_2", "lif_10"]  # in the order of the layers
    np.testing.assert_allclose(lines(ax)["lif_10"], [0.1, 0.05, 0.1 / 3])
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [1, 2, 3])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "spikes / neuron / time step")
    other = plots.flips(EPOCHS, ax=Figure().add_subplot())
    np.testing.assert_allclose(lines(other)["conv_10"], [0.5, 0.25, 0.5 / 3])
    np.testing.assert_array_equal(lines(other)["conv_2"], [0.25, np.nan, 0.25])
    assert (other.get_yscale(), other.get_ylabel()) == ("log", "flips / weight / update")


def test_rates_and_flips_of_training_steps_by_batch(ax):
    plots.rates(BATCHES, ax=ax)
    np.testing.assert_array_equal(lines(ax)["lif"], [0.5, 0.5])
    assert ax.get_xlabel() == "batch"
    for signs, expected, unit in (
        (None, [6, 3], "flips / batch"),
        ({"conv": {"kernel": jnp.ones((2, 6), bool)}}, [0.5, 0.25], "flips / weight / batch"),
        (bsojax.pack_signs({"conv": {"kernel": jnp.ones((2, 6), bool)}}), [0.5, 0.25], "flips / weight / batch"),
    ):
        drawn = plots.flips(BATCHES, signs=signs, ax=Figure().add_subplot())
        np.testing.assert_allclose(lines(drawn)["conv"], expected)
        assert drawn.get_ylabel() == unit


flip_optimizers = {
    "bso": lambda kind: bsojax.bso(0.05, b1=0.5, momentum_dtype=kind),
    "t_bso": lambda kind: bsojax.t_bso(lambda count: 0.01 * count, 2, b1=0.5, momentum_dtype=kind),
    "t_bso, debias": lambda kind: bsojax.t_bso(0.05, 2, b1=0.5, b2=0.9, debias=True, momentum_dtype=kind),
}


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("make", flip_optimizers.values(), ids=flip_optimizers)
def test_momenta_stand_against_the_threshold_at_which_they_flip(make, kind, ax):
    signs = {"conv": {"kernel": jnp.asarray(RNG.random((5, 8)) < 0.5)}}
    tx = bsojax.split_optimizer(optax.chain(optax.identity(), make(kind)), optax.sgd(0.1))
    params, updates = {"signs": signs, "params": {"bias": jnp.zeros(2)}}, 3
    state = tx.init(params)
    for t in range(updates):
        grads = {
            "signs": {"conv": {"kernel": jnp.asarray(RNG.standard_normal((5, 8)), jnp.float32)}},
            "params": {"bias": jnp.ones(2)},
        }
        change, state = tx.update(grads, state, params, time_step=t % 2)
        params = bsojax.apply_updates(params, change)
    (inner,) = [
        node
        for node in jax.tree.leaves(state, is_leaf=lambda node: hasattr(node, "momentum"))
        if hasattr(node, "momentum")
    ]
    momentum = inner.momentum["conv"]["kernel"]
    momentum = momentum.to_float() if kind == "int8" else momentum
    aligned = np.asarray(bsojax.to_weights(params["signs"])["conv"]["kernel"]) * np.asarray(momentum)
    threshold = 0.05 if make is not flip_optimizers["t_bso"] else (lambda count: 0.01 * count)
    plots.momentum(state, bsojax.pack_signs(params["signs"]), "conv/kernel", threshold, bins=9, ax=ax)
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_array_equal(heights, np.histogram(aligned, 9)[0])
    limits = np.array([line.get_xdata()[0] for line in ax.get_lines()])
    if hasattr(inner, "second_moment"):
        second = np.asarray(inner.second_moment["conv"]["kernel"])
        weight = 1 if inner.second_moment_weight is None else np.asarray(inner.second_moment_weight)
        gamma = 0.05 if inner.second_moment_weight is not None else 0.01 * updates
        np.testing.assert_allclose(limits, np.sort(gamma * np.sqrt(second / weight)), rtol=1e-5)
    else:
        np.testing.assert_allclose(limits, [0.05])
    assert f"{np.mean(aligned > limits.min()):.2%} of 40 weights" in ax.get_title()


@pytest.mark.parametrize("packed", [False, True])
def test_kernels_are_black_and_white_in_their_places(packed, ax):
    signs = {"kernel": jnp.asarray(RNG.random((3, 2, 4, 5)) < 0.5)}
    signs = bsojax.pack_signs(signs) if packed else signs
    plots.kernels(signs["kernel"], count=4, ax=ax)
    shown, kernel = np.asarray(ax.images[0].get_array()), np.asarray(bsojax.unpack_signs(signs)["kernel"])
    assert shown.shape == (4 * 4 + 1, 4 * 3 + 1)
    for out, into in np.ndindex(4, 4):
        tile = shown[4 * out + 1 : 4 * out + 4, 3 * into + 1 : 3 * into + 3]
        np.testing.assert_array_equal(tile, kernel[:, :, into, out])
    assert ax.get_xlabel() == "input channel (of 4)"


def test_kernels_of_one_dimension_and_of_dense_layers(ax):
    kernel = RNG.random((3, 1, 2)) < 0.5
    plots.kernels(jnp.asarray(kernel), ax=ax)
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array())[1, 1:4], kernel[:, 0, 0])
    matrix = RNG.random((6, 4)) < 0.5
    drawn = plots.kernels(jnp.asarray(matrix), ax=Figure().add_subplot())
    np.testing.assert_array_equal(drawn.images[0].get_array(), np.where(matrix, 1, -1))


def test_a_picture_makes_a_figure_where_it_is_given_none():
    before = plt.get_fignums()
    ax = plots.raster(RECORDING)
    assert len(plt.get_fignums()) == len(before) + 1
    assert ax.figure.number in plt.get_fignums()
    plots.rates(EPOCHS, ax=Figure().add_subplot())
    assert len(plt.get_fignums()) == len(before) + 1  # on given axes none is made


SIGNS = {"conv": {"kernel": jnp.ones((2, 6), bool)}}
refused = {
    "all layers at once": (lambda: plots.raster({"lif": RECORDING}), TypeError, r'^recording: .*recordings\["lif"\]'),
    "no spikes": (lambda: plots.raster(READOUT), ValueError, "^recording: the layer reports no spikes"),
    "no such example": (lambda: plots.raster(RECORDING, example=2), ValueError, r"^example: .*0 \.\. 1"),
    "an example from behind": (lambda: plots.raster(RECORDING, example=-1), ValueError, "^example: there is no -1"),
    "no such neuron": (lambda: plots.membrane(RECORDING, neurons=6), ValueError, r"^neurons: .*0 \.\. 5"),
    "records without layers": (lambda: plots.flips([{"flips": 3}]), ValueError, "^records: none holds 'flip_ratios'"),
    "other signs": (lambda: plots.flips(BATCHES, signs={"a": SIGNS["conv"]}), ValueError, "^signs: .*'conv/kernel'"),
    "no momentum": (
        lambda: plots.momentum(bsojax.counter(1.0).init(SIGNS), SIGNS, "conv/kernel", 0.0), ValueError, "^opt_state: ",
    ),
    "no such leaf": (
        lambda: plots.momentum(bsojax.bso(0.1).init(SIGNS), SIGNS, "conv", 0.1), ValueError, "^layer: .*conv/kernel",
    ),
    "a kernel in three dimensions": (lambda: plots.kernels(jnp.ones((2,) * 5, bool)), ValueError, "^signs: needs"),
    "no kernels": (lambda: plots.kernels(jnp.ones((2,) * 4, bool), count=0), ValueError, "^count: "),
}  # fmt: skip


@pytest.mark.parametrize(("draw", "error", "message"), refused.values(), ids=refused)
def test_what_cannot_be_drawn_says_why(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


def test_the_library_needs_no_matplotlib_and_its_pictures_say_that_they_do():
    code = """
import sys
sys.modules["matplotlib"] = None
import bsojax
assert "bsojax.plots" not in sys.modules
try:
    from bsojax import plots
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "bsojax.plots: needs a package; pip install 'bsojax[plots]'."


def test_layers_that_are_dead_or_saturated_are_named_with_what_to_do(tmp_path):
    record = {"spike_rates": {"a": 0.0, "b": 1e-4, "c": 0.9999, "d": 1 - 2**-24}}
    found = layers.extremes(record)
    assert found == {"dead_layers": ["a"], "saturated_layers": ["d"]}
    dead, saturated = layers.advice("run", json.loads(json.dumps(found)))
    assert "dead at the end, without a single spike: a." in dead
    assert "saturated at the end, with a spike at every time step: d." in saturated
    assert all("v_threshold" in line for line in (dead, saturated))
    assert layers.advice("run", layers.extremes(EPOCHS[-1])) == []
    assert layers.advice("run", {}) == []  # of an earlier version
    layers.draw(tmp_path / "layers.png", [{"epoch": 1, "spike_rate": 0.1}])
    assert not (tmp_path / "layers.png").exists()
    layers.draw(tmp_path / "layers.png", EPOCHS)
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
