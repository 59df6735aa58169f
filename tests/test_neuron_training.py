"""A network with neurons of every kind: training, evaluation, bytes, the summary, and what neurons tell on the way."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax
from bsojax import online
from bsojax.nn import NEURONS, RECORDINGS, SPIKE_RATES, BeforeReset, _neuron_step, counting

pytestmark = pytest.mark.slow  # many programs are compiled

T, N = 4, 7
X = np.random.default_rng(0).random((8, 5)).astype(np.float32)
Y = np.arange(8) % 3
SPREAD = np.linspace(1.2, 4.0, N)
KINDS = {
    "LIF": functools.partial(bsojax.LIF, tau=SPREAD, v_threshold=SPREAD / 4),
    "IF": functools.partial(bsojax.IF, refractory_steps=1),
    "ALIF": functools.partial(bsojax.ALIF, v_threshold=0.5),
    "CubaLIF": functools.partial(bsojax.CubaLIF, v_threshold=0.5),
    "PLIF": functools.partial(bsojax.PLIF, decay_input=True, v_threshold=0.3),
    "BinaryRecurrent": functools.partial(
        bsojax.BinaryRecurrent, neuron=functools.partial(bsojax.LIF, tau=4.0, v_threshold=0.5)
    ),
}


class AllKinds(nn.Module):
    """A layer of neurons of every kind; the layers bear their names."""

    @nn.compact
    def __call__(self, x, train=False):
        x = bsojax.Dense(N, name="first")(x)
        for index, (name, kind) in enumerate(KINDS.items()):
            if index:
                x = bsojax.BinaryDense(N, name=f"{name}_dense")(x)
            x = kind(name=name)(bsojax.BatchNorm(name=f"{name}_norm")(x, train))
        return bsojax.LeakyReadout(tau=3.0, name="readout")(bsojax.Dense(3, name="last")(x))


MODEL = AllKinds()


def optimizer():
    return bsojax.split_optimizer(bsojax.t_bso(0.0, 8, 0.5), optax.adam(0.01))


def fresh(tx, model=MODEL, **options):
    return bsojax.init(model, tx, jax.random.key(0), X, **options)


@functools.cache
def step_of(packed):
    """A state after some training steps, as numbers, the metrics of the last one and the step."""
    tx = optimizer()
    step, state = bsojax.make_train_step(MODEL, tx, T), fresh(tx, packed=packed)
    for _ in range(5):
        state, metrics = step(state, X, Y)
    return state, metrics, step


def test_every_layer_learns():
    state, metrics, step = step_of(packed=False)
    assert set(metrics["flips"]) == {
        *(f"{name}_dense/kernel" for name in [*KINDS][1:]),
        "BinaryRecurrent/recurrent/kernel",
    }
    assert all(int(count) > 0 for count in metrics["flips"].values()), metrics["flips"]
    assert int(metrics["skipped"]) == 0
    assert step._cache_size() == 1
    rates = {f"{name}/neuron" if name == "BinaryRecurrent" else name for name in KINDS}
    assert set(metrics["spikes"]) == rates
    assert float(state.params["PLIF"]["w"]) != 0  # where it started, of tau 2
    state = bsojax.refresh_statistics(MODEL, state, [X], T)
    assert np.isfinite(bsojax.make_eval_step(MODEL, T)(state, X, Y)["loss"])


def test_packed_signs_are_the_same_training():
    (one, metrics, _), (other, packed_metrics, _) = step_of(packed=False), step_of(packed=True)
    jax.tree.map(np.testing.assert_array_equal, metrics["flips"], packed_metrics["flips"])
    jax.tree.map(np.testing.assert_array_equal, one.signs, bsojax.unpack_signs(other.signs))


def test_the_state_is_what_each_form_needs():
    states = {
        "LIF": {"membrane", "trace"},
        "IF": {"membrane", "trace", "refractory"},
        "ALIF": {"membrane", "trace", "adaptation"},
        "CubaLIF": {"membrane", "trace", "current", "synaptic_trace"},
        "PLIF": {"membrane", "trace"},
        "BinaryRecurrent": {"spike", "trace", "neuron"},
        "readout": {"membrane"},
    }
    filters = {"trace", "synaptic_trace"}
    training, evaluation = (online.start(MODEL, jnp.asarray(X), T, train=train).neurons for train in (True, False))
    assert {name: set(held) for name, held in training.items()} == states
    assert {name: set(held) for name, held in evaluation.items()} == {name: s - filters for name, s in states.items()}
    assert set(evaluation["BinaryRecurrent"]["neuron"]) == {"membrane"}
    for name in ("LIF", "IF", "ALIF", "CubaLIF", "PLIF"):
        for variable, value in training[name].items():
            assert isinstance(value, BeforeReset) == (variable not in filters)
    leaves = jax.tree.leaves(evaluation, is_leaf=lambda value: isinstance(value, BeforeReset))
    assert not any(isinstance(leaf, BeforeReset) for leaf in leaves)


def test_the_step_takes_the_same_bytes_at_every_number_of_time_steps():
    bytes_at = set()
    for steps in (2, 8):
        tx = optimizer()
        state = jax.eval_shape(lambda key, tx=tx: bsojax.init(MODEL, tx, key, X), jax.random.key(0))
        report = bsojax.memory_report(state, step=bsojax.make_train_step(MODEL, tx, steps), x=X, y=Y)
        bytes_at.add((report["step_arguments"], report["step_temporaries"]))
    assert len(bytes_at) == 1


def test_bfloat16_stays_bfloat16():
    tx = optimizer()
    state, metrics = bsojax.make_train_step(MODEL, tx, T, dtype=jnp.bfloat16)(fresh(tx), X, Y)
    assert int(metrics["skipped"]) == 0
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype(jnp.float32)}
    shapes = jax.eval_shape(lambda x: online.start(MODEL, x, T, train=True).neurons, jnp.asarray(X, jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.uint8)}


def test_the_summary_has_a_row_for_each():
    _, metrics, _ = step_of(packed=False)
    rows = {row.name: row for row in bsojax.summarize(MODEL, X, spikes=metrics["spikes"]).rows}
    for name in KINDS:
        row = rows["BinaryRecurrent/neuron" if name == "BinaryRecurrent" else name]
        assert row.kind == ("LIF" if name == "BinaryRecurrent" else name)
        assert row.output_shape == (8, N)
        assert row.real_parameters == (name == "PLIF")
        assert row.spike_rate == pytest.approx(float(metrics["spikes"][row.name]))
    assert rows["BinaryRecurrent/recurrent"].binary_weights == N * N
    assert (rows["readout"].kind, rows["readout"].output_shape, rows["readout"].spike_rate) == (
        "LeakyReadout",
        (8, 3),
        None,
    )


def test_what_nobody_asks_for_costs_no_byte(monkeypatch):
    def temporaries():
        model = bsojax.models.SpikingVGG(num_classes=3, channels=(4, "M", 8))
        x, tx = np.ones((4, 8, 8, 1), np.float32), optimizer()
        state = bsojax.init(model, tx, jax.random.key(0), x)
        lowered = bsojax.make_train_step(model, tx, T).lower(state, x, Y[:4])
        return lowered.compile().memory_analysis().temp_size_in_bytes

    def rate_alone(neuron, spikes, **told):
        rate = jnp.mean(jax.lax.stop_gradient(spikes.value), dtype=jnp.float32)
        neuron.sow(SPIKE_RATES, "rate", rate, reduce_fn=lambda _, new: new, init_fn=float)

    told = temporaries()
    monkeypatch.setattr(_neuron_step, "report", rate_alone)
    assert told == temporaries()


# What neurons tell.


def seen_at_each_step(model, variables, frames, form):
    """What a model returns and records over the time steps, from rest."""
    with bsojax.nn.resting_as(form):
        neurons = model.init(jax.random.key(0), frames[0])[NEURONS]

    def body(neurons, frame):
        out, changed = model.apply({**variables, NEURONS: neurons}, frame, mutable=[NEURONS, RECORDINGS])
        return changed[NEURONS], (out, changed[RECORDINGS])

    return jax.jit(lambda: jax.lax.scan(body, neurons, frames)[1])()


FORMS = [bsojax.nn.StateForm(True, True), bsojax.nn.StateForm(False, True), bsojax.nn.StateForm(False, False)]
FRAMES = jnp.asarray(1.5 * np.random.default_rng(1).standard_normal((6, 5, N)), jnp.float32)


@pytest.mark.parametrize("form", FORMS, ids=["training", "public", "evaluation"])
def test_recordings_are_of_each_time_step(form):
    neuron = bsojax.LIF(tau=3.0, v_threshold=0.7)
    spikes, seen = seen_at_each_step(neuron, {}, FRAMES, form)
    assert set(seen) == {"spikes", "membranes", "currents"} | ({"traces"} if form.traces else set())
    np.testing.assert_array_equal(seen["currents"], FRAMES)
    np.testing.assert_array_equal(seen["spikes"], spikes.value)
    np.testing.assert_array_equal(seen["membranes"] >= 0.7, spikes.value == 1)
    if form.traces:
        np.testing.assert_array_equal(seen["traces"], spikes.trace)


def test_recordings_are_taken_where_they_are_asked_for_alone():
    neuron = bsojax.LIF()
    assert set(neuron.init(jax.random.key(0), FRAMES[0])) == {NEURONS, SPIKE_RATES}
    assert set(neuron.apply({}, FRAMES[0], mutable=[NEURONS])[1]) == {NEURONS}

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            neuron = bsojax.LIF(trace=None, name="neuron")
            return neuron(neuron(x).value)

    spikes, changed = Twice().apply({}, FRAMES[0], mutable=[NEURONS, RECORDINGS])
    seen = changed[RECORDINGS]["neuron"]
    assert set(seen) == {"spikes", "membranes", "currents"}
    np.testing.assert_array_equal(seen["spikes"], spikes.value)


@pytest.mark.parametrize("counted", [None, [True, False, True, True, False]])
def test_the_mean_spike_has_a_gradient(counted):
    neuron, x, surrogate = bsojax.LIF(), FRAMES[0], bsojax.sigmoid()
    examples = None if counted is None else jnp.asarray(counted)

    def rate(x):
        with counting(examples) if counted else contextlib.nullcontext():
            return neuron.apply({}, x, mutable=[NEURONS, SPIKE_RATES])[1][SPIKE_RATES]["rate"]

    share = np.ones(5) if counted is None else np.asarray(counted)
    value, grad = jax.value_and_grad(rate)(x)
    np.testing.assert_allclose(value, np.mean((np.asarray(x) >= 1)[share > 0]), rtol=1e-6)
    want = share[:, None] * surrogate.gradient(x - 1) / (N * share.sum())
    np.testing.assert_allclose(grad, want, rtol=1e-5)


class Telling(nn.Module):
    """Returns what its neuron tells of its membrane."""

    kind: functools.partial

    @nn.compact
    def __call__(self, x):
        neuron = self.kind(name="neuron")
        spikes = neuron(x)
        return spikes, neuron.membrane_potential(), neuron.membrane_potential(before_reset=True)


@pytest.mark.parametrize("name", ["LIF", "IF", "ALIF", "CubaLIF", "PLIF"])
def test_a_model_may_look_at_membranes_which_are_the_same_in_training_and_evaluation(name):
    model = Telling(KINDS[name])
    variables = model.init(jax.random.key(0), FRAMES[0])
    outs = []
    for form in FORMS:
        out, seen = seen_at_each_step(model, {"params": variables.get("params", {})}, FRAMES, form)
        np.testing.assert_array_equal(out[2], seen["neuron"]["membranes"])
        outs.append(out)
    for spikes, after, before in outs:
        np.testing.assert_allclose(after, outs[0][1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(before, outs[0][2], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after != before, spikes.value == 1)


def test_the_membrane_is_that_of_the_state_and_has_no_gradient():
    model = Telling(functools.partial(bsojax.LIF))

    def total(x):
        (_, after, before), changed = model.apply({}, x, mutable=[NEURONS])
        return after.sum() + before.sum(), (after, changed[NEURONS]["neuron"]["membrane"])

    grad, (after, membrane) = jax.grad(total, has_aux=True)(FRAMES[0])
    np.testing.assert_array_equal(after, membrane)
    np.testing.assert_array_equal(grad, 0)


def test_a_membrane_before_the_first_call_is_refused_at_every_time_step():
    class TooEarly(nn.Module):
        @nn.compact
        def __call__(self, x):
            neuron = bsojax.LIF(name="hidden")
            return neuron.membrane_potential() + neuron(x).value

    state = {"hidden": {"membrane": jnp.zeros((5, N))}}
    for variables in ({}, {NEURONS: state}):
        with pytest.raises(
            ValueError, match="membrane_potential: neuron 'hidden' has not been called at this time step"
        ):
            TooEarly().apply(variables, FRAMES[0], mutable=[NEURONS])
    with pytest.raises(ValueError, match="membrane_potential: "):
        bsojax.LIF().membrane_potential()


@pytest.mark.parametrize("wrap", [nn.remat, nn.jit], ids=["remat", "jit"])
def test_a_wrapped_neuron_tells_nothing_outside_and_a_wrapped_model_inside(wrap):
    with pytest.raises(ValueError, match=r"membrane_potential: .*ask inside the wrapping"):
        Telling(functools.partial(wrap(bsojax.LIF))).init(jax.random.key(0), FRAMES[0])

    class Inside(nn.Module):
        @nn.compact
        def __call__(self, x):
            neuron = bsojax.LIF()
            return neuron(x), neuron.membrane_potential()

    class Outside(nn.Module):
        @nn.compact
        def __call__(self, x):
            return wrap(Inside)()(x)

    (_, membrane), _ = Outside().apply({}, FRAMES[0], mutable=[NEURONS])
    (_, want), _ = Inside().apply({}, FRAMES[0], mutable=[NEURONS])
    np.testing.assert_array_equal(membrane, want)


class Reading(nn.Module):
    """A model whose answer is a membrane of LIF, named as a variable of a neuron's state."""

    @nn.compact
    def __call__(self, x, train=False):
        hidden = bsojax.LIF(name="membrane")(bsojax.Dense(N, name="trace")(x))
        neuron = bsojax.LIF(name="spike")
        neuron(bsojax.BinaryDense(3, bsojax.rsqrt_fan_in, name="signs")(hidden))
        return neuron.membrane_potential() + bsojax.Dense(3, name="neurons")(hidden)


