"""Fashion-MNIST with a SpikingMLP whose every layer is binary, T = 2: only flips and norms learn.

Row: none of the paper's; the honest test that flips do the learning, on a network without convolutions.
Command: python -m experiments.train fashion-mnist-binary
Expected: the row "T-BSO, calibrated" of fashion-mnist-binary in docs/RESULTS.md; half a minute on 2 CPU cores.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="fashion_mnist",
    network="mlp",
    channels=(256, 256),
    binary_ends=True,
    num_steps=2,
    batch_size=64,
    epochs=3,
)
