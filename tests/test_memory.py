"""Bytes: flat in the number of time steps, exact by tree, and no float copy of the weights between steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax
from benchmarks.plain import PlainBatchNorm, PlainLIF

BATCH = 16


def shapes(model, tx, input_shape=(8, 8, 1)):
    """A state and a batch as shapes: nothing is drawn or run."""
    x = jax.ShapeDtypeStruct((BATCH, *input_shape), jnp.float32)
    y = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    return jax.eval_shape(lambda key: bsojax.init(model, tx, key, x), jax.random.key(0)), x, y


def make(num_steps, flip=None, channels=(16, 32, "M", 64)):
    model = bsojax.models.SpikingVGG(channels=channels)
    flip = bsojax.t_bso(5e-7, 32) if flip is None else flip
    tx = bsojax.split_optimizer(flip, optax.sgd(0.1))
    return model, tx, bsojax.make_train_step(model, tx, num_steps)


def test_the_training_step_takes_the_same_bytes_at_every_number_of_time_steps():
    bytes_at = {}
    for num_steps in (2, 8, 32):
        model, tx, step = make(num_steps)
        state, x, y = shapes(model, tx)
        report = bsojax.memory_report(state, step=step, x=x, y=y)
        bytes_at[num_steps] = (report["step_arguments"], report["step_temporaries"])
    assert len(set(bytes_at.values())) == 1, bytes_at


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bar"), [(jnp.float32, 790), (jnp.bfloat16, 571)], ids=["float32", "bfloat16"])
def test_a_step_of_the_papers_network_stays_below_its_bar(dtype, bar):
    """In MiB, at batch 128 and three time steps; the floor is 600 or 300 for membranes, traces and currents alone."""
    model = bsojax.models.SpikingVGG()
    tx = bsojax.split_optimizer(bsojax.t_bso(5e-7, 4), optax.sgd(0.1))
    x = jax.ShapeDtypeStruct((128, 32, 32, 3), jnp.float32)
    state = jax.eval_shape(lambda key: bsojax.init(model, tx, key, x), jax.random.key(0))
    step = bsojax.make_train_step(model, tx, 3, dtype=dtype)
    report = bsojax.memory_report(state, step=step, x=x, y=jax.ShapeDtypeStruct((128,), jnp.int32))
    assert (report["step_arguments"] + report["step_temporaries"]) / 2**20 <= bar


@pytest.mark.slow
def test_event_sequences_cost_their_frames_and_no_more():
    model, tx, step = make(2)
    state, x, y = shapes(model, tx)
    static = bsojax.memory_report(state, step=step, x=x, y=y)
    temporaries = []
    for num_steps in (2, 8, 32):
        _, _, step = make(num_steps)
        frames = jax.ShapeDtypeStruct((num_steps, *x.shape), x.dtype)
        report = bsojax.memory_report(state, step=step, x=frames, y=y)
        assert report["step_arguments"] - static["step_arguments"] == (num_steps - 1) * math.prod(x.shape) * 4
        temporaries.append(report["step_temporaries"])
    # 64 bytes are the unit in which the compiler lays out temporaries.
    assert max(temporaries) - min(temporaries) <= 64, temporaries
    # A frame is cut out of the sequence, and padded and transposed for the gradient of the first layer.
    assert max(temporaries) <= static["step_temporaries"] + 8 * math.prod(x.shape) * 4 + 64


def test_a_step_takes_less_than_one_with_the_gradients_of_automatic_differentiation():
    def total(norm, neuron):
        model = bsojax.models.SpikingVGG(channels=(16, 32, "M", 64), norm=norm, neuron=neuron)
        tx = bsojax.split_optimizer(bsojax.t_bso(5e-7, 4), optax.sgd(0.1))
        state, x, y = shapes(model, tx, (32, 32, 1))
        return bsojax.memory_report(state, step=bsojax.make_train_step(model, tx, 4), x=x, y=y)["step_temporaries"]

    assert total(bsojax.BatchNorm, bsojax.LIF) <= 0.72 * total(PlainBatchNorm, PlainLIF)


def test_bytes_by_tree_are_exact():
    num_steps = 4
    model, tx, _ = make(num_steps, bsojax.t_bso(5e-7, num_steps))
    state, x, _ = shapes(model, tx)
    report = bsojax.memory_report(state, model=model, x=x)
    signs = 9 * (16 * 32 + 32 * 64)
    params = 9 * 16 + 16 + 2 * (16 + 32 + 64) + 64 * 10 + 10
    neurons = BATCH * (64 * 16 + 64 * 32 + 16 * 64)
    assert report == {
        "signs": signs,
        "signs_packed": signs // 8,
        "params": 4 * params,
        "batch_stats": 4 * 2 * (16 + 32 + 64),
        "momentum": 4 * signs,
        # T second moments for each of two layers, and counters: count and skipped of t_bso.
        "optimizer_other": 4 * (2 * num_steps + 2) + _sgd_bytes(),
        "latent_adam": 12 * signs,
        "neurons": 4 * 2 * neurons,
    }


def _sgd_bytes():
    leaves = jax.tree.leaves(optax.sgd(0.1).init({"w": jnp.zeros(3)}))
    return sum(leaf.nbytes for leaf in leaves)


def test_packed_bytes_round_up_a_leaf():
    tx = bsojax.split_optimizer(bsojax.bso(0.1), optax.sgd(0.1))
    model = bsojax.models.SpikingMLP(features=(3, 3), num_classes=2)
    state, x, _ = shapes(model, tx, (5,))
    assert bsojax.memory_report(state)["signs_packed"] == math.ceil(9 / 8)
    packed = bsojax.pack_signs(bsojax.init(model, tx, jax.random.key(0), x).signs)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(packed)) == math.ceil(9 / 8)


def test_no_float_copy_of_the_signs_is_an_argument_or_result_of_the_step():
    model, tx, step = make(4)
    state, x, y = shapes(model, tx)
    out_state, _ = jax.eval_shape(step, state, x, y)
    size = math.prod(state.signs["conv_1"]["kernel"].shape)
    floats = [leaf for leaf in jax.tree.leaves(out_state) if leaf.dtype == jnp.float32 and leaf.size == size]
    assert len(floats) == 1  # the momentum, and nothing else
    assert out_state.signs["conv_1"]["kernel"].dtype == jnp.bool_


def test_a_report_of_real_arrays_and_of_shapes_agree():
    model, tx, step = make(2)
    state, x, y = shapes(model, tx)
    real = bsojax.init(model, tx, jax.random.key(0), x)
    arrays = np.zeros(x.shape, np.float32), np.zeros(y.shape, np.int32)
    want = bsojax.memory_report(state, model=model, step=step, x=x, y=y)
    assert bsojax.memory_report(real, model=model, step=step, x=arrays[0], y=arrays[1]) == want
    lists = [leaf.tolist() for leaf in arrays]
    assert bsojax.memory_report(real, model=model, step=step, x=lists[0], y=lists[1]) == want


def test_what_depends_on_the_batch_asks_for_it():
    model, tx, step = make(2)
    state, x, _ = shapes(model, tx)
    with pytest.raises(ValueError, match="x: the size of the neurons"):
        bsojax.memory_report(state, model=model)
    with pytest.raises(ValueError, match="x, y: the compiled step"):
        bsojax.memory_report(state, step=step, x=x)
