"""ImageNet, ResNet-18, the second of the paper's two phases: 30 epochs at T = 4 (6), flips nearly at rest.

Row: ImageNet, ResNet-18; T-BSO 57.76 / 58.86 % at T = 4 / 6.
Command: python -m experiments.train imagenet-resnet18-phase2 --start runs/imagenet-1/model.bsojax (--num-steps 6)
Expected: the paper's figures; not run here. Written for a GPU.
"""

import dataclasses

from experiments.configs import imagenet_resnet18

CONFIG = dataclasses.replace(imagenet_resnet18.CONFIG, num_steps=4, epochs=30, threshold=1e-11, b1=1 - 1e-8)
