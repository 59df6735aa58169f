"""The Free Spoken Digit Dataset from its own files."""

import functools
import re
from typing import Any

import tensorflow_datasets as tfds

from experiments.data.builders._builder import Examples, SourceBuilder, audio_feature, check_classes, check_unique
from experiments.data.builders._files import Member, decode_wav, decoded, find_members

SAMPLE_RATE = 8000
NUM_TEST = 5
"""Recordings 0 .. 4 of each digit and speaker are the test set."""

NAME = re.compile(r"(?:^|/)(\d)_([A-Za-z]+)_(\d+)\.wav$")
DIGITS = [str(digit) for digit in range(10)]


class Fsdd(SourceBuilder):
    """Spoken digits, 8 kHz, by Zohar Jackson and others; 3,000 recordings of 6 speakers (CC BY-SA 4.0).

    The source holds ``<digit>_<speaker>_<n>.wav`` in any folder; the set's own split: n = 0 .. 4 is the test set, so
    the same speakers are on both sides.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.described(DIGITS, audio=audio_feature())

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        splits: dict[str, dict[Member, tuple[str, str]]] = {"train": {}, "test": {}}
        for member in find_members(self.source):
            if not member.name.endswith(".wav"):
                continue
            found = NAME.search(member.name)
            if found is None:
                raise ValueError(f"source: {member}: the name is not <digit>_<speaker>_<n>.wav.")
            digit, speaker, number = found.groups()
            split = "test" if int(number) < NUM_TEST else "train"
            splits[split][member] = f"{digit}_{speaker}_{int(number)}", digit
        for split, members in splits.items():
            check_unique((key for key, _ in members.values()), self.source)
            check_classes(self.source, split, (digit for _, digit in members.values()), DIGITS)
        return {split: self._generate_examples(members) for split, members in splits.items()}

    def _generate_examples(self, members: dict[Member, tuple[str, str]]) -> Examples:
        for member, samples in decoded(members, functools.partial(decode_wav, sample_rate=SAMPLE_RATE)):
            key, digit = members[member]
            yield key, {"audio": samples, "label": digit}


class FsddSequence(Fsdd):
    """The same recordings, for networks that hear them frame by frame; source and splits as Fsdd."""

    VERSION = tfds.core.Version("1.0.0")
