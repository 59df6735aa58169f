"""bso and t_bso: the flip rule, its symmetries, the moments against a slow reference, and what they refuse."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import parameterized
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import bsojax

T = 4


def bso(threshold, b1=0.9, b2=None, eps=None, debias=False, **options):
    """bso under the signature of t_bso, whose second moment it lacks."""
    del b2, eps, debias
    return bsojax.bso(threshold, b1, **options)


def t_bso(threshold, b1=0.9, b2=0.9, eps=0.0, **options):
    return bsojax.t_bso(threshold, T, b1, b2, eps, **options)


OPTIMIZERS = (bso, t_bso)
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS)
each_variant = parameterized.named_parameters(*((make.__name__, make) for make in OPTIMIZERS))


def tree(seed, draw):
    """Two leaves of one shape, so that they may be exchanged, and a scalar."""
    rng = np.random.default_rng(seed)
    return {"a": draw(rng, (3, 4)), "b": [draw(rng, (3, 4)), draw(rng, ())]}


def draw_signs(seed):
    return tree(seed, lambda rng, shape: jnp.asarray(rng.random(shape) < 0.5))


def draw_gradients(seed, *steps):
    return tree(seed, lambda rng, shape: jnp.asarray(rng.normal(size=(*steps, *shape)), jnp.float32))


def equal(one, other):
    chex.assert_trees_all_equal(one, other, strict=True)


def close(one, other):
    """Equal but for rounding: the sums of two programs may be taken in another order."""
    chex.assert_trees_all_equal_shapes_and_dtypes(one, other)
    chex.assert_trees_all_close(one, other, rtol=1e-6)


def at(history, step):
    # By way of NumPy: JAX would compile a slice for every step.
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[step]), history)


@functools.cache
def rollout(make, schedule=None, **options):
    """A jitted run over gradients with a leading axis of steps; it returns every step's signs, deltas and state."""

    @jax.jit
    def run(threshold, signs, gradients):
        tx = make(schedule or threshold, **options)

        def step(carry, gradient):
            signs, state = carry
            deltas, state = tx.update(gradient, state, signs)
            signs = optax.apply_updates(signs, deltas)
            return (signs, state), (signs, deltas, state)

        return jax.lax.scan(step, (signs, tx.init(signs)), gradients)[1]

    return run


def reference(signs, gradients, gamma, b1, b2=None, eps=0.0, debias=False, reset_on_flip=False, times=None):
    """Equations 11 to 14, slowly, in float64: after each update the weights, m, v and the weight of v."""
    weights = [np.where(leaf, 1.0, -1.0) for leaf in jax.tree.leaves(signs)]
    m, v, v_weight = [np.zeros(w.shape) for w in weights], [np.zeros(T) for _ in weights], np.zeros(T)
    for n in range(len(jax.tree.leaves(gradients)[0])):
        gs = [np.asarray(leaf, np.float64)[n] for leaf in jax.tree.leaves(gradients)]
        t = n % T if times is None else times[n]
        decay, limit = (x(n) if callable(x) else x for x in (b1, gamma))
        if all(np.all(np.isfinite(g)) for g in gs):
            if b2 is not None:
                v_weight[t] = b2 * v_weight[t] + (1 - b2)
            for i, g in enumerate(gs):
                m[i] = decay * m[i] + (1 - decay) * g
                threshold = limit
                if b2 is not None:
                    v[i][t] = b2 * v[i][t] + (1 - b2) * np.mean(g**2)
                    threshold = limit * np.sqrt(v[i][t] / (v_weight[t] if debias else 1) + eps)
                flips = weights[i] * m[i] > threshold
                weights[i] = np.where(flips, -weights[i], weights[i])
                if reset_on_flip:
                    m[i] = np.where(flips, 0, m[i])
        yield [w.copy() for w in weights], [x.copy() for x in m], [x.copy() for x in v], v_weight.copy()


