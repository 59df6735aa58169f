"""The default job: scikit-learn's handwritten digits, a small SpikingVGG, T = 4, T-BSO.

Row: none of the paper's; the job that runs anywhere.
Command: python -m experiments.train digits
Expected: the row "T-BSO, calibrated" of digits in docs/RESULTS.md; half a minute on 2 CPU cores.
"""

from experiments.config import Config

CONFIG = Config(dataset="digits", channels=(16, 32, "M", 64, 64))
