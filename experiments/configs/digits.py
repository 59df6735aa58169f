"""The default job: scikit-learn's handwritten digits, a small SpikingVGG, T = 4, T-BSO.

Row: none of the paper's; the job that runs anywhere.
Command: python -m experiments.train digits
Expected: see docs/results/digits.json, written by ``python -m experiments.seeds digits``.
"""

from experiments.config import Config

CONFIG = Config(dataset="digits", channels=(16, 32, "M", 64, 64))
