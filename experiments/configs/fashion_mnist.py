"""Fashion-MNIST (10,000 of its images), a SpikingVGG that a CPU trains in a minute, T = 2, T-BSO.

Row: none of the paper's; a real data set between the digits and CIFAR-10.
Command: python -m experiments.train fashion-mnist (all images: --train-examples 60000)
Expected: the row "T-BSO, calibrated" of fashion-mnist in docs/RESULTS.md; a minute on 2 CPU cores.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="fashion_mnist",
    channels=(16, "M", 32, "M", 64, "M", 64),
    num_steps=2,
    batch_size=64,
    epochs=4,
    train_examples=10_000,
)
