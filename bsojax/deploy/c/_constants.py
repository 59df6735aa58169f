"""Weights and tables in the form that C reads: signs as bits, in the order in which they are read."""

import numpy as np

WORD = 32


def lanes_for(channels: int, groups: int = 1) -> int:
    """How many outputs are computed side by side: as many as vectors hold, with little padding."""
    if groups > 1:
        each = channels // groups
        return min(64, each & -each)
    return next(lanes for lanes in (64, 32, 16, 8, 4) if channels % lanes == 0 or lanes == 4 or channels > 4 * lanes)


def padded(channels: int, lanes: int) -> int:
    """The number of channels, including those that fill up the last lanes."""
    return -(-channels // lanes) * lanes


def words_of(channels: int) -> int:
    """How many words the spikes of a pixel take."""
    return -(-channels // WORD)


def patch_words(elements: int, channels: int) -> int:
    """How many words the spikes under a kernel take; several elements share a word where channels are few."""
    return -(-elements // (WORD // channels)) if channels < WORD else elements * words_of(channels)


def signs_for_spikes(kernel: np.ndarray, lanes: int) -> np.ndarray:
    """Signs for gathered spikes: uint32 of shape ``(blocks, words, lanes)``."""
    high, wide, channels, out = kernel.shape
    elements = kernel.reshape(high * wide, channels, out)
    if channels < WORD:
        together = WORD // channels
        bits = np.zeros((patch_words(high * wide, channels) * together, channels, out), np.bool_)
        bits[: high * wide] = elements
        bits = bits.reshape(-1, together * channels, out)
    else:
        bits = np.zeros((high * wide, words_of(channels) * WORD, out), np.bool_)
        bits[:, :channels] = elements
        bits = bits.reshape(-1, WORD, out)
    rows = np.zeros((bits.shape[0], padded(out, lanes)), np.uint32)
    for bit in range(bits.shape[1]):
        rows[:, :out] |= bits[:, bit].astype(np.uint32) << np.uint32(bit)
    return rows.reshape(len(rows), -1, lanes).transpose(1, 0, 2)


def signs_for_numbers(kernel: np.ndarray, groups: int, lanes: int) -> np.ndarray:
    """Signs for numbers: uint32 of shape ``(groups, elements * channels, words of padded outputs)``."""
    out = kernel.shape[-1] // groups
    rows = kernel.reshape(-1, groups, out).transpose(1, 0, 2)
    bits = np.zeros((*rows.shape[:2], words_of(padded(out, lanes)) * WORD), np.bool_)
    bits[..., :out] = rows
    places = bits.reshape(*rows.shape[:2], -1, WORD) << np.arange(WORD, dtype=np.uint32)
    words: np.ndarray = places.sum(-1, dtype=np.uint32)
    return words


def weights(kernel: np.ndarray, groups: int, lanes: int) -> np.ndarray:
    """Whole weights: int32 of shape ``(groups, elements * channels, padded outputs of a group)``."""
    out = kernel.shape[-1] // groups
    rows = kernel.reshape(-1, groups, out).transpose(1, 0, 2)
    return np.pad(rows, ((0, 0), (0, 0), (0, padded(out, lanes) - out))).astype(np.int32)


def table(values: np.ndarray, lanes: int) -> np.ndarray:
    """Gains or shifts, with zeros for padding channels."""
    return np.pad(values, ((0, 0), (0, padded(values.shape[1], lanes) - values.shape[1])))


def c_array(kind: str, name: str, values: np.ndarray) -> str:
    """The definition of an array."""
    flat = np.asarray(values).reshape(-1).tolist()
    form = "0x{:x}u".format if kind == "word" else _integer
    lines = [", ".join(map(form, flat[first : first + 12])) for first in range(0, len(flat), 12)]
    return f"static const {kind} {name}[{len(flat)}] = {{\n  " + ",\n  ".join(lines) + "};\n"


def _integer(value: int) -> str:
    return str(value) if value > -(2**31) else "(-2147483647 - 1)"
