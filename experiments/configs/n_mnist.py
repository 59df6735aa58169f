"""The first 1,000 recordings of N-MNIST in 6 bins of time, a small SpikingVGG, T = 6, T-BSO.

Row: none of the paper's; an event camera's recordings that fit on a CPU (the paper's is dvs-cifar10-vgg11).
Command: python -m experiments.train n-mnist (the whole set: --dataset n_mnist)
Expected: the row "T-BSO, calibrated" of n-mnist in docs/RESULTS.md; a minute on 2 CPU cores.
"""

from experiments.config import Config

CONFIG = Config(dataset="nmnist_small", channels=("M", 16, "M", 32, 64), num_steps=6, epochs=10)
