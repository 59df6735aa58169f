"""Surrogate gradients: a spike is a step function in the forward pass and a smooth bump in the backward pass."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from bsojax import _validate

Derivative = Callable[[jax.Array, float], jax.Array]


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """A spike function: the Heaviside step forward, the derivative of a smooth step backward.

    Use one of the constructors below, or pass a derivative of your own. Two surrogates with the same derivative and
    alpha are equal and hash alike, and so do modules that hold them.

    Calling it with ``x = membrane - threshold`` returns 1 where ``x >= 0`` and 0 elsewhere, in the dtype of ``x``.

    Attributes:
      derivative: a function of ``(x, alpha)`` whose result broadcasts to x; each built-in one integrates to
        1 over x.
      alpha: the sharpness; the bump's width falls as 1/alpha and its height rises as alpha.

    Raises:
      ValueError: alpha is not positive and finite.
    """

    derivative: Derivative
    alpha: float

    def __post_init__(self) -> None:
        _validate.sharpness(self.alpha)

    def __call__(self, x: jax.Array) -> jax.Array:
        return _spike(self, x)

    def gradient(self, x: jax.Array) -> jax.Array:
        """Returns the surrogate gradient at x, of its shape and dtype."""
        return jnp.broadcast_to(jnp.asarray(self.derivative(x, self.alpha)).astype(x.dtype), x.shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _spike(surrogate: Surrogate, x: jax.Array) -> jax.Array:
    return (x >= 0).astype(x.dtype)


@_spike.defjvp
def _spike_jvp(
    surrogate: Surrogate, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return _spike(surrogate, x), surrogate.gradient(x) * tangent


def sigmoid(alpha: float = 4.0) -> Surrogate:
    """The derivative of a logistic function, ``a * s(ax) * (1 - s(ax))``; the paper's choice, with alpha 4."""
    return Surrogate(_sigmoid, alpha)


def atan(alpha: float = 2.0) -> Surrogate:
    """The derivative of an arctangent, ``a/2 / (1 + (pi/2 a x)^2)``: heavy tails, no dead neurons (Fang 2021)."""
    return Surrogate(_atan, alpha)


def piecewise_quadratic(alpha: float = 1.0) -> Surrogate:
    """A triangle of height alpha and half width 1/alpha: exactly zero outside (Esser 2016, Bellec 2018)."""
    return Surrogate(_piecewise_quadratic, alpha)


def rectangle(alpha: float = 1.0) -> Surrogate:
    """A box of height alpha and width 1/alpha: the cheapest one (Wu 2018)."""
    return Surrogate(_rectangle, alpha)


def erf(alpha: float = 2.0) -> Surrogate:
    """A Gaussian, ``a / sqrt(pi) * exp(-(ax)^2)``: the derivative of an error function."""
    return Surrogate(_erf, alpha)


def softsign(alpha: float = 2.0) -> Surrogate:
    """The derivative of a softsign, ``a / (2 (1 + |ax|)^2)``, the fast sigmoid of SuperSpike (Zenke 2018)."""
    return Surrogate(_softsign, alpha)


def _sigmoid(x: jax.Array, alpha: float) -> jax.Array:
    s = jax.nn.sigmoid(alpha * x)
    return alpha * s * (1 - s)


def _atan(x: jax.Array, alpha: float) -> jax.Array:
    return alpha / 2 / (1 + jnp.square(math.pi / 2 * alpha * x))


def _piecewise_quadratic(x: jax.Array, alpha: float) -> jax.Array:
    return alpha * jnp.maximum(0, 1 - jnp.abs(alpha * x))


def _rectangle(x: jax.Array, alpha: float) -> jax.Array:
    return alpha * (jnp.abs(alpha * x) < 0.5)


def _erf(x: jax.Array, alpha: float) -> jax.Array:
    return alpha / math.sqrt(math.pi) * jnp.exp(-jnp.square(alpha * x))


def _softsign(x: jax.Array, alpha: float) -> jax.Array:
    return alpha / 2 / jnp.square(1 + jnp.abs(alpha * x))
