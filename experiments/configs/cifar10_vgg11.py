"""CIFAR-10, the paper's VGG-11 and settings.

Row: CIFAR-10, VGG-11; BSO 93.30 / 93.45 / 92.98 and T-BSO 94.32 / 94.86 / 94.70 % at T = 2 / 4 / 6.
Command: python -m experiments.train cifar10-vgg11 --num-steps 4 (--optimizer bso; --preset calibrated for ours)
Expected: the paper's figures; not run here. Written for a GPU: on 2 CPU cores an epoch at T = 4 takes hours.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="cifar10",
    channels=(64, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512),
    preset="paper",
    threshold=5e-7,
    batch_size=128,
    epochs=400,
    control=False,
)
