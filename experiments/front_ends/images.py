"""Front ends of images: scaling, and the augmentation that is usual for CIFAR and ImageNet.

Every random function draws for each example from the key folded with the example's position in the global batch, so
under ``jit`` the result does not depend on how many devices share the batch.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from experiments.front_ends._front_end import FrontEnd
from experiments.front_ends._per_example import per_example

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
"""Over all pixels of the training images. (Widespread too: .2023, .1994, .2010, the mean of the images' own.)"""

CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CROP_PADDING = 4
"""Zero pixels around a CIFAR image before its random crop."""


def scaled(largest: float) -> FrontEnd:
    """Stored uint8 images as float32 divided by ``largest``, without augmentation: for digits and Fashion-MNIST.

    Args:
      largest: the largest stored value, 255 of most sets and 16 of scikit-learn's digits.

    Raises:
      ValueError: largest is not a positive finite number.
    """
    if not 0 < largest < math.inf:
        raise ValueError(f"largest: must be a positive finite number, got {largest!r}.")

    def evaluate(images: jax.Array) -> jax.Array:
        _check_stored(images)
        return images.astype(jnp.float32) / jnp.float32(largest)

    levels = int(largest) if largest == int(largest) else None
    return FrontEnd(lambda key, images: evaluate(images), evaluate, levels)


def cifar(mean: Sequence[float], std: Sequence[float], cutout: int = 16) -> FrontEnd:
    """The usual recipe of CIFAR-10 and CIFAR-100: crop, flip, normalise, cutout.

    Training, in this order (He et al. 2016; cutout last, after normalisation, as DeVries & Taylor 2017 do, so that the
    square is filled with the mean colour): 4 black pixels on every side and a random crop of the old size; a flip of
    left and right with probability 1/2; scaling to [0, 1]; normalisation; cutout. Evaluation: scaling, normalisation.

    Args:
      mean: of each channel of the scaled images, such as ``CIFAR10_MEAN``.
      std: likewise, such as ``CIFAR10_STD``.
      cutout: the side of the square in pixels (16 for CIFAR-10, 8 for CIFAR-100 in that paper); 0 for none.

    Raises:
      ValueError: cutout is negative, or mean and std do not fit.
    """
    _check_statistics(mean, std)
    _check_not_negative("cutout", cutout)

    def evaluate(images: jax.Array) -> jax.Array:
        _check_stored(images)
        return _standard(images, mean, std)

    def train(key: jax.Array, images: jax.Array) -> jax.Array:
        _check_stored(images)
        crop_key, flip_key, cut_key = jax.random.split(key, 3)
        # Moved while a pixel is still one byte per channel; the padding's zeros are black either way.
        images = random_flip(flip_key, random_crop(crop_key, images, CROP_PADDING))
        return _cut_out(cut_key, _standard(images, mean, std), cutout)

    return FrontEnd(train, evaluate)


def imagenet(size: int = 224) -> FrontEnd:
    """Crops of stored ImageNet images, whose shorter side and centre were brought to 256 x 256 beforehand.

    Training: a random ``size`` x ``size`` window, a flip of left and right with probability 1/2, normalisation.
    Evaluation: the window in the centre, normalisation. The scale of an object is not varied, as it is by crops of
    random size from the original files: stored images are small and of one shape instead.

    Args:
      size: the side of the window in pixels.

    Raises:
      ValueError: size is less than 1 or, when a batch is given, larger than its images.
    """
    if size < 1:
        raise ValueError(f"size: must be at least 1 pixel, got {size}.")

    def evaluate(images: jax.Array) -> jax.Array:
        _check_stored(images, size)
        top, left = ((side - size) // 2 for side in images.shape[-3:-1])
        return _standard(images[..., top : top + size, left : left + size, :], IMAGENET_MEAN, IMAGENET_STD)

    def train(key: jax.Array, images: jax.Array) -> jax.Array:
        _check_stored(images, size)
        crop_key, flip_key = jax.random.split(key)
        images = random_flip(flip_key, _random_windows(crop_key, images, size, size))
        return _standard(images, IMAGENET_MEAN, IMAGENET_STD)

    return FrontEnd(train, evaluate)


def normalise(x: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Returns ``(x - mean) / std``, channel by channel.

    Args:
      x: floating, channels last.
      mean: one number per channel.
      std: likewise, positive.

    Raises:
      ValueError: mean and std do not fit x or each other, or a deviation is not positive.
    """
    _check_statistics(mean, std)
    if x.shape[-1] != len(mean):
        raise ValueError(f"mean, std: {len(mean)} numbers for the {x.shape[-1]} channels of x, shape {x.shape}.")
    shape = (1,) * (x.ndim - 1) + (-1,)
    return (x - jnp.asarray(mean, x.dtype).reshape(shape)) / jnp.asarray(std, x.dtype).reshape(shape)


def random_crop(key: jax.Array, images: jax.Array, padding: int) -> jax.Array:
    """Pads each image with zeros and cuts a random window of the old size out of it.

    Args:
      key: a PRNG key.
      images: shape ``(batch, ..., height, width, channels)``, any dtype; axes between the batch and the height, such
        as time, are cut alike.
      padding: pixels on every side, so that shifts reach from ``-padding`` to ``+padding``, all equally likely.

    Returns:
      Shape and dtype of images.

    Raises:
      ValueError: padding is negative.
    """
    _check_not_negative("padding", padding)
    height, width = images.shape[-3:-1]
    margins = [(0, 0)] * (images.ndim - 3) + [(padding, padding)] * 2 + [(0, 0)]
    return _random_windows(key, jnp.pad(images, margins), height, width)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Swaps left and right of each image with probability 1/2; twice with the same key changes nothing.

    Args:
      key: a PRNG key.
      images: shape ``(batch, ..., height, width, channels)``, any dtype.
    """

    def flip(key: jax.Array, image: jax.Array) -> jax.Array:
        return jnp.where(jax.random.bernoulli(key), jnp.flip(image, axis=-2), image)

    return per_example(flip, key, images)


def cutout(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    """Sets a random square of each image to zero; use it on normalised images, whose mean is zero.

    The centre is uniform over the pixels and the square is clipped at the border, so a part of it may lie outside
    (DeVries & Taylor 2017, arXiv 1708.04552).

    Args:
      key: a PRNG key.
      images: shape ``(batch, ..., height, width, channels)``, any dtype.
      size: the side of the square in pixels; 0 changes nothing.

    Raises:
      ValueError: size is negative.
    """
    _check_not_negative("size", size)
    return _cut_out(key, images, size)


def _standard(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    return normalise(images.astype(jnp.float32) / 255, mean, std)


def _place(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """A random row and column, int32. (``randint`` draws twice as many bits and takes twice as long to compile.)"""
    return (jax.random.uniform(key, (2,)) * jnp.array([rows, columns], jnp.float32)).astype(jnp.int32)


def _random_windows(key: jax.Array, images: jax.Array, height: int, width: int) -> jax.Array:
    choices = (images.shape[-3] - height + 1, images.shape[-2] - width + 1)

    def window(key: jax.Array, image: jax.Array) -> jax.Array:
        top, left = _place(key, *choices)
        image = jax.lax.dynamic_slice_in_dim(image, top, height, axis=image.ndim - 3)
        return jax.lax.dynamic_slice_in_dim(image, left, width, axis=image.ndim - 2)

    return per_example(window, key, images)


def _cut_out(key: jax.Array, images: jax.Array, size: int) -> jax.Array:
    height, width = images.shape[-3:-1]

    def cut(key: jax.Array, image: jax.Array) -> jax.Array:
        top, left = _place(key, height, width) - size // 2
        rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
        inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
        return jnp.where(jnp.expand_dims(inside, range(image.ndim - 3)), jnp.zeros((), image.dtype), image)

    return per_example(cut, key, images)


def _check_stored(images: jax.Array, size: int = 1) -> None:
    if images.dtype != jnp.uint8:
        raise TypeError(f"images: stored images are uint8, not {images.dtype}; they are scaled here, not before.")
    if images.ndim != 4:
        raise ValueError(f"images: a stored batch is (batch, height, width, channels), not {images.shape}.")
    if min(images.shape[1:3]) < size:
        raise ValueError(f"size: a crop of {size} does not fit into images of {images.shape[1]} x {images.shape[2]}.")


def _check_statistics(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std) or not all(0 < deviation < math.inf for deviation in std):
        raise ValueError(f"mean, std: need one number per channel each, std positive, not {mean} and {std}.")


def _check_not_negative(name: str, pixels: int) -> None:
    if pixels < 0:
        raise ValueError(f"{name}: must not be negative, got {pixels}.")
