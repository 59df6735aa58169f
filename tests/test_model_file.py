"""Saved networks: what comes back answers as what was saved."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from saved_networks import SMALL, STOCK, TX, T, assert_same, batch, made, refusal

import bsojax
from bsojax.deploy import _description
from bsojax.models import SpikingMLP, SpikingResNet, SpikingRNN, SpikingVGG, cifar_stem, imagenet_stem

NUMBERS = st.floats(1.0, 1e3, width=32) | st.integers(1, 9)
CONSTANTS = NUMBERS | st.lists(NUMBERS, min_size=1, max_size=4).map(tuple)
CONSTANTS |= CONSTANTS.map(lambda value: np.asarray(value, np.float32))
SURROGATES = st.builds(
    lambda make, alpha: make(alpha),
    st.sampled_from(
        [bsojax.atan, bsojax.erf, bsojax.piecewise_quadratic, bsojax.rectangle, bsojax.sigmoid, bsojax.softsign]
    ),
    NUMBERS,
)
SHARED = {
    "v_threshold": CONSTANTS,
    "v_reset": st.none() | st.just(0) | CONSTANTS,
    "trace": st.sampled_from([None, bsojax.ottt, bsojax.ndot, bsojax.ndot_released]),
    "surrogate": SURROGATES,
}
LEAKY = SHARED | {"tau": CONSTANTS, "decay_input": st.booleans()}
STEPS = st.integers(0, 255)


def partial_of(kind, options):
    return st.fixed_dictionaries({}, optional=options).map(lambda kwargs: functools.partial(kind, **kwargs))


NEURONS = st.one_of(
    st.sampled_from([bsojax.LIF, bsojax.IF, bsojax.PLIF, bsojax.ALIF, bsojax.CubaLIF]),
    partial_of(bsojax.LIF, LEAKY | {"refractory_steps": STEPS}),
    partial_of(bsojax.IF, SHARED | {"refractory_steps": STEPS}),
    partial_of(bsojax.PLIF, LEAKY),
    partial_of(bsojax.ALIF, {**SHARED, "tau": CONSTANTS, "tau_adaptation": CONSTANTS, "beta": CONSTANTS}),
    partial_of(bsojax.CubaLIF, LEAKY | {"tau_synapse": CONSTANTS}),
    st.builds(lambda tau: functools.partial(bsojax.LIF, tau, 0.5), NUMBERS),
)
NORMS = {"num_steps": st.none() | st.just(T), "momentum": st.floats(0, 0.99), "epsilon": st.floats(1e-9, 1)}
NORMS = st.one_of(
    st.sampled_from([bsojax.Affine, bsojax.BatchNorm, bsojax.BatchRenorm]),
    partial_of(bsojax.BatchNorm, NORMS | {"axis_name": st.none() | st.just("data")}),
    partial_of(bsojax.BatchRenorm, NORMS),
)
WIDTHS = st.lists(st.integers(1, 5) | st.just(np.int64(3)), min_size=1, max_size=3)
EVERY = {"num_classes": st.integers(1, 5), "neuron": NEURONS, "norm": NORMS}
EVERY |= {"scale": st.sampled_from([bsojax.unit_scale, bsojax.rsqrt_fan_in])}
FLAT = EVERY | {"features": WIDTHS | WIDTHS.map(tuple), "binary_ends": st.booleans()}
CHANNELS = st.lists(st.integers(1, 5) | st.just("M"), min_size=1, max_size=4)
STEMS = st.sampled_from([cifar_stem, imagenet_stem])
DEEP = {"stages": st.lists(st.integers(0, 2), min_size=1, max_size=2), "width": st.integers(1, 3), "stem": STEMS}
MODELS = st.one_of(
    st.fixed_dictionaries({}, optional=FLAT).map(lambda options: SpikingMLP(**options)),
    st.fixed_dictionaries({}, optional=FLAT).map(lambda options: SpikingRNN(**options)),
    st.fixed_dictionaries({}, optional=EVERY | {"channels": CHANNELS, "binary_ends": st.booleans()}).map(
        lambda options: SpikingVGG(**options)
    ),
    st.fixed_dictionaries({}, optional=EVERY | DEEP).map(lambda options: SpikingResNet(**options)),
)


def plain(value):
    """A value in which what means the same is the same."""
    if isinstance(value, functools.partial):
        names = [field.name for field in dataclasses.fields(value.func) if field.name not in ("parent", "name")]
        given = {**dict(zip(names, value.args, strict=False)), **value.keywords}
        return value.func, {name: plain(given.get(name, getattr(value.func, name))) for name in names}
    if isinstance(value, type) and issubclass(value, nn.Module):
        return plain(functools.partial(value))
    if isinstance(value, np.ndarray | np.generic | list | tuple):
        items = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        return [plain(item) for item in items] if isinstance(items, list | tuple) else items
    return value


@given(MODELS)
def test_a_network_of_any_attributes_is_described_and_built_again(model):
    text = json.dumps(_description.described(model), allow_nan=False)
    again = _description.rebuilt(json.loads(text))
    assert type(again) is type(model)
    names = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
    for name in names:
        assert plain(getattr(again, name)) == plain(getattr(model, name)), name
        assert type(getattr(again, name)) is not list
    hash(again)  # steps are compiled once for equal models
    assert json.dumps(_description.described(again)) == text


def test_defaults_are_written_down_and_read_as_such():
    attributes = _description.described(SpikingMLP())["attributes"]
    assert attributes["neuron"]["attributes"]["tau"] == 2.0  # another default of a later day changes nothing
    assert _description.rebuilt(_description.described(SpikingMLP())) == SpikingMLP()


@pytest.mark.parametrize(
    "name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vgg", "rnn", "resnet", "if"))]
)
def test_stock_networks_come_back_by_themselves_and_answer_alike(tmp_path, name):
    model, shape = STOCK[name]
    state = made(model, shape)
    bsojax.save_model(tmp_path / "net", model, state)
    saved = bsojax.load_model(str(tmp_path / "net"))
    assert_same(saved.variables, state.variables)
    assert saved.input_shape == state.input_shape == shape
    x = batch(shape)
    wanted = bsojax.predict(model, state, x, T)
    assert_same(bsojax.predict(saved.model, saved.state, x, T), wanted)
    logits = saved.model.apply(saved.variables, x, time_step=0, mutable=["neurons"])[0]
    assert_same(logits, model.apply(state.variables, x, time_step=0, mutable=["neurons"])[0])
    bsojax.save_model(tmp_path / "again", saved.model, saved.state)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "net").read_bytes()


class Odd(nn.Module):
    """A model of a user's own, with a tree for a parameter, a number in bfloat16, and two inputs."""

    width: int = 7

    @nn.compact
    def __call__(self, x, train=False, time_step=None):
        tree = self.param("tree", lambda key: {"list": [jnp.ones(3), (jnp.ones(()),)], "b": jnp.ones(2, jnp.bfloat16)})
        boxed = self.param("boxed", nn.with_partitioning(nn.initializers.ones, ("a",)), (self.width,))
        a = bsojax.LIF()(bsojax.BatchNorm()(bsojax.BinaryDense(self.width)(x["a"]), train))
        return bsojax.Dense(3)(a) * tree["list"][0][None] + tree["list"][1][0] + jnp.sum(boxed) + jnp.sum(x["b"][0])


