"""Fashion-MNIST, a SpikingVGG that a CPU trains in minutes, T = 2, T-BSO.

Row: none of the paper's; a real data set between the digits and CIFAR-10.
Command: python -m experiments.train fashion-mnist
Expected: about 5 minutes an epoch on 2 CPU cores, the control as much again; accuracy not measured yet over seeds.
"""

from experiments.config import Config

CONFIG = Config(dataset="fashion_mnist", channels=(32, "M", 64, "M", 128), num_steps=2, batch_size=64, epochs=3)
