"""Synapses: products of spikes and weights whose weight gradient is taken at the presynaptic trace (eq. 6).

A synapse computes ``value * kernel``. Backward, the gradient of the value is the ordinary one, and the gradient of the
kernel is the ordinary one with the trace in the place of the value.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from bsojax._compiler import not_before
from bsojax._geometry import ConvGeometry
from bsojax._kinds import check_array, check_floating
from bsojax._packing import PackedSigns
from bsojax._rows import convolve_rows, is_better_by_rows, kernel_gradient
from bsojax._signs import SignKernel, to_weights
from bsojax._spikes import Spikes, check_spikes


def dense(x: Spikes | jax.Array, kernel: jax.Array | SignKernel) -> jax.Array:
    """Returns ``value @ kernel``, with the kernel's gradient taken at the trace.

    Args:
      x: Spikes or an array of shape ``(..., in)``.
      kernel: shape ``(in, out)``; it is cast to the dtype of x.

    Returns:
      The current, of shape ``(..., out)``.

    Raises:
      TypeError: x or kernel is no floating array.
      ValueError: their shapes do not fit.
    """
    value, trace = check_spikes("x", x)
    shape = _kernel_shape(kernel, 2)
    check_floating("x", value)
    if value.ndim < 1 or value.shape[-1] != shape[0]:
        raise ValueError(f"x: a kernel of shape {shape} needs {shape[0]} channels last, got shape {value.shape}.")
    if isinstance(kernel, SignKernel):
        return _dense_of_signs(value, value if trace is None else trace, *kernel)
    kernel = kernel.astype(value.dtype)
    return value @ kernel if trace is None else _dense(value, trace, kernel)


def _kernel_shape(kernel: jax.Array | SignKernel, ndim: int) -> tuple[int, ...]:
    if not isinstance(kernel, SignKernel):
        check_array("kernel", kernel)
        if not any(jnp.issubdtype(kernel.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            raise TypeError(f"kernel: needs real numbers, not {kernel.dtype}; bsojax.to_weights converts signs.")
    shape = kernel.packed.shape if isinstance(kernel, SignKernel) else kernel.shape
    if len(shape) != ndim or 0 in shape:
        raise ValueError(f"kernel: needs {ndim} axes, none of them empty, got shape {shape}.")
    return shape


@jax.custom_vjp
def _dense(value: jax.Array, trace: jax.Array, kernel: jax.Array) -> jax.Array:
    return value @ kernel


def _dense_forward(
    value: jax.Array, trace: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return value @ kernel, (trace, kernel)


def _dense_backward(residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    trace, kernel = residuals
    rows = trace.reshape(-1, trace.shape[-1]), g.reshape(-1, g.shape[-1])
    return g @ kernel.T, None, rows[0].T @ rows[1]


_dense.defvjp(_dense_forward, _dense_backward)


@jax.custom_vjp
def _dense_of_signs(value: jax.Array, trace: jax.Array, packed: PackedSigns, probe: jax.Array) -> jax.Array:
    return value @ to_weights(packed, value.dtype)


def _dense_of_signs_forward(
    value: jax.Array, trace: jax.Array, packed: PackedSigns, probe: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, PackedSigns, jax.Array]]:
    # The probe is a constant, and stored for its dtype alone.
    return _dense_of_signs(value, trace, packed, probe), (trace, packed, probe[:0])


def _dense_of_signs_backward(
    residuals: tuple[jax.Array, PackedSigns, jax.Array], g: jax.Array
) -> tuple[jax.Array, None, None, jax.Array]:
    trace, packed, probe = residuals

    def gradients(trace: jax.Array, packed: PackedSigns, g: jax.Array) -> tuple[jax.Array, None, jax.Array]:
        return _dense_backward((trace, to_weights(packed, trace.dtype)), g)

    value_grad, _, kernel_grad = not_before(g, gradients, trace, packed, g)
    return value_grad, None, None, kernel_grad.astype(probe.dtype)


_dense_of_signs.defvjp(_dense_of_signs_forward, _dense_of_signs_backward)


def conv(x: Spikes | jax.Array, kernel: jax.Array | SignKernel, geometry: ConvGeometry) -> jax.Array:
    """Returns the convolution of value and kernel, with the kernel's gradient taken at the trace.

    Both backward passes are written as forward convolutions where the groups allow: inside ``lax.scan`` on a CPU, XLA
    runs its own backward convolutions some hundred times slower (jax issue 12868).

    Args:
      x: Spikes or an array of shape ``(batch, height, width, channels)``.
      kernel: shape ``(height, width, channels // groups, out)``; it is cast to the dtype of x.
      geometry: see conv_geometry.

    Returns:
      The current, of shape ``(batch, height', width', out)``.

    Raises:
      TypeError: x or kernel is no floating array.
      ValueError: their shapes do not fit.
    """
    value, trace = check_spikes("x", x)
    shape = _kernel_shape(kernel, 4)
    check_floating("x", value)
    if not isinstance(geometry, ConvGeometry):
        raise TypeError(f"geometry: needs a ConvGeometry, not {geometry!r}.")
    if value.ndim != 4 or value.shape[-1] != shape[2] * geometry.groups or shape[3] % geometry.groups:
        raise ValueError(
            f"x: a kernel of shape {shape} in {geometry.groups} groups needs (batch, height, width, "
            f"{shape[2] * geometry.groups}), got shape {value.shape}."
        )
    if isinstance(kernel, SignKernel):
        return _conv_of_signs(geometry, value, value if trace is None else trace, *kernel)
    return _conv(geometry, value, value if trace is None else trace, kernel.astype(value.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(geometry: ConvGeometry, value: jax.Array, trace: jax.Array, kernel: jax.Array) -> jax.Array:
    return _plain_conv(geometry, value, kernel)


def _conv_forward(
    geometry: ConvGeometry, value: jax.Array, trace: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _plain_conv(geometry, value, kernel), (trace, kernel)


def _conv_backward(
    geometry: ConvGeometry, residuals: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, None, jax.Array]:
    value_grad, kernel_grad = _conv_gradients(geometry, *residuals, g)
    return value_grad, None, kernel_grad


_conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_of_signs(
    geometry: ConvGeometry, value: jax.Array, trace: jax.Array, packed: PackedSigns, probe: jax.Array
) -> jax.Array:
    return _plain_conv(geometry, value, to_weights(packed, value.dtype))


def _conv_of_signs_forward(
    geometry: ConvGeometry, value: jax.Array, trace: jax.Array, packed: PackedSigns, probe: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, PackedSigns, jax.Array]]:
    return _conv_of_signs(geometry, value, trace, packed, probe), (trace, packed, probe[:0])


def _conv_of_signs_backward(
    geometry: ConvGeometry, residuals: tuple[jax.Array, PackedSigns, jax.Array], g: jax.Array
) -> tuple[jax.Array, None, None, jax.Array]:
    trace, packed, probe = residuals
    value_grad, kernel_grad = _conv_gradients(geometry, trace, packed, g)
    return value_grad, None, None, kernel_grad.astype(probe.dtype)


_conv_of_signs.defvjp(_conv_of_signs_forward, _conv_of_signs_backward)


def _conv_gradients(
    geometry: ConvGeometry, trace: jax.Array, kernel: jax.Array | PackedSigns, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients of value and kernel; packed signs are unpacked when the gradient is there, and not before."""

    def by(gradients: Callable[..., tuple[jax.Array, jax.Array]]) -> Callable[..., tuple[jax.Array, jax.Array]]:
        return lambda trace, kernel, g: gradients(geometry, trace, to_weights(kernel, trace.dtype), g)

    def when_needed(trace: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return not_before(g, by(_backward_by_convolution), trace, kernel, g)

    by_transposition = by(_backward_by_transposition)
    if geometry.groups > 1:
        return by_transposition(trace, kernel, g)
    return lax.platform_dependent(trace, kernel, g, cpu=when_needed, default=by_transposition)


def _backward_by_transposition(
    geometry: ConvGeometry, trace: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The gradients of value and kernel as XLA derives them: the reference."""
    static = (geometry.strides, geometry.padding, geometry.dilation, geometry.groups)
    of_value = jax.linear_transpose(lambda value: _convolve(value, kernel, *static), trace)
    of_kernel = jax.linear_transpose(lambda weights: _convolve(trace, weights, *static), kernel)
    return of_value(g)[0], of_kernel(g)[0]


def _backward_by_convolution(
    geometry: ConvGeometry, trace: jax.Array, kernel: jax.Array, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The same gradients as two ordinary forward convolutions, for one group.

    The operands are transposed behind a barrier, or XLA would fold the transposition back into the slow form. Strides
    become zeros between the elements of g.
    """
    (sh, sw), (dh, dw) = geometry.strides, geometry.dilation
    none = jnp.zeros((), g.dtype)
    spread = g if (sh, sw) == (1, 1) else lax.pad(g, none, ((0, 0, 0), (0, 0, sh - 1), (0, 0, sw - 1), (0, 0, 0)))
    reach = ((kernel.shape[0] - 1) * dh, (kernel.shape[1] - 1) * dw)
    # Rows that the last window did not reach: they get no gradient, but the shapes must agree.
    rest = [
        trace.shape[1 + axis] + sum(geometry.padding[axis]) - reach[axis] - spread.shape[1 + axis] for axis in (0, 1)
    ]
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    value_padding = [
        (reach[axis] - geometry.padding[axis][0], reach[axis] - geometry.padding[axis][1] + rest[axis])
        for axis in (0, 1)
    ]
    value_grad = _convolve_on_cpu(spread, flipped, (1, 1), value_padding, (dh, dw))
    by_rows = kernel_gradient(trace, g, kernel.shape, geometry.padding) if _is_simple(geometry) else None
    if by_rows is not None:
        return value_grad, by_rows
    images, errors = lax.optimization_barrier((trace.transpose(3, 1, 2, 0), spread.transpose(1, 2, 0, 3)))
    kernel_padding = [(before, after - rest[axis]) for axis, (before, after) in enumerate(geometry.padding)]
    kernel_grad = _convolve(images, errors, (dh, dw), kernel_padding, (1, 1))
    return value_grad, kernel_grad.transpose(1, 2, 0, 3)


def _plain_conv(geometry: ConvGeometry, value: jax.Array, kernel: jax.Array) -> jax.Array:
    static = (geometry.strides, geometry.padding, geometry.dilation, geometry.groups)
    return lax.platform_dependent(
        value,
        kernel,
        cpu=lambda value, kernel: _convolve_on_cpu(value, kernel, *static),
        default=lambda value, kernel: _convolve(value, kernel, *static),
    )


def _is_simple(geometry: ConvGeometry) -> bool:
    steps = geometry.strides == geometry.dilation == (1, 1)
    return steps and geometry.groups == 1 and all(min(side) >= 0 for side in geometry.padding)


def _convolve_on_cpu(
    image: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Sequence[tuple[int, int]],
    dilation: tuple[int, int],
    groups: int = 1,
) -> jax.Array:
    geometry = ConvGeometry(strides, (padding[0], padding[1]), dilation, groups)
    if _is_simple(geometry) and is_better_by_rows(image.shape, kernel.shape):
        return convolve_rows(image, kernel, geometry.padding)
    return _convolve(image, kernel, strides, padding, dilation, groups)


def _convolve(
    image: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int],
    padding: Sequence[tuple[int, int]],
    dilation: tuple[int, int],
    groups: int = 1,
) -> jax.Array:
    if any(min(side) < 0 for side in padding):
        # By hand: where a negative padding before an axis meets a positive one after it, XLA's convolution on a CPU
        # reads past the image (jaxlib 0.10). Padded first, then cropped: the crop may be wider than the image.
        for bound in (max, min):
            sides = [(bound(before, 0), bound(after, 0), 0) for before, after in padding]
            image = lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), *sides, (0, 0, 0)))
        padding = [(0, 0), (0, 0)]
    return lax.conv_general_dilated(
        image,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
