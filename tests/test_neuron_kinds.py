"""Neurons of all kinds against plain loops and automatic differentiation: of one time step, and through time."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_neurons import plain, run_plain, w_of

import bsojax
from bsojax.nn import NEURONS, StateForm, resting_as

pytestmark = pytest.mark.slow  # many programs are compiled

N = 7
SPREAD = np.linspace(1.2, 4.0, N)
KINDS = {
    "LIF, a tau and threshold a neuron": bsojax.LIF(tau=SPREAD, v_threshold=jnp.linspace(0.5, 1.5, N)),
    "LIF, a reset a neuron": bsojax.LIF(tau=3.0, v_reset=np.linspace(-0.3, 0.3, N), decay_input=True, v_threshold=0.5),
    "LIF, a tau a neuron, its input decays": bsojax.LIF(tau=tuple(SPREAD), decay_input=True, v_threshold=0.4),
    "IF, a threshold a neuron": bsojax.IF(v_threshold=np.linspace(0.5, 1.5, N)),
    "LIF, refractory": bsojax.LIF(refractory_steps=2),
    "IF, refractory": bsojax.IF(v_reset=0.1, refractory_steps=1),
    "LIF, refractory, a tau a neuron": bsojax.LIF(tau=SPREAD, refractory_steps=3, decay_input=True, v_threshold=0.3),
    "ALIF": bsojax.ALIF(),
    "ALIF, hard": bsojax.ALIF(tau=3.0, v_reset=-0.2, beta=0.5, tau_adaptation=3.0, v_threshold=0.8),
    "ALIF, constants a neuron": bsojax.ALIF(tau=SPREAD, beta=SPREAD, tau_adaptation=2 * SPREAD, v_threshold=SPREAD / 4),
    "CubaLIF": bsojax.CubaLIF(),
    "CubaLIF, hard": bsojax.CubaLIF(tau=3.0, tau_synapse=4.0, v_reset=0.1, decay_input=True),
    "CubaLIF, constants a neuron": bsojax.CubaLIF(tau=SPREAD, tau_synapse=SPREAD[::-1], v_threshold=SPREAD),
    "PLIF": bsojax.PLIF(),
    "PLIF, its input decays": bsojax.PLIF(tau=3.0, decay_input=True, v_threshold=0.4),
    "PLIF, hard": bsojax.PLIF(tau=1.5, v_reset=-0.25, v_threshold=np.linspace(0.5, 1.5, N)),
    "PLIF, hard, its input decays": bsojax.PLIF(tau=1.5, v_reset=0.1, decay_input=True, v_threshold=0.6),
}
TRAINING, EVALUATION = StateForm(before_reset=True, traces=True), StateForm(before_reset=False, traces=False)
each_kind = pytest.mark.parametrize("neuron", KINDS.values(), ids=KINDS)


def random_currents(seed, shape=(12, 5, N)):
    return jnp.asarray(0.4 + np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def params_of(neuron):
    return {"w": w_of(neuron)} if isinstance(neuron, bsojax.PLIF) else {}


KEPT = StateForm(before_reset=False, traces=True)


@functools.partial(jax.jit, static_argnums=(0, 2))
def run(neuron, currents, form=KEPT):
    """Runs a sequence from rest; returns spikes, state and recordings, stacked over time."""
    with resting_as(form):
        rest = neuron.init(jax.random.key(0), currents[0])[NEURONS]

    def body(state, current):
        variables = {NEURONS: state, "params": params_of(neuron)}
        spikes, changed = neuron.apply(variables, current, mutable=[NEURONS, "recordings"])
        return changed[NEURONS], (spikes, changed[NEURONS], changed["recordings"])

    return jax.lax.scan(body, rest, currents)[1]


@each_kind
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_a_plain_loop(neuron, seed):
    currents = random_currents(seed)
    spikes, states, seen = run(neuron, currents)
    want = run_plain(neuron, currents)
    np.testing.assert_array_equal(spikes.value, want["spike"])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=3e-6)
    close(seen["membranes"], want["u"])
    close(spikes.trace, want["trace"])
    names = {"membrane": "v", "adaptation": "b", "current": "i", "refractory": "left", "synaptic_trace": "first"}
    for name in set(states) - {"trace"}:
        close(states[name], want[names[name]])
    assert 0.02 < float(spikes.value.mean()) < 0.9


@each_kind
def test_training_and_evaluation_fire_alike_and_keep_what_they_need(neuron):
    currents = random_currents(2)
    public, states, seen = run(neuron, currents)
    for form in (TRAINING, EVALUATION):
        spikes, held, recorded = run(neuron, currents, form)
        np.testing.assert_array_equal(spikes.value, public.value)
        np.testing.assert_allclose(recorded["membranes"], seen["membranes"], rtol=1e-5, atol=1e-6)
        if form.traces:
            np.testing.assert_allclose(spikes.trace, public.trace, rtol=1e-6)
            assert set(held) == set(states)
            np.testing.assert_array_equal(held["membrane"].value, recorded["membranes"])
        else:
            assert set(held) == set(states) - {"trace", "synaptic_trace"}
            assert spikes.trace is None
            np.testing.assert_array_equal(held["membrane"], states["membrane"])


def mid_sequence(neuron, form, steps=4):
    """The state after some time steps, and that of the plain neuron."""
    currents = random_currents(3, (steps, 5, N))
    _, states, _ = run(neuron, currents, form)
    want = run_plain(neuron, currents)
    names = plain(neuron)[0](currents[0])
    return jax.tree.map(lambda leaf: leaf[-1], (states, {name: want[name] for name in names}))


@each_kind
@pytest.mark.parametrize("form", [TRAINING, StateForm(before_reset=False, traces=True)], ids=["training", "public"])
def test_the_gradient_of_a_time_step_is_that_of_automatic_differentiation(neuron, form):
    state, plain_state = mid_sequence(neuron, form)
    current, g = random_currents(4, (2, 5, N))

    def ours(params, current):
        spikes, _ = neuron.apply({NEURONS: state, "params": params}, current, mutable=[NEURONS])
        return jnp.sum(g * spikes.value)

    def other(params, current):
        return jnp.sum(g * plain(neuron)[1](params.get("w", 0.0), plain_state, current)[1]["spike"])

    # The state is a constant to both.
    got, want = (jax.jit(jax.grad(of, (0, 1)))(params_of(neuron), current) for of in (ours, other))
    assert np.abs(np.asarray(want[1])).max() > 0.1
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=1e-5)


@each_kind
def test_nothing_flows_back_through_time(neuron):
    currents = random_currents(5, (4, 2, N))

    def totals(currents):
        spikes, states, seen = run(neuron, currents)
        floats = [leaf for leaf in jax.tree.leaves((states, seen["membranes"])) if leaf.dtype == jnp.float32]
        return sum(leaf.sum((1, 2)) for leaf in (spikes.value, spikes.trace, *floats))

    by_time = jax.jacrev(totals)(currents)
    steps = np.arange(len(currents))
    assert np.any(by_time[steps, steps] != 0, axis=(1, 2)).all()
    np.testing.assert_array_equal(by_time.at[steps, steps].set(0), 0)


def kernel_gradients(first, second, x, readout, *, detached=True):
    """Of the weights between two layers of neurons: online, summed over time, and by backpropagation through time."""
    kernel = jnp.asarray(np.random.default_rng(6).standard_normal((N, N)), jnp.float32) / 2

    def online(kernel):
        def body(states, inputs):
            current, weight = inputs
            spikes, one = first.apply({NEURONS: states[0], "params": params_of(first)}, current, mutable=[NEURONS])
            current = bsojax.dense(spikes, kernel)
            spikes, two = second.apply({NEURONS: states[1], "params": params_of(second)}, current, mutable=[NEURONS])
            return (one[NEURONS], two[NEURONS]), jnp.sum(weight * spikes.value)

        rest = tuple(neuron.init(jax.random.key(0), x[0])[NEURONS] for neuron in (first, second))
        return jax.lax.scan(body, rest, (x, readout))[1].sum()

    def through_time(kernel):
        spikes = run_plain(first, x)["spike"]
        return jnp.sum(readout * run_plain(second, spikes @ kernel, detached=detached)["spike"])

    losses, grads = zip(*(jax.jit(jax.value_and_grad(of))(kernel) for of in (online, through_time)), strict=True)
    np.testing.assert_allclose(*losses, rtol=1e-5)
    return grads


cuba = functools.partial(bsojax.CubaLIF, tau=3.0, tau_synapse=2.0)
EXACT = {
    "LIF, a threshold a neuron": (bsojax.LIF(v_threshold=SPREAD / 2), bsojax.LIF(v_threshold=SPREAD / 3)),
    "ALIF": (bsojax.ALIF(), bsojax.ALIF(beta=0.7)),
    "CubaLIF": (cuba(), cuba(v_threshold=0.7)),
    "PLIF": (bsojax.PLIF(tau=3.0), bsojax.PLIF(tau=3.0)),
    "PLIF, its input decays": (bsojax.PLIF(decay_input=True, v_threshold=0.3),) * 2,
}
INEXACT = {
    "LIF of other constants": (bsojax.LIF(), bsojax.LIF(tau=4.0)),
    "a LIF before a CubaLIF": (bsojax.LIF(tau=3.0), cuba()),
    "a CubaLIF before a LIF": (cuba(), bsojax.LIF(tau=3.0)),
    "refractory": (bsojax.LIF(), bsojax.LIF(refractory_steps=2)),
}


@pytest.mark.parametrize("pair", [*EXACT.values(), *INEXACT.values()], ids=[*EXACT, *INEXACT])
def test_weights_between_neurons_of_the_same_constants_have_the_gradient_of_backpropagation_through_time(pair):
    x, readout = random_currents(7, (10, 4, N)), random_currents(8, (10, 4, N))
    got, want = kernel_gradients(*pair, x, readout)
    size = np.abs(want).max()
    if pair in EXACT.values():
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * size)
    else:
        assert np.abs(got - want).max() > 0.02 * size
    # At the first time step there is no past to leave out.
    got, want = kernel_gradients(*pair, x[:1], readout[:1], detached=False)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ALIF", "CubaLIF", "PLIF"])
def test_through_the_reset_and_the_threshold_backpropagation_finds_more(name):
    x, readout = random_currents(7, (10, 4, N)), random_currents(8, (10, 4, N))
    got, want = kernel_gradients(*EXACT[name], x, readout, detached=False)
    assert np.abs(got - want).max() > 0.02 * np.abs(want).max()


@pytest.mark.parametrize(("decay_input", "exact_until"), [(False, 2), (True, 1)])
def test_the_learned_leaks_gradient_leaves_out_what_it_did_to_the_last_membrane(decay_input, exact_until):
    neuron = bsojax.PLIF(tau=3.0, decay_input=decay_input, v_threshold=0.6)
    currents, g = random_currents(9, (3, 5, N)), random_currents(10, (3, 5, N))
    for steps in range(1, 4):

        @jax.jit
        def online(w, steps=steps):
            state, total = neuron.init(jax.random.key(0), currents[0])[NEURONS], 0.0
            for current, weight in zip(currents[:steps], g, strict=False):
                spikes, changed = neuron.apply({NEURONS: state, "params": {"w": w}}, current, mutable=[NEURONS])
                state, total = changed[NEURONS], total + jnp.sum(weight * spikes.value)
            return total

        def through_time(w, steps=steps):
            return jnp.sum(g[:steps] * run_plain(neuron, currents[:steps], w)["spike"])

        got, want = (float(jax.grad(of)(w_of(neuron))) for of in (online, through_time))
        assert (abs(got - want) < 1e-4 * abs(want) + 1e-5) == (steps <= exact_until)


def test_one_constant_for_all_is_the_same_as_one_a_neuron_that_are_equal():
    currents = random_currents(11)
    for one, many in (
        (bsojax.LIF(tau=3.0, v_reset=0.1), bsojax.LIF(tau=[3.0] * N, v_reset=np.full((1, N), 0.1))),
        (bsojax.LIF(trace=bsojax.ndot_released), bsojax.LIF(tau=np.full(N, 2.0), trace=bsojax.ndot_released)),
        (bsojax.IF(v_threshold=2.0), bsojax.IF(v_threshold=np.full((5, N), 2.0))),
        (bsojax.ALIF(beta=0.5), bsojax.ALIF(beta=np.full(N, 0.5), v_threshold=jnp.ones(()))),
        (bsojax.LIF(), bsojax.PLIF()),
        (bsojax.LIF(tau=3.0), bsojax.CubaLIF(tau=3.0, tau_synapse=1.0)),
        (bsojax.LIF(tau=3.0), bsojax.ALIF(tau=3.0, beta=1e-30)),
    ):
        (left, held, _), (right, other, _) = (run(each, currents) for each in (one, many))
        np.testing.assert_array_equal(left.value, right.value)
        np.testing.assert_allclose(left.trace, right.trace, rtol=1e-6)
        np.testing.assert_allclose(held["membrane"], other["membrane"], rtol=1e-5, atol=1e-6)


def test_ndot_of_a_leak_and_of_none_side_by_side_is_that_of_each():
    currents = random_currents(12, (8, 3, 2))
    for rule in (bsojax.ndot, bsojax.ndot_released, bsojax.ottt):
        both, _, _ = run(bsojax.LIF(tau=(3.0, 1e9), trace=rule), currents)
        leaking, _, _ = run(bsojax.LIF(tau=3.0, trace=rule), currents)
        np.testing.assert_array_equal(both.value[..., 0], leaking.value[..., 0])
        np.testing.assert_allclose(both.trace[..., 0], leaking.trace[..., 0], rtol=1e-6)
        plif, _, _ = run(bsojax.PLIF(tau=3.0, trace=rule), currents)
        np.testing.assert_allclose(plif.trace, leaking.trace, rtol=1e-4, atol=1e-5)


def test_a_refractory_neuron_by_hand():
    currents = jnp.asarray([1.2, 5.0, 5.0, 0.5, 0.5, 2.0, -9.0]).reshape(-1, 1, 1)
    spikes, states, _ = run(bsojax.LIF(refractory_steps=2), currents)
    np.testing.assert_array_equal(spikes.value.ravel(), [1, 0, 0, 0, 0, 1, 0])
    np.testing.assert_allclose(states["membrane"].ravel(), [0.2, 0.2, 0.2, 0.6, 0.8, 1.4, 1.4], rtol=1e-6)
    np.testing.assert_array_equal(states["refractory"].ravel(), [2, 1, 0, 0, 0, 2, 1])


def test_an_adaptive_threshold_by_hand():
    neuron = bsojax.ALIF(tau=2.0, tau_adaptation=4.0, beta=2.0)
    spikes, states, seen = run(neuron, jnp.asarray([1.0, 1.25, 1.5, 0.0]).reshape(-1, 1, 1))
    # Thresholds 1, 1.5, 1.375, 1.78125.
    np.testing.assert_array_equal(spikes.value.ravel(), [1, 0, 1, 0])
    np.testing.assert_allclose(seen["membranes"].ravel(), [1, 1.25, 2.125, 0.375], rtol=1e-6)
    np.testing.assert_allclose(states["adaptation"].ravel(), [0.25, 0.1875, 0.390625, 0.29296875], rtol=1e-6)


def test_modules_with_arrays_are_compared_and_hashed_by_what_they_hold():
    first, second = (bsojax.LIF(tau=kind(SPREAD), v_threshold=2.0) for kind in (np.asarray, list))
    assert first == second == bsojax.LIF(tau=tuple(SPREAD), v_threshold=np.asarray(2.0))
    assert hash(first) == hash(second)
    assert first != bsojax.LIF(tau=SPREAD + 1, v_threshold=2.0)
    assert first.clone() == first
    assert bsojax.LIF() == bsojax.LIF()
    assert isinstance(bsojax.LIF().tau, float)


@pytest.mark.parametrize("shape", [(N + 1,), (2,), (4, N), (1, 5, N), (5, 1)])
@pytest.mark.parametrize("name", ["tau", "v_threshold", "v_reset"])
def test_constants_that_do_not_fit_the_current_are_refused(name, shape):
    neuron, current = bsojax.LIF(**{name: np.full(shape, 1.5)}), jnp.ones((5, N))
    if shape == (5, 1):
        assert neuron.init(jax.random.key(0), current)[NEURONS]["membrane"].shape == current.shape
        return
    with pytest.raises(ValueError, match=rf"^{name}: .*broadcasts to its current of shape \(5, {N}\)"):
        neuron.init(jax.random.key(0), current)


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (bsojax.LIF(tau=(2.0, 0.5)), "tau: .*time constant >= 1 time step, got 0.5"),
        (bsojax.LIF(v_threshold=np.array([1.0, np.nan])), "v_threshold: .*threshold > 0, got nan"),
        (bsojax.LIF(refractory_steps=-1), "refractory_steps: .*int in 0 .. 255, got -1"),
        (bsojax.IF(refractory_steps=256), "refractory_steps: .*int in 0 .. 255, got 256"),
        (bsojax.IF(refractory_steps=1.5), "refractory_steps: .*int in 0 .. 255, got 1.5"),
        (bsojax.ALIF(tau_adaptation=0.5), "tau_adaptation: .*time constant >= 1"),
        (bsojax.ALIF(beta=math.inf), "beta: .*finite"),
        (bsojax.ALIF(v_threshold=0.0), "v_threshold: "),
        (bsojax.CubaLIF(tau_synapse=0.0), "tau_synapse: .*time constant >= 1"),
        (bsojax.CubaLIF(tau=math.nan), "tau: "),
        (bsojax.PLIF(tau=1.0), "tau: .*finite time constant > 1 time step, got 1.0"),
        (bsojax.PLIF(tau=math.inf), "tau: "),
        (bsojax.LeakyReadout(tau=0.9), "tau: "),
    ],
)
def test_constants_out_of_range_are_refused(neuron, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        neuron.init(jax.random.key(0), jnp.ones((3, 2)))