def assert_equals_reference(signs, state, expected):
    weights, m, v, v_weight = expected
    for leaf, w in zip(jax.tree.leaves(signs), weights, strict=True):
        np.testing.assert_array_equal(leaf, w > 0)
    for leaf, x in zip(jax.tree.leaves(state.momentum), m, strict=True):
        np.testing.assert_allclose(leaf, x, rtol=1e-5, atol=1e-6)
    if isinstance(state, bsojax.TBSOState):
        for leaf, x in zip(jax.tree.leaves(state.second_moment), v, strict=True):
            np.testing.assert_allclose(leaf, x, rtol=1e-5)
        if state.second_moment_weight is not None:
            np.testing.assert_allclose(state.second_moment_weight, v_weight, rtol=1e-5)


# Few values and a size that is a power of two: squares, mean and root are exact, and ties are common.
few_signs = hnp.arrays(bool, (8,))
few_gradients = hnp.arrays(np.float32, (8,), elements=st.integers(-2, 2).map(float))


class VariantsTest(chex.TestCase):
    """With and without jit, and a copy on every device."""

    @chex.variants(with_jit=True, without_jit=True)
    @each_variant
    def test_flips_where_weight_times_momentum_exceeds_the_threshold_strictly(self, make):
        tx = make(1.0, b1=0.0, b2=0.0)
        update = self.variant(tx.update)

        @given(signs=few_signs, gradient=few_gradients)
        def check(signs, gradient):
            deltas, state = update(jnp.asarray(gradient), tx.init(jnp.asarray(signs)), jnp.asarray(signs))
            limit = 1.0 if make is bso else np.mean(gradient**2)
            aligned = np.where(signs, gradient, -gradient)
            flips = (aligned > 0) & (aligned**2 > limit)
            np.testing.assert_array_equal(deltas, np.where(flips, np.where(signs, -1, 1), 0))
            np.testing.assert_array_equal(state.momentum, gradient)

        check()

    @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
    @each_variant
    def test_agrees_with_the_reference(self, make):
        signs, gradients = draw_signs(1), draw_gradients(2, 20)
        tx = make(0.05, b1=0.8, b2=0.7)
        update, apply, state, flips = self.variant(tx.update), self.variant(bsojax.apply_updates), tx.init(signs), 0
        b2 = None if make is bso else 0.7
        for n, expected in enumerate(reference(signs, gradients, 0.05, b1=0.8, b2=b2)):
            deltas, state = update(at(gradients, n), state, signs)
            signs = apply(signs, deltas)
            flips += sum(int(jnp.sum(delta != 0)) for delta in jax.tree.leaves(deltas))
            assert_equals_reference(signs, state, expected)
        assert flips > 20
        assert state.count == 20

    @chex.variants(with_jit=True, without_jit=True)
    @each_variant
    def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(self, make):
        signs = draw_signs(3)
        tx = make(0.0)
        update = self.variant(tx.update)
        _, state = update(draw_gradients(4), tx.init(signs), signs)
        for number, bad in enumerate((math.nan, math.inf, -math.inf)):
            leaves, structure = jax.tree.flatten(draw_gradients(5))
            leaves[number] = leaves[number].at[(0,) * leaves[number].ndim].set(bad)
            deltas, after = update(jax.tree.unflatten(structure, leaves), state, signs)
            assert not any(jnp.any(delta) for delta in jax.tree.leaves(deltas))
            equal(after, state._replace(count=state.count + 1, skipped=state.skipped + 1))
            state = after
        assert state.skipped == 3


for name, method in vars(VariantsTest).items():
    if name.endswith(("__without_jit", "__with_pmap")):
        pytest.mark.slow(method)  # each operation, or each device, compiles


@each_optimizer
def test_ties_never_flip(make):
    # All magnitudes equal and a threshold of one: every weight sits exactly on its threshold.
    signs, gradient = jnp.array([True, False, True, False]), jnp.array([2.0, -2.0, -2.0, 2.0])
    for threshold, expected in (
        (2.0, [False] * 4),
        (np.nextafter(np.float32(2), np.float32(0)), [True, True] + [False] * 2),
    ):
        tx = make(threshold if make is bso else threshold / 2, b1=0.0, b2=0.0)
        assert (tx.update(gradient, tx.init(signs), signs)[0] != 0).tolist() == expected
    zero = jnp.zeros(4)
    tx = make(0.0)
    assert not jnp.any(tx.update(zero, tx.init(signs), signs)[0]), "a momentum of zero is a tie too"


