"""A layer's kernel in training: what is differentiated, and the packed signs that it may stand for."""

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
      view: the floating weights; or, beside packed signs, a probe of their shape whose values nothing reads. In either
        case the gradient of the weights is its gradient.
      packed: the signs at one bit each, which the synapse unpacks when it needs them; None: the view is the kernel.
      signs: booleans of which the view was made, so that nothing is learned of it; None: it was made of numbers.
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
        """What a backward pass must keep of it: not the probe, a constant, but for its dtype."""
        return Kernel(self.view) if self.packed is None else Kernel(self.view[:0], self.packed)

    def gradient(self, gradient: jax.Array) -> "Kernel":
        """The cotangent of this kernel, of which a backward pass has the weights' gradient."""
        return Kernel(gradient.astype(self.view.dtype), None)


def as_kernel(value: Any, dtype: chex.ArrayDType) -> Kernel:
    """Returns what a layer finds in its variable, or a user hands to a synapse, as a kernel of a dtype."""
    if isinstance(value, Kernel):
        return value
    if is_packed(value) or is_sign(value):
        signs = unpack_signs(value)
        return Kernel(to_weights(signs, dtype), signs=signs)
    return Kernel(jnp.asarray(value).astype(dtype))


def differentiable(tree: Any, dtype: chex.ArrayDType) -> tuple[Any, Callable[[Any], Any]]:
    """Returns the tree to take gradients for, and a function that makes of it what layers take.

    Args:
      tree: signs, packed or not, and real parameters.
      dtype: the floating dtype of the signs' gradients.

    Returns:
      The tree with boolean signs as weights of +1 and -1, and probes of zeros in the place of PackedSigns; and what
      puts each probe together with the PackedSigns that it stands for.
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
