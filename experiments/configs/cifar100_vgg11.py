"""CIFAR-100, the paper's VGG-11 and settings.

Row: CIFAR-100, VGG-11; BSO 72.15 / 72.34 / 72.57 (72.85) and T-BSO 73.40 / 73.82 / 74.27 (75.20) % at
T = 2 / 4 / 6 (12).
Command: python -m experiments.train cifar100-vgg11 --num-steps 4 (--optimizer bso; --preset calibrated for ours)
Expected: the paper's figures; not run here. Written for a GPU: on 2 CPU cores an epoch at T = 4 takes hours.
"""

import dataclasses

from experiments.configs import cifar10_vgg11

CONFIG = dataclasses.replace(cifar10_vgg11.CONFIG, dataset="cifar100")