@each_optimizer
@given(seed=st.integers(0, 2**20))
def test_gauge_symmetry(make, seed):
    signs, gradients, turned = draw_signs(seed), draw_gradients(seed, 6), draw_signs(seed + 1)
    turn = functools.partial(jax.tree.map, lambda mask, leaf: jnp.where(mask, -leaf, leaf))
    one = rollout(make)(0.05, signs, gradients)
    other_signs = jax.tree.map(jnp.logical_xor, signs, turned)
    over_steps = jax.tree.map(lambda mask, leaf: jnp.broadcast_to(mask, leaf.shape), turned, gradients)
    other = rollout(make)(0.05, other_signs, turn(over_steps, gradients))
    equal(jax.tree.map(jnp.abs, one[1]), jax.tree.map(jnp.abs, other[1]))
    equal(turn(over_steps, one[2].momentum), other[2].momentum)
    if make is t_bso:
        equal(one[2].second_moment, other[2].second_moment)


@each_optimizer
@given(seed=st.integers(0, 2**20), power=st.integers(-12, 12))
def test_scaling_the_gradients_flips_the_same_bits(make, seed, power):
    signs, gradients = draw_signs(seed), draw_gradients(seed, 6)
    scaled = jax.tree.map(lambda leaf: leaf * 2.0**power, gradients)
    threshold = 0.05 * 2.0**power if make is bso else 0.05
    one, other = rollout(make)(0.05, signs, gradients), rollout(make)(threshold, signs, scaled)
    equal(one[1], other[1])
    equal(jax.tree.map(lambda leaf: leaf * 2.0**power, one[2].momentum), other[2].momentum)


@each_optimizer
@given(seed=st.integers(0, 2**20), low=st.floats(0, 0.5, width=32), high=st.floats(0, 0.5, width=32))
def test_a_larger_threshold_flips_a_subset(make, seed, low, high):
    low, high = sorted((low, high))
    signs, gradients = draw_signs(seed), draw_gradients(seed, 1)
    many, few = (rollout(make)(threshold, signs, gradients)[1] for threshold in (low, high))
    assert all(np.all((f == 0) | (f == m)) for f, m in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True))


@each_optimizer
def test_an_infinite_threshold_freezes_the_signs(make):
    signs = draw_signs(6)
    # Gradients of zero as well: t_bso then compares with infinity times zero.
    gradients = jax.tree.map(lambda leaf: leaf.at[2:4].set(0), draw_gradients(7, 6))
    history, _, state = rollout(make)(math.inf, signs, gradients)
    equal(at(history, -1), signs)
    assert all(jnp.all(leaf[-1] != 0) for leaf in jax.tree.leaves(state.momentum)), "the momentum must still move"
    # The same gradients do flip signs where the threshold is finite.
    assert any(jnp.any(delta) for delta in jax.tree.leaves(rollout(make)(0.05, signs, gradients)[1]))


@each_optimizer
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_boolean_and_floating_leaves_agree(make, dtype):
    signs, gradients = draw_signs(8), draw_gradients(9, 10)
    boolean = rollout(make)(0.05, signs, gradients)
    floating = rollout(make)(0.05, bsojax.to_weights(signs, dtype), gradients)
    equal(floating[0], bsojax.to_weights(boolean[0], dtype))
    close(floating[2], boolean[2])


@each_optimizer
def test_optax_apply_updates_is_xor(make):
    signs, gradients = draw_signs(10), draw_gradients(11, 10)
    history, deltas, _ = rollout(make)(0.05, signs, gradients)
    before = jax.tree.map(lambda start, leaf: jnp.concatenate([start[None], leaf[:-1]]), signs, history)
    equal(history, jax.tree.map(lambda old, delta: old ^ (delta != 0), before, deltas))


@each_optimizer
def test_permuting_the_tree_permutes_the_result(make):
    def exchange(tree):
        return {"a": tree["b"][0], "b": [tree["a"], tree["b"][1]]}

    signs, gradients = draw_signs(12), draw_gradients(13, 6)
    one = rollout(make)(0.05, signs, gradients)
    other = rollout(make)(0.05, exchange(signs), exchange(gradients))
    for part in (0, 1):
        equal(exchange(one[part]), other[part])
    equal(exchange(one[2].momentum), other[2].momentum)


