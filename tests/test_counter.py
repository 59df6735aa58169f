"""counter: against a slow obvious version, its packing, its ends, what it skips and refuses, and its recipe."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fast_and_slow import rarely
from hypothesis import given, settings
from hypothesis import strategies as st

import bsojax

SHAPES = ((3, 5), (7,), (), (2, 3, 1, 5))
WIDTHS = range(3, 9)


def mixed(bits):
    """The finaliser of MurmurHash3 of a Python integer."""
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) % 2**32
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) % 2**32
    return bits ^ (bits >> 16)


def fraction(index, number, count, seed):
    """What is added to a move before it is cut to a whole number: it goes round in steps of the golden ratio."""
    golden = 0x9E3779B9
    start = mixed((mixed((seed + number * golden) % 2**32) + index) % 2**32)
    return np.float32(((start + count * golden) % 2**32) >> 8) * np.float32(2.0**-24)


class Slow:
    """The counter, a weight at a time, its level a number."""

    def __init__(self, signs, bits, seed):
        self.top, self.seed, self.count = 2 ** (bits - 1) - 0.5, seed, 0
        self.levels = [np.where(leaf, 0.5, -0.5) for leaf in signs]

    def update(self, grads, step):
        for number, (levels, gradient) in enumerate(zip(self.levels, grads, strict=True)):
            for index in range(levels.size):
                u = fraction(index, number, self.count, self.seed)
                move = math.floor(np.float32(np.float32(step) * np.float32(gradient.flat[index])) + u)
                levels.flat[index] = min(max(levels.flat[index] - move, -self.top), self.top)
        self.count += 1


def drawn(seed, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return rng, [jnp.asarray(rng.random(shape) < 0.5) for shape in shapes]


def run(tx, signs, gradients):
    state, update = tx.init(signs), jax.jit(tx.update)
    for grads in gradients:
        updates, state = update(grads, state, signs)
        signs = bsojax.apply_updates(signs, updates)
        yield signs, state


def distances(state, shapes=SHAPES):
    """How far each weight is from the level next to zero, from the state's rows of bits."""
    found = []
    for rows, shape in zip(state.levels, shapes, strict=True):
        bits = [np.stack([(row >> k) & 1 for k in range(8)]).ravel() for row in np.asarray(rows).astype(int)]
        digits = [each[: math.prod(shape)] for each in bits]
        found.append(sum(digit << place for place, digit in enumerate(digits)).reshape(shape))
    return found


@pytest.mark.parametrize("bits", [3, 8, *rarely(4, 5, 6, 7)])
def test_it_is_the_slow_counter_bit_for_bit(bits):
    rng, signs = drawn(bits)
    step = 2.0 ** (bits - 4)  # a power of two, whose products are exact: a compiler may fuse them with the sum
    slow = Slow(signs, bits, seed=5)
    gradients = [[jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES] for _ in range(40)]
    for grads, (now, state) in zip(gradients, run(bsojax.counter(step, bits, seed=5), signs, gradients), strict=True):
        slow.update([np.asarray(leaf) for leaf in grads], step)
        for levels, sign, distance in zip(slow.levels, now, distances(state), strict=True):
            np.testing.assert_array_equal(sign, levels > 0)
            np.testing.assert_array_equal(distance, np.abs(levels) - 0.5)
    assert max(int(distance.max()) for distance in distances(state)) == 2 ** (bits - 1) - 1  # some are at the end


@pytest.mark.slow
@settings(max_examples=2)
@given(bits=st.sampled_from(WIDTHS), seed=st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_bits_and_another_one_others(bits, seed):
    rng, signs = drawn(bits)
    gradients = [[jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES] for _ in range(8)]
    ends = [list(run(bsojax.counter(0.5, bits, seed=s), signs, gradients))[-1] for s in (seed, seed, seed ^ 1)]
    chex.assert_trees_all_equal(ends[0], ends[1])
    assert any((one != other).any() for one, other in zip(distances(ends[0][1]), distances(ends[2][1]), strict=True))


def test_small_gradients_add_up_without_bias():
    signs = [jnp.zeros(4096, bool)]
    *_, (_, state) = run(bsojax.counter(1.0, 8), signs, [[jnp.full(4096, 0.03125)]] * 960)
    np.testing.assert_allclose(distances(state, [(4096,)])[0].mean(), 30, atol=0.05)
    assert distances(state, [(4096,)])[0].std() < 1  # the errors of rounding do not add up


@pytest.mark.parametrize("bad", [np.nan, *rarely(np.inf, -np.inf)])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad):
    rng, signs = drawn(0)
    tx = bsojax.counter(1.0, 5, deploy_level=2.0)
    *_, (signs, state) = run(tx, signs, [[jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES]] * 3)
    grads = [jnp.full(shape, bad if number == 1 else 1.0) for number, shape in enumerate(SHAPES)]
    updates, after = tx.update(grads, state, signs)
    assert not any(np.any(update) for update in updates)
    chex.assert_trees_all_equal(after, state._replace(count=state.count + 1, skipped=state.skipped + 1))


