"""CIFAR10-DVS, the paper's VGG-11 on 2-channel frames of 48 x 48, T = 10.

Row: DVS-CIFAR10, VGG-11; BSO 80.60, T-BSO 81.00 % at T = 10.
Command: python -m experiments.train dvs-cifar10-vgg11 (--optimizer bso; --preset calibrated for ours)
Expected: the paper's figures; not run here. Written for a GPU.
"""

import dataclasses

from experiments.configs import cifar10_vgg11

CONFIG = dataclasses.replace(cifar10_vgg11.CONFIG, dataset="cifar10_dvs", num_steps=10, threshold=1e-6)
