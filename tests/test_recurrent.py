"""BinaryRecurrent and LeakyReadout: plain loops, backpropagation through time, and states that are handed on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bsojax
from bsojax.nn import NEURONS, RECORDINGS, SPIKE_RATES, BeforeReset, StateForm, resting_as

N = 9
TRAINING, PUBLIC, EVALUATION = (StateForm(*form) for form in ((True, True), (False, True), (False, False)))
neuron = functools.partial(bsojax.LIF, tau=3.0, v_threshold=0.8)
LAYER = bsojax.BinaryRecurrent(neuron=neuron)
SIGNS = jax.random.bernoulli(jax.random.key(1), shape=(N, N))
WEIGHTS = bsojax.to_weights(SIGNS)


def random_currents(seed, shape):
    return jnp.asarray(0.4 + np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def of_kernel(kernel):
    return {"signs": {"recurrent": {"kernel": kernel}}}


@functools.partial(jax.jit, static_argnums=(0, 3))
def run(layer, variables, currents, form=PUBLIC, neurons=None):
    """What a layer returns over a sequence, and its states."""
    if neurons is None:
        with resting_as(form):
            neurons = layer.init(jax.random.key(0), currents[0])[NEURONS]

    def body(neurons, current):
        out, changed = layer.apply({**variables, NEURONS: neurons}, current, mutable=[NEURONS])
        return changed[NEURONS], (out, changed[NEURONS])

    return jax.lax.scan(body, neurons, currents)[1]


def test_neurons_hear_each_others_last_spikes():
    currents = random_currents(0, (12, 5, N))
    spikes, states = run(LAYER, of_kernel(SIGNS), currents)
    kernel = np.where(SIGNS, 1.0, -1.0)
    v, s, a = (np.zeros((5, N)) for _ in range(3))
    for t, current in enumerate(np.asarray(currents, np.float64)):
        u = 2 / 3 * v + current + s @ kernel / np.sqrt(N)
        s = (u >= 0.8).astype(float)
        v, a = u - 0.8 * s, 2 / 3 * a + s
        np.testing.assert_array_equal(spikes.value[t], s)
        np.testing.assert_allclose(spikes.trace[t], a, rtol=1e-5)
        np.testing.assert_allclose(states["neuron"]["membrane"][t], v, rtol=1e-5, atol=3e-6)
        np.testing.assert_array_equal(states["spike"][t], s)
        np.testing.assert_array_equal(states["trace"][t], spikes.trace[t])
    assert 0.1 < float(spikes.value.mean()) < 0.9


@pytest.mark.parametrize("kernel", [SIGNS, WEIGHTS, bsojax.pack_signs(SIGNS)], ids=["bool", "numbers", "packed"])
@pytest.mark.parametrize("form", [TRAINING, PUBLIC, EVALUATION], ids=["training", "public", "evaluation"])
def test_every_form_of_signs_and_state_fires_alike(kernel, form):
    currents = random_currents(1, (6, 5, N))
    want, _ = run(LAYER, of_kernel(SIGNS), currents)
    spikes, states = run(LAYER, of_kernel(kernel), currents, form)
    np.testing.assert_array_equal(spikes.value, want.value)
    assert set(states) == {"neuron", "spike"} | ({"trace"} if form.traces else set())
    assert isinstance(states["neuron"]["membrane"], BeforeReset) == form.before_reset
    if form.traces:
        np.testing.assert_allclose(spikes.trace, want.trace, rtol=1e-6)
    else:
        assert spikes.trace is None


def online_gradient(layer, currents, readout, form=TRAINING):
    def total(kernel):
        return jnp.sum(readout * run(layer, of_kernel(kernel), currents, form)[0].value)

    return jax.grad(total)(WEIGHTS)


def gradient_through_time(currents, readout, fixed):
    """By plain differentiation of a loop; fixed is what holds the last spikes, and those of the reset, constant."""

    def total(kernel):
        v, s, sum_of_all = jnp.zeros((5, N)), jnp.zeros((5, N)), 0.0
        for current, weight in zip(currents, readout, strict=True):
            u = 2 / 3 * v + current + fixed(s) @ kernel / np.sqrt(N)
            s = bsojax.sigmoid()(u - 0.8)
            v, sum_of_all = u - 0.8 * fixed(s), sum_of_all + jnp.sum(weight * s)
        return sum_of_all

    return jax.jit(jax.grad(total))(WEIGHTS)


def test_at_two_time_steps_the_kernels_gradient_is_that_of_backpropagation_through_time():
    currents, readout = random_currents(2, (2, 5, N)), random_currents(3, (2, 5, N))
    got, want = online_gradient(LAYER, currents, readout), gradient_through_time(currents, readout, lambda s: s)
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", [TRAINING, PUBLIC], ids=["training", "public"])
def test_later_it_is_that_with_spikes_of_the_past_held_constant(form):
    currents, readout = random_currents(2, (6, 5, N)), random_currents(3, (6, 5, N))
    got = online_gradient(LAYER, currents, readout, form)
    want = gradient_through_time(currents, readout, jax.lax.stop_gradient)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    # What the kernel did to earlier spikes is a part of the whole, so that this agreement is no accident.
    whole = gradient_through_time(currents, readout, lambda s: s)
    assert np.abs(got - whole).max() > 0.05 * np.abs(whole).max()


def test_the_gradient_of_packed_signs_is_that_of_the_weights():
    current, g = random_currents(4, (2, 5, N))
    state = jax.tree.map(
        lambda leaf: leaf[-1], run(LAYER, of_kernel(SIGNS), random_currents(5, (4, 5, N)), TRAINING)[1]
    )
    grads = []
    for signs in (SIGNS, bsojax.pack_signs(SIGNS)):

        def total(tree):
            spikes, _ = LAYER.apply({**tree, NEURONS: state}, current, mutable=[NEURONS])
            return jnp.sum(g * spikes.value)

        grads.append(bsojax.value_and_grad(total)(of_kernel(signs))[1]["signs"]["recurrent"]["kernel"])
    assert np.abs(grads[0]).max() > 0.1
    np.testing.assert_allclose(*grads, rtol=1e-5, atol=1e-6)


def test_the_current_has_the_neurons_own_gradient_and_the_state_none():
    current = random_currents(6, (5, N))
    state = jax.tree.map(lambda leaf: leaf[-1], run(LAYER, of_kernel(SIGNS), random_currents(5, (4, 5, N)))[1])

    def total(current, state):
        spikes, changed = LAYER.apply({**of_kernel(SIGNS), NEURONS: state}, current, mutable=[NEURONS])
        return spikes.value.sum() + sum(leaf.sum() for leaf in jax.tree.leaves(changed))

    by_current, by_state = jax.grad(total, (0, 1))(current, state)
    charged = 2 / 3 * state["neuron"]["membrane"] + current + state["spike"] @ WEIGHTS / np.sqrt(N)
    np.testing.assert_allclose(by_current, bsojax.sigmoid().gradient(charged - 0.8), rtol=1e-4)
    for leaf in jax.tree.leaves(by_state):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("kind", [functools.partial(bsojax.LIF, trace=None), bsojax.ALIF, bsojax.CubaLIF, bsojax.PLIF])
@pytest.mark.parametrize("form", [TRAINING, EVALUATION], ids=["training", "evaluation"])
def test_any_neuron_will_do_on_images_too(kind, form):
    layer, currents = bsojax.BinaryRecurrent(neuron=kind, scale=bsojax.unit_scale), random_currents(7, (4, 2, 3, 3, N))
    variables = layer.init(jax.random.key(0), currents[0])
    assert variables["signs"]["recurrent"]["kernel"].shape == (N, N)
    variables = {name: variables[name] for name in ("signs", "params") if name in variables}
    spikes, states = run(layer, variables, currents, form)
    assert spikes.value.shape == currents.shape
    keeps = form.traces and not isinstance(kind, functools.partial)
    assert ("trace" in states) == (spikes.trace is not None) == keeps


def test_a_current_of_another_batch_is_refused_and_so_is_an_integer():
    state = LAYER.init(jax.random.key(0), jnp.zeros((4, N)))[NEURONS]
    with pytest.raises(ValueError, match=r"^current: recurrent layer 'None' holds a state of shape \(4, 9\)"):
        LAYER.apply({**of_kernel(SIGNS), NEURONS: state}, jnp.zeros((5, N)), mutable=[NEURONS])
    with pytest.raises(TypeError, match="^current: "):
        LAYER.init(jax.random.key(0), jnp.zeros((4, N), jnp.int32))


READOUTS = [bsojax.LeakyReadout(), bsojax.LeakyReadout(tau=np.linspace(1, 9, N)), bsojax.LeakyReadout(4.0, True)]


@pytest.mark.parametrize("readout", READOUTS, ids=["sum", "a tau a neuron", "average"])
def test_the_readout_is_a_leaky_sum(readout):
    currents = random_currents(8, (12, 5, N))
    out, states = run(readout, {}, currents)
    leak, v = 1 / np.asarray(readout.tau), np.zeros((5, N))
    for t, current in enumerate(np.asarray(currents, np.float64)):
        v = (1 - leak) * v + (leak if readout.decay_input else 1) * current
        np.testing.assert_allclose(out[t], v, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(states["membrane"], out)


def test_the_readout_of_a_constant_current_that_decays_ends_at_it():
    out, _ = run(bsojax.LeakyReadout(2.0, True), {}, jnp.full((30, 1, 2), 1.5))
    np.testing.assert_allclose(out[-1], 1.5, rtol=1e-6)


@pytest.mark.parametrize(("tau", "decay_input", "exact"), [(3.0, False, True), (3.0, True, True), (5.0, False, False)])
def test_weights_before_a_readout_of_their_traces_tau_have_the_exact_gradient(tau, decay_input, exact):
    lif, readout = bsojax.LIF(tau=3.0), bsojax.LeakyReadout(tau, decay_input)
    spikes, _ = run(lif, {}, random_currents(9, (8, 5, N)))
    targets = random_currents(10, (8, 5, 2))
    params = bsojax.Dense(2).init(jax.random.key(0), spikes.value[0])["params"]

    def loss(params, online):
        v, total = {}, 0.0
        plain = jnp.zeros((5, 2))
        for t in range(8):
            if online:
                now = jax.tree.map(lambda leaf, t=t: leaf[t], spikes)
                out, v = readout.apply(v, bsojax.Dense(2).apply({"params": params}, now), mutable=[NEURONS])
            else:
                current = spikes.value[t] @ params["kernel"] + params["bias"][None]
                out = plain = (1 - 1 / tau) * plain + (1 / tau if decay_input else 1.0) * current
            total = total + jnp.sum(jnp.square(out - targets[t]))
        return total

    got, want = (jax.jit(jax.grad(loss), static_argnums=1)(params, online) for online in (True, False))
    assert np.allclose(got["kernel"], want["kernel"], rtol=1e-4) == exact
    assert not np.allclose(got["bias"], want["bias"], rtol=0.05)  # that of this time step


def test_a_stream_in_two_parts_is_the_whole():
    currents = random_currents(11, (8, 5, N))
    for layer, variables in ((LAYER, of_kernel(SIGNS)), (bsojax.LeakyReadout(), {}), (bsojax.CubaLIF(), {})):
        want, _ = run(layer, variables, currents, TRAINING)
        first, states = run(layer, variables, currents[:3], TRAINING)
        second, _ = run(layer, variables, currents[3:], TRAINING, jax.tree.map(lambda leaf: leaf[-1], states))
        both = jax.tree.map(lambda one, two: jnp.concatenate([one, two]), first, second)
        jax.tree.map(np.testing.assert_array_equal, both, want)


def test_a_readout_tells_its_membrane_and_no_spikes():
    readout, current = bsojax.LeakyReadout(), random_currents(12, (5, N))
    out, changed = readout.apply({}, current, mutable=[NEURONS, RECORDINGS, SPIKE_RATES])
    assert set(changed) == {NEURONS, RECORDINGS}
    assert set(changed[RECORDINGS]) == {"membranes", "currents"}
    np.testing.assert_array_equal(changed[RECORDINGS]["membranes"], out)

    def both(module, current):
        return module(current), module.membrane_potential()

    (out, membrane), _ = readout.apply({}, current, mutable=[NEURONS], method=both)
    np.testing.assert_array_equal(out, membrane)
    with pytest.raises(TypeError, match="^current: "):
        readout.init(jax.random.key(0), jnp.ones((2, 3), jnp.int32))