def test_layers_may_be_named_as_states_are_and_a_model_may_answer_with_a_membrane():
    model, tx = Reading(), optimizer()
    step, state = bsojax.make_train_step(model, tx, T), fresh(tx, model)
    losses = []
    for _ in range(20):
        state, metrics = step(state, X, Y)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert set(metrics["spikes"]) == {"membrane", "spike"}
    # In inference from the same weights the membranes are the same.
    evaluated = bsojax.make_eval_step(model, T)(state, X, Y)["loss"]
    still = bsojax.split_optimizer(bsojax.bso(np.inf), optax.set_to_zero())
    held = state.replace(opt_state=still.init(state.trainable))
    np.testing.assert_allclose(evaluated, bsojax.make_train_step(model, still, T)(held, X, Y)[1]["loss"], rtol=1e-5)


class Own(bsojax.nn.Neuron):
    """A neuron of a user's, whose variables have the names of LIF's and other meanings."""

    @nn.compact
    def __call__(self, current):
        names = ("membrane", "trace", "spike", "spikes", "rate", "membranes")
        held = [self.variable(NEURONS, name, jnp.zeros_like, current) for name in names]
        potential = 0.5 * held[0].value + current - 0.1 * held[1].value
        spike = bsojax.sigmoid()(potential - 1)
        after = jax.lax.stop_gradient(potential - spike)
        if not self.is_initializing():
            for variable, value in zip(held, (after, *[held[1].value + spike] * 5), strict=True):
                variable.value = jax.lax.stop_gradient(value)
        spikes = bsojax.Spikes(spike)
        bsojax.nn.report(self, spikes, current=current, before_reset=potential, after_reset=after)
        return spikes


def test_a_neuron_of_ones_own_tells_what_ours_tell():
    model, tx = bsojax.models.SpikingMLP(features=(N, N), num_classes=3, neuron=Own), optimizer()
    state, metrics = bsojax.make_train_step(model, tx, T)(fresh(tx, model), X, Y)
    assert set(metrics["spikes"]) == {"neuron_0", "neuron_1"}
    state = bsojax.refresh_statistics(model, state, [X], T)
    assert np.isfinite(bsojax.make_eval_step(model, T)(state, X, Y)["loss"])
    (spikes, after, before), seen = seen_at_each_step(Telling(functools.partial(Own)), {}, FRAMES, FORMS[0])
    np.testing.assert_array_equal(before >= 1, spikes.value == 1)
    np.testing.assert_array_equal(seen["neuron"]["membranes"], before)
    np.testing.assert_allclose(after, before - spikes.value, rtol=1e-6)
    assert set(seen["neuron"]) == {"spikes", "membranes", "currents"}
