"""Synapses: products of spikes and weights whose weight gradient is taken at the presynaptic trace (eq. 6).

A synapse computes ``value * kernel``. In the backward pass, the gradient of the value is the ordinary one, and the
gradient of the kernel is the ordinary one with the trace in place of the value.
"""

from typing import Any

import jax

from bsojax.nn._spikes import Spikes, as_spikes
from bsojax.signs import Kernel, as_kernel
from bsojax.xla_cpu import multiply_signs, not_before

Residuals = tuple[jax.Array, Kernel]


def dense(x: Spikes | jax.Array, kernel: Any) -> jax.Array:
    """Returns ``value @ kernel``, with the kernel's gradient taken at the trace.

    Use it in layers of your own; BinaryDense and Dense are built on it.

    Args:
      x: Spikes or a floating array of shape ``(..., in)``.
      kernel: shape ``(in, out)``: numbers, which are cast to the dtype of x, or signs, packed or not.

    Returns:
      The current, of shape ``(..., out)``.
    """
    spikes = as_spikes(x)
    value, trace = spikes.value, spikes.trace
    kernel = as_kernel(kernel, value.dtype)
    if trace is None and kernel.is_plain:
        return _product(value, kernel)
    return _dense(value, value if trace is None else trace, kernel)


def _product(value: jax.Array, kernel: Kernel) -> jax.Array:
    return value @ kernel.weights(value.dtype) if kernel.signs is None else multiply_signs(value, kernel.signs)


@jax.custom_vjp
def _dense(value: jax.Array, trace: jax.Array, kernel: Kernel) -> jax.Array:
    return _product(value, kernel)


def _dense_forward(value: jax.Array, trace: jax.Array, kernel: Kernel) -> tuple[jax.Array, Residuals]:
    return _dense(value, trace, kernel), (trace, kernel.kept())


def _dense_backward(residuals: Residuals, g: jax.Array) -> tuple[jax.Array, None, Kernel]:
    trace, kernel = residuals

    def gradients(trace: jax.Array, kernel: Kernel, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = trace.reshape(-1, trace.shape[-1]), g.reshape(-1, g.shape[-1])
        return g @ kernel.weights(trace.dtype).T, rows[0].T @ rows[1]

    if kernel.is_plain:
        value_grad, kernel_grad = gradients(trace, kernel, g)
    else:  # unpacked only once the gradient is there
        value_grad, kernel_grad = not_before(g, gradients, trace, kernel, g)
    return value_grad, None, kernel.gradient(kernel_grad)


_dense.defvjp(_dense_forward, _dense_backward)
