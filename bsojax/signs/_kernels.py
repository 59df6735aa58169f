"""A layer's kernel in training: the part that is differentiated, and the packed signs that it may represent."""

from collections.abc import Callable
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp

from bsojax.signs._packed import PackedSigns, is_packed, is_sign, unpack_signs
from bsojax.signs._weights import to_weights


@flax.struct.dataclass
class Kernel:
    """A kernel as a synapse sees it.

    Attributes:
      view: the floating weights or, where signs are packed, a probe of their shape whose values nothing reads. In
        either case the gradient of the weights is its gradient.
      packed: the signs at one bit each, which the synapse unpacks when it needs them; None where the view is the
        kernel.
      signs: the booleans from which the view was made, so that nothing is learned from it; None where it was made from
        numbers.
    """

    view: jax.Array
    packed: PackedSigns | None = None
    signs: jax.Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weights."""
        return self.view.shape if self.packed is None else tuple(self.packed.shape)

    @property
    def is_plain(self) -> bool:
        """Whether the view is the kernel."""
        return self.packed is None

    def weights(self, dtype: chex.ArrayDType) -> jax.Array:
        """The weights as numbers."""
        return self.view.astype(dtype) if self.packed is None else to_weights(self.packed, dtype)

    def kept(self) -> "Kernel":
        """What a backward pass must keep of it: of the probe, which is constant, only the dtype."""
        return Kernel(self.view) if self.packed is None else Kernel(self.view[:0], self.packed)

    def gradient(self, gradient: jax.Array) -> "Kernel":
        """The cotangent of this kernel, given the weights' gradient in a backward pass."""
        return Kernel(gradient.astype(self.view.dtype), None)


def as_kernel(value: Any, dtype: chex.ArrayDType) -> Kernel:
    """Returns a layer's variable, or the kernel that a user passes to a synapse, as a kernel of the given dtype."""
    if isinstance(value, Kernel):
        return value
    if is_packed(value) or is_sign(value):
        signs = unpack_signs(value)
        return Kernel(to_weights(signs, dtype), signs=signs)
    return Kernel(jnp.asarray(value).astype(dtype))


def differentiable(tree: Any, dtype: chex.ArrayDType) -> tuple[Any, Callable[[Any], Any]]:
    """Returns the tree to differentiate, and a function that converts it to the form that layers take.

    Args:
      tree: signs, packed or not, and real parameters.
      dtype: the floating dtype of the signs' gradients.

    Returns:
      The tree with boolean signs as weights of +1 and -1, and probes of zeros in place of PackedSigns; and a function
      that joins each probe with the PackedSigns that it represents.
    """
    views = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, dtype) if is_packed(leaf) else to_weights(leaf, dtype),
        tree,
        is_leaf=is_packed,
    )

    def kernels(views: Any) -> Any:
        return jax.tree.map(
            lambda leaf, view: Kernel(view, leaf) if is_packed(leaf) else view, tree, views, is_leaf=is_packed
        )

    return views, kernels
