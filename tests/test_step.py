"""The step as an object, what compiling it costs, one guard for what is not finite, and a loop of one's own."""

import copy
import dataclasses
import pickle

import chex
import cloudpickle
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import often, rarely

import bsojax
from bsojax import online, optim

T = 3
X = np.random.default_rng(0).random((8, 4, 4, 1)).astype(np.float32)
Y = (np.arange(8) % 4).astype(np.int32)
MODEL = bsojax.models.SpikingVGG(num_classes=4, channels=(4, 8))
FLIP = bsojax.t_bso(0.05, T, 0.9, 0.9, momentum_dtype="int8")


def optimizer(flip=FLIP, real=None):
    return bsojax.split_optimizer(flip, optax.sgd(0.1) if real is None else real)


def fresh(tx, model=MODEL):
    return bsojax.init(model, tx, jax.random.key(0), X)


def counted(model, calls):
    """Counts the calls of a model itself."""

    class Counting(type(model)):
        def __call__(self, *args, **kwargs):
            calls.append(1)
            return super().__call__(*args, **kwargs)

    return Counting(**{field.name: getattr(model, field.name) for field in dataclasses.fields(model)
                       if field.name not in ("parent", "name")})  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "direct"),
    [
        ("train", True),
        pytest.param("train", False, marks=pytest.mark.slow),
        pytest.param("evaluate", True, marks=pytest.mark.slow),
        ("evaluate", False),
    ],
)
def test_compiling_a_step_calls_the_model_twice(kind, direct):
    calls, tx = [], optimizer()
    model = counted(MODEL, calls)
    state = fresh(tx)
    step = bsojax.make_train_step(model, tx, T) if kind == "train" else bsojax.make_eval_step(model, T)
    calls.clear()
    if direct:
        step(state, X, Y)
        step(fresh(tx), X, Y)
    else:
        step.lower(state, X, Y).compile()
    assert len(calls) == 2


def test_a_direct_call_looks_at_no_array_that_lies_on_a_device():
    tx = optimizer()
    step = bsojax.make_train_step(MODEL, tx, T)
    _, metrics = step(fresh(tx), jnp.asarray(X), jnp.asarray(Y + 1))
    assert metrics["skipped"] == T
    _, metrics = step(fresh(tx), jnp.asarray(X).at[3].set(jnp.nan), jnp.asarray(Y))
    assert metrics["skipped"] == T
    with pytest.raises(ValueError, match="y: 2 labels are outside the classes"):
        step(fresh(tx), jnp.asarray(X), Y + 1)
    with pytest.raises(ValueError, match="x: 1 examples hold NaN or infinity, the first at index 3"):
        step(fresh(tx), np.asarray(jnp.asarray(X).at[3].set(jnp.nan)), jnp.asarray(Y))


def test_a_refused_batch_leaves_the_state_as_it_was():
    tx = optimizer()
    step, state = bsojax.make_train_step(MODEL, tx, T), fresh(tx)
    with pytest.raises(ValueError, match="y: "):
        step(state, X, Y + 1)
    step(state, X, Y)  # raises if the state had been donated


def test_a_step_is_its_own_copy_and_so_are_things_that_hold_one():
    step = bsojax.make_train_step(MODEL, optimizer(), T)
    assert copy.copy(step) is step
    assert copy.deepcopy({"step": [step]})["step"][0] is step

    @dataclasses.dataclass
    class Holder:
        step: object

    assert dataclasses.asdict(Holder(step))["step"] is step
    with pytest.raises(AttributeError, match="no_such_name"):
        step.no_such_name  # noqa: B018


@pytest.mark.slow
def test_a_step_travels_by_cloudpickle_and_trains_the_same_bits():
    tx = optimizer()
    step = bsojax.make_train_step(MODEL, tx, T)
    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(step)  # optax transforms are functions of functions
    other = pickle.loads(cloudpickle.dumps({"step": step}))["step"]
    chex.assert_trees_all_equal(other(fresh(tx), X, Y), step(fresh(tx), X, Y))


def flip_state(opt_state):
    is_leaf = lambda node: isinstance(node, bsojax.TBSOState)  # noqa: E731
    return next(node for node in jax.tree.leaves(opt_state, is_leaf=is_leaf) if is_leaf(node))


