"""The handwritten digits with every layer binary: only flips and norms learn.

Row: none of the paper's; the honest test that flips do the learning.
Command: python -m experiments.train digits-binary
Expected: not measured over seeds (fashion-mnist-binary is); half a minute on 2 CPU cores.
"""

import dataclasses

from experiments.configs import digits

CONFIG = dataclasses.replace(digits.CONFIG, binary_ends=True)
