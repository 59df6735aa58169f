"""CIFAR-10 (10,000 of its images), a small SpikingVGG, T = 2, T-BSO: what a CPU can say about CIFAR-10.

Row: none of the paper's (see cifar10-vgg11).
Command: python -m experiments.train cifar10-small
Expected: the row "T-BSO, calibrated" of cifar10-small in docs/RESULTS.md; 2 minutes on 2 CPU cores.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="cifar10",
    channels=(16, "M", 32, "M", 64, 64),
    num_steps=2,
    batch_size=64,
    epochs=8,
    train_examples=10_000,
)
