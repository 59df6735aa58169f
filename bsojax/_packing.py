"""Signs at rest: eight to a byte."""

import math
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np

from bsojax._kinds import ARRAYS, is_int


@flax.struct.dataclass
class PackedSigns:
    """Signs at one bit a weight.

    Attributes:
      bits: uint8 of shape ``(ceil(size / 8),)``: the raveled signs, eight a byte, the first in the highest bit, the
        last byte filled with zeros.
      shape: the shape of the signs (not traced).
    """

    bits: jax.Array
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)


def is_packed(node: Any) -> bool:
    """Whether a node of a tree is PackedSigns."""
    return isinstance(node, PackedSigns)


def is_sign(leaf: Any) -> bool:
    """Whether a leaf is a sign leaf, that is, a boolean array."""
    return getattr(leaf, "dtype", None) == jnp.bool_


def sign_counts(tree: Any) -> list[int]:
    """Returns how many signs each sign leaf of a tree holds, packed or not."""
    leaves = jax.tree.leaves(tree, is_leaf=is_packed)
    return [math.prod(leaf.shape) for leaf in leaves if is_sign(leaf) or is_packed(leaf)]


def is_shape(shape: Any) -> bool:
    """Whether something is the shape of an array; files give lists back."""
    return isinstance(shape, tuple | list) and all(is_int(size) and size >= 0 for size in shape)


def pack_signs(signs: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the tree with every boolean leaf packed to one bit a weight, as :class:`PackedSigns`.

    Use it to store or ship a network. Other leaves pass through. Exact for every shape, scalars and empty arrays too.
    """

    def pack(leaf: Any) -> Any:
        if not is_sign(leaf):
            return leaf
        return PackedSigns(jnp.packbits(jnp.ravel(leaf)), tuple(np.shape(leaf)))

    return jax.tree.map(pack, signs)


def unpack_signs(packed: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the tree with every :class:`PackedSigns` as the boolean array it came from; the inverse of pack_signs.

    Raises:
      ValueError: the number of bytes does not fit the shape.
    """

    def unpack(leaf: Any) -> Any:
        if not is_packed(leaf):
            return leaf
        bits: Any = leaf.bits
        if not isinstance(bits, ARRAYS) or not is_shape(leaf.shape):
            raise ValueError(f"packed: needs an array of bytes and a shape, not {bits!r} and {leaf.shape!r}.")
        size = math.prod(leaf.shape)
        expected = ((size + 7) // 8,)
        if leaf.bits.shape != expected or leaf.bits.dtype != jnp.uint8:
            raise ValueError(
                f"packed: signs of shape {leaf.shape} take uint8{list(expected)}, not "
                f"{leaf.bits.dtype}{list(leaf.bits.shape)}; was the array cut or converted?"
            )
        return jnp.unpackbits(jnp.asarray(bits), count=size).astype(bool).reshape(leaf.shape)

    return jax.tree.map(unpack, packed, is_leaf=is_packed)
