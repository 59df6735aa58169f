"""Surrogates: a step forward, a bump of unit area backward, and the numbers of the released code."""

import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bsojax

constructors = (
    bsojax.sigmoid,
    bsojax.atan,
    bsojax.piecewise_quadratic,
    bsojax.rectangle,
    bsojax.erf,
    bsojax.softsign,
)
all_surrogates = tuple(constructor(alpha) for constructor in constructors for alpha in (0.5, 1.0, 4.0))
by_golden_name = {
    "Sigmoid_a4": bsojax.sigmoid(4.0),
    "Sigmoid_a1": bsojax.sigmoid(1.0),
    "ATan_a2": bsojax.atan(2.0),
    "Erf_a2": bsojax.erf(2.0),
    "SoftSign_a2": bsojax.softsign(2.0),
    "PiecewiseQuadratic_a1": bsojax.piecewise_quadratic(1.0),
}
points = jnp.asarray([-30.0, -2.0, -0.4, -1e-3, -0.0, 0.0, 1e-3, 0.1, 0.7, 3.0, 30.0], jnp.float32)

all_alphas = pytest.mark.parametrize("surrogate", all_surrogates, ids=lambda s: f"{s.derivative.__name__}{s.alpha:g}")


def golden_files(pattern):
    tests = pathlib.Path(__file__).resolve().parent
    # Keyed by their bytes, so that a file that lies in both places is run once.
    folders = (tests.parents[1] / "shared" / "golden", tests / "golden")
    files = {path.read_bytes(): path for folder in folders for path in sorted(folder.glob(pattern))}
    return [pytest.param(path, id=f"{path.parents[1].name}-{path.stem}") for path in files.values()]


@pytest.mark.parametrize("path", golden_files("d_surrogates*.npz"))
@pytest.mark.parametrize("name", by_golden_name)
def test_agrees_with_the_released_code(path, name):
    golden = np.load(path)
    x = jnp.asarray(golden["x"])
    suffix = "grad" if f"{name}_grad" in golden else "grad_from_docstring"
    expected = golden[f"{name}_{suffix}"]
    surrogate = by_golden_name[name]
    np.testing.assert_array_equal(surrogate(x), golden[f"{name}_spike"])
    np.testing.assert_allclose(surrogate.gradient(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: surrogate(x).sum())(x), expected, rtol=1e-5, atol=1e-6)


@all_alphas
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_forward_is_the_step_function_and_one_at_zero(surrogate, dtype):
    spike = surrogate(points.astype(dtype))
    assert spike.dtype == dtype
    np.testing.assert_array_equal(spike.astype(jnp.float32), (np.asarray(points) >= 0).astype(np.float32))
    assert float(surrogate(jnp.asarray(-0.0, dtype))) == 1


@all_alphas
def test_the_bump_has_unit_area(surrogate):
    # Equal steps of s in x = sinh(s) are dense at the bump and still reach into heavy tails.
    s = np.linspace(-18, 18, 100_001)
    height = np.asarray(surrogate.gradient(jnp.asarray(np.sinh(s), jnp.float32)), np.float64)
    assert np.trapezoid(height * np.cosh(s), s) == pytest.approx(1, abs=2e-3)


@all_alphas
def test_the_bump_is_even_and_highest_at_zero(surrogate):
    x = jnp.linspace(0, 10, 501)
    right, left = surrogate.gradient(x), surrogate.gradient(-x)
    np.testing.assert_allclose(right, left, rtol=1e-5, atol=1e-6 * surrogate.alpha)
    assert float(right[0]) == float(jnp.max(right)) > 0
    assert float(jnp.min(right)) >= 0


@all_alphas
def test_alpha_sharpens_by_stretching(surrogate):
    unit = bsojax.Surrogate(surrogate.derivative, 1.0)
    stretched = surrogate.alpha * unit.gradient(surrogate.alpha * points)
    np.testing.assert_allclose(surrogate.gradient(points), stretched, rtol=1e-5, atol=1e-6)


@all_alphas
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_forward_and_reverse_derivatives_are_the_gradient(surrogate, dtype):
    x, direction = points.astype(dtype), jnp.linspace(-1, 2, points.size, dtype=dtype)
    expected = surrogate.gradient(x)
    assert expected.dtype == dtype
    spike, tangent = jax.jvp(surrogate, (x,), (direction,))
    _, pull = jax.vjp(surrogate, x)
    (cotangent,) = pull(direction)
    assert spike.dtype == tangent.dtype == cotangent.dtype == dtype
    np.testing.assert_array_equal(spike, surrogate(x))
    np.testing.assert_array_equal(tangent, expected * direction)
    np.testing.assert_array_equal(cotangent, expected * direction)
    np.testing.assert_array_equal(jax.vmap(jax.grad(surrogate))(x), expected)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_rectangle_has_width_one_over_alpha(alpha):
    half = 0.5 / alpha
    x = jnp.asarray([-1.01 * half, -0.99 * half, 0.0, 0.99 * half, 1.01 * half])
    np.testing.assert_array_equal(bsojax.rectangle(alpha).gradient(x), [0, alpha, alpha, alpha, 0])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_triangle_vanishes_beyond_one_over_alpha(alpha):
    x = jnp.asarray([-1.01, -0.5, 0.0, 0.5, 1.01]) / alpha
    expected = np.asarray([0, alpha / 2, alpha, alpha / 2, 0])
    np.testing.assert_allclose(bsojax.piecewise_quadratic(alpha).gradient(x), expected, rtol=1e-6)


@pytest.mark.parametrize("constructor", constructors)
def test_equal_surrogates_are_one_to_a_cache(constructor):
    assert constructor(2.0) == constructor(2.0)
    assert hash(constructor(2.0)) == hash(constructor(2.0))
    assert constructor(2.0) != constructor(3.0)
    assert bsojax.LIF(surrogate=constructor(2.0)) == bsojax.LIF(surrogate=constructor(2.0))
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def spike(surrogate, x):
        traces.append(surrogate)
        return surrogate(x)

    for alpha in (2.0, 2.0, 3.0):
        spike(constructor(alpha), points)
    assert traces == [constructor(2.0), constructor(3.0)]


def test_different_surrogates_differ():
    assert len({constructor(2.0) for constructor in constructors}) == len(constructors)


def test_a_derivative_of_ones_own():
    surrogate = bsojax.Surrogate(lambda x, alpha: alpha * jnp.exp(-alpha * jnp.abs(x)) / 2, 3.0)
    assert float(jax.grad(surrogate)(jnp.float32(0))) == pytest.approx(1.5)
    assert float(surrogate(jnp.float32(-0.1))) == 0


@pytest.mark.parametrize("constructor", constructors)
@pytest.mark.parametrize("alpha", [0, 0.0, -1.0, math.inf, -math.inf, math.nan])
def test_bad_alpha_raises(constructor, alpha):
    with pytest.raises(ValueError, match=r"^alpha: .*positive finite"):
        constructor(alpha)
