"""Google Speech Commands, 12 classes, as 32 x 32 log-mel spectrograms, the paper's VGG-11, T = 4.

Row: Google Speech Commands, VGG-11; T-BSO 96.12 % at T = 4.
Command: python -m experiments.train speech-commands-vgg11 (--preset calibrated for ours)
Expected: the paper's figure; not run here. Written for a GPU.
"""

import dataclasses

from experiments.configs import cifar10_vgg11

CONFIG = dataclasses.replace(cifar10_vgg11.CONFIG, dataset="speech_commands_12")
