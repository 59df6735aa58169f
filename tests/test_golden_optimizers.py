"""Golden vectors: bso and t_bso against what the authors' released code computed, after every update."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bsojax

NUM_STEPS = 4
# The short copies lie beside the tests; where the full recordings exist next to the repository they are run too.
DIRECTORIES = {
    "short": Path(__file__).resolve().parent / "golden",
    "full": Path(__file__).resolve().parents[2] / "shared" / "golden",
}
NAMES = ("a_tbso_script", "a_tbso_thr", "b_bso_thr")
RECORDINGS = tuple(
    pytest.param(directory / f"{name}.npz", id=f"{kind}-{name}")
    for kind, directory in DIRECTORIES.items()
    for name in NAMES
    if kind == "short" or (directory / f"{name}.npz").is_file()
)


def make(recording):
    threshold, b1, b2 = (float(recording[name]) for name in ("threshold", "beta1", "beta2"))
    if "v0" in recording and recording["v0"].any():
        return bsojax.t_bso(threshold, NUM_STEPS, b1=1 - b1, b2=1 - b2)
    # The recorded variant with a fixed threshold zeroes the momentum of a weight that flips.
    return bsojax.bso(threshold, b1=1 - b1, reset_on_flip=True)


def by_update(recording, letter):
    """The three tensors, with the axes (step, time step) as one axis of updates."""
    arrays = [np.asarray(recording[f"{letter}{i}"]) for i in range(3)]
    return [array.reshape(-1, *array.shape[2:]) for array in arrays]


def run(tx, signs, gradients):
    def step(carry, gradient_and_time):
        signs, state = carry
        gradient, time_step = gradient_and_time
        # bso takes no time step; as every optax transform that takes extra arguments it must let it pass.
        deltas, state = tx.update(gradient, state, signs, time_step=time_step)
        signs = bsojax.apply_updates(signs, deltas)
        return (signs, state), (signs, state)

    times = jnp.arange(len(gradients[0])) % NUM_STEPS
    (_, last), history = jax.jit(lambda *args: jax.lax.scan(step, *args))((signs, tx.init(signs)), (gradients, times))
    return last, history


@pytest.mark.parametrize("path", RECORDINGS)
def test_every_update_equals_the_released_code(path):
    with np.load(path) as archive:
        recording = dict(archive)
    signs = [jnp.asarray(recording[f"w_init{i}"] > 0) for i in range(3)]
    last, (all_signs, states) = run(make(recording), signs, [jnp.asarray(g) for g in by_update(recording, "g")])

    assert int(last.skipped) == 0
    flipped = 0
    for i, expected in enumerate(by_update(recording, "w")):
        np.testing.assert_array_equal(all_signs[i], expected > 0)
        flipped += np.count_nonzero(np.diff(expected, axis=0))
    assert flipped > 0, "a recording without flips would not test the rule"

    for momentum, expected in zip(states.momentum, by_update(recording, "m"), strict=True):
        # What cancels to almost nothing keeps the rounding of its 80 terms: a few float32 ulps of the largest entry.
        np.testing.assert_allclose(momentum, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    if hasattr(states, "second_moment"):
        for second_moment, expected in zip(states.second_moment, by_update(recording, "v"), strict=True):
            np.testing.assert_allclose(second_moment, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["a_tbso_thr", "b_bso_thr"])
def test_recordings_tell_the_two_rules_apart(name):
    # If the wrong optimizer passed too, the comparison above would prove little.
    with np.load(DIRECTORIES["short"] / f"{name}.npz") as archive:
        recording = dict(archive)
    threshold, b1 = float(recording["threshold"]), 1 - float(recording["beta1"])
    wrong = bsojax.t_bso(threshold, NUM_STEPS, b1) if name.startswith("b_") else bsojax.bso(threshold, b1)
    signs = [jnp.asarray(recording[f"w_init{i}"] > 0) for i in range(3)]
    _, (all_signs, _) = run(wrong, signs, [jnp.asarray(g) for g in by_update(recording, "g")])
    assert any(np.any(got != (want > 0)) for got, want in zip(all_signs, by_update(recording, "w"), strict=True))