def test_other_models_come_back_with_the_model_alone(tmp_path):
    path, x = tmp_path / "odd", {"a": batch((5,)), "b": (batch((2, 2)),)}
    state = made(Odd(), x)
    bsojax.save_model(path, Odd(), state)
    saved = bsojax.load_model(path, Odd())
    assert saved.model == Odd()
    assert saved.input_shape == state.input_shape
    assert saved.variables["params"]["tree"]["b"].dtype == jnp.bfloat16
    assert_same(saved.variables, nn.meta.unbox(state.variables))
    assert_same(bsojax.predict(saved.model, saved.state, x, T), bsojax.predict(Odd(), state, x, T))
    message = refusal(path)
    assert "Odd is not a network of bsojax.models" in message
    assert "load_model(path, model)" in message
    assert "leaf 'batch_stats/BatchNorm_0/mean' must be numbers[8], and is numbers[7]" in refusal(path, Odd(8))


def test_a_part_of_ones_own_is_named_where_the_model_is_wanted(tmp_path):
    class Mine(bsojax.LIF):
        pass

    model = SpikingMLP((4, 4), neuron=functools.partial(Mine, tau=3.0))
    state = made(model)
    bsojax.save_model(tmp_path / "net", model, state)
    assert "its neuron, " in refusal(tmp_path / "net")
    assert "Mine, is not a part of bsojax" in refusal(tmp_path / "net")
    assert_same(bsojax.load_model(tmp_path / "net", model).variables, state.variables)
    for other in (SpikingMLP(scale=lambda fan_in: 1.0), SpikingMLP(neuron=functools.partial(bsojax.LIF, name="a"))):
        with pytest.raises(_description.CannotBeSaidError):
            _description.described(other)
    with pytest.raises(_description.CannotBeSaidError, match="more than 256 layers"):
        _description.described(SpikingMLP((1,) * 257))
    many = functools.partial(bsojax.LIF, tau=np.linspace(2, 3, 3000))
    odd = SpikingMLP((3000, 3000), 2, neuron=many)
    bsojax.save_model(tmp_path / "net", odd, made(odd, (1,)))
    assert "its attributes have too many numbers" in refusal(tmp_path / "net")


