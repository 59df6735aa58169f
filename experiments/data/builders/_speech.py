"""What the sets made of Speech Commands have in common (Warden 2018, arXiv 1804.03209)."""

from pathlib import PurePosixPath

SAMPLE_RATE = 16000
COMMANDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
UNKNOWN, SILENCE = "_unknown_", "_silence_"
CLASSES = [*COMMANDS, UNKNOWN, SILENCE]


def word_of(name: str) -> str:
    """Returns the folder that a clip lies in: its word."""
    return PurePosixPath(name).parent.name


def speaker_of(name: str) -> str:
    """Returns who speaks: the name up to ``_nohash_``, without the word that clips of other words have before it.

    A clip of silence has no speaker; its own name stands for one.
    """
    stem = PurePosixPath(name).name.split(".")[0]
    return stem.split("_nohash_")[0].split("_")[-1]
