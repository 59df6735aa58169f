"""Networks of the paper."""

from bsojax.models._mlp import SpikingMLP as SpikingMLP
from bsojax.models._vgg import SpikingVGG as SpikingVGG
from bsojax.models._vgg import VGG11 as VGG11
