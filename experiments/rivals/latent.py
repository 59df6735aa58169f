"""Latent weights: the float32 copy behind every sign that binary networks are usually trained with."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import bsojax


class LatentState(NamedTuple):
    """The state of latent_weights.

    Attributes:
      latent: float32 tree like the signs, whose signs they are.
      inner: the state of the inner optimizer.
      count: int32, the number of calls of update.
      average: float32 tree, the moving average of the latent weights; None without one.
      deployed: its signs, those to evaluate, as PackedSigns; None without one.
    """

    latent: optax.Params
    inner: optax.OptState
    count: jax.Array | None = None  # type: ignore[assignment]  # shadows tuple.count, as optax states do
    average: optax.Params | None = None
    deployed: optax.Params | None = None


def latent_weights(
    inner: optax.GradientTransformation, *, clip: float = 1.0, average: float = 0.0, seed: int = 0
) -> optax.GradientTransformationExtraArgs:
    """Trains signs by a float32 latent weight each, through a straight-through estimator (Courbariaux et al., 2015).

    The gradient at the sign is used as the gradient at the latent weight; the inner optimizer moves the latent weight,
    which is clipped, and the sign follows it. As a transform of signs it replaces ``bsojax.bso``, so that models, loops
    and memory reports are the same for both; its cost is in its state.

    Args:
      inner: any optax optimizer, of the latent weights.
      clip: latent weights are kept in ``[-clip, clip]``; beyond it the estimator's gradient would be zero.
      average: decay of a moving average of the latent weights, whose signs are evaluated instead of those that are
        trained; 0: no average.
      seed: of the latent weights' first magnitudes, uniform in ``[0, 1 / sqrt(fan_in))``, capped at clip.

    Raises:
      ValueError: at update, the signs are missing; clip is not positive.
    """
    if not clip > 0:
        raise ValueError(f"clip: must be > 0, got {clip}.")
    inner = optax.with_extra_args_support(inner)

    def init_fn(signs: optax.Params) -> LatentState:
        leaves, structure = jax.tree.flatten(signs)
        keys = jax.random.split(jax.random.key(seed), max(len(leaves), 1))
        latent = [
            weight * _magnitudes(key, weight.shape, clip)
            for key, weight in zip(keys, jax.tree.leaves(bsojax.to_weights(leaves)), strict=False)
        ]
        tree = jax.tree.unflatten(structure, latent)
        state = LatentState(tree, inner.init(tree))
        if not average:
            return state
        zero, deployed = jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, bsojax.pack_signs(signs))
        return state._replace(count=zero, average=jax.tree.map(jnp.copy, tree), deployed=deployed)

    def update_fn(
        grads: optax.Updates, state: LatentState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, LatentState]:
        if params is None:
            raise ValueError("params: latent_weights needs the current signs, as in tx.update(grads, state, signs).")
        updates, inner_state = inner.update(grads, state.inner, state.latent, **extra_args)
        latent = jax.tree.map(lambda leaf: jnp.clip(leaf, -clip, clip), optax.apply_updates(state.latent, updates))
        deltas = jax.tree.map(lambda sign, leaf: (leaf >= 0).astype(jnp.int8) - sign.astype(jnp.int8), params, latent)
        state = state._replace(latent=latent, inner=inner_state)
        if average and state.count is not None:
            # A mean of all at first, so that the weights that were drawn are soon gone.
            share = jnp.maximum(1 - average, 1 / (1 + state.count.astype(jnp.float32)))
            mean = jax.tree.map(lambda old, leaf: old + share * (leaf - old), state.average, latent)
            deployed = bsojax.pack_signs(bsojax.to_signs(mean))
            state = state._replace(count=state.count + 1, average=mean, deployed=deployed)
        return deltas, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _magnitudes(key: jax.Array, shape: tuple[int, ...], clip: float) -> jax.Array:
    bound = min(1 / math.sqrt(max(math.prod(shape[:-1]), 1)), clip)
    return jax.random.uniform(key, shape, jnp.float32, 0.0, bound)
