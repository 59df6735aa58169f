"""Exported programs: what predict gives, bit for bit, for batches of any size and where there is no bsojax."""

import functools
import os
import pathlib
import subprocess
import sys

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import rarely
from hypothesis import given, settings
from hypothesis import strategies as st

import bsojax
from bsojax.deploy import export_inference

pytestmark = pytest.mark.optimised  # bits of two programs are compared

T = 3
BATCHES = (1, 7, 32, 355)
VGG = bsojax.models.SpikingVGG(
    channels=(4, 8, "M", 8), num_classes=5, norm=functools.partial(bsojax.BatchNorm, num_steps=T)
)
MLP = bsojax.models.SpikingMLP(features=(16, 16), num_classes=3)
READER = """
import pathlib, sys
import jax, numpy as np
program = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
assert program.platforms == ("cpu", "cuda", "tpu"), program.platforms
call = jax.jit(program.call)
given = np.load(sys.argv[2])
np.savez(sys.argv[3], **{name: call(given[name]) for name in given})
assert "bsojax" not in sys.modules and "flax" not in sys.modules
"""


def made(model, x, tx=None):
    """A state whose statistics and parameters are none of those that it starts with."""
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-3, num_steps=T), optax.sgd(0.1)) if tx is None else tx
    state, rng = bsojax.init(model, tx, jax.random.key(0), x), np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32), state.params)
    stats = jax.tree.map(lambda leaf: rng.uniform(0.2, 2.0, leaf.shape).astype(np.float32), state.batch_stats)
    return state.replace(params=params, batch_stats=stats)


def images(size, shape=(8, 8, 1), seed=0):
    return np.random.default_rng(seed).random((size, *shape), np.float32)


@pytest.fixture(scope="module")
def vgg():
    return made(VGG, images(2))


@pytest.fixture(scope="module")
def mlp():
    return made(MLP, images(2, (6,)))


@pytest.mark.parametrize("sequence", [True, *rarely(False)])
def test_it_gives_the_bits_of_predict_in_a_process_that_has_jax_alone(vgg, tmp_path, sequence):
    given = {str(size): images(size, seed=size) for size in (BATCHES[:2] if sequence else BATCHES)}
    if sequence:
        given = {name: np.stack([x, np.zeros_like(x), x[::-1]]) for name, x in given.items()}
    data = export_inference(VGG, vgg, T, x=given["1"]).serialize()
    (tmp_path / "network.stablehlo").write_bytes(data)
    np.savez(tmp_path / "x.npz", **given)
    names = [str(tmp_path / name) for name in ("network.stablehlo", "x.npz", "y.npz")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-P", "-c", READER, *names], check=True, cwd=tmp_path, env=environment)
    answers = np.load(names[-1])
    for name, x in given.items():
        want = np.asarray(bsojax.predict(VGG, vgg, x, T))
        assert np.ptp(want) > 0
        np.testing.assert_array_equal(answers[name], want)


def test_it_is_lowered_for_each_platform_and_knows_no_path_of_this_machine(vgg):
    exported = export_inference(VGG, vgg, T)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    (x,) = exported.in_avals
    assert jax.export.is_symbolic_dim(x.shape[0])
    assert (x.shape[1:], x.dtype) == ((8, 8, 1), jnp.float32)
    text = exported.serialize()
    assert str(pathlib.Path(bsojax.__file__).parent).encode() not in text
    for platform in exported.platforms:
        alone = export_inference(VGG, vgg, T, platforms=(platform,))
        assert alone.platforms == (platform,)
        assert "threefry" not in alone.mlir_module()
    assert jax.config.jax_traceback_in_locations_limit != 0


@pytest.mark.parametrize("options", [{}, *rarely({"dtype": jnp.bfloat16})])
@pytest.mark.parametrize("packed", [False, *rarely(True)])
def test_the_training_step_is_lowered_for_each_platform(options, packed):
    x, y = images(2), np.zeros(2, np.int32)
    tx = bsojax.split_optimizer(bsojax.calibrated(num_steps=T, total_updates=9), optax.sgd(0.1))
    state = bsojax.init(VGG, tx, jax.random.key(0), x, packed=packed)
    traced = jax.jit(bsojax.make_train_step(VGG, tx, T, **options)).trace(state, x, y)
    texts = {}
    for platform in ("cpu", "cuda", "tpu"):
        texts[platform] = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "convolution" in texts[platform]
    # What is there for XLA's CPU compiler alone is left out elsewhere.
    assert len(texts["cpu"].splitlines()) > len(texts["cuda"].splitlines())
    assert "custom_call" not in texts["cuda"]
    assert "custom_call" not in texts["tpu"]


def test_a_sign_takes_one_bit_packed_or_not():
    wide = bsojax.models.SpikingMLP(features=(16, 1024, 1024), num_classes=3)
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-3, num_steps=T), optax.adam(0.1))
    states = [bsojax.init(wide, tx, jax.random.key(0), images(2, (6,)), packed=packed) for packed in (False, True)]
    sizes = [len(export_inference(wide, state, T).serialize()) for state in states]
    signs = bsojax.signs.count_signs(states[0].signs)
    real = 4 * sum(leaf.size for leaf in jax.tree.leaves((states[0].params, states[0].batch_stats)))
    assert signs > 1_000_000
    assert signs / 8 < sizes[0] < signs / 8 + real + 40_000
    assert sizes[0] == sizes[1]


