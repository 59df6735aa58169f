"""What cannot be said in whole numbers is refused, by the name of the layer and with a cure, and nothing else is."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawn_networks import Stage, Stages, state_of

import bsojax
from bsojax.deploy import integer_network

T = 3
SHAPE = (4, 4, 2)
LIF = bsojax.LIF


def model_of(body):
    """A model whose call is ``body(x, train, time_step)``."""
    return Stages((Stage("the model", body),))


def conv(x):
    return bsojax.Conv(3, (3, 3))(x)


def read(x):
    return bsojax.Dense(3)(bsojax.flatten(x))


def between(change):
    """A model that changes a current, and spikes, between layers."""
    return lambda x, train, t: read(LIF()(bsojax.BinaryConv(3, (1, 1))(change(LIF()(conv(x))))))


def network(body, shape=SHAPE, **settings):
    model = body if isinstance(body, nn.Module) else model_of(body)
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    given = {"input_scale": 255, "input_max": 255} | settings
    return integer_network(model, state_of(model, shape, 0), x, T, **given)


class Derived(bsojax.LIF):
    """Is a LIF, and may be anything."""


class DerivedConv(bsojax.BinaryConv):
    """Likewise."""


class Counts(nn.Module):
    """A model that carries state of its own."""

    @nn.compact
    def __call__(self, x):
        total = self.variable("neurons", "total", jnp.zeros_like, x)
        total.value = total.value + x
        return read(LIF()(conv(total.value)))


class TwoOutputs(nn.Module):
    @nn.compact
    def __call__(self, x):
        spikes = LIF()(conv(x))
        return {"logits": read(spikes), "more": read(spikes)}


class TwoInputs(nn.Module):
    @nn.compact
    def __call__(self, x):
        return bsojax.BinaryDense(3)(LIF()(bsojax.Dense(4)(x["a"]) + bsojax.Dense(4)(x["b"])))


def membranes(x, train, t):
    neurons = LIF()
    neurons(conv(x))
    return read(neurons.membrane_potential())


def called_twice(x, train, t):
    neurons, current = LIF(), conv(x)
    return read(neurons(current) + neurons(2 * current))


def under_vmap(x, train, t):
    layers = nn.vmap(bsojax.Conv, in_axes=0, out_axes=0, variable_axes={"params": 0}, split_rngs={"params": True})
    return read(LIF()(layers(3, (3, 3))(jnp.stack([x, x]))[0]))


def looped(x, train, t):
    until = lambda carry: jnp.sum(carry) < 99  # noqa: E731
    return read(LIF()(jax.lax.while_loop(until, lambda carry: carry + 1, conv(x))))


def weight_of_an_image(x, train, t):
    return read(LIF()(conv(x) * jnp.linspace(0, 1, 4).reshape(1, 4, 1, 1)))


def spatial(name, shape=(4, 1, 1)):
    values = np.linspace(1.5, 2.5, int(np.prod(shape))).reshape(shape)
    return lambda x, train, t: read(LIF(**{name: values})(bsojax.Conv(4, (3, 3))(x)))


def norm_at(time_step):
    def body(x, train, t):
        given = time_step(0 if t is None else t)
        return read(LIF()(bsojax.BatchNorm(T)(conv(x), train, given)))

    return body


def plain(layer):
    """A model whose last layer is this one."""
    return lambda x, train, t: layer()(LIF()(bsojax.Dense(3)(bsojax.flatten(x))).value)


CASES = {
    "ALIF": (lambda x, train, t: read(bsojax.ALIF()(conv(x))), ["'ALIF_0'", "LIF, IF and PLIF"]),
    "CubaLIF": (lambda x, train, t: read(bsojax.CubaLIF()(conv(x))), ["'CubaLIF_0'", "LIF, IF and PLIF"]),
    "LeakyReadout": (plain(bsojax.LeakyReadout), ["'LeakyReadout_0'", "return the current"]),
    "derived from LIF": (lambda x, train, t: read(Derived()(conv(x))), ["'Derived_0'", "use that layer itself"]),
    "derived from a layer": (
        lambda x, train, t: read(LIF()(DerivedConv(3, (3, 3))(x))), ["'DerivedConv_0'", "use that layer itself"],
    ),
    "recurrence": (bsojax.models.SpikingRNN(features=(4,)), ["'recurrent_0'", "nothing recurrent", "tau=8"], (5,)),
    "transposed": (
        lambda x, train, t: read(LIF()(bsojax.BinaryConvTranspose(3, (3, 3))(x))),
        ["'BinaryConvTranspose_0'", "BinaryConv and Conv"],
    ),
    "refractory_steps": (lambda x, train, t: read(LIF(refractory_steps=1)(conv(x))), ["'LIF_0'", "refractory_steps"]),
    "tau a neuron": (spatial("tau", (4,)), ["'LIF_0'", "differ in tau", "one tau"]),
    "thresholds in space": (spatial("v_threshold"), ["'LIF_0'", "one per channel"]),
    "thresholds of each neuron": (spatial("v_threshold", (4, 4, 4)), ["'LIF_0'", "one per channel"]),
    "v_reset above the threshold": (
        lambda x, train, t: read(LIF(v_reset=1.5)(conv(x))), ["'LIF_0'", "v_reset 1.5", "not below its threshold"],
    ),
    "v_reset above one of the thresholds": (
        lambda x, train, t: read(LIF(v_threshold=(0.5, 1, 2), v_reset=0.75)(conv(x))), ["'LIF_0'", "v_reset 0.75"],
    ),
    "neurons called twice": (called_twice, ["'LIF_0'", "called twice"]),
    "volumes": (lambda x, train, t: read(LIF()(bsojax.Conv(2, (3, 3, 3))(x))), ["x", "volumes"], (3, 3, 3, 1)),
    "volumes within": (
        lambda x, train, t: read(LIF()(bsojax.Conv(2, (1, 1, 1))(x[..., None]))), ["x", "broadcast_in_dim", "flatten"],
    ),
    "max_pool of currents": (
        lambda x, train, t: read(LIF()(bsojax.max_pool(conv(x), 2))), ["max_pool", "'Conv_0'", "avg_pool"],
    ),
    "tanh": (between(lambda x: jnp.tanh(x.value)), ["'BinaryConv_0'", "tanh", "'LIF_1'", "neurons in its place"]),
    "where": (between(lambda x: jnp.where(x.value > 0, 2.0, x.value)), ["'BinaryConv_0'", "'LIF_1'"]),
    "abs": (between(lambda x: abs(x.value)), ["'BinaryConv_0'", "abs", "'LIF_1'"]),
    "a product of values": (between(lambda x: x.value * x.value), ["'BinaryConv_0'", "'LIF_1'", "constants"]),
    "another kind of number": (
        between(lambda x: (x.value * 3).astype(jnp.int32).astype(jnp.float32)), ["'BinaryConv_0'", "stay floating"],
    ),
    "softmax": (lambda x, train, t: nn.softmax(read(LIF()(conv(x)))), ["what the model returns", "'Dense_0'"]),
    "flax's Dense": (plain(functools.partial(nn.Dense, 3)), ["'Dense_0'", "flax's Dense", "bsojax.Dense"]),
    "flax's Conv": (lambda x, train, t: read(LIF()(nn.Conv(3, (3, 3))(x))), ["'Conv_0'", "bsojax.Conv"]),
    "flax's LayerNorm": (lambda x, train, t: read(LIF()(nn.LayerNorm()(conv(x)))), ["'LayerNorm_0'", "BatchNorm"]),
    "slices": (between(lambda x: x[:, 1:]), ["'BinaryConv_0'", "'LIF_1'", "slice the inputs"]),
    "an index": (between(lambda x: x[:, :, :, :1]), ["'BinaryConv_0'", "'LIF_1'", "slice the inputs"]),
    "concatenate": (between(lambda x: bsojax.concatenate([x, x])), ["'BinaryConv_0'", "'LIF_1'", "one layer for each"]),
    "a sum over space": (
        lambda x, train, t: bsojax.Dense(3)(LIF()(conv(x)).value.sum((1, 2))), ["'Dense_0'", "global_avg_pool"],
    ),
    "flax's pooling": (between(lambda x: nn.max_pool(x.value, (2, 2), (2, 2))), ["'BinaryConv_0'", "max_pool"]),
    "a transpose": (between(lambda x: x.value.swapaxes(1, 2)), ["'BinaryConv_0'", "flatten"]),
    "constants that differ in space": (weight_of_an_image, ["'LIF_0'", "one per channel"]),
    "division by 0": (lambda x, train, t: read(LIF()(conv(x) / 0.0)), ["'Conv_0'", "not finite"]),
    "two outputs": (TwoOutputs(), ["2 arrays", "logits"]),
    "the time step": (
        lambda x, train, t: read(LIF()(conv(x * (0 if t is None else t)))), ["'Conv_0'", "time_step", "sequence"],
    ),
    "a norm at a constant time step": (norm_at(lambda t: 0), ["'BatchNorm_0'", "time_step as it is"]),
    "a norm at another time step": (norm_at(lambda t: T - 1 - t), ["'BatchNorm_0'", "time_step as it is"]),
    "membranes": (membranes, ["'flatten'", "membrane", "spikes alone"]),
    "state of its own": (Counts(), ["'Conv_0'", "the model's own", "spikes alone"]),
    "a loop": (looped, ["'LIF_0'", "while", "'Conv_0'"]),
    "nn.vmap": (under_vmap, ["'VmapConv_0'", "vmap", "layer of its own"]),
    "what is drawn": (
        lambda x, train, t: read(bsojax.SpikingDropout(0.5)(LIF()(conv(x)))), ["SpikingDropout_0", "deterministic"],
    ),
    "answers without an input": (lambda x, train, t: read(LIF()(conv(jnp.ones_like(x)))), ["'Conv_0'", "input"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_whole_numbers_cannot_say_is_refused_by_name_and_with_a_cure(name):
    body, words, *shape = CASES[name]
    with pytest.raises(ValueError, match=r"^model: .* cannot be deployed: ") as refused:
        network(body, *shape)
    message = str(refused.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert len(message) < 320
    assert message.endswith(".")
    assert not message.endswith("..")


MODEL = model_of(lambda x, train, t: read(LIF()(bsojax.BatchNorm(T, name="norm_0")(conv(x), train, t))))
X = np.zeros((2, *SHAPE), np.float32)
GOOD = {"input_scale": 255, "input_max": 255}


@functools.cache
def state():
    return state_of(MODEL, SHAPE, 0)


def with_leaf(collection, layer, name, value):
    """The state with one number of a leaf replaced."""
    trees = jax.tree.map(np.array, {"params": state().params, "batch_stats": state().batch_stats})
    trees[collection][layer][name].flat[0] = value
    return dataclasses.replace(state(), **trees)


ARGUMENTS = {
    "a weight that is not": ({"state": with_leaf("params", "Conv_0", "kernel", np.nan)}, "params/Conv_0/kernel"),
    "an infinite bias": ({"state": with_leaf("params", "Dense_0", "bias", np.inf)}, "params/Dense_0/bias"),
    "a statistic that is not": ({"state": with_leaf("batch_stats", "norm_0", "var", np.nan)}, "batch_stats/norm_0/var"),
    "a negative variance": ({"state": with_leaf("batch_stats", "norm_0", "var", -2.0)}, "not finite"),
    "a state of another model": (
        {"state": dataclasses.replace(state_of(model_of(lambda x, *_: bsojax.Dense(3)(x)), SHAPE, 0))}, "another model",
    ),
    "more time steps than a norm has": ({"num_steps": T + 1}, "norm_0"),
    "no time step": ({"num_steps": 0}, "num_steps"),
    "x of another shape": ({"x": X[:, :2]}, "x"),
    "x of another number of time steps": ({"x": np.zeros((T + 1, *X.shape), np.float32)}, "x"),
    "x of whole numbers": ({"x": X.astype(np.uint8)}, "x"),
    "no scale": ({"input_scale": 0}, "input_scale"),
    "a scale that is not a number": ({"input_scale": np.nan}, "input_scale"),
    "a scale in words": ({"input_scale": "255"}, "input_scale"),
    "a largest input of a half": ({"input_max": 0.5}, "input_max"),
    "inputs of 0": ({"input_max": 0}, "input_max"),
    "a largest input that is too large": ({"input_max": 2**16}, "input_max"),
    "a least input above 0": ({"input_min": 1}, "input_min"),
    "membranes of 7 bits": ({"membrane_bits": 7}, "membrane_bits"),
    "membranes of 33 bits": ({"membrane_bits": 33}, "membrane_bits"),
    "weights of 1 bit": ({"weight_bits": 1}, "weight_bits"),
    "weights of 25 bits": ({"weight_bits": 25}, "weight_bits"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_do_not_fit_are_refused_by_name(name):
    changed, word = ARGUMENTS[name]
    given = {"state": state(), "x": X, "num_steps": T, **GOOD, **changed}
    with pytest.raises((ValueError, TypeError), match=word) as refused:
        integer_network(MODEL, given.pop("state"), given.pop("x"), given.pop("num_steps"), **given)
    assert "\n" not in str(refused.value)


def test_a_state_whose_memory_a_step_took_over_is_refused():
    gone = jax.tree.map(jnp.array, state())
    jax.tree.leaves(gone.params)[0].delete()
    with pytest.raises(ValueError, match="state: .* took over its memory"):
        integer_network(MODEL, gone, X, T, **GOOD)


def test_several_inputs_are_refused():
    x = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((2, 4), np.float32)}
    trained = bsojax.init(TwoInputs(), optax.sgd(0.1), jax.random.key(0), x)
    with pytest.raises(ValueError, match="x cannot be deployed: networks of several inputs"):
        integer_network(TwoInputs(), trained, x, T, **GOOD)


def test_numbers_that_fit_at_no_precision_are_refused_with_a_cure():
    steep = lambda x, train, t: read(LIF()(1e12 * conv(x)))  # noqa: E731
    with pytest.raises(
        ValueError, match=r"'LIF_0' cannot be deployed: membranes of 32 bits .* scale the currents down"
    ):
        network(steep)
    with pytest.raises(ValueError, match=r"'LIF_0' cannot be deployed: membranes of 8 bits .* give more membrane_bits"):
        network(lambda x, train, t: read(LIF()(1e3 * conv(x))), membrane_bits=8)
    loud = lambda x, train, t: bsojax.BinaryDense(2)(bsojax.BinaryDense(300)(bsojax.BinaryDense(300)(x)))  # noqa: E731
    with pytest.raises(ValueError, match=r"'BinaryDense_\d' cannot be deployed: its numbers .* 32 bits .* input_max"):
        network(loud, (300,), input_max=65535)


@functools.cache
def small():
    return network(
        lambda x, train, t: bsojax.BinaryDense(2)(LIF()(bsojax.Dense(3)(x))), (5,), input_min=-3, input_max=9
    )


RUNS = {
    "floating": (np.zeros((2, 5)), "x: needs whole numbers"),
    "booleans": (np.zeros((2, 5), bool), "x: needs whole numbers"),
    "words": ([["a"] * 5], "x: needs whole numbers"),
    "another shape": (np.zeros((2, 6), int), r"x: needs shape \(batch, 5\), got \(2, 6\)"),
    "one example": (np.zeros(5, int), "x: needs shape"),
    "a sequence": (np.zeros((T, 2, 5), int), "x: needs shape"),
    "no example": (np.zeros((0, 5), int), "x: has no examples"),
    "too large": (np.full((2, 5), 10), r"x: .* -3 to 9 .*input_min and input_max"),
    "too small": (np.full((2, 5), -4), "x: .* -3 to 9"),
    "far too large": (np.full((2, 5), 2**64 - 1, np.uint64), "x: .* -3 to 9"),
}


@pytest.mark.parametrize("name", RUNS)
def test_inputs_that_do_not_fit_are_refused(name):
    x, words = RUNS[name]
    with pytest.raises((ValueError, TypeError), match=words):
        small().run(x)


def test_inputs_come_in_any_whole_dtype_and_the_narrowest_is_told():
    x = np.random.default_rng(0).integers(-3, 10, (70, 5))  # more than the reference runs at once
    logits, spikes = small().run(x)
    assert small().input_dtype == np.int8
    assert spikes["LIF_0"].any()
    for dtype in ("int8", "int16", "int32", "int64"):
        np.testing.assert_array_equal(small().run(x.astype(dtype))[0], logits)
    np.testing.assert_array_equal(small().run(x.tolist())[0], logits)
    for low, high, dtype in ((0, 255, "uint8"), (0, 256, "uint16"), (-1, 127, "int8"), (-1, 128, "int16"),
                             (-129, 0, "int16"), (-1, 65535, "int32")):  # fmt: skip
        assert dataclasses.replace(small(), input_min=low, input_max=high).input_dtype == dtype