def own_step(model, tx, num_steps, guard):
    """A training step from public names alone: guarded, or with the bare optimizer, which guards the signs itself."""
    loss = lambda logits, y: bsojax.cross_entropy_mse()(logits, y) / num_steps  # noqa: E731

    @jax.jit
    def step(state, x, y):
        def body(carry, t):
            trainable, opt_state, stats, neurons = carry
            out = online.time_step(model, loss, trainable, stats, neurons, x, y, t)
            finite = optim.all_finite((out.loss, out.grads))
            if guard:
                updates, opt_state = optim.guarded_update(tx, out.grads, opt_state, trainable, finite, time_step=t)
            else:
                grads = jax.tree.map(lambda grad: jnp.where(finite, grad, jnp.nan), out.grads)
                updates, opt_state = tx.update(grads, opt_state, trainable, time_step=t)
            stats = optax.tree.where(finite, out.forward.batch_stats, stats)
            return (bsojax.apply_updates(trainable, updates), opt_state, stats, out.forward.neurons), out.loss

        neurons = online.start(model, x, num_steps, train=True).neurons
        carry = (state.trainable, state.opt_state, state.batch_stats, neurons)
        (trainable, opt_state, stats, _), losses = jax.lax.scan(body, carry, jnp.arange(num_steps))
        return state.replace(**trainable, opt_state=opt_state, batch_stats=stats, step=state.step + 1), losses.sum()

    return step


@pytest.mark.parametrize("packed", [False, *rarely(True)])
def test_a_step_of_ones_own_from_public_names_trains_the_same(packed):
    tx = optimizer()
    state = bsojax.init(MODEL, tx, jax.random.key(0), X, packed=packed)
    ours, own = bsojax.make_train_step(MODEL, tx, T), own_step(MODEL, tx, T, guard=True)
    one, other = jax.tree.map(jnp.copy, state), state
    flips = 0
    for _ in range(5):
        one, metrics = ours(one, X, Y)
        other, loss = own(other, X, Y)
        flips += sum(int(count) for count in metrics["flips"].values())
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
    assert flips > 0
    chex.assert_trees_all_equal(one.signs, other.signs)
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_skip_is_counted_alike_by_the_step_its_state_the_optimizer_and_a_bare_loop():
    """Counts, schedules and rounding go on alike, whichever loop it is in which a batch was not finite."""
    schedule = optax.linear_schedule(0.0, 0.2, 12)  # of calls, skipped ones among them
    tx = optimizer(bsojax.t_bso(schedule, T, 0.9, 0.9, momentum_dtype="int8"), optax.set_to_zero())
    state = fresh(tx)
    step, bare = bsojax.make_train_step(MODEL, tx, T), own_step(MODEL, tx, T, guard=False)
    one, other = jax.tree.map(jnp.copy, state), state
    for x in (X, np.where(X > 0.9, np.nan, X).astype(np.float32), X, X):
        one, metrics = step(one, jnp.asarray(x), jnp.asarray(Y))
        other, _ = bare(other, jnp.asarray(x), jnp.asarray(Y))
        assert metrics["skipped"] == (0 if np.isfinite(x).all() else T)
    inside, outside = flip_state(one.opt_state), flip_state(other.opt_state)
    assert one.skipped == inside.skipped == outside.skipped == T
    assert inside.count == outside.count == 4 * T
    chex.assert_trees_all_equal(one.signs, other.signs)
    chex.assert_trees_all_close(inside, outside, rtol=1e-5, atol=1e-7)


def test_time_steps_without_a_backward_pass_are_neither_updates_nor_skips():
    tx = optimizer()
    step = bsojax.make_train_step(MODEL, tx, T, backward_steps=2)
    state, metrics = step(fresh(tx), jnp.asarray(np.where(X > 0.9, np.nan, X)), jnp.asarray(Y))
    flip = flip_state(state.opt_state)
    assert metrics["skipped"] == flip.skipped == flip.count == 2


class OwnNeuron(nn.Module):
    """A neuron of a user's, whose variables have the names of LIF's and other meanings."""

    @nn.compact
    def __call__(self, current):
        membrane = self.variable("neurons", "membrane", jnp.zeros_like, current)
        trace = self.variable("neurons", "trace", jnp.zeros_like, current)
        spike = self.variable("neurons", "spike", jnp.zeros_like, current)
        potential = 0.5 * membrane.value + current - 0.1 * trace.value
        fired = bsojax.sigmoid()(potential - 1)
        if not self.is_initializing():
            held = jax.lax.stop_gradient((potential - fired, trace.value + fired, fired))
            membrane.value, trace.value, spike.value = held
        return bsojax.Spikes(fired)


class DerivedLIF(bsojax.LIF):
    """A neuron derived from LIF."""

    @nn.compact
    def __call__(self, current):
        return super().__call__(1.0 * current)


