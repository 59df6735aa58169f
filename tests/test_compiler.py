"""What the compiler does not see through has the plain values; that it saves memory is shown in test_memory.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsojax.xla_cpu import in_place, not_before

X = jnp.asarray(np.random.default_rng(0).standard_normal((64, 256)), jnp.float32)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("first", [0.0, -0.0, 1.0, -3.0, np.nan, np.inf])
def test_both_always_run(dtype, first):
    x = X.astype(dtype).at[0, 0].set(first)
    updated = jax.jit(lambda x: in_place(lambda state, other: 2 * state + other, x, x))(x)
    np.testing.assert_array_equal(*(jnp.float32(value) for value in (updated, 2 * x + x)))
    shifted = jax.jit(lambda x: not_before(x, lambda y: {"sum": y + 1, "count": jnp.sum(y > 0)}, x))(x)
    np.testing.assert_array_equal(*(jnp.float32(value) for value in (shifted["sum"], x + 1)))
    assert int(shifted["count"]) == int(jnp.sum(x > 0))


def test_under_vmap_too():
    np.testing.assert_array_equal(jax.vmap(lambda x: in_place(jnp.add, x, x))(X), 2 * X)
    np.testing.assert_array_equal(jax.vmap(lambda x: not_before(x, jnp.cumsum, x))(X), jnp.cumsum(X, 1))
