"""The largest numbers that any input can produce: exact intervals, for each channel."""

import dataclasses
from typing import NamedTuple

import numpy as np

from bsojax.deploy._graph import Neurons, Synapse, Whole

SUM_BITS = 32
"""Width of sums, currents and logits."""

WIDE_BITS = 62
"""Width of sums over currents, which leaves room for rounding them."""

MOST = 2**62
"""More than any width holds and less than int64's limit: the end of larger intervals."""


class Interval(NamedTuple):
    """The smallest and the largest value of a map, for each channel.

    Attributes:
      low, high: int64 of shape ``(1 or num_steps, channels)``.
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def most(self) -> int:
        """The largest magnitude."""
        return max(int(np.max(self.high)), -int(np.min(self.low)))


def constant(low: int, high: int, channels: int) -> Interval:
    """The same interval for all channels."""
    return Interval(*(np.full((1, channels), value, np.int64) for value in (low, high)))


def pooled(source: Interval, area: int) -> Interval:
    """The interval of sums over windows."""
    return Interval(source.low * area, source.high * area)


def flattened(source: Interval, pixels: int) -> Interval:
    """The interval of a vector of all pixels."""
    return Interval(np.tile(source.low, (1, pixels)), np.tile(source.high, (1, pixels)))


def weighted(synapse: Synapse, source: Interval) -> Interval:
    """The interval of sums of weighted inputs, any of which may lie outside the image and be 0."""
    kernel = synapse.kernel
    excitatory, inhibitory = _sums(kernel)
    if float(source.most) * float(np.max((excitatory + inhibitory).sum(0))) >= MOST:
        return constant(-MOST, MOST, kernel.shape[-1])
    out = kernel.shape[-1] // synapse.groups
    low, high = np.minimum(source.low, 0), np.maximum(source.high, 0)
    parts = []
    for group in range(synapse.groups):
        channels = slice(group * kernel.shape[2], (group + 1) * kernel.shape[2])
        outs = slice(group * out, (group + 1) * out)
        up, down = excitatory[:, outs], inhibitory[:, outs]
        parts.append(
            (low[:, channels] @ up - high[:, channels] @ down, high[:, channels] @ up - low[:, channels] @ down)
        )
    lows, highs = zip(*parts, strict=True)
    return Interval(np.concatenate(lows, 1), np.concatenate(highs, 1))


def _sums(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of positive weights, and of the magnitudes of negative ones, per input and output channel."""
    if kernel.dtype == np.bool_:
        excitatory = kernel.sum((0, 1), dtype=np.int64)
        return excitatory, kernel.shape[0] * kernel.shape[1] - excitatory
    return (np.maximum(sign * kernel.astype(np.int64), 0).sum((0, 1)) for sign in (1, -1))  # type: ignore[return-value]


def scaled(scale: Whole, source: Interval) -> Interval:
    """The interval of currents."""
    ends = np.stack([apply(scale.gain, scale.shift, scale.before, scale.after, end) for end in source])
    return Interval(ends.min(0), ends.max(0))


def bits_to_drop(most: int) -> int:
    """How many bits sums must lose, with rounding, to fit into 32."""
    bits = max(0, most.bit_length() + 1 - SUM_BITS)
    return bits + int((most + (1 << bits >> 1)) >> bits >= 2 ** (SUM_BITS - 1))


def widest(scale: Whole, source: Interval) -> int:
    """The largest magnitude held while currents are computed: sums, currents without their shift, currents."""
    sums = Interval(*(rounded(end, scale.before) for end in source))
    return max(sums.most, unshifted(scale, source).most, scaled(scale, source).most)


def product(scale: Whole, source: Interval) -> int:
    """The largest magnitude of gains times sums, including the power of two whose half rounds them."""
    sums = np.max(np.abs([rounded(end, scale.before) for end in source]), 0)
    return int(np.max(np.abs(scale.gain.astype(np.int64)) * sums)) + (1 << scale.after)


def unshifted(scale: Whole, source: Interval) -> Interval:
    """The interval of currents without their shift."""
    return scaled(dataclasses.replace(scale, shift=np.zeros_like(scale.shift)), source)


def summed(scale: Whole, source: Interval, num_steps: int) -> tuple[Interval, int]:
    """The interval of currents summed over time, and the largest magnitude along the way, in any order of summation."""

    def total(rows: np.ndarray) -> np.ndarray:
        sums: np.ndarray = np.sum(rows[np.arange(num_steps) % len(rows)], 0, keepdims=True)
        return sums

    bare = unshifted(scale, source)
    reach = total(np.maximum(-bare.low, bare.high)) + total(np.abs(scale.shift.astype(np.int64)))
    return Interval(*(total(end) for end in scaled(scale, source))), int(np.max(reach))


def apply(gain: np.ndarray, shift: np.ndarray, before: int, after: int, sums: np.ndarray) -> np.ndarray:
    """The currents that belong to sums, all of them int64; see Whole."""
    currents: np.ndarray = rounded(gain.astype(np.int64) * rounded(sums, before), after) + shift
    return currents


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Values shifted right by a number of bits, rounded to the nearest, halves upwards."""
    return (values + (1 << bits >> 1)) >> bits


def added(one: Interval, other: Interval) -> Interval:
    """The interval of sums of two currents."""
    return Interval(one.low + other.low, one.high + other.high)


def charged(neurons: Neurons, current: Interval, num_steps: int) -> Interval:
    """The interval of membranes when the spike is decided, over all time steps.

    A membrane whose product with the decay exceeds int64 exceeded 32 bits one time step earlier.
    """
    low = high = np.zeros_like(current.low[0])
    lows, highs = [], []
    threshold, decay = int(neurons.threshold), int(neurons.decay)
    for t in range(num_steps):
        row = t % len(current.low)
        low, high = ((end * decay) >> neurons.decay_bits for end in (low, high))
        low, high = low + current.low[row], high + current.high[row]
        lows.append(low)
        highs.append(high)
        fires, rests = high >= threshold, low < threshold
        after = np.zeros_like(high) if neurons.hard else high - threshold
        after_low = np.zeros_like(low) if neurons.hard else np.maximum(low, threshold) - threshold
        top, bottom = np.minimum(high, threshold - 1), low
        high = np.where(fires & rests, np.maximum(top, after), np.where(fires, after, top))
        low = np.where(fires & rests, np.minimum(bottom, after_low), np.where(fires, after_low, bottom))
    return Interval(np.stack(lows), np.stack(highs))