@each_optimizer
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("update_dtype", [jnp.int8, jnp.float32, jnp.bfloat16])
def test_dtypes_and_structure(make, dtype, update_dtype):
    signs = draw_signs(14)
    gradient = jax.tree.map(lambda leaf: leaf.astype(dtype), draw_gradients(15))
    tx = make(0.1, update_dtype=update_dtype)
    state = tx.init(signs)
    deltas, after = jax.eval_shape(tx.update, gradient, state, signs)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    chex.assert_trees_all_equal_shapes_and_dtypes(
        after.momentum, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), signs)
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(deltas, jax.tree.map(lambda leaf: leaf.astype(update_dtype), signs))
    assert (after.count.dtype, after.skipped.dtype) == (jnp.int32, jnp.int32)
    if make is t_bso:
        assert all((v.shape, v.dtype) == ((T,), jnp.float32) for v in jax.tree.leaves(after.second_moment))


def anneal(count):
    return 0.04 * 0.8**count


def warm_b1(count):
    return 0.5 + 0.02 * count


CASES = (
    (bso, {}),
    (bso, {"reset_on_flip": True}),
    (bso, {"gamma": anneal, "b1": warm_b1}),
    (t_bso, {"debias": True}),
    (t_bso, {"debias": True, "reset_on_flip": True}),
    (t_bso, {"gamma": anneal, "b1": warm_b1}),
    (t_bso, {"eps": 100.0, "gamma": 0.01}),
    (t_bso, {"b1": 0.0, "b2": 0.0, "gamma": 0.9}),
)


@pytest.mark.parametrize(("make", "case"), CASES)
def test_options_agree_with_the_reference_over_skipped_updates(make, case):
    options = {"gamma": 0.05, "b1": 0.8, "b2": 0.7, **case}
    gamma = options.pop("gamma")
    signs, gradients = draw_signs(16), draw_gradients(17, 20)
    # The first update of a time step, one in the middle, and two in a row.
    gradients["a"] = gradients["a"].at[jnp.array([1, 10, 14, 15]), 1, 2].set(jnp.nan)
    schedule = gamma if callable(gamma) else None
    history, deltas, states = rollout(make, schedule, **options)(None if schedule else gamma, signs, gradients)
    if make is bso:
        options = {name: value for name, value in options.items() if name != "b2"}
    for n, expected in enumerate(reference(signs, gradients, gamma, **options)):
        assert_equals_reference(at(history, n), at(states, n), expected)
    assert states.skipped[-1] == 4
    assert states.count[-1] == 20
    assert any(jnp.any(delta) for delta in jax.tree.leaves(deltas))


def test_time_step_chooses_the_second_moment():
    signs, gradients = draw_signs(18), draw_gradients(19, 20)
    times = np.random.default_rng(20).integers(0, T, 20)
    tx = t_bso(0.05)
    update, given_signs, state = jax.jit(tx.update), signs, tx.init(signs)
    for n, expected in enumerate(reference(signs, gradients, 0.05, b1=0.9, b2=0.9, times=times)):
        deltas, state = update(at(gradients, n), state, given_signs, time_step=times[n])
        given_signs = bsojax.apply_updates(given_signs, deltas)
        assert_equals_reference(given_signs, state, expected)


def test_time_step_falls_back_to_the_count():
    signs, gradient = draw_signs(21), draw_gradients(22)
    tx = t_bso(0.05)
    update = jax.jit(tx.update)
    state = given = tx.init(signs)
    for n in range(2 * T + 1):
        _, state = update(gradient, state, signs)
        _, given = update(gradient, given, signs, time_step=jnp.int32(n % T))
        close(state, given)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, jnp.uint32])
def test_time_step_may_be_any_integer(dtype):
    tx, signs, gradient = bsojax.t_bso(0.05, 200), draw_signs(23), draw_gradients(24)
    _, state = jax.jit(tx.update)(gradient, tx.init(signs), signs, time_step=dtype(3))
    assert np.flatnonzero(state.second_moment["a"]).tolist() == [3]


