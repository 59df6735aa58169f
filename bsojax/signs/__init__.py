"""Weights that are signs: booleans (True = +1, False = -1), at rest or packed, and how they are changed.

This is the only room that knows the forms in which a binary weight is held.
"""

from bsojax._validate import leaf_name as leaf_name
from bsojax.signs._kernels import as_kernel as as_kernel
from bsojax.signs._kernels import differentiable as differentiable
from bsojax.signs._kernels import Kernel as Kernel
from bsojax.signs._packed import bits_of as bits_of
from bsojax.signs._packed import count_signs as count_signs
from bsojax.signs._packed import is_packed as is_packed
from bsojax.signs._packed import is_sign as is_sign
from bsojax.signs._packed import pack_signs as pack_signs
from bsojax.signs._packed import PackedSigns as PackedSigns
from bsojax.signs._packed import signs_of as signs_of
from bsojax.signs._packed import unpack_signs as unpack_signs
from bsojax.signs._updates import apply_updates as apply_updates
from bsojax.signs._updates import check_updates as check_updates
from bsojax.signs._updates import count_flips as count_flips
from bsojax.signs._updates import deltas as deltas
from bsojax.signs._updates import deltas_like as deltas_like
from bsojax.signs._updates import deltas_of_bits as deltas_of_bits
from bsojax.signs._updates import flip_bits as flip_bits
from bsojax.signs._updates import no_flips as no_flips
from bsojax.signs._weights import to_signs as to_signs
from bsojax.signs._weights import to_weights as to_weights
from bsojax.signs._weights import value_and_grad as value_and_grad
