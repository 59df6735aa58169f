"""Saved networks: what comes back answers as what was saved, and any other file is refused by one clear error."""

import copy
import dataclasses
import functools
import json
import os
import struct

import flax.linen as nn
import flax.serialization
import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hostile_files import as_earlier, crafted, frugal_refusal
from hypothesis import given
from hypothesis import strategies as st

import bsojax
from bsojax.deploy import _description, _earlier
from bsojax.models import SpikingMLP, SpikingResNet, SpikingRNN, SpikingVGG, cifar_stem, imagenet_stem

T = 2
TX = bsojax.split_optimizer(bsojax.bso(1e-3, b1=0.9), optax.sgd(0.1))
SMALL = SpikingMLP(features=(8, 9), num_classes=3)


def batch(shape, size=4):
    return np.random.default_rng(0).random((size, *shape)).astype(np.float32)


def made(model, shape=(5,)):
    """A state with other numbers in all leaves than those at the beginning; drawn, as nothing is compiled for it."""
    x = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shape if has_arrays(shape) else batch(shape)
    )
    like = jax.eval_shape(lambda key: bsojax.init(model, optax.identity(), key, x), jax.random.key(0))
    rng = np.random.default_rng(1)

    def drawn(leaf):
        values = rng.random(leaf.shape)
        return jnp.asarray(values > 0.5 if leaf.dtype == bool else values + 0.1, leaf.dtype)

    return jax.tree.map(drawn, like)


def has_arrays(tree):
    return any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree))


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def refusal(path, *arguments, **options):
    """The message with which a file is refused, cheaply: by a ValueError, nothing else, that begins with its path."""
    return frugal_refusal(path, lambda: bsojax.load_model(path, *arguments, **options))


# What comes back.

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


STOCK = {
    "mlp": (SMALL, (5,)),
    "if": (
        SpikingMLP((6, 6), 3, True, bsojax.IF, bsojax.Affine, bsojax.rsqrt_fan_in),
        (2, 3),
    ),
    "rnn": (SpikingRNN((6, 5), 3, neuron=functools.partial(bsojax.ALIF, tau=(1.5,), beta=0.5)), (5,)),
    "vgg": (
        SpikingVGG(
            channels=(4, "M", 6),
            neuron=functools.partial(bsojax.PLIF, trace=bsojax.ndot, surrogate=bsojax.atan(3.0)),
            norm=functools.partial(bsojax.BatchNorm, num_steps=T, epsilon=1e-3),
        ),
        (4, 4, 2),
    ),
    "resnet": (SpikingResNet(3, (1, 1), 4, cifar_stem, bsojax.CubaLIF, bsojax.BatchRenorm), (4, 4, 3)),
}


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


