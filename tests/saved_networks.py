"""Networks with drawn numbers, and what their saved files must do: come back alike, or be refused cheaply."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hostile_files import frugal_refusal

import bsojax
from bsojax.models import SpikingMLP, SpikingResNet, SpikingRNN, SpikingVGG, cifar_stem

T = 2
TX = bsojax.split_optimizer(bsojax.bso(1e-3, b1=0.9), optax.sgd(0.1))
SMALL = SpikingMLP(features=(8, 9), num_classes=3)


def batch(shape, size=4):
    return np.random.default_rng(0).random((size, *shape)).astype(np.float32)


def made(model, shape=(5,)):
    """A state with other numbers in all leaves than those at the beginning; drawn, as nothing is compiled for it."""
    x = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shape if has_arrays(shape) else batch(shape)
    )
    like = jax.eval_shape(lambda key: bsojax.init(model, optax.identity(), key, x), jax.random.key(0))
    rng = np.random.default_rng(1)

    def drawn(leaf):
        values = rng.random(leaf.shape)
        return jnp.asarray(values > 0.5 if leaf.dtype == bool else values + 0.1, leaf.dtype)

    return jax.tree.map(drawn, like)


def has_arrays(tree):
    return any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree))


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def refusal(path, *arguments, **options):
    """The message with which a file is refused, cheaply: by a ValueError, nothing else, that begins with its path."""
    return frugal_refusal(path, lambda: bsojax.load_model(path, *arguments, **options))


STOCK = {
    "mlp": (SMALL, (5,)),
    "if": (
        SpikingMLP((6, 6), 3, True, bsojax.IF, bsojax.Affine, bsojax.rsqrt_fan_in),
        (2, 3),
    ),
    "rnn": (SpikingRNN((6, 5), 3, neuron=functools.partial(bsojax.ALIF, tau=(1.5,), beta=0.5)), (5,)),
    "vgg": (
        SpikingVGG(
            channels=(4, "M", 6),
            neuron=functools.partial(bsojax.PLIF, trace=bsojax.ndot, surrogate=bsojax.atan(3.0)),
            norm=functools.partial(bsojax.BatchNorm, num_steps=T, epsilon=1e-3),
        ),
        (4, 4, 2),
    ),
    "resnet": (SpikingResNet(3, (1, 1), 4, cifar_stem, bsojax.CubaLIF, bsojax.BatchRenorm), (4, 4, 3)),
}
