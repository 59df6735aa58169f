"""What every contender computes: sizes, settings and data; it imports nothing but numpy."""

import numpy as np

BATCH = 64
IMAGE = 28
CHANNELS = (32, 64, 128)
CLASSES = 10
DECAY = 0.5
THRESHOLD = 1.0
SLOPE = 4.0
LEARNING_RATE = 1e-3


def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Returns float32 images in [0, 1) of shape ``(batch, height, width, 1)`` and int32 labels: noise from one seed."""
    random = np.random.default_rng(0)
    images = random.random((BATCH, IMAGE, IMAGE, 1), np.float32)
    return images, random.integers(0, CLASSES, BATCH).astype(np.int32)
