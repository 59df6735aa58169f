"""Sequences of unequal length in stored form: padded frames, whose last feature is 1 where a frame is valid."""

from collections.abc import Sequence

import numpy as np

from experiments.data.stored import Example, ToStored, spectrograms


def spectra(sample_rate: int) -> ToStored:
    """Returns the function that makes log-mel spectra, 32 frames per second, float32 ``(chunk, 32, 33)``.

    A clip has as many frames as it is long, up to one second.

    Args:
      sample_rate: of the clips, in Hz.
    """
    whole = spectrograms(sample_rate)

    def to_stored(examples: Sequence[Example], num_steps: int) -> np.ndarray:
        frames = whole(examples, num_steps)[..., 0]
        hop = sample_rate // (frames.shape[1] - 1)
        lengths = [min(1 + len(example["audio"]) // hop, frames.shape[1]) for example in examples]
        return _flagged(frames, np.array(lengths))

    return to_stored


def spike_counts(units: int, pooled: int, bin_us: int) -> ToStored:
    """Returns the function that bins spikes by time and unit: uint8 ``(chunk, num_steps, units / pooled + 1)``.

    A recording has as many frames as there are bins up to its last spike, num_steps at most.

    Args:
      units: of the recordings.
      pooled: how many neighbouring units are one channel.
      bin_us: the length of a frame, in microseconds.
    """

    def to_stored(examples: Sequence[Example], num_steps: int) -> np.ndarray:
        frames = np.zeros((len(examples), num_steps, units // pooled), np.int64)
        lengths = np.zeros(len(examples), int)
        for index, example in enumerate(examples):
            bins, channels = example["events"][:, 0] // bin_us, example["events"][:, 1] // pooled
            lengths[index] = min(bins.max(initial=0) + 1, num_steps)
            kept = bins < num_steps
            np.add.at(frames[index], (bins[kept], channels[kept]), 1)
        return _flagged(np.minimum(frames, 255).astype(np.uint8), lengths)

    return to_stored


def _flagged(frames: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    there = np.arange(frames.shape[1]) < lengths[:, None]
    kept = np.where(there[..., None], frames, 0)
    return np.concatenate([kept, there[..., None]], axis=-1).astype(frames.dtype)