# What is refused.


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a saved network."""
    path = tmp_path_factory.mktemp("good") / "net"
    bsojax.save_model(path, SMALL, made(SMALL))
    return path.read_bytes()


def parts(content):
    """The header and the arrays of a file."""
    length = int.from_bytes(content[12:16], "little")
    return json.loads(content[80 : 80 + length]), content[80 + length :]


OTHERS = {
    "other widths": (SpikingMLP((8, 7), 3), "leaf 'batch_stats/norm_1/mean' must be numbers[7], and is numbers[9]"),
    "other classes": (SpikingMLP((8, 9), 4), "leaf 'params/readout/bias' must be numbers[4], and is numbers[3]"),
    "more layers": (SpikingMLP((8, 9, 9), 3), "leaf 'batch_stats/norm_2/mean' must be numbers[9], and is missing"),
    "fewer layers": (SpikingMLP((8,), 3), "must be"),
    "without statistics": (SpikingMLP((8, 9), 3, norm=bsojax.Affine), "must be absent, and is numbers[8]"),
    "signs in the place of numbers": (
        SpikingMLP((8, 9), 3, binary_ends=True),
        "leaf 'signs/dense_0/kernel' must be signs[5, 8], and is missing",
    ),
    "another input": (SpikingVGG(channels=(8, 9)), "SpikingVGG cannot be called with"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_refused_by_its_first_leaf(tmp_path, good, name):
    (tmp_path / "net").write_bytes(good)
    model, message = OTHERS[name]
    found = refusal(tmp_path / "net", model)
    assert message in found
    assert "holds another network" in found


def test_numbers_in_the_place_of_signs_are_refused(tmp_path, good):
    tree, payload = parts(good)
    listed = next(each for each in tree["arrays"] if each[0].startswith("signs/"))
    listed[1:] = ["float32", listed[2]]
    (tmp_path / "net").write_bytes(crafted(tree, payload + bytes(4 * 8 * 9 - 9)))
    assert "must be signs[8, 9], and is numbers[8, 9]" in refusal(tmp_path / "net")


def test_damage_anywhere_is_refused(tmp_path, good):
    path = tmp_path / "net"
    for place in range(0, len(good), 61):
        path.write_bytes(good[:place])
        with pytest.raises(ValueError, match=f"{path}: "):
            bsojax.load_model(path)
    for place in [*range(0, 90), *range(90, len(good), 61), len(good) - 1]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(ValueError, match=f"{path}: "):
            bsojax.load_model(path)
    path.write_bytes(good + b"\x00")
    assert "was cut, or is damaged" in refusal(path)
    path.write_bytes(crafted(*parts(good), version=2))
    assert "format version is 2" in refusal(path)
    path.write_bytes(crafted({**parts(good)[0], "kind": "integer network"}, parts(good)[1]))
    assert "it holds 'integer network', not 'model'" in refusal(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        bsojax.load_model(path)
    path.mkdir()
    assert "not a regular file" in refusal(path)


def attributes(**changed):
    """A description with other attributes."""
    return lambda header: header["model"]["attributes"].update(changed)


def replaced(**changed):
    return lambda header: header.update(changed)


BUILDS = "it describes cannot be built"
ESCAPES = {"module": "os.system", "attributes": {"command": "true"}}
DESCRIPTIONS = {
    "a network of another library": (replaced(model={"network": "os.system", "attributes": {}}), BUILDS),
    "a network by its path": (replaced(model={"network": "bsojax.models.SpikingMLP", "attributes": {}}), BUILDS),
    "a network that is a list": (replaced(model=[1]), BUILDS),
    "a network of no name": (replaced(model={"network": ["SpikingMLP"], "attributes": {}}), BUILDS),
    "an attribute too many": (attributes(parent=None), BUILDS),
    "an attribute of another class": (attributes(__class__="int"), BUILDS),
    "a neuron from elsewhere": (attributes(neuron=ESCAPES), BUILDS),
    "a neuron of no kind": (attributes(neuron={"import": "os"}), BUILDS),
    "a neuron in words": (attributes(neuron="LIF"), "cannot be called"),
    "a neuron that is a network": (attributes(neuron={"module": "SpikingMLP", "attributes": {}}), BUILDS),
    "a scale that is a stem": (attributes(scale={"value": "cifar_stem"}), "cannot be called"),
    "a surrogate without sharpness": (
        attributes(neuron={"module": "LIF", "attributes": {"surrogate": {"surrogate": "atan", "alpha": 0}}}),
        BUILDS,
    ),
    "a surrogate of a list": (
        attributes(neuron={"module": "LIF", "attributes": {"surrogate": {"surrogate": "atan", "alpha": [[]]}}}),
        BUILDS,
    ),
    "a time constant of words": (
        attributes(neuron={"module": "LIF", "attributes": {"tau": "two"}}),
        "cannot be called",
    ),
    "ragged time constants": (attributes(neuron={"module": "LIF", "attributes": {"tau": [[1], 2]}}), "cannot be"),
    "many time constants": (attributes(neuron={"module": "LIF", "attributes": {"tau": [2.0] * 90_000}}), BUILDS),
    "half a layer": (attributes(features=[8.5]), "holds another network"),
    "layers in words": (attributes(features="8"), BUILDS),
    "many layers": (attributes(features=[8] * 100_000), BUILDS),
    "more layers than arrays": (attributes(features=[8] * 256), "more layers than the file has arrays for"),
    "a width beyond numbers": (attributes(features=[10**300, 9]), "holds another network"),
    "a width that takes terabytes": (attributes(features=[2**40, 2**40]), "holds another network"),
    "a negative width": (attributes(features=[-8, 9]), "holds another network"),
    "an infinite number": (attributes(num_classes=[1e400]), "not a JSON number"),
    "millions of blocks": (
        replaced(model={"network": "SpikingResNet", "attributes": {"stages": [10**9, -(10**9)]}}),
        BUILDS,
    ),
    "no end of blocks": (replaced(model={"network": "SpikingResNet", "attributes": {"stages": [10**30]}}), BUILDS),
    "many stages": (replaced(model={"network": "SpikingResNet", "attributes": {"stages": [0] * 99_999}}), BUILDS),
    "blocks of words": (replaced(model={"network": "SpikingResNet", "attributes": {"stages": ["2"]}}), BUILDS),
    "pooling without end": (
        replaced(model={"network": "SpikingVGG", "attributes": {"channels": ["M"] * 99_999}}),
        BUILDS,
    ),
    "pooling of what is no image": (
        replaced(model={"network": "SpikingVGG", "attributes": {"channels": ["M"] * 256}}),
        "cannot be called",
    ),
    "no model": (replaced(model=None), "it does not say how its model is built; load_model"),
    "no model, with a reason that a terminal obeys": (replaced(model=None, because="\x1b[2J"), "is built; load_model"),
    "no model, with no end of reasons": (replaced(model=None, because="a" * 10**5), "load_model(path, model)"),
    "no input": (replaced(input_shape=None), "is not a shape of an input"),
    "a negative input": (replaced(input_shape={"array": [-5]}), "is not a shape of an input"),
    "an input of words": (replaced(input_shape={"array": "5"}), "is not a shape of an input"),
    "an input without end": (replaced(input_shape={"array": [2**40, 2**40]}), "is not a shape of an input"),
    "a large input": (replaced(input_shape={"array": [2**40]}), "holds another network"),
    "an input of two kinds": (replaced(input_shape={"array": [5], "list": []}), "is not a shape of an input"),
    "an input in a dict": (replaced(input_shape={"dict": {"a": {"array": [5]}}}), "holds another network"),
    "an input of a kind that is made": (replaced(input_shape={"object": ["os"]}), "is not a shape of an input"),
    "inputs without end": (replaced(input_shape={"list": [{"array": [5]}] * 20_000}), "more than 256 arrays"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_hostile_descriptions_are_refused_in_a_second_and_little_memory(tmp_path, good, case):
    change, message = DESCRIPTIONS[case]
    tree, payload = parts(good)
    change(tree["header"])
    (tmp_path / "net").write_bytes(crafted(tree, payload))
    assert message in refusal(tmp_path / "net")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["M", "LIF", "ottt", "a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "value", "array", "dict"]), inner, max_size=2)
        | st.fixed_dictionaries({"value": st.sampled_from(["ottt", "unit_scale", "cifar_stem", "x"])})
        | st.fixed_dictionaries({"module": st.sampled_from(["LIF", "BatchNorm", "x"]), "attributes": inner})
    ),
    max_leaves=6,
)


def places(tree, place=()):
    """All places in a tree of JSON."""
    yield place
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def with_changed(tree, place, value):
    if not place:
        return value
    tree = copy.copy(tree)
    tree[place[0]] = with_changed(tree[place[0]], place[1:], value)
    return tree


def fuzz_headers(path, good, examples):
    tree, payload = parts(good)
    inside = [place for place in places(tree) if place[:1] in (("header",), ("arrays",))]

    def check(edit):
        place, value = edit
        path.write_bytes(crafted(with_changed(tree, place, value), payload))
        try:
            saved = bsojax.load_model(path)
        except ValueError as error:
            assert type(error) is ValueError  # noqa: PT017
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            return False
        for leaf in jax.tree.leaves(saved.variables):
            assert leaf.nbytes <= 8 * len(good)
        return True

    edits = st.tuples(st.sampled_from(inside), JSON | st.integers(0, 10) | st.floats(0.1, 10))
    return fuzzing.fuzz(edits, examples, check)


def test_fuzzed_headers_are_refused_or_read_as_a_network(tmp_path, good):
    outcomes = fuzz_headers(tmp_path / "net", good, 60)
    assert sum(outcomes) < len(outcomes)


@pytest.mark.slow
def test_many_fuzzed_headers_are_refused_or_read_as_a_network(tmp_path, good):
    assert sum(fuzz_headers(tmp_path / "net", good, 1500)) > 0


# Networks of earlier runs.


@pytest.mark.parametrize("name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in [*STOCK][1:])])
def test_networks_of_earlier_runs_are_read(tmp_path, name):
    model, shape = STOCK[name]
    state, path = made(model, shape), tmp_path / "model.msgpack"
    path.write_bytes(as_earlier(state.variables))
    for saved in (bsojax.load_model(path), bsojax.load_model(path, model)):
        assert_same(saved.variables, state.variables)
        with pytest.raises(ValueError, match=r"^input_shape: the file does not hold it"):
            _ = saved.state
    saved = bsojax.load_model(path, model, input_shape=shape)
    assert_same(saved.variables, state.variables)
    x = batch(shape)
    assert_same(bsojax.predict(saved.model, saved.state, x, T), bsojax.predict(model, state, x, T))
    assert "holds another network" in refusal(path, SpikingMLP((3,)), input_shape=shape)


def test_earlier_files_are_read_as_flax_reads_them(tmp_path):
    tree = {
        "signs": {},
        "params": {"a" * 40: {"b": np.arange(300, dtype=np.float32).reshape(3, 100)}, "c": np.array(5, np.int8)},
        "batch_stats": {f"{n}": {"x": np.zeros((n, 70_000 // (n + 1)), np.uint16)} for n in range(20)},
    }
    tree["params"]["half"] = np.asarray(jnp.arange(3, dtype=jnp.bfloat16))
    (tmp_path / "net").write_bytes(flax.serialization.msgpack_serialize(tree))
    found = bsojax.load_model(tmp_path / "net").variables
    assert_same(found, flax.serialization.msgpack_restore((tmp_path / "net").read_bytes()))


def test_damaged_earlier_files_are_refused_or_hold_arrays(tmp_path):
    path, whole = tmp_path / "net", as_earlier(jax.device_get(made(SMALL).variables))
    for place in range(1, len(whole), 5):
        path.write_bytes(whole[:place])
        with pytest.raises(ValueError, match=f"{path}: "):
            _earlier.read_earlier(path)
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            held = _earlier.read_earlier(path)
            assert sum(leaf.nbytes for leaf in held.values()) < 8 * len(whole)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
    assert refused > 100


def array_of(shape, dtype=b"float32", held=b"", count=None):
    """flax's array, whatever it says of itself; sizes below 2 ** 32."""
    content = bytes([0x93, 0x90 + len(shape)]) + b"".join(b"\xcf" + struct.pack(">Q", size) for size in shape)
    content += bytes([0xA0 + len(dtype)]) + dtype + b"\xc6" + struct.pack(">I", len(held)) + held
    return b"\xc9" + struct.pack(">I", len(content) if count is None else count) + b"\x01" + content


