"""Uses that checks of arguments must not refuse: numbers as arrays, shapes out of files, optimizers of all kinds."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax

T = 2
X = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 2, 2, 1)
Y = np.arange(4) % 3
MLP = functools.partial(bsojax.models.SpikingMLP, features=(3, 3), num_classes=3)


def optimizer(real=None):
    return bsojax.split_optimizer(bsojax.t_bso(0.1, T), optax.sgd(0.1) if real is None else real)


def trained(model, tx=None, x=X, **options):
    tx = optimizer() if tx is None else tx
    state, metrics = bsojax.make_train_step(model, tx, T, **options)(bsojax.init(model, tx, jax.random.key(0), x), X, Y)
    assert np.isfinite(metrics["loss"])
    return state


@pytest.mark.parametrize(
    "model",
    [
        MLP(
            norm=functools.partial(bsojax.BatchNorm, momentum=jnp.float32(0.8), epsilon=np.float32(1e-5)),
            neuron=functools.partial(bsojax.LIF, tau=np.array(2.0), v_threshold=jnp.float32(1), v_reset=np.float32(0)),
            scale=lambda fan_in: jnp.float32(1 / fan_in),
        ),
        MLP(
            neuron=functools.partial(bsojax.LIF, tau=jnp.float32(2), v_threshold=np.int64(1)),
            scale=lambda fan_in: 1,
        ),
    ],
    ids=["scalars", "the other way round"],
)
def test_numbers_may_be_scalars_of_numpy_and_jax(model):
    trained(model)


def test_a_loss_takes_traced_weights():
    logits = jnp.ones((4, 3))
    losses = jax.vmap(lambda weight: bsojax.cross_entropy_mse(weight)(logits, Y))(jnp.array([0.0, 0.5]))
    np.testing.assert_allclose(losses[0], bsojax.cross_entropy_mse(0.0)(logits, Y), rtol=1e-6)


def test_norms_can_be_mapped_over_their_momentum():
    def of(momentum):
        norm = bsojax.BatchNorm(momentum=momentum)
        variables = norm.init(jax.random.key(0), jnp.ones((2, 3)))
        return norm.apply(variables, jnp.ones((2, 3)), train=True, mutable=["batch_stats"])[1]["batch_stats"]["mean"]

    np.testing.assert_allclose(jax.vmap(of)(jnp.array([0.5, 0.9])), [[0.5] * 3, [0.1] * 3], rtol=1e-6)


def test_traces_and_surrogates_may_be_made_for_each_channel():
    channels = jnp.array([0.5, 0.6, 0.7])[None]
    trace = bsojax.TraceRule(lambda inputs: channels)
    surrogate = bsojax.Surrogate(lambda x, alpha: channels, 1.0)
    trained(MLP(neuron=functools.partial(bsojax.LIF, trace=trace, surrogate=surrogate)))


def test_shapes_may_be_lists_as_files_give_them_back():
    signs = np.arange(9).reshape(3, 3) % 2 == 0
    packed = bsojax.pack_signs(jnp.asarray(signs))
    np.testing.assert_array_equal(bsojax.unpack_signs(dataclasses.replace(packed, shape=[3, 3])), signs)
    of_numpy_ints = jax.ShapeDtypeStruct(tuple(np.int64(size) for size in X.shape), jnp.float32)
    assert trained(MLP(), x=of_numpy_ints).input_shape == (2, 2, 1)


def test_the_init_of_an_optimizer_may_look_at_values():
    def init(params):
        return {"scale": jnp.float32(1 / (1 + float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(params)))))}

    def update(updates, state, params=None):
        return jax.tree.map(lambda update: update * state["scale"], updates), state

    trained(MLP(), optimizer(optax.GradientTransformation(init, update)))


class WithPartitions(nn.Module):
    """A model that names the axes of a parameter, and has one that only training uses."""

    @nn.compact
    def __call__(self, x, train=False, time_step=None):
        kernel = self.param("kernel", nn.with_partitioning(nn.initializers.ones, ("in", "out")), (3, 3), jnp.float32)
        x = bsojax.BinaryDense(3)(bsojax.flatten(x)) @ kernel
        return nn.Dense(3, name="helper")(x) if train else x


def test_parameters_may_be_unboxed_and_what_only_training_uses_be_dropped():
    model, tx = WithPartitions(), optimizer()
    state = bsojax.init(model, tx, jax.random.key(0), X)
    params = nn.meta.unbox(state.params)
    state = dataclasses.replace(state, params=params, opt_state=tx.init({"signs": state.signs, "params": params}))
    state, _ = bsojax.make_train_step(model, tx, T)(state, X, Y)
    deployed = dataclasses.replace(state, params={"kernel": state.params["kernel"]})
    assert np.isfinite(bsojax.make_eval_step(model, T)(deployed, X, Y)["loss"])


def test_evaluation_may_count_errors():
    tx = optimizer()
    state = bsojax.init(MLP(), tx, jax.random.key(0), X)
    wrong = bsojax.make_eval_step(MLP(), T, loss=lambda logits, y: jnp.sum(logits.argmax(-1) != y))(state, X, Y)["loss"]
    assert 0 <= wrong <= 4


class Batches:
    """A sequence by its items alone, as map-style data sets are."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError
        return X


def test_statistics_take_any_sequence_and_look_at_the_model_once():
    class Counted(bsojax.models.SpikingMLP):
        def __call__(self, x, train=False, time_step=None):
            traced.append(train)
            return super().__call__(x, train, time_step)

    traced = []
    model = Counted(features=(3, 3), num_classes=3)
    state = bsojax.init(model, optimizer(), jax.random.key(0), X)
    bsojax.refresh_statistics(model, state, [X], T)
    once = len(traced)
    bsojax.refresh_statistics(model, state, Batches(), T)
    assert len(traced) - once <= 1


def test_a_kernel_of_small_ints_is_one_of_weights():
    kernel = np.where(np.arange(6).reshape(3, 2) % 2 == 0, 1, -1)
    x = jnp.ones((2, 3))
    np.testing.assert_array_equal(bsojax.dense(x, jnp.asarray(kernel, jnp.int8)), x @ kernel.astype(np.float32))
