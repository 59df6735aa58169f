"""Spiking Heidelberg Digits, a recurrent network of 256 neurons, T = 100 frames of 10 ms, T-BSO.

Row: none of the paper's.
Command: python -m experiments.train shd-recurrent
Expected: not run: the set is not on the machines that this was written on.
"""

from experiments.config import Config

CONFIG = Config(dataset="shd", network="rnn", channels=(256,), norm="shared", num_steps=100, batch_size=128, epochs=30)