def test_huge_gradients_end_at_the_last_level():
    signs = [jnp.array([True, False])]
    tx = bsojax.counter(1e38, 4)
    updates, state = tx.update([jnp.array([3e38, -3e38])], tx.init(signs), signs)
    assert bsojax.apply_updates(signs, updates)[0].tolist() == [False, True]
    np.testing.assert_array_equal(distances(state, [(2,)])[0], [7, 7])


@pytest.mark.slow
def test_packed_and_floating_signs_give_the_same_bits():
    rng, signs = drawn(3)
    gradients = [[jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in SHAPES] for _ in range(10)]
    forms = [signs, bsojax.pack_signs(signs), bsojax.signs.to_weights(signs)]
    ends = [list(run(bsojax.counter(1.5, 6, deploy_level=4.0), form, gradients))[-1] for form in forms]
    chex.assert_trees_all_equal(ends[0][1], ends[1][1], ends[2][1])
    chex.assert_trees_all_equal(ends[0][0], bsojax.signs.unpack_signs(ends[1][0]), bsojax.to_signs(ends[2][0]))


def test_the_state_takes_bits_less_one_a_weight():
    signs = {"kernel": jnp.ones((64, 128), bool)}
    for bits in WIDTHS:
        state = bsojax.counter(1.0, bits).init(signs)
        assert state.levels["kernel"].nbytes == (bits - 1) * 64 * 128 // 8
        assert state.deployed is None


def test_deployed_signs_follow_where_a_weight_is_far_from_zero():
    signs = [jnp.array([True, True, True])]
    tx = bsojax.counter(1.0, 5, deploy_level=2.0)
    updates, state = tx.update([jnp.array([1.0, 3.0, 0.0])], tx.init(signs), signs)
    now = bsojax.apply_updates(signs, updates)
    assert now[0].tolist() == [False, False, True]  # at -0.5, -2.5 and 0.5
    assert bsojax.deployed_signs(state, now)[0].tolist() == [True, False, True]


def test_the_steps_of_the_recipe_shrink_with_the_run_and_end_at_zero():
    signs = {"kernel": jnp.ones((4, 3), bool)}
    tx = bsojax.calibrated_counter(total_updates=100, bits=4)
    rng = np.random.default_rng(0)
    moved, before = [], None
    gradients = [{"kernel": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)} for _ in range(130)]
    for _, state in run(tx, signs, gradients):
        levels = np.asarray(state[1].levels["kernel"])
        moved.append(before is None or not np.array_equal(levels, before))
        before = levels
    assert all(moved[:20])
    assert not any(moved[100:])
    assert np.array_equal(bsojax.deployed_signs(state, _)["kernel"], _["kernel"])  # at the end they are the same


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"step": -1.0}, "step: must be in"),
        ({"step": 1.0, "bits": 2}, "bits: must be in 3 .. 8, got 2"),
        ({"step": 1.0, "bits": 9}, "bits: must be in 3 .. 8, got 9"),
        ({"step": 1.0, "deploy_level": -0.5}, "deploy_level: must be in"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(arguments, error):
    with pytest.raises(ValueError, match=error):
        bsojax.counter(**arguments)


def test_a_state_of_other_bits_and_leaves_without_signs_are_refused():
    signs = [jnp.ones((3,), bool)]
    with pytest.raises(ValueError, match="other bits"):
        bsojax.counter(1.0, 5).update([jnp.ones(3)], bsojax.counter(1.0, 6).init(signs), signs)
    with pytest.raises(ValueError, match="holds no signs"):
        bsojax.counter(1.0).init([jnp.array([0.5])])


def test_it_learns_where_each_gradient_points_a_little():
    signs = [jnp.asarray(np.random.default_rng(0).random(2000) < 0.5)]
    rng, wanted = np.random.default_rng(1), np.random.default_rng(2).random(2000) < 0.5
    noisy = [[jnp.asarray(rng.normal(size=2000) - 0.2 * (2 * wanted - 1), jnp.float32)] for _ in range(600)]
    *_, (now, _) = run(bsojax.calibrated_counter(600, 6), signs, noisy)
    assert np.mean(np.asarray(now[0]) == wanted) > 0.99
    tx = optax.chain(bsojax.counter(0.0, 4))  # without steps nothing moves
    *_, (now, _) = run(tx, signs, noisy[:5])
    assert np.array_equal(now[0], signs[0])