@functools.cache
def debiased():
    tx = t_bso(0.0, debias=True)
    return tx, jax.jit(tx.update)


@pytest.mark.parametrize("time_step", [-1, T, -T - 1, 1000, -(2**31)])
def test_a_traced_time_step_out_of_range_is_skipped_and_counted(time_step):
    signs = draw_signs(25)
    tx, update = debiased()
    _, state = update(draw_gradients(26), tx.init(signs), signs, time_step=T - 1)
    deltas, after = update(draw_gradients(27), state, signs, time_step=time_step)
    assert not any(jnp.any(delta) for delta in jax.tree.leaves(deltas))
    equal(after, state._replace(count=state.count + 1, skipped=state.skipped + 1))


def test_an_empty_leaf_has_finite_moments():
    signs = {"kernel": jnp.array([True]), "empty": jnp.zeros((0, 3), bool)}
    tx = t_bso(0.0)
    _, state = tx.update(bsojax.to_weights(signs), tx.init(signs), signs)
    chex.assert_tree_all_finite(state)


def test_a_gradient_too_large_to_be_squared_does_not_freeze_its_layer():
    # It is finite, but an infinite second moment would be an infinite threshold for ever after.
    tx, signs = t_bso(0.0), {"kernel": jnp.array([True, False])}
    _, state = tx.update({"kernel": jnp.array([1e20, 1.0])}, tx.init(signs), signs)
    chex.assert_tree_all_finite(state)


@each_optimizer
def test_count_saturates(make):
    tx, signs = make(0.1), draw_signs(28)
    state = tx.init(signs)._replace(count=jnp.int32(2**31 - 2))
    for _ in range(3):
        _, state = tx.update(draw_gradients(29), state, signs)
    assert int(state.count) == 2**31 - 1


@each_optimizer
def test_a_decay_next_to_one_still_moves_the_momentum(make):
    # In float32 1 - b1 would be zero.
    tx, signs = make(0.0, b1=1 - 1e-8), {"kernel": jnp.array([True, False])}
    _, state = tx.update({"kernel": jnp.array([1.0, -3.0])}, tx.init(signs), signs)
    np.testing.assert_allclose(state.momentum["kernel"], [1e-8, -3e-8], rtol=1e-6)


def test_noise_threshold():
    assert bsojax.noise_threshold(0.999, 2.0) == pytest.approx(2 * math.sqrt(0.001 / 2), rel=1e-12)
    assert bsojax.noise_threshold(1 - 1e-10) == pytest.approx(0.5 * math.sqrt(0.5e-10), rel=1e-6)
    np.testing.assert_allclose(bsojax.noise_threshold(jnp.float32(0.5), 1.0), 0.5, rtol=1e-6)
    schedule = bsojax.noise_threshold(warm_b1, 0.25)
    for count in (0, 7, 20):
        np.testing.assert_allclose(schedule(jnp.int32(count)), 0.25 * math.sqrt((0.5 - 0.02 * count) / 2), rtol=1e-6)


# Under white noise the momentum is autoregressive: without threshold its sign turns with probability
# arccos(b1) / pi, about sqrt(2 (1 - b1)) / pi; the rate with a threshold of half a standard deviation was measured.
NOISE_RATES = ((0.0, math.sqrt(2e-3) / math.pi, 0.05), (0.5, 0.073e-2, 0.2))


@pytest.mark.parametrize(
    ("c", "rate", "tolerance"), [pytest.param(*NOISE_RATES[0], marks=pytest.mark.slow), NOISE_RATES[1]]
)
def test_flips_under_pure_noise(c, rate, tolerance):
    b1, size, burn_in, steps = 0.999, 2048, 500, 1500
    tx = bsojax.t_bso(bsojax.noise_threshold(b1, c), 1, b1, b2=0.99, debias=True)
    start, keys = jax.random.normal(jax.random.key(0), (size,)), jax.random.split(jax.random.key(1), burn_in + steps)
    signs = start < 0
    # The stationary momentum, so that the run need not be many times 1 / (1 - b1) steps long.
    state = tx.init(signs)._replace(momentum=start * math.sqrt((1 - b1) / (1 + b1)))

    def step(carry, key):
        signs, state = carry
        deltas, state = tx.update(jax.random.normal(key, (size,)), state, signs)
        return (bsojax.apply_updates(signs, deltas), state), jnp.mean(deltas != 0)

    flips = jax.jit(lambda *carry: jax.lax.scan(step, carry, keys)[1])(signs, state)
    assert float(jnp.mean(flips[burn_in:])) == pytest.approx(rate, rel=tolerance)


