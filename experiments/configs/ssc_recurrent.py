"""Spiking Speech Commands, two recurrent layers of 512 neurons, T = 100 frames of 10 ms, T-BSO.

Row: none of the paper's.
Command: python -m experiments.train ssc-recurrent
Expected: not run: the set is not on the machines that this was written on.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="ssc", network="rnn", channels=(512, 512), norm="shared", num_steps=100, batch_size=256, epochs=20
)