def test_a_neuron_of_ones_own_may_call_its_variables_as_it_likes():
    model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=4, neuron=OwnNeuron)
    tx = optimizer()
    state = fresh(tx, model)
    state, metrics = bsojax.make_train_step(model, tx, T)(state, X, Y)
    state = bsojax.refresh_statistics(model, state, [X], T)
    assert np.isfinite(bsojax.make_eval_step(model, T)(state, X, Y)["loss"])
    assert np.isfinite(metrics["loss"])


@pytest.mark.slow
def test_a_derived_neuron_stays_on_the_path_that_saves_memory():
    results = []
    for neuron in (bsojax.LIF, DerivedLIF):
        model = bsojax.models.SpikingVGG(num_classes=4, channels=(4, 8), neuron=neuron)
        tx = optimizer()
        step, state = bsojax.make_train_step(model, tx, T), fresh(tx, model)
        analysis = step.lower(state, X, Y).compile().memory_analysis()
        results.append((analysis.temp_size_in_bytes, *step(state, X, Y)))
    assert results[0][0] == results[1][0]
    chex.assert_trees_all_equal(results[0][1:], results[1][1:])
    begun = online.start(model, jnp.asarray(X), T, train=True)
    held = begun.neurons["neuron_0"]["membrane"]
    assert isinstance(held, bsojax.nn.BeforeReset)
    assert set(begun.neurons["neuron_0"]) == {"membrane", "trace"}
    assert set(online.start(model, jnp.asarray(X), T, train=False).neurons["neuron_0"]) == {"membrane"}


def test_an_exchange_is_given_alone():
    for options in ({"axis_name": "batch"}, {"mesh": bsojax.data_mesh()}):
        with pytest.raises(ValueError, match="exchange: stands for axis_name, vote and mesh"):
            bsojax.make_train_step(MODEL, optimizer(), T, exchange=online.Exchange(), **options)


def test_a_momentum_that_is_an_object_has_its_own_seed():
    signs, grads = jnp.ones((4, 4), bool), jnp.full((4, 4), 1e-3)
    short = bsojax.bso(0.1, 0.9, momentum_dtype="int8", seed=7)
    same = bsojax.bso(0.1, 0.9, momentum_dtype=optim.Integers("int8", seed=7))
    chex.assert_trees_all_equal(*(tx.update(grads, tx.init(signs), signs) for tx in (short, same)))
    with pytest.raises(ValueError, match="seed: belongs to the short form"):
        bsojax.bso(0.1, momentum_dtype=optim.Integers("int8"), seed=7)


def test_what_a_chain_makes_of_finite_gradients_is_looked_at_too():
    to_nan = optax.stateless(lambda grads, params: jax.tree.map(lambda grad: grad / 0 * 0, grads))
    tx = optimizer(optax.chain(to_nan, bsojax.bso(0.0, 0.9)))
    state, _ = bsojax.make_train_step(MODEL, tx, T)(fresh(tx), X, Y)
    assert optim.all_finite(state.opt_state)
    is_leaf = lambda node: isinstance(node, bsojax.BSOState)  # noqa: E731
    flip = next(node for node in jax.tree.leaves(state.opt_state, is_leaf=is_leaf) if is_leaf(node))
    assert flip.skipped == T


def test_norms_of_fewer_time_steps_are_refused_in_evaluation_too():
    model = bsojax.models.SpikingVGG(
        num_classes=4, channels=(4, 8), norm=lambda **k: bsojax.BatchNorm(num_steps=2, **k)
    )
    tx = optimizer(bsojax.t_bso(0.1, 4))
    state = fresh(tx, model)
    for step in (bsojax.make_train_step(model, tx, 4), bsojax.make_eval_step(model, 4)):
        with pytest.raises(ValueError, match="time_step: 3 is outside 0 .. 1; BatchNorm 'norm_0' was made"):
            step(state, X, Y)


@pytest.mark.slow
def test_small_integers_may_be_labels_of_many_classes():
    model = bsojax.models.SpikingMLP(features=(8, 8), num_classes=300)
    tx = optimizer()
    losses = []
    for dtype in (np.uint8, np.int8, np.int32):
        _, metrics = bsojax.make_train_step(model, tx, T)(fresh(tx, model), X, (Y + 40).astype(dtype))
        assert metrics["skipped"] == 0
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 1


@pytest.mark.slow
def test_without_what_is_meant_for_a_cpu_the_results_are_the_same():
    tx = optimizer()
    state, _ = bsojax.make_train_step(MODEL, tx, T)(fresh(tx), X, Y)
    with bsojax.xla_cpu.plain():
        step = bsojax.make_train_step(MODEL, tx, T)
        text = step.lower(fresh(tx), X, Y).as_text()
        plain, _ = step(fresh(tx), X, Y)
    assert "stablehlo.case" not in text
    chex.assert_trees_all_close(plain, state, rtol=1e-4, atol=1e-6)


