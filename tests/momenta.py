"""Drawn signs and gradients, and jitted runs of a momentum alone and of an optimizer that stores it in a dtype."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bsojax

T = 3
INTEGERS = {"int8": 127, "int16": 32767}
ROUNDED = ("bfloat16", *INTEGERS)
each_dtype = pytest.mark.parametrize("dtype", ["float32", *ROUNDED])
each_rounded = pytest.mark.parametrize("dtype", ROUNDED)
each_integer = pytest.mark.parametrize("dtype", INTEGERS)
equal = functools.partial(chex.assert_trees_all_equal, strict=True)


def to_float(momentum):
    """The tree of momenta as float32."""
    is_leaf = lambda leaf: isinstance(leaf, bsojax.IntegerMomentum)  # noqa: E731
    read = lambda leaf: leaf.to_float() if is_leaf(leaf) else jnp.asarray(leaf, jnp.float32)  # noqa: E731
    return jax.tree.map(read, momentum, is_leaf=is_leaf)


def draw_signs(seed=0):
    rng = np.random.default_rng(seed)
    return {"a": jnp.asarray(rng.random((2, 3, 16)) < 0.5), "b": jnp.asarray(rng.random(5) < 0.5)}


def draw_gradients(signs, *steps, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=(*steps, *leaf.shape)), jnp.float32), signs)


def at(history, step):
    return jax.tree.map(lambda leaf: leaf[step], history)


@functools.cache
def follower(dtype):
    """A jitted run of momenta alone: the momentum after each gradient as float32, and the state at the end."""

    @jax.jit
    def run(gradients, b1, seed=0, start=None):
        tx = bsojax.bso(math.inf, b1, momentum_dtype=dtype, seed=seed)
        signs = jax.tree.map(lambda leaf: jnp.ones(leaf.shape[1:], bool), gradients)

        def step(state, gradient):
            _, state = tx.update(gradient, state, signs)
            return state, to_float(state.momentum)

        state, history = jax.lax.scan(step, tx.init(signs) if start is None else start, gradients)
        return history, state

    return run


@functools.cache
def trainer(dtype, optimizer="t_bso", **options):
    """A jitted run: signs after each gradient, and the state at the end."""
    make = {"bso": bsojax.bso, "t_bso": functools.partial(bsojax.t_bso, num_steps=T, b2=0.9)}[optimizer]

    @functools.partial(jax.jit, static_argnames="b1")
    def run(threshold, b1, signs, gradients, seed=0):
        tx = make(threshold, b1=b1, momentum_dtype=dtype, seed=seed, **options)

        def step(carry, gradient):
            signs, state = carry
            deltas, state = tx.update(gradient, state, signs)
            return (bsojax.apply_updates(signs, deltas), state), signs

        (signs, state), history = jax.lax.scan(step, (signs, tx.init(signs)), gradients)
        return history, state

    return run