def test_the_signs_are_those_to_ship():
    x = images(16, (6,))
    tx = bsojax.split_optimizer(bsojax.calibrated(num_steps=T, total_updates=2 * T), optax.sgd(0.1))
    state, step = made(MLP, x, tx), bsojax.make_train_step(MLP, tx, T)
    for _ in range(2):
        state, _ = step(state, x, np.arange(16) % 3)
    shipped = state.variables["signs"]
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), shipped, state.signs)))
    np.testing.assert_array_equal(export_inference(MLP, state, T).call(x), bsojax.predict(MLP, state, x, T))


@pytest.fixture(scope="module")
def programs(mlp):
    """Programs by whether they take sequences, and answer at each time step."""
    like = {False: jax.ShapeDtypeStruct((2, 6), jnp.float32), True: jax.ShapeDtypeStruct((T, 2, 6), jnp.float32)}
    both = (False, True)
    return {
        (sequence, per_step): jax.jit(export_inference(MLP, mlp, T, x=like[sequence], per_step=per_step).call)
        for sequence in both
        for per_step in both
    }


@pytest.mark.slow
@given(data=st.data(), size=st.sampled_from([1, T, 8]), sequence=st.booleans(), per_step=st.booleans())
@settings(max_examples=10)
def test_it_gives_the_bits_of_predict_for_any_batch(mlp, programs, data, size, sequence, per_step):
    x = images(size, (6,), data.draw(st.integers(0, 99)))
    x = np.stack([x] * T) * np.arange(T, dtype=np.float32)[:, None, None] if sequence else x
    if data.draw(st.booleans()):
        x[..., 0, 0] = np.nan
    np.testing.assert_array_equal(programs[sequence, per_step](x), bsojax.predict(MLP, mlp, x, T, per_step=per_step))


def test_bfloat16_and_sequences_as_long_as_the_batch(mlp):
    frames = images(T, (6,)).astype(jnp.bfloat16)
    exported = export_inference(MLP, mlp, T, x=frames)
    assert [aval.dtype for aval in (*exported.in_avals, *exported.out_avals)] == [jnp.bfloat16, jnp.float32]
    np.testing.assert_array_equal(exported.call(frames), bsojax.predict(MLP, mlp, frames, T))


class Pair(nn.Module):
    """Two inputs, one of which moves, and two heads."""

    @nn.compact
    def __call__(self, x, train=False):
        hidden = bsojax.LIF()(bsojax.BinaryDense(8)(x["still"]) + bsojax.Dense(8)(x["moving"]))
        return {"a": bsojax.Dense(2)(hidden), "b": bsojax.Dense(1)(hidden)}


def test_trees_of_inputs_and_outputs():
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-3, num_steps=T), optax.sgd(0.1))
    x = {"still": images(5, (4,)), "moving": np.stack([images(5, (3,), seed) for seed in range(T)])}
    state = bsojax.init(Pair(), tx, jax.random.key(0), {"still": x["still"], "moving": x["moving"][0]})
    exported = export_inference(Pair(), state, T, x=x)
    chex.assert_trees_all_equal(exported.call(x), bsojax.predict(Pair(), state, x, T))
    frames = {"still": x["still"][:2], "moving": x["moving"][0, :2]}
    by_default = export_inference(Pair(), state, T)
    chex.assert_trees_all_equal(by_default.call(frames), bsojax.predict(Pair(), state, frames, T))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"x": np.zeros((2, 7), np.float32)}, ValueError, r"x: the model was initialised for examples of shape \(6,\)"),
        ({"x": np.zeros((2, 2, 6), np.float32)}, ValueError, r"for a frame per time step; got \(2, 2, 6\)"),
        ({"x": np.zeros((2, 6), np.uint8)}, TypeError, "x: needs a floating dtype, not uint8"),
        ({"platforms": "cpu"}, ValueError, r"platforms: needs a sequence of names .* got 'cpu'"),
        ({"platforms": ("gpu",)}, ValueError, "platforms: .* cuda"),
        ({"platforms": ()}, ValueError, "platforms: "),
    ],
)
def test_what_fits_nothing_is_refused(mlp, options, error, message):
    with pytest.raises(error, match=message):
        export_inference(MLP, mlp, T, **options)


def test_states_of_other_models_and_donated_ones_are_refused(mlp):
    with pytest.raises(ValueError, match="was it made with another model"):
        export_inference(bsojax.models.SpikingMLP(features=(16, 17), num_classes=3), mlp, T)
    with pytest.raises(TypeError, match=r"needs a flax.linen module"):
        export_inference(lambda x: x, mlp, T)
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-3, num_steps=T), optax.sgd(0.1))
    state = bsojax.init(MLP, tx, jax.random.key(0), images(2, (6,)))
    bsojax.make_train_step(MLP, tx, T)(state, images(2, (6,)), np.array([0, 1]))
    with pytest.raises(ValueError, match="keep the state that a step returns"):
        export_inference(MLP, state, T)