def dropping(tx):
    """A wrapper that takes no extra arguments."""
    return optax.GradientTransformation(tx.init, lambda grads, state, params=None: tx.update(grads, state, params))


@pytest.mark.parametrize("wrap", [dropping, *rarely(lambda tx: tx, lambda tx: optax.chain(optax.clip(1.0), tx))])
@pytest.mark.parametrize("fault", ["label", "input"])
def test_a_skipped_update_changes_no_momentum_whatever_wraps_the_optimizer(wrap, fault):
    tx = optimizer(wrap(bsojax.bso(1.0, 0.5)))
    step = bsojax.make_train_step(MODEL, tx, T)
    state, _ = step(fresh(tx), X, Y)
    before = jax.device_get(optax.tree.get(state.opt_state, "momentum"))
    x = jnp.where(X > 0.9, jnp.nan, X) if fault == "input" else jnp.asarray(X)
    state, metrics = step(state, x, jnp.asarray(Y + 7 * (fault == "label")))
    assert metrics["skipped"] == optax.tree.get(state.opt_state, "skipped") == T
    assert optax.tree.get(state.opt_state, "count") == 2 * T
    chex.assert_trees_all_equal(optax.tree.get(state.opt_state, "momentum"), before)


class Arithmetic(bsojax.LIF):
    """Derived from LIF, with a state and an arithmetic of its own."""

    @nn.compact
    def __call__(self, current):
        membrane = self.variable("neurons", "membrane", jnp.zeros_like, current)
        charged = 0.5 * membrane.value + current
        spike = self.surrogate(charged - 1)
        if not self.is_initializing():
            membrane.value = jax.lax.stop_gradient(charged - spike)
        return bsojax.Spikes(spike)


class Delegating(bsojax.LIF):
    """Derived from LIF, around another one."""

    @nn.compact
    def __call__(self, current):
        return bsojax.LIF(tau=3.0)(current)


LIFTED = {
    "remat": nn.remat(bsojax.LIF),
    "jit": nn.jit(bsojax.LIF),
    "own arithmetic": Arithmetic,
    "delegating": Delegating,
    "vmap": nn.vmap(bsojax.LIF, variable_axes={"neurons": 0}, split_rngs={"params": False}),
}


@pytest.mark.parametrize("neuron", often(LIFTED, "remat", "own arithmetic"))
def test_lifted_and_derived_neurons_train_and_evaluate(neuron):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            spikes = neuron(name="first")(bsojax.BinaryDense(16)(bsojax.flatten(x)))
            return bsojax.Dense(4)(bsojax.LIF(name="second")(bsojax.BinaryDense(16)(spikes)))

    tx = optimizer(bsojax.t_bso(0.0, T, 0.5))
    state = fresh(tx, Net())
    bsojax.memory_report(state, model=Net(), x=X)
    state, metrics = bsojax.make_train_step(Net(), tx, T)(state, X, Y)
    assert sum(int(count) for count in metrics["flips"].values()) > 0
    assert np.isfinite(bsojax.make_eval_step(Net(), T)(state, X, Y)["loss"])


def test_signs_that_are_no_booleans_are_refused():
    tx = optimizer()
    for dtype in (jnp.int8, jnp.float32):
        state = fresh(tx)
        state = state.replace(signs=jax.tree.map(lambda leaf, dtype=dtype: 2 * leaf.astype(dtype) - 1, state.signs))
        with pytest.raises(ValueError, match="state: leaf 'signs/conv_1/kernel' must be bool.*to_signs"):
            bsojax.make_train_step(MODEL, tx, T)(state, X, Y)


@pytest.mark.parametrize("loss", [lambda logits, y: (logits.argmax(-1) != y).sum(), lambda logits, y: logits.sum(0)])
def test_a_loss_without_a_gradient_or_with_many_is_refused(loss):
    with pytest.raises(TypeError, match="loss: must return a floating scalar"):
        bsojax.make_train_step(MODEL, optimizer(), T, loss=loss)(fresh(optimizer()), X, Y)


def test_evaluation_says_nan_of_what_is_wrong_on_a_device():
    state, evaluate = fresh(optimizer()), bsojax.make_eval_step(MODEL, T)
    assert np.isfinite(evaluate(state, jnp.asarray(X), jnp.asarray(Y))["loss"])
    assert np.isnan(evaluate(state, jnp.asarray(X), jnp.asarray(Y) - 1)["loss"])
    assert np.isnan(evaluate(state, jnp.asarray(X).at[0].set(jnp.nan), jnp.asarray(Y))["loss"])
