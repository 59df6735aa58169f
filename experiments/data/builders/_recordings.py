"""Decoders of event recordings: int32 rows of time [us] from the first event, x (column), y (row), polarity (1: on)."""

import io
import re

import numpy as np

OVERFLOW_ROW = 240
OVERFLOW_TIME = 2**13
"""A 40-bit event at this row is none: from it on, times are so many us later than they say."""


def decode_bin(data: bytes, height: int, width: int) -> np.ndarray:
    """Returns the events of an N-MNIST file; unlike the others they keep the file's own time.

    Each event is 40 bits, the highest first: 8 of x, 8 of y, 1 of polarity, 23 of time in us (Orchard et al. 2015).

    Raises:
      ValueError: it is empty, not a whole number of events, or not of a sensor of this size in order of time.
    """
    if not data or len(data) % 5:
        raise ValueError(f"its {len(data)} bytes are not a positive multiple of 5; it is truncated.")
    x, y, high, middle, low = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int32).T
    time = (high & 127) << 16 | middle << 8 | low
    overflow = y == OVERFLOW_ROW
    time = time + OVERFLOW_TIME * np.cumsum(overflow, dtype=np.int32)
    return _checked(np.stack([time, x, y, high >> 7], axis=1)[~overflow], height, width)


def decode_aedat(data: bytes) -> np.ndarray:
    """Returns the events of a jAER file of a DVS128 (AER-DAT2.0), the picture upright.

    Lines that begin with # are the header. Each event is two big-endian 32-bit words, address and time in us. Of the
    address, bits 1 to 7 count pixels along one side of the chip and 8 to 14 along the other, bit 0 is 0 for a brighter
    pixel, and bit 31 marks what is no event. The chip of CIFAR10-DVS stood on its side: its picture is upright where
    x = 127 - (bits 8 to 14) and y = 127 - (bits 1 to 7).

    Raises:
      ValueError: it is no such file, or a truncated or empty one.
    """
    if not data.startswith(b"#!AER-DAT2.0"):
        raise ValueError("does not begin with #!AER-DAT2.0.")
    header = re.match(rb"(?:#[^\n]*\n)*", data)
    assert header is not None
    body = data[header.end() :]
    if not body or len(body) % 8:
        raise ValueError(f"its {len(body)} bytes of events are not a positive multiple of 8; it is truncated.")
    address, time = np.frombuffer(body, ">u4").reshape(-1, 2).astype(np.int64).T
    event = address >> 31 == 0
    address, time = address[event], time[event]
    x, y = 127 - (address >> 8 & 127), 127 - (address >> 1 & 127)
    return _checked(np.stack([_from_zero(time), x, y, 1 - (address & 1)], axis=1), 128, 128)


def decode_mat(data: bytes) -> np.ndarray:
    """Returns the events of a MATLAB file that the data set's own script made of a jAER file: the same as of that file.

    The file holds one matrix with a row an event: time in us, two columns without meaning or none, x, y, polarity (1
    for a brighter pixel). The script's x is 127 minus bits 1 to 7 of the address, and its y bits 8 to 14.

    Raises:
      ValueError: it is no such file, or a truncated or empty one.
    """
    from scipy.io import loadmat

    try:
        held = {name: value for name, value in loadmat(io.BytesIO(data)).items() if not name.startswith("__")}
    except Exception as error:  # what it raises on a broken file is not written down anywhere
        raise ValueError(
            f"is no MATLAB file of version 4 to 7.2, or a truncated one ({type(error).__name__}: {error})."
        ) from error
    matrices = [value for value in held.values() if getattr(value, "ndim", 0) == 2 and value.shape[1] in (4, 6)]
    if len(held) != 1 or len(matrices) != 1:
        raise ValueError(
            f"needs one matrix of 4 or 6 columns and nothing else; it holds {', '.join(held) or 'nothing'}."
        )
    matrix = matrices[0].astype(np.int64)
    time, (x, y, polarity) = matrix[:, 0], matrix[:, -3:].T
    return _checked(np.stack([_from_zero(time), 127 - y, x, polarity > 0], axis=1), 128, 128)


def _from_zero(time: np.ndarray) -> np.ndarray:
    """Times from the first event; where they step back the clock was restarted, and goes on from the event before."""
    steps = np.diff(time, prepend=time[:1])
    return np.cumsum(np.where(steps < 0, time, steps))


def _checked(events: np.ndarray, height: int, width: int) -> np.ndarray:
    if not len(events):
        raise ValueError("it holds no event.")
    if events.min() < 0 or np.any(events.max(axis=0) >= np.array([2**31, width, height, 2])):
        raise ValueError(f"an event lies outside a sensor of {height} x {width} pixels, or 2**31 us from the first.")
    if np.any(np.diff(events[:, 0]) < 0):
        raise ValueError("its events are not in order of time.")
    return events.astype(np.int32)
