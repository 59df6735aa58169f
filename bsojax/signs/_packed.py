"""Signs at rest: eight to a byte."""

import json
import math
from typing import Any

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np

from bsojax import _validate


@flax.struct.dataclass
class PackedSigns:
    """Signs at one bit per weight.

    Attributes:
      bits: uint8 of shape ``(ceil(size / 8),)``: the raveled signs, eight per byte, the first in the highest bit, the
        last byte padded with zeros.
      shape: the shape of the signs (not traced).
    """

    bits: jax.Array
    shape: tuple[int, ...] = flax.struct.field(pytree_node=False)


jax.export.register_pytree_node_serialization(
    PackedSigns,
    serialized_name="bsojax.PackedSigns",
    serialize_auxdata=lambda aux: json.dumps(aux).encode(),
    deserialize_auxdata=lambda text: tuple(tuple(shape) for shape in json.loads(text)),
)  # exported programs may take packed signs as arguments


def is_packed(node: Any) -> bool:
    """Whether a node of a tree is PackedSigns."""
    return isinstance(node, PackedSigns)


def is_sign(leaf: Any) -> bool:
    """Whether a leaf is a sign leaf, that is, a boolean array."""
    return bool(getattr(leaf, "dtype", None) == jnp.bool_)


def count_signs(tree: chex.ArrayTree) -> int:
    """Returns the number of signs in a tree, packed or not."""
    leaves = jax.tree.leaves(tree, is_leaf=is_packed)
    return sum(math.prod(leaf.shape) for leaf in leaves if is_sign(leaf) or is_packed(leaf))


def pack_signs(signs: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the tree with every boolean leaf packed to one bit per weight, as :class:`PackedSigns`.

    Use it to store or ship a network. Other leaves pass through. It is exact for every shape, including scalars and
    empty arrays.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> packed = bsojax.pack_signs({"kernel": jnp.ones((3, 3, 64, 128), bool)})
      >>> packed["kernel"].shape, packed["kernel"].bits.nbytes
      ((3, 3, 64, 128), 9216)
    """
    return jax.tree.map(
        lambda leaf: PackedSigns(bits_of(leaf), tuple(np.shape(leaf))) if is_sign(leaf) else leaf,
        signs,
        is_leaf=is_packed,
    )


def unpack_signs(packed: chex.ArrayTree) -> chex.ArrayTree:
    """Returns the tree with every :class:`PackedSigns` as the boolean array it came from; the inverse of pack_signs.

    Raises:
      ValueError: the number of bytes does not match the shape.
    """
    return jax.tree.map(lambda leaf: _unpacked(leaf) if is_packed(leaf) else leaf, packed, is_leaf=is_packed)


def bits_of(leaf: jax.Array | PackedSigns) -> jax.Array:
    """Returns the packed bits of a sign leaf, or of any boolean array."""
    return leaf.bits if isinstance(leaf, PackedSigns) else jnp.packbits(jnp.ravel(leaf))


def signs_of(bits: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns the boolean array of the given shape that was packed into bits."""
    return jnp.unpackbits(jnp.asarray(bits), count=math.prod(shape)).astype(bool).reshape(shape)


def _unpacked(leaf: PackedSigns) -> jax.Array:
    shape = tuple(leaf.shape)  # files return lists
    _validate.packed(leaf.bits, shape)
    return signs_of(leaf.bits, shape)
