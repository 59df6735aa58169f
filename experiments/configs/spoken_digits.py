"""The Free Spoken Digit Dataset as 32 x 32 log-mel spectrograms, a small SpikingVGG, T = 2, T-BSO.

Row: none of the paper's; speech that fits on a CPU (the paper's is speech-commands-vgg11).
Command: python -m experiments.train spoken-digits
Expected: the row "T-BSO, calibrated" of spoken-digits in docs/RESULTS.md; half a minute on 2 CPU cores.
"""

from experiments.config import Config

CONFIG = Config(dataset="fsdd", channels=(16, "M", 32, "M", 64, "M", 64), num_steps=2, epochs=10)
