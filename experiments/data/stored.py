"""Conversion of examples from TensorFlow Datasets to the form that a split stores, one chunk at a time."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.front_ends import audio, events

Example = dict[str, Any]
"""One example of a prepared set: numpy values, and images as the bytes of their files."""

ToStored = Callable[[Sequence[Example], int], np.ndarray]
"""A function of a chunk of examples and the number of time steps: the stored array of shape ``(chunk, ...)``."""

FIXED_POINT = 8
"""Stored units per event in resized frames: an event that four pixels share must not vanish in rounding."""


def pixels(examples: Sequence[Example], num_steps: int) -> np.ndarray:
    """Images as they are: uint8 ``(chunk, height, width, channels)``."""
    images = [example["image"] for example in examples]
    return np.stack([decode_image(image) if isinstance(image, bytes) else image for image in images])


def decode_image(file: bytes) -> np.ndarray:
    """Returns the pixels of a PNG or JPEG file, uint8 ``(height, width, channels)``."""
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(file)))
    return image if image.ndim == 3 else image[..., None]


def decode_square(file: bytes, size: int = 256) -> np.ndarray:
    """Returns the centre of an image whose shorter side was resized to ``size``: uint8 ``(size, size, 3)``.

    Bilinear over the whole area that a new pixel covers; grey and CMYK images become RGB.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(file)).convert("RGB")
    width, height = (max(size, round(side * size / min(image.size))) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def event_frames(height: int, width: int, resized: tuple[int, int] | None = None) -> ToStored:
    """Returns the function that bins recordings into uint8 frames ``(chunk, num_steps, height, width, 2)``.

    Args:
      height: the sensor's, in pixels.
      width: the sensor's, in pixels.
      resized: the size of stored frames, which then hold FIXED_POINT units per event; None: the sensor's, and events.
    """

    def to_stored(examples: Sequence[Example], num_steps: int) -> np.ndarray:
        recordings = [example["events"] for example in examples]
        padded = np.zeros((_power_of_two(len(recordings)), _power_of_two(max(map(len, recordings))), 4), np.int32)
        counts = np.zeros(len(padded), np.int32)
        for index, recording in enumerate(recordings):
            if len(recording) and (
                recording.min() < 0 or np.any(recording.max(axis=0)[1:] >= np.array([width, height, 2]))
            ):
                raise ValueError(f"events: one lies outside a sensor of {height} x {width} pixels.")
            padded[index, : len(recording)], counts[index] = recording, len(recording)
        return np.asarray(_frames(padded, counts, num_steps, height, width, resized))[: len(recordings)]

    return to_stored


def spectrograms(sample_rate: int) -> ToStored:
    """Returns the function that makes log-mel spectrograms, float32 ``(chunk, 32, 32, 1)``, of the clips' first second.

    Args:
      sample_rate: of the clips, in Hz; shorter ones are padded with zeros at the end.
    """

    def to_stored(examples: Sequence[Example], num_steps: int) -> np.ndarray:
        waves = np.zeros((_power_of_two(len(examples)), sample_rate), np.float32)
        for index, example in enumerate(examples):
            samples = example["audio"][:sample_rate]
            waves[index, : len(samples)] = samples / np.float32(32768)
        return np.asarray(_log_mel(waves, sample_rate))[: len(examples)]

    return to_stored


def _power_of_two(size: int) -> int:
    """The size to pad to, so that a whole split needs a handful of compilations."""
    return 1 << max(size - 1, 0).bit_length()


_log_mel = jax.jit(audio.log_mel, static_argnums=1)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _frames(
    recordings: jax.Array, counts: jax.Array, num_steps: int, height: int, width: int, size: tuple[int, int] | None
) -> jax.Array:
    binned = functools.partial(events.bin_events, num_bins=num_steps, height=height, width=width)
    frames = jax.vmap(binned)(recordings, counts)
    if size is None:
        return frames
    shared = FIXED_POINT * events.resized(frames.astype(jnp.float32), *size)
    return jnp.minimum(jnp.round(shared), events.LARGEST_COUNT).astype(jnp.uint8)
