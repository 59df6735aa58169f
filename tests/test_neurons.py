"""Neurons: the released code's numbers, plain loops, the state's layout, and nothing that flows back through time."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bsojax
from bsojax.nn import NEURONS, TraceInputs, charge

all_traces = (bsojax.ottt, bsojax.ndot, bsojax.ndot_released, None)
trace_ids = ("ottt", "ndot", "ndot_released", "none")
all_neurons = (
    bsojax.LIF(),
    bsojax.LIF(tau=1.5),
    bsojax.LIF(tau=1.0),
    bsojax.LIF(tau=3.0, v_threshold=0.6),
    bsojax.LIF(v_reset=0.0),
    bsojax.LIF(v_reset=-0.25),
    bsojax.LIF(tau=4.0, v_reset=0.3, v_threshold=0.5, decay_input=True),
    bsojax.LIF(decay_input=True, v_threshold=0.4),
    bsojax.IF(),
    bsojax.IF(v_threshold=2.0),
    bsojax.IF(v_reset=0.0),
    bsojax.IF(v_reset=0.2),
)
each_trace = pytest.mark.parametrize("trace", all_traces, ids=trace_ids)
each_kind = pytest.mark.parametrize("kind", [bsojax.LIF, bsojax.IF])


def golden_files(pattern):
    tests = pathlib.Path(__file__).resolve().parent
    # Keyed by their bytes, so that a file that lies in both places is run once.
    folders = (tests.parents[1] / "shared" / "golden", tests / "golden")
    files = {path.read_bytes(): path for folder in folders for path in sorted(folder.glob(pattern))}
    return [pytest.param(path, id=f"{path.parents[1].name}-{path.stem}") for path in files.values()]


def resting(neuron, current):
    return neuron.init(jax.random.key(0), current)[NEURONS]


def advance(neuron, state, current):
    spikes, changed = neuron.apply({NEURONS: state}, current, mutable=[NEURONS])
    return spikes, changed[NEURONS]


@functools.partial(jax.jit, static_argnums=0)
def run(neuron, currents):
    """Runs a sequence from rest; returns its Spikes and states, stacked over time."""

    def body(state, current):
        spikes, state = advance(neuron, state, current)
        return state, (spikes, state)

    return jax.lax.scan(body, resting(neuron, currents[0]), currents)[1]


def name_of(neuron):
    changed = {"tau": 2.0, "v_threshold": 1.0, "v_reset": None, "decay_input": False}
    values = {name: getattr(neuron, name, default) for name, default in changed.items()}
    return "-".join([type(neuron).__name__, *(f"{n}={v}" for n, v in values.items() if v != changed[n])])


def random_currents(seed, shape=(12, 5, 7), dtype=jnp.float32):
    return jnp.asarray(0.4 + np.random.default_rng(seed).standard_normal(shape), dtype)


def golden_neuron(golden, trace):
    v_reset = float(golden["v_reset"])
    settings = {
        "v_threshold": float(golden["v_threshold"]),
        "v_reset": None if math.isnan(v_reset) else v_reset,
        "surrogate": bsojax.sigmoid(float(golden["alpha"])),
        "trace": trace,
    }
    tau = float(golden["tau"])
    return bsojax.IF(**settings) if math.isnan(tau) else bsojax.LIF(tau=tau, **settings)


@pytest.mark.parametrize("path", golden_files("c_*.npz"))
@pytest.mark.parametrize(
    ("trace", "trace_name", "suffix"),
    [(bsojax.ndot_released, "trace", ""), (bsojax.ottt, "trace_ottt", "_ottt")],
    ids=["ndot_released", "ottt"],
)
def test_agrees_with_the_released_code(path, trace, trace_name, suffix):
    golden = np.load(path)
    neuron = golden_neuron(golden, trace)
    for sequence in range(len(golden["x"])):
        spikes, states = run(neuron, jnp.asarray(golden["x"][sequence]))
        np.testing.assert_array_equal(spikes.value, golden["spike" + suffix][sequence])
        np.testing.assert_allclose(states["membrane"], golden["v" + suffix][sequence], rtol=0, atol=1e-6)
        np.testing.assert_allclose(spikes.trace, golden[trace_name][sequence], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(states["trace"], spikes.trace)


@pytest.mark.parametrize("path", golden_files("c_*.npz"))
def test_charge_factor_and_surrogate_gradient_agree_with_the_released_code(path):
    golden = np.load(path)
    neuron = golden_neuron(golden, bsojax.ndot_released)
    decay = 1.0 if isinstance(neuron, bsojax.IF) else 1 - 1 / neuron.tau
    rest = 0.0 if neuron.v_reset is None else neuron.v_reset
    v, s = golden["v"], golden["spike"]
    v_before = np.concatenate([np.full_like(v[:, :1], rest), v[:, :-1]], axis=1)
    s_before = np.concatenate([np.zeros_like(s[:, :1]), s[:, :-1]], axis=1)
    charged = charge(jnp.asarray(v_before), jnp.asarray(golden["x"]), decay, v_rest=rest)
    np.testing.assert_allclose(charged, golden["u"], rtol=0, atol=1e-6)
    _, pull = jax.vjp(lambda x: run(neuron, x)[0].value, jnp.asarray(golden["x"][0]))
    np.testing.assert_allclose(pull(jnp.ones_like(charged[0]))[0], golden["dspike_dx"][0], rtol=1e-5, atol=1e-6)
    if "pkt" in golden:
        inputs = map(jnp.asarray, (v, v_before, s, s_before))
        factor = bsojax.ndot_released.factor(TraceInputs(*inputs, decay, neuron.v_threshold))
        # At t = 0 there is nothing to decay yet, and the released code does not compute a factor.
        np.testing.assert_allclose(factor[:, 1:], golden["pkt"][:, 1:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("neuron", all_neurons, ids=name_of)
def test_agrees_with_a_plain_loop(neuron):
    currents = random_currents(1)
    spikes, states = run(neuron, currents)
    lif = isinstance(neuron, bsojax.LIF)
    decay = 1 - 1 / neuron.tau if lif else 1.0
    gain = 1 / neuron.tau if lif and neuron.decay_input else 1.0
    rest = neuron.v_reset or 0.0
    v = np.full(currents.shape[1:], rest)
    trace = np.zeros_like(v)
    for t, current in enumerate(np.asarray(currents, np.float64)):
        u = rest + decay * (v - rest) + gain * current
        s = (u >= neuron.v_threshold).astype(float)
        v = u - neuron.v_threshold * s if neuron.v_reset is None else np.where(s == 1, neuron.v_reset, u)
        trace = decay * trace + s
        np.testing.assert_array_equal(spikes.value[t], s)
        np.testing.assert_allclose(states["membrane"][t], v, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(spikes.trace[t], trace, rtol=1e-6)
    assert 0.02 < float(spikes.value.mean()) < 0.9


@pytest.mark.parametrize("tau", [1.0, 1.5, 2.0, 5.0])
def test_ndot_is_the_clamped_ratio_of_equation_7(tau):
    decay, neuron = 1 - 1 / tau, bsojax.LIF(tau=tau, trace=bsojax.ndot)
    spikes, states = run(neuron, random_currents(2))
    v = np.concatenate([np.zeros_like(states["membrane"][:1]), states["membrane"]])
    trace = np.zeros(v.shape[1:])
    inside = 0
    for t in range(len(v) - 1):
        with np.errstate(divide="ignore"):
            ratio = v[t + 1] / v[t]
        mu = np.where(np.isfinite(ratio), np.clip(ratio, -decay, decay), decay)
        inside += np.sum(np.abs(mu) < decay)
        trace = mu * trace + spikes.value[t]
        np.testing.assert_allclose(spikes.trace[t], trace, rtol=1e-4, atol=1e-6)
    assert inside > 0 or decay == 0


def test_ndot_by_hand():
    # After a spike that leaves a membrane of exactly 0 the ratio is infinite, then above the clamp, and inside it.
    currents = jnp.asarray([1.0, 0.5, 0.25, -0.375, -0.125, 0.125, 0.0]).reshape(-1, 1, 1)
    spikes, states = run(bsojax.LIF(trace=bsojax.ndot), currents)
    np.testing.assert_array_equal(states["membrane"].ravel(), [0, 0.5, 0.5, -0.125, -0.1875, 0.03125, 0.015625])
    mu = np.asarray([0.5, 0.5, -0.25, 0.5, -1 / 6, 0.5])
    np.testing.assert_allclose(spikes.trace.ravel(), np.cumprod([1.0, *mu]), rtol=1e-6)
    # Here it is 0/0 twice, minus infinity, and below the clamp.
    silent, _ = run(bsojax.LIF(trace=bsojax.ndot), jnp.asarray([1.0, 0.0, 0.0, -0.5, 1.0]).reshape(-1, 1, 1))
    np.testing.assert_allclose(silent.trace.ravel(), [1, 0.5, 0.25, 0.125, -0.0625], rtol=1e-6)


def test_released_ndot_of_integrate_and_fire_is_a_plain_sum():
    spikes, _ = run(bsojax.IF(trace=bsojax.ndot_released), random_currents(3))
    np.testing.assert_array_equal(spikes.trace, np.cumsum(spikes.value, axis=0))


def test_a_trace_rule_of_ones_own_sees_both_spikes():
    rule = bsojax.TraceRule(lambda inputs: 0.25 * inputs.previous_spike + 0.5 * inputs.spike, keeps_spike=True)
    spikes, _ = run(bsojax.LIF(trace=rule), random_currents(4))
    s = np.asarray(spikes.value)
    trace, before = 0.0, 0.0
    for t in range(len(s)):
        trace, before = (0.25 * before + 0.5 * s[t]) * trace + s[t], s[t]
        np.testing.assert_allclose(spikes.trace[t], trace, rtol=1e-6)


@each_trace
@each_kind
def test_the_trace_changes_neither_spikes_nor_membrane(kind, trace):
    spikes, states = run(kind(trace=trace), random_currents(5))
    expected, expected_states = run(kind(trace=None), random_currents(5))
    assert expected.trace is None
    np.testing.assert_array_equal(spikes.value, expected.value)
    np.testing.assert_array_equal(states["membrane"], expected_states["membrane"])


@pytest.mark.parametrize(
    ("trace", "names"),
    [
        (bsojax.ottt, {"membrane", "trace"}),
        (bsojax.ndot, {"membrane", "trace"}),
        (bsojax.ndot_released, {"membrane", "trace", "spike"}),
        (None, {"membrane"}),
    ],
    ids=trace_ids,
)
@pytest.mark.parametrize("v_reset", [None, 0.25])
@each_kind
def test_init_leaves_a_state_at_rest(kind, v_reset, trace, names):
    current = random_currents(6)[0]
    state = resting(kind(trace=trace, v_reset=v_reset), current)
    assert set(state) == names
    for name, leaf in state.items():
        expected = v_reset or 0.0 if name == "membrane" else 0.0
        np.testing.assert_array_equal(leaf, np.full(current.shape, expected, np.float32))
    _, after = advance(kind(trace=trace, v_reset=v_reset), state, current)
    assert set(after) == names


@each_trace
def test_a_missing_state_is_rest(trace):
    neuron, current = bsojax.LIF(trace=trace), random_currents(7)[0]
    spikes, state = advance(neuron, {}, current)
    expected, expected_state = advance(neuron, resting(neuron, current), current)
    jax.tree.map(np.testing.assert_array_equal, (spikes, state), (expected, expected_state))


@each_trace
@each_kind
def test_a_state_without_a_trace_keeps_none(kind, trace):
    neuron, currents = kind(trace=trace), random_currents(8)
    state = {"membrane": jnp.zeros_like(currents[0])}
    expected, states = run(neuron, currents)
    for t, current in enumerate(currents[:4]):
        spikes, state = advance(neuron, state, current)
        assert set(state) == {"membrane"}
        assert spikes.trace is None
        np.testing.assert_array_equal(spikes.value, expected.value[t])
        np.testing.assert_allclose(state["membrane"], states["membrane"][t], rtol=1e-6, atol=1e-7)


@each_kind
def test_the_mean_spike_is_sown(kind):
    current = random_currents(9)[0]
    spikes, changed = kind().apply({}, current, mutable=[NEURONS, "spike_rates"])
    assert float(changed["spike_rates"]["rate"]) == pytest.approx(float(spikes.value.mean()))


@each_trace
@pytest.mark.parametrize("v_reset", [None, 0.0])
@each_kind
def test_nothing_flows_back_through_time(kind, v_reset, trace):
    neuron, currents = kind(trace=trace, v_reset=v_reset), random_currents(10, (4, 2, 3))

    def totals(currents):
        spikes, states = run(neuron, currents)
        outputs = (spikes.value, states["membrane"], *(() if trace is None else (spikes.trace,)))
        return sum(output.sum((1, 2)) for output in outputs)

    by_output_and_input_time = jax.jacrev(totals)(currents)
    steps = np.arange(len(currents))
    assert np.all(by_output_and_input_time[steps, steps] > 0)
    np.testing.assert_array_equal(by_output_and_input_time.at[steps, steps].set(0), 0)


@each_trace
def test_no_gradient_reaches_the_state(trace):
    neuron, current = bsojax.LIF(trace=trace), random_currents(11)[0]
    state = jax.tree.map(lambda leaf: leaf + 0.3, resting(neuron, current))

    def total(state):
        spikes, state = advance(neuron, state, current)
        return spikes.value.sum() + state["membrane"].sum()

    for leaf in jax.tree.leaves(jax.grad(total)(state)):
        np.testing.assert_array_equal(leaf, 0)


@each_trace
@pytest.mark.parametrize("v_reset", [None, 0.25])
@each_kind
def test_bfloat16_stays_bfloat16(kind, v_reset, trace):
    spikes, states = run(kind(trace=trace, v_reset=v_reset), random_currents(12, dtype=jnp.bfloat16))
    for leaf in jax.tree.leaves((spikes, states)):
        assert leaf.dtype == jnp.bfloat16
        assert np.all(np.isfinite(leaf.astype(jnp.float32)))


@each_kind
def test_a_changed_batch_raises(kind):
    state = resting(kind(), jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"^current: .*shape \(4, 3\) and got \(5, 3\).*new sequence"):
        advance(kind(), state, jnp.zeros((5, 3)))


@pytest.mark.parametrize("tau", [0.99, 0.0, -2.0, math.inf, math.nan])
def test_bad_tau_raises(tau):
    with pytest.raises(ValueError, match=r"^tau: .*finite time constant >= 1"):
        resting(bsojax.LIF(tau=tau), jnp.zeros((2, 3)))


@pytest.mark.parametrize("v_threshold", [0.0, -1.0, math.inf, math.nan])
@each_kind
def test_bad_threshold_raises(kind, v_threshold):
    with pytest.raises(ValueError, match=r"^v_threshold: .*needs a .*threshold > 0"):
        resting(kind(v_threshold=v_threshold), jnp.zeros((2, 3)))


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
@each_kind
def test_a_current_that_is_not_floating_raises(kind, dtype):
    with pytest.raises(TypeError, match=r"^current: .*floating"):
        resting(kind(), jnp.ones((2, 3), dtype))
