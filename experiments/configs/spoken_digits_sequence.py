"""The Free Spoken Digit Dataset frame by frame at full length, a recurrent network, T = 32, T-BSO.

Row: none of the paper's; sequences of unequal length, padded, with a mask.
Command: python -m experiments.train spoken-digits-sequence
Expected: 93.7 % of the 300 test recordings, and 96.3 % with frozen signs, whose random recurrence is as good a
  reservoir here (seed 0; 95.3 % with seeds 1 and 2); with Adam and fewer neurons examples/recurrent_speech.py gains
  from flips. A minute on 2 CPU cores.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="fsdd_sequence", network="rnn", channels=(256,), norm="shared", num_steps=32, epochs=10, learning_rate=0.3
)
