"""Networks of the paper."""

from bsojax.models._mlp import SpikingMLP as SpikingMLP
from bsojax.models._recurrent import SpikingRNN as SpikingRNN
from bsojax.models._resnet import cifar_stem as cifar_stem
from bsojax.models._resnet import imagenet_stem as imagenet_stem
from bsojax.models._resnet import SpikingResNet as SpikingResNet
from bsojax.models._vgg import SpikingVGG as SpikingVGG
from bsojax.models._vgg import VGG11 as VGG11
