"""N-MNIST from its own files."""

import functools
import re
from typing import Any

import tensorflow_datasets as tfds

from experiments.data.builders._builder import Examples, SourceBuilder, check_classes, check_unique, events_feature
from experiments.data.builders._files import Member, decoded, find_members
from experiments.data.builders._recordings import decode_bin

SIDE = 34
"""Pixels of the recordings' height and width."""

NAME = re.compile(r"(?:^|/)(Train|Test)/(\d)/(\d+)\.bin$")
DIGITS = [str(digit) for digit in range(10)]


class NMnist(SourceBuilder):
    """The digits of MNIST, moved before an event camera: 60,000 + 10,000 recordings of 34 x 34 pixels (CC BY-SA 4.0).

    Orchard, Jayawant, Cohen and Thakor, Frontiers in Neuroscience 9:437, 2015. The source holds
    ``Train/<digit>/<n>.bin`` and ``Test/<digit>/<n>.bin``: a folder with both, with ``Train.zip`` and ``Test.zip``, or
    one archive.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.described(DIGITS, events=events_feature())

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        splits: dict[str, dict[Member, tuple[str, str]]] = {"train": {}, "test": {}}
        for member in find_members(self.source):
            if not member.name.endswith(".bin"):
                continue
            found = NAME.search(member.name)
            if found is None:
                raise ValueError(f"source: {member}: it lies in no folder Train/<digit> or Test/<digit>.")
            split, digit, number = found.groups()
            splits[split.lower()][member] = f"{digit}/{number}", digit
        for split, members in splits.items():
            check_unique((key for key, _ in members.values()), self.source)
            check_classes(self.source, split, (digit for _, digit in members.values()), DIGITS)
        return {split: self._generate_examples(members) for split, members in splits.items()}

    def _generate_examples(self, members: dict[Member, tuple[str, str]]) -> Examples:
        for member, events in decoded(members, functools.partial(decode_bin, height=SIDE, width=SIDE)):
            key, digit = members[member]
            yield key, {"events": events, "label": digit}
