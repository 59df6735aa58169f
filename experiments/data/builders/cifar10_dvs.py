"""CIFAR10-DVS from its own files."""

import re
from typing import Any

import tensorflow_datasets as tfds

from experiments.data.builders._builder import Examples, SourceBuilder, check_unique, events_feature
from experiments.data.builders._files import Member, decoded, find_members
from experiments.data.builders._recordings import decode_aedat, decode_mat

TEST_SHARE = 10
"""The last one in so many recordings of each class, by number, are the test set: 100 of 1,000."""

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NAME = re.compile(r"(?:^|/)cifar10_([a-z]+)_(\d+)\.(aedat|mat)$")


class Cifar10Dvs(SourceBuilder):
    """Images of CIFAR-10, moved on a screen before an event camera: 10,000 recordings of 128 x 128 pixels (CC BY 4.0).

    Li, Liu, Ji, Li and Shi, Frontiers in Neuroscience 11:309, 2017. The source holds
    ``<class>/cifar10_<class>_<n>.aedat``, or .mat files that the set's script made of these, in folders or a zip a
    class. The set has no split of its own; the usual one of 9,000 and 1,000 is made, not at random.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.described(CLASSES, events=events_feature())

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        classes: dict[str, dict[int, Member]] = {name: {} for name in CLASSES}
        members = [member for member in find_members(self.source) if member.name.endswith((".aedat", ".mat"))]
        names = {member: NAME.search(member.name) for member in members}
        for member, found in names.items():
            if found is None or found[1] not in classes:
                raise ValueError(f"source: {member}: the name is not cifar10_<class>_<n> with one of the ten classes.")
            classes[found[1]][int(found[2])] = member
        check_unique((f"cifar10_{found[1]}_{int(found[2])}" for found in names.values() if found), self.source)
        self._check_complete(classes)
        splits: dict[str, dict[Member, tuple[str, str]]] = {"train": {}, "test": {}}
        for name, numbered in classes.items():
            for rank, number in enumerate(sorted(numbered)):
                split = "test" if rank >= len(numbered) - len(numbered) // TEST_SHARE else "train"
                splits[split][numbered[number]] = f"{name}_{number}", name
        return {split: self._generate_examples(members) for split, members in splits.items()}

    def _generate_examples(self, members: dict[Member, tuple[str, str]]) -> Examples:
        for suffix, decode in ((".aedat", decode_aedat), (".mat", decode_mat)):
            for member, events in decoded((member for member in members if member.name.endswith(suffix)), decode):
                key, name = members[member]
                yield key, {"events": events, "label": name}

    def _check_complete(self, classes: dict[str, dict[int, Member]]) -> None:
        """The split goes by number: a recording that is missing would move others across it."""
        count = max(map(len, classes.values()))
        if count < TEST_SHARE:
            raise ValueError(f"source: {self.source} holds at most {count} recordings of a class, not 1,000.")
        for name, members in classes.items():
            if len(members) != count:
                raise ValueError(f"source: {self.source} holds {len(members)} recordings of {name}, of others {count}.")
            gaps = set(range(min(members), max(members) + 1)) - set(members)
            if gaps:
                raise ValueError(f"source: {self.source} lacks recording {min(gaps)} of {name}.")