BAD_ARGUMENTS = (
    (lambda make: make(-1e-9), ValueError, "threshold: must be in"),
    (lambda make: make(math.nan), ValueError, "threshold: must be in"),
    (lambda make: make(True), TypeError, "threshold: got the boolean"),
    (lambda make: make(0.1, b1=1.0), ValueError, "b1: must be in"),
    (lambda make: make(0.1, b1=-0.1), ValueError, "b1: must be in"),
    (lambda make: make(0.1, b1=math.nan), ValueError, "b1: must be in"),
    (lambda _: t_bso(0.1, b2=1.0), ValueError, "b2: must be in"),
    (lambda _: t_bso(0.1, b2=-0.1), ValueError, "b2: must be in"),
    (lambda _: t_bso(0.1, eps=-1e-20), ValueError, "eps: must be in"),
    (lambda _: t_bso(0.1, eps=math.inf), ValueError, "eps: must be in"),
    (lambda _: bsojax.t_bso(0.1, 0), ValueError, "num_steps: .* at least 1"),
    (lambda _: bsojax.noise_threshold(1.0), ValueError, "b1: must be in"),
    (lambda _: bsojax.noise_threshold(0.9, -1.0), ValueError, "c: must be in"),
)


@each_optimizer
@pytest.mark.parametrize(("call", "error", "message"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(make, call, error, message):
    with pytest.raises(error, match=message):
        call(make)


BAD_SIGNS = (
    ({}, ValueError, "signs: the tree has no leaf"),
    (
        {"layer": {"kernel": jnp.array([1.0, 0.5])}},
        ValueError,
        "signs: leaf 'layer/kernel' is float32 with values other",
    ),
    ({"layer": {"kernel": jnp.array([1.0, jnp.nan])}}, ValueError, "signs: leaf 'layer/kernel' is float32 with values"),
    ({"layer": {"kernel": jnp.array([1, -2])}}, ValueError, "signs: leaf 'layer/kernel' is int32 with values"),
)


@each_optimizer
@pytest.mark.parametrize(("signs", "error", "message"), BAD_SIGNS)
def test_bad_signs_are_named(make, signs, error, message):
    with pytest.raises(error, match=message):
        make(0.1).init(signs)


ONES = {"layer": {"kernel": jnp.ones((2, 3))}}
BAD_GRADIENTS = (
    ({"layer": jnp.ones((2, 3))}, ValueError, "grads: leaf 'layer/kernel' must be .* is missing"),
    ({"layer": {"kernel": jnp.ones((3,))}}, ValueError, r"grads: leaf 'layer/kernel' must be \(2, 3\), and is \(3,\)"),
)


@each_optimizer
def test_bad_gradients_are_named(make):
    tx, signs = make(0.1), bsojax.to_signs(ONES)
    state = tx.init(signs)
    for gradient, error, message in BAD_GRADIENTS:
        with pytest.raises(error, match=message):
            jax.eval_shape(tx.update, gradient, state, signs)
    with pytest.raises(ValueError, match="update needs the current"):
        tx.update(ONES, state)
    with pytest.raises(ValueError, match="state: "):
        tx.update(ONES, tx.init({"layer": {"kernel": jnp.ones((1, 3))}}), signs)


@pytest.mark.parametrize("time_step", [T, -1, jnp.int32(T)])
def test_bad_time_steps_are_named(time_step):
    tx, signs = t_bso(0.1), bsojax.to_signs(ONES)
    with pytest.raises(ValueError, match="time_step: "):
        tx.update(ONES, tx.init(signs), signs, time_step=time_step)
