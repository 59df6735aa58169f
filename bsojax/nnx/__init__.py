"""A bridge to Flax NNX: networks of this library within NNX models, and NNX models trained one time step at a time.

Import it separately, ``import bsojax.nnx``, so that those who use only Linen need not wait for NNX.
"""

from bsojax.nnx._network import Network as Network
from bsojax.nnx._network import Neurons as Neurons
from bsojax.nnx._network import Signs as Signs
from bsojax.nnx._training import Optimizer as Optimizer
from bsojax.nnx._training import trainable as trainable
from bsojax.nnx._training import value_and_grad as value_and_grad
