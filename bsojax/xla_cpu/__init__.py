"""What makes XLA on a CPU fast and small; on other platforms these functions are the plain ones.

Each function names the issue or the measurement that made it necessary. ``with plain():`` turns all of them off for
whatever is traced inside, to see what they still gain with another version of XLA, or to find the cause of a fault.
"""

from bsojax.xla_cpu._convolutions import convolve as convolve
from bsojax.xla_cpu._convolutions import ConvGeometry as ConvGeometry
from bsojax.xla_cpu._gradients import conv_gradients as conv_gradients
from bsojax.xla_cpu._order import in_place as in_place
from bsojax.xla_cpu._order import not_before as not_before
from bsojax.xla_cpu._popcount import convolve_signs as convolve_signs
from bsojax.xla_cpu._popcount import multiply_signs as multiply_signs
from bsojax.xla_cpu._switch import plain as plain
from bsojax.xla_cpu._transposed import convolve_transposed as convolve_transposed
from bsojax.xla_cpu._transposed import transposed_gradients as transposed_gradients
