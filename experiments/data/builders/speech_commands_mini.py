"""A small set made of clips of the test set of Speech Commands."""

import functools
import zlib
from typing import Any

import tensorflow_datasets as tfds

from experiments.data.builders._builder import Examples, SourceBuilder, audio_feature, check_classes
from experiments.data.builders._files import Member, decode_wav, decoded, find_members
from experiments.data.builders._speech import CLASSES, SAMPLE_RATE, speaker_of, word_of

TEST_SHARE = 5
"""One speaker in so many is a test speaker."""


class SpeechCommandsMini(SourceBuilder):
    """Clips in the layout of speech_commands_test_set_v0.02, split by speaker; not comparable with published numbers.

    For machines that hold a part of the official test set and not the rest. The source has a folder for each of the 12
    classes. A fifth of the speakers, by a checksum of the name, are the test set with all of their clips; a clip of
    silence is a speaker by itself.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.described(CLASSES, audio=audio_feature())

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        splits: dict[str, list[Member]] = {"train": [], "test": []}
        for member in find_members(self.source):
            if member.name.endswith(".wav"):
                if word_of(member.name) not in CLASSES:
                    raise ValueError(f"source: {member}: its folder is none of the classes {', '.join(CLASSES)}.")
                is_test = zlib.crc32(speaker_of(member.name).encode()) % TEST_SHARE == 0
                splits["test" if is_test else "train"].append(member)
        for split, members in splits.items():
            check_classes(self.source, split, (word_of(member.name) for member in members), CLASSES)
        return {split: self._generate_examples(members) for split, members in splits.items()}

    def _generate_examples(self, members: list[Member]) -> Examples:
        for member, samples in decoded(members, functools.partial(decode_wav, sample_rate=SAMPLE_RATE)):
            yield f"{member.container.name}/{member.name}", {"audio": samples, "label": word_of(member.name)}