def with_param(value, name=b"\xa1a"):
    return b"\x83\xa5signs\x80\xabbatch_stats\x80\xa6params\x81" + name + value


EARLIER = {
    "lists without end": with_param(b"\xdd\x00\x0f\xff\xff" * 10**5),
    "a list of billions": with_param(b"\xdd\xff\xff\xff\xff" + bytes(10**5)),
    "a map of billions": with_param(b"\xdf\xff\xff\xff\xff" + b"\xa1b\x80" * 10**5),
    "maps without end": with_param(b"\x81\xa1a" * 10**5),
    "a map of many": with_param(b"\xdf\x00\x01\x86\xa0" + b"".join(b"\xa6%06d\x80" % n for n in range(10**5))),
    "text of billions": with_param(b"", name=b"\xdb\xff\xff\xff\xff"),
    "an extension of billions": with_param(b"\xc9\xff\xff\xff\xff\x01\x93"),
    "terabytes": with_param(array_of((2**38,))),
    "terabytes by two sides": with_param(array_of((2**22, 2**22), held=bytes(8))),
    "a side beyond numbers": with_param(array_of((2**63, 2), held=bytes(8))),
    "sides beyond memory that hold nothing": with_param(array_of((2**40, 2**40, 0))),
    "an object": with_param(array_of((1,), b"object", bytes(8))),
    "a structure": with_param(array_of((1,), b"i4,(999,)i4", bytes(8))),
    "a boolean": with_param(array_of((1,), b"bool", bytes(1))),
    "a wrong length": with_param(array_of((2,), held=bytes(8), count=20)),
    "another extension": with_param(b"\xd4\x03a"),
    "a number": with_param(b"\x05"),
    "text": with_param(b"\xa1b"),
    "text that is none": with_param(array_of((1,), held=bytes(4)), name=b"\xa1\xff"),
    "a name that escapes": with_param(array_of((1,), held=bytes(4)), name=b"\xa4../a"),
    "a name of two": with_param(array_of((1,), held=bytes(4)), name=b"\xa3a/b"),
    "no name": with_param(array_of((1,), held=bytes(4)), name=b"\xa0"),
    "a name twice": with_param(array_of((1,), held=bytes(4))).replace(b"params\x81", b"params\x82")
    + b"\xa1a"
    + array_of((1,), held=bytes(4)),
    "another collection": b"\x83\xa5signs\x80\xabbatch_stats\x80\xa5other\x80",
    "collections of one name": b"\x83\xa5signs\x80\xa5signs\x80\xa6params\x80",
    "more behind": with_param(array_of((1,), held=bytes(4))) + b"\x00",
    "signs without a shape": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x81\xa4bits"
    + array_of((1,), b"uint8", b"a"),
    "signs of terabytes": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x82\xa4bits"
    + array_of((1,), b"uint8", b"a")
    + b"\xa5shape"
    + array_of((1,), b"int64", struct.pack("<q", 2**43)),
    "signs of a negative shape": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x82\xa4bits"
    + array_of((1,), b"uint8", b"a")
    + b"\xa5shape"
    + array_of((2,), b"int32", struct.pack("<ii", -2, -4)),
    "a shape without signs": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x81\xa5shape"
    + array_of((1,), b"int32", bytes(4)),
}


@pytest.mark.parametrize("case", EARLIER)
def test_hostile_earlier_files_are_refused_in_a_second_and_little_memory(tmp_path, case):
    (tmp_path / "net").write_bytes(EARLIER[case])
    refusal(tmp_path / "net")


def test_an_earlier_file_with_holes_of_a_terabyte_is_not_read(tmp_path):
    (tmp_path / "net").write_bytes(with_param(array_of((1,), held=bytes(4))))
    os.truncate(tmp_path / "net", 2**40)
    assert "follow the network" in refusal(tmp_path / "net")


def test_fuzzed_earlier_files_are_refused_or_hold_arrays(tmp_path):
    path = tmp_path / "net"
    whole = with_param(array_of((2, 1), held=bytes(8)))

    def check(edit):
        place, count, new = edit
        path.write_bytes(whole[:1] + (whole[1:place] + new + whole[place + count :]))
        try:
            _earlier.read_earlier(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            return False
        return True

    edits = st.tuples(st.integers(1, len(whole)), st.integers(0, 20), st.binary(max_size=20))
    assert not all(fuzzing.fuzz(edits, 300, check))
