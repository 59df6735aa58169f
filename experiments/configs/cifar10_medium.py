"""CIFAR-10, all 50,000 images, a SpikingVGG that two cores train in some hours, T = 2, crop and flip, T-BSO.

Row: none of the paper's (see cifar10-vgg11, which is thirty times as much work).
Command: python -m experiments.train cifar10-medium
Expected: the row "T-BSO, calibrated" of cifar10-medium in docs/RESULTS.md; forty minutes on one core,
without its control.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="cifar10",
    channels=(32, "M", 64, "M", 64, "M", 128),
    num_steps=2,
    batch_size=128,
    epochs=20,
)
