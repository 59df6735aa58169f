"""Speech Commands, 12 classes, from its own archives."""

import functools
import math
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from experiments.data.builders._builder import Examples, SourceBuilder, audio_feature, check_classes, check_unique
from experiments.data.builders._files import Member, decode_wav, decoded, find_members, read_members
from experiments.data.builders._speech import CLASSES, COMMANDS, SAMPLE_RATE, SILENCE, UNKNOWN, word_of

OTHERS_PERCENT = 10
"""Clips of unknown words, and of silence, for every hundred clips of the ten commands."""

SEED = 1804
SPLITS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
"""The splits, and the part of each recording of background noise, by time, that their silence is cut from."""

NOISE = "_background_noise_"
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
TEST_SET = re.compile(r"speech_commands_test_set")


class SpeechCommands12(SourceBuilder):
    """Speech Commands v0.02 with 12 classes: ten commands, unknown words, silence; clips of one second, 16 kHz.

    Warden 2018, arXiv 1804.03209 (CC BY 4.0). The source is speech_commands_v0.02, unpacked or not, or a folder that
    also holds speech_commands_test_set_v0.02. Clips are split by validation_list.txt and testing_list.txt, speakers
    apart. As in the recipe that came with the set, a split has ``ceil(commands / 10)`` clips of unknown words, drawn
    without replacement and with a fixed seed from all other words of the same split, and as many seconds of silence.
    These are cut at random places, with a fixed seed and at their own loudness, from the background noise: the first
    80% of each recording for training, the next and the last tenth for validation and test.

    Where speech_commands_test_set_v0.02 is there, it is the test split instead, all 12 classes of it, and published
    numbers are of that; its silence comes from the same recordings of noise as that of the training split.
    """

    name = "speech_commands_12"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.described(CLASSES, audio=audio_feature())

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        members = find_members(self.source)
        official = [member for member in members if _in_test_set(member) and member.name.endswith(".wav")]
        splits, noise = self._by_list([member for member in members if not _in_test_set(member)])
        generators = {}
        for number, (split, clips) in enumerate(splits.items()):
            if split == "test" and official:
                labels = {member: word_of(member.name) for member in official}
                check_classes(self.source, split, labels.values(), CLASSES)
                generators[split] = self._generate_examples(labels, 0, [], split)
                continue
            labels, silence = _drawn(clips, np.random.default_rng([SEED, number]))
            check_classes(self.source, split, [*labels.values(), SILENCE], CLASSES)
            generators[split] = self._generate_examples(labels, silence, noise, split)
        return generators

    def _by_list(self, members: list[Member]) -> tuple[dict[str, list[Member]], list[Member]]:
        """Returns the clips of the splits, and the recordings of noise."""
        texts = [member for member in members if PurePosixPath(member.name).name in LISTS.values()]
        waves = [member for member in members if member.name.endswith(".wav")]
        check_unique(map(_key, waves), self.source)
        noise = [member for member in waves if word_of(member.name) == NOISE]
        if not noise:
            raise ValueError(f"source: {self.source} holds no {NOISE}/*.wav, from which silence is cut.")
        clips = {_key(member): member for member in waves if member not in noise}
        lines = {PurePosixPath(text.name).name: data.decode().split() for text, data in read_members(texts)}
        splits: dict[str, list[Member]] = {split: [] for split in SPLITS}
        for split, name in LISTS.items():
            if name not in lines:
                raise ValueError(f"source: {self.source} lacks {name}, which says what the {split} split is.")
            for line in lines[name]:
                if line not in clips:
                    raise ValueError(f"source: {self.source} lacks {line}, which {name} lists; is it complete?")
                splits[split].append(clips.pop(line))
        splits["train"] = list(clips.values())
        return splits, noise

    def _generate_examples(self, labels: dict[Member, str], silence: int, noise: list[Member], split: str) -> Examples:
        decode = functools.partial(decode_wav, sample_rate=SAMPLE_RATE)
        for member, samples in decoded(labels, decode):
            yield _key(member), {"audio": samples, "label": labels[member]}
        recordings = _parts(decoded(noise, decode), *SPLITS[split]) if silence else []
        generator = np.random.default_rng([SEED, len(SPLITS), list(SPLITS).index(split)])
        for number in range(silence):
            part = recordings[generator.integers(len(recordings))]
            start = generator.integers(len(part) - SAMPLE_RATE + 1)
            yield f"{SILENCE}/{number}", {"audio": part[start : start + SAMPLE_RATE], "label": SILENCE}


def _key(member: Member) -> str:
    """The clip's name as the lists have it: its word and its file."""
    return f"{word_of(member.name)}/{PurePosixPath(member.name).name}"


def _in_test_set(member: Member) -> bool:
    inside = PurePosixPath(member.name).parts[0]
    return bool(TEST_SET.match(member.container.name) or TEST_SET.match(inside))


def _drawn(clips: list[Member], generator: np.random.Generator) -> tuple[dict[Member, str], int]:
    """Returns the commands' clips and the drawn unknown words with their labels, and how many clips of silence."""
    commands = {member: word_of(member.name) for member in clips if word_of(member.name) in COMMANDS}
    others = sorted(member for member in clips if member not in commands)
    count = math.ceil(len(commands) * OTHERS_PERCENT / 100)
    chosen = generator.permutation(len(others))[:count]
    return commands | {others[index]: UNKNOWN for index in chosen}, count


def _parts(recordings: Iterable[tuple[Member, np.ndarray]], begin: float, end: float) -> list[np.ndarray]:
    parts = []
    for member, samples in recordings:
        part = samples[round(begin * len(samples)) : round(end * len(samples))]
        if len(part) < SAMPLE_RATE:
            raise ValueError(f"source: {member}: a tenth of it is shorter than a second; it is truncated.")
        parts.append(part)
    return parts
