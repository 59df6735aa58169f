"""1,200 clips of Google Speech Commands as 32 x 32 log-mel spectrograms, the network of spoken-digits, T = 2, T-BSO.

Row: none of the paper's. No setting of any rule was chosen on this set: it shows how the rules do on a set that nobody
has tuned them for. It was made from 100 clips for each of 12 classes of the official test set, split by speaker, so
that accuracies are not comparable with those of the whole set.
Command: python -m experiments.train speech-commands-mini
Expected: the row "T-BSO, calibrated" of speech-commands-mini in docs/RESULTS.md; a minute on 2 CPU cores, with its
control.
"""

import dataclasses

from experiments.configs import spoken_digits

CONFIG = dataclasses.replace(spoken_digits.CONFIG, dataset="speech_commands_mini", epochs=20)
