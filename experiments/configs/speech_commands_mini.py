"""1,200 clips of Google Speech Commands as 32 x 32 log-mel spectrograms, the network of spoken-digits, T = 2, T-BSO.

Row: none of the paper's. No setting of any rule was chosen on this set: it shows what a set that nobody has tuned for
sees. It consists of 100 clips for each of 12 classes, split by speaker, so that accuracies are not comparable with
those of the whole set.
Command: python -m experiments.train speech-commands-mini
Expected: the row "T-BSO, calibrated" of speech-commands-mini in docs/RESULTS.md; half a minute on 2 CPU cores.
"""

import dataclasses

from experiments.configs import spoken_digits

CONFIG = dataclasses.replace(spoken_digits.CONFIG, dataset="speech_commands_mini", epochs=20)