def test_a_model_that_is_given_is_taken_and_its_input_too(tmp_path):
    model = SpikingVGG(channels=(4, 4))
    state = made(model, (4, 4, 1))
    bsojax.save_model(tmp_path / "net", model, state)
    mine = SpikingVGG(channels=(4, 4), neuron=functools.partial(bsojax.LIF, tau=3.0))
    saved = bsojax.load_model(tmp_path / "net", mine, input_shape=[6, 6, 1])
    assert saved.model is mine
    assert saved.input_shape == (6, 6, 1)
    assert bsojax.predict(saved.model, saved.state, batch((6, 6, 1)), T).shape == (4, 10)


def differing(one, other):
    return sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in zip(*map(jax.tree.leaves, (one, other))))  # noqa: B905


def test_the_signs_to_deploy_go_out_packed_or_not(tmp_path):
    tx = bsojax.split_optimizer(bsojax.calibrated(T, 40), optax.sgd(0.1))
    x, y = batch((5,)), np.arange(4) % 3
    state, step = bsojax.init(SMALL, tx, jax.random.key(0), x), bsojax.make_train_step(SMALL, tx, T)
    for _ in range(3):
        state, _ = step(state, x, y)
    assert differing(state.signs, state.variables["signs"]) > 0
    bsojax.save_model(tmp_path / "net", SMALL, state)
    saved = bsojax.load_model(tmp_path / "net")
    assert_same(saved.variables, state.variables)
    assert_same(saved.state.variables, saved.variables)
    assert_same(bsojax.predict(saved.model, saved.state, x, T), bsojax.predict(SMALL, state, x, T))
    bsojax.save_model(tmp_path / "packed", SMALL, state.replace(signs=bsojax.pack_signs(state.signs)))
    assert (tmp_path / "packed").read_bytes() == (tmp_path / "net").read_bytes()


def test_a_saved_network_is_evaluated_re_estimated_and_trained_on(tmp_path):
    state, x, y = made(SMALL), batch((5,)), np.arange(4) % 3
    bsojax.save_model(tmp_path / "net", SMALL, state)
    saved = bsojax.load_model(tmp_path / "net")
    evaluate = bsojax.make_eval_step(saved.model, T)
    assert_same(evaluate(saved.state, x, y), evaluate(state, x, y))
    refresh = functools.partial(bsojax.refresh_statistics, SMALL, batches=[x], num_steps=T)
    assert_same(refresh(state=saved.state).batch_stats, refresh(state=state).batch_stats)
    fresh = saved.state.replace(opt_state=TX.init(saved.state.trainable))
    fresh, metrics = bsojax.make_train_step(SMALL, TX, T)(fresh, x, y)
    assert np.isfinite(metrics["loss"])


def test_numbers_keep_their_dtypes(tmp_path):
    state = made(SMALL)
    half = state.replace(params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.params))
    bsojax.save_model(tmp_path / "net", SMALL, half)
    assert_same(bsojax.load_model(tmp_path / "net").variables, half.variables)
    with jax.enable_x64(True):
        double = state.replace(params=jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) / 3, state.params))
        bsojax.save_model(tmp_path / "net", SMALL, double)
        assert_same(bsojax.load_model(tmp_path / "net").variables, double.variables)
    assert "is float64, which JAX holds only under jax_enable_x64" in refusal(tmp_path / "net")


def test_what_is_no_state_of_the_model_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="state: leaf 'batch_stats/norm_0/mean' must be numbers.7., and is numbers.8."):
        bsojax.save_model(tmp_path / "net", SpikingMLP((7,), 3), made(SMALL))
    with pytest.raises(TypeError, match="model"):
        bsojax.save_model(tmp_path / "net", lambda x: x, made(SMALL))
    assert not list(tmp_path.iterdir())
